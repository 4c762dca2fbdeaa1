"""Steps of the clock: found in a running process and after a restart, counted, and corrected in the store."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from factories import START, ManualClock, make_metrics

from service.decisions import DriftDetected, DriftStatus, ToleranceBand
from service.jobs.clock_steps import STEADY_SECONDS, ClockSteps
from service.serving.deployment import Deployment
from service.store.alarms import alarms, open_alarm
from service.store.audit import entries
from service.store.engine import Store
from service.store.runs import active_run, open_run
from service.store.writer import Writer
from sfs.intervals import Rate

HOUR = timedelta(hours=1)


class Machine:
    """A clock that can be set, beside a monotonic one, and the job that compares them."""

    def __init__(self, deployment: Deployment, log: tuple[Store, Writer], speed: float) -> None:
        self.log, self.deployment, self.speed = log, deployment, speed
        self.clock, self.seconds = ManualClock(START), 0.0
        self.start()

    def start(self) -> None:
        self.metrics = make_metrics()
        how = [self.deployment], *self.log, self.metrics, self.clock, self.speed, lambda: self.seconds
        self.steps = ClockSteps(*how)

    def run(self, step_seconds: float = 0.0, passed_seconds: float = 10.0) -> None:
        self.seconds += passed_seconds
        self.clock.advance(seconds=passed_seconds * self.speed + step_seconds)
        self.steps.run()

    def counted(self) -> list[float]:
        lines = self.metrics.text().decode().splitlines()
        return [float(line.split()[-1]) for line in lines if line.startswith("slicewatch_clock_steps_total{")]


Make = Callable[..., Machine]


@pytest.fixture
def machine(deployment: Deployment, log: tuple[Store, Writer]) -> Make:
    return lambda speed=1.0: Machine(deployment, log, speed)


@pytest.mark.parametrize(
    ("seconds", "counted", "text"), [(7200, [1, 0], "ahead by 2:00"), (-60, [0, 1], "back by 0:01")]
)
def test_a_step_is_logged_counted_and_recorded_once(
    machine: Make, caplog: pytest.LogCaptureFixture, seconds: float, counted: list[float], text: str
) -> None:
    """One warning with direction and size, one count, and the step in the deployment."""
    here = machine()
    here.run()
    here.run(seconds)
    for _ in range(3):
        here.run()
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert f"the clock was set {text}" in warning
    assert here.counted() == counted
    assert here.deployment.clock_step.seconds == seconds


@pytest.mark.parametrize("speed", [1.0, 120.0, 5e-9])
def test_a_clock_that_runs_makes_no_step(machine: Make, speed: float) -> None:
    """Neither long pauses nor small corrections are steps, whatever the speed of the clock."""
    here = machine(speed)
    for seconds in (0.0, 9.0, -9.0):
        here.run(seconds, passed_seconds=3600)
    assert (here.counted(), here.deployment.clock_step) == ([0, 0], None)


@pytest.mark.parametrize(("seconds", "found"), [(-7200, True), (7200, False)])
def test_a_clock_that_was_set_back_while_stopped_is_found(machine: Make, seconds: float, found: bool) -> None:
    """The last time in the store shows it; a step ahead looks like a long stop."""
    here = machine()
    here.log[1].save_checkpoint("snapshot", here.clock.now, b"").result()
    here.start()
    here.run(seconds)
    assert (here.deployment.clock_step is not None) is found


def test_a_state_saved_while_the_clock_was_ahead_is_no_step(machine: Make) -> None:
    """The last snapshot has the time of the clock that was set right."""
    here = machine()
    for name, ahead in (("drift", HOUR), ("snapshot", timedelta(0))):
        here.log[1].save_checkpoint(name, here.clock.now + ahead, b"").result()
    here.start()
    here.run()
    assert (here.counted(), here.deployment.clock_step) == ([0, 0], None)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock runs on while this system is suspended")
def test_a_suspended_machine_makes_no_step(
    deployment: Deployment, log: tuple[Store, Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on for an hour, and so does the time since the start of the machine."""
    booted, clock = [5.0], ManualClock(START)
    monkeypatch.setattr(time, "clock_gettime", lambda which: booted[0] if which == time.CLOCK_BOOTTIME else 5.0)
    steps = ClockSteps([deployment], *log, make_metrics(), clock)
    steps.run()
    clock.advance(seconds=3600)
    booted[0] += 3600
    steps.run()
    assert deployment.clock_step is None


def test_a_clock_is_steady_some_time_after_the_start_and_each_step(machine: Make) -> None:
    """A clock may be wrong at the start, before it is synchronised."""
    here = machine()
    assert not here.steps.is_steady
    here.run(passed_seconds=STEADY_SECONDS)
    assert here.steps.is_steady
    here.run(HOUR.total_seconds())
    assert not here.steps.is_steady


def test_times_that_lie_ahead_are_set_to_the_step(machine: Make) -> None:
    """Those of unresolved alarms and of runs, with an audit entry; earlier ones stay."""
    here = machine()
    band = ToleranceBand(Rate(200, 1_000), 0.15, 0.25, 0.1)
    ahead = START + 2 * HOUR
    drift = DriftStatus("a", "1", "coverage", band, 9.0, 8.0, ahead, "up", Rate(30, 100), 0.2, 0.4)
    past = replace(drift, slice="b", since=START - HOUR)

    def write(connection: object) -> None:
        open_alarm(connection, "m", 1, DriftDetected(ahead + HOUR, drift))
        open_alarm(connection, "m", 1, DriftDetected(START - HOUR, past))
        open_run(connection, model="m", state="waiting_for_labels", trigger="coverage", reason="a rose", at=ahead)

    here.log[1].submit(write).result()
    here.run()
    here.run(-HOUR.total_seconds())
    now = here.clock.now
    with here.log[0].read() as connection:
        older, newer = alarms(connection, "m", unresolved=True)
        run, (_, entry) = active_run(connection, "m"), entries(connection)[0]
    assert (older.at, older.drift) == (START - HOUR, past)
    assert (newer.at, newer.drift.since) == (now, now)
    assert (run.opened_at, run.updated_at) == (now, now)
    assert (entry.action, entry.detail) == ("clock.set_back", {"alarms": [newer.id], "runs": [run.id]})
