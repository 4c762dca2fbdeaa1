"""``/v1/alarms``: drift and accuracy alarms with their evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.openapi import error_responses, openapi_post
from service.api.requests import JSON, Before, Id, Limit, ReadPool, actor_of, read_body, request_context
from service.api.schemas.alarms import AlarmIn, AlarmOut, AlarmsOut, alarm_out, alarms_out
from service.events import Snapshot
from service.views.alarms import alarm_view, alarms_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/alarms", tags=["loop"])
    store, model = runtime.store, runtime.model

    def snapshot() -> Snapshot | None:
        return model.deployment.snapshot

    @routes.get("", responses=error_responses(422, 503, 504))
    async def get_alarms(
        state: Literal["unresolved", "all"] = "unresolved", before: Before = None, limit: Limit = 100
    ) -> AlarmsOut:
        """List alarms with their evidence, newest first."""
        unresolved = state == "unresolved"
        return await readers.run(
            lambda: alarms_out(
                alarms_view(store, model.name, unresolved=unresolved, before=before, limit=limit), snapshot()
            )
        )

    @routes.get("/{id}", responses=error_responses(404, 422, 503, 504))
    async def get_alarm(id: Id) -> AlarmOut:
        """Return one alarm."""
        return await readers.run(lambda: alarm_out(alarm_view(store, model.name, id), snapshot()))

    @routes.post("/{id}/acknowledge", **openapi_post(AlarmIn, AlarmOut, 404, 409, 429, 503, 504))
    async def acknowledge(id: Id, request: Request) -> Response:
        """Acknowledge an alarm; it remains unresolved."""
        body = await read_body(request, AlarmIn, runtime.metrics)
        by = request_context(request).caller or body.by
        alarm = await model.alarms.acknowledge(id, by, body.note, actor=actor_of(request, by))
        return Response(alarm_out(alarm, snapshot()).model_dump_json(), media_type=JSON)

    @routes.post("/{id}/resolve", **openapi_post(AlarmIn, AlarmOut, 404, 429, 503, 504))
    async def resolve(id: Id, request: Request) -> Response:
        """Resolve an alarm manually; new evidence on the same slice opens another."""
        body = await read_body(request, AlarmIn, runtime.metrics)
        actor = actor_of(request, body.by)
        alarm = await model.alarms.resolve(id, resolution_text(actor, body.note), actor=actor)
        return Response(alarm_out(alarm, snapshot()).model_dump_json(), media_type=JSON)

    @routes.post("/{id}/accept", **openapi_post(AlarmIn, AlarmOut, 404, 409, 429, 503, 504))
    async def accept(id: Id, request: Request) -> Response:
        """Accept the rate since the change as the new normal; the alarm is resolved."""
        body = await read_body(request, AlarmIn, runtime.metrics)
        alarm = await model.alarms.accept(id, body.note, actor=actor_of(request, body.by))
        return Response(alarm_out(alarm, snapshot()).model_dump_json(), media_type=JSON)

    return routes


def resolution_text(actor: str, note: str) -> str:
    """Return why an alarm was resolved by hand."""
    by = "by hand" if actor == "http" else f"by {actor}"
    return f"{by}: {note}" if note else by
