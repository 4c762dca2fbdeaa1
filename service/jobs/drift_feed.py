"""What the detectors are fed: blocks of rows, and first labels in order of arrival."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby

import numpy as np

from service.events import BlockCounts, FunctionSetVersion
from service.monitor.blocks import unpack
from service.monitor.drift import Counted, Key
from service.monitor.windows import BLOCK_SECONDS, floor_to
from service.store.evidence import FirstLabel
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

Sets = Mapping[str, FunctionSetVersion]

EVERY_ROW = Key(ALL_ROWS, None, "accuracy")
"""The accuracy of all rows; their coverage is 1."""


def coverages(blocks: Iterable[BlockCounts], sets: Sets) -> Iterator[Counted]:
    """Yield the members and known rows of every slice, block by block, in order of time.

    Blocks of one time under several function sets are one; a slice is the same where its function is.
    """
    for (start, end), together in groupby(blocks, key=lambda block: (block.start, block.end)):
        counts: dict[Key, Rate] = {}
        for block in together:
            functions = sets[block.set_hash]
            known, member = (block.n - block.unknown).tolist(), block.member.tolist()
            for k, (name, fingerprint) in enumerate(
                zip(functions.names, functions.fingerprints, strict=True)
            ):
                _add(counts, Key(name, fingerprint, "coverage"), member[k], known[k])
        yield Counted(start, end, counts)


def accuracies(labels: Iterable[FirstLabel], sets: Sets) -> Iterator[Counted]:
    """Yield the right and labelled members of every slice by the 10 seconds in which their labels arrived."""
    for start, together in groupby(labels, key=lambda label: floor_to(label.at, BLOCK_SECONDS[0])):
        counts: dict[Key, Rate] = {}
        by_set = sorted(together, key=lambda label: label.set_hash)
        for set_hash, group in groupby(by_set, key=lambda label: label.set_hash):
            _count_labels(counts, list(group), sets[set_hash])
        yield Counted(start, start + timedelta(seconds=BLOCK_SECONDS[0]), counts)


def before(labels: Sequence[FirstLabel], until: datetime) -> list[FirstLabel]:
    """Return the labels up to the first that arrived at ``until`` or later."""
    found: list[FirstLabel] = []
    for label in labels:
        if label.at >= until:
            break
        found.append(label)
    return found


def _count_labels(
    counts: dict[Key, Rate], labels: Sequence[FirstLabel], functions: FunctionSetVersion
) -> None:
    member = unpack([label.member for label in labels], len(functions.names))
    right = np.array([label.label == label.predicted for label in labels], np.bool_)
    _add(counts, EVERY_ROW, int(right.sum()), len(labels))
    of_slices, right_of_slices = member.sum(axis=0).tolist(), (member & right[:, None]).sum(axis=0).tolist()
    for k, (name, fingerprint) in enumerate(zip(functions.names, functions.fingerprints, strict=True)):
        _add(counts, Key(name, fingerprint, "accuracy"), right_of_slices[k], of_slices[k])


def _add(counts: dict[Key, Rate], key: Key, count: int, n: int) -> None:
    there = counts.get(key)
    counts[key] = Rate(count, n) if there is None else Rate(there.count + count, there.n + n)
