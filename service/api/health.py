"""``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import openapi
from service.api.errors import PROBLEM_TYPES, problem
from service.api.requests import ReadPool, request_context
from service.api.schemas.predictions import LiveOut, ReadyOut
from service.api.short_path import JsonResponse
from service.metrics.exposition import CONTENT_TYPE, OPENMETRICS_TYPE
from service.views.slices import NotReady

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

_OPENMETRICS = "application/openmetrics-text"
_QUALITY = re.compile(r"(?:^|;)\s*q=([01](?:\.\d*)?)\s*(?:;|$)")
_READERS_ONLY = "a key with the scope read shows why"
_ALIVE = LiveOut().model_dump_json().encode()
_REASONS = {
    "model": f"no version can serve; {_READERS_ONLY}",
    "store": f"the store takes no writes; {_READERS_ONLY}",
}
"""Reasons for callers without a key: the others name no file."""
_PAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format, or OpenMetrics with exemplars if accepted.",
        "content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", _OPENMETRICS)},
    }
}


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operations"])
    renderer = runtime.executor("metrics", 1)  # of its own: scrapes do not wait for readers of records
    rendering: dict[str, asyncio.Future[bytes]] = {}  # by content type

    @routes.get("/healthz", response_model=LiveOut)
    async def healthz(request: Request) -> Response:
        """Return 200 while the process is alive."""
        return JsonResponse(_ALIVE)

    @routes.get("/readyz", response_model=ReadyOut, responses=openapi.not_ready_response())
    async def readyz(request: Request) -> ReadyOut | Response:
        """Return 200 if the service accepts requests, otherwise the reasons by name, with details for readers."""
        reasons = runtime.problems()
        if not reasons:
            return ReadyOut()
        context, client = request_context(request), request.client
        host = client.host if client else ""
        if not runtime.access.may_read(context.headers, request.scope["headers"], host, context.began):
            reasons = {name: _REASONS.get(name, reason) for name, reason in reasons.items()}
        detail = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        more = {"reasons": reasons}
        return problem(PROBLEM_TYPES[NotReady], detail, request_id=context.id, more=more)

    @routes.get("/metrics", response_class=Response, responses=_PAGE)
    async def metrics(request: Request) -> Response:
        """Return the counters of this process, and the gauges of the latest snapshot."""
        accepted = request_context(request).headers.get(b"accept", b"").decode("latin-1")
        kind, render = CONTENT_TYPE, runtime.page.text
        if prefers_openmetrics(accepted):
            kind, render = OPENMETRICS_TYPE, runtime.page.openmetrics
        if kind not in rendering or rendering[kind].done():  # scrapes at one time share a page
            rendering[kind] = asyncio.get_running_loop().run_in_executor(renderer, render)
        return Response(await asyncio.shield(rendering[kind]), media_type=kind)

    return routes


def prefers_openmetrics(accepted: str) -> bool:
    """Return whether an ``accept`` header asks for OpenMetrics, and not for the text format before it.

    Examples
    --------
    >>> prefers_openmetrics("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4,*/*;q=0.1")
    True
    >>> prefers_openmetrics("text/plain;q=0.5,application/openmetrics-text;q=0.4")
    False
    """
    quality = {"text/plain": 0.0, _OPENMETRICS: 0.0}
    for part in accepted.lower().split(","):
        kind, _, parameters = part.partition(";")
        if (kind := kind.strip()) in quality:
            given = _QUALITY.search(parameters)
            quality[kind] = max(quality[kind], float(given[1]) if given else 1.0)
    return quality[_OPENMETRICS] > 0 and quality[_OPENMETRICS] >= quality["text/plain"]
