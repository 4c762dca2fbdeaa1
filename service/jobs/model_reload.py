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

    A version that cannot be loaded is retried after a wait that doubles from 30 seconds to half an hour;
    another version is tried at once.
    """

    def __init__(self, registry: ModelRegistry, deployment: Deployment, metrics: ProcessMetrics) -> None:
        self._registry, self._deployment, self._metrics = registry, deployment, metrics
        self._failed: int | None = None  # last version that failed to load
        self._not_before, self._wait_seconds = 0.0, FIRST_WAIT_SECONDS

    def run(self, seconds: float | None = None) -> bool:
        """Activate the champion if it is not active; return True if so. ``seconds`` is monotonic time."""
        seconds = monotonic() if seconds is None else seconds
        champion, state = None, self._deployment.state
        version = None if state.active is None else state.active.version
        try:
            champion = self._registry.alias(CHAMPION)
            if champion is None or champion == version:
                last = self._registry.change(CHAMPION)
                if last is not None and last.version == version and state.history[-1:] != (last,):
                    self._deployment.record_history(self._registry.history(CHAMPION))  # promoted once more
                return False
            if champion == self._failed and seconds < self._not_before:
                return False
            loaded = load(self._registry, state.live, champion)
            self._deployment.activate_version(loaded, self._registry.history(CHAMPION))
        except Exception as error:  # the active version stays, whatever the error
            _log.error("the champion could not be loaded: %s", error)
            again = champion == self._failed
            self._wait_seconds = min(2 * self._wait_seconds, LONGEST_WAIT_SECONDS) if again else FIRST_WAIT_SECONDS
            self._failed, self._not_before = champion, seconds + self._wait_seconds
            self._metrics.count_reload_failure()
            return False
        self._failed, self._wait_seconds = None, FIRST_WAIT_SECONDS
        return True
