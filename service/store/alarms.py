"""Alarms in the store, from the verdict to the resolution; every change is in the audit as well."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from service.decisions import Alarm, DriftDetected, DriftStatus
from service.store.audit import MONITOR, tell
from service.store.engine import add_row
from service.store.errors import AlarmResolved, UnknownAlarm
from service.store.loop_json import from_json, to_json, to_values
from service.store.tables import UNRESOLVED, from_us, to_us
from service.store.tables import alarms as kept

_PAGE = 100


def open_alarm(
    connection: Connection, model: str, version: int, verdict: DriftDetected, *, actor: str = MONITOR
) -> Alarm | None:
    """Keep a verdict on a model version as an alarm; None, and nothing is kept, where one stands that says it.

    A slice has one alarm of a kind that is not resolved, whichever version it was raised on. Where the rate has
    turned since, or is shown to be another by more than is tolerated, the alarm that stands is resolved, and
    the verdict becomes a new one: who has answered the old one knows nothing of this.
    """
    drift, c = verdict.drift, kept.c
    same = select(kept).where(UNRESOLVED, c.model == model, c.slice == drift.slice, c.kind == drift.kind)
    row = connection.execute(same.with_for_update()).first()
    if row is not None:
        before = _to_alarm(row)
        if not _moved_on(before.drift, drift):
            return None
        resolve_alarm(connection, before.id, verdict.at, _moved_on_text(before.drift, drift), actor=actor)
    return _open(connection, model, version, verdict, actor)


def acknowledge_alarm(
    connection: Connection, alarm_id: int, at: datetime, by: str, note: str = "", *, actor: str | None = None
) -> Alarm:
    """Keep that somebody knows of an alarm, and return it as it stands then; the first to say so stays.

    Parameters
    ----------
    by, note
        Who it is, and what they say.
    actor
        Whom the audit names; None for ``by``.

    Raises
    ------
    UnknownAlarm
        If there is none of this id.
    AlarmResolved
        If it has ended.
    """
    standing = _standing(connection, alarm_id)
    if standing.state == "acknowledged":
        return standing
    if standing.state == "resolved":
        why = f": {standing.resolution}" if standing.resolution else ""
        raise AlarmResolved(
            f"alarm {alarm_id} is resolved and cannot be acknowledged{why}; "
            "if the slice moves again, a new alarm is raised"
        )
    known = replace(standing, state="acknowledged", acknowledged_at=at, acknowledged_by=by, note=note)
    _change(connection, known)
    _tell(connection, at, by if actor is None else actor, "acknowledged", known, {"by": by, "note": note})
    return known


def resolve_alarm(
    connection: Connection, alarm_id: int, at: datetime, resolution: str, *, actor: str = MONITOR
) -> Alarm:
    """End an alarm, saying why, and return it as it stands then; one that has ended stays as it is.

    Raises
    ------
    UnknownAlarm
        If there is none of this id.
    """
    standing = _standing(connection, alarm_id)
    if standing.state == "resolved":
        return standing
    ended = replace(standing, state="resolved", resolved_at=at, resolution=resolution)
    _change(connection, ended)
    _tell(connection, at, actor, "resolved", ended, {"resolution": resolution})
    return ended


def alarms(
    connection: Connection,
    model: str,
    *,
    unresolved: bool = False,
    before: int | None = None,
    limit: int | None = None,
) -> list[Alarm]:
    """Return a model's alarms, newest first.

    Parameters
    ----------
    unresolved
        Only those that have not ended.
    before
        Only those with lower ids.
    limit
        How many at most; None for all of those that have not ended, a slice has few, or for the last 100.
    """
    if limit is None and not unresolved:
        limit = _PAGE
    query = select(kept).where(kept.c.model == model).order_by(kept.c.id.desc()).limit(limit)
    if unresolved:
        query = query.where(UNRESOLVED)
    if before is not None:
        query = query.where(kept.c.id < before)
    return [_to_alarm(row) for row in connection.execute(query)]


def count_unresolved(connection: Connection, model: str) -> int:
    """Return how many alarms of a model have not ended."""
    query = select(func.count()).select_from(kept).where(UNRESOLVED, kept.c.model == model)
    return connection.scalar(query) or 0


def alarm(connection: Connection, alarm_id: int) -> Alarm | None:
    """Return the alarm of an id; None where there is none."""
    row = connection.execute(select(kept).where(kept.c.id == alarm_id)).first()
    return None if row is None else _to_alarm(row)


def _open(connection: Connection, model: str, version: int, verdict: DriftDetected, actor: str) -> Alarm:
    drift = verdict.drift
    row = {
        "model": model,
        "version": version,
        "slice": drift.slice,
        "kind": drift.kind,
        "at_us": to_us(verdict.at),
        "drift": to_json(drift),
        "state": "open",
        "acknowledged_by": "",
        "note": "",
        "resolution": "",
    }
    id_ = add_row(connection, kept, row)
    opened = Alarm(id_, model, version, verdict.at, drift)
    _tell(connection, verdict.at, actor, "opened", opened, {"drift": to_values(drift)})
    return opened


def _moved_on(before: DriftStatus, after: DriftStatus) -> bool:
    """Tell whether a rate turned, or is shown to have gone further than is tolerated from where it stood."""
    if before.direction and after.direction and before.direction != after.direction:
        return True
    tolerance = after.zone.tolerance if after.zone is not None else 0.0
    down, up = (before.lower, before.upper) if after.kind == "coverage" else (1.0, 1.0)
    return after.upper < before.lower - tolerance * down or after.lower > before.upper + tolerance * up


def _moved_on_text(before: DriftStatus, after: DriftStatus) -> str:
    was, now = (each.observed.count / max(each.observed.n, 1) for each in (before, after))
    return f"it moved on: {after.kind} went from {was:.3g} to {now:.3g}"


def _standing(connection: Connection, alarm_id: int) -> Alarm:
    row = connection.execute(select(kept).where(kept.c.id == alarm_id).with_for_update()).first()
    if row is None:
        raise UnknownAlarm(f"there is no alarm {alarm_id}; ask for the list of alarms")
    return _to_alarm(row)


def _change(connection: Connection, changed: Alarm) -> None:
    values = {
        "state": changed.state,
        "acknowledged_us": None if changed.acknowledged_at is None else to_us(changed.acknowledged_at),
        "acknowledged_by": changed.acknowledged_by,
        "note": changed.note,
        "resolved_us": None if changed.resolved_at is None else to_us(changed.resolved_at),
        "resolution": changed.resolution,
    }
    connection.execute(update(kept).where(kept.c.id == changed.id).values(values))


def _tell(
    connection: Connection, at: datetime, actor: str, what: str, alarm: Alarm, detail: dict[str, Any]
) -> None:
    of = {
        "model": alarm.model,
        "version": alarm.version,
        "slice": alarm.drift.slice,
        "kind": alarm.drift.kind,
    }
    tell(connection, at, actor, f"alarm.{what}", f"alarm {alarm.id}", of | detail)


def _to_alarm(row: Row[Any]) -> Alarm:
    return Alarm(
        id=row.id,
        model=row.model,
        version=row.version,
        at=from_us(row.at_us),
        drift=from_json(DriftStatus, row.drift),
        state=row.state,
        acknowledged_at=None if row.acknowledged_us is None else from_us(row.acknowledged_us),
        acknowledged_by=row.acknowledged_by,
        note=row.note,
        resolved_at=None if row.resolved_us is None else from_us(row.resolved_us),
        resolution=row.resolution,
    )
