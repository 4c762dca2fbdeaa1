"""Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PREFIX = "slicewatch_"
"""Prefix of every metric name."""

OTHER = "__other__"
"""Label value of everything that is not registered, so that no request can create a series."""


class Families:
    """Finished metric families as a collector."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families


def render(collector: Collector | Families) -> bytes:
    """Return the families of a collector as text, without the ``_created`` series of the client library."""
    families = list(collector.collect())
    for family in families:
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return generate_latest(Families(families))


def counter(name: str, help_text: str, labels: Sequence[str]) -> CounterMetricFamily:
    """Return an empty counter family, named without prefix and ``_total``."""
    return CounterMetricFamily(PREFIX + name, help_text, labels=labels)


def gauge(name: str, help_text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    """Return an empty gauge family, named without prefix."""
    return GaugeMetricFamily(PREFIX + name, help_text, labels=labels)
