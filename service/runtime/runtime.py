"""The composition root: constructs every part of the service from its settings, starts and stops them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING

from service.errors import MisuseError
from service.jobs.clock_steps import ClockSteps, uptime
from service.keys import KeyFile
from service.metrics.gauges import MetricsPage
from service.metrics.process import ProcessMetrics
from service.metrics.request_log import RequestLog
from service.runtime.access import Access
from service.runtime.clock import read_clock
from service.runtime.model_runtime import ModelRuntime
from service.runtime.schedule import JOBS, build_schedule
from service.settings.schema import address_problem
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.labels import LabelRules
from service.store.retention import count_pending
from service.store.writer import Writer

if TYPE_CHECKING:
    from service.metrics.traces import Traces
    from service.settings.schema import Settings, TracesSettings

STOPPING = "stopping"
"""Key among the problems of a runtime that is shutting down."""

_log = logging.getLogger(__name__)


class Runtime:
    """The running service without its web server; if construction fails, nothing is left open.

    Parameters
    ----------
    settings
        Settings of the project.
    clock
        Current time, UTC.
    seconds
        Monotonic clock, by which steps of the other are found.

    Attributes
    ----------
    settings, clock, speed
        The settings; the clock of the project, which may run faster than the wall clock, and its speed.
    store, writer, metrics, page, request_log
        The log, the metrics, and the log of requests.
    clock_steps
        Job that finds steps of the clock.
    traces
        Traces of requests; None if they are not set.
    access
        Keys and sessions of the callers.
    models
        The served models, by name.

    Raises
    ------
    StoreInUse
        If another process has the store.
    SliceError, ServiceError
        If functions cannot be loaded.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], datetime], seconds: Callable[[], float] = uptime
    ) -> None:
        import torch

        torch.set_num_threads(1)  # one thread runs the model: several would wait for one another
        fast = None if settings.clock is None else read_clock(settings.clock)
        self.settings = settings
        self.clock = clock if fast is None else fast.over(clock)
        self.speed = 1.0 if fast is None else fast.speed
        self._stopping = False
        self._executors: list[ThreadPoolExecutor] = []
        settings.store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as undo:
            self.store = undo.enter_context(
                Store(settings.store, synchronous="FULL" if settings.log.survives == "power" else "NORMAL")
            )
            self.writer = Writer(
                self.store, rules=LabelRules(settings.late_after_seconds, keep_days=settings.log.keep_days)
            )
            undo.callback(self.writer.stop)
            self.metrics = ProcessMetrics(settings.name, log_queue_rows=lambda: self.writer.backlog_rows, jobs=JOBS)
            self.access = Access(
                KeyFile(settings.keys_file), settings.name, settings.serve.trust_proxy, clock, self.metrics,
                is_closed=address_problem(settings.serve) is not None,
            )  # fmt: skip
            self.page = MetricsPage(self.metrics)
            self.request_log = RequestLog(settings.log.requests, self.metrics.count_lost_request_lines)
            self.traces = open_traces(settings.traces, self.metrics)
            if self.traces is not None:
                undo.callback(self.traces.stop)
            model = ModelRuntime(settings, self.store, self.writer, self.metrics, self.page, self.clock)
            undo.callback(model.close)
            self.models = {model.name: model}
            deployments = [model.deployment]
            self.clock_steps = ClockSteps(
                deployments, self.store, self.writer, self.metrics, self.clock, self.speed, seconds
            )
            self._schedule = build_schedule(self)
            self.probe_store()
            undo.pop_all()

    @property
    def model(self) -> ModelRuntime:
        """The model of requests that name none."""
        return next(iter(self.models.values()))

    @property
    def is_stopping(self) -> bool:
        """True once the shutdown has begun."""
        return self._stopping

    def executor(self, name: str, threads: int) -> ThreadPoolExecutor:
        """Return an executor whose threads end when the runtime stops."""
        executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._executors.append(executor)
        return executor

    def problems(self) -> dict[str, str]:
        """Return the reasons why requests should not be sent here now, by name; empty if the service is ready."""
        problems = {}
        if self._stopping:
            problems[STOPPING] = "the service is shutting down"
        for model in self.models.values():
            state = model.deployment.state
            if state.active is None and state.fault:
                problems["model"] = state.fault
            elif state.active is None and not state.classes:
                problems["model"] = "no version is active: train one with `slicewatch train`, or promote one"
            if not model.predictions.has_room(1):
                problems["queue"] = "the prediction queue is full"
        if not self.writer.has_room(1):
            problems["log"] = "the queue of the log is full"
        if problem := self.store.problem or self.writer.refusal:
            problems["store"] = problem
        return problems

    def probe_store(self) -> None:
        """Probe the store; show whether it takes writes, the use of its disk, and the labels that wait."""
        usable = self.store.probe() is None and self.writer.refusal is None
        self.metrics.show_store(usable, self.store.disk_use())
        with suppress(StoreError), self.store.read() as connection:
            self.metrics.show_pending_labels(count_pending(connection))
        if self.writer.refusal is not None:  # jobs may write nothing for long, and no requests come
            with suppress(StoreError):
                self.writer.save_checkpoint("probe", self.clock(), b"").result()

    def start(self) -> None:
        """Publish the last snapshot and the unresolved alarms, and start the jobs."""
        for model in self.models.values():
            model.snapshots.restore()
            model.detection.restore()
        self._schedule.start()

    def begin_stop(self) -> None:
        """Be ready no longer, and end long work for requests in progress; others are still answered."""
        self._stopping = True
        for model in self.models.values():
            model.begin_stop()

    async def stop(self, within_seconds: float) -> int:
        """Shut down gracefully, and return the number of rows left unwritten.

        Safe to call after a partial start.
        """
        self.begin_stop()
        end = monotonic() + within_seconds
        models = list(self.models.values())
        await asyncio.to_thread(self._schedule.stop)
        for model in models:
            try:
                await asyncio.to_thread(model.retraining.stop, self.clock())
            except StoreError as error:  # the rest is stopped all the same
                _log.error("the retraining run was not marked as interrupted: %s", error)
        try:
            async with asyncio.timeout(within_seconds):
                await asyncio.gather(*(model.predictions.stop() for model in models))
        except TimeoutError:
            _log.error("some requests were not answered within %g s", within_seconds)
        unwritten = await asyncio.to_thread(self.writer.stop, max(1.0, end - monotonic()))
        if unwritten:
            _log.error("rows were not written before the shutdown", extra={"rows": unwritten})
        for model in models:
            await asyncio.to_thread(model.close)
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.store.close)
        await asyncio.to_thread(self.request_log.stop)
        return unwritten

    async def stop_traces(self) -> None:
        """Send the spans that wait; a collector that does not answer takes seconds, for which no successor waits."""
        if self.traces is not None:
            await asyncio.to_thread(self.traces.stop)


def open_traces(settings: TracesSettings, metrics: ProcessMetrics) -> Traces | None:
    """Return the traces of requests; None if they are not set.

    Raises
    ------
    MisuseError
        If OpenTelemetry is not installed, or one of its variables is not valid.
    """
    if settings.endpoint is None:
        return None
    try:
        from service.metrics.traces import Traces
    except ModuleNotFoundError as error:
        raise MisuseError(
            f"traces.endpoint is set, but {error.name} is not installed: run `pip install 'slicewatch[otel]'`, or "
            "remove the setting"
        ) from None
    try:
        return Traces.over_http(settings.endpoint, settings.sample, metrics.count_lost_spans)
    except ValueError as error:
        raise MisuseError(f"traces: a variable OTEL_* of OpenTelemetry is not valid: {error}") from None
