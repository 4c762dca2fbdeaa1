"""Why a request was not answered; each is a value of its own, so that the API can tell them apart."""

from __future__ import annotations

from service.errors import ServiceError


class Overloaded(ServiceError):
    """The queue is full: the caller may try again later."""


class DeadlinePassed(ServiceError):
    """The request waited until its deadline, and was not run."""


class Stopping(ServiceError):
    """The service stops, and takes no more requests."""


class WrongResultCount(ServiceError):
    """A batch got another number of answers than it has rows, so that none can be believed."""


class NotAttempted(ServiceError):
    """So many rows of a batch failed that this one was not run."""


class ModelExited(ServiceError):
    """What a row was run by asked the whole process to exit."""


class NoModel(ServiceError):
    """No version answers yet: one has to be trained and promoted first."""


def raisable(error: Exception | SystemExit) -> Exception:
    """Return an error that ends no process where it is raised again.

    Examples
    --------
    >>> raisable(SystemExit(3))
    ModelExited('running the row asked the process to exit (3): report this as a defect')
    """
    if isinstance(error, Exception):
        return error
    exited = ModelExited(f"running the row asked the process to exit ({error.code}): report this as a defect")
    exited.__cause__ = error
    return exited
