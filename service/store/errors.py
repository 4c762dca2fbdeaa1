"""What the store refuses, and why."""

from service.errors import ServiceError


class StoreError(ServiceError):
    """The store could not do what was asked; what was not acknowledged can be sent again."""


class StoreInUse(StoreError):
    """Another process has the store open."""


class UnknownSchema(StoreError):
    """The store was written by a version that is not this one."""


class StoreFull(StoreError):
    """As much waits to be written as may wait; try again in a moment."""


class StoreStopped(StoreError):
    """The writer takes nothing more."""
