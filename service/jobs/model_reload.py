"""Job that activates a new champion; the active version answers until the new one is ready."""

from __future__ import annotations

import logging
from time import monotonic

from models.registry import CHAMPION, ModelRegistry
from service.metrics.process import ProcessMetrics
from service.serving.deployment import Deployment
from service.serving.predictor import load

FIRST_WAIT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 1800.0

_log = logging.getLogger(__name__)


class ModelReload:
    """Activates the champion if another version is active. For one thread at a time.

    A version that cannot be loaded is tried again after a wait that doubles from 30 seconds to half an hour;
    another version is tried at once.

    Parameters
    ----------
    registry
        Holds the champion alias.
    deployment
        The active version.
    metrics
        Counts failures.
    """

    def __init__(self, registry: ModelRegistry, deployment: Deployment, metrics: ProcessMetrics) -> None:
        self._registry, self._deployment, self._metrics = registry, deployment, metrics
        self._failed: int | None = None  # the version that could not be loaded last
        self._not_before, self._wait_seconds = 0.0, FIRST_WAIT_SECONDS

    def run(self, seconds: float | None = None) -> bool:
        """Activate the champion if it is not active, and return whether that was done.

        Parameters
        ----------
        seconds
            Monotonic time.
        """
        seconds = monotonic() if seconds is None else seconds
        champion, active = None, self._deployment.state.active
        version = None if active is None else active.version
        try:
            champion = self._registry.alias(CHAMPION)
            if champion is None or champion == version:
                self._follow_history(version)
                return False
            if champion == self._failed and seconds < self._not_before:
                return False
            loaded = load(self._registry, self._deployment.state.live, champion)
            self._deployment.activate_version(loaded, self._registry.history(CHAMPION))
        except Exception as error:  # whatever is wrong with a version, the active one goes on
            _log.error("the champion could not be loaded: %s", error)
            self._back_off(champion, seconds)
            self._metrics.count_reload_failure()
            return False
        self._failed, self._wait_seconds = None, FIRST_WAIT_SECONDS
        return True

    def _follow_history(self, version: int | None) -> None:
        """Take over the history where the active version was promoted once more."""
        last = self._registry.change(CHAMPION)
        if last is not None and last.version == version and self._deployment.state.history[-1:] != (last,):
            self._deployment.record_history(self._registry.history(CHAMPION))

    def _back_off(self, version: int | None, seconds: float) -> None:
        again = version == self._failed
        self._wait_seconds = (
            min(2 * self._wait_seconds, LONGEST_WAIT_SECONDS) if again else FIRST_WAIT_SECONDS
        )
        self._failed, self._not_before = version, seconds + self._wait_seconds
