"""Job that deletes labels of ids that never came, and rows beyond ``log.keep_days``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic

from sqlalchemy import Connection

from service.jobs.drift_detection import DriftDetection
from service.metrics.process import ProcessMetrics
from service.settings.schema import Settings
from service.store.retention import delete_predictions, expire_labels
from service.store.writer import Writer

_ROWS = 500  # deleted in one transaction, at most
_FIRST_ROWS = 50
_ROWS_OF_RUN = 50_000
_RUN_SECONDS = 2.0  # a shutdown waits for the end of a run
_PART_SECONDS = 0.01  # requests wait for a transaction: parts of large rows get smaller


class Retention:
    """Deletes old rows of one model, and old labels of ids that never came, in parts between other writes."""

    def __init__(
        self,
        settings: Settings,
        detection: DriftDetection,
        writer: Writer,
        metrics: ProcessMetrics,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        self._settings, self._detection = settings, detection
        self._writer, self._metrics, self._seconds = writer, metrics, seconds

    def run(self, now: datetime) -> int:
        """Delete, and return the number of deleted predictions."""
        expired_at = now - timedelta(seconds=self._settings.late_after_seconds)
        end, deleted = self._seconds() + _RUN_SECONDS, 0
        count = self._metrics.count_expired_labels
        self._in_parts(lambda connection, limit: expire_labels(connection, expired_at, limit), count, end)
        keep_days, position = self._settings.log.keep_days, self._detection.position
        if keep_days is not None and position is not None:  # None until the detectors have run
            name, before = self._settings.name, now - timedelta(days=keep_days)
            deleted = self._in_parts(
                lambda connection, limit: delete_predictions(connection, name, before, *position, limit),
                self._metrics.count_deleted_rows,
                end,
            )
        return deleted

    def _in_parts(self, delete: Callable[[Connection, int], int], count: Callable[[int], object], end: float) -> int:
        """Delete and count until nothing is left or the run has deleted its share or taken its time; return the sum."""
        total, limit = 0, _FIRST_ROWS

        def timed(connection: Connection) -> tuple[int, float]:
            start = self._seconds()
            return delete(connection, limit), self._seconds() - start

        while total < _ROWS_OF_RUN and self._seconds() < end:
            deleted, seconds = self._writer.submit(timed).result()
            total += deleted
            count(deleted)
            if deleted < limit:
                break
            limit = max(1, min(_ROWS, round(limit * _PART_SECONDS / max(seconds, 1e-3))))
        return total
