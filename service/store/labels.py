"""First labels in order of arrival: evidence that the drift detector uses once and never revises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, insert, select

from service.events import Label, LabelOutcome
from service.store.block_store import SeriesKey, mark_dirty
from service.store.engine import driver_of, insert_into
from service.store.tables import (
    SECOND_US,
    chunks,
    from_us,
    label_current,
    label_events,
    pending_labels,
    predictions,
    to_us,
)
from service.store.tables import first_labels as table
from sfs.schema import ClassReader

_FIRST_PENDING = "SELECT 1 FROM pending_labels LIMIT 1"


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
        Class of the first label, or that in force some time after it.
    content, row
        Hash of the whole record, and row number of the ``Prediction``.
    """

    seq: int
    at: datetime
    version: int
    set_hash: str
    predicted: str
    label: str
    member: bytes
    unknown: bytes
    content: int
    row: int


def add_first_labels(connection: Connection, labels: Iterable[tuple[int, str, int, int, str]]) -> None:
    """Add first labels in this order, as (prediction_row, model, version, at_us, label); existing ones stay."""
    columns = ("prediction_row", "model", "version", "at_us", "label")
    if values := [dict(zip(columns, label, strict=True)) for label in labels]:
        connection.execute(insert_into(connection, table).on_conflict_do_nothing(), values)


def first_labels(
    connection: Connection,
    model: str,
    after: int,
    limit: int,
    settling: timedelta = timedelta(0),
    before: int | None = None,
) -> list[FirstLabel]:
    """Return the next first labels of a model's predictions after a ``seq``, in order, at most up to another one.

    Their classes are those in force ``settling`` after their arrival.
    """
    query = _first_labels(model).where(table.c.seq > after).order_by(table.c.seq).limit(limit)
    if before is not None:
        query = query.where(table.c.seq < before)
    return _in_force(connection, connection.execute(query).all(), settling)


def first_unsettled(connection: Connection, model: str, after: int, until: datetime, now: datetime) -> int | None:
    """Return the ``seq`` of the next first label that arrived in [until, now], and so waits; None without one."""
    c = table.c
    waits = select(c.seq).where(c.model == model, c.seq > after, c.at_us >= to_us(until), c.at_us <= to_us(now))
    return connection.scalar(waits.order_by(c.seq).limit(1))


def _in_force(connection: Connection, rows: Sequence[Any], settling: timedelta) -> list[FirstLabel]:
    """Return first labels with the classes in force some time after their arrival."""
    labels = [FirstLabel(seq, from_us(at_us), *rest) for seq, at_us, *rest in rows]
    ends = {label.row: to_us(label.at + settling) for label in labels}
    e, p, current, rules = label_events.c, predictions.c, label_current.c, LabelRules()
    given_again = (
        select(p.row, e.label, e.observed_us, e.received_us)
        .join_from(predictions, table, table.c.prediction_row == p.row)
        .join(label_current, current.prediction_row == p.row)
        .join(label_events, and_(e.model == p.model, e.prediction_id == p.id))
        .where(current.received_us > table.c.at_us, e.outcome.in_(("accepted", "corrected", "pending")))
        .order_by(e.row)
    )
    found: dict[int, tuple[str, int]] = {}
    for part in chunks([*ends] if settling else []):
        for row, label, observed_us, received_us in connection.execute(given_again.where(p.row.in_(part))):
            _, before = found.get(row, ("", observed_us))
            if received_us <= ends[row] and (observed_us >= before or rules.is_future(before, received_us)):
                found[row] = label, observed_us
    return [replace(label, label=found[label.row][0]) if label.row in found else label for label in labels]


def latest_first_labels(
    connection: Connection, model: str, version: int, *, since: datetime | None, until: datetime, limit: int
) -> list[FirstLabel]:
    """Return the last first labels of a version's predictions that arrived in [since, until), newest first."""
    c = table.c
    query = _first_labels(model).where(predictions.c.version == version, c.at_us < to_us(until))
    if since is not None:
        query = query.where(c.at_us >= to_us(since))
    rows = connection.execute(query.order_by(c.seq.desc()).limit(limit))
    return [FirstLabel(seq, from_us(at_us), *rest) for seq, at_us, *rest in rows]


def _first_labels(model: str) -> Select[Any]:
    c, p = table.c, predictions.c
    columns = c.seq, c.at_us, p.version, p.set_hash, p.label, c.label, p.member, p.unknown, p.content_hash, p.row
    return select(*columns).join_from(table, predictions, p.row == c.prediction_row).where(c.model == model)


def last_first_label(connection: Connection, model: str, before: datetime | None = None) -> int:
    """Return the ``seq`` of a model's last first label, optionally of those before a moment; 0 without one."""
    query = select(table.c.seq).where(table.c.model == model).order_by(table.c.seq.desc()).limit(1)
    if before is not None:
        query = query.where(table.c.at_us < to_us(before))
    return connection.scalar(query) or 0


Statement = tuple[str, int, str, str]
"""Identity of a label: prediction id, observed_us, labeller, label."""


@dataclass(frozen=True, slots=True)
class LabelRules:
    """Limits on the times of labels.

    Parameters
    ----------
    late_after_seconds
        A label received longer than this after its prediction is stored, but not counted. Labels of backfilled
        predictions are never too late.
    future_seconds
        Maximum lead of ``observed_at`` over the server's clock: a label from the future would override every
        correction. One that was stored before the clock was set back overrides none.
    keep_days
        Age at which predictions are deleted; None for never.
    """

    late_after_seconds: float = 30 * 86_400
    future_seconds: float = 300
    keep_days: float | None = None

    @property
    def unknown_id(self) -> str:
        """Reason why a label of an unknown id does not count yet."""
        deleted = "" if self.keep_days is None else f", or it was deleted after {self.keep_days:g} days (log.keep_days)"
        return f"no prediction has this id yet{deleted}; the label is kept until it arrives"

    def is_late(self, received_us: int, at_us: int, source: str) -> bool:
        """Return True if a label arrived too late for a prediction of this time and source."""
        return source != "backfill" and received_us - at_us > self.late_after_seconds * SECOND_US

    def is_future(self, observed_us: int, received_us: int) -> bool:
        """Return True if an observation lies further ahead of the clock at an arrival than clocks differ."""
        return observed_us > received_us + self.future_seconds * SECOND_US


@dataclass(frozen=True, slots=True)
class LabelResult:
    """Outcome of a label, with the reason if it does not count."""

    outcome: LabelOutcome
    reason: str | None = None


def as_classes(labels: Iterable[Label], classes: Sequence[str]) -> list[Label]:
    """Return labels in the spelling of their classes; a label that is not a class is unchanged."""
    reader = ClassReader(classes)
    return [replace(label, label=reader.read(label.label) or label.label) for label in labels]


def all_results(labels: Iterable[Label], classes: Sequence[str], results: Iterable[LabelResult]) -> list[LabelResult]:
    """Return the outcome of each label, in order: rejected if it is not a class, else the next of ``results``."""
    written, listed = iter(results), ", ".join(map(repr, classes[:20]))
    return [
        next(written)
        if label.label in classes
        else LabelResult("rejected", f"{label.label!r:.60} is not a class; the classes are {listed}")
        for label in labels
    ]


@dataclass(slots=True)
class _Target:
    """Labelled prediction with its current label."""

    row: int
    series: SeriesKey
    at_us: int
    source: str
    label: str | None
    observed_us: int
    received_us: int
    changed: bool = False  # the class differs from the one that the counts were made with
    touched: bool = False
    first: tuple[int, str, int, int, str] | None = None  # a row for ``add_first_labels``

    def take(self, label: str, observed_us: int, received_us: int, rules: LabelRules) -> LabelOutcome:
        if self.label is None:
            series = self.series
            self.first = (self.row, series.model, series.version, max(received_us, self.at_us), label)
        elif observed_us < self.observed_us and not rules.is_future(self.observed_us, received_us):
            return "accepted"
        outcome: LabelOutcome = "accepted" if self.label in (None, label) else "corrected"
        self.changed |= self.label != label
        self.label, self.observed_us, self.received_us, self.touched = label, observed_us, received_us, True
        return outcome


@dataclass(slots=True)
class LabelBatch:
    """Labels of one model that are written together."""

    model: str
    rules: LabelRules
    targets: dict[str, _Target]
    statements: dict[Statement, int]  # -> received_us
    keys: dict[str, tuple[Statement, int]]
    events: list[dict[str, Any]] = field(default_factory=list)
    pending: dict[str, int] = field(default_factory=dict)
    taken: dict[str, _Target] = field(default_factory=dict)  # in order of arrival

    def take(self, label: Label) -> LabelResult:
        """Take one label."""
        id_, key, target = label.prediction_id, label.idempotency_key, self.targets.get(label.prediction_id)
        observed_us, received_us = to_us(label.observed_at), to_us(label.received_at)
        if self.rules.is_future(observed_us, received_us):
            at = label.observed_at.isoformat()
            return LabelResult("rejected", f"observed_at {at} is in the future: give the time of the observation")
        earlier = self.keys.get(key or "")
        if earlier and (earlier[0][0], earlier[0][3]) != (id_, label.label):
            return LabelResult(
                "rejected",
                f"idempotency_key {key!r} was used for label {earlier[0][3]!r} of prediction {earlier[0][0]!r}: "
                "use a new key for another label",
            )
        statement = (id_, observed_us, label.labeller, label.label)
        repeated_us = earlier[1] if earlier else self.statements.get(statement)
        stands = target is not None and target.label == label.label
        is_stored = is_repeat = repeated_us is not None
        if is_repeat and not earlier and (key or (observed_us == received_us and not stands)):
            # A new key, or a label of this moment that another replaced: a statement of its own.
            while statement in self.statements:
                observed_us += 1
                statement = (id_, observed_us, label.labeller, label.label)
            is_stored, is_repeat = False, stands
        first_us = repeated_us if is_repeat and repeated_us is not None else received_us
        if target is not None and self.rules.is_late(first_us, target.at_us, target.source):
            days = self.rules.late_after_seconds / 86_400
            result = LabelResult(
                "too_late", f"stored but not counted: received more than {days:g} days after the prediction"
            )
        elif is_repeat:
            result = LabelResult("duplicate", _reason(target, label.label))
        elif target is None:
            self.pending.setdefault(id_, received_us)
            result = LabelResult("pending", self.rules.unknown_id)
        else:
            self.taken.setdefault(id_, target)
            outcome = target.take(label.label, observed_us, received_us, self.rules)
            result = LabelResult(outcome, _reason(target, label.label))
        if not is_stored:
            self.statements[statement] = received_us
            if key:
                self.keys[key] = (statement, received_us)
            self.events.append(
                {
                    "model": self.model,
                    "prediction_id": id_,
                    "observed_us": observed_us,
                    "labeller": label.labeller,
                    "label": label.label,
                    "received_us": received_us,
                    "idempotency_key": key or None,
                    "outcome": result.outcome,
                }
            )
        return result


def _reason(target: _Target | None, label: str) -> str | None:
    """Return why a label that is stored does not count; None if it does."""
    if target is None or target.label in (None, label):
        return None
    return (
        f"label {target.label!r:.60} counts for this prediction: to replace it, send a later observed_at, or a new "
        "idempotency_key without a time"
    )


def take_labels(connection: Connection, model: str, labels: Sequence[Label], rules: LabelRules) -> list[LabelResult]:
    """Take labels of a model's predictions, in order of arrival, and return their outcomes.

    ``accepted``: stored, and counted unless a later observation is known. ``corrected``: replaces another
    class. ``duplicate``: the same statement or idempotency key was received before. ``pending``: no prediction
    has the id yet. A label that does not count comes with a reason.

    A key identifies its statement: a new key with the text of an earlier statement is another one, which counts
    if another label was given since. Statements are unique, so it is stored a microsecond later.
    """
    ids = {label.prediction_id for label in labels}
    keys = {label.idempotency_key for label in labels if label.idempotency_key}
    statements, by_key = _events(connection, model, ids, keys)
    batch = LabelBatch(model, rules, _targets(connection, model, ids), statements, by_key)
    results = [batch.take(label) for label in labels]
    if batch.events:
        connection.execute(insert(label_events), batch.events)
    if batch.pending:
        values = [
            {"model": model, "prediction_id": id_, "received_us": received_us}
            for id_, received_us in batch.pending.items()
        ]
        connection.execute(insert_into(connection, pending_labels).on_conflict_do_nothing(), values)
    _write_current(connection, batch.taken.values())
    return results


def settle_pending(connection: Connection, keys: Iterable[tuple[str, str]], rules: LabelRules) -> None:
    """Count the pending labels of predictions, given by model and id, that are now logged."""
    if driver_of(connection).execute(_FIRST_PENDING).fetchone() is None:
        return
    by_model: dict[str, list[str]] = {}
    for model, id_ in keys:
        by_model.setdefault(model, []).append(id_)
    c = label_events.c
    for model, ids in by_model.items():
        for part in chunks(ids):
            is_pending = and_(pending_labels.c.model == model, pending_labels.c.prediction_id.in_(part))
            pending = list(connection.scalars(select(pending_labels.c.prediction_id).where(is_pending)))
            if not pending:
                continue
            targets = _targets(connection, model, pending)
            labelled: dict[str, _Target] = {}
            events = select(c.prediction_id, c.label, c.observed_us, c.received_us)
            events = events.where(c.model == model, c.prediction_id.in_(pending)).order_by(c.row)
            for row in connection.execute(events):
                target = targets[row.prediction_id]
                if not rules.is_late(row.received_us, target.at_us, target.source):
                    labelled.setdefault(row.prediction_id, target)
                    target.take(row.label, row.observed_us, row.received_us, rules)
            _write_current(connection, labelled.values())
            connection.execute(delete(pending_labels).where(is_pending))


def _write_current(connection: Connection, targets: Iterable[_Target]) -> None:
    """Write current labels, and the first labels of predictions that had none, in this order."""
    touched = [target for target in targets if target.touched]
    if not touched:
        return
    upsert = insert_into(connection, label_current)
    columns = ("label", "observed_us", "received_us")
    values = [{"prediction_row": target.row} | {name: getattr(target, name) for name in columns} for target in touched]
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=[label_current.c.prediction_row],
            set_={name: upsert.excluded[name] for name in columns},
        ),
        values,
    )
    add_first_labels(connection, [target.first for target in touched if target.first])
    mark_dirty(connection, ((target.series, target.at_us) for target in touched if target.changed))


def _targets(connection: Connection, model: str, ids: Iterable[str]) -> dict[str, _Target]:
    p, current = predictions.c, label_current.c
    query = (
        select(p.id, p.row, p.version, p.set_hash, p.at_us, p.source)
        .add_columns(current.label, current.observed_us, current.received_us)
        .join_from(predictions, label_current, current.prediction_row == p.row, isouter=True)
        .where(p.model == model)
    )
    targets = {}
    for part in chunks(ids):
        for id_, row, version, set_hash, at_us, source, label, observed_us, received_us in connection.execute(
            query.where(p.id.in_(part))
        ):
            series = SeriesKey(model, version, set_hash)
            targets[id_] = _Target(row, series, at_us, source, label, observed_us or 0, received_us or 0)
    return targets


def _events(
    connection: Connection, model: str, ids: Iterable[str], keys: Iterable[str]
) -> tuple[dict[Statement, int], dict[str, tuple[Statement, int]]]:
    """Return the earlier statements about these ids, and the statements made under these keys."""
    c = label_events.c
    query = select(c.prediction_id, c.observed_us, c.labeller, c.label, c.received_us, c.idempotency_key)
    statements, by_key = {}, {}
    conditions = [c.prediction_id.in_(part) for part in chunks(ids)]
    conditions += [c.idempotency_key.in_(part) for part in chunks(keys)]
    for condition in conditions:
        for row in connection.execute(query.where(c.model == model, condition)):
            statement = (row.prediction_id, row.observed_us, row.labeller, row.label)
            statements[statement] = row.received_us
            if row.idempotency_key:
                by_key[row.idempotency_key] = (statement, row.received_us)
    return statements, by_key
