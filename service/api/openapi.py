"""What ``/openapi.json`` says of the routes: their bodies, which they read by themselves, and every refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.errors import MEDIA_TYPE
from service.api.schemas.alarms import AlarmIn
from service.api.schemas.functions import FunctionIn, PreviewIn
from service.api.schemas.predictions import LabelsIn, PredictIn, PredictionsIn
from service.api.schemas.problems import IdConflictProblem, NotReadyProblem, Problem
from service.api.schemas.reports import ReportIn
from service.api.schemas.runs import ActionIn, PromoteIn

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
_MEANING = {
    404: "There is nothing of this name.",
    408: "The body did not come in time.",
    409: "It does not fit what stands here: a name that is taken, or somebody was first.",
    413: "The body is too long, or has too many rows.",
    415: "The body is not plain JSON.",
    422: "Some fields are wrong; `errors` names them.",
    429: "Too much waits: come again after `Retry-After` seconds.",
    503: "Not now: the detail says why.",
    504: "It took longer than a request may.",
}


def openapi_post(
    body: type[BaseModel],
    answer: type[BaseModel],
    *refusals: int,
    status: int = 200,
    taken: bool = False,
) -> dict[str, Any]:
    """Return what a route says of itself that reads a body and answers with bytes.

    Parameters
    ----------
    body, answer
        What is sent, and what comes back.
    refusals
        Statuses beside those that any body may meet.
    status
        Of a good answer.
    taken
        Whether a refusal for taken ids carries the answers of the other rows.
    """
    schema = {"$ref": _REF.format(model=body.__name__)}
    refused = error_responses(*_OF_BODIES, *refusals)
    if taken:
        refused[409] = _refusal(409, IdConflictProblem)
    return {
        "response_model": answer,
        "status_code": status,
        "responses": refused,
        "openapi_extra": {
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
        },
    }


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals of a route, as FastAPI takes them."""
    return {status: _refusal(status, Problem) for status in statuses}


def not_ready_response() -> dict[int | str, dict[str, Any]]:
    """Return the refusal of a service that is not ready."""
    return {503: _refusal(503, NotReadyProblem)}


def openapi_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return what makes the document of an application, once."""
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            made.update(_build(app))
        return made

    return openapi


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    further = [(each, "validation") for each in (*_BODIES, *_PROBLEMS)]
    _, schemas = models_json_schema(further, ref_template=_REF)  # type: ignore[arg-type]  # of literals
    document["components"]["schemas"] = {
        **schemas["$defs"],
        **document["components"]["schemas"],
    }
    return document


def _refusal(status: int, kind: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model=kind.__name__)}
    return {"description": _MEANING[status], "content": {MEDIA_TYPE: {"schema": schema}}}
