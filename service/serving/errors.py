"""Errors of the request path; the API maps each class to a problem of its own."""

from __future__ import annotations

from service.errors import ServiceError


class Overloaded(ServiceError):
    """The queue is full; the caller may retry later."""


class DeadlinePassed(ServiceError):
    """The request reached its deadline in the queue, and was not run."""


class Stopping(ServiceError):
    """The service is stopping, and takes no more requests."""


class WrongResultCount(ServiceError):
    """A batch returned another number of results than it has rows; none of them can be used."""


class NotAttempted(ServiceError):
    """Too many rows of the batch failed before this one, which was not run."""


class ModelExited(ServiceError):
    """The model, or a function, called ``sys.exit`` on a row."""


class NoModel(ServiceError):
    """No version is active: train and promote one first."""
