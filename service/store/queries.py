"""What can be asked of the store; every function reads from one connection of ``Store.read``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from service.events import BlockCounts, FunctionSetVersion, Label, LabelOutcome, Prediction
from service.monitor.block_counts import PackedSum
from service.monitor.windows import BLOCK_SECONDS
from service.store.block_store import BLOCK_COLUMNS, reaching_beyond, to_block
from service.store.function_sets import find_set, to_set
from service.store.labels import SECOND_US
from service.store.tables import (
    PREDICTION_COLUMNS,
    blocks,
    checkpoints,
    chunks,
    dirty_blocks,
    from_us,
    function_sets,
    label_current,
    label_events,
    pending_labels,
    predictions,
    to_prediction,
    to_us,
)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a prediction stands in the log: by time, and among those of one time by its row."""

    at: datetime
    row: int


@dataclass(frozen=True, slots=True)
class Record:
    """A prediction, and the label that counts for it; None before there is one."""

    prediction: Prediction
    label: str | None
    row: int

    @property
    def place(self) -> Cursor:
        """Where it stands."""
        return Cursor(self.prediction.at, self.row)


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """A label as it came, and what became of it on arrival."""

    label: Label
    outcome: LabelOutcome


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state that was kept under a name."""

    at: datetime
    state: bytes


@dataclass(frozen=True, slots=True)
class BlockKey:
    """Which block of a model version."""

    set_hash: str
    start: datetime
    seconds: int


def prediction(connection: Connection, model: str, id_: str) -> Prediction | None:
    """Return the prediction that stands in the log under an id."""
    query = select(*PREDICTION_COLUMNS).where(predictions.c.model == model, predictions.c.id == id_)
    row = connection.execute(query).first()
    return None if row is None else to_prediction(row)


def records(
    connection: Connection, model: str, *, since: datetime, until: datetime, version: int | None = None
) -> Iterator[Record]:
    """Yield the predictions of [since, until), oldest first, with the labels that count now."""
    query = _records(model).where(predictions.c.at_us >= to_us(since), predictions.c.at_us < to_us(until))
    if version is not None:
        query = query.where(predictions.c.version == version)
    return _each(connection, query.order_by(predictions.c.at_us, predictions.c.row))


def recent_records(
    connection: Connection, model: str, *, before: datetime | Cursor, limit: int, labelled: bool | None = None
) -> Iterator[Record]:
    """Yield the last predictions before a time, or a place, newest first.

    Only those with, or without, a label if asked.
    """
    query = _records(model).where(_is_before(before))
    if labelled is not None:
        label = label_current.c.label
        query = query.where(label.is_not(None) if labelled else label.is_(None))
    return _each(
        connection, query.order_by(predictions.c.at_us.desc(), predictions.c.row.desc()).limit(limit)
    )


def labels(connection: Connection, model: str, ids: Iterable[str]) -> dict[str, str]:
    """Return the labels that count, by prediction id; ids without one are absent."""
    query = select(predictions.c.id, label_current.c.label).join_from(predictions, label_current)
    return {
        id_: label
        for part in chunks(ids)
        for id_, label in connection.execute(
            query.where(predictions.c.model == model, predictions.c.id.in_(part))
        )
    }


def label_history(connection: Connection, model: str, id_: str) -> list[LabelEvent]:
    """Return every label that ever came for a prediction id, in order of arrival."""
    c = label_events.c
    query = select(label_events).where(c.model == model, c.prediction_id == id_).order_by(c.row)
    return [
        LabelEvent(
            Label(
                id_, e.label, from_us(e.observed_us), from_us(e.received_us), e.labeller, e.idempotency_key
            ),
            e.outcome,
        )
        for e in connection.execute(query)
    ]


def last_label_at(connection: Connection, model: str) -> datetime | None:
    """Return when the last label that was ever kept for a model arrived; None before the first."""
    c = label_events.c
    at_us = connection.scalar(select(c.received_us).where(c.model == model).order_by(c.row.desc()).limit(1))
    return None if at_us is None else from_us(at_us)


def counts_between(
    connection: Connection, model: str, version: int, since: datetime, until: datetime
) -> list[BlockCounts]:
    """Return the blocks of a model version that reach into [since, until), in order of time."""
    query = _blocks(model, version).where(blocks.c.start_us < to_us(until), *reaching_beyond(to_us(since)))
    return [to_block(row) for row in connection.execute(query)]


def block_starts(
    connection: Connection, model: str, version: int, since: datetime, until: datetime, limit: int
) -> list[datetime]:
    """Return the first moments of [since, until) at which blocks of a model version start, in order."""
    b = blocks.c
    query = select(b.start_us).distinct().order_by(b.start_us).limit(limit)
    mine = query.where(b.model == model, b.version == version)
    between = mine.where(b.start_us >= to_us(since), b.start_us < to_us(until))
    return [from_us(start_us) for start_us in connection.scalars(between)]


def each_block(connection: Connection, model: str, version: int, since: datetime) -> Iterator[BlockCounts]:
    """Yield the blocks of a model version that end after a moment, one at a time, in order of time."""
    for row in connection.execute(_blocks(model, version).where(*reaching_beyond(to_us(since)))):
        yield to_block(row)


def totals_between(
    connection: Connection, model: str, version: int, since: datetime, until: datetime, step_seconds: int
) -> list[BlockCounts]:
    """Return the sums of a model version's blocks in steps from ``since``, by time; none where no rows are.

    Each step gives one sum per function set. Blocks are in the step that they start in.
    """
    since_us, step_us = to_us(since), step_seconds * SECOND_US
    query = _blocks(model, version).where(blocks.c.start_us >= since_us, blocks.c.start_us < to_us(until))
    steps: dict[tuple[int, str], PackedSum] = {}
    for row in connection.execute(query):
        step = since_us + (row.start_us - since_us) // step_us * step_us
        steps.setdefault((step, row.set_hash), PackedSum()).add(row.counts)
    return [
        total.block(model, version, set_hash, from_us(step), step_seconds)
        for (step, set_hash), total in sorted(steps.items(), key=lambda item: item[0])
    ]


def longer_blocks(connection: Connection, model: str, version: int, since: datetime) -> set[BlockKey]:
    """Return which blocks of a model version that end after a moment are longer than those first made."""
    b = blocks.c
    query = select(b.set_hash, b.start_us, b.seconds).where(
        b.model == model, b.version == version, b.seconds > BLOCK_SECONDS[0], *reaching_beyond(to_us(since))
    )
    return {
        BlockKey(set_hash, from_us(start), seconds) for set_hash, start, seconds in connection.execute(query)
    }


def function_set(connection: Connection, set_hash: str) -> FunctionSetVersion | None:
    """Return what a set hash stands for; None for a set that was never recorded."""
    return find_set(connection, set_hash)


def all_function_sets(connection: Connection) -> list[FunctionSetVersion]:
    """Return every function set that was ever recorded, oldest first."""
    c = function_sets.c
    return [to_set(row) for row in connection.execute(select(function_sets).order_by(c.at_us, c.hash))]


def most_logged_version(connection: Connection, model: str) -> tuple[int, datetime] | None:
    """Return the version of most of the last 1,000 rows, and since when it is known; None for an empty log."""
    p, b = predictions.c, blocks.c
    last = select(p.version, p.at_us).where(p.model == model).order_by(p.at_us.desc()).limit(1000).subquery()
    counted = select(last.c.version, func.min(last.c.at_us).label("at_us")).group_by(last.c.version)
    usual = connection.execute(counted.order_by(func.count().desc(), last.c.version.desc()).limit(1)).first()
    if usual is None:
        return None
    first = select(func.min(b.start_us)).where(b.model == model, b.version == usual.version)
    return usual.version, from_us(min(usual.at_us, connection.scalar(first) or usual.at_us))


def checkpoint(connection: Connection, name: str) -> Checkpoint | None:
    """Return what was last kept under a name."""
    row = connection.execute(select(checkpoints).where(checkpoints.c.name == name)).first()
    return None if row is None else Checkpoint(from_us(row.at_us), row.state)


def dirty_count(connection: Connection) -> int:
    """Return how many blocks are to be counted again."""
    return connection.scalar(select(func.count()).select_from(dirty_blocks)) or 0


def pending_count(connection: Connection, model: str) -> int:
    """Return for how many predictions, not yet in the log, labels wait."""
    query = select(func.count()).select_from(pending_labels).where(pending_labels.c.model == model)
    return connection.scalar(query) or 0


def _blocks(model: str, version: int) -> Select[Any]:
    b = blocks.c
    chosen = select(*BLOCK_COLUMNS).where(b.model == model, b.version == version)
    return chosen.order_by(b.start_us, b.set_hash)


def _records(model: str) -> Select[Any]:
    return (
        select(*PREDICTION_COLUMNS, label_current.c.label.label("true"), predictions.c.row)
        .join_from(predictions, label_current, isouter=True)
        .where(predictions.c.model == model)
    )


def _each(connection: Connection, query: Select[Any]) -> Iterator[Record]:
    for row in connection.execute(query):
        yield Record(to_prediction(row), row.true, row.row)


def _is_before(end: datetime | Cursor) -> ColumnElement[bool]:
    p = predictions.c
    if isinstance(end, datetime):
        return p.at_us < to_us(end)
    at_us = to_us(end.at)
    return and_(p.at_us <= at_us, or_(p.at_us < at_us, p.row < end.row))
