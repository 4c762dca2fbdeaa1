"""Text formats of Prometheus and OpenMetrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OPENMETRICS_END = b"# EOF\n"

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
    return generate_latest(_without_created(collector))


def render_openmetrics(collector: Collector | Families) -> bytes:
    """Return the families in the format of OpenMetrics, with exemplars of histograms and without its end.

    The client library takes twice the time for the same: but for the headers of counters, lines are those of the text
    format.
    """
    lines: list[str] = []
    for family in _without_created(collector).collect():
        help_line, type_line, *samples = generate_latest(Families([family])).decode().removesuffix("\n").split("\n")
        if family.type == "counter":
            help_line, type_line = (line.replace("_total ", " ", 1) for line in (help_line, type_line))
        for n, sample in enumerate(family.samples):
            if (exemplar := sample.exemplar) is not None:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(exemplar.labels.items()))
                samples[n] += f" # {{{labels}}} {exemplar.value} {exemplar.timestamp}"
        lines += [help_line, type_line, *samples]
    return ("\n".join(lines) + "\n").encode()


def _without_created(collector: Collector | Families) -> Families:
    families = list(collector.collect())
    for family in families:
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return Families(families)


def counter(name: str, help_text: str, labels: Sequence[str]) -> CounterMetricFamily:
    """Return an empty counter family, named without prefix and ``_total``."""
    return CounterMetricFamily(PREFIX + name, help_text, labels=labels)


def gauge(name: str, help_text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    """Return an empty gauge family, named without prefix."""
    return GaugeMetricFamily(PREFIX + name, help_text, labels=labels)
