"""The counters and histograms of one API process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from service.decisions import ACTIVE, RunState
from service.events import FunctionSetVersion, LabelOutcome, Prediction
from service.metrics.exposition import OTHER, PREFIX, render
from service.metrics.prediction_collector import PredictionCollector
from sfs.apply import FunctionStats

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)

STAGES = ("decode", "features", "functions", "model", "record", "log", "encode")
"""Timed stages of a request."""

SHED_REASONS = ("queue", "log", "deadline")
"""Reasons for refusing requests under load."""

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_STAGE_SECONDS = (0.00001, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)


class ProcessMetrics:
    """What happened in this process since it started; each has a registry of its own.

    Series exist at 0 from the start, and only for names registered here: anything else is counted as
    ``__other__``. All methods are safe to call from several threads.

    Parameters
    ----------
    model
        What the model is called.
    log_queue_rows
        How many rows wait to be written to the log; asked at each scrape.
    jobs
        The names of scheduled jobs.

    Examples
    --------
    >>> metrics = ProcessMetrics("spam", log_queue_rows=lambda: 0)
    >>> metrics.shed("queue")
    >>> [line for line in metrics.text().decode().splitlines() if "queue\"}" in line]
    ['slicewatch_shed_total{reason="queue"} 1.0']
    """

    def __init__(
        self,
        model: str,
        *,
        log_queue_rows: Callable[[], int],
        jobs: Iterable[str] = (),
    ) -> None:
        self._registry = CollectorRegistry()
        self._tallies = PredictionCollector(model)
        self._registry.register(self._tallies)
        ProcessCollector(registry=self._registry)
        self._requests = self._histogram("request", "Time from request to answer.", "route", _REQUEST_SECONDS)
        self._route = _children(self._requests, ())
        self._stages = self._histogram("stage", "Time of each step of a request.", "stage", _STAGE_SECONDS)
        self._stage = _children(self._stages, STAGES)
        shed = self._counter("shed_total", "Requests refused because there were too many.", "reason")
        self._shed = _children(shed, SHED_REASONS)
        labels = self._counter("labels_total", "Labels received, by what became of them.", "model", "outcome")
        self._labels = {outcome: labels.labels(model, outcome) for outcome in get_args(LabelOutcome)}
        self._lost = self._counter("log_lost_total", "Predictions that could not be written to the log.")
        self._reloads = self._counter(
            "model_reload_failures_total", "Model versions that could not be loaded."
        )
        self._runs = self._counter("job_runs_total", "Runs of scheduled jobs.", "job", "outcome")
        for job in jobs:
            for outcome in ("ok", "failed"):
                self._runs.labels(job, outcome)
        self._last = Gauge(
            PREFIX + "job_last_success_timestamp_seconds",
            "When a scheduled job last did what it is for.",
            ["job"],
            registry=self._registry,
        )
        retrains = self._counter("retrains_total", "Retraining runs that ended, by how they did.", "outcome")
        self._retrains = {end: retrains.labels(end) for end in get_args(RunState) if end not in ACTIVE}
        queue = Gauge(PREFIX + "log_queue_rows", "Rows waiting to be logged.", registry=self._registry)
        queue.set_function(log_queue_rows)

    def add_routes(self, routes: Iterable[str]) -> None:
        """Register the routes that requests are counted by."""
        self._route.update(_children(self._requests, routes))

    def watch(self, functions: FunctionSetVersion) -> None:
        """Count by the slices of a function set from now on; the series of slices not in it end."""
        self._tallies.watch(functions)

    def serve(self, version: int, classes: Iterable[str]) -> None:
        """Say that a version answers from now on, with these classes; the last four versions keep series."""
        self._tallies.serve(version, tuple(classes))

    def predicted(self, predictions: Iterable[Prediction]) -> None:
        """Count rows that were answered and logged."""
        self._tallies.add(predictions)

    def applied(self, runs: Iterable[FunctionStats]) -> None:
        """Count what functions took, and where they failed."""
        self._tallies.add_runs(runs)

    def unknown_rows(self, name: str) -> dict[str, int]:
        """Return the rows of which a slice's function could not tell since the start, by reason."""
        return self._tallies.unknown_rows(name)

    def labelled(self, outcome: LabelOutcome, count: int = 1) -> None:
        """Count labels by what became of them."""
        self._labels[outcome].inc(count)

    def request_took(self, route: str, seconds: float) -> None:
        """Count a request and its time."""
        self._route.get(route, self._route[OTHER]).observe(seconds)

    def stage_took(self, stage: str, seconds: float) -> None:
        """Count one step of a request and its time."""
        self._stage.get(stage, self._stage[OTHER]).observe(seconds)

    def shed(self, reason: str) -> None:
        """Count a request that was refused because there were too many."""
        self._shed.get(reason, self._shed[OTHER]).inc()

    def lost(self, rows: int) -> None:
        """Count rows that could not be logged."""
        self._lost.inc(rows)

    def reload_failed(self) -> None:
        """Count a model version that could not be loaded."""
        self._reloads.inc()

    def job_ran(self, job: str, outcome: str, at: datetime) -> None:
        """Count a run of a scheduled job; ``at`` is when it ended, ``ok`` the outcome that is a success."""
        self._runs.labels(job, outcome).inc()
        if outcome == "ok":
            self._last.labels(job).set(at.timestamp())

    def retrained(self, outcome: RunState) -> None:
        """Count a retraining run that has come to its end."""
        self._retrains[outcome].inc()

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return render(self._registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, help_text, labels, registry=self._registry)

    def _histogram(self, what: str, help_text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
        name = f"{PREFIX}{what}_duration_seconds"
        return Histogram(name, help_text, [label], buckets=buckets, registry=self._registry)


def _children(metric: MetricT, names: Iterable[str]) -> dict[str, MetricT]:
    """Return the series of each name, and of all others."""
    return {name: metric.labels(name) for name in sorted({*names, OTHER})}
