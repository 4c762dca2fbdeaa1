"""All routes as one application; whoever serves it adds the pages, and starts and stops the parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from models.errors import DataError, RegistryError
from service.api import alarms, audit, functions, health, labels, models, reports, runs, slices
from service.api import predictions as predict
from service.api.errors import (
    INTERNAL_ERROR,
    InvalidRequest,
    error_response,
    problem,
    problem_type_of,
    problem_type_of_status,
)
from service.api.middleware import RequestMiddleware
from service.api.openapi import openapi_of
from service.api.parts import Parts
from service.api.predictions import PastAnswers
from service.api.requests import ReadPool, field_errors, request_context
from service.errors import ServiceError
from sfs.errors import SliceError

ROUTES = (
    "/v1/predict",
    "/v1/predictions",
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
"""The routes whose requests are counted under a name of their own."""

_ABOUT = (
    "Predictions with their slices, labels whenever they come, figures per slice, and what becomes of drift."
)


def routes(parts: Parts) -> FastAPI:
    """Return the application: every route of the API behind the gate."""
    app = FastAPI(
        title="Slicewatch",
        version=version("slicewatch"),
        description=_ABOUT,
        docs_url=None,  # the page fetches its scripts from the network
        redoc_url=None,
        redirect_slashes=False,
    )
    readers, earlier = ReadPool(), PastAnswers(parts)
    for router in (
        predict.router(parts, earlier),
        labels.router(parts),
        slices.router(parts, readers),
        functions.router(parts, readers),
        models.router(parts, readers),
        alarms.router(parts, readers),
        runs.router(parts, readers),
        reports.router(parts, readers),
        audit.router(parts, readers),
        health.router(parts, readers),
    ):
        app.include_router(router)
    for kind in (ServiceError, DataError, RegistryError, SliceError):
        app.add_exception_handler(kind, _refusal(parts))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _unrouted)
    app.add_middleware(RequestMiddleware, parts=parts)
    app.openapi = openapi_of(app)  # type: ignore[method-assign]  # as FastAPI documents it
    return app


def _refusal(parts: Parts) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def refuse(request: Request, error: Exception) -> Response:
        kind = problem_type_of(error)
        if kind is INTERNAL_ERROR:
            raise error  # the gate writes it to the log, and tells nothing of it
        if kind.shed is not None:
            parts.metrics.shed(kind.shed)
        return error_response(error, request_context(request).id)

    return refuse


async def _invalid(request: Request, error: Exception) -> Response:
    """Tell of a wrong parameter of the path or the query."""
    errors = field_errors(error.errors()) if isinstance(error, RequestValidationError) else []
    return error_response(InvalidRequest(errors), request_context(request).id)


async def _unrouted(request: Request, error: Exception) -> Response:
    """Tell of an unknown path, or of a method that it does not have."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    detail = f"{request.method} {request.url.path}: {problem_type_of_status(status).title}; see /openapi.json"
    return problem(
        problem_type_of_status(status), detail, headers=headers, request_id=request_context(request).id
    )
