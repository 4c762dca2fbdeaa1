"""The page at ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from service.decisions import Alarm, DriftStatus
from service.events import Snapshot
from service.metrics.gauges import render_drift, render_snapshot
from service.metrics.process import ProcessMetrics
from sfs.intervals import Rate
from sfs.validation import Metadata


class MetricsPage:
    """The counters of this process, then the gauges of the last snapshot; there are none before the first.

    Parameters
    ----------
    process
        The counters, written anew at each scrape.
    """

    def __init__(self, process: ProcessMetrics) -> None:
        self._process = process
        self._gauges = self._drift = b""

    def show(
        self, snapshot: Snapshot, metadata: Mapping[str, Metadata], references: Mapping[str, Rate]
    ) -> None:
        """Render the gauges of a snapshot, to be served until the next; arguments as in ``render_snapshot``."""
        self._gauges = render_snapshot(snapshot, metadata, references)

    def show_drift(self, model: str, drifts: Iterable[DriftStatus], unresolved: Sequence[Alarm]) -> None:
        """Render the gauges of drift, to be served until the next; arguments as in ``render_drift``."""
        self._drift = render_drift(model, drifts, unresolved)

    def text(self) -> bytes:
        """Return the page, of type ``CONTENT_TYPE``; it takes milliseconds: call it off the event loop."""
        return self._process.text() + self._gauges + self._drift
