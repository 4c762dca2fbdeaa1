"""Why a request was not answered; each is a value of its own, so that the API can tell them apart."""

from __future__ import annotations

from service.errors import ServiceError


class Overloaded(ServiceError):
    """The queue is full: the caller may try again later."""


class DeadlinePassed(ServiceError):
    """The request waited until its deadline, and was not run."""


class Stopping(ServiceError):
    """The service stops, and takes no more requests."""


class MiscountedAnswers(ServiceError):
    """A batch got another number of answers than it has rows, so that none can be believed."""


class NoModel(ServiceError):
    """No version answers yet: one has to be trained and promoted first."""
