"""Rows of the log to learn from and to compare with; every function streams, whatever the log has become."""

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

_AT_ONCE = 500
"""Rows that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A record as JSON, and the label that counts for it.

    Parameters
    ----------
    id, at
        Of the prediction.
    features
        The record as far as it was kept.
    label
        What it truly was, as is known now.
    """

    id: str
    at: datetime
    features: str
    label: str


@dataclass(frozen=True, slots=True)
class TrafficRow:
    """A prediction as the traffic brought it.

    Parameters
    ----------
    at, version, label, probabilities
        When which version answered what.
    features
        The record as JSON as far as it was kept; None where nothing was.
    """

    at: datetime
    version: int
    label: str
    probabilities: tuple[float, ...] | None
    features: str | None


def labelled_rows(
    connection: Connection, model: str, *, limit: int, until: datetime
) -> Iterator[LabelledRow]:
    """Yield the last labelled records that were answered before a moment, newest first; without features none.

    Parameters
    ----------
    limit
        How many at most.
    """
    p = predictions.c
    query = (
        select(p.id, p.at_us, p.features, label_current.c.label)
        .join_from(predictions, label_current)
        .where(p.model == model, p.at_us < to_us(until), p.features.is_not(None))
        .order_by(p.at_us.desc(), p.row.desc())
        .limit(limit)
    )
    for id_, at_us, features, label in connection.execute(query, execution_options={"yield_per": _AT_ONCE}):
        yield LabelledRow(id_, from_us(at_us), features, label)


def traffic_rows(
    connection: Connection, model: str, version: int, *, since: datetime, until: datetime, limit: int
) -> Iterator[TrafficRow]:
    """Yield the rows of [since, until) that a version answered, oldest first: all, or so many evenly spread.

    Row i of n is taken where i * limit / n passes a whole number, so that the sample has ``limit`` rows.
    """
    p = predictions.c
    here = and_(p.model == model, p.version == version, p.at_us >= to_us(since), p.at_us < to_us(until))
    rows = connection.scalar(select(func.count()).select_from(predictions).where(here)) or 0
    order = func.row_number().over(order_by=(p.at_us, p.row)) - 1
    numbered = select(p.row, order.label("place")).where(here).subquery()
    taken = select(numbered.c.row).where(numbered.c.place * limit % max(rows, 1) < limit)
    # Only the numbers of the sample's rows are held: to join them here would sort whole records in the database.
    for part in chunks(connection.scalars(taken.order_by(numbered.c.place)).all(), _AT_ONCE):
        query = select(*PREDICTION_COLUMNS).where(p.row.in_(part)).order_by(p.at_us, p.row)
        for made in map(to_prediction, connection.execute(query)):
            yield TrafficRow(made.at, made.version, made.label, made.probabilities, made.features)
