"""The page at ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from service.decisions import Alarm, Drift
from service.events import Snapshot
from service.metrics.gauges import rendered
from service.metrics.loop_gauges import rendered_drift
from service.metrics.process import ProcessMetrics
from sfs.intervals import Rate
from sfs.metadata import Metadata


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
        """Render the gauges of a snapshot, to be served until the next; arguments as in ``rendered``."""
        self._gauges = rendered(snapshot, metadata, references)

    def show_drift(self, model: str, drifts: Iterable[Drift], unresolved: Sequence[Alarm]) -> None:
        """Render the gauges of drift, to be served until the next; arguments as in ``rendered_drift``."""
        self._drift = rendered_drift(model, drifts, unresolved)

    def text(self) -> bytes:
        """Return the page, of type ``CONTENT_TYPE``; it takes milliseconds: call it off the event loop."""
        return self._process.text() + self._gauges + self._drift
