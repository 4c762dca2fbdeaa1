"""Schedule: jobs run at once and at intervals, continue after exceptions, and finish before shutdown."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from service.jobs.scheduler import Job, MonotonicJobStore, Outcome, Schedule

PATIENCE_SECONDS = 120


class Outcomes:
    """Reported outcomes, for which threads can wait."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Outcome]] = []
        self._changed = threading.Condition()

    def __call__(self, job: str, outcome: Outcome, seconds: float) -> None:
        assert seconds >= 0
        with self._changed:
            self.all.append((job, outcome))
            self._changed.notify_all()

    def wait_for(self, done: Callable[[list[tuple[str, Outcome]]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: done(self.all), PATIENCE_SECONDS)


def fail() -> None:
    raise ValueError("on purpose")


def test_every_job_runs_at_once_and_failures_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A failed job is logged by name, and nothing else is; the other job runs."""
    caplog.set_level(logging.INFO)
    outcomes = Outcomes()
    schedule = Schedule([Job("good", lambda: 1, 3600), Job("bad", fail, 3600)], outcomes)
    schedule.start()
    outcomes.wait_for(lambda seen: len(seen) == 2)
    schedule.stop()
    assert sorted(outcomes.all) == [("bad", "failed"), ("good", "ok")]
    assert [record.getMessage() for record in caplog.records] == ["job bad failed; it runs again in 3600 s"]


def test_a_job_runs_again_after_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    """A failure does not affect the next run; one that stands is logged once."""
    outcomes = Outcomes()
    schedule = Schedule([Job("bad", fail, 0.01)], outcomes)
    schedule.start()
    outcomes.wait_for(lambda seen: len(seen) >= 3)
    schedule.stop()
    assert set(outcomes.all) == {("bad", "failed")}
    assert len(caplog.records) == 1


def test_a_slow_job_never_overlaps_itself() -> None:
    """Its other runs wait while another job continues; stopping waits for the run in progress."""
    outcomes, go, started = Outcomes(), threading.Event(), []

    def slow() -> None:
        started.append(threading.current_thread())
        assert go.wait(PATIENCE_SECONDS)

    schedule = Schedule([Job("slow", slow, 0.01), Job("quick", lambda: None, 0.01)], outcomes)
    schedule.start()
    outcomes.wait_for(lambda seen: seen.count(("quick", "ok")) >= 5)
    assert len(started) == 1
    stopping = threading.Thread(target=schedule.stop)
    stopping.start()
    assert ("slow", "ok") not in outcomes.all
    go.set()
    stopping.join(PATIENCE_SECONDS)
    assert not stopping.is_alive()
    assert outcomes.all.count(("slow", "ok")) == len(started)


def test_stopping_twice_or_before_the_start_is_harmless() -> None:
    """A start that failed halfway can be undone."""
    outcomes = Outcomes()
    schedule = Schedule([Job("good", lambda: 1, 3600)], outcomes)
    schedule.stop()
    schedule.start()
    outcomes.wait_for(lambda seen: len(seen) == 1)
    schedule.stop()
    schedule.stop()
    assert outcomes.all == [("good", "ok")]


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(0), timedelta(days=20_000)])
def test_jobs_are_due_by_monotonic_time(step: timedelta) -> None:
    """Setting the clock back delays no job, and setting it forward hurries none."""
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


def test_a_clock_that_was_set_back_delays_no_job() -> None:
    """An hourly job is due after a monotonic hour in which the clock stood still."""
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


def test_two_readings_of_a_clock_move_no_job() -> None:
    """The clocks are read one after the other: a difference below a second is no step."""
    seconds = 500.0
    store = MonotonicJobStore(lambda: seconds)
    scheduler = BackgroundScheduler(jobstores={"default": store}, timezone=UTC)
    scheduler.start(paused=True)
    job = scheduler.add_job(print, IntervalTrigger(seconds=10, timezone=UTC))
    due = job.next_run_time
    store.get_due_jobs(due - timedelta(seconds=10))
    seconds = 501.0
    store.get_due_jobs(due - timedelta(seconds=8.5))
    scheduler.shutdown()
    assert job.next_run_time == due
