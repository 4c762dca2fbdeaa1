"""``/v1/retrain`` and ``/v1/runs``: retrainings, what they were trained on, and what the gate said."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import openapi as document
from service.api.errors import NotAvailable
from service.api.parts import Parts
from service.api.predictions import JSON
from service.api.requests import Before, Id, Limit, ReadPool, read_body
from service.api.schemas.runs import ActionIn, RunDetailOut, RunsOut, actor_of, run_detail_out, runs_out
from service.views.runs import run_view, runs_view


def router(parts: Parts, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1", tags=["loop"])

    @routes.get("/runs", responses=document.error_responses(422, 503, 504))
    async def get_runs(before: Before = None, limit: Limit = 50) -> RunsOut:
        """Retrainings, newest first."""
        view = partial(runs_view, before=before, limit=limit)
        return await readers.run(lambda: runs_out(view(parts.store, parts.current.in_force.model)))

    @routes.get("/runs/{id}", responses=document.error_responses(404, 422, 503, 504))
    async def get_run(id: Id) -> RunDetailOut:
        """One retraining, with what the gate said slice by slice."""
        model = parts.current.in_force.model
        return await readers.run(lambda: run_detail_out(run_view(parts.store, model, id)))

    @routes.post("/retrain", **document.openapi_post(ActionIn, RunDetailOut, 409, 429, 503, 504, status=202))
    async def retrain(request: Request) -> Response:
        """Train a candidate now, and let the gate compare it with the champion."""
        body = await read_body(request, ActionIn, parts)
        if parts.retrain is None:
            raise NotAvailable("nothing is trained by this process: ask the one that watches")
        run = await parts.retrain(body.reason or "asked for", actor_of(body))
        where = {"location": f"/v1/runs/{run.id}"}
        return Response(run_detail_out(run).model_dump_json(), 202, where, JSON)

    return routes
