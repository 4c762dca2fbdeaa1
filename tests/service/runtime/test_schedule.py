"""Jobs of a runtime: when they wait."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from factories import PATIENT, ManualClock, make_prediction

from service.jobs.clock_steps import STEADY_SECONDS
from service.runtime.runtime import Runtime
from service.runtime.schedule import build_jobs
from service.settings.loading import load

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_a_clock_that_is_ahead_for_a_while_deletes_nothing(trained: Path) -> None:
    """Rows beyond their age are deleted once the clock has been steady."""
    seconds, clock = [0.0], ManualClock(START)
    settings = load(trained, PATIENT | {"SLICEWATCH_LOG_KEEP_DAYS": "60"})
    runtime = Runtime(settings, clock, lambda: seconds[0])
    jobs = {job.name: job for job in build_jobs(runtime)}
    name, used = runtime.model.name, runtime.model.deployment.state.functions_version.hash
    times = [*[START - timedelta(hours=2)] * 5, START]
    logged = [make_prediction(f"id{n}", at, model=name, set_hash=used) for n, at in enumerate(times)]

    def rows_after(days: float, passed: float) -> int:
        clock.now, seconds[0] = START + timedelta(days=days), seconds[0] + passed
        for name in ("tick", "retention"):
            jobs[name].run()
        with runtime.store.read() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM predictions").scalar_one())

    try:
        runtime.writer.append(logged).result()
        assert [rows_after(0, 10), rows_after(365, 10), rows_after(0, 10)] == [6, 6, 6]
        assert rows_after(61, STEADY_SECONDS) == 6
        assert rows_after(61 + STEADY_SECONDS / 86_400, STEADY_SECONDS) == 1
    finally:
        asyncio.run(runtime.stop(10))
