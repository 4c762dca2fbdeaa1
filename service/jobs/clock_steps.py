"""Job that finds steps of the clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from service.decisions import ClockStep
from service.formatting import step_text
from service.jobs.snapshot import CHECKPOINT
from service.metrics.process import ProcessMetrics
from service.serving.deployment import Deployment
from service.store.clock_times import correct_future_times
from service.store.engine import Store
from service.store.queries import checkpoint
from service.store.writer import Writer

STEP_SECONDS = 10.0
"""Least step: smaller ones are corrections of a running clock, or a pause of this process between two readings."""

STEADY_SECONDS = 300.0
"""Time since the start or the last step after which the clock is trusted to be right."""

_READING_SECONDS = 1.0  # readings that took longer are not compared

_log = logging.getLogger(__name__)


def uptime() -> float:
    """Return a monotonic time in seconds, which goes on while the machine is suspended, where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ClockSteps:
    """Compares the clock with a monotonic one at each run, and the first time with that of the last snapshot.

    A step is logged, counted, and recorded in the deployments; if the clock was set back, times in the store that
    lie ahead of it are set to now.

    Parameters
    ----------
    deployments, store, writer, metrics
        What a step is recorded in.
    clock
        Current time, UTC.
    speed
        Its seconds per second of ``seconds``.
    seconds
        Monotonic clock, which goes on while the machine is suspended.
    """

    def __init__(
        self,
        deployments: Sequence[Deployment],
        store: Store,
        writer: Writer,
        metrics: ProcessMetrics,
        clock: Callable[[], datetime],
        speed: float = 1.0,
        seconds: Callable[[], float] = uptime,
    ) -> None:
        self._deployments, self._store, self._writer, self._metrics = deployments, store, writer, metrics
        self._clock, self._speed, self._seconds = clock, speed, seconds
        self._least = timedelta(seconds=STEP_SECONDS * max(speed, 1.0))
        self._last: tuple[datetime, float] | None = None
        self._steady_since = seconds()

    @property
    def is_steady(self) -> bool:
        """Return True if the clock has made no step for ``STEADY_SECONDS``."""
        return self._seconds() - self._steady_since >= STEADY_SECONDS / max(self._speed, 1.0)

    def run(self) -> None:
        """Compare the clocks, and record a step."""
        before, now, after = self._seconds(), self._clock(), self._seconds()
        if after - before > _READING_SECONDS:
            return
        expected = self._expected(now, before)
        if abs(now - expected) >= self._least:
            self._record(ClockStep(now, (now - expected).total_seconds()))
        self._last = now, before

    def _expected(self, now: datetime, seconds: float) -> datetime:
        if self._last is not None:
            at, then = self._last
            return at + timedelta(seconds=(seconds - then) * self._speed)
        with self._store.read() as connection:
            last = checkpoint(connection, CHECKPOINT)  # other jobs may have saved theirs while the clock was ahead
        return now if last is None else max(now, last.at)  # it may have been stopped for long

    def _record(self, step: ClockStep) -> None:
        direction: Literal["ahead", "back"] = "ahead" if step.seconds > 0 else "back"
        if direction == "back":
            self._writer.submit(partial(correct_future_times, now=step.at)).result()
        _log.warning("%s: check the time synchronisation of this machine", step_text(step.seconds, step.at))
        self._metrics.count_clock_step(direction)
        self._steady_since = self._seconds()
        for deployment in self._deployments:
            deployment.clock_step = step
