"""A clock that is wrong for a while: the watch goes on, on the same rows, and raises no alarm because of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from factories import (
    START,
    ManualClock,
    make_deployment,
    make_label,
    make_local_state,
    make_metrics,
    make_page,
    make_prediction,
    make_settings,
    open_log,
)

from service.decisions import Alarm
from service.jobs.clock_steps import ClockSteps
from service.jobs.drift_detection import DriftDetection
from service.jobs.rollup import RollUp
from service.jobs.snapshot import SnapshotJob
from service.settings.schema import DriftSettings, Settings
from service.store.alarms import alarms
from service.store.engine import Store
from service.store.writer import Writer
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

STEP_SECONDS, STEP_ROWS = 5, 25
"""Time between two requests, of which a block has two, and their rows."""
CALM, CALM_BETWEEN = 6, 4
"""Blocks before a fault, and after it until the change."""
LIMIT = 40
HOUR, DAY = 3600, 86_400


@dataclass
class World:
    """A service without its server: rows, labels and the tick, at a clock that can be set."""

    settings: Settings
    log: tuple[Store, Writer]

    def __post_init__(self) -> None:
        begin = START.replace(second=0, microsecond=0)
        self.clock, self.seconds, self.rows = ManualClock(begin), 0.0, 0
        self.draw = np.random.default_rng(4)
        self.state = make_local_state(
            promoted_at=begin,
            references={"a": Rate(4_000, 20_000), "b": Rate(2_000, 20_000)},
            accuracies={ALL_ROWS: Rate(4_750, 5_000), "a": Rate(950, 1_000)},
        )
        self.start()

    def start(self) -> None:
        """Start, or start again after a kill."""
        page = make_page()
        self.metrics = make_metrics()
        self.deployment = make_deployment(*self.log, self.settings, state=self.state)
        self.snapshots = SnapshotJob(self.deployment, *self.log, page, timer=lambda: 0.0)
        self.detection = DriftDetection(self.deployment, *self.log, page, DriftSettings(swing=0.0, settling_hours=0.0))
        self.steps = ClockSteps([self.deployment], *self.log, self.metrics, self.clock, seconds=lambda: self.seconds)
        self.tick()

    def tick(self) -> None:
        self.steps.run()
        self.snapshots.run(self.clock.now)
        self.detection.run(self.clock.now)

    def roll_up(self) -> None:
        RollUp(self.log[1]).run(self.clock.now)

    def block(self, coverage: float = 0.2, accuracy: float = 0.95) -> None:
        """Log and label the rows of ten seconds, with a tick at their end."""
        for _ in range(2):
            now = self.clock.now
            members = (self.draw.random(STEP_ROWS) < coverage) + 2 * (self.draw.random(STEP_ROWS) < 0.1)
            rows = [
                make_prediction(f"r{self.rows + n}", now, member=bytes([bits]))
                for n, bits in enumerate(members.tolist())
            ]
            self.rows += len(rows)
            self.log[1].append(rows)
            right = self.draw.random(STEP_ROWS) < accuracy
            self.log[1].label(
                "m", [make_label(row.id, now, "x" if ok else "y") for row, ok in zip(rows, right, strict=True)]
            )
            self.clock.advance(seconds=STEP_SECONDS)
            self.seconds += STEP_SECONDS
        self.log[1].submit(lambda _: None).result()
        self.tick()

    def blocks(self, count: int) -> None:
        for _ in range(count):
            self.block()

    def alarms(self) -> list[Alarm]:
        with self.log[0].read() as connection:
            return alarms(connection, "m")

    def delays(self) -> dict[str, int]:
        """Let the coverage of a slice and the accuracy change, and return the blocks until their alarms, by kind."""
        delays: dict[str, int] = {}
        self.draw = np.random.default_rng(5)  # the same rows after every fault
        for count in range(1, LIMIT):
            self.block(coverage=0.4, accuracy=0.7)
            for name, kind in {(each.drift.slice, each.drift.kind) for each in self.alarms()}:
                if (name, kind) in (("a", "coverage"), (ALL_ROWS, "accuracy")):
                    delays.setdefault(kind, count)
            if len(delays) == 2:
                break
        return delays


def wrong(seconds: float, restarts: str) -> Callable[[World], None]:
    """Return a fault: the clock is off for 75 seconds, with a restart while it is, when it ends, or not at all."""

    def fault(world: World) -> None:
        world.clock.advance(seconds=seconds)
        if restarts == "while wrong":
            world.start()
            world.roll_up()
        world.blocks(7)
        if restarts == "at the end":
            world.clock.advance(seconds=-seconds + 5)
            world.start()
        else:
            world.clock.advance(seconds=-seconds)

    return fault


def corrected(seconds: float, restarts: str) -> Callable[[World], None]:
    """Return a fault: the clock had been wrong from the start, and is set right for good."""

    def fault(world: World) -> None:
        world.clock.advance(seconds=seconds)
        if restarts != "no":
            world.start()

    return fault


def future_rows(seconds: float, restarts: str) -> Callable[[World], None]:
    """Return a fault: rows and labels with times to come, in between the others."""

    def fault(world: World) -> None:
        at = world.clock.now + timedelta(seconds=seconds)
        for n in range(7):
            rows = [make_prediction(f"f{n}.{i}", at, member=bytes([2 * (i < 1) | (i < 2)])) for i in range(10)]
            world.log[1].append(rows).result()
            world.log[1].label("m", [make_label(row.id, world.clock.now) for row in rows]).result()
            world.block()
        if restarts != "no":
            world.start()

    return fault


def flapping(seconds: float, restarts: str) -> Callable[[World], None]:
    """Return a fault: the clock is set back and forth several times."""

    def fault(world: World) -> None:
        for by in (seconds, -2 * seconds, 1.5 * seconds, -0.5 * seconds):
            wrong(by, restarts)(world)

    return fault


FAULTS = {
    f"{fault.__name__} {seconds:+d} s, restart: {restarts}": fault(seconds, restarts)
    for fault, times, all_restarts in (
        (wrong, (2 * HOUR, -2 * HOUR, DAY, -DAY), ("no", "while wrong", "at the end")),
        (wrong, (9 * DAY, 45, -45), ("while wrong",)),
        (corrected, (2 * HOUR, -2 * HOUR, DAY, -DAY), ("no", "at the end")),
        (future_rows, (100, 2 * HOUR, DAY), ("no",)),
        (flapping, (2 * HOUR,), ("no", "at the end")),
    )
    for seconds in times
    for restarts in all_restarts
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_log(tmp_path / "log.db") as log:
        yield World(make_settings(tmp_path), log)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Blocks to an alarm while the clock is right, by kind."""
    folder = tmp_path_factory.mktemp("usual")
    with open_log(folder / "log.db") as log:
        world = World(make_settings(folder), log)
        world.blocks(CALM + CALM_BETWEEN)
        assert world.alarms() == []
        return world.delays()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_change_after_a_fault_of_the_clock_is_found(
    world: World, usual: dict[str, int], fault: Callable[[World], None]
) -> None:
    """Within twice the usual delay, and the fault itself raises no alarm."""
    world.blocks(CALM)
    fault(world)
    world.blocks(CALM_BETWEEN)
    assert world.alarms() == []
    delays = world.delays()
    print("blocks to the alarms:", delays, "usually:", usual)
    assert all(delays[kind] <= 2 * usual[kind] for kind in ("coverage", "accuracy"))
    assert all(each.at <= world.clock.now and each.drift.since <= world.clock.now for each in world.alarms())
