"""What the detectors are fed: blocks of rows, and first labels in order of arrival."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby

import numpy as np
from sqlalchemy import Connection

from service.decisions import DriftKind
from service.events import BlockCounts, FunctionSetVersion
from service.monitor.blocks import unpack
from service.monitor.drift import Counted, Key
from service.monitor.windows import BLOCK_SECONDS, floor_to
from service.store import queries
from service.store.errors import StoreError
from service.store.evidence import FirstLabel
from service.store.uncounted import first_uncounted
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

Sets = Mapping[str, FunctionSetVersion]

EVERY_ROW = Key(ALL_ROWS, None, "accuracy")
"""The accuracy of all rows; their coverage is 1."""

_PART = BLOCK_SECONDS[-1] // BLOCK_SECONDS[0]  # moments that are read at once: an hour of the shortest blocks


def next_blocks(
    connection: Connection, model: str, version: int, since: datetime, until: datetime
) -> list[BlockCounts]:
    """Return the blocks of a model version that come next, in order of time; all of them after a few calls.

    Blocks from the first on that does not count all of its rows wait until it does.

    Parameters
    ----------
    since
        The end of what was read before; what begins earlier is passed over.
    until
        The moment before which rows are final; what reaches beyond it waits.
    """
    starts = queries.block_starts(connection, model, version, since, until, _PART + 1)
    if len(starts) > _PART:
        until = floor_to(starts[-1], BLOCK_SECONDS[-1])  # no block reaches over a full hour
    reaching = queries.counts_between(connection, model, version, since, until) if starts else []
    blocks = [block for block in reaching if block.start >= since]
    until = first_uncounted(connection, model, version, blocks, since, until) or until
    # A long block that has to wait takes with it the short ones of other function sets at its time.
    until = min([until, *(block.start for block in blocks if block.end > until)])
    return [block for block in blocks if block.end <= until]


def known_sets(connection: Connection, hashes: Iterable[str]) -> Sets:
    """Return what set hashes stand for.

    Raises
    ------
    StoreError
        If one was never recorded.
    """
    sets = {}
    for set_hash in hashes:
        functions = queries.function_set(connection, set_hash)
        if functions is None:
            raise StoreError(
                f"function set {set_hash!r} is not in the store, but rows are that were counted with it: "
                "restore the store from a backup, or put these functions in force once, which records them"
            )
        sets[set_hash] = functions
    return sets


def coverages(blocks: Iterable[BlockCounts], sets: Sets, watched: Container[Key]) -> Iterator[Counted]:
    """Yield the members and known rows of every slice that is watched, block by block, in order of time.

    Blocks of one time under several function sets are one; a slice is the same where its function is.
    """
    columns = {set_hash: _columns(functions, "coverage", watched) for set_hash, functions in sets.items()}
    for (start, end), together in groupby(blocks, key=lambda block: (block.start, block.end)):
        counts: dict[Key, Rate] = {}
        for block in together:
            known, member = (block.n - block.unknown).tolist(), block.member.tolist()
            for k, key in columns[block.set_hash]:
                _add(counts, key, member[k], known[k])
        yield Counted(start, end, counts)


def accuracies(labels: Iterable[FirstLabel], sets: Sets, watched: Container[Key]) -> Iterator[Counted]:
    """Yield the right and labelled members of every slice that is watched.

    They are counted by the 10 seconds in which their labels arrived.
    """
    columns = {set_hash: _columns(functions, "accuracy", watched) for set_hash, functions in sets.items()}
    for start, together in groupby(labels, key=lambda label: floor_to(label.at, BLOCK_SECONDS[0])):
        counts: dict[Key, Rate] = {}
        by_set = sorted(together, key=lambda label: label.set_hash)
        for set_hash, group in groupby(by_set, key=lambda label: label.set_hash):
            _count_labels(counts, list(group), len(sets[set_hash].names), columns[set_hash])
        yield Counted(start, start + timedelta(seconds=BLOCK_SECONDS[0]), counts)


def before(labels: Sequence[FirstLabel], until: datetime) -> list[FirstLabel]:
    """Return the labels up to the first that arrived at ``until`` or later."""
    found: list[FirstLabel] = []
    for label in labels:
        if label.at >= until:
            break
        found.append(label)
    return found


def _columns(
    functions: FunctionSetVersion, kind: DriftKind, watched: Container[Key]
) -> list[tuple[int, Key]]:
    """Return the columns of a function set whose slices are watched."""
    pairs = zip(functions.names, functions.fingerprints, strict=True)
    keys = (Key(name, fingerprint, kind) for name, fingerprint in pairs)
    return [(k, key) for k, key in enumerate(keys) if key in watched]


def _count_labels(
    counts: dict[Key, Rate], labels: Sequence[FirstLabel], slices: int, columns: Sequence[tuple[int, Key]]
) -> None:
    member = unpack([label.member for label in labels], slices)
    right = np.array([label.label == label.predicted for label in labels], np.bool_)
    _add(counts, EVERY_ROW, int(right.sum()), len(labels))
    of_slices, right_of_slices = member.sum(axis=0).tolist(), (member & right[:, None]).sum(axis=0).tolist()
    for k, key in columns:
        _add(counts, key, right_of_slices[k], of_slices[k])


def _add(counts: dict[Key, Rate], key: Key, count: int, n: int) -> None:
    there = counts.get(key)
    counts[key] = Rate(count, n) if there is None else Rate(there.count + count, there.n + n)
