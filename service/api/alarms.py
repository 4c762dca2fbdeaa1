"""``/v1/alarms``: what has moved, on which evidence, and who knows of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Literal

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from service.api import openapi as document
from service.api.parts import Parts
from service.api.predictions import JSON
from service.api.requests import Before, Id, Limit, ReadPool, read_body
from service.api.schemas.alarms import AlarmIn, AlarmOut, AlarmsOut, alarm_out, alarms_out
from service.decisions import Alarm
from service.store.alarms import acknowledge_alarm, resolve_alarm
from service.views.alarms import alarm_view, alarms_view


def router(parts: Parts, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/alarms", tags=["loop"])

    @routes.get("", responses=document.error_responses(422, 503, 504))
    async def get_alarms(
        state: Literal["unresolved", "all"] = "unresolved", before: Before = None, limit: Limit = 100
    ) -> AlarmsOut:
        """Alarms with their evidence, newest first."""
        view = partial(alarms_view, unresolved=state == "unresolved", before=before, limit=limit)
        return await readers.run(lambda: alarms_out(view(parts.store, parts.current.in_force.model)))

    @routes.get("/{id}", responses=document.error_responses(404, 422, 503, 504))
    async def get_alarm(id: Id) -> AlarmOut:
        """One alarm."""
        return await readers.run(lambda: alarm_out(alarm_view(parts.store, parts.current.in_force.model, id)))

    _add_answers(routes, parts, readers)
    return routes


def _add_answers(routes: APIRouter, parts: Parts, readers: ReadPool) -> None:
    @routes.post("/{id}/acknowledge", **document.openapi_post(AlarmIn, AlarmOut, 404, 409, 429, 503, 504))
    async def acknowledge(id: Id, request: Request) -> Response:
        """Say that somebody knows of an alarm; it stays until it is resolved."""
        body = await read_body(request, AlarmIn, parts)
        return await _changed(
            parts, readers, id, partial(acknowledge_alarm, by=body.by, note=body.note, actor=_actor(body))
        )

    @routes.post("/{id}/resolve", **document.openapi_post(AlarmIn, AlarmOut, 404, 429, 503, 504))
    async def resolve(id: Id, request: Request) -> Response:
        """End an alarm by hand; the next evidence of the same slice raises another."""
        body = await read_body(request, AlarmIn, parts)
        return await _changed(
            parts, readers, id, partial(resolve_alarm, resolution=_resolution(body), actor=_actor(body))
        )


async def _changed(parts: Parts, readers: ReadPool, id_: int, change: Callable[..., Alarm]) -> Response:
    """Return an alarm after a change that the store makes."""
    model, at = parts.current.in_force.model, parts.clock()
    await readers.run(lambda: alarm_view(parts.store, model, id_))  # another model's are not known here

    def work(connection: Connection) -> Alarm:
        return change(connection, id_, at=at)

    changed = await asyncio.wrap_future(parts.writer.submit(work))
    return Response(alarm_out(changed).model_dump_json(), media_type=JSON)


def _actor(body: AlarmIn) -> str:
    return body.by or "http"


def _resolution(body: AlarmIn) -> str:
    said = f"by {body.by}" if body.by else "by hand"
    return f"{said}: {body.note}" if body.note else said
