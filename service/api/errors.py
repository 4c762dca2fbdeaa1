"""What the API refuses by itself; each is a value of its own, and its status is in ``problems``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import accumulate
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from models.errors import DataError, RegistryError
from service.errors import MisuseError, ServiceError
from service.serving.errors import DeadlinePassed, NoModel, NotAttempted, Overloaded, Stopping
from service.store.errors import (
    AlarmResolved,
    RunActive,
    StaleRun,
    StoreError,
    StoreFull,
    StoreStopped,
    UnknownAlarm,
    UnknownReport,
    UnknownRun,
)
from service.views.current import NotReady, UnknownSlice
from sfs.errors import SliceError

MOST_ERRORS = 20
"""Errors of one request that are told one by one."""

FIELD_CHARS, MESSAGE_CHARS, DETAIL_CHARS = 200, 300, 2_000
"""How long what is told may be: it may quote the request, and is no longer for that."""


def truncated(text: str, most_chars: int) -> str:
    """Return a text, its end left out where it is too long.

    Examples
    --------
    >>> truncated("subscribe", 6), truncated("click", 6)
    ('sub...', 'click')
    """
    return text if len(text) <= most_chars else f"{text[: most_chars - 3]}..."


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request, such as ``instances[3].likes``; both are cut where too long."""

    field: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", truncated(self.field, FIELD_CHARS))
        object.__setattr__(self, "message", truncated(self.message, MESSAGE_CHARS))


class InvalidRequest(ServiceError):
    """The request is readable, and one or several of its fields are wrong.

    Parameters
    ----------
    errors
        Which fields, and what is wrong with each; of many, the first ones are told.
    """

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors[:MOST_ERRORS])
        sentences = [f"{each.field}: {each.message}" if each.field else each.message for each in self.errors]
        ends = accumulate(len(each) + 2 for each in sentences)
        fitting = [each for each, end in zip(sentences, ends, strict=True) if end < DETAIL_CHARS - 30]
        more = len(errors) - len(fitting)
        super().__init__([*fitting, f"and {more} more"] if more else fitting)


class TooLarge(ServiceError):
    """The request is longer, or has more rows, than the service takes at once."""


class TooSlow(ServiceError):
    """The body did not come within the time that a request may take."""


class UnsupportedMedia(ServiceError):
    """The body is not plain JSON, or does not say that it is."""


class IdConflict(ServiceError):
    """Some ids stand in the log with other content.

    Parameters
    ----------
    errors
        Which ids.
    predictions
        What was answered for the other rows, in the request's order, and None for these.
    """

    def __init__(
        self, message: str, errors: Sequence[FieldError], predictions: Sequence[Mapping[str, Any] | None]
    ) -> None:
        self.errors, self.predictions = tuple(errors), tuple(predictions)
        super().__init__(message)


class FunctionConflict(ServiceError):
    """The name belongs to a function that cannot be changed over HTTP, such as one that a file defines."""


class UnknownFunction(ServiceError):
    """No function of the set in force has the name."""


class UnknownVersion(ServiceError):
    """The registry has no such version."""


class PromotionConflict(ServiceError):
    """Somebody else changed the champion first, or there is nothing to go back to."""


class DamagedVersion(ServiceError):
    """The version cannot be served: its files are not as they were written."""


class ReportRunning(ServiceError):
    """A report is being made already."""


class NoPage(ServiceError):
    """The report has no page to show."""


class NotAvailable(ServiceError):
    """This process cannot do what was asked: no part of it does."""


MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""When a client that was refused under load may come again."""


@dataclass(frozen=True, slots=True)
class ProblemType:
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


PROBLEM_TYPES: Mapping[type[Exception], ProblemType] = {
    InvalidRequest: ProblemType(422, "invalid-request", "The request is not valid"),
    MisuseError: ProblemType(422, "invalid-request", "The request is not valid"),
    DataError: ProblemType(422, "invalid-data", "The data cannot be used"),
    SliceError: ProblemType(422, "invalid-function", "The function cannot be used"),
    NotAttempted: ProblemType(422, "invalid-request", "The request is not valid"),
    IdConflict: ProblemType(409, "taken-ids", "Some ids are taken by other content"),
    DamagedVersion: ProblemType(422, "damaged-version", "The version cannot be served"),
    PromotionConflict: ProblemType(409, "promotion-conflict", "The champion was not changed"),
    AlarmResolved: ProblemType(409, "alarm-resolved", "The alarm has ended"),
    RunActive: ProblemType(409, "run-active", "A run goes on already"),
    StaleRun: ProblemType(409, "run-moved", "The run is elsewhere by now"),
    ReportRunning: ProblemType(409, "report-running", "A report is being made already"),
    FunctionConflict: ProblemType(409, "function-conflict", "The function cannot be changed here"),
    UnknownFunction: ProblemType(404, "unknown-function", "There is no such function"),
    UnknownSlice: ProblemType(404, "unknown-slice", "There is no such slice"),
    UnknownVersion: ProblemType(404, "unknown-version", "There is no such version"),
    RegistryError: ProblemType(404, "unknown-version", "There is no such version"),
    UnknownAlarm: ProblemType(404, "unknown-alarm", "There is no such alarm"),
    UnknownRun: ProblemType(404, "unknown-run", "There is no such run"),
    UnknownReport: ProblemType(404, "unknown-report", "There is no such report"),
    NoPage: ProblemType(404, "no-page", "The report has no page"),
    TooSlow: ProblemType(408, "too-slow", "The body did not come in time"),
    TooLarge: ProblemType(413, "too-large", "The request is too large"),
    UnsupportedMedia: ProblemType(415, "unsupported-media", "The body is not plain JSON"),
    Overloaded: ProblemType(429, "overloaded", "Too many requests wait", shed="queue"),
    StoreFull: ProblemType(429, "overloaded", "Too many rows wait to be logged", shed="log"),
    Stopping: ProblemType(503, "stopping", "The service stops"),
    StoreStopped: ProblemType(503, "stopping", "The service stops"),
    NoModel: ProblemType(503, "no-model", "No model is in force"),
    NotReady: ProblemType(503, "not-ready", "The service is not ready"),
    NotAvailable: ProblemType(503, "not-here", "This process cannot do it"),
    StoreError: ProblemType(503, "store-unavailable", "The store could not do it"),
    DeadlinePassed: ProblemType(504, "deadline-passed", "The request took too long", shed="deadline"),
}
INTERNAL_ERROR = ProblemType(500, "defect", "Something went wrong here")


def problem_type_of(error: Exception) -> ProblemType:
    """Return the kind of an error, that of its nearest class; ``INTERNAL_ERROR`` for one that nobody foresaw.

    Examples
    --------
    >>> problem_type_of(StoreFull("later")).status, problem_type_of(ZeroDivisionError()).status
    (429, 500)
    """
    return next(
        (PROBLEM_TYPES[each] for each in type(error).__mro__ if each in PROBLEM_TYPES), INTERNAL_ERROR
    )


def problem_type_of_status(status: int) -> ProblemType:
    """Return the kind of a refusal by the router, such as an unknown path."""
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
    """Return the response that tells of a problem; ``more`` are further members of its document."""
    document: dict[str, Any] = {
        "type": f"urn:slicewatch:problem:{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": truncated(detail, DETAIL_CHARS),
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


def error_response(error: Exception, request_id: str | None = None) -> Response:
    """Return the response to an error that was foreseen."""
    more = {"predictions": error.predictions} if isinstance(error, IdConflict) else None
    errors = error.errors if isinstance(error, (InvalidRequest, IdConflict)) else ()
    return problem(problem_type_of(error), str(error), errors=errors, request_id=request_id, more=more)
