"""Errors of the store."""

from service.errors import ServiceError


class StoreError(ServiceError):
    """Failed store operation; unacknowledged requests can be sent again."""


class StoreInUse(StoreError):
    """Store that another process has open."""


class StoreUnusable(StoreError):
    """Store whose file is damaged, or no longer in its place; nothing is written."""


class UnknownSchema(StoreError):
    """Store written by another version."""


class DamagedValue(StoreError, ValueError):
    """Stored value that cannot be read."""


class StoreFull(StoreError):
    """Full write queue; try again in a moment."""


class StoreStopped(StoreError):
    """Write to a stopped writer."""


class ActionRefused(ServiceError):
    """Action that contradicts the state in the store."""


class UnknownAlarm(ActionRefused):
    """Unknown alarm id."""


class AlarmResolved(ActionRefused):
    """Action on a resolved alarm."""


class AlarmOfTarget(ActionRefused):
    """Acceptance of a rate that misses a target."""


class UnknownIncident(ActionRefused):
    """Unknown incident id."""


class UnknownRun(ActionRefused):
    """Unknown run id."""


class RunActive(ActionRefused):
    """Second unfinished run of a model."""


class StaleRun(ActionRefused):
    """Run that is no longer in the expected state."""


class UnknownReport(ActionRefused):
    """Unknown report id."""
