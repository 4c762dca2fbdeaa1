"""Which blocks no longer agree with their rows."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from service.monitor.windows import BLOCK_SECONDS
from service.store.engine import insert_into
from service.store.tables import dirty_blocks

BLOCK_US = BLOCK_SECONDS[0] * 1_000_000


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """Whose rows are counted together."""

    model: str
    version: int
    set_hash: str


def mark_dirty(connection: Connection, rows: Iterable[tuple[SeriesKey, int]]) -> None:
    """Mark the blocks of rows, given by series and time in microseconds, as to be counted again."""
    marked = {(series, at_us - at_us % BLOCK_US) for series, at_us in rows}
    if not marked:
        return
    # A new word every time: who counted before this transaction sees that its count is out of date.
    mark = secrets.token_hex(8)
    insert = insert_into(connection, dirty_blocks)
    values = [
        {"model": s.model, "version": s.version, "set_hash": s.set_hash, "start_us": start_us, "mark": mark}
        for s, start_us in sorted(marked)
    ]
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=list(dirty_blocks.primary_key), set_={"mark": insert.excluded.mark}
        ),
        values,
    )
