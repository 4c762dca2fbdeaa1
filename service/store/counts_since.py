"""Counts of slices since the start of their changes, summed over the blocks of the log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from service.decisions import Alarm
from service.monitor.windows import BLOCK_SECONDS, floor_to
from service.store.queries import function_set, iter_blocks
from service.store.tables import predictions, to_us
from sfs.function import ALL_ROWS
from sfs.intervals import Rate, effective_n

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle

_LAST_ROWS = 100_000  # more would hardly narrow an interval


@dataclass(frozen=True, slots=True)
class ChangeCounts:
    """Members of known rows, and correct predictions of labelled members."""

    coverage: Rate
    accuracy: Rate


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """Slice under one version of its function (None for ``__all__``), and the start of its change."""

    slice: str
    fingerprint: str | None
    since: datetime

    @classmethod
    def of(cls, alarm: Alarm) -> ChangeKey:
        """Return the slice of an alarm since its change."""
        return cls(alarm.drift.slice, alarm.drift.fingerprint, alarm.drift.since or alarm.at)


def counts_since(
    connection: Connection, model: str, version: int, keys: Iterable[ChangeKey]
) -> dict[ChangeKey, ChangeCounts]:
    """Return the counts in the blocks of a version that start at the moment of each key or later.

    The blocks are read once, from the earliest moment on.
    """
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        return {}
    starts = [floor_to(key.since, BLOCK_SECONDS[0]) for key in wanted]
    totals = np.zeros((4, len(wanted)), np.int64)
    positions: dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]] = {}
    for block in iter_blocks(connection, model, version, min(starts)):
        if block.set_hash not in positions:
            positions[block.set_hash] = _positions(connection, block.set_hash, wanted)
        rows, columns = positions[block.set_hash]
        started = np.array([starts[row] <= block.start for row in rows], np.bool_)
        rows, columns = rows[started], columns[started]
        confusion = block.confusion[..., columns]
        totals[:, rows] += np.stack(
            [
                block.member[columns],
                block.n - block.unknown[columns],
                np.einsum("cck->k", confusion),
                confusion.sum(axis=(0, 1)),
            ]
        )
    return {
        key: ChangeCounts(Rate(member, known), Rate(correct, labelled))
        for key, (member, known, correct, labelled) in zip(wanted, totals.T.tolist(), strict=True)
    }


def coverage_since(
    connection: Connection, model: str, version: int, keys: Iterable[ChangeKey], bundle: ModelBundle
) -> dict[str, Rate]:
    """Return the coverage of each slice since its change; contents are those of the bundle's features."""
    from models.splits import record_contents  # imports pandas

    counts = counts_since(connection, model, version, keys)
    wanted, found = list(counts), [list[tuple[int, int]]() for _ in counts]
    places = cache(lambda set_hash: list(zip(*_positions(connection, set_hash, wanted), strict=True)))
    p, since = predictions.c, min((to_us(key.since) for key in wanted), default=0)
    query = select(p.at_us, p.set_hash, p.member, p.unknown, p.features, p.content_hash).order_by(p.at_us.desc())
    query = query.where(p.model == model, p.version == version, p.at_us >= since).limit(_LAST_ROWS if wanted else 0)
    for part in connection.execute(query, execution_options={"yield_per": 1000}).partitions():
        records = [row.features and bundle.schema.parse_record(json.loads(row.features)) for row in part]
        contents = record_contents(records, bundle.featurizer.specs, [row.content_hash for row in part])
        for row, content in zip(part, contents, strict=True):
            for i, k in places(row.set_hash):
                if row.at_us >= to_us(wanted[i].since) and not row.unknown[k >> 3] >> (k & 7) & 1:
                    found[i].append((content, row.member[k >> 3] >> (k & 7) & 1))
    effective = [effective_n(*np.array(rows, np.int64).reshape(-1, 2).T) for rows in found]
    return {key.slice: replace(counts[key].coverage, independent=n) for key, n in zip(wanted, effective, strict=True)}


def _positions(
    connection: Connection, set_hash: str, wanted: list[ChangeKey]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of the wanted slices that a function set has, and their columns."""
    columns: dict[tuple[str, str | None], int] = {}
    functions = function_set(connection, set_hash)
    if functions is not None:
        columns.update((key, k) for k, key in enumerate(zip(functions.names, functions.fingerprints, strict=True)))
        columns[ALL_ROWS, None] = len(functions.names) + 1
    pairs = [
        (row, columns[key.slice, key.fingerprint])
        for row, key in enumerate(wanted)
        if (key.slice, key.fingerprint) in columns
    ]
    rows, column_indices = np.array(pairs, np.intp).reshape(-1, 2).T
    return rows, column_indices
