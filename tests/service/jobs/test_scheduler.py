"""Jobs run at once and again, whatever they raise, and are waited for at the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from service.jobs.scheduler import Job, Outcome, Schedule

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
