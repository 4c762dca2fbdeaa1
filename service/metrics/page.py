"""Page at ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from service.decisions import Alarm, DriftStatus
from service.events import Snapshot
from service.metrics.gauges import render_drift, render_snapshot
from service.metrics.process import ProcessMetrics
from sfs.intervals import Rate
from sfs.validation import Metadata


class MetricsPage:
    """Metrics of this process, followed by the gauges of the last snapshot, once there is one."""

    def __init__(self, process: ProcessMetrics) -> None:
        self._process = process
        self._snapshot = self._drift = b""

    def show(
        self, snapshot: Snapshot, metadata: Mapping[str, Metadata], references: Mapping[str, Rate]
    ) -> None:
        """Serve the gauges of a snapshot until the next call; arguments as for ``render_snapshot``."""
        self._snapshot = render_snapshot(snapshot, metadata, references)

    def show_drift(self, model: str, drifts: Iterable[DriftStatus], unresolved: Sequence[Alarm]) -> None:
        """Serve the gauges of drift until the next call; arguments as for ``render_drift``."""
        self._drift = render_drift(model, drifts, unresolved)

    def text(self) -> bytes:
        """Return the page, of type ``CONTENT_TYPE``; takes milliseconds, so call it off the event loop."""
        return self._process.text() + self._snapshot + self._drift
