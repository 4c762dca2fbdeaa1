"""The jobs of the service and their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.jobs.rollup import RollUp
from service.jobs.scheduler import Job, Outcome, Schedule

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

JOBS = ("tick", "retrain", "report", "reload", "roll_up", "retention", "store", "reference")
"""Names of the jobs, as in metrics."""

RELOAD_SECONDS = 2.0
"""Interval of the champion look-up, which lists one folder."""

ROLL_UP_SECONDS = 600.0

RETENTION_SECONDS = 10.0

REFERENCE_SECONDS = 5.0
"""Interval of the check whether a slice lacks its counts on the reference table, which reads the table's time."""

REPORT_SECONDS = 60.0
"""Interval of the check whether a report is due."""

LEAST_SECONDS = 0.25
"""Shortest interval of a job, however fast the clock runs."""


def build_jobs(runtime: Runtime) -> list[Job]:
    """Return the jobs of a runtime; intervals are divided by the speed of its clock."""
    clock, settings, roll_up = runtime.clock, runtime.settings, RollUp(runtime.writer)
    models = list(runtime.models.values())

    def tick() -> None:
        runtime.clock_steps.run()
        for model in models:
            now = clock()
            model.snapshots.run(now)
            model.detection.run(now)  # reads the blocks that were just recounted
            model.incidents.run()

    def retrain() -> None:
        for model in models:
            model.retraining.run(clock())

    def report() -> None:
        for model in models:
            model.reports.run(clock())

    def reference() -> None:
        for model in models:
            model.references.run()

    def merge_blocks() -> None:
        if runtime.clock_steps.is_steady:  # merged blocks are not divided again
            roll_up.run(clock())

    def reload() -> None:
        for model in models:
            model.reload.run()

    def retention() -> None:
        if runtime.clock_steps.is_steady:  # a clock that is ahead for a while must not delete
            for model in models:
                model.retention.run(clock())

    table = {
        "tick": (tick, settings.monitor.tick_seconds),
        "retrain": (retrain, settings.retrain.check_seconds),
        "report": (report, REPORT_SECONDS),
        "reload": (reload, RELOAD_SECONDS),
        "roll_up": (merge_blocks, ROLL_UP_SECONDS),
        "retention": (retention, RETENTION_SECONDS),
        "reference": (reference, REFERENCE_SECONDS),
    }
    jobs = [Job(name, run, max(seconds / runtime.speed, LEAST_SECONDS)) for name, (run, seconds) in table.items()]
    return [*jobs, Job("store", runtime.probe_store, settings.monitor.tick_seconds)]  # disks know the wall clock only


def build_schedule(runtime: Runtime) -> Schedule:
    """Return the schedule of a runtime's jobs."""
    jobs = build_jobs(runtime)
    for job in jobs:
        runtime.metrics.show_job_interval(job.name, job.every_seconds)

    def record(job: str, outcome: Outcome, seconds: float) -> None:
        runtime.metrics.count_job_run(job, outcome, runtime.clock(), seconds)

    return Schedule(jobs, record)
