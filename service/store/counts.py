"""Blocks of counts in the store: written, read, and rolled up as they grow old."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, select
from sqlalchemy.sql import ColumnElement

from service.events import BlockCounts
from service.monitor.packing import compress, decompress
from service.monitor.sums import merge, spanning
from service.monitor.windows import BLOCK_SECONDS
from service.store.dirty import Series
from service.store.engine import insert_into
from service.store.labels import SECOND_US
from service.store.tables import blocks, from_us, to_us

Span = tuple[int, int]
"""Start in microseconds, and seconds."""

BLOCK_COLUMNS = tuple(
    blocks.c[name] for name in ("counts", "model", "version", "set_hash", "start_us", "seconds")
)


def end_us(span: Span) -> int:
    """Return the first moment after a span, in microseconds."""
    return span[0] + span[1] * SECOND_US


def to_block(row: Sequence[Any]) -> BlockCounts:
    """Return the block that a row of ``BLOCK_COLUMNS`` keeps."""
    counts, model, version, set_hash, start_us, seconds = row
    return decompress(counts, model, version, set_hash, from_us(start_us), seconds)


def reaching_beyond(at_us: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions on blocks that end after a moment; the first lets an index find them."""
    b = blocks.c
    return b.start_us > at_us - BLOCK_SECONDS[-1] * SECOND_US, b.start_us + b.seconds * SECOND_US > at_us


def write_counts(connection: Connection, counted: Iterable[tuple[Series, Span, BlockCounts]]) -> None:
    """Write blocks, in the place of those of the same spans; the revision says how often one was written."""
    insert = insert_into(connection, blocks)
    values = [
        {
            "model": series.model,
            "version": series.version,
            "set_hash": series.set_hash,
            "start_us": start_us,
            "seconds": seconds,
            "counts": compress(counts),
            "revision": 1,
        }
        for series, (start_us, seconds), counts in counted
    ]
    if values:
        upsert = insert.on_conflict_do_update(
            index_elements=list(blocks.primary_key),
            set_={"counts": insert.excluded.counts, "revision": blocks.c.revision + 1},
        )
        connection.execute(upsert, values)


def roll_up(connection: Connection, before: datetime, seconds: int, limit: int) -> int:
    """Merge the blocks that end before a time into longer ones, and return how many blocks these took in.

    Parameters
    ----------
    before
        Blocks that reach into or beyond the span of this moment stay.
    seconds
        The length of the new blocks, one of ``BLOCK_SECONDS`` beyond the first; they start at its multiples.
    limit
        How many blocks to look for; those beside them, which go into the same longer ones, are taken as well.

    Raises
    ------
    ValueError
        If no blocks of that length are kept.
    """
    if seconds not in BLOCK_SECONDS[1:]:
        raise ValueError(f"blocks are rolled up into {BLOCK_SECONDS[1:]} seconds, not into {seconds}")
    length_us = seconds * SECOND_US
    until_us = to_us(before) // length_us * length_us
    b = blocks.c
    short = (
        select(b.model, b.version, b.set_hash, b.start_us)
        .where(b.seconds < seconds, b.start_us < until_us)
        .order_by(b.start_us)
        .limit(limit)
    )
    spans: dict[tuple[Series, Span], None] = {}
    for row in connection.execute(short):
        spans[Series(*row[:3]), (row.start_us - row.start_us % length_us, seconds)] = None
    return sum(_merge(connection, series, span) for series, span in spans)


def _merge(connection: Connection, series: Series, span: Span) -> int:
    c = blocks.c
    mine = and_(c.model == series.model, c.version == series.version, c.set_hash == series.set_hash)
    here = and_(mine, c.start_us >= span[0], c.start_us < end_us(span))
    parts = [to_block(row) for row in connection.execute(select(*BLOCK_COLUMNS).where(here))]
    connection.execute(delete(blocks).where(here))
    whole = spanning(merge(parts), from_us(span[0]), from_us(end_us(span)))
    write_counts(connection, [(series, span, whole)])
    return len(parts)
