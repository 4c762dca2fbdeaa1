"""The jobs of the service: the tick, retraining, reports, the look for a new champion, and housekeeping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING

from models.registry import CHAMPION
from service.jobs.model_reload import RetryState, reload
from service.jobs.rollup import roll_up
from service.jobs.scheduler import Job, Schedule
from service.jobs.snapshot import SnapshotJob
from service.monitor.estimates import EstimateConfig
from service.serving.predictor import load
from service.store.queries import most_logged_version

if TYPE_CHECKING:
    from models.registry import ModelRegistry
    from service.app.loop import Loop
    from service.app.switchboard import Switchboard
    from service.events import Snapshot
    from service.metrics.page import MetricsPage
    from service.metrics.process import ProcessMetrics
    from service.settings.project import Settings
    from service.settings.sections import MonitorSettings
    from service.store.engine import Store
    from service.store.writer import Writer

RELOAD_SECONDS = 2.0
"""How often the champion is looked up; it is one listing of a folder."""

ROLL_UP_SECONDS = 600.0

REPORT_SECONDS = 60.0
"""How often it is looked whether a report is due."""

JOBS = ("tick", "retrain", "report", "reload", "roll_up")

LEAST_SECONDS = 0.25
"""Between two runs of a job, however fast the clock runs."""


@dataclass(frozen=True, slots=True)
class Watching:
    """The parts that the jobs speak to."""

    store: Store
    writer: Writer
    switchboard: Switchboard
    page: MetricsPage
    metrics: ProcessMetrics
    registry: ModelRegistry
    loop: Loop


def watching(
    settings: Settings, clock: Callable[[], datetime], parts: Watching, speed: float = 1.0
) -> tuple[SnapshotJob, Schedule]:
    """Return the monitor, and the schedule that runs it and the other jobs.

    Parameters
    ----------
    settings
        The project's.
    clock
        The time, UTC.
    parts
        What the jobs speak to.
    speed
        How many seconds of the clock pass in one of the wall's.
    """
    current = parts.switchboard.current

    def judging() -> EstimateConfig:
        return judging_of(settings.monitor, current.in_force.classes)

    def show(snapshot: Snapshot) -> None:
        in_force = current.in_force
        # a version that was put in force meanwhile has other references; the next tick shows them
        expected = in_force.references if snapshot.version == in_force.version else {}
        parts.page.show(snapshot, in_force.metadata, expected)

    def every(seconds: float) -> float:
        return max(seconds / speed, LEAST_SECONDS)

    def tick() -> None:
        watch_logged(parts.store, parts.switchboard)
        now = clock()
        monitor.tick(now)
        parts.loop.drift.step(now)  # reads the blocks that the tick has counted again

    monitor = SnapshotJob(parts.store, parts.writer, current, judging, show)
    tries = RetryState()
    jobs = [
        Job("tick", tick, every(settings.monitor.tick_seconds)),
        Job("retrain", lambda: parts.loop.retrain.step(clock()), every(settings.retrain.check_seconds)),
        Job("report", lambda: parts.loop.report.step(clock()), every(REPORT_SECONDS)),
        Job("reload", lambda: look_for_champion(parts, tries, monotonic()), every(RELOAD_SECONDS)),
        Job("roll_up", lambda: roll_up(parts.writer, clock()), every(ROLL_UP_SECONDS)),
    ]
    return monitor, Schedule(jobs, lambda job, outcome: parts.metrics.job_ran(job, outcome, clock()))


def watch_logged(store: Store, switchboard: Switchboard) -> None:
    """Watch the version that most rows were logged from elsewhere with of late, where none answers here."""
    if switchboard.predictor is None:
        with store.read() as connection:
            usual = most_logged_version(connection, switchboard.current.in_force.model)
        if usual is not None:
            switchboard.put_observed(*usual)


def judging_of(settings: MonitorSettings, classes: tuple[str, ...]) -> EstimateConfig:
    """Return how figures are made: of two classes, the second is the one whose F1 is shown.

    Examples
    --------
    >>> from service.settings.sections import MonitorSettings
    >>> judging_of(MonitorSettings(), ("ham", "spam")).positive
    'spam'
    """
    positive = settings.positive
    if positive is None and len(classes) == 2:
        positive = classes[1]
    return EstimateConfig(minimum_labels=settings.minimum_labels, positive=positive)


def look_for_champion(parts: Watching, tries: RetryState, seconds: float) -> None:
    """Put the champion in force if it is not the version that answers."""
    board, registry = parts.switchboard, parts.registry

    def put(version: int) -> None:
        board.put_version(load(registry, board.live, version), registry.history(CHAMPION))

    answering = None if board.predictor is None else board.predictor.loaded.version
    reload(registry, answering, put, lambda error: parts.metrics.reload_failed(), tries, seconds)
    last = registry.change(CHAMPION)
    known = board.current.in_force.history
    if last is not None and answering == last.version and (not known or known[-1] != last):
        board.put_history(registry.history(CHAMPION))  # the same version, put in force once more
