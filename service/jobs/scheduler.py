"""Runs the jobs, each again and again in a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import Literal, TypeAlias

from apscheduler.executors.pool import ThreadPoolExecutor  # type: ignore[import-untyped]
from apscheduler.schedulers.background import BackgroundScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.combining import OrTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.date import DateTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.interval import IntervalTrigger  # type: ignore[import-untyped]

Outcome: TypeAlias = Literal["ok", "failed"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done at once, and then every so many seconds of the wall clock."""

    name: str
    run: Callable[[], object]
    every_seconds: float


class Schedule:
    """Jobs that run until they are stopped; one that fails is logged, and runs again when it is due.

    A job never runs beside itself: where it takes longer than its interval, the runs that it missed become one.

    Parameters
    ----------
    jobs
        Under different names.
    done
        Told the name and the outcome of every run, in the job's thread.
    """

    def __init__(self, jobs: Sequence[Job], done: Callable[[str, Outcome], object]) -> None:
        # It would say of every run that it began and that it ended.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(max(len(jobs), 1))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        for job in jobs:
            every = IntervalTrigger(seconds=job.every_seconds, timezone=UTC)
            trigger = OrTrigger([DateTrigger(timezone=UTC), every])
            self._scheduler.add_job(partial(_run, job, done), trigger, id=job.name)

    def start(self) -> None:
        """Begin; every job runs for the first time now."""
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
