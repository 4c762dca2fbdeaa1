"""Counts of blocks, made again from the rows wherever a row or a label has come since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import BindParameter, Connection, and_, bindparam, delete, select

from service.events import BlockCounts, FunctionSetVersion
from service.monitor.blocks import count_columns, empty, unpack
from service.monitor.windows import BLOCK_SECONDS
from service.store.counts import Span, end_us, write_counts
from service.store.dirty import BLOCK_US, Series
from service.store.errors import StoreError
from service.store.labels import SECOND_US
from service.store.rows import chunks
from service.store.sets import find_set
from service.store.tables import blocks, dirty_blocks, from_us, label_current, predictions

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
    marks: dict[Series, dict[int, str]] = {}
    query = select(*dirty_blocks.c).order_by(dirty_blocks.c.start_us).limit(limit)
    for model, version, set_hash, start_us, mark in connection.execute(query):
        marks.setdefault(Series(model, version, set_hash), {})[start_us] = mark
    return [each for series, some in marks.items() for each in _recounts(connection, series, some)]


def replace_blocks(connection: Connection, recounts: Sequence[Recount]) -> list[Recount]:
    """Put recounted blocks in the place of the standing ones, and return those for which it was done.

    A block is left as it is, and dirty, where a row or a label came since its rows were read, or where it
    was rolled up meanwhile: it is counted again the next time.
    """
    starts: dict[Series, list[int]] = {}
    for each in recounts:
        starts.setdefault(each.series, []).extend(each.marks)
    marks = {series: _marks(connection, series, some) for series, some in starts.items()}
    standing = {series: _standing(connection, series, some) for series, some in starts.items()}
    done = [each for each in recounts if _as_read(each, marks[each.series], standing[each.series])]
    _many(connection, _UNMARK, [_key(each.series, start_us) for each in done for start_us in each.marks])
    gone = [each for each in done if each.counts is None]
    _many(connection, _DROP, [_key(each.series, each.span[0], each.span[1]) for each in gone])
    write_counts(
        connection, [(each.series, each.span, each.counts) for each in done if each.counts is not None]
    )
    return done


def _recounts(connection: Connection, series: Series, marks: Mapping[int, str]) -> Iterator[Recount]:
    """Count the marked blocks of a series; one that was rolled up is counted as a whole."""
    standing = _standing(connection, series, marks)
    found: dict[Span, dict[int, str]] = {}
    for start_us, mark in marks.items():
        span = standing.get(start_us, (start_us, BLOCK_SECONDS[0]))
        found.setdefault(span, {})[start_us] = mark
    counts = _counts(connection, series, sorted(found))
    for span, some in found.items():
        yield Recount(series, span, standing.get(next(iter(some))), some, counts.get(span))


def _as_read(recount: Recount, marks: Mapping[int, str], standing: Mapping[int, Span]) -> bool:
    """Tell whether nothing has happened to a block since its rows were read."""
    return all(
        marks.get(start_us) == mark and standing.get(start_us) == recount.standing
        for start_us, mark in recount.marks.items()
    )


def _standing(connection: Connection, series: Series, starts: Iterable[int]) -> dict[int, Span]:
    """Return the spans of the blocks in the store that cover these starts, where there are any."""
    spans = {start_us: _spans_at(start_us) for start_us in starts}
    first = {start for some in spans.values() for start, _ in some}
    there = {
        (row.start_us, row.seconds)
        for part in chunks(first)
        for row in connection.execute(_STANDING, _key(series) | {"starts": part})
    }
    return {start_us: span for start_us, some in spans.items() for span in some if span in there}


def _spans_at(start_us: int) -> list[Span]:
    """Return the spans of all blocks that there can be at a time."""
    return [(start_us - start_us % (seconds * SECOND_US), seconds) for seconds in BLOCK_SECONDS]


def _marks(connection: Connection, series: Series, starts: Iterable[int]) -> dict[int, str]:
    return {
        row.start_us: row.mark
        for part in chunks(starts)
        for row in connection.execute(_MARKED, _key(series) | {"starts": part})
    }


def _counts(connection: Connection, series: Series, spans: Sequence[Span]) -> dict[Span, BlockCounts]:
    """Return the counts of the rows of a series in spans of time, sorted; none where there are no rows."""
    made: FunctionSetVersion | None = None
    counts: dict[Span, BlockCounts] = {}
    for run in _runs(spans):
        reach = {"since_us": run[0][0], "until_us": end_us(run[-1])}
        if rows := connection.execute(_ROWS, _key(series) | reach).all():
            made = made or _made(connection, series.set_hash)
            counts.update(_counted(series, made, run, rows))
    return counts


def _made(connection: Connection, set_hash: str) -> FunctionSetVersion:
    made = find_set(connection, set_hash)
    if made is None:
        raise StoreError(f"function set {set_hash!r} is not in the store: record it before its predictions")
    return made


def _runs(spans: Iterable[Span]) -> Iterator[list[Span]]:
    """Yield the spans that follow each other closely together, so that one query reads the rows of many."""
    run: list[Span] = []
    for span in spans:
        if run and (span[0] > end_us(run[-1]) + BLOCK_US or end_us(span) - run[0][0] > _RUN_US):
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def _counted(
    series: Series, made: FunctionSetVersion, run: Sequence[Span], rows: Sequence[Any]
) -> Iterator[tuple[Span, BlockCounts]]:
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


def _key(series: Series, *place: int) -> dict[str, Any]:
    """Return a series, and the start and length of a block as far as they are given, by column."""
    own = {"model": series.model, "version": series.version, "set_hash": series.set_hash}
    return own | dict(zip(("start_us", "seconds"), place, strict=False))


def _of(table: Any) -> Any:
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
        _of(predictions),
        predictions.c.at_us >= bindparam("since_us"),
        predictions.c.at_us < bindparam("until_us"),
    )
    .order_by(predictions.c.at_us)
)
_STARTS: BindParameter[int] = bindparam("starts", expanding=True)
_STANDING = select(blocks.c.start_us, blocks.c.seconds).where(_of(blocks), blocks.c.start_us.in_(_STARTS))
_MARKED = (
    select(dirty_blocks.c.start_us, dirty_blocks.c.mark)
    .where(_of(dirty_blocks), dirty_blocks.c.start_us.in_(_STARTS))
    .with_for_update()
)
_UNMARK = delete(dirty_blocks).where(_of(dirty_blocks), dirty_blocks.c.start_us == bindparam("start_us"))
_DROP = delete(blocks).where(
    _of(blocks), blocks.c.start_us == bindparam("start_us"), blocks.c.seconds == bindparam("seconds")
)
