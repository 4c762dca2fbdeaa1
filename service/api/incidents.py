"""``/v1/incidents``: alarms grouped by their cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.alarms import resolution_text
from service.api.openapi import error_responses, openapi_post
from service.api.requests import JSON, Before, Id, Limit, ReadPool, actor_of, read_body, request_context
from service.api.schemas.alarms import AlarmIn, IncidentOut, IncidentsOut, incident_out, incidents_out
from service.views.alarms import incident_view, incidents_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/incidents", tags=["loop"])
    store, model = runtime.store, runtime.model

    @routes.get("", responses=error_responses(422, 503, 504))
    async def get_incidents(
        state: Literal["unresolved", "all"] = "unresolved", before: Before = None, limit: Limit = 100
    ) -> IncidentsOut:
        """List incidents with their alarms, newest first."""
        unresolved = state == "unresolved"
        return await readers.run(
            lambda: incidents_out(
                incidents_view(store, model.name, unresolved=unresolved, before=before, limit=limit),
                model.deployment.snapshot,
            )
        )

    @routes.get("/{id}", responses=error_responses(404, 422, 503, 504))
    async def get_incident(id: Id) -> IncidentOut:
        """Return one incident."""
        return await readers.run(lambda: incident_out(incident_view(store, model.name, id), model.deployment.snapshot))

    @routes.post("/{id}/acknowledge", **openapi_post(AlarmIn, IncidentOut, 404, 409, 429, 503, 504))
    async def acknowledge_incident(id: Id, request: Request) -> Response:
        """Acknowledge an incident: its alarms, and those that join it."""
        body = await read_body(request, AlarmIn, runtime.metrics)
        by = request_context(request).caller or body.by
        incident = await model.alarms.acknowledge_incident(id, by, body.note, actor=actor_of(request, by))
        return Response(incident_out(incident, model.deployment.snapshot).model_dump_json(), media_type=JSON)

    @routes.post("/{id}/resolve", **openapi_post(AlarmIn, IncidentOut, 404, 429, 503, 504))
    async def resolve_incident(id: Id, request: Request) -> Response:
        """Resolve all alarms of an incident manually."""
        body = await read_body(request, AlarmIn, runtime.metrics)
        actor = actor_of(request, body.by)
        incident = await model.alarms.resolve_incident(id, resolution_text(actor, body.note), actor=actor)
        return Response(incident_out(incident, model.deployment.snapshot).model_dump_json(), media_type=JSON)

    return routes
