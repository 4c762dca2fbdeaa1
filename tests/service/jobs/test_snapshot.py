"""Snapshots: recounted, committed, published, and restored."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from factories import (
    FUNCTION_SETS,
    START,
    dirty_count,
    make_deployment,
    make_label,
    make_local_state,
    make_prediction,
    make_state,
    open_log,
    recount,
)
from sqlalchemy import Connection

from service.events import Estimate, Snapshot, WindowName
from service.jobs.block_cache import BlockCache
from service.jobs.rollup import RollUp
from service.jobs.snapshot import CHECKPOINT, SnapshotJob, from_state
from service.metrics.gauges import MetricsPage
from service.monitor.snapshot import to_text
from service.monitor.windows import Span, floor_to
from service.serving.deployment import Deployment
from service.settings.schema import Settings
from service.store import queries
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.writer import Writer

Log = tuple[Store, Writer]


@pytest.fixture
def job(deployment: Deployment, log: Log, page: MetricsPage) -> SnapshotJob:
    return SnapshotJob(deployment, *log, page, timer=lambda: 0.0)


def rows_in(snapshot: Snapshot | None, window: WindowName = "7d") -> int:
    """Return the number of rows that a window counts."""
    assert snapshot is not None
    coverage = snapshot.windows[window].slices[-1].coverage  # of all rows
    return coverage.rate.n if isinstance(coverage, Estimate) else coverage.n


def test_a_snapshot_is_committed_and_published(job: SnapshotJob, log: Log, deployment: Deployment, page: Any) -> None:
    """The same snapshot is returned, stored, set on the deployment, and shown on the metrics page."""
    log[1].append([make_prediction("p1", START)])
    log[1].label("m", [make_label("p1", START)]).result()
    snapshot = job.run(START)
    with log[0].read() as connection:
        stored = queries.checkpoint(connection, CHECKPOINT)
    assert snapshot is not None
    assert stored is not None
    assert [snapshot] * 3 == [deployment.snapshot, *page.snapshots, from_state(stored.state)]
    assert (rows_in(snapshot, "5m"), snapshot.last_label_at, stored.at) == (1, START, START)


def test_without_a_version_there_is_no_snapshot(job: SnapshotJob, log: Log, deployment: Deployment, page: Any) -> None:
    """Rows of another model are counted, but nothing is published until the model has a version."""
    deployment.state = make_state(version=None)
    log[1].append([make_prediction("p0", START, model="other")]).result()
    assert job.run(START) is None
    assert (deployment.snapshot, page.snapshots) == (None, [])
    with log[0].read() as connection:
        assert dirty_count(connection) == 0
    log[1].append([make_prediction("p1", START)]).result()
    assert rows_in(job.run(START)) == 1


def test_all_dirty_blocks_are_recounted_in_one_run(job: SnapshotJob, log: Log) -> None:
    """A run with loaded blocks recounts more dirty blocks than one transaction takes."""
    job.run(START)
    rows = [make_prediction(f"p{n}", START - timedelta(seconds=10 * n)) for n in range(600)]
    log[1].append(rows).result()
    assert rows_in(job.run(START)) == 600


def test_rows_of_a_thousand_versions_delay_no_snapshot(log: Log, deployment: Deployment, page: MetricsPage) -> None:
    """A run that is out of time after one transaction has counted the active version, and the next ones go on."""
    strange = [make_prediction(f"s{n}", START - timedelta(hours=1), version=1000 + n) for n in range(400)]
    own = [make_prediction(f"p{n}", START - timedelta(seconds=10 * n)) for n in range(200)]
    log[1].append([*strange, *own]).result()
    job = SnapshotJob(deployment, *log, page, timer=count(0, 10).__next__)
    left = []
    for _ in range(3):
        assert rows_in(job.run(START)) == 200
        with log[0].read() as connection:
            left.append(dirty_count(connection))
    assert left == [344, 88, 0]


def test_an_earlier_promotion_loads_older_blocks(job: SnapshotJob, log: Log, deployment: Deployment) -> None:
    """Blocks older than every window are loaded once a window begins before them."""
    old = START - timedelta(days=9)
    log[1].append([make_prediction("p1", old)]).result()
    job.run(START)
    deployment.state = make_local_state(promoted_at=old)
    snapshot = job.run(START)
    assert (rows_in(snapshot, "7d"), rows_in(snapshot, "since_promotion")) == (0, 1)


def test_rows_of_an_inactive_version_are_counted(job: SnapshotJob, log: Log, deployment: Deployment) -> None:
    """Going back to a version shows the rows that it received meanwhile."""
    log[1].append([make_prediction("p1", START)]).result()
    job.run(START)
    deployment.state = make_local_state(version=2)
    of_two = [make_prediction(f"q{n}", START, version=2) for n in range(3)]
    log[1].append([make_prediction("p2", START), *of_two]).result()
    assert rows_in(job.run(START)) == 3
    deployment.state = make_local_state(version=1)
    assert rows_in(job.run(START)) == 2


class LossyWriter(Writer):
    """A writer that loses results after their commit while ``loses`` is set."""

    loses = False

    def submit(self, work: Callable[[Connection], Any]) -> Future[Any]:
        result = super().submit(work)
        if self.loses:
            result.result()
            raise StoreError("the result was lost")
        return result


def test_a_run_after_an_error_reads_everything(log: Log, deployment: Deployment, page: MetricsPage) -> None:
    """Blocks that were recounted without the job learning of it are in the next snapshot."""
    log[1].stop()  # a store has one writer
    writer = LossyWriter(log[0])
    job = SnapshotJob(deployment, log[0], writer, page, timer=lambda: 0.0)
    first = job.run(START)
    writer.append([make_prediction("p1", START)]).result()
    writer.loses = True
    with pytest.raises(StoreError, match="was lost"):
        job.run(START)
    assert deployment.snapshot == first
    writer.loses = False
    assert rows_in(job.run(START)) == 1
    writer.stop()


def test_a_late_row_updates_cached_sums(job: SnapshotJob, log: Log) -> None:
    """Sums of hours and days from earlier runs are computed again."""
    old = START - timedelta(days=3)
    for n in range(3):
        log[1].append([make_prediction(f"p{n}", old + timedelta(seconds=20 * n))]).result()
        assert rows_in(job.run(START)) == n + 1


def test_the_last_snapshot_is_restored_after_a_restart(settings: Settings, page: Any, tmp_path: Path) -> None:
    """A new process shows the last committed snapshot without counting."""
    with open_log(tmp_path / "other.db") as log:
        log[1].append([make_prediction("p1", START)])
        before = make_deployment(*log, settings, state=make_local_state())
        snapshot = SnapshotJob(before, *log, page, timer=lambda: 0.0).run(START)
    with open_log(tmp_path / "other.db") as log:
        after = make_deployment(*log, settings, state=make_local_state())
        SnapshotJob(after, *log, page).restore()
    assert page.snapshots == [snapshot, snapshot]
    assert after.snapshot == snapshot


@pytest.mark.parametrize("state", [b"", b"{}", b"\xff", b"x\x9c", zlib.compress(b"{}"), b'{"format": 99}'])
def test_a_damaged_snapshot_is_ignored(
    job: SnapshotJob, log: Log, deployment: Deployment, state: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """An unreadable snapshot is logged and not shown."""
    log[1].save_checkpoint(CHECKPOINT, START, state).result()
    job.restore()
    assert deployment.snapshot is None
    assert "snapshot" in caplog.text


def test_a_stored_snapshot_is_compressed(job: SnapshotJob, log: Log, settings: Settings, page: MetricsPage) -> None:
    """The plain text that earlier releases stored can be read, too."""
    snapshot = job.run(START)
    assert snapshot is not None
    text = to_text(snapshot).encode()
    with log[0].read() as connection:
        stored = queries.checkpoint(connection, CHECKPOINT)
    assert stored is not None
    assert len(stored.state) < len(text) / 4
    log[1].save_checkpoint(CHECKPOINT, START, text).result()
    other = make_deployment(*log, settings, state=make_local_state())
    SnapshotJob(other, *log, page).restore()
    assert other.snapshot == snapshot


def test_blocks_are_recounted_once_the_votes_of_a_set_are_known(
    job: SnapshotJob, log: Log, deployment: Deployment
) -> None:
    """Rows that only votes matched belong to no slice once the store knows the votes."""
    voting = FUNCTION_SETS["voting"]
    log[1].record_functions(replace(voting, votes=())).result()
    deployment.state = make_local_state("voting")
    log[1].append([make_prediction("p1", START, set_hash="voting", member=b"\x02")]).result()

    def rows_in_none(snapshot: Snapshot | None) -> int:
        assert snapshot is not None
        return snapshot.windows["7d"].slices[-2].members.labelled

    log[1].label("m", [make_label("p1", START)]).result()
    assert rows_in_none(job.run(START)) == 0
    log[1].record_functions(voting).result()
    deployment.state = make_local_state("first")
    assert rows_in_none(job.run(START)) == 1


def test_a_snapshot_of_another_version_is_not_restored(
    job: SnapshotJob, log: Log, settings: Settings, page: MetricsPage
) -> None:
    """After a promotion during downtime the figures of the earlier version are not shown."""
    job.restore()
    job.run(START)
    other = make_deployment(*log, settings, state=make_local_state(version=2))
    SnapshotJob(other, *log, page).restore()
    assert other.snapshot is None


def test_the_cache_takes_over_merged_blocks(log: Log) -> None:
    """A long block replaces the short ones, so that memory does not grow with time."""
    old = floor_to(START - timedelta(days=2), 300)
    rows = [make_prediction(f"p{n}", old + timedelta(seconds=10 * n)) for n in range(6)]
    log[1].append(rows).result()
    recount(*log)
    with log[0].read() as connection:
        cache = BlockCache(connection, "m", 1, START - timedelta(days=7))
    part, whole = (Span(old, old + timedelta(seconds=n)) for n in (20, 300))
    assert (cache.timelines["first"].total(part).n, cache.timelines["first"].total(whole).n) == (2, 6)
    assert RollUp(log[1]).run(START) == 6
    with log[0].read() as connection:
        cache.take_merged(connection)
    assert cache.timelines["first"].total(whole).n == 6
    with pytest.raises(ValueError, match="part of a block of 300 s"):
        cache.timelines["first"].total(part)


def test_blocks_are_merged_an_hour_later_than_they_may_be(log: Log) -> None:
    """A tick that is late by less than an hour still finds the boundaries of its windows."""
    edge = floor_to(START, 300) - timedelta(days=1)
    ages = {"young": timedelta(minutes=59), "old": timedelta(minutes=66)}
    for name, age in ages.items():
        rows = [make_prediction(f"{name}{n}", edge - age + timedelta(seconds=10 * n)) for n in range(2)]
        log[1].append(rows).result()
    recount(*log)
    assert RollUp(log[1]).run(START) == 2
