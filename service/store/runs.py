"""Retraining runs in the store: one unfinished run per model, moved by compare-and-set; all changes are audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, null, select, update

from service.decisions import AuditEntry, Decision, Run, RunState, Trigger
from service.store.audit import MONITOR, record
from service.store.engine import add_row
from service.store.errors import RunActive, StaleRun, UnknownRun
from service.store.json_values import from_json, to_json, values_from_json
from service.store.tables import ACTIVE_RUN, from_us, to_us
from service.store.tables import runs as table

INITIAL_STATES: tuple[RunState, ...] = ("waiting_for_labels", "training")

TRANSITIONS: Mapping[RunState, tuple[RunState, ...]] = {
    "waiting_for_labels": ("training", "skipped", "failed"),
    "training": ("training", "gated", "skipped", "failed"),  # to training again: another attempt
    "gated": ("promoted", "held", "rejected", "failed"),
    "held": ("promoted", "rejected"),
}


def open_run(
    connection: Connection,
    model: str,
    state: RunState,
    trigger: Trigger,
    reason: str,
    at: datetime,
    alarms: Sequence[int] = (),
    slices: Sequence[str] = (),
    since: datetime | None = None,
    *,
    actor: str = MONITOR,
) -> Run:
    """Open a run; the parameters are the fields of ``Run``.

    Raises
    ------
    RunActive
        If the model has an unfinished run.
    ValueError
        If the state is not an initial one.
    """
    if state not in INITIAL_STATES:
        raise ValueError(f"a run starts in one of {INITIAL_STATES}, not in {state!r}")
    if active := active_run(connection, model):
        raise RunActive(f"run {active.id} of model {model!r} is {active.state}: wait for its end")
    run = Run(0, model, state, trigger, reason, at, at, tuple(alarms), tuple(slices), since)
    run = replace(run, id=add_row(connection, table, _to_row(run)))
    detail = {
        "model": model,
        "state": state,
        "trigger": trigger,
        "reason": reason,
        "alarms": run.alarms,
        "slices": run.slices,
        "since": since,
    }
    record(connection, AuditEntry(at, actor, "run.opened", f"run {run.id}", detail))
    return run


def move_run(
    connection: Connection,
    run_id: int,
    expected: RunState,
    at: datetime,
    *,
    state: RunState | None = None,
    attempts: int | None = None,
    champion: int | None = None,
    candidate: int | None = None,
    data: Mapping[str, Any] | None = None,
    decision: Decision | None = None,
    outcome: str | None = None,
    actor: str = MONITOR,
) -> Run:
    """Move a run to another state, or update its fields, and return it.

    Parameters
    ----------
    expected
        Current state of the run.
    state
        New state; None keeps it, which is not audited.
    attempts, champion, candidate, data, decision, outcome
        New values of its fields; None keeps a field.
    actor
        Actor in the audit log.

    Raises
    ------
    UnknownRun
        If the id is unknown.
    StaleRun
        If the run is not in the expected state.
    ValueError
        If there is no such transition from the expected state.
    """
    if state is not None and state not in TRANSITIONS.get(expected, ()):
        raise ValueError(f"a run cannot go from {expected!r} to {state!r}")
    row = connection.execute(select(table).where(table.c.id == run_id).with_for_update()).first()
    if row is None:
        raise UnknownRun(f"unknown run {run_id}: list the runs to see their ids")
    if row.state != expected:
        raise StaleRun(f"run {run_id} is {row.state}, no longer {expected}: read it again")
    values = {
        "attempts": attempts,
        "champion": champion,
        "candidate": candidate,
        "data": data,
        "decision": decision,
        "outcome": outcome,
    }
    changes: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    moved = replace(_to_run(row), state=state or expected, updated_at=at, **changes)
    connection.execute(update(table).where(table.c.id == run_id).values(_to_row(moved)))
    if state is not None:
        detail = {"model": moved.model, "from": expected} | changes
        record(connection, AuditEntry(at, actor, f"run.{state}", f"run {run_id}", detail))
    return moved


def runs(
    connection: Connection, model: str, *, before: int | None = None, limit: int = 50, whole: bool = True
) -> list[Run]:
    """Return a model's last runs, newest first, optionally only those with ids below ``before``.

    Without ``whole`` their data and decisions, which are long, are omitted.
    """
    query = _runs(model, whole).limit(limit)
    if before is not None:
        query = query.where(table.c.id < before)
    return [_to_run(row) for row in connection.execute(query)]


def run_that_made(connection: Connection, model: str, version: int) -> Run | None:
    """Return the last run whose candidate is this version."""
    row = connection.execute(_runs(model).where(table.c.candidate == version).limit(1)).first()
    return None if row is None else _to_run(row)


def run(connection: Connection, run_id: int) -> Run | None:
    """Return a run by id."""
    row = connection.execute(select(table).where(table.c.id == run_id)).first()
    return None if row is None else _to_run(row)


def active_run(connection: Connection, model: str) -> Run | None:
    """Return the unfinished run of a model."""
    row = connection.execute(_runs(model).where(ACTIVE_RUN)).first()
    return None if row is None else _to_run(row)


def runs_since(connection: Connection, model: str, since: datetime) -> list[Run]:
    """Return the runs of a model opened at or after a moment, newest first."""
    query = _runs(model).where(table.c.opened_us >= to_us(since))
    return [_to_run(row) for row in connection.execute(query)]


def _runs(model: str, whole: bool = True) -> Select[Any]:
    long = () if whole else ("data", "decision")
    columns = [null().label(column.name) if column.name in long else column for column in table.c]
    return select(*columns).where(table.c.model == model).order_by(table.c.id.desc())


def _to_row(run: Run) -> dict[str, Any]:
    """Return the values of a run by column, without its id."""
    return {
        "model": run.model,
        "state": run.state,
        "trigger": run.trigger,
        "reason": run.reason,
        "opened_us": to_us(run.opened_at),
        "updated_us": to_us(run.updated_at),
        "alarms": to_json(run.alarms),
        "slices": to_json(run.slices),
        "since_us": None if run.since is None else to_us(run.since),
        "attempts": run.attempts,
        "champion": run.champion,
        "candidate": run.candidate,
        "data": None if run.data is None else to_json(run.data),
        "decision": None if run.decision is None else to_json(run.decision),
        "outcome": run.outcome,
    }


def _to_run(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        model=row.model,
        state=row.state,
        trigger=row.trigger,
        reason=row.reason,
        opened_at=from_us(row.opened_us),
        updated_at=from_us(row.updated_us),
        alarms=tuple(values_from_json(row.alarms)),
        slices=tuple(values_from_json(row.slices)),
        since=None if row.since_us is None else from_us(row.since_us),
        attempts=row.attempts,
        champion=row.champion,
        candidate=row.candidate,
        data=None if row.data is None else values_from_json(row.data),
        decision=None if row.decision is None else from_json(Decision, row.decision),
        outcome=row.outcome,
    )
