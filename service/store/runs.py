"""Retrainings in the store: one that is not at its end per model, moved by compare-and-set, all in the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, null, select, update

from service.decisions import Decision, Run, RunState, Trigger
from service.store.audit import MONITOR, tell
from service.store.engine import add_row
from service.store.errors import RunActive, StaleRun, UnknownRun
from service.store.loop_json import from_json, to_json, values_from_json
from service.store.tables import ACTIVE_RUN, from_us, to_us
from service.store.tables import runs as kept

FIRST: tuple[RunState, ...] = ("waiting_for_labels", "training")
"""The states in which a run begins."""

NEXT: Mapping[RunState, tuple[RunState, ...]] = {
    "waiting_for_labels": ("training", "skipped", "failed"),
    "training": ("training", "gated", "skipped", "failed"),
    "gated": ("promoted", "held", "rejected", "failed"),
    "held": ("promoted", "rejected"),
}
"""Where a run may go from a state; from the others nowhere. To training again is another attempt."""


_LONG = ("data", "decision")


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
    """Open a run of a model, with no attempt begun; the parameters are the fields of ``Run``.

    Raises
    ------
    RunActive
        If the model has a run that is not at its end.
    ValueError
        If no run begins in this state.
    """
    if state not in FIRST:
        raise ValueError(f"a run begins in one of {FIRST}, not in {state!r}")
    if standing := active_run(connection, model):
        raise RunActive(f"run {standing.id} of model {model!r} is {standing.state}; wait until it has ended")
    opened = Run(0, model, state, trigger, reason, at, at, tuple(alarms), tuple(slices), since)
    id_ = add_row(connection, kept, _to_row(opened))
    opened = replace(opened, id=id_)
    detail = {"state": state, "trigger": trigger, "reason": reason}
    about = {"alarms": opened.alarms, "slices": opened.slices, "since": since}
    tell(connection, at, actor, "run.opened", f"run {id_}", {"model": model} | detail | about)
    return opened


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
    """Move a run on, or change what is known of it, and return it as it stands then.

    Parameters
    ----------
    expected
        Where the run is thought to be.
    at
        When it moves.
    state
        Where it goes; None to leave it where it is, of which the audit says nothing.
    attempts, champion, candidate, data, decision, outcome
        New values of its fields; None leaves a field as it is.
    actor
        Whom the audit names.

    Raises
    ------
    UnknownRun
        If there is none of this id.
    RunMoved
        If it is not where it was expected.
    ValueError
        If a run cannot go there from the expected state.
    """
    if state is not None and state not in NEXT.get(expected, ()):
        raise ValueError(f"a run cannot go from {expected!r} to {state!r}")
    standing = _standing(connection, run_id, expected)
    given = {
        "attempts": attempts,
        "champion": champion,
        "candidate": candidate,
        "data": data,
        "decision": decision,
        "outcome": outcome,
    }
    told: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    moved = replace(standing, state=state or expected, updated_at=at, **told)
    connection.execute(update(kept).where(kept.c.id == run_id).values(_to_row(moved)))
    if state is not None:
        detail = {"model": moved.model, "from": expected} | told
        tell(connection, at, actor, f"run.{state}", f"run {run_id}", detail)
    return moved


def runs(
    connection: Connection, model: str, *, before: int | None = None, limit: int = 50, whole: bool = True
) -> list[Run]:
    """Return a model's last runs, newest first; those with lower ids than ``before``, if given.

    Without ``whole`` their data and decisions, which are long, are left out.
    """
    query = _runs(model, whole).limit(limit)
    if before is not None:
        query = query.where(kept.c.id < before)
    return [_to_run(row) for row in connection.execute(query)]


def run_that_made(connection: Connection, model: str, version: int) -> Run | None:
    """Return the last run whose candidate is a version; None where none is."""
    row = connection.execute(_runs(model).where(kept.c.candidate == version).limit(1)).first()
    return None if row is None else _to_run(row)


def run(connection: Connection, run_id: int) -> Run | None:
    """Return the run of an id; None where there is none."""
    row = connection.execute(select(kept).where(kept.c.id == run_id)).first()
    return None if row is None else _to_run(row)


def active_run(connection: Connection, model: str) -> Run | None:
    """Return the run of a model that is not at its end; None where there is none."""
    row = connection.execute(_runs(model).where(ACTIVE_RUN)).first()
    return None if row is None else _to_run(row)


def runs_since(connection: Connection, model: str, since: datetime) -> list[Run]:
    """Return the runs of a model that were opened at or after a moment, newest first."""
    query = _runs(model).where(kept.c.opened_us >= to_us(since))
    return [_to_run(row) for row in connection.execute(query)]


def _runs(model: str, whole: bool = True) -> Select[Any]:
    columns = [each if whole or each.name not in _LONG else null().label(each.name) for each in kept.c]
    return select(*columns).where(kept.c.model == model).order_by(kept.c.id.desc())


def _standing(connection: Connection, run_id: int, expected: RunState) -> Run:
    row = connection.execute(select(kept).where(kept.c.id == run_id).with_for_update()).first()
    if row is None:
        raise UnknownRun(f"there is no run {run_id}; ask for the list of runs")
    if row.state != expected:
        raise StaleRun(f"run {run_id} is {row.state}, not {expected} any more; look at it again")
    return _to_run(row)


def _to_row(run: Run) -> dict[str, Any]:
    """Return the values of a run by column, but for its id, which the database gives."""
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
