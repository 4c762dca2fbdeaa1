"""Counters and histograms of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from time import perf_counter
from typing import Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from service.decisions import ACTIVE, RunState
from service.events import DiskUse, FunctionSetVersion, LabelOutcome, Prediction
from service.metrics.exposition import OTHER, PREFIX, render, render_openmetrics
from service.metrics.histogram import BatchedHistogram
from service.metrics.prediction_collector import PredictionCollector
from service.metrics.request_log import LoggedRequest
from sfs.apply import FunctionStats

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)

STAGES = ("decode", "features", "functions", "model", "record", "log", "encode")
"""Timed stages of a request."""

SHED_REASONS = ("queue", "log", "deadline", "connections", "rate")
"""Reasons for refusing requests under load."""

UNAUTHORIZED_REASONS = ("missing", "wrong", "limited")
"""Reasons for refusing requests because of their key."""

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_JOB_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_STAGE_SECONDS = (0.00001, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)


class ProcessMetrics:
    """Metrics of this process, in a registry of their own; thread-safe.

    Series start at 0 and exist only for registered names; other names are counted as ``__other__``.

    Parameters
    ----------
    model
        Name of the model.
    log_queue_rows
        Returns the rows waiting to be logged; called at each scrape.
    jobs
        Names of scheduled jobs.

    Examples
    --------
    >>> metrics = ProcessMetrics("spam", log_queue_rows=lambda: 0)
    >>> metrics.count_shed("queue")
    >>> [line for line in metrics.text().decode().splitlines() if 'queue"}' in line]
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
        self._predictions = PredictionCollector(model)
        self._registry.register(self._predictions)
        ProcessCollector(registry=self._registry)
        self._requests = self._histogram("request", "Duration of requests.", "route", _REQUEST_SECONDS)
        self._stages = self._histogram("stage", "Duration of the stages of a request.", "stage", _STAGE_SECONDS, STAGES)
        self._shed = _with_series(
            self._counter("shed_total", "Requests refused because of overload.", "reason"), SHED_REASONS
        )
        self._unauthorized = _with_series(
            self._counter("unauthorized_total", "Requests refused because of their key.", "reason"),
            UNAUTHORIZED_REASONS,
        )
        self._keys_usable = self._gauge("keys_usable", "1 if the file of the keys can be read, else 0: see the log.")
        self._keys_usable.set(1)
        labels = self._counter("labels_total", "Labels received, by outcome.", "model", "outcome")
        self._labels = {outcome: labels.labels(model, outcome) for outcome in get_args(LabelOutcome)}
        self._lost = self._counter("log_lost_total", "Predictions that could not be logged.")
        self._request_lines_lost = self._counter(
            "request_log_lost_total", "Requests left out of the request log because its stream is too slow."
        )
        self._spans_lost = self._counter("spans_lost_total", "Spans of traces that could not be sent.")
        self._reload_failures = self._counter("model_reload_failures_total", "Model versions that could not be loaded.")
        # Prometheus uses the label `job` itself.
        self._job_runs = self._counter("job_runs_total", "Runs of scheduled jobs.", "task", "outcome")
        for job in jobs:
            for outcome in ("ok", "failed"):
                self._job_runs.labels(job, outcome)
        self._last_success = self._gauge(
            "job_last_success_timestamp_seconds", "Last successful run of a scheduled job.", "task"
        )
        self._job_seconds = self._histogram(
            "job", "Duration of the runs of scheduled jobs.", "task", _JOB_SECONDS, jobs
        )
        self._job_interval = self._gauge("job_interval_seconds", "Interval of a scheduled job.", "task")
        steps = self._counter("clock_steps_total", "Steps of the clock of this machine, by direction.", "direction")
        self._clock_steps = {direction: steps.labels(direction) for direction in ("ahead", "back")}
        retrains = self._counter("retrains_total", "Finished retraining runs, by outcome.", "outcome")
        self._retrains = {state: retrains.labels(state) for state in get_args(RunState) if state not in ACTIVE}
        self._usable = self._gauge("store_usable", "1 if the store takes writes, else 0: see the log.")
        self._store_bytes = self._gauge("store_size_bytes", "Size of the database with its journal.")
        self._reusable_bytes = self._gauge("store_reusable_bytes", "Part of the database that new rows will use again.")
        self._disk_free = self._gauge("disk_free_bytes", "Free space on the disk of the store.")
        self._disk_size = self._gauge("disk_size_bytes", "Size of the disk of the store.")
        self._deleted = self._counter("log_deleted_total", "Predictions deleted because of their age.")
        self._expired = self._counter("labels_expired_total", "Labelled ids deleted because no prediction came.")
        self._pending = self._gauge("labels_pending", "Labelled ids without a prediction.")
        self._gauge("log_queue_rows", "Rows waiting to be logged.").set_function(log_queue_rows)

    def add_routes(self, routes: Iterable[str]) -> None:
        """Register the routes that requests are counted by."""
        self._requests.add_values(routes)

    def set_functions(self, functions: FunctionSetVersion) -> None:
        """Count by the slices of this function set; series of other slices end."""
        self._predictions.set_functions(functions)

    def set_version(self, version: int, classes: Iterable[str]) -> None:
        """Report the active version and its classes; the last four versions keep their series."""
        self._predictions.set_version(version, tuple(classes))

    def count_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Count answered and logged rows."""
        self._predictions.count_predictions(predictions)

    def count_function_runs(self, runs: Iterable[FunctionStats]) -> None:
        """Count the time and the failures of functions."""
        self._predictions.count_function_runs(runs)

    def unknown_rows(self, name: str) -> dict[str, int]:
        """Return the rows of unknown membership in a slice since the start, by reason."""
        return self._predictions.unknown_rows(name)

    def count_labels(self, outcome: LabelOutcome, count: int = 1) -> None:
        """Count labels of an outcome."""
        self._labels[outcome].inc(count)

    def observe_request(self, route: str, seconds: float, request: LoggedRequest | None = None) -> None:
        """Observe the duration of a request, which may become an exemplar."""
        self._requests.observe(route, seconds, request)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Observe the duration of one stage of a request."""
        self._stages.observe(stage, seconds)

    def count_shed(self, reason: str) -> None:
        """Count a request refused because of overload."""
        self._shed.get(reason, self._shed[OTHER]).inc()

    def count_unauthorized(self, reason: str) -> None:
        """Count a request without a valid key."""
        self._unauthorized.get(reason, self._unauthorized[OTHER]).inc()

    def show_keys(self, usable: bool) -> None:
        """Show whether the file of the keys can be read."""
        self._keys_usable.set(usable)

    def count_lost_rows(self, rows: int) -> None:
        """Count rows that could not be logged."""
        self._lost.inc(rows)

    def count_lost_request_lines(self, requests: int) -> None:
        """Count requests that are missing in the request log."""
        self._request_lines_lost.inc(requests)

    def count_lost_spans(self, spans: int) -> None:
        """Count spans that could not be sent."""
        self._spans_lost.inc(spans)

    def count_reload_failure(self) -> None:
        """Count a model version that could not be loaded."""
        self._reload_failures.inc()

    def show_job_interval(self, job: str, seconds: float) -> None:
        """Show the interval of a scheduled job."""
        self._job_interval.labels(job).set(seconds)

    def show_store(self, usable: bool, use: DiskUse) -> None:
        """Show whether the store takes writes, and the use of its disk."""
        self._usable.set(usable)
        self._store_bytes.set(use.store)
        self._reusable_bytes.set(use.reusable)
        self._disk_free.set(use.free)
        self._disk_size.set(use.disk)

    def count_deleted_rows(self, rows: int) -> None:
        """Count predictions deleted because of their age."""
        self._deleted.inc(rows)

    def count_expired_labels(self, ids: int) -> None:
        """Count labelled ids deleted because no prediction came."""
        self._expired.inc(ids)

    def show_pending_labels(self, ids: int) -> None:
        """Show the number of labelled ids without a prediction."""
        self._pending.set(ids)

    def count_job_run(self, job: str, outcome: str, at: datetime, seconds: float) -> None:
        """Count a run of a scheduled job that ended at ``at`` after ``seconds``; a success has the outcome ``ok``."""
        self._job_runs.labels(job, outcome).inc()
        self._job_seconds.observe(job, seconds)
        if outcome == "ok":
            self._last_success.labels(job).set(at.timestamp())

    def count_clock_step(self, direction: Literal["ahead", "back"]) -> None:
        """Count a step of the clock."""
        self._clock_steps[direction].inc()

    def count_retrain(self, outcome: RunState) -> None:
        """Count a finished retraining run."""
        self._retrains[outcome].inc()

    def text(self) -> bytes:
        """Return all metrics in the text format."""
        return render(self._registry)

    def openmetrics(self) -> bytes:
        """Return all metrics in the format of OpenMetrics, without its end."""
        return render_openmetrics(self._registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, help_text, labels, registry=self._registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, help_text, labels, registry=self._registry)

    def _histogram(
        self, name: str, help_text: str, label: str, buckets: tuple[float, ...], values: Iterable[str] = ()
    ) -> BatchedHistogram:
        histogram = BatchedHistogram(name, help_text, label, buckets, values)
        self._registry.register(histogram)
        return histogram


def _with_series(metric: MetricT, names: Iterable[str]) -> dict[str, MetricT]:
    """Return the series of every name and of ``__other__``."""
    return {name: metric.labels(name) for name in sorted({*names, OTHER})}


class StageTimer:
    """Stopwatch of one run of a batch, which its results carry; times in seconds of ``perf_counter``.

    Parameters
    ----------
    rows
        Number of rows in the batch.

    Attributes
    ----------
    began
        Start of the first stage.
    stages
        Name, start and end of each stage.
    committed
        The same of the commit, once there was one.
    """

    __slots__ = ("_since", "began", "committed", "rows", "stages")

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.stages: list[tuple[str, float, float]] = []
        self.committed: tuple[tuple[str, float, float], ...] = ()
        self.began = self._since = perf_counter()

    def end(self, stage: str) -> None:
        """End a stage, and begin the next."""
        now = perf_counter()
        self.stages.append((stage, self._since, now))
        self._since = now

    def report(self, metrics: ProcessMetrics) -> None:
        """Add the stages to the histograms."""
        for stage, began, ended in self.stages:
            metrics.observe_stage(stage, ended - began)
