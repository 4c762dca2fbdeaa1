"""Errors as ``application/problem+json`` (RFC 9457): which status an error has, and what the client is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

from models.errors import DataError, RegistryError
from service.api.refusals import (
    DETAIL_CHARS,
    DamagedVersion,
    FieldError,
    FunctionConflict,
    InvalidRequest,
    NoPage,
    NotHere,
    PromotionConflict,
    ReportRunning,
    TakenIds,
    TooLarge,
    TooSlow,
    UnknownFunction,
    UnknownVersion,
    UnsupportedMedia,
    cut,
)
from service.api.wire import PredictionOut
from service.errors import MisuseError
from service.serving.refusals import DeadlinePassed, NoModel, NotTried, Overloaded, Stopping
from service.store.errors import (
    AlarmResolved,
    RunActive,
    RunMoved,
    StoreError,
    StoreFull,
    StoreStopped,
    UnknownAlarm,
    UnknownReport,
    UnknownRun,
)
from service.views.current import NotReady, UnknownSlice
from sfs.errors import SliceError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""When a client that was refused under load may come again."""


class FieldProblem(BaseModel):
    """One field of a request, such as ``instances[3].likes``, and what is wrong with it."""

    field: str
    message: str


class Problem(BaseModel):
    """Why there is no answer."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None
    request_id: str | None = None


class TakenProblem(Problem):
    """Some ids are taken; every other row of the request was logged, and is answered here."""

    predictions: list[PredictionOut | None] | None = None


class UnreadyProblem(Problem):
    """Why the service is not ready, by name."""

    reasons: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """What errors of one kind have in common.

    Parameters
    ----------
    status
        The status of HTTP.
    name, title
        For machines, and for people.
    shed
        How a refusal under load is counted; None for other errors.
    """

    status: int
    name: str
    title: str
    shed: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What the response says beside: when to come again, or that its connection ends."""
        if self.status == 429:
            return {"retry-after": str(RETRY_SECONDS)}
        return {"connection": "close"} if self.status in (408, 413) else {}


KINDS: Mapping[type[Exception], Kind] = {
    InvalidRequest: Kind(422, "invalid-request", "The request is not valid"),
    MisuseError: Kind(422, "invalid-request", "The request is not valid"),
    DataError: Kind(422, "invalid-data", "The data cannot be used"),
    SliceError: Kind(422, "invalid-function", "The function cannot be used"),
    NotTried: Kind(422, "invalid-request", "The request is not valid"),
    TakenIds: Kind(409, "taken-ids", "Some ids are taken by other content"),
    DamagedVersion: Kind(422, "damaged-version", "The version cannot be served"),
    PromotionConflict: Kind(409, "promotion-conflict", "The champion was not changed"),
    AlarmResolved: Kind(409, "alarm-resolved", "The alarm has ended"),
    RunActive: Kind(409, "run-active", "A run goes on already"),
    RunMoved: Kind(409, "run-moved", "The run is elsewhere by now"),
    ReportRunning: Kind(409, "report-running", "A report is being made already"),
    FunctionConflict: Kind(409, "function-conflict", "The function cannot be changed here"),
    UnknownFunction: Kind(404, "unknown-function", "There is no such function"),
    UnknownSlice: Kind(404, "unknown-slice", "There is no such slice"),
    UnknownVersion: Kind(404, "unknown-version", "There is no such version"),
    RegistryError: Kind(404, "unknown-version", "There is no such version"),
    UnknownAlarm: Kind(404, "unknown-alarm", "There is no such alarm"),
    UnknownRun: Kind(404, "unknown-run", "There is no such run"),
    UnknownReport: Kind(404, "unknown-report", "There is no such report"),
    NoPage: Kind(404, "no-page", "The report has no page"),
    TooSlow: Kind(408, "too-slow", "The body did not come in time"),
    TooLarge: Kind(413, "too-large", "The request is too large"),
    UnsupportedMedia: Kind(415, "unsupported-media", "The body is not plain JSON"),
    Overloaded: Kind(429, "overloaded", "Too many requests wait", shed="queue"),
    StoreFull: Kind(429, "overloaded", "Too many rows wait to be logged", shed="log"),
    Stopping: Kind(503, "stopping", "The service stops"),
    StoreStopped: Kind(503, "stopping", "The service stops"),
    NoModel: Kind(503, "no-model", "No model is in force"),
    NotReady: Kind(503, "not-ready", "The service is not ready"),
    NotHere: Kind(503, "not-here", "This process cannot do it"),
    StoreError: Kind(503, "store-unavailable", "The store could not do it"),
    DeadlinePassed: Kind(504, "deadline-passed", "The request took too long", shed="deadline"),
}
DEFECT = Kind(500, "defect", "Something went wrong here")


def kind_of(error: Exception) -> Kind:
    """Return the kind of an error, that of its nearest class; ``DEFECT`` for one that nobody foresaw.

    Examples
    --------
    >>> kind_of(StoreFull("later")).status, kind_of(ZeroDivisionError()).status
    (429, 500)
    """
    return next((KINDS[each] for each in type(error).__mro__ if each in KINDS), DEFECT)


def kind_of_status(status: int) -> Kind:
    """Return the kind of a refusal by the router, such as an unknown path."""
    phrase = HTTPStatus(status).phrase
    return Kind(status, phrase.lower().replace(" ", "-"), phrase)


def problem(
    kind: Kind,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """Return the response that tells of a problem; ``more`` are further members of its document."""
    document: dict[str, Any] = {
        "type": f"urn:slicewatch:problem:{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": cut(detail, DETAIL_CHARS),
    }
    if errors:
        document["errors"] = [{"field": each.field, "message": each.message} for each in errors]
    if request_id is not None:
        document["request_id"] = request_id
    return Response(
        to_json({**document, **(more or {})}),
        kind.status,
        headers={**kind.headers, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def of_error(error: Exception, request_id: str | None = None) -> Response:
    """Return the response to an error that was foreseen."""
    more = {"predictions": error.predictions} if isinstance(error, TakenIds) else None
    errors = error.errors if isinstance(error, (InvalidRequest, TakenIds)) else ()
    return problem(kind_of(error), str(error), errors=errors, request_id=request_id, more=more)
