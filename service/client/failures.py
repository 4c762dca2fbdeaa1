"""Why a call to the service came to nothing."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import ServiceError


class NotRunning(ServiceError):
    """Nothing listens at the address; nothing was sent."""


class NoAnswer(ServiceError):
    """The connection broke, or the answer took too long; what was asked may have been done."""


class ClientError(ServiceError):
    """The service refused, and says why.

    Parameters
    ----------
    status
        The HTTP status.
    title, detail
        What kind of refusal it is, and what is wrong.
    errors
        Pairs of a field and what is wrong with it.

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
        said = f"{status} {title}: {detail}" if detail else f"{status} {title}"
        super().__init__([said, *(each for each in fields if each not in detail)])
