"""Jobs run at once and again, whatever they raise, and are waited for at the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from service.jobs.scheduler import Job, MonotonicJobStore, Outcome, Schedule

PATIENCE_SECONDS = 30


class Outcomes:
    """What was reported; threads can wait for it."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Outcome]] = []
        self._changed = threading.Condition()

    def __call__(self, job: str, outcome: Outcome) -> None:
        with self._changed:
            self.all.append((job, outcome))
            self._changed.notify_all()

    def wait_for(self, done: Callable[[list[tuple[str, Outcome]]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: done(self.all), PATIENCE_SECONDS)


def fail() -> None:
    raise ValueError("on purpose")


def test_every_job_runs_at_once_and_failures_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A job that raises is logged by name, and hurts no other; nothing else is said."""
    caplog.set_level(logging.INFO)
    outcomes = Outcomes()
    schedule = Schedule([Job("good", lambda: 1, 3600), Job("bad", fail, 3600)], outcomes)
    schedule.start()
    outcomes.wait_for(lambda seen: len(seen) == 2)
    schedule.stop()
    assert sorted(outcomes.all) == [("bad", "failed"), ("good", "ok")]
    assert [record.getMessage() for record in caplog.records] == ["job bad failed; it runs again in 3600 s"]


def test_a_job_runs_again_after_it_failed() -> None:
    """A failure changes nothing about the next run."""
    outcomes = Outcomes()
    schedule = Schedule([Job("bad", fail, 0.01)], outcomes)
    schedule.start()
    outcomes.wait_for(lambda seen: len(seen) >= 3)
    schedule.stop()
    assert set(outcomes.all) == {("bad", "failed")}


def test_a_slow_job_never_runs_beside_itself_and_is_waited_for() -> None:
    """Its other runs wait while another job goes on; stopping waits for the one in hand."""
    outcomes, go, begun = Outcomes(), threading.Event(), []

    def slow() -> None:
        begun.append(threading.current_thread())
        assert go.wait(PATIENCE_SECONDS)

    schedule = Schedule([Job("slow", slow, 0.01), Job("quick", lambda: None, 0.01)], outcomes)
    schedule.start()
    outcomes.wait_for(lambda seen: seen.count(("quick", "ok")) >= 5)
    assert len(begun) == 1
    stopping = threading.Thread(target=schedule.stop)
    stopping.start()
    assert ("slow", "ok") not in outcomes.all
    go.set()
    stopping.join(PATIENCE_SECONDS)
    assert not stopping.is_alive()
    assert outcomes.all.count(("slow", "ok")) == len(begun)


def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    """A start that failed half-way can still be taken back."""
    outcomes = Outcomes()
    schedule = Schedule([Job("good", lambda: 1, 3600)], outcomes)
    schedule.stop()
    schedule.start()
    outcomes.wait_for(lambda seen: len(seen) == 1)
    schedule.stop()
    schedule.stop()
    assert outcomes.all == [("good", "ok")]


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(0), timedelta(days=20_000)])
def test_jobs_are_due_by_seconds_whatever_the_clock_says(step: timedelta) -> None:
    """A clock set back holds no job up; one set forward, as by a machine that woke in 1970, hurries none."""
    seconds = 500.0
    store = MonotonicJobStore(lambda: seconds)
    scheduler = BackgroundScheduler(jobstores={"default": store}, timezone=UTC)
    scheduler.start(paused=True)
    job = scheduler.add_job(print, IntervalTrigger(seconds=10, timezone=UTC))
    at = job.next_run_time - timedelta(seconds=10)
    store.get_due_jobs(at)
    found = []
    for seconds in (503.0, 509.9, 510.1):
        found.append(len(store.get_due_jobs(at + step + timedelta(seconds=seconds - 500))))
    scheduler.shutdown()
    assert found == [0, 0, 1]
    assert abs(job.next_run_time - (at + step + timedelta(seconds=10))) < timedelta(seconds=1)


def test_a_clock_that_was_set_back_stops_no_job() -> None:
    """An hour by seconds during which the clock did not move on makes a job of every hour due."""
    outcomes, jumped = Outcomes(), threading.Event()
    start = datetime.now(UTC).timestamp()

    def seconds() -> float:
        return datetime.now(UTC).timestamp() - start + 3600 * jumped.is_set()

    jobs = [Job("hourly", lambda: None, 3600), Job("quick", lambda: None, 0.01)]
    schedule = Schedule(jobs, outcomes, seconds)
    schedule.start()
    outcomes.wait_for(lambda seen: ("hourly", "ok") in seen)
    jumped.set()
    outcomes.wait_for(lambda seen: seen.count(("hourly", "ok")) == 2)
    schedule.stop()
