"""Errors of a call to the service."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http.client import responses
from typing import Any, NotRequired, TypedDict, TypeVar

from service.errors import ServiceError


class NotRunning(ServiceError):
    """Nothing listens at the address; nothing was sent."""


class NoResponse(ServiceError):
    """The connection broke, or the call timed out; the service may have handled the request."""


class ClientError(ServiceError):
    """The service returned an error.

    Parameters
    ----------
    status
        HTTP status code.
    title, detail
        Kind of error, and the cause of this one.
    errors
        Pairs of a field and its error.

    Examples
    --------
    >>> ClientError(409, "Some ids are taken", errors=[("ids[0]", "'a' is taken")]).problems
    ('409 Some ids are taken', "ids[0]: 'a' is taken")
    """

    def __init__(self, status: int, title: str, detail: str = "", errors: Sequence[tuple[str, str]] = ()) -> None:
        self.status, self.title, self.detail, self.errors = status, title, detail, tuple(errors)
        fields = [f"{field}: {message}" if field else message for field, message in self.errors]
        summary = f"{status} {title}: {detail}" if detail else f"{status} {title}"
        super().__init__([summary, *(text for text in fields if text not in detail)])


T = TypeVar("T")


class LabelItem(TypedDict):
    """True class of one record; ``observed_at`` defaults to the time of arrival."""

    id: str
    label: str
    observed_at: NotRequired[datetime | str]
    labeller: NotRequired[str]
    idempotency_key: NotRequired[str]


@dataclass(frozen=True, slots=True)
class LabelResponse:
    """Outcome of one label, with a reason if the label does not count."""

    id: str
    outcome: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PredictionResponse:
    """Prediction for one record.

    Parameters
    ----------
    label, probabilities
        Predicted class, and the probability of each class; None if the model gives none.
    slices, unknown_slices
        Slices that contain the record, and slices whose function failed on it.
    version
        Version of the model that predicted.
    repeated
        Whether the id was logged before with the same record: this is the earlier prediction.
    """

    id: str
    label: str
    probabilities: Mapping[str, float] | None
    slices: tuple[str, ...]
    unknown_slices: tuple[str, ...]
    version: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class Predictions:
    """Active model, and a prediction per record in order; the version is None if no model is active."""

    model: str
    version: int | None
    predictions: tuple[PredictionResponse, ...]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Readiness of the service, with the reasons by name if it is not ready."""

    ready: bool
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Raw response."""

    url: str
    status: int
    retry_after: str | None
    body: bytes

    @property
    def retry_after_seconds(self) -> float | None:
        """Delay that the service asks for; None unless it is given in seconds."""
        value = (self.retry_after or "").strip()
        return float(value) if value.isdecimal() else None

    def read(self, convert: Callable[[Any], T]) -> T:
        """Return the JSON document, converted.

        Raises
        ------
        ClientError
            If the status is an error, or the document is not one of this service.
        """
        if not 200 <= self.status < 300:
            raise self.error()
        try:
            return convert(json.loads(self.body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self.foreign() from error

    def foreign(self) -> ClientError:
        """Return the error for an address where another program listens."""
        title = f"{self.url} is not a Slicewatch service of this version"
        return ClientError(self.status, title, self._excerpt())

    def error(self) -> ClientError:
        """Return the error that the body describes."""
        document = self.document()
        title = str(document.get("title") or responses.get(self.status, "refused"))
        detail = document.get("detail") or ("" if document else self._excerpt())
        listed = [error for error in document.get("errors") or [] if isinstance(error, dict)]
        errors = [(str(error.get("field", "")), str(error.get("message", ""))) for error in listed]
        return ClientError(self.status, title, str(detail), errors)

    def document(self) -> dict[str, Any]:
        """Return the body if it is a JSON object, else an empty one."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    def _excerpt(self) -> str:
        return " ".join(self.body[:200].decode("utf-8", "replace").split())


def read_labels(document: Any) -> list[LabelResponse]:
    """Return the outcome of each label."""
    return [LabelResponse(item["id"], item["outcome"], item.get("reason")) for item in document["labels"]]


def read_predictions(document: Any) -> Predictions:
    """Return the predictions with the active model."""
    predictions = tuple(
        PredictionResponse(
            item["id"],
            item["label"],
            item["probabilities"],
            tuple(item["slices"]),
            tuple(item["unknown_slices"]),
            item["version"],
            item["repeated"],
        )
        for item in document["predictions"]
    )
    return Predictions(document["model"]["name"], document["model"]["version"], predictions)
