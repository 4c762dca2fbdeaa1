"""What the API refuses by itself; each is a value of its own, and its status is in ``problems``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import ServiceError

MOST_ERRORS = 20
"""Errors of one request that are told one by one."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request, such as ``instances[3].likes``."""

    field: str
    message: str


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
        more = len(errors) - MOST_ERRORS
        super().__init__([*sentences, f"and {more} more"] if more > 0 else sentences)


class TooLarge(ServiceError):
    """The request is longer, or has more rows, than the service takes at once."""


class TooSlow(ServiceError):
    """The body did not come within the time that a request may take."""


class UnsupportedMedia(ServiceError):
    """The body is not plain JSON, or does not say that it is."""


class TakenIds(ServiceError):
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
