"""Errors of a call to the service."""

from __future__ import annotations

from collections.abc import Sequence

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

    def __init__(
        self, status: int, title: str, detail: str = "", errors: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.status, self.title, self.detail, self.errors = status, title, detail, tuple(errors)
        fields = [f"{field}: {message}" if field else message for field, message in self.errors]
        summary = f"{status} {title}: {detail}" if detail else f"{status} {title}"
        super().__init__([summary, *(text for text in fields if text not in detail)])
