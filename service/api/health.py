"""``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import openapi
from service.api.errors import PROBLEM_TYPES, problem
from service.api.requests import ReadPool, request_context
from service.api.schemas.predictions import LiveOut, ReadyOut
from service.metrics.exposition import CONTENT_TYPE
from service.views.slices import NotReady

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

_PAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operations"])
    renderer = runtime.executor("metrics", 1)  # of its own: scrapes do not wait for readers of records
    rendering: asyncio.Future[bytes] | None = None

    @routes.get("/healthz")
    async def healthz() -> LiveOut:
        """Return 200 while the process is alive."""
        return LiveOut()

    @routes.get("/readyz", response_model=ReadyOut, responses=openapi.not_ready_response())
    async def readyz(request: Request) -> ReadyOut | Response:
        """Return 200 if the service accepts requests, otherwise the reasons by name."""
        reasons = runtime.problems()
        if not reasons:
            return ReadyOut()
        detail = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        context = request_context(request)
        more = {"reasons": reasons}
        return problem(PROBLEM_TYPES[NotReady], detail, request_id=context.id, more=more)

    @routes.get("/metrics", response_class=Response, responses=_PAGE)
    async def metrics() -> Response:
        """Return the counters of this process, and the gauges of the latest snapshot."""
        nonlocal rendering
        if rendering is None or rendering.done():  # scrapes at one time share a page
            rendering = asyncio.get_running_loop().run_in_executor(renderer, runtime.page.text)
        return Response(await asyncio.shield(rendering), media_type=CONTENT_TYPE)

    return routes
