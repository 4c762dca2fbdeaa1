"""Logged rows for training and for drift reports; every function streams, however long the log and its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

from sqlalchemy import Connection, and_, func, select

from service.store.tables import from_us, label_current, predictions, to_probabilities, to_us

TRAINING_BYTES = 256 * 2**20
REPORT_BYTES = 128 * 2**20
"""Approximate maximum size of the records of a training and of a report, as JSON: 32 of the largest in a report."""


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
    """Yield the last labelled records answered before a moment, newest first, without rows that lack features.

    The last row is the one with which their size reaches ``TRAINING_BYTES``.
    """
    p = predictions.c
    query = (
        select(p.id, p.at_us, p.features, label_current.c.label)
        .join_from(predictions, label_current)
        .where(p.model == model, p.at_us < to_us(until), p.features.is_not(None))
        .order_by(p.at_us.desc(), p.row.desc())
        .limit(limit)
    )
    size = 0
    for id_, at_us, features, label in connection.execute(query):
        yield LabelledRow(id_, from_us(at_us), features, label)
        size += len(features)
        if size >= TRAINING_BYTES:
            break


def traffic_sample(
    connection: Connection, model: str, version: int, *, since: datetime, until: datetime, limit: int
) -> list[int]:
    """Return the row numbers of a version in [since, until), oldest first: all, or an evenly spaced sample.

    Row i of n is taken if i * limit / n passes an integer, so that the sample has ``limit`` rows.
    """
    p = predictions.c
    window = and_(p.model == model, p.version == version, p.at_us >= to_us(since), p.at_us < to_us(until))
    rows = connection.scalar(select(func.count()).select_from(predictions).where(window)) or 0
    order = func.row_number().over(order_by=(p.at_us, p.row)) - 1
    numbered = select(p.row, order.label("position")).where(window).subquery()
    sample = select(numbered.c.row).where(numbered.c.position * limit % max(rows, 1) < limit)
    # A join here would sort whole records in the database.
    return list(connection.scalars(sample.order_by(numbered.c.position)))


def traffic_rows(connection: Connection, sample: Sequence[int]) -> Iterator[TrafficRow]:
    """Yield the rows of a sample in random order, the same at every call.

    The last row is the one with which their size reaches ``REPORT_BYTES``; the order makes those a sample, too.
    """
    p, size = predictions.c, 0
    columns = [p.at_us, p.version, p.label, p.probabilities, p.features, p.content_hash]
    for row_number in Random(0).sample(sample, len(sample)):
        row = connection.execute(select(*columns).where(p.row == row_number)).first()
        if row is None:  # deleted since
            continue
        probabilities = to_probabilities(row.probabilities)
        yield TrafficRow(from_us(row.at_us), row.version, row.label, probabilities, row.features, row.content_hash)
        size += len(row.features or "")
        if size >= REPORT_BYTES:
            break
