"""``/v1/retrain``, ``/v1/runs`` and ``/v1/audit``: retraining runs, and the record of changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.openapi import error_responses, openapi_post
from service.api.requests import JSON, Before, Id, Limit, ReadPool, actor_of, read_body
from service.api.schemas.runs import ActionIn, AuditOut, RunDetailOut, RunsOut, audit_out, runs_out
from service.views.runs import audit_view, run_view, runs_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1", tags=["loop"])
    store, model = runtime.store, runtime.model

    @routes.get("/runs", responses=error_responses(422, 503, 504))
    async def get_runs(before: Before = None, limit: Limit = 50) -> RunsOut:
        """List retraining runs, newest first."""
        return await readers.run(lambda: runs_out(runs_view(store, model.name, before=before, limit=limit)))

    @routes.get("/runs/{id}", responses=error_responses(404, 422, 503, 504))
    async def get_run(id: Id) -> RunDetailOut:
        """Return one retraining run, with the decision of the gate per slice."""
        return await readers.run(lambda: RunDetailOut.model_validate(run_view(store, model.name, id)))

    @routes.post("/retrain", **openapi_post(ActionIn, RunDetailOut, 409, 429, 503, 504, status=202))
    async def retrain(request: Request) -> Response:
        """Train a candidate now; the gate compares it with the champion."""
        body = await read_body(request, ActionIn, runtime.metrics)
        run = await asyncio.to_thread(
            model.retraining.request, body.reason or "requested", actor_of(request, body.by), runtime.clock()
        )
        headers = {"location": f"/v1/runs/{run.id}"}
        return Response(RunDetailOut.model_validate(run).model_dump_json(), 202, headers, JSON)

    @routes.get("/audit", responses=error_responses(422, 503, 504))
    async def get_audit(before: Before = None, limit: Limit = 100) -> AuditOut:
        """List every decision and change, newest first."""
        return await readers.run(lambda: audit_out(audit_view(store, before=before, limit=limit)))

    return routes
