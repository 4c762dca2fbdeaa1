"""What the API refuses by itself; each is a value of its own, and its status is in ``problems``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from service.errors import ServiceError

MOST_ERRORS = 20
"""Errors of one request that are told one by one."""

FIELD_CHARS, MESSAGE_CHARS, DETAIL_CHARS = 200, 300, 2_000
"""How long what is told may be: it may quote the request, and is no longer for that."""


def cut(text: str, most_chars: int) -> str:
    """Return a text, its end left out where it is too long.

    Examples
    --------
    >>> cut("subscribe", 6), cut("click", 6)
    ('sub...', 'click')
    """
    return text if len(text) <= most_chars else f"{text[: most_chars - 3]}..."


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request, such as ``instances[3].likes``; both are cut where too long."""

    field: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", cut(self.field, FIELD_CHARS))
        object.__setattr__(self, "message", cut(self.message, MESSAGE_CHARS))


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


class PromotionConflict(ServiceError):
    """Somebody else changed the champion first, or there is nothing to go back to."""


class DamagedVersion(ServiceError):
    """The version cannot be served: its files are not as they were written."""


class ReportRunning(ServiceError):
    """A report is being made already."""


class NoPage(ServiceError):
    """The report has no page to show."""


class NotHere(ServiceError):
    """This process cannot do what was asked: no part of it does."""
