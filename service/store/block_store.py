"""Blocks in the store: marked as dirty, recounted from their rows, and rolled up with age."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Connection, Insert, Table, and_, bindparam, delete, func, select
from sqlalchemy.dialects import sqlite

from service.events import BlockCounts
from service.monitor.block_counts import compress, count_columns, empty, merge, spanning, unpack_bitmaps
from service.monitor.windows import BLOCK_SECONDS
from service.store.engine import driver_of, insert_into, sql_of
from service.store.errors import StoreError
from service.store.queries import function_set, kept_since
from service.store.tables import (
    BLOCK_COLUMNS,
    SECOND_US,
    blocks,
    chunks,
    dirty_blocks,
    from_us,
    label_current,
    predictions,
    to_block,
    to_confidence,
    to_us,
)

BLOCK_US = BLOCK_SECONDS[0] * SECOND_US
_MAX_READ_US = BLOCK_SECONDS[-1] * SECOND_US
"""Time span that one query reads, unless a single block is longer."""
_ROWS_AT_A_TIME = 2_000

BlockSpan = tuple[int, int]
"""Start in microseconds, and seconds."""


class SeriesKey(NamedTuple):
    """Rows that are counted together."""

    model: str
    version: int
    set_hash: str


@dataclass(frozen=True, slots=True)
class Recount:
    """Block as counted from its rows at one moment.

    Parameters
    ----------
    series, span
        Identity of the block.
    stored
        Span of the block in the store that holds these rows; None if there was none.
    marks
        Dirty marks at that moment, by start in microseconds.
    counts
        None without rows.
    is_final
        Whether rows of the block were deleted: it stays as it is.
    """

    series: SeriesKey
    span: BlockSpan
    stored: BlockSpan | None
    marks: dict[int, str]
    counts: BlockCounts | None
    is_final: bool = False


def mark_dirty(connection: Connection, rows: Iterable[tuple[SeriesKey, int]]) -> None:
    """Mark the blocks of rows, given by series and time in microseconds, for a recount."""
    marked = {(series, at_us - at_us % BLOCK_US) for series, at_us in rows}
    if not marked:
        return
    # Always a new mark: it invalidates any recount that was read before this transaction.
    mark = secrets.token_hex(8)
    values = [(*series, start_us, mark) for series, start_us in sorted(marked)]
    driver_of(connection).executemany(_MARK, values)


def _mark_upsert() -> Insert:
    insert = sqlite.insert(dirty_blocks)
    return insert.on_conflict_do_update(
        index_elements=list(dirty_blocks.primary_key), set_={"mark": insert.excluded.mark}
    )


_MARK = sql_of(_mark_upsert(), dirty_blocks)


def write_counts(connection: Connection, counted: Iterable[tuple[SeriesKey, BlockSpan, BlockCounts]]) -> None:
    """Write blocks, replacing those of the same spans; the revision counts the writes."""
    insert = insert_into(connection, blocks)
    values = [
        _key(series) | {"start_us": start_us, "seconds": seconds, "counts": compress(counts), "revision": 1}
        for series, (start_us, seconds), counts in counted
    ]
    upsert = insert.on_conflict_do_update(
        index_elements=list(blocks.primary_key),
        set_={"counts": insert.excluded.counts, "revision": blocks.c.revision + 1},
    )
    _execute_many(connection, upsert, values)


def roll_up(connection: Connection, before: datetime, seconds: int, limit: int) -> int:
    """Merge blocks into longer ones, and return the number of blocks merged.

    Parameters
    ----------
    before
        Blocks that reach into or beyond the span of this moment stay.
    seconds
        Length of the new blocks, one of ``BLOCK_SECONDS`` beyond the first; they start at its multiples.
    limit
        Number of blocks to look for; other blocks of the same spans are merged as well.

    Raises
    ------
    ValueError
        If the length is not one of these.
    """
    if seconds not in BLOCK_SECONDS[1:]:
        raise ValueError(f"blocks can be rolled up into {BLOCK_SECONDS[1:]} seconds, not into {seconds}")
    length_us = seconds * SECOND_US
    until_us = to_us(before) // length_us * length_us
    c = blocks.c
    short = (
        select(c.model, c.version, c.set_hash, c.start_us)
        .where(c.seconds < seconds, c.start_us < until_us)
        .order_by(c.start_us)
        .limit(limit)
    )
    spans = dict.fromkeys(
        (SeriesKey(*series), start_us - start_us % length_us) for *series, start_us in connection.execute(short)
    )
    merged = 0
    for series, start_us in spans:
        span = (start_us, seconds)
        inside = and_(
            c.model == series.model,
            c.version == series.version,
            c.set_hash == series.set_hash,
            c.start_us >= start_us,
            c.start_us < _end_us(span),
        )
        parts = [to_block(row) for row in connection.execute(select(*BLOCK_COLUMNS).where(inside))]
        connection.execute(delete(blocks).where(inside))
        total = spanning(merge(parts), from_us(start_us), from_us(_end_us(span)))
        write_counts(connection, [(series, span, total)])
        merged += len(parts)
    return merged


def first_uncounted(
    connection: Connection,
    model: str,
    version: int,
    counted: Iterable[BlockCounts],
    since: datetime,
    until: datetime,
) -> datetime | None:
    """Return the start of the first block that lacks logged rows; None without one.

    Only dirty blocks can lack rows. Most of them do not, because a label makes a block dirty as well.

    Parameters
    ----------
    counted
        All blocks of the model version in [since, until).
    since, until
        Time span to search.
    """
    d, p = dirty_blocks.c, predictions.c
    marked = select(d.set_hash, d.start_us).where(
        d.model == model, d.version == version, d.start_us >= to_us(since), d.start_us < to_us(until)
    )
    rows = {(block.set_hash, to_us(block.start), block.seconds): block.n for block in counted}
    uncounted = []
    for set_hash, start_us in connection.execute(marked).all():
        spans = _spans_at(start_us)
        span = next((span for span in spans if (set_hash, *span) in rows), spans[0])
        logged = select(func.count()).where(
            p.model == model,
            p.version == version,
            p.set_hash == set_hash,
            p.at_us >= span[0],
            p.at_us < _end_us(span),
        )
        if (connection.scalar(logged) or 0) != rows.get((set_hash, *span), 0):
            uncounted.append(span[0])
    return from_us(min(uncounted)) if uncounted else None


def read_dirty(connection: Connection, limit: int, model: str = "", version: int | None = None) -> list[Recount]:
    """Return the blocks of the first ``limit`` dirty marks, counted from the rows.

    Marks of the given version come first, and then the latest ones.

    The connection must read everything as of one moment. A block that was rolled up is counted as a whole.
    Blocks whose rows were deleted are final. Raises StoreError if a function set of the rows is not recorded.
    """
    dirty: dict[SeriesKey, dict[int, str]] = {}
    d = dirty_blocks.c
    given = and_(d.model == model, d.version == version)
    for *series_key, start_us, mark in connection.execute(
        select(*d).order_by(given.desc(), d.start_us.desc()).limit(limit)
    ):
        dirty.setdefault(SeriesKey(*series_key), {})[start_us] = mark
    recounts = []
    for series, marks in dirty.items():
        if (kept := kept_since(connection, series.model)) is not None:
            final = {start_us: marks[start_us] for start_us in marks if start_us < to_us(kept)}
            for start_us, mark in final.items():
                span = (start_us, BLOCK_SECONDS[0])
                recounts.append(Recount(series, span, None, {start_us: mark}, None, is_final=True))
                del marks[start_us]
        stored = _stored_spans(connection, series, marks)
        spans: dict[BlockSpan, dict[int, str]] = {}
        for start_us, mark in marks.items():
            span = stored.get(start_us, (start_us, BLOCK_SECONDS[0]))
            spans.setdefault(span, {})[start_us] = mark
        counts = _count_rows(connection, series, sorted(spans))
        recounts += [
            Recount(series, span, stored.get(next(iter(some))), some, counts.get(span)) for span, some in spans.items()
        ]
    return recounts


def replace_blocks(connection: Connection, recounts: Sequence[Recount]) -> list[Recount]:
    """Write recounted blocks, and return those that were written; marks of final blocks are deleted.

    A block stays as it is, and dirty, if it was rolled up or a row or label arrived after its rows were read.
    """
    starts: dict[SeriesKey, list[int]] = {}
    for recount in recounts:
        starts.setdefault(recount.series, []).extend(recount.marks)
    marks = {
        series: {
            row.start_us: row.mark
            for part in chunks(some)
            for row in connection.execute(_SELECT_MARKS, _key(series) | {"starts": part})
        }
        for series, some in starts.items()
    }
    stored = {series: _stored_spans(connection, series, some) for series, some in starts.items()}
    current, clean, gone, counted = [], [], [], []
    for recount in recounts:
        unchanged = marks[recount.series].items() >= recount.marks.items() and (
            recount.is_final
            or all(stored[recount.series].get(start_us) == recount.stored for start_us in recount.marks)
        )
        if not unchanged:
            continue
        if recount.is_final:
            clean += [_key(recount.series) | {"start_us": start_us} for start_us in recount.marks]
            continue
        current.append(recount)
        clean += [_key(recount.series) | {"start_us": start_us} for start_us in recount.marks]
        if recount.counts is None:
            gone.append(_key(recount.series) | {"start_us": recount.span[0], "seconds": recount.span[1]})
        else:
            counted.append((recount.series, recount.span, recount.counts))
    _execute_many(connection, _DELETE_MARK, clean)
    _execute_many(connection, _DELETE_BLOCK, gone)
    write_counts(connection, counted)
    return current


def _stored_spans(connection: Connection, series: SeriesKey, starts: Iterable[int]) -> dict[int, BlockSpan]:
    """Return the spans of the stored blocks that cover these starts."""
    spans = {start_us: _spans_at(start_us) for start_us in starts}
    stored = {
        (row.start_us, row.seconds)
        for part in chunks({start for some in spans.values() for start, _ in some})
        for row in connection.execute(_SELECT_SPANS, _key(series) | {"starts": part})
    }
    return {start_us: span for start_us, some in spans.items() for span in some if span in stored}


def _count_rows(connection: Connection, series: SeriesKey, spans: Sequence[BlockSpan]) -> dict[BlockSpan, BlockCounts]:
    """Return the counts of the rows of a series in sorted spans, without empty spans."""
    counts: dict[BlockSpan, BlockCounts] = {}
    functions = None
    for run in _adjacent(spans):
        reach = {"since_us": run[0][0], "until_us": _end_us(run[-1])}
        # Some rows at a time: requests wait while one call of this thread has the interpreter.
        for rows in connection.execute(_SELECT_ROWS, _key(series) | reach).partitions(_ROWS_AT_A_TIME):
            functions = functions or function_set(connection, series.set_hash)
            if functions is None:
                raise StoreError(
                    f"function set {series.set_hash!r} is not in the store: record it before its predictions"
                )
            at_us, predicted, true, members, unknowns, packed, wrong = zip(*rows, strict=True)
            slices, votes = len(functions.names), [functions.names.index(name) for name in functions.votes]
            member, unknown = unpack_bitmaps(members, slices), unpack_bitmaps(unknowns, slices)
            confidence = to_confidence(packed)
            first = [bisect_left(at_us, start_us) for start_us, _ in run]
            last = [bisect_left(at_us, _end_us(span)) for span in run]
            for span, a, b in zip(run, first, last, strict=True):
                if a < b:
                    block = empty(series.model, series.version, series.set_hash, slices, from_us(span[0]), span[1])
                    own = block, predicted[a:b], true[a:b], member[a:b], unknown[a:b]
                    some = count_columns(*own, votes, confidence[a:b], wrong[a:b])
                    counts[span] = merge([counts[span], some]) if span in counts else some
    return counts


def _adjacent(spans: Iterable[BlockSpan]) -> Iterator[list[BlockSpan]]:
    """Yield runs of spans that follow each other closely, so that one query reads the rows of many."""
    run: list[BlockSpan] = []
    for span in spans:
        if run and (span[0] > _end_us(run[-1]) + BLOCK_US or _end_us(span) - run[0][0] > _MAX_READ_US):
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def _spans_at(start_us: int) -> list[BlockSpan]:
    """Return the spans of all possible blocks at a time, shortest first."""
    return [(start_us - start_us % (seconds * SECOND_US), seconds) for seconds in BLOCK_SECONDS]


def _end_us(span: BlockSpan) -> int:
    return span[0] + span[1] * SECOND_US


def _execute_many(connection: Connection, statement: Any, values: list[dict[str, Any]]) -> None:
    if values:
        connection.execute(statement, values)


def _key(series: SeriesKey) -> dict[str, Any]:
    return series._asdict()


def _of_series(table: Table) -> Any:
    return and_(*(table.c[name] == bindparam(name) for name in ("model", "version", "set_hash")))


# Built once: building a query takes longer than running it.
_p, _b, _d = predictions.c, blocks.c, dirty_blocks.c
_STARTS: BindParameter[int] = bindparam("starts", expanding=True)
_SELECT_ROWS = (
    select(_p.at_us, _p.label, label_current.c.label, _p.member, _p.unknown, _p.probabilities, _p.disagreement)
    .join_from(predictions, label_current, label_current.c.prediction_row == _p.row, isouter=True)
    .where(_of_series(predictions), _p.at_us >= bindparam("since_us"), _p.at_us < bindparam("until_us"))
    .order_by(_p.at_us)
)
_SELECT_SPANS = select(_b.start_us, _b.seconds).where(_of_series(blocks), _b.start_us.in_(_STARTS))
_SELECT_MARKS = select(_d.start_us, _d.mark).where(_of_series(dirty_blocks), _d.start_us.in_(_STARTS)).with_for_update()
_DELETE_MARK = delete(dirty_blocks).where(_of_series(dirty_blocks), _d.start_us == bindparam("start_us"))
_DELETE_BLOCK = delete(blocks).where(
    _of_series(blocks), _b.start_us == bindparam("start_us"), _b.seconds == bindparam("seconds")
)
