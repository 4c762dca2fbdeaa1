"""First labels in order of arrival: evidence that the drift detector uses once and never revises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from service.store.engine import insert_into
from service.store.tables import first_labels as table
from service.store.tables import from_us, predictions, to_us


@dataclass(frozen=True, slots=True)
class FirstLabel:
    """First valid label of a prediction, with the prediction.

    Parameters
    ----------
    seq
        Increases in order of arrival, with gaps.
    at
        Arrival of the label, or time of the prediction if that is later.
    version, set_hash, predicted, member, unknown
        Fields of the ``Prediction``.
    label
        Class of the first label, whatever later labels say.
    """

    seq: int
    at: datetime
    version: int
    set_hash: str
    predicted: str
    label: str
    member: bytes
    unknown: bytes


def add_first_labels(connection: Connection, labels: Iterable[tuple[int, str, int, int, str]]) -> None:
    """Add first labels in this order, as (prediction_row, model, version, at_us, label); existing ones stay."""
    columns = ("prediction_row", "model", "version", "at_us", "label")
    if values := [dict(zip(columns, label, strict=True)) for label in labels]:
        connection.execute(insert_into(connection, table).on_conflict_do_nothing(), values)


def first_labels(connection: Connection, model: str, after: int, limit: int) -> list[FirstLabel]:
    """Return the next first labels of a model's predictions after a ``seq``, in order."""
    c, p = table.c, predictions.c
    query = (
        select(c.seq, c.at_us, p.version, p.set_hash, p.label, c.label, p.member, p.unknown)
        .join_from(table, predictions, p.row == c.prediction_row)
        .where(c.model == model, c.seq > after)
        .order_by(c.seq)
        .limit(limit)
    )
    return [FirstLabel(seq, from_us(at_us), *rest) for seq, at_us, *rest in connection.execute(query)]


def last_first_label(connection: Connection, model: str, before: datetime | None = None) -> int:
    """Return the ``seq`` of a model's last first label, optionally of those before a moment; 0 without one."""
    query = select(table.c.seq).where(table.c.model == model).order_by(table.c.seq.desc()).limit(1)
    if before is not None:
        query = query.where(table.c.at_us < to_us(before))
    return connection.scalar(query) or 0
