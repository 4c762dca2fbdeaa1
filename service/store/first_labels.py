"""First labels, in the order in which they came: what a watch may learn from once, and never unlearns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from service.store.engine import insert_into
from service.store.tables import first_labels as kept
from service.store.tables import from_us, predictions, to_us


@dataclass(frozen=True, slots=True)
class FirstLabel:
    """The first label of a prediction that counts, and what the prediction was.

    Parameters
    ----------
    seq
        Counts up in order of arrival, with gaps.
    at
        When both were there: the label was received, or the prediction was answered, whichever was later.
    version, set_hash, predicted, member, unknown
        Who answered what, and the slices of the row, as in ``Prediction``.
    label
        The class that was said first, whatever was said since.
    """

    seq: int
    at: datetime
    version: int
    set_hash: str
    predicted: str
    label: str
    member: bytes
    unknown: bytes


@dataclass(frozen=True, slots=True)
class Arrival:
    """A first label that is to be kept."""

    prediction_row: int
    model: str
    version: int
    at_us: int
    label: str


def keep_first_labels(connection: Connection, arrivals: Iterable[Arrival]) -> None:
    """Keep first labels in this order; where a prediction has one, it stays."""
    values = [
        {
            "prediction_row": each.prediction_row,
            "model": each.model,
            "version": each.version,
            "at_us": each.at_us,
            "label": each.label,
        }
        for each in arrivals
    ]
    if values:
        connection.execute(insert_into(connection, kept).on_conflict_do_nothing(), values)


def first_labels(connection: Connection, model: str, after: int, limit: int) -> list[FirstLabel]:
    """Return the first labels of a model's predictions that came after a ``seq``, at most so many, in order."""
    p = predictions.c
    query = (
        select(kept.c.seq, kept.c.at_us, p.version, p.set_hash, p.label, kept.c.label, p.member, p.unknown)
        .join_from(kept, predictions, p.row == kept.c.prediction_row)
        .where(kept.c.model == model, kept.c.seq > after)
        .order_by(kept.c.seq)
        .limit(limit)
    )
    return [FirstLabel(seq, from_us(at_us), *rest) for seq, at_us, *rest in connection.execute(query)]


def last_first_label(connection: Connection, model: str, before: datetime | None = None) -> int:
    """Return the ``seq`` of a model's last first label, of those that came before a moment; 0 without one."""
    query = select(kept.c.seq).where(kept.c.model == model).order_by(kept.c.seq.desc()).limit(1)
    if before is not None:
        query = query.where(kept.c.at_us < to_us(before))
    return connection.scalar(query) or 0
