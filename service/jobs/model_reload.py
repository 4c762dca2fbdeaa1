"""Job that activates a new champion; the active version answers until the new one is ready."""

from __future__ import annotations

import logging
from contextlib import suppress
from time import monotonic

from models.errors import BundleError, ModelError, RegistryError
from models.registry import CHAMPION, AliasChange, ModelRegistry
from service.errors import ServiceError
from service.jobs.standing_fault import StandingFault
from service.metrics.process import ProcessMetrics
from service.serving.deployment import Deployment
from service.serving.predictor import load

FIRST_WAIT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 1800.0

_log = logging.getLogger(__name__)


class ModelReload:
    """Activates the champion if another version is active. For one thread at a time.

    A version that cannot be loaded is retried after a wait that doubles from 30 seconds to half an hour;
    another version, and one whose files have changed, is tried at once. The reason is recorded in the deployment,
    and logged once an hour.
    """

    def __init__(self, registry: ModelRegistry, deployment: Deployment, metrics: ProcessMetrics) -> None:
        self._registry, self._deployment, self._metrics = registry, deployment, metrics
        self._failed: int | None = None  # last version that failed to load
        self._stamp: tuple[object, ...] = ()  # its files then
        self._fault = StandingFault()
        self._not_before, self._wait_seconds = 0.0, FIRST_WAIT_SECONDS

    def run(self, seconds: float | None = None) -> bool:
        """Activate the champion if it is not active; return True if so. ``seconds`` is monotonic time."""
        seconds = monotonic() if seconds is None else seconds
        champion, state = None, self._deployment.state
        version = None if state.active is None else state.active.version
        try:
            last = self._registry.change(CHAMPION)
            champion = None if last is None else last.version
            if champion is None or champion == version:
                self._end_fault()
                if last is not None and last.version == version and state.history[-1:] != (last,):
                    self._deployment.record_history(self._registry.readable_history(CHAMPION))  # promoted once more
                return False
            stamp = self._registry.stamp(champion)
            if (champion, stamp) == (self._failed, self._stamp) and seconds < self._not_before:
                return False
            self._stamp = stamp
            loaded = load(self._registry, state.live, champion)
            self._deployment.activate_version(loaded, self._registry.readable_history(CHAMPION))
        except Exception as error:  # the active version stays, whatever the error
            self._record(error, champion)
            again = champion == self._failed
            self._wait_seconds = min(2 * self._wait_seconds, LONGEST_WAIT_SECONDS) if again else FIRST_WAIT_SECONDS
            self._failed, self._not_before = champion, seconds + self._wait_seconds
            self._metrics.count_reload_failure()
            return False
        self._failed, self._wait_seconds = None, FIRST_WAIT_SECONDS
        self._end_fault()
        return True

    def _end_fault(self) -> None:
        self._fault.clear()
        self._deployment.clear_fault()

    def _record(self, error: Exception, champion: int | None) -> None:
        """Log the reason, and let the deployment go on without the champion; another error may quote a record."""
        is_own = isinstance(error, BundleError | RegistryError | ServiceError | OSError)
        reason = self._registry.relative(str(error)) if is_own else f"unexpected {type(error).__name__}"
        which = "champion" if champion is None else f"champion, version {champion},"
        fault = f"the {which} cannot be loaded: {reason}"
        if self._fault.is_news(fault):
            _log.error("%s", fault)
            _log.debug("the champion could not be loaded", exc_info=error)
        history: tuple[AliasChange, ...] = ()
        classes: tuple[str, ...] = ()
        with suppress(ModelError):
            history = self._registry.readable_history(CHAMPION)
            for version in (champion, *(stored.number for stored in reversed(self._registry.list()))):
                if version is not None and not classes:
                    with suppress(BundleError):
                        classes = self._registry.classes(version)
        self._deployment.record_fault(fault, champion, classes, history)
