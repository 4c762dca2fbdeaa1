"""Errors of the API, and the table that maps every foreseen error to a problem document (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import accumulate
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from models.errors import DataError, RegistryError, RegistryUnavailable
from service.errors import (
    DeadlinePassed,
    MisuseError,
    NoModel,
    Overloaded,
    ServiceError,
    Stopping,
)
from service.formatting import truncated
from service.jobs.column_report.job import NoReference, ReportPageMissing, ReportRunning
from service.jobs.promotion import DamagedVersion, PromotionConflict
from service.jobs.retraining import NotRetrained
from service.runtime.access import Forbidden, TooManyRequests, Unauthorized
from service.runtime.functions import FunctionConflict, UnknownFunction
from service.store.errors import (
    AlarmOfTarget,
    AlarmResolved,
    RunActive,
    StaleRun,
    StoreError,
    StoreFull,
    StoreStopped,
    UnknownAlarm,
    UnknownIncident,
    UnknownReport,
    UnknownRun,
)
from service.views.records import UnknownPrediction
from service.views.slices import NotReady, UnknownSlice
from sfs.errors import SliceError

MAX_ERRORS = 20
"""Maximum number of field errors in one response."""

FIELD_CHARS, MESSAGE_CHARS, DETAIL_CHARS = 200, 300, 2_000
"""Maximum lengths; messages may quote the request."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error of one field of a request, such as ``instances[3].likes``; field and message are truncated."""

    field: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", truncated(self.field, FIELD_CHARS))
        object.__setattr__(self, "message", truncated(self.message, MESSAGE_CHARS))


class InvalidRequest(ServiceError):
    """One or several fields of a request are wrong.

    Parameters
    ----------
    errors
        The field errors; only the first ones are kept.
    """

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors[:MAX_ERRORS])
        sentences = [f"{e.field}: {e.message}" if e.field else e.message for e in self.errors]
        ends = accumulate(len(sentence) + 2 for sentence in sentences)
        fitting = [sentence for sentence, end in zip(sentences, ends, strict=True) if end < DETAIL_CHARS - 30]
        more = len(errors) - len(fitting)
        super().__init__([*fitting, f"and {more} more"] if more else fitting)


class TooLarge(ServiceError):
    """The body exceeds the limit of bytes or rows."""


class TooSlow(ServiceError):
    """The body did not arrive within the time limit of a request."""


class UnsupportedMedia(ServiceError):
    """The body, or its content type, is not plain JSON."""


class IdConflict(ServiceError):
    """Some ids are in the log with other content.

    Parameters
    ----------
    errors
        The ids.
    predictions
        Answers to the other rows, in the order of the request; None for the conflicting ones.
    """

    def __init__(
        self, message: str, errors: Sequence[FieldError], predictions: Sequence[Mapping[str, Any] | None]
    ) -> None:
        self.errors, self.predictions = tuple(errors), tuple(predictions)
        super().__init__(message)


MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""Value of Retry-After for requests refused under load."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """Common properties of errors of one kind.

    Parameters
    ----------
    status
        HTTP status.
    name, title
        Machine-readable name, and title.
    shed
        Reason under which a refusal under load is counted; None for other errors.
    """

    status: int
    name: str
    title: str
    shed: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        if self.status == 429:
            return {"retry-after": str(RETRY_SECONDS)}
        return {"connection": "close"} if self.status in (408, 413) else {}


PROBLEM_TYPES: Mapping[type[Exception], ProblemType] = {
    Unauthorized: ProblemType(401, "unauthorized", "A valid key is required"),
    Forbidden: ProblemType(403, "forbidden", "The key does not allow this"),
    TooManyRequests: ProblemType(429, "too-many-requests", "Too many requests"),
    InvalidRequest: ProblemType(422, "invalid-request", "The request is invalid"),
    MisuseError: ProblemType(422, "invalid-request", "The request is invalid"),
    DataError: ProblemType(422, "invalid-data", "The data is invalid"),
    SliceError: ProblemType(422, "invalid-function", "The function is invalid"),
    IdConflict: ProblemType(409, "taken-ids", "Some ids exist with other content"),
    DamagedVersion: ProblemType(422, "damaged-version", "The version is damaged"),
    PromotionConflict: ProblemType(409, "promotion-conflict", "The champion was not changed"),
    AlarmResolved: ProblemType(409, "alarm-resolved", "The alarm is resolved"),
    AlarmOfTarget: ProblemType(409, "alarm-of-target", "The slice has a target"),
    RunActive: ProblemType(409, "run-active", "A run is already active"),
    StaleRun: ProblemType(409, "run-moved", "The run has changed"),
    ReportRunning: ProblemType(409, "report-running", "A report is running already"),
    FunctionConflict: ProblemType(409, "function-conflict", "The function cannot be changed here"),
    UnknownFunction: ProblemType(404, "unknown-function", "Unknown function"),
    UnknownSlice: ProblemType(404, "unknown-slice", "Unknown slice"),
    UnknownPrediction: ProblemType(404, "unknown-prediction", "Unknown prediction"),
    RegistryError: ProblemType(404, "unknown-version", "Unknown version"),
    RegistryUnavailable: ProblemType(503, "registry-unavailable", "The registry cannot be read or written"),
    UnknownAlarm: ProblemType(404, "unknown-alarm", "Unknown alarm"),
    UnknownIncident: ProblemType(404, "unknown-incident", "Unknown incident"),
    UnknownRun: ProblemType(404, "unknown-run", "Unknown run"),
    UnknownReport: ProblemType(404, "unknown-report", "Unknown report"),
    ReportPageMissing: ProblemType(404, "no-page", "The report has no page"),
    TooSlow: ProblemType(408, "too-slow", "The body did not arrive in time"),
    TooLarge: ProblemType(413, "too-large", "The request is too large"),
    UnsupportedMedia: ProblemType(415, "unsupported-media", "The body is not plain JSON"),
    Overloaded: ProblemType(429, "overloaded", "Too many requests are queued", shed="queue"),
    StoreFull: ProblemType(429, "overloaded", "Too many rows wait to be logged", shed="log"),
    Stopping: ProblemType(503, "stopping", "The service is shutting down"),
    StoreStopped: ProblemType(503, "stopping", "The service is shutting down"),
    NoModel: ProblemType(503, "no-model", "No model is active"),
    NotReady: ProblemType(503, "not-ready", "The service is not ready"),
    NoReference: ProblemType(409, "no-reference", "No reference to compare with yet"),
    NotRetrained: ProblemType(409, "not-retrained", "The model is not retrained here"),
    StoreError: ProblemType(503, "store-unavailable", "The store is unavailable"),
    DeadlinePassed: ProblemType(504, "deadline-passed", "The request timed out", shed="deadline"),
}
INTERNAL_ERROR = ProblemType(500, "defect", "Internal error")


def problem_type_of(error: Exception) -> ProblemType:
    """Return the problem type of an error's nearest class; ``INTERNAL_ERROR`` for an unforeseen error.

    Examples
    --------
    >>> problem_type_of(StoreFull("later")).status, problem_type_of(ZeroDivisionError()).status
    (429, 500)
    """
    return next((PROBLEM_TYPES[base] for base in type(error).__mro__ if base in PROBLEM_TYPES), INTERNAL_ERROR)


def problem_type_of_status(status: int) -> ProblemType:
    """Return the problem type of an error of the router, such as an unknown path."""
    phrase = HTTPStatus(status).phrase
    return ProblemType(status, phrase.lower().replace(" ", "-"), phrase)


def problem(
    kind: ProblemType,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """Return a problem response; ``more`` has further members of the document."""
    document: dict[str, Any] = {
        "type": f"urn:slicewatch:problem:{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": truncated(detail, DETAIL_CHARS),
    }
    if errors:
        document["errors"] = [{"field": error.field, "message": error.message} for error in errors]
    if request_id is not None:
        document["request_id"] = request_id
    return Response(
        to_json({**document, **(more or {})}),
        kind.status,
        headers={**kind.headers, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def error_response(error: Exception, request_id: str | None = None) -> Response:
    """Return the response to a foreseen error."""
    more = {"predictions": error.predictions} if isinstance(error, IdConflict) else None
    errors = error.errors if isinstance(error, (InvalidRequest, IdConflict)) else ()
    headers = {"retry-after": str(error.retry_seconds)} if isinstance(error, TooManyRequests) else None
    return problem(problem_type_of(error), str(error), errors=errors, headers=headers, request_id=request_id, more=more)
