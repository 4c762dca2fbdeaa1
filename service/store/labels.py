"""What becomes of a label: the events as they came, and the label that counts.

Whatever the order in which predictions and labels arrive, the same label counts in the end: the one with the
latest ``observed_at`` among those that were received in time; of equals, the one that arrived last. Beside it
the first of them to arrive is kept for good, see ``evidence``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, insert, select

from service.events import Label, LabelOutcome
from service.store.dirty_blocks import SeriesKey, mark_dirty
from service.store.engine import insert_into
from service.store.first_labels import Arrival, keep_first_labels
from service.store.tables import chunks, label_current, label_events, pending_labels, predictions, to_us

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class LabelRules:
    """Which labels count.

    Parameters
    ----------
    late_after_seconds
        A label that is received longer than this after its prediction is kept, and does not count.
        Predictions that were filled in from history take labels of any age.
    future_seconds
        How far ahead of the server's clock ``observed_at`` may be: a label from the future would stand
        against every correction.
    """

    late_after_seconds: float = 30 * 86_400
    future_seconds: float = 300

    def is_late(self, received_us: int, at_us: int, source: str) -> bool:
        """Tell whether a label came too late for a prediction of that time and source."""
        return source != "backfill" and received_us - at_us > self.late_after_seconds * SECOND_US


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What became of a label, and why where it does not count."""

    outcome: LabelOutcome
    reason: str | None = None


@dataclass(slots=True)
class _Target:
    """A prediction that labels speak of, and the label that counts for it so far."""

    row: int
    series: SeriesKey
    at_us: int
    source: str
    label: str | None
    observed_us: int
    received_us: int
    changed: bool = False  # another class than the counts were made with
    touched: bool = False
    first: Arrival | None = None

    def take(self, label: str, observed_us: int, received_us: int) -> LabelOutcome:
        if self.label is None:
            at_us = max(received_us, self.at_us)
            self.first = Arrival(self.row, self.series.model, self.series.version, at_us, label)
        if self.label is not None and observed_us < self.observed_us:
            return "accepted"
        outcome: LabelOutcome = "accepted" if self.label in (None, label) else "corrected"
        self.changed |= self.label != label
        self.label, self.observed_us, self.received_us, self.touched = label, observed_us, received_us, True
        return outcome


Statement = tuple[str, int, str, str]
"""Prediction id, observed_us, labeller, label: what makes two labels the same one."""


@dataclass(slots=True)
class LabelBatch:
    """What is known while a batch of labels of one model is taken in."""

    model: str
    rules: LabelRules
    targets: dict[str, _Target]
    statements: dict[Statement, int]  # -> received_us
    keys: dict[str, tuple[Statement, int]]
    events: list[dict[str, Any]] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    taken: dict[str, _Target] = field(default_factory=dict)  # in order of arrival

    def take(self, label: Label) -> LabelResult:
        """Take in one label."""
        observed_us, received_us = to_us(label.observed_at), to_us(label.received_at)
        statement = (label.prediction_id, observed_us, label.labeller, label.label)
        if observed_us > received_us + self.rules.future_seconds * SECOND_US:
            when = label.observed_at.isoformat()
            return LabelResult(
                "rejected", f"observed_at {when} lies in the future; give the time of the observation"
            )
        if refused := self._repeated(label, statement):
            return refused
        result = self._outcome(label, observed_us, received_us)
        self._record(label, statement, received_us, result.outcome)
        return result

    def _repeated(self, label: Label, statement: Statement) -> LabelResult | None:
        earlier = self.keys.get(label.idempotency_key or "")
        if earlier and (earlier[0][0], earlier[0][3]) != (label.prediction_id, label.label):
            return LabelResult(
                "rejected",
                f"idempotency_key {label.idempotency_key!r} was used for label {earlier[0][3]!r} "
                f"of prediction {earlier[0][0]!r}; use a new key for another label",
            )
        received_us = earlier[1] if earlier else self.statements.get(statement)
        if received_us is None:
            return None
        target = self.targets.get(label.prediction_id)
        late = target is not None and self.rules.is_late(received_us, target.at_us, target.source)
        return _too_late(self.rules) if late else LabelResult("duplicate")

    def _outcome(self, label: Label, observed_us: int, received_us: int) -> LabelResult:
        target = self.targets.get(label.prediction_id)
        if target is None:
            self.waiting.setdefault(label.prediction_id, received_us)
            return LabelResult("pending", "no prediction has this id yet; the label waits for it")
        if self.rules.is_late(received_us, target.at_us, target.source):
            return _too_late(self.rules)
        self.taken.setdefault(label.prediction_id, target)
        return LabelResult(target.take(label.label, observed_us, received_us))

    def _record(self, label: Label, statement: Statement, received_us: int, outcome: LabelOutcome) -> None:
        self.statements[statement] = received_us
        if label.idempotency_key:
            self.keys[label.idempotency_key] = (statement, received_us)
        self.events.append(
            {
                "model": self.model,
                "prediction_id": label.prediction_id,
                "observed_us": statement[1],
                "labeller": label.labeller,
                "label": label.label,
                "received_us": received_us,
                "idempotency_key": label.idempotency_key or None,
                "outcome": outcome,
            }
        )


def take_labels(
    connection: Connection, model: str, labels: Sequence[Label], rules: LabelRules
) -> list[LabelResult]:
    """Take in labels of a model's predictions, in order of arrival, and say what became of each.

    ``accepted``: it is kept (and counts, unless a later observation is known). ``corrected``: it counts in
    place of another class. ``duplicate``: the same statement, or the same idempotency key, was here before.
    ``pending``: no prediction has the id yet. ``too_late`` and ``rejected`` come with their reason.
    """
    ids = {label.prediction_id for label in labels}
    keys = {label.idempotency_key for label in labels if label.idempotency_key}
    statements, by_key = _events(connection, model, ids, keys)
    desk = LabelBatch(model, rules, _targets(connection, model, ids), statements, by_key)
    results = [desk.take(label) for label in labels]
    if desk.events:
        connection.execute(insert(label_events), desk.events)
    if desk.waiting:
        values = [
            {"model": model, "prediction_id": id_, "received_us": received_us}
            for id_, received_us in desk.waiting.items()
        ]
        connection.execute(insert_into(connection, pending_labels).on_conflict_do_nothing(), values)
    _keep(connection, desk.taken.values())
    return results


def settle_pending(connection: Connection, keys: Iterable[tuple[str, str]], rules: LabelRules) -> None:
    """Let the labels count that waited for predictions, given by model and id, that are now in the log."""
    if not connection.scalar(select(exists().select_from(pending_labels))):
        return
    by_model: dict[str, list[str]] = {}
    for model, id_ in keys:
        by_model.setdefault(model, []).append(id_)
    for model, ids in by_model.items():
        for part in chunks(ids):
            here = and_(pending_labels.c.model == model, pending_labels.c.prediction_id.in_(part))
            if waited := list(connection.scalars(select(pending_labels.c.prediction_id).where(here))):
                _settle(connection, model, waited, rules)
                connection.execute(delete(pending_labels).where(here))


def _settle(connection: Connection, model: str, ids: Sequence[str], rules: LabelRules) -> None:
    targets, c = _targets(connection, model, ids), label_events.c
    taken: dict[str, _Target] = {}
    query = select(c.prediction_id, c.label, c.observed_us, c.received_us)
    for row in connection.execute(query.where(c.model == model, c.prediction_id.in_(ids)).order_by(c.row)):
        target = targets[row.prediction_id]
        if not rules.is_late(row.received_us, target.at_us, target.source):
            taken.setdefault(row.prediction_id, target)
            target.take(row.label, row.observed_us, row.received_us)
    _keep(connection, taken.values())


def _keep(connection: Connection, targets: Iterable[_Target]) -> None:
    """Keep the labels that count now, and of predictions that had none the first, in this order."""
    touched = [target for target in targets if target.touched]
    if not touched:
        return
    upsert = insert_into(connection, label_current)
    columns = ("label", "observed_us", "received_us")
    values = [
        {
            "prediction_row": t.row,
            "label": t.label,
            "observed_us": t.observed_us,
            "received_us": t.received_us,
        }
        for t in touched
    ]
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=[label_current.c.prediction_row],
            set_={name: upsert.excluded[name] for name in columns},
        ),
        values,
    )
    keep_first_labels(connection, [target.first for target in touched if target.first])
    mark_dirty(connection, ((target.series, target.at_us) for target in touched if target.changed))


def _targets(connection: Connection, model: str, ids: Iterable[str]) -> dict[str, _Target]:
    p, now = predictions.c, label_current.c
    query = (
        select(
            p.id, p.row, p.version, p.set_hash, p.at_us, p.source, now.label, now.observed_us, now.received_us
        )
        .join_from(predictions, label_current, now.prediction_row == p.row, isouter=True)
        .where(p.model == model)
    )
    return {
        id_: _Target(
            row, SeriesKey(model, version, set_hash), at_us, source, label, observed or 0, received or 0
        )
        for part in chunks(ids)
        for id_, row, version, set_hash, at_us, source, label, observed, received in connection.execute(
            query.where(p.id.in_(part))
        )
    }


def _events(
    connection: Connection, model: str, ids: Iterable[str], keys: Iterable[str]
) -> tuple[dict[Statement, int], dict[str, tuple[Statement, int]]]:
    c = label_events.c
    query = select(c.prediction_id, c.observed_us, c.labeller, c.label, c.received_us, c.idempotency_key)
    statements, by_key = {}, {}
    wanted = [c.prediction_id.in_(part) for part in chunks(ids)]
    wanted += [c.idempotency_key.in_(part) for part in chunks(keys)]
    for each in wanted:
        for *statement, received_us, key in connection.execute(query.where(c.model == model, each)):
            id_, observed_us, labeller, label = statement
            statements[(id_, observed_us, labeller, label)] = received_us
            if key:
                by_key[key] = ((id_, observed_us, labeller, label), received_us)
    return statements, by_key


def _too_late(rules: LabelRules) -> LabelResult:
    days = rules.late_after_seconds / 86_400
    return LabelResult(
        "too_late", f"labels count for {days:g} days after the prediction; this one is kept only"
    )
