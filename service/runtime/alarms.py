"""Alarms and incidents of one model, acknowledged, resolved and accepted by people."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from service.decisions import Alarm, Incident
from service.store.alarms import accept_alarm, acknowledge_alarm, resolve_alarm
from service.store.alarms import alarm as stored_alarm
from service.store.errors import UnknownAlarm, UnknownIncident
from service.store.incidents import acknowledge_incident, resolve_incident
from service.store.incidents import incident as stored_incident
from service.store.writer import Writer


class AlarmService:
    """Acknowledges and resolves the alarms and incidents of one model.

    Parameters
    ----------
    model
        Name of the model; alarms of other models are unknown here.
    writer
        Changes the alarms.
    clock
        Current time, UTC.
    """

    def __init__(self, model: str, writer: Writer, clock: Callable[[], datetime]) -> None:
        self._model, self._writer, self._clock = model, writer, clock

    async def acknowledge(self, alarm_id: int, by: str, note: str, *, actor: str | None = None) -> Alarm:
        """Acknowledge an alarm, which stays until it is resolved.

        Raises
        ------
        UnknownAlarm, AlarmResolved
            If there is no such alarm, or it is resolved.
        """
        change = partial(acknowledge_alarm, alarm_id=alarm_id, at=self._clock(), by=by, note=note, actor=actor)
        return await self._change(alarm_id, change)

    async def resolve(self, alarm_id: int, resolution: str, *, actor: str) -> Alarm:
        """Resolve an alarm; new evidence about the same slice opens another one.

        Raises
        ------
        UnknownAlarm
            If there is no such alarm.
        """
        change = partial(resolve_alarm, alarm_id=alarm_id, at=self._clock(), resolution=resolution, actor=actor)
        return await self._change(alarm_id, change)

    async def accept(self, alarm_id: int, note: str, *, actor: str) -> Alarm:
        """Accept the rate of an alarm as the new normal, which resolves it; the detectors expect it from then on.

        Raises
        ------
        UnknownAlarm, AlarmResolved, AlarmOfTarget
            If there is no such alarm, it is resolved, or its slice misses a target.
        """
        change = partial(accept_alarm, alarm_id=alarm_id, at=self._clock(), note=note, actor=actor)
        return await self._change(alarm_id, change)

    async def acknowledge_incident(self, incident_id: int, by: str, note: str, *, actor: str | None = None) -> Incident:
        """Acknowledge an incident with its alarms, and those that join it later.

        Raises
        ------
        UnknownIncident, AlarmResolved
            If there is no such incident, or its alarms are resolved.
        """
        change = partial(acknowledge_incident, at=self._clock(), by=by, note=note, actor=actor)
        return await self._change_incident(incident_id, change)

    async def resolve_incident(self, incident_id: int, resolution: str, *, actor: str) -> Incident:
        """Resolve all alarms of an incident. Raises UnknownIncident if there is no such incident."""
        change = partial(resolve_incident, at=self._clock(), resolution=resolution, actor=actor)
        return await self._change_incident(incident_id, change)

    async def _change_incident(self, incident_id: int, change: Callable[..., Incident]) -> Incident:
        def work(connection: Connection) -> Incident:
            found = stored_incident(connection, incident_id)
            if found is None or found.model != self._model:
                raise UnknownIncident(f"there is no incident {incident_id}; they are listed under /v1/incidents")
            return change(connection, incident_id=incident_id)

        return await asyncio.wrap_future(self._writer.submit(work))

    async def _change(self, alarm_id: int, change: Callable[[Connection], Alarm]) -> Alarm:
        def work(connection: Connection) -> Alarm:  # in one transaction, without a reading connection
            found = stored_alarm(connection, alarm_id)
            if found is None or found.model != self._model:
                raise UnknownAlarm(f"there is no alarm {alarm_id}; the alarms are listed under /v1/alarms")
            return change(connection)

        return await asyncio.wrap_future(self._writer.submit(work))
