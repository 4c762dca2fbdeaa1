"""Incidents in the store: alarms with one cause, acknowledged and resolved together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, select, update

from service.decisions import Alarm, AuditEntry, Incident
from service.store.alarms import acknowledge_alarm, resolve_alarm, to_alarm
from service.store.audit import MONITOR, record
from service.store.engine import add_row
from service.store.errors import AlarmResolved, UnknownIncident
from service.store.tables import UNRESOLVED, chunks, from_us, to_us
from service.store.tables import alarms as alarm_table
from service.store.tables import incidents as table

_PAGE = 100


def assign_alarms(connection: Connection, model: str, order: Sequence[int], moved: Mapping[int, str]) -> Incident:
    """Put alarms into one incident, and return it.

    It is the oldest one that has any of them, else a new one. Alarms of other incidents stay there. If the incident
    is acknowledged, so are the alarms that join it. One about a rate that had an alarm in it before, which has changed
    further since, ends the acknowledgement instead.

    Parameters
    ----------
    order
        Ids of the alarms, the cause first.
    moved
        How the rate of each moved.
    """
    c = alarm_table.c
    queries = [select(alarm_table).where(c.id.in_(part)).with_for_update() for part in chunks(order)]
    given = {row.id: to_alarm(row) for query in queries for row in connection.execute(query)}
    known = [alarm.incident for alarm in given.values() if alarm.incident is not None]
    if known:
        current = _for_update(connection, min(known))
    else:
        current = Incident(0, model, ())
        current = replace(current, id=add_row(connection, table, _to_row(current)))
    joined = [id_ for id_ in order if given[id_].incident is None]
    rates = {(alarm.drift.slice, alarm.drift.kind) for alarm in current.alarms}
    again = any((given[id_].drift.slice, given[id_].drift.kind) in rates for id_ in joined)
    if again and current.acknowledged_at is not None:
        current = replace(current, acknowledged_at=None, acknowledged_by="", note="")
        connection.execute(update(table).where(table.c.id == current.id).values(_to_row(current)))
    here = {id_: moved[id_] for id_ in order if given[id_].incident in (None, current.id)}
    rest = {alarm.id: alarm.moved for alarm in current.alarms if alarm.id not in here}
    placed = {"incident": current.id, "place": bindparam("at"), "moved": bindparam("how")}
    connection.execute(
        update(alarm_table).where(c.id == bindparam("alarm")).values(placed),
        [{"alarm": id_, "at": k, "how": how} for k, (id_, how) in enumerate((here | rest).items())],
    )
    if current.acknowledged_at is not None:
        for id_ in (id_ for id_ in joined if given[id_].state == "open"):  # one may have been resolved meanwhile
            by, note = current.acknowledged_by, current.note
            acknowledge_alarm(connection, id_, given[id_].at, by, note, actor=MONITOR)
    return _for_update(connection, current.id)


def acknowledge_incident(
    connection: Connection, incident_id: int, at: datetime, by: str, note: str = "", *, actor: str | None = None
) -> Incident:
    """Acknowledge an incident with its alarms, and those that will join it; the first acknowledgement is kept.

    Raises
    ------
    UnknownIncident
        If the id is unknown.
    AlarmResolved
        If its alarms are resolved.
    """
    current = _for_update(connection, incident_id)
    if current.state == "resolved":
        raise AlarmResolved(
            f"incident {incident_id} is resolved and cannot be acknowledged; a change raises another one"
        )
    if current.acknowledged_at is None:
        acknowledged = replace(current, acknowledged_at=at, acknowledged_by=by, note=note)
        connection.execute(update(table).where(table.c.id == incident_id).values(_to_row(acknowledged)))
        actor = by if actor is None else actor
        _record(connection, at, actor, "acknowledged", current, {"by": by, "note": note})
    for alarm in current.unresolved:
        acknowledge_alarm(connection, alarm.id, at, by, note, actor=actor)
    return _for_update(connection, incident_id)


def resolve_incident(
    connection: Connection, incident_id: int, at: datetime, resolution: str, *, actor: str = MONITOR
) -> Incident:
    """Resolve the alarms of an incident, which ends it, and return it. Raises UnknownIncident for an unknown id."""
    current = _for_update(connection, incident_id)
    if current.unresolved:
        _record(connection, at, actor, "resolved", current, {"resolution": resolution})
    for alarm in current.unresolved:
        resolve_alarm(connection, alarm.id, at, resolution, actor=actor)
    return _for_update(connection, incident_id)


def incidents(
    connection: Connection,
    model: str,
    *,
    unresolved: bool = False,
    before: int | None = None,
    limit: int | None = None,
) -> list[Incident]:
    """Return a model's incidents with all their alarms, newest first; parameters as of ``store.alarms.alarms``."""
    if limit is None and not unresolved:
        limit = _PAGE
    query = select(table).where(table.c.model == model).order_by(table.c.id.desc()).limit(limit)
    if unresolved:
        query = query.where(exists().where(alarm_table.c.incident == table.c.id, UNRESOLVED))
    if before is not None:
        query = query.where(table.c.id < before)
    return _with_alarms(connection, connection.execute(query).all())


def incident(connection: Connection, incident_id: int) -> Incident | None:
    """Return an incident with its alarms by id."""
    rows = connection.execute(select(table).where(table.c.id == incident_id)).all()
    return next(iter(_with_alarms(connection, rows)), None)


def _for_update(connection: Connection, incident_id: int) -> Incident:
    rows = connection.execute(select(table).where(table.c.id == incident_id).with_for_update()).all()
    if not rows:
        raise UnknownIncident(f"unknown incident {incident_id}: list the incidents to see their ids")
    return _with_alarms(connection, rows)[0]


def _with_alarms(connection: Connection, rows: Sequence[Row[Any]]) -> list[Incident]:
    alarms: dict[int, list[Alarm]] = {row.id: [] for row in rows}
    for part in chunks(alarms):
        query = select(alarm_table).where(alarm_table.c.incident.in_(part))
        for row in connection.execute(query.order_by(alarm_table.c.place, alarm_table.c.id)):
            alarms[row.incident].append(to_alarm(row))
    return [
        Incident(
            id=row.id,
            model=row.model,
            alarms=tuple(alarms[row.id]),
            acknowledged_at=None if row.acknowledged_us is None else from_us(row.acknowledged_us),
            acknowledged_by=row.acknowledged_by,
            note=row.note,
        )
        for row in rows
    ]


def _to_row(incident: Incident) -> dict[str, Any]:
    """Return the values of an incident by column, without its id."""
    return {
        "model": incident.model,
        "acknowledged_us": None if incident.acknowledged_at is None else to_us(incident.acknowledged_at),
        "acknowledged_by": incident.acknowledged_by,
        "note": incident.note,
    }


def _record(
    connection: Connection, at: datetime, actor: str, action: str, incident: Incident, detail: dict[str, Any]
) -> None:
    about = {"model": incident.model, "alarms": [alarm.id for alarm in incident.alarms]}
    record(connection, AuditEntry(at, actor, f"incident.{action}", f"incident {incident.id}", about | detail))
