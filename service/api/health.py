"""``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import openapi as document
from service.api.errors import PROBLEM_TYPES, problem
from service.api.parts import Parts
from service.api.requests import ReadPool, request_context
from service.api.schemas.predictions import LiveOut, ReadyOut
from service.metrics.exposition import CONTENT_TYPE
from service.views.current import NotReady

_PAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


def router(parts: Parts, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/healthz")
    async def healthz() -> LiveOut:
        """The process lives."""
        return LiveOut()

    @routes.get("/readyz", response_model=ReadyOut, responses=document.not_ready_response())
    async def readyz(request: Request) -> ReadyOut | Response:
        """The service takes requests; where it does not, the reasons by name."""
        reasons = parts.problems()
        if not reasons:
            return ReadyOut()
        detail = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        more = {"reasons": dict(reasons)}
        return problem(PROBLEM_TYPES[NotReady], detail, request_id=request_context(request).id, more=more)

    @routes.get("/metrics", response_class=Response, responses=_PAGE)
    async def metrics() -> Response:
        """Counters of this process, and the gauges of the last snapshot."""
        return Response(await readers.run(parts.page.text), media_type=CONTENT_TYPE)

    return routes
