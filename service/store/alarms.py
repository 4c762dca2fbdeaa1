"""Alarms in the store, from detection to resolution; every change is audited."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from service.decisions import RATES, Alarm, AuditEntry, DriftDetected, DriftStatus
from service.formatting import percent
from service.monitor.tolerance_band import changed_further
from service.store.audit import MONITOR, record
from service.store.engine import add_row
from service.store.errors import AlarmOfTarget, AlarmResolved, UnknownAlarm
from service.store.json_values import from_json, to_json
from service.store.tables import UNRESOLVED, from_us, to_us
from service.store.tables import alarms as table

ACCEPTED = "accepted as the new normal"
"""Resolution of an alarm whose rate was accepted."""

_PAGE = 100


def open_alarm(
    connection: Connection, model: str, version: int, detection: DriftDetected, *, actor: str = MONITOR
) -> Alarm | None:
    """Open an alarm for a detection; return None if an unresolved alarm covers it already.

    A slice has one unresolved alarm of a kind, whichever version raised it. If the rate has changed direction, or
    has moved on by more than the tolerance, that alarm is resolved and a new one opened: its acknowledgement
    does not cover this change.
    """
    drift, c = detection.drift, table.c
    same = select(table).where(UNRESOLVED, c.model == model, c.slice == drift.slice, c.kind == drift.kind)
    row = connection.execute(same.with_for_update()).first()
    if row is not None:
        current = to_alarm(row)
        if not changed_further(current.drift, drift):
            return None
        before, after = (percent(d.observed.value or 0.0) for d in (current.drift, drift))
        reason = f"superseded: {RATES[drift.kind]} changed from {before} to {after}"
        resolve_alarm(connection, current.id, detection.at, reason, actor=actor)
    opened = Alarm(0, model, version, detection.at, drift)
    opened = replace(opened, id=add_row(connection, table, _to_row(opened)))
    _record(connection, detection.at, actor, "opened", opened, {"drift": drift})
    return opened


def acknowledge_alarm(
    connection: Connection, alarm_id: int, at: datetime, by: str, note: str = "", *, actor: str | None = None
) -> Alarm:
    """Acknowledge an alarm, and return it; the first acknowledgement is kept.

    Parameters
    ----------
    by, note
        Person, and comment.
    actor
        Actor in the audit log; None for ``by``.

    Raises
    ------
    UnknownAlarm
        If the id is unknown.
    AlarmResolved
        If the alarm is resolved.
    """
    current = _for_update(connection, alarm_id)
    if current.state == "acknowledged":
        return current
    if current.state == "resolved":
        reason = f" ({current.resolution})" if current.resolution else ""
        raise AlarmResolved(
            f"alarm {alarm_id} is resolved{reason} and cannot be acknowledged; a further change raises a new alarm"
        )
    acknowledged = replace(current, state="acknowledged", acknowledged_at=at, acknowledged_by=by, note=note)
    connection.execute(update(table).where(table.c.id == alarm_id).values(_to_row(acknowledged)))
    _record(connection, at, by if actor is None else actor, "acknowledged", acknowledged, {"by": by, "note": note})
    return acknowledged


def resolve_alarm(
    connection: Connection, alarm_id: int, at: datetime, resolution: str, *, actor: str = MONITOR
) -> Alarm:
    """Resolve an alarm, and return it; the first resolution is kept.

    Raises
    ------
    UnknownAlarm
        If the id is unknown.
    """
    current = _for_update(connection, alarm_id)
    if current.state == "resolved":
        return current
    resolved = replace(current, state="resolved", resolved_at=at, resolution=resolution)
    connection.execute(update(table).where(table.c.id == alarm_id).values(_to_row(resolved)))
    _record(connection, at, actor, "resolved", resolved, {"resolution": resolution})
    return resolved


def accept_alarm(connection: Connection, alarm_id: int, at: datetime, note: str = "", *, actor: str) -> Alarm:
    """Accept the rate since the change as the new normal: resolve the alarm, and let the detectors expect it.

    Raises
    ------
    UnknownAlarm
        If the id is unknown.
    AlarmResolved
        If the alarm is resolved.
    AlarmOfTarget
        If the slice misses its target, which says what is normal.
    """
    current = _for_update(connection, alarm_id)
    if current.state == "resolved":
        raise AlarmResolved(f"alarm {alarm_id} is resolved and its rate cannot be accepted; a further change alarms")
    band = current.drift.zone
    if band is not None and band.target is not None:
        raise AlarmOfTarget(
            f"alarm {alarm_id} says that the accuracy misses the target of {percent(band.target)} of the slice: lower "
            "or remove the target instead"
        )
    resolved = resolve_alarm(connection, alarm_id, at, f"{ACCEPTED}{': ' if note else ''}{note}", actor=actor)
    connection.execute(update(table).where(table.c.id == alarm_id).values(accepted="requested"))
    _record(connection, at, actor, "accepted", resolved, {"note": note})
    return resolved


def accepted_alarms(connection: Connection, model: str) -> list[Alarm]:
    """Return the accepted alarms of a model whose rates the detectors do not expect yet, oldest first."""
    query = select(table).where(table.c.model == model, table.c.accepted == "requested").order_by(table.c.id)
    return [to_alarm(row) for row in connection.execute(query)]


def adopt_alarms(connection: Connection, ids: Collection[int]) -> None:
    """Record that the detectors expect the rates of these alarms."""
    connection.execute(update(table).where(table.c.id.in_(ids)).values(accepted="adopted"))


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
        Only unresolved alarms.
    before
        Only alarms with lower ids.
    limit
        Maximum number; None for all unresolved alarms, of which there are few, or for the last 100.
    """
    if limit is None and not unresolved:
        limit = _PAGE
    query = select(table).where(table.c.model == model).order_by(table.c.id.desc()).limit(limit)
    if unresolved:
        query = query.where(UNRESOLVED)
    if before is not None:
        query = query.where(table.c.id < before)
    return [to_alarm(row) for row in connection.execute(query)]


def count_unresolved(connection: Connection, model: str) -> int:
    """Return the number of unresolved alarms of a model."""
    query = select(func.count()).select_from(table).where(UNRESOLVED, table.c.model == model)
    return connection.scalar(query) or 0


def alarm(connection: Connection, alarm_id: int) -> Alarm | None:
    """Return an alarm by id."""
    row = connection.execute(select(table).where(table.c.id == alarm_id)).first()
    return None if row is None else to_alarm(row)


def _for_update(connection: Connection, alarm_id: int) -> Alarm:
    row = connection.execute(select(table).where(table.c.id == alarm_id).with_for_update()).first()
    if row is None:
        raise UnknownAlarm(f"unknown alarm {alarm_id}: list the alarms to see their ids")
    return to_alarm(row)


def _record(
    connection: Connection, at: datetime, actor: str, action: str, alarm: Alarm, detail: dict[str, Any]
) -> None:
    drift = alarm.drift
    about = {"model": alarm.model, "version": alarm.version, "slice": drift.slice, "kind": drift.kind}
    record(connection, AuditEntry(at, actor, f"alarm.{action}", f"alarm {alarm.id}", about | detail))


def _to_row(alarm: Alarm) -> dict[str, Any]:
    """Return the values of an alarm by column, without its id."""
    return {
        "model": alarm.model,
        "version": alarm.version,
        "slice": alarm.drift.slice,
        "kind": alarm.drift.kind,
        "at_us": to_us(alarm.at),
        "drift": to_json(alarm.drift),
        "state": alarm.state,
        "acknowledged_us": None if alarm.acknowledged_at is None else to_us(alarm.acknowledged_at),
        "acknowledged_by": alarm.acknowledged_by,
        "note": alarm.note,
        "resolved_us": None if alarm.resolved_at is None else to_us(alarm.resolved_at),
        "resolution": alarm.resolution,
        "incident": alarm.incident,
        "place": alarm.place,
        "moved": alarm.moved,
    }


def to_alarm(row: Row[Any]) -> Alarm:
    """Return the alarm of a row of the table."""
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
        incident=row.incident,
        place=row.place,
        moved=row.moved,
    )
