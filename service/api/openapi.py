"""OpenAPI document: request bodies that routes read themselves, and error responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.access import scope_of
from service.api.errors import MEDIA_TYPE
from service.api.schemas.alarms import AlarmIn
from service.api.schemas.functions import FunctionIn, PreviewIn
from service.api.schemas.predictions import (
    IdConflictProblem,
    LabelsIn,
    NotReadyProblem,
    PredictIn,
    PredictionsIn,
    Problem,
)
from service.api.schemas.runs import ActionIn, PromoteIn, ReportIn

_REF = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (
    PredictIn,
    PredictionsIn,
    LabelsIn,
    FunctionIn,
    PreviewIn,
    AlarmIn,
    ActionIn,
    PromoteIn,
    ReportIn,
)
_PROBLEMS: tuple[type[BaseModel], ...] = (Problem, IdConflictProblem, NotReadyProblem)

_OF_BODIES = (408, 413, 415, 422)
_OF_KEYS = (401, 403, 429)
_MEANING = {
    401: "No valid key, if the service has keys.",
    403: "The key lacks the scope of this call, or is for another model.",
    404: "Not found.",
    408: "The body did not arrive in time.",
    409: "Conflict with the current state: a name that exists, or a concurrent change.",
    413: "The body is too long, or has too many rows.",
    415: "The body is not plain JSON.",
    422: "Some fields are wrong; see `errors`.",
    429: "Overloaded, or above the rate of the key: try again after `Retry-After` seconds.",
    503: "Unavailable; see `detail`.",
    504: "The request timed out.",
}


def openapi_post(
    body: type[BaseModel],
    answer: type[BaseModel],
    *refusals: int,
    status: int = 200,
    id_conflicts: bool = False,
) -> dict[str, Any]:
    """Return the route arguments of an operation that reads its body itself.

    Parameters
    ----------
    body, answer
        Models of request and response.
    refusals
        Error statuses, besides those of every body.
    status
        Status of a successful response.
    id_conflicts
        Whether a 409 response includes the predictions of the other rows.
    """
    schema = {"$ref": _REF.format(model=body.__name__)}
    refused = error_responses(*_OF_BODIES, *refusals)
    if id_conflicts:
        refused[409] = _refusal(409, IdConflictProblem)
    return {
        "response_model": answer,
        "status_code": status,
        "responses": refused,
        "openapi_extra": {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    }


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route."""
    return {status: _refusal(status, Problem) for status in statuses}


def not_ready_response() -> dict[int | str, dict[str, Any]]:
    """Return the response of a service that is not ready."""
    return {503: _refusal(503, NotReadyProblem)}


def openapi_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return a function that builds the OpenAPI document once."""
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(_build(app))
        return document

    return openapi


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    further = [(model, "validation") for model in (*_BODIES, *_PROBLEMS)]
    _, schemas = models_json_schema(further, ref_template=_REF)  # type: ignore[arg-type]  # of literals
    document["components"]["schemas"] = {
        **schemas["$defs"],
        **document["components"]["schemas"],
    }
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if scope := scope_of(method.upper(), path):
                operation["security"] = [{"key": [scope]}]
                refused = {str(status): answer for status, answer in error_responses(*_OF_KEYS).items()}
                operation["responses"] = {**refused, **operation["responses"]}
    return document


def _refusal(status: int, kind: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model=kind.__name__)}
    return {"description": _MEANING[status], "content": {MEDIA_TYPE: {"schema": schema}}}
