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


class ActionRefused(ServiceError):
    """What was asked does not fit what stands in the store, which itself is well."""


class UnknownAlarm(ActionRefused):
    """No alarm has this id."""


class AlarmResolved(ActionRefused):
    """The alarm has ended."""


class UnknownRun(ActionRefused):
    """No run has this id."""


class RunActive(ActionRefused):
    """The model has a run that is not at its end."""


class StaleRun(ActionRefused):
    """The run is no longer in the state that was expected."""


class UnknownReport(ActionRefused):
    """No report has this id."""
