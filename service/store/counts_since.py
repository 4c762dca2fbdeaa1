"""What was counted of some slices since their changes began, from the blocks of the log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from service.decisions import Alarm
from service.events import BlockCounts, FunctionSetVersion
from service.monitor.windows import BLOCK_SECONDS, floor_to
from service.store import queries
from sfs.function import ALL_ROWS
from sfs.intervals import Rate


@dataclass(frozen=True, slots=True)
class ChangeCounts:
    """Of one slice: members of known rows, and right of labelled members."""

    coverage: Rate
    accuracy: Rate


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """A slice as one version of its function makes it, and since when it is counted; ``__all__`` has none."""

    slice: str
    fingerprint: str | None
    since: datetime

    @classmethod
    def of(cls, alarm: Alarm) -> ChangeKey:
        """Return what an alarm is about, since its change began."""
        return cls(alarm.drift.slice, alarm.drift.fingerprint, alarm.drift.since or alarm.at)


def counts_since(
    connection: Connection, model: str, version: int, wanted: Iterable[ChangeKey]
) -> dict[ChangeKey, ChangeCounts]:
    """Return the counts of each in the blocks of a version that begin at its moment or later.

    The blocks are read once, from the earliest moment on.
    """
    asked = list(dict.fromkeys(wanted))
    if not asked:
        return {}
    starts = [floor_to(each.since, BLOCK_SECONDS[0]) for each in asked]
    totals = np.zeros((4, len(asked)), np.int64)
    places: dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]] = {}
    for block in queries.each_block(connection, model, version, min(starts)):
        if block.set_hash not in places:
            places[block.set_hash] = _places(queries.function_set(connection, block.set_hash), asked)
        rows, columns = places[block.set_hash]
        begun = np.array([starts[row] <= block.start for row in rows], np.bool_)
        totals[:, rows[begun]] += _counts(block, columns[begun])
    return {
        each: ChangeCounts(Rate(member, known), Rate(right, labelled))
        for each, (member, known, right, labelled) in zip(asked, totals.T.tolist(), strict=True)
    }


def _places(
    functions: FunctionSetVersion | None, asked: list[ChangeKey]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which of those asked for a function set has, and in which column; the last is that of all rows."""
    there: dict[tuple[str, str | None], int] = {}
    if functions is not None:
        there[ALL_ROWS, None] = len(functions.names) + 1
        for k, pair in enumerate(zip(functions.names, functions.fingerprints, strict=True)):
            there[pair] = k
    found = [
        (row, there[each.slice, each.fingerprint])
        for row, each in enumerate(asked)
        if (each.slice, each.fingerprint) in there
    ]
    rows, columns = np.array(found, np.intp).reshape(-1, 2).T
    return rows, columns


def _counts(block: BlockCounts, columns: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return members, known, right and labelled of some columns: int64[4, len(columns)]."""
    confusion = block.confusion[..., columns]
    labelled, right = confusion.sum(axis=(0, 1)), np.einsum("cck->k", confusion)
    known = block.n - block.unknown[columns]
    return np.stack([block.member[columns], known, right, labelled])
