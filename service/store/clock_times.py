"""Times in the store that lie ahead of the clock, after it was set back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, case, or_, select, update

from service.decisions import AuditEntry, DriftStatus
from service.store.audit import MONITOR, record
from service.store.json_values import from_json, to_json
from service.store.tables import UNRESOLVED, alarms, runs, to_us


def correct_future_times(connection: Connection, now: datetime) -> None:
    """Set times of unresolved alarms and of runs that lie ahead of the clock to now, with an audit entry if any do.

    Otherwise an alarm would not be resolved, nor a run opened or its labels counted, before the clock gets there.
    """
    a, now_us = alarms.c, to_us(now)
    numbers = []
    for row in connection.execute(select(a.id, a.at_us, a.drift).where(UNRESOLVED)).all():
        drift = from_json(DriftStatus, row.drift)
        since = None if drift.since is None else min(drift.since, now)
        if row.at_us > now_us or since != drift.since:
            values = {"at_us": min(row.at_us, now_us), "drift": to_json(replace(drift, since=since))}
            connection.execute(update(alarms).where(a.id == row.id).values(values))
            numbers.append(row.id)
    times = [runs.c.opened_us, runs.c.updated_us, runs.c.since_us]
    ahead = or_(*(time > now_us for time in times))
    run_numbers = list(connection.scalars(select(runs.c.id).where(ahead)))
    not_ahead = {time.name: case((time > now_us, now_us), else_=time) for time in times}
    connection.execute(update(runs).where(ahead).values(not_ahead))
    if numbers or run_numbers:
        detail = {"alarms": numbers, "runs": run_numbers}
        record(connection, AuditEntry(now, MONITOR, "clock.set_back", "times ahead of the clock set to now", detail))
