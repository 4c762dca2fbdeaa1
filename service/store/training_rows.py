"""Logged rows for training and for drift reports; every function streams, however long the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, func, select

from service.store.tables import (
    PREDICTION_COLUMNS,
    chunks,
    from_us,
    label_current,
    predictions,
    to_prediction,
    to_us,
)

_ROWS_IN_MEMORY = 500


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """Prediction id and time, the stored record as JSON, and its current label."""

    id: str
    at: datetime
    features: str
    label: str


@dataclass(frozen=True, slots=True)
class TrafficRow:
    """Prediction, the stored record as JSON (None if no feature was stored), and a hash of the whole record."""

    at: datetime
    version: int
    label: str
    probabilities: tuple[float, ...] | None
    features: str | None
    content_hash: int


def labelled_rows(connection: Connection, model: str, *, limit: int, until: datetime) -> Iterator[LabelledRow]:
    """Yield the last labelled records answered before a moment, newest first, without rows that lack features."""
    p = predictions.c
    query = (
        select(p.id, p.at_us, p.features, label_current.c.label)
        .join_from(predictions, label_current)
        .where(p.model == model, p.at_us < to_us(until), p.features.is_not(None))
        .order_by(p.at_us.desc(), p.row.desc())
        .limit(limit)
    )
    options = {"yield_per": _ROWS_IN_MEMORY}
    for id_, at_us, features, label in connection.execute(query, execution_options=options):
        yield LabelledRow(id_, from_us(at_us), features, label)


def traffic_rows(
    connection: Connection, model: str, version: int, *, since: datetime, until: datetime, limit: int
) -> Iterator[TrafficRow]:
    """Yield the rows of a version in [since, until), oldest first: all, or an evenly spaced sample.

    Row i of n is taken if i * limit / n passes an integer, so that the sample has ``limit`` rows.
    """
    p = predictions.c
    window = and_(p.model == model, p.version == version, p.at_us >= to_us(since), p.at_us < to_us(until))
    rows = connection.scalar(select(func.count()).select_from(predictions).where(window)) or 0
    order = func.row_number().over(order_by=(p.at_us, p.row)) - 1
    numbered = select(p.row, order.label("position")).where(window).subquery()
    sample = select(numbered.c.row).where(numbered.c.position * limit % max(rows, 1) < limit)
    # Only the row numbers of the sample are held: a join here would sort whole records in the database.
    row_numbers = connection.scalars(sample.order_by(numbered.c.position)).all()
    for part in chunks(row_numbers, _ROWS_IN_MEMORY):
        query = select(*PREDICTION_COLUMNS).where(p.row.in_(part)).order_by(p.at_us, p.row)
        for row in map(to_prediction, connection.execute(query)):
            yield TrafficRow(row.at, row.version, row.label, row.probabilities, row.features, row.content_hash)
