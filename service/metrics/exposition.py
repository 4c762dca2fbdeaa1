"""Prometheus' text format, as every part of the page is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the page."""

PREFIX = "slicewatch_"
"""Of every name."""

OTHER = "__other__"
"""The label value of everything that is not registered, so that no request can make a series."""


class Families:
    """Metric families that are there already, in the shape that the client library writes from."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        return self._families


def render(collector: Collector | Families) -> bytes:
    """Return the families of a collector as text, without the library's series of creation times."""
    return generate_latest(Families(_without_created(each) for each in collector.collect()))


def counter(name: str, help_text: str, labels: Sequence[str]) -> CounterMetricFamily:
    """Return an empty counter family; the name is given without prefix, and without ``_total``."""
    return CounterMetricFamily(PREFIX + name, help_text, labels=labels)


def gauge(name: str, help_text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    """Return an empty gauge family; the name is given without prefix."""
    return GaugeMetricFamily(PREFIX + name, help_text, labels=labels)


def _without_created(family: Metric) -> Metric:
    family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return family
