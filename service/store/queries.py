"""Queries of the log, its labels and its blocks; all read from one connection of ``Store.read``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, or_, select

from service.events import BlockCounts, FunctionSetVersion, Prediction
from service.monitor.block_counts import PackedSum
from service.monitor.windows import BLOCK_SECONDS
from service.store.tables import (
    BLOCK_COLUMNS,
    PREDICTION_COLUMNS,
    SECOND_US,
    blocks,
    checkpoints,
    chunks,
    from_us,
    function_sets,
    kept_since_name,
    label_current,
    label_events,
    predictions,
    to_block,
    to_prediction,
    to_probabilities,
    to_us,
)

_LEADING = 0.6
"""Fraction of the latest rows with which an external version takes the place of the followed one."""

_LATEST = 1000  # rows


@dataclass(frozen=True, slots=True)
class Cursor:
    """Position in the log: time of the prediction, then its row number."""

    at: datetime
    row: int


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """Prediction with its current label, if there is one."""

    prediction: Prediction
    label: str | None


@dataclass(frozen=True, slots=True)
class RecentRecord:
    """Prediction with its current label, without its features, which may be long; attributes as of `Prediction`."""

    id: str
    at: datetime
    version: int
    set_hash: str
    predicted: str
    probabilities: tuple[float, ...] | None
    member: bytes
    unknown: bytes
    label: str | None
    row: int

    @property
    def cursor(self) -> Cursor:
        """Position in the log."""
        return Cursor(self.at, self.row)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Saved state of a job."""

    at: datetime
    state: bytes


@dataclass(frozen=True, slots=True)
class Arrival:
    """Row of the log in order of arrival, with its class; bitmaps as in ``Prediction``, probabilities as stored."""

    row: int
    model: str
    version: int
    set_hash: str
    at: datetime
    predicted: str
    member: bytes
    unknown: bytes
    packed: bytes | None
    disagreement: bytes | None


@dataclass(frozen=True, slots=True)
class Membership:
    """Row of the log in order of time; ``member`` and ``unknown`` as in ``Prediction``."""

    at: datetime
    set_hash: str
    member: bytes
    unknown: bytes


@dataclass(frozen=True, slots=True)
class BlockKey:
    """Block of a model version."""

    set_hash: str
    start: datetime
    seconds: int


def prediction(connection: Connection, model: str, id_: str) -> Prediction | None:
    """Return a logged prediction by id."""
    query = select(*PREDICTION_COLUMNS).where(predictions.c.model == model, predictions.c.id == id_)
    row = connection.execute(query).first()
    return None if row is None else to_prediction(row)


def records(connection: Connection, model: str, *, since: datetime, until: datetime) -> Iterator[PredictionRecord]:
    """Yield the predictions of [since, until) with their current labels, oldest first."""
    p = predictions.c
    query = select(*PREDICTION_COLUMNS, label_current.c.label).join_from(predictions, label_current, isouter=True)
    query = query.where(p.model == model, p.at_us >= to_us(since), p.at_us < to_us(until))
    for row in connection.execute(query.order_by(p.at_us, p.row)):
        yield PredictionRecord(to_prediction(row), row[-1])


def recent_records(
    connection: Connection, model: str, *, before: datetime | Cursor, limit: int, labelled: bool | None = None
) -> Iterator[RecentRecord]:
    """Yield the last predictions before a time or cursor, newest first, optionally by presence of a label."""
    p, label = predictions.c, label_current.c.label
    query = (
        # Columns behind the features are left out, too: to reach them, the database reads the features.
        select(p.id, p.at_us, p.version, p.set_hash, p.label, p.probabilities, p.member, p.unknown, label, p.row)
        .join_from(predictions, label_current, isouter=True)
        .where(p.model == model)
    )
    if isinstance(before, datetime):
        query = query.where(p.at_us < to_us(before))
    else:
        at_us = to_us(before.at)
        query = query.where(and_(p.at_us <= at_us, or_(p.at_us < at_us, p.row < before.row)))
    if labelled is not None:
        query = query.where(label.is_not(None) if labelled else label.is_(None))
    for id_, at_us, version, set_hash, predicted, packed, *rest in connection.execute(
        query.order_by(p.at_us.desc(), p.row.desc()).limit(limit)
    ):
        yield RecentRecord(id_, from_us(at_us), version, set_hash, predicted, to_probabilities(packed), *rest)


def memberships(
    connection: Connection, model: str, *, since: datetime | None, until: datetime, limit: int
) -> list[tuple[str, bytes, bytes]]:
    """Return set hash, members and unknown memberships of the last rows of [since, until), of all versions."""
    p = predictions.c
    query = select(p.set_hash, p.member, p.unknown).where(p.model == model, p.at_us < to_us(until))
    if since is not None:
        query = query.where(p.at_us >= to_us(since))
    return [tuple(row) for row in connection.execute(query.order_by(p.at_us.desc(), p.row.desc()).limit(limit))]


def last_row(connection: Connection) -> int:
    """Return the number of the last row of the log, of any model; 0 without one."""
    return connection.scalar(select(func.max(predictions.c.row))) or 0


def arrivals(connection: Connection, after: int) -> Iterator[Arrival]:
    """Yield the rows of all models with higher numbers, in order of arrival."""
    p = predictions.c
    columns = p.row, p.model, p.version, p.set_hash, p.at_us, p.label
    query = select(*columns, p.member, p.unknown, p.probabilities, p.disagreement)
    for row, model, version, set_hash, at_us, *rest in connection.execute(query.where(p.row > after).order_by(p.row)):
        yield Arrival(row, model, version, set_hash, from_us(at_us), *rest)


def logged_sets(connection: Connection, model: str, version: int, since: datetime, until: datetime) -> list[str]:
    """Return the hashes of the function sets of a model version's rows in [since, until), the latest first."""
    p = predictions.c
    query = select(p.set_hash).where(*_logged(model, version, since, until)).group_by(p.set_hash)
    return list(connection.scalars(query.order_by(func.max(p.at_us).desc())))


def logged_memberships(
    connection: Connection, model: str, version: int, since: datetime, until: datetime, limit: int
) -> Iterator[list[Membership]]:
    """Yield the rows of a model version in [since, until) in order of time, at most ``limit`` at once.

    Every part is a statement of its own, so that the journal of a running service is not held back.
    """
    p = predictions.c
    query = select(p.at_us, p.row, p.set_hash, p.member, p.unknown).order_by(p.at_us, p.row).limit(limit)
    last = Cursor(since, -1)
    while True:
        is_later = or_(p.at_us > to_us(last.at), p.row > last.row)
        rows = connection.execute(query.where(*_logged(model, version, last.at, until), is_later)).all()
        if not rows:
            return
        yield [Membership(from_us(row.at_us), row.set_hash, row.member, row.unknown) for row in rows]
        last = Cursor(from_us(rows[-1].at_us), rows[-1].row)


def _logged(model: str, version: int, since: datetime, until: datetime) -> tuple[ColumnElement[bool], ...]:
    p = predictions.c
    return p.model == model, p.version == version, p.at_us >= to_us(since), p.at_us < to_us(until)


def stored_features(connection: Connection, row: int) -> str | None:
    """Return the features of a row of the log as JSON; None if none were stored."""
    features: str | None = connection.scalar(select(predictions.c.features).where(predictions.c.row == row))
    return features


def labels(connection: Connection, model: str, ids: Iterable[str]) -> dict[str, str]:
    """Return the current labels by prediction id; ids without a label are absent."""
    query = select(predictions.c.id, label_current.c.label).join_from(predictions, label_current)
    return {
        id_: label
        for part in chunks(ids)
        for id_, label in connection.execute(query.where(predictions.c.model == model, predictions.c.id.in_(part)))
    }


def last_label_at(connection: Connection, model: str) -> datetime | None:
    """Return the arrival of a model's last label."""
    c = label_events.c
    at_us = connection.scalar(select(c.received_us).where(c.model == model).order_by(c.row.desc()).limit(1))
    return None if at_us is None else from_us(at_us)


def most_logged_version(
    connection: Connection, model: str, current: int | None = None, now: datetime | None = None
) -> tuple[int, datetime] | None:
    """Return the version of most of the last 1,000 rows, optionally until now, and its first time; None without.

    The current version stays unless another one has three fifths of them: None if it has none itself then.
    """
    p, b = predictions.c, blocks.c
    logged = select(p.version, p.at_us).where(p.model == model)
    if now is not None:  # rows from the future would keep out later ones
        logged = logged.where(p.at_us <= to_us(now))
    last = logged.order_by(p.at_us.desc()).limit(_LATEST).subquery()
    rows = func.count().label("rows")
    counted = select(last.c.version, func.min(last.c.at_us).label("at_us"), rows).group_by(last.c.version)
    versions = connection.execute(counted.order_by(rows.desc(), last.c.version.desc())).all()
    least = 0 if current is None else _LEADING * sum(row.rows for row in versions)
    usual = next((row for row in versions if row.rows >= least or row.version == current), None)
    if usual is None:
        return None
    first = select(func.min(b.start_us)).where(b.model == model, b.version == usual.version)
    return usual.version, from_us(min(usual.at_us, connection.scalar(first) or usual.at_us))


def leads_since(connection: Connection, model: str, version: int, after: int) -> bool:
    """Return True if a version has three fifths of the last 1,000 rows that arrived after a row number."""
    p = predictions.c
    query = select(p.model, p.version).where(p.row > after).order_by(p.row.desc()).limit(_LATEST)
    versions = [row.version for row in connection.execute(query) if row.model == model]
    return versions.count(version) >= max(1, _LEADING * len(versions))


def counts_between(
    connection: Connection, model: str, version: int, since: datetime, until: datetime
) -> list[BlockCounts]:
    """Return the blocks of a model version that overlap [since, until), in order of time."""
    query = _blocks(model, version).where(blocks.c.start_us < to_us(until), *_ends_after(since))
    return [to_block(row) for row in connection.execute(query)]


def iter_blocks(connection: Connection, model: str, version: int, since: datetime) -> Iterator[BlockCounts]:
    """Yield the blocks of a model version that end after a moment, one at a time, in order of time."""
    for row in connection.execute(_blocks(model, version).where(*_ends_after(since))):
        yield to_block(row)


def totals_between(
    connection: Connection, model: str, version: int, since: datetime, until: datetime, step_seconds: int
) -> list[BlockCounts]:
    """Return the sums of a model version's blocks in steps from ``since``, by time, without empty steps.

    Each step has one sum per function set. A block belongs to the step in which it starts.
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


def block_starts(
    connection: Connection, model: str, version: int, since: datetime, until: datetime, limit: int
) -> list[datetime]:
    """Return the first start times of a model version's blocks in [since, until), in order."""
    b = blocks.c
    query = select(b.start_us).distinct().order_by(b.start_us).limit(limit)
    query = query.where(b.model == model, b.version == version)
    query = query.where(b.start_us >= to_us(since), b.start_us < to_us(until))
    return [from_us(start_us) for start_us in connection.scalars(query)]


def longer_blocks(connection: Connection, model: str, version: int, since: datetime) -> set[BlockKey]:
    """Return the rolled-up blocks of a model version that end after a moment."""
    b = blocks.c
    query = select(b.set_hash, b.start_us, b.seconds).where(
        b.model == model, b.version == version, b.seconds > BLOCK_SECONDS[0], *_ends_after(since)
    )
    return {BlockKey(hash_, from_us(start), seconds) for hash_, start, seconds in connection.execute(query)}


def _blocks(model: str, version: int) -> Select[Any]:
    b = blocks.c
    chosen = select(*BLOCK_COLUMNS).where(b.model == model, b.version == version)
    return chosen.order_by(b.start_us, b.set_hash)


def _ends_after(at: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions on blocks that end after a moment; the first one can use an index."""
    b, at_us = blocks.c, to_us(at)
    return b.start_us > at_us - BLOCK_SECONDS[-1] * SECOND_US, b.start_us + b.seconds * SECOND_US > at_us


def function_set(connection: Connection, set_hash: str) -> FunctionSetVersion | None:
    """Return a recorded function set by hash."""
    row = connection.execute(select(function_sets).where(function_sets.c.hash == set_hash)).first()
    return None if row is None else _to_set(row)


def all_function_sets(connection: Connection) -> list[FunctionSetVersion]:
    """Return all recorded function sets, oldest first."""
    c = function_sets.c
    return [_to_set(row) for row in connection.execute(select(function_sets).order_by(c.at_us, c.hash))]


def _to_set(row: Row[Any]) -> FunctionSetVersion:
    names, prints, votes = (tuple(json.loads(text)) for text in (row.names, row.fingerprints, row.votes))
    return FunctionSetVersion(row.hash, names, prints, from_us(row.at_us), votes)


def kept_since(connection: Connection, model: str) -> datetime | None:
    """Return the moment before which retention may have deleted rows of a model; None if it deleted none."""
    kept = checkpoint(connection, kept_since_name(model))
    return None if kept is None else kept.at


def checkpoint(connection: Connection, name: str) -> Checkpoint | None:
    """Return the last state saved under a name."""
    row = connection.execute(select(checkpoints).where(checkpoints.c.name == name)).first()
    return None if row is None else Checkpoint(from_us(row.at_us), row.state)
