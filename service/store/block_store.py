"""Blocks of counts in the store: written, read, and rolled up as they grow old."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import BindParameter, Connection, and_, bindparam, delete, func, select
from sqlalchemy.sql import ColumnElement

from service.events import BlockCounts, FunctionSetVersion
from service.monitor.block_counts import compress, count_columns, decompress, empty, merge, spanning, unpack
from service.monitor.windows import BLOCK_SECONDS
from service.store.dirty_blocks import BLOCK_US, SeriesKey
from service.store.engine import insert_into
from service.store.errors import StoreError
from service.store.function_sets import find_set
from service.store.labels import SECOND_US
from service.store.tables import blocks, chunks, dirty_blocks, from_us, label_current, predictions, to_us

BlockSpan = tuple[int, int]
"""Start in microseconds, and seconds."""

BLOCK_COLUMNS = tuple(
    blocks.c[name] for name in ("counts", "model", "version", "set_hash", "start_us", "seconds")
)


def end_us(span: BlockSpan) -> int:
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


def write_counts(connection: Connection, counted: Iterable[tuple[SeriesKey, BlockSpan, BlockCounts]]) -> None:
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
    spans: dict[tuple[SeriesKey, BlockSpan], None] = {}
    for row in connection.execute(short):
        spans[SeriesKey(*row[:3]), (row.start_us - row.start_us % length_us, seconds)] = None
    return sum(_merge(connection, series, span) for series, span in spans)


def _merge(connection: Connection, series: SeriesKey, span: BlockSpan) -> int:
    c = blocks.c
    mine = and_(c.model == series.model, c.version == series.version, c.set_hash == series.set_hash)
    here = and_(mine, c.start_us >= span[0], c.start_us < end_us(span))
    parts = [to_block(row) for row in connection.execute(select(*BLOCK_COLUMNS).where(here))]
    connection.execute(delete(blocks).where(here))
    whole = spanning(merge(parts), from_us(span[0]), from_us(end_us(span)))
    write_counts(connection, [(series, span, whole)])
    return len(parts)


def first_uncounted(
    connection: Connection,
    model: str,
    version: int,
    counted: Iterable[BlockCounts],
    since: datetime,
    until: datetime,
) -> datetime | None:
    """Return the start of the first block that does not count the rows that the log has; None without one.

    Only blocks that are to be counted again can be one. Most of these are not, for a label, too, has a block
    counted again.

    Parameters
    ----------
    counted
        The blocks of the model version that there are in [since, until).
    since, until
        Where to look.
    """
    d = dirty_blocks.c
    marked = select(d.set_hash, d.start_us).where(
        d.model == model, d.version == version, d.start_us >= to_us(since), d.start_us < to_us(until)
    )
    there = {(block.set_hash, to_us(block.start), block.seconds): block.n for block in counted}
    found = set()
    for set_hash, start_us in connection.execute(marked).all():
        span = _span(there, set_hash, start_us)
        if _rows(connection, model, version, set_hash, span) != there.get((set_hash, *span), 0):
            found.add(span[0])
    return from_us(min(found)) if found else None


def _span(there: Iterable[tuple[str, int, int]], set_hash: str, start_us: int) -> BlockSpan:
    """Return the span of the block that a mark is about, a short one where there is none."""
    spans = [(start_us - start_us % (seconds * SECOND_US), seconds) for seconds in BLOCK_SECONDS]
    return next((span for span in spans if (set_hash, *span) in there), spans[0])


def _rows(connection: Connection, model: str, version: int, set_hash: str, span: BlockSpan) -> int:
    p = predictions.c
    query = select(func.count()).where(
        p.model == model,
        p.version == version,
        p.set_hash == set_hash,
        p.at_us >= span[0],
        p.at_us < end_us(span),
    )
    return connection.scalar(query) or 0


_RUN_US = BLOCK_SECONDS[-1] * SECOND_US
"""How much time is read at once at most, if no block is longer."""


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

    series: SeriesKey
    span: BlockSpan
    standing: BlockSpan | None
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
    marks: dict[SeriesKey, dict[int, str]] = {}
    query = select(*dirty_blocks.c).order_by(dirty_blocks.c.start_us).limit(limit)
    for model, version, set_hash, start_us, mark in connection.execute(query):
        marks.setdefault(SeriesKey(model, version, set_hash), {})[start_us] = mark
    return [each for series, some in marks.items() for each in _recounts(connection, series, some)]


def replace_blocks(connection: Connection, recounts: Sequence[Recount]) -> list[Recount]:
    """Put recounted blocks in the place of the standing ones, and return those for which it was done.

    A block is left as it is, and dirty, where a row or a label came since its rows were read, or where it
    was rolled up meanwhile: it is counted again the next time.
    """
    starts: dict[SeriesKey, list[int]] = {}
    for each in recounts:
        starts.setdefault(each.series, []).extend(each.marks)
    marks = {series: _marks(connection, series, some) for series, some in starts.items()}
    standing = {series: _current_blocks(connection, series, some) for series, some in starts.items()}
    done = [each for each in recounts if _as_read(each, marks[each.series], standing[each.series])]
    _many(connection, _UNMARK, [_key(each.series, start_us) for each in done for start_us in each.marks])
    gone = [each for each in done if each.counts is None]
    _many(connection, _DROP, [_key(each.series, each.span[0], each.span[1]) for each in gone])
    write_counts(
        connection, [(each.series, each.span, each.counts) for each in done if each.counts is not None]
    )
    return done


def _recounts(connection: Connection, series: SeriesKey, marks: Mapping[int, str]) -> Iterator[Recount]:
    """Count the marked blocks of a series; one that was rolled up is counted as a whole."""
    standing = _current_blocks(connection, series, marks)
    found: dict[BlockSpan, dict[int, str]] = {}
    for start_us, mark in marks.items():
        span = standing.get(start_us, (start_us, BLOCK_SECONDS[0]))
        found.setdefault(span, {})[start_us] = mark
    counts = _counts(connection, series, sorted(found))
    for span, some in found.items():
        yield Recount(series, span, standing.get(next(iter(some))), some, counts.get(span))


def _as_read(recount: Recount, marks: Mapping[int, str], standing: Mapping[int, BlockSpan]) -> bool:
    """Tell whether nothing has happened to a block since its rows were read."""
    return all(
        marks.get(start_us) == mark and standing.get(start_us) == recount.standing
        for start_us, mark in recount.marks.items()
    )


def _current_blocks(connection: Connection, series: SeriesKey, starts: Iterable[int]) -> dict[int, BlockSpan]:
    """Return the spans of the blocks in the store that cover these starts, where there are any."""
    spans = {start_us: _spans_at(start_us) for start_us in starts}
    first = {start for some in spans.values() for start, _ in some}
    there = {
        (row.start_us, row.seconds)
        for part in chunks(first)
        for row in connection.execute(_CURRENT, _key(series) | {"starts": part})
    }
    return {start_us: span for start_us, some in spans.items() for span in some if span in there}


def _spans_at(start_us: int) -> list[BlockSpan]:
    """Return the spans of all blocks that there can be at a time."""
    return [(start_us - start_us % (seconds * SECOND_US), seconds) for seconds in BLOCK_SECONDS]


def _marks(connection: Connection, series: SeriesKey, starts: Iterable[int]) -> dict[int, str]:
    return {
        row.start_us: row.mark
        for part in chunks(starts)
        for row in connection.execute(_MARKED, _key(series) | {"starts": part})
    }


def _counts(
    connection: Connection, series: SeriesKey, spans: Sequence[BlockSpan]
) -> dict[BlockSpan, BlockCounts]:
    """Return the counts of the rows of a series in spans of time, sorted; none where there are no rows."""
    made: FunctionSetVersion | None = None
    counts: dict[BlockSpan, BlockCounts] = {}
    for run in _runs(spans):
        reach = {"since_us": run[0][0], "until_us": end_us(run[-1])}
        if rows := connection.execute(_ROWS, _key(series) | reach).all():
            made = made or _count_rows(connection, series.set_hash)
            counts.update(_counted(series, made, run, rows))
    return counts


def _count_rows(connection: Connection, set_hash: str) -> FunctionSetVersion:
    made = find_set(connection, set_hash)
    if made is None:
        raise StoreError(f"function set {set_hash!r} is not in the store: record it before its predictions")
    return made


def _runs(spans: Iterable[BlockSpan]) -> Iterator[list[BlockSpan]]:
    """Yield the spans that follow each other closely together, so that one query reads the rows of many."""
    run: list[BlockSpan] = []
    for span in spans:
        if run and (span[0] > end_us(run[-1]) + BLOCK_US or end_us(span) - run[0][0] > _RUN_US):
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def _counted(
    series: SeriesKey, made: FunctionSetVersion, run: Sequence[BlockSpan], rows: Sequence[Any]
) -> Iterator[tuple[BlockSpan, BlockCounts]]:
    """Yield the counts of each span that has some of the rows, which are sorted by time."""
    at_us, predicted, true, members, holes = zip(*rows, strict=True)
    slices, votes = len(made.names), [made.names.index(name) for name in made.votes]
    member, unknown = unpack(members, slices), unpack(holes, slices)
    first = np.searchsorted(at_us, [start_us for start_us, _ in run])
    last = np.searchsorted(at_us, [end_us(span) for span in run])
    for span, a, b in zip(run, first.tolist(), last.tolist(), strict=True):
        if a < b:
            block = empty(series.model, series.version, series.set_hash, slices, from_us(span[0]), span[1])
            yield span, count_columns(block, predicted[a:b], true[a:b], member[a:b], unknown[a:b], votes)


def _many(connection: Connection, statement: Any, values: list[dict[str, Any]]) -> None:
    if values:
        connection.execute(statement, values)


def _key(series: SeriesKey, *place: int) -> dict[str, Any]:
    """Return a series, and the start and length of a block as far as they are given, by column."""
    own = {"model": series.model, "version": series.version, "set_hash": series.set_hash}
    return own | dict(zip(("start_us", "seconds"), place, strict=False))


def _of_block(table: Any) -> Any:
    return and_(*(table.c[name] == bindparam(name) for name in ("model", "version", "set_hash")))


# Made once: to spell a query takes longer than to run it.
_ROWS = (
    select(
        predictions.c.at_us,
        predictions.c.label,
        label_current.c.label,
        predictions.c.member,
        predictions.c.unknown,
    )
    .join_from(predictions, label_current, label_current.c.prediction_row == predictions.c.row, isouter=True)
    .where(
        _of_block(predictions),
        predictions.c.at_us >= bindparam("since_us"),
        predictions.c.at_us < bindparam("until_us"),
    )
    .order_by(predictions.c.at_us)
)
_STARTS: BindParameter[int] = bindparam("starts", expanding=True)
_CURRENT = select(blocks.c.start_us, blocks.c.seconds).where(
    _of_block(blocks), blocks.c.start_us.in_(_STARTS)
)
_MARKED = (
    select(dirty_blocks.c.start_us, dirty_blocks.c.mark)
    .where(_of_block(dirty_blocks), dirty_blocks.c.start_us.in_(_STARTS))
    .with_for_update()
)
_UNMARK = delete(dirty_blocks).where(
    _of_block(dirty_blocks), dirty_blocks.c.start_us == bindparam("start_us")
)
_DROP = delete(blocks).where(
    _of_block(blocks), blocks.c.start_us == bindparam("start_us"), blocks.c.seconds == bindparam("seconds")
)
