"""Schedule of the jobs, each in a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Literal, TypeAlias

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from service.errors import traceback_without_values
from service.jobs.standing_fault import StandingFault

Outcome: TypeAlias = Literal["ok", "failed"]

_LEAST_STEP = timedelta(seconds=1)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A function to run at once, and then at an interval by monotonic time."""

    name: str
    run: Callable[[], object]
    every_seconds: float


class MonotonicJobStore(MemoryJobStore):  # type: ignore[misc]  # APScheduler has no types
    """Job store that moves due times along when the wall clock is stepped.

    APScheduler keeps wall-clock times: if the clock were set back by an hour, no job would run for an hour.
    """

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._last: tuple[datetime, float] | None = None

    def get_due_jobs(self, now: datetime) -> list[Any]:
        """Return the jobs that are due; the scheduler calls this whenever it wakes up."""
        times = now, self._seconds()
        last_now, last_seconds = self._last or times
        self._last = times
        step = now - last_now - timedelta(seconds=times[1] - last_seconds)
        if abs(step) >= _LEAST_STEP:  # the clocks are read one after the other
            for job in self.get_all_jobs():
                job.next_run_time += step
                self.update_job(job)
        due: list[Any] = super().get_due_jobs(now)
        return due


class Schedule:
    """Jobs that run until they are stopped; after a failure the job runs again when it is due.

    A failure is logged, and one that stands once an hour.

    A job never overlaps itself: if it takes longer than its interval, the missed runs become one. ``done`` is
    called with name, outcome and duration in seconds after every run, in the job's thread; ``seconds`` is a
    monotonic clock.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        done: Callable[[str, Outcome, float], object],
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        self._jobs, self._done, self._seconds = jobs, done, seconds
        self._faults = {job.name: StandingFault(seconds) for job in jobs}
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # below, it logs the start and end of every run
        self._scheduler = BackgroundScheduler(
            jobstores={"default": MonotonicJobStore(seconds)},
            executors={"default": ThreadPoolExecutor(max(len(jobs), 1))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )

    def start(self) -> None:
        """Start; every job runs for the first time now."""
        for job in self._jobs:
            interval = IntervalTrigger(seconds=job.every_seconds, timezone=UTC)
            trigger = OrTrigger([DateTrigger(timezone=UTC), interval])
            self._scheduler.add_job(self._run, trigger, args=(job,), id=job.name)
        self._scheduler.start()

    def stop(self) -> None:
        """Start no further run, and wait for those in progress. Safe to call repeatedly, or before ``start``."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def _run(self, job: Job) -> None:
        start = self._seconds()
        try:
            job.run()
        except Exception as error:
            if self._faults[job.name].is_news(traceback_without_values(error)):
                _log.exception("job %s failed; it runs again in %g s", job.name, job.every_seconds)
            self._done(job.name, "failed", self._seconds() - start)
        else:
            self._faults[job.name].clear()
            self._done(job.name, "ok", self._seconds() - start)
