"""Counts of blocks, made again from the rows wherever a row or a label has come since."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, and_, delete, select
from sqlalchemy.sql import ColumnElement

from service.events import BlockCounts
from service.monitor.blocks import count_columns, empty, unpack
from service.monitor.packing import compress, decompress
from service.monitor.sums import merge, spanning
from service.monitor.windows import BLOCK_SECONDS
from service.store.dirty import Series
from service.store.engine import insert_into
from service.store.errors import StoreError
from service.store.labels import SECOND_US
from service.store.tables import (
    blocks,
    dirty_blocks,
    from_us,
    function_sets,
    label_current,
    predictions,
    to_us,
)

Span = tuple[int, int]
"""Start in microseconds, and seconds."""


@dataclass(frozen=True, slots=True)
class Recount:
    """A block as its rows have it, read at one moment.

    Parameters
    ----------
    series, span
        Which block.
    standing
        The span of the block in the store that holds these rows; None where there was none.
    marks
        The dirty marks that were there when the rows were read: start in microseconds to mark.
    counts
        None where no row is left.
    """

    series: Series
    span: Span
    standing: Span | None
    marks: dict[int, str]
    counts: BlockCounts | None


def read_dirty(connection: Connection, limit: int) -> list[Recount]:
    """Return the blocks of the first ``limit`` dirty marks, counted from the rows.

    The connection must read everything as of one moment.

    Raises
    ------
    StoreError
        If rows were made with a function set that the store does not know.
    """
    found: dict[tuple[Series, Span | None, Span], dict[int, str]] = {}
    for model, version, set_hash, start_us, mark in connection.execute(
        select(*dirty_blocks.c).order_by(dirty_blocks.c.start_us).limit(limit)
    ).all():
        series = Series(model, version, set_hash)
        standing = _standing(connection, series, start_us)
        found.setdefault((series, standing, standing or (start_us, BLOCK_SECONDS[0])), {})[start_us] = mark
    return [
        Recount(series, span, standing, marks, count_rows(connection, series, span))
        for (series, standing, span), marks in found.items()
    ]


def count_rows(connection: Connection, series: Series, span: Span) -> BlockCounts | None:
    """Return the counts of the rows of a series in a span of time; None where there are none."""
    p = predictions.c
    start_us, seconds = span
    rows = connection.execute(
        select(p.label, label_current.c.label, p.member, p.unknown)
        .join_from(predictions, label_current, label_current.c.prediction_row == p.row, isouter=True)
        .where(p.model == series.model, p.at_us >= start_us, p.at_us < start_us + seconds * SECOND_US)
        .where(p.version == series.version, p.set_hash == series.set_hash)
    ).all()
    if not rows:
        return None
    slices = _slices(connection, series.set_hash)
    predicted, true, member, unknown = zip(*rows, strict=True)
    block = empty(series.model, series.version, series.set_hash, slices, from_us(start_us), seconds)
    return count_columns(block, predicted, true, unpack(member, slices), unpack(unknown, slices))


def replace_blocks(connection: Connection, recounts: Iterable[Recount]) -> int:
    """Put recounted blocks in the place of the standing ones, and return how many.

    A block is left as it is, and dirty, where a row or a label came since its rows were read, or where it
    was rolled up meanwhile: it is counted again the next time.
    """
    return sum(_replace(connection, each) for each in recounts)


def roll_up(connection: Connection, before: datetime, seconds: int, limit: int) -> int:
    """Merge the blocks that end before a time into longer ones, and return how many blocks were merged away.

    Parameters
    ----------
    before
        Blocks that reach into or beyond the span of this moment stay.
    seconds
        The length of the new blocks, one of ``BLOCK_SECONDS`` beyond the first; they start at its multiples.
    limit
        How many blocks to read at most.

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
        select(b.model, b.version, b.set_hash, b.start_us, b.seconds, b.counts)
        .where(b.seconds < seconds, b.start_us < until_us)
        .order_by(b.start_us)
        .limit(limit)
    )
    spans: dict[tuple[Series, Span], None] = {}
    for row in connection.execute(short):
        spans[Series(*row[:3]), (row.start_us - row.start_us % length_us, seconds)] = None
    return sum(_merge(connection, series, span) for series, span in spans)


def _merge(connection: Connection, series: Series, span: Span) -> int:
    start_us, seconds = span
    end_us = start_us + seconds * SECOND_US
    here = and_(_of(blocks, series), blocks.c.start_us >= start_us, blocks.c.start_us < end_us)
    parts = [to_block(row) for row in connection.execute(select(*BLOCK_COLUMNS).where(here))]
    whole = spanning(merge(parts), from_us(start_us), from_us(end_us))
    connection.execute(delete(blocks).where(here))
    _write(connection, series, span, whole, 0)
    return len(parts) - 1


def _replace(connection: Connection, recount: Recount) -> bool:
    series, marks = recount.series, recount.marks
    here = and_(_of(dirty_blocks, series), dirty_blocks.c.start_us.in_(list(marks)))
    now = connection.execute(
        select(dirty_blocks.c.start_us, dirty_blocks.c.mark).where(here).with_for_update()
    )
    if {row.start_us: row.mark for row in now} != marks:
        return False
    if any(_standing(connection, series, start_us) != recount.standing for start_us in marks):
        return False
    connection.execute(delete(dirty_blocks).where(here))
    at = and_(_of(blocks, series), blocks.c.start_us == recount.span[0], blocks.c.seconds == recount.span[1])
    revision = connection.scalar(select(blocks.c.revision).where(at)) or 0
    connection.execute(delete(blocks).where(at))
    if recount.counts is not None:
        _write(connection, series, recount.span, recount.counts, revision + 1)
    return True


def _write(connection: Connection, series: Series, span: Span, counts: BlockCounts, revision: int) -> None:
    connection.execute(
        insert_into(connection, blocks),
        {
            "model": series.model,
            "version": series.version,
            "set_hash": series.set_hash,
            "start_us": span[0],
            "seconds": span[1],
            "counts": compress(counts),
            "revision": revision,
        },
    )


BLOCK_COLUMNS = tuple(
    blocks.c[name] for name in ("counts", "model", "version", "set_hash", "start_us", "seconds")
)


def to_block(row: Sequence[Any]) -> BlockCounts:
    """Return the block that a row of ``BLOCK_COLUMNS`` keeps."""
    counts, model, version, set_hash, start_us, seconds = row
    return decompress(counts, model, version, set_hash, from_us(start_us), seconds)


def reaching_beyond(at_us: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions on blocks that end after a moment; the first lets an index find them."""
    b = blocks.c
    return b.start_us > at_us - BLOCK_SECONDS[-1] * SECOND_US, b.start_us + b.seconds * SECOND_US > at_us


def _standing(connection: Connection, series: Series, start_us: int) -> Span | None:
    """Return the span of the block in the store that covers a moment."""
    b = blocks.c
    query = select(b.start_us, b.seconds).where(
        _of(blocks, series), b.start_us <= start_us, *reaching_beyond(start_us)
    )
    row = connection.execute(query).first()
    return None if row is None else (row.start_us, row.seconds)


def _of(table: Table, series: Series) -> ColumnElement[bool]:
    c = table.c
    return and_(c.model == series.model, c.version == series.version, c.set_hash == series.set_hash)


def _slices(connection: Connection, set_hash: str) -> int:
    names = connection.scalar(select(function_sets.c.names).where(function_sets.c.hash == set_hash))
    if names is None:
        raise StoreError(f"function set {set_hash!r} is not in the store: record it before its predictions")
    return len(json.loads(names))
