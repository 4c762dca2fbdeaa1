"""The API: every route behind the request middleware."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.errors import DataError, RegistryError
from service.api import alarms, functions, health, incidents, labels, models, predictions, reports, runs, slices
from service.api.errors import (
    INTERNAL_ERROR,
    InvalidRequest,
    error_response,
    problem,
    problem_type_of,
    problem_type_of_status,
)
from service.api.middleware import MAX_IN_FLIGHT_BYTES, InFlight, RequestMiddleware
from service.api.openapi import openapi_of
from service.api.requests import ReadPool, field_errors, request_context
from service.api.short_path import HotCalls, TrustedHosts
from service.errors import ServiceError
from sfs.errors import SliceError

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

ROUTES = (
    "/v1/predict",
    "/v1/predictions",
    "/v1/predictions/{id:path}",
    "/v1/labels",
    "/v1/slices",
    "/v1/slices/{name}",
    "/v1/slices/{name}/records",
    "/v1/functions",
    "/v1/functions/{name}",
    "/v1/functions/preview",
    "/v1/models",
    "/v1/models/{version}",
    "/v1/models/{version}/promote",
    "/v1/models/rollback",
    "/v1/alarms",
    "/v1/alarms/{id}",
    "/v1/alarms/{id}/acknowledge",
    "/v1/alarms/{id}/resolve",
    "/v1/alarms/{id}/accept",
    "/v1/incidents",
    "/v1/incidents/{id}",
    "/v1/incidents/{id}/acknowledge",
    "/v1/incidents/{id}/resolve",
    "/v1/retrain",
    "/v1/runs",
    "/v1/runs/{id}",
    "/v1/reports",
    "/v1/reports/{id}",
    "/v1/reports/{id}/html",
    "/v1/audit",
    "/healthz",
    "/readyz",
    "/metrics",
)
"""Routes whose requests are counted under their own name."""


class Api(FastAPI):
    """FastAPI behind a short path: hot calls do not pass its router.

    Parameters
    ----------
    runtime
        The service.
    hosts
        Names in the host header of accepted requests.
    max_in_flight_bytes
        Maximum total size of the bodies of all requests in progress.
    """

    def __init__(self, runtime: Runtime, hosts: Sequence[str], max_in_flight_bytes: int) -> None:
        super().__init__(
            title="Slicewatch",
            version=version("slicewatch"),
            description="Predictions with their slices, labels, metrics per slice, drift alarms and retraining.",
            docs_url=None,  # the page would load its scripts from the network
            redoc_url=None,
            redirect_slashes=False,
        )
        readers = ReadPool(runtime)
        rooms = (predictions, labels, slices, functions, models, alarms, incidents, runs, reports, health)
        routers = [room.router(runtime, readers) for room in rooms]
        for router in routers:
            self.include_router(router)
        runtime.metrics.add_routes(ROUTES)

        async def refuse(request: Request, error: Exception) -> Response:
            kind = problem_type_of(error)
            if kind is INTERNAL_ERROR:
                raise error  # the middleware logs it, and responds without details
            if kind.shed is not None:
                runtime.metrics.count_shed(kind.shed)
            return error_response(error, request_context(request).id)

        for kind in (ServiceError, DataError, RegistryError, SliceError):
            self.add_exception_handler(kind, refuse)
        self.add_exception_handler(RequestValidationError, _invalid)
        self.add_exception_handler(HTTPException, _unrouted)
        in_flight = InFlight(runtime.settings.serve.body_bytes, max_in_flight_bytes)
        self.add_middleware(RequestMiddleware, runtime=runtime, in_flight=in_flight)
        # DNS rebinding: a page of another site can resolve its own host name to this machine.
        self.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
        self.openapi = openapi_of(self)  # type: ignore[method-assign]  # as FastAPI documents it
        self._hot = HotCalls(routers, refuse)
        self._short_path = TrustedHosts(RequestMiddleware(self._hot, runtime, in_flight), hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if self._hot.takes(scope):
            await self._short_path(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_api(runtime: Runtime, hosts: Sequence[str] = ("*",), max_in_flight_bytes: int = MAX_IN_FLIGHT_BYTES) -> Api:
    """Return the application with every route of the API."""
    return Api(runtime, hosts, max_in_flight_bytes)


async def _invalid(request: Request, error: Exception) -> Response:
    """Respond to an invalid path or query parameter."""
    errors = field_errors(error.errors()) if isinstance(error, RequestValidationError) else []
    return error_response(InvalidRequest(errors), request_context(request).id)


async def _unrouted(request: Request, error: Exception) -> Response:
    """Respond to an unknown path or an unsupported method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    kind = problem_type_of_status(status)
    detail = f"{request.method} {request.scope['path']}: {kind.title}; see /openapi.json"
    return problem(kind, detail, headers=headers, request_id=request_context(request).id)
