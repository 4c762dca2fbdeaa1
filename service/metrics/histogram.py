"""Histogram that takes observations in batches."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
from prometheus_client.core import Exemplar, HistogramMetricFamily, Metric

from service.metrics.exposition import OTHER, PREFIX
from service.metrics.request_log import LoggedRequest, unix_offset_ns

_BATCH = 512
_TRACED_SECONDS = 60.0
"""Time for which a request with a trace stays the exemplar of its bucket when others follow."""
_EXEMPLAR_CHARS = 128  # as OpenMetrics limits the labels


class BatchedHistogram:
    """Durations by one label, as a collector; an observation is an append, and many are counted by one array operation.

    Thread-safe. Series start at 0 and exist only for registered values of the label; others are ``__other__``.

    Parameters
    ----------
    name, help_text, label
        Name without prefix and ``_duration_seconds``, help text, and the label.
    buckets
        Upper bounds in seconds, ascending, without infinity.
    values
        Values of the label.

    Examples
    --------
    >>> histogram = BatchedHistogram("stage", "Duration.", "stage", (0.1, 1.0), ["model"])
    >>> histogram.observe("model", 0.1)
    >>> [sample.value for sample in next(histogram.collect()).samples if sample.labels["stage"] == "model"]
    [1, 1, 1, 1, 0.1]
    """

    def __init__(
        self, name: str, help_text: str, label: str, buckets: tuple[float, ...], values: Iterable[str] = ()
    ) -> None:
        self._name, self._help, self._label = f"{PREFIX}{name}_duration_seconds", help_text, label
        self._bounds = np.array(buckets)
        self._les = [*map(str, buckets), "+Inf"]
        self._lock = threading.Lock()
        self._series: dict[str, _Series] = {}
        self.add_values(values)

    def add_values(self, values: Iterable[str]) -> None:
        """Register values of the label."""
        with self._lock:
            names = sorted({*self._series, *values, OTHER})
            self._series = {name: self._series.get(name) or _Series(len(self._les)) for name in names}

    def observe(self, value: str, seconds: float, request: LoggedRequest | None = None) -> None:
        """Observe a duration; the last request of each bucket is its exemplar."""
        series = self._series.get(value) or self._series[OTHER]
        if request is not None:
            series.requests.append(request)
        series.waiting.append(seconds)
        if len(series.waiting) >= _BATCH:
            with self._lock:
                series.count(self._bounds)

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        family = HistogramMetricFamily(self._name, self._help, labels=[self._label])
        with self._lock:
            for value, series in self._series.items():
                series.count(self._bounds)
                totals = accumulate(series.counts.tolist())
                buckets: list[Any] = list(zip(self._les, totals, strict=True))
                for bucket, (_, exemplars) in series.exemplars.items():
                    buckets[bucket] += exemplars
                family.add_metric([value], buckets, series.sum)
        yield family


class _Series:
    """Counts by bucket, their sum, and the observations that are not counted yet."""

    def __init__(self, buckets: int) -> None:
        self.counts, self.sum = np.zeros(buckets, np.int64), 0.0
        self.waiting: list[float] = []
        self.requests: list[LoggedRequest] = []  # of the waiting observations
        self.exemplars: dict[int, tuple[LoggedRequest, tuple[Exemplar, ...]]] = {}  # by bucket

    def count(self, bounds: np.ndarray) -> None:
        """Count the waiting observations; others may be appended meanwhile."""
        if n := len(self.waiting):
            seconds = np.array(self.waiting[:n])
            del self.waiting[:n]
            self.counts += np.bincount(np.searchsorted(bounds, seconds), minlength=len(self.counts))
            self.sum += float(seconds.sum())
        if n := len(self.requests):
            requests = self.requests[:n]
            del self.requests[:n]
            buckets = np.searchsorted(bounds, [request.ms / 1000 for request in requests]).tolist()
            found = list(zip(buckets, requests, strict=True))
            for bucket, request in (dict(found) | {bucket: each for bucket, each in found if each.trace_id}).items():
                kept, _ = self.exemplars.get(bucket, (request, ()))
                if request.trace_id or not kept.trace_id or request.ended - kept.ended > _TRACED_SECONDS:
                    self.exemplars[bucket] = request, _exemplars(request)


def _exemplars(request: LoggedRequest) -> tuple[Exemplar, ...]:
    """Return the exemplar of a request; none if its id is too long."""
    labels = {"trace_id": request.trace_id, "request_id": request.request_id}
    labels = {name: text for name, text in labels.items() if text}
    if sum(map(len, (*labels, *labels.values()))) > _EXEMPLAR_CHARS:
        del labels["request_id"]  # a client may choose 128 characters
    ended = unix_offset_ns() / 1e9 + request.ended
    return (Exemplar(labels, request.ms / 1000, ended),) if labels else ()
