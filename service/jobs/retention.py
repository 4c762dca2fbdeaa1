"""Job that deletes labels of ids that never came, and rows beyond ``log.keep_days``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic

from sqlalchemy import Connection

from service.jobs.drift_detection import DriftDetection
from service.metrics.process import ProcessMetrics
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.retention import count_pending, delete_predictions, expire_labels
from service.store.writer import Writer

_ROWS = 500  # deleted in one transaction, at most
_FIRST_ROWS = 50
_ROWS_OF_RUN = 50_000
_PART_SECONDS = 0.01  # requests wait for a transaction: parts of large rows get smaller


class Retention:
    """Deletes old rows of one model, and old labels of ids that never came, in parts between other writes."""

    def __init__(
        self, settings: Settings, detection: DriftDetection, store: Store, writer: Writer, metrics: ProcessMetrics
    ) -> None:
        self._settings, self._detection = settings, detection
        self._store, self._writer, self._metrics = store, writer, metrics

    def run(self, now: datetime) -> int:
        """Delete, and return the number of deleted predictions."""
        expired_at = now - timedelta(seconds=self._settings.late_after_seconds)
        expired = self._in_parts(lambda connection, limit: expire_labels(connection, expired_at, limit))
        self._metrics.count_expired_labels(expired)
        deleted = 0
        keep_days, position = self._settings.log.keep_days, self._detection.position
        if keep_days is not None and position is not None:  # None until the detectors have run
            name, before = self._settings.name, now - timedelta(days=keep_days)
            deleted = self._in_parts(
                lambda connection, limit: delete_predictions(connection, name, before, *position, limit)
            )
            self._metrics.count_deleted_rows(deleted)
        with self._store.read() as connection:
            self._metrics.show_pending_labels(count_pending(connection))
        return deleted

    def _in_parts(self, delete: Callable[[Connection, int], int]) -> int:
        """Delete until nothing is left or the run has deleted its share, and return the number."""
        total, limit = 0, _FIRST_ROWS

        def timed(connection: Connection) -> tuple[int, float]:
            start = monotonic()
            return delete(connection, limit), monotonic() - start

        while total < _ROWS_OF_RUN:
            deleted, seconds = self._writer.submit(timed).result()
            total += deleted
            if deleted < limit:
                break
            limit = max(1, min(_ROWS, round(limit * _PART_SECONDS / max(seconds, 1e-3))))
        return total
