"""Runs the jobs, each again and again in a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Literal, TypeAlias

from apscheduler.executors.pool import ThreadPoolExecutor  # type: ignore[import-untyped]
from apscheduler.jobstores.memory import MemoryJobStore  # type: ignore[import-untyped]
from apscheduler.schedulers.background import BackgroundScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.combining import OrTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.date import DateTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.interval import IntervalTrigger  # type: ignore[import-untyped]

Outcome: TypeAlias = Literal["ok", "failed"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done at once, and then every so many seconds, whatever is done to the clock meanwhile."""

    name: str
    run: Callable[[], object]
    every_seconds: float


class MonotonicJobStore(MemoryJobStore):  # type: ignore[misc]  # APScheduler has no types
    """Jobs that are due after so many seconds; where the clock was stepped, their times are moved along.

    APScheduler keeps times of the clock: were it set back by an hour, no job would run for an hour.

    Parameters
    ----------
    seconds
        A clock that nobody sets.
    """

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._seen: tuple[datetime, float] | None = None

    def get_due_jobs(self, now: datetime) -> list[Any]:
        """Return the jobs that are due at a time of the clock; the scheduler asks this whenever it wakes."""
        seen = now, self._seconds()
        then, before = self._seen or seen
        self._seen = seen
        if step := now - then - timedelta(seconds=seen[1] - before):
            for job in self.get_all_jobs():
                job.next_run_time += step
                self.update_job(job)
        due: list[Any] = super().get_due_jobs(now)
        return due


class Schedule:
    """Jobs that run until they are stopped; one that fails is logged, and runs again when it is due.

    A job never runs beside itself: where it takes longer than its interval, the runs that it missed become one.

    Parameters
    ----------
    jobs
        Under different names.
    done
        Told the name and the outcome of every run, in the job's thread.
    seconds
        A clock that nobody sets, by which the jobs wait.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        done: Callable[[str, Outcome], object],
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        # It would say of every run that it began and that it ended.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(
            jobstores={"default": MonotonicJobStore(seconds)},
            executors={"default": ThreadPoolExecutor(max(len(jobs), 1))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        self._jobs, self._done = jobs, done

    def start(self) -> None:
        """Begin; every job runs for the first time now."""
        for job in self._jobs:
            every = IntervalTrigger(seconds=job.every_seconds, timezone=UTC)
            trigger = OrTrigger([DateTrigger(timezone=UTC), every])
            self._scheduler.add_job(partial(_run, job, self._done), trigger, id=job.name)
        self._scheduler.start()

    def stop(self) -> None:
        """Start nothing more, and wait for what runs. Safe to call more than once, or before ``start``."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)


def _run(job: Job, done: Callable[[str, Outcome], object]) -> None:
    try:
        job.run()
    except Exception:
        _log.exception("job %s failed; it runs again in %g s", job.name, job.every_seconds)
        done(job.name, "failed")
    else:
        done(job.name, "ok")
