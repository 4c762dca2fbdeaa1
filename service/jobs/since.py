"""What was counted of some slices since a moment, from the blocks of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy import Connection

from service.monitor.windows import BLOCK_SECONDS, floor_to
from service.store import queries
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

_ALL_OF_IT = 10**9  # one step that holds any span


@dataclass(frozen=True, slots=True)
class Since:
    """Of one slice: members of known rows, and right of labelled members."""

    coverage: Rate
    accuracy: Rate


def counted_since(
    connection: Connection,
    model: str,
    version: int,
    fingerprints: Mapping[str, str | None],
    since: datetime,
    now: datetime,
) -> dict[str, Since]:
    """Return the counts of some slices in the blocks that begin at ``since`` or later.

    Parameters
    ----------
    fingerprints
        By name, of the functions as they are now; rows of other versions of a function are left out. The
        extra column ``__all__`` has none.
    """
    start, until = floor_to(since, BLOCK_SECONDS[0]), now + timedelta(seconds=BLOCK_SECONDS[0])
    totals: dict[str, list[int]] = {name: [0, 0, 0, 0] for name in fingerprints}
    for block in queries.totals_between(connection, model, version, start, until, _ALL_OF_IT):
        functions = queries.function_set(connection, block.set_hash)
        if functions is None:
            continue
        known, member = block.n - block.unknown, block.member
        labelled = block.confusion.sum(axis=(0, 1))
        right = np.einsum("cck->k", block.confusion)
        for name, k in _columns(functions.names, functions.fingerprints, fingerprints).items():
            for place, count in enumerate((member[k], known[k], right[k], labelled[k])):
                totals[name][place] += int(count)
    return {name: Since(Rate(*each[:2]), Rate(*each[2:])) for name, each in totals.items()}


def _columns(names: Sequence[str], prints: Sequence[str], wanted: Mapping[str, str | None]) -> dict[str, int]:
    """Return the column of each wanted slice that a function set has; the last is that of all rows."""
    there = {name: k for k, name in enumerate(names) if wanted.get(name) == prints[k]}
    return {**there, **({ALL_ROWS: len(names) + 1} if ALL_ROWS in wanted else {})}
