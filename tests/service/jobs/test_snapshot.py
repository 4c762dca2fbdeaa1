"""The tick: what it commits, shows and takes over from the store."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from factories import dirty_count, recount
from sqlalchemy import Connection

from service.events import Estimate, Snapshot, WindowName
from service.jobs.block_cache import BlockCache
from service.jobs.rollup import roll_up
from service.jobs.snapshot import CHECKPOINT, SnapshotJob, from_state
from service.monitor.estimates import EstimateConfig
from service.monitor.snapshot import to_text
from service.monitor.windows import Span, floor_to
from service.store import queries
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.writer import Writer
from service.views.current import Current

Log = tuple[Store, Writer]


def monitor_of(log: Log, current: Current, shown: list[Snapshot] | None = None) -> SnapshotJob:
    return SnapshotJob(*log, current, EstimateConfig, (shown if shown is not None else []).append)


def seen(snapshot: Snapshot | None, window: WindowName = "7d") -> int:
    """Return how many rows a window counts."""
    assert snapshot is not None
    coverage = snapshot.windows[window].slices[-1].coverage  # of all rows
    return coverage.rate.n if isinstance(coverage, Estimate) else coverage.n


def test_a_snapshot_is_committed_then_shown(desk: Any, log: Log, current: Current) -> None:
    """The same snapshot is returned, kept, in force, and shown."""
    shown: list[Snapshot] = []
    log[1].append([desk.prediction("p1", desk.start)])
    log[1].label("m", [desk.label("p1", desk.start)]).result()
    made = monitor_of(log, current, shown).tick(desk.start)
    with log[0].read() as connection:
        kept = queries.checkpoint(connection, CHECKPOINT)
    assert made is not None
    assert kept is not None
    assert [made, made, made] == [current.snapshot, *shown, from_state(kept.state)]
    assert (seen(made, "5m"), made.last_label_at, kept.at) == (1, desk.start, desk.start)


def test_without_a_version_there_is_no_snapshot(desk: Any, log: Log) -> None:
    """Rows are counted whoever made them, but nothing is shown until a version is in force."""
    current = Current(desk.in_force_of(version=None))
    monitor = monitor_of(log, current)
    log[1].append([desk.prediction("p1", desk.start)]).result()
    assert monitor.tick(desk.start) is None
    assert current.snapshot is None
    with log[0].read() as connection:
        assert dirty_count(connection) == 0
    current.in_force = desk.in_force_of(version=1)
    assert seen(monitor.tick(desk.start)) == 1


def test_more_blocks_than_are_counted_together(desk: Any, log: Log, current: Current) -> None:
    """A tick goes on until nothing is dirty, however much came, with a monitor that holds blocks already."""
    monitor = monitor_of(log, current)
    monitor.tick(desk.start)
    rows = [desk.prediction(f"p{n}", desk.start - timedelta(seconds=10 * n)) for n in range(600)]
    log[1].append(rows).result()
    assert seen(monitor.tick(desk.start)) == 600


def test_a_promotion_further_back_loads_what_was_left_out(desk: Any, log: Log, current: Current) -> None:
    """Blocks older than every window are not held, and are there once a window begins before them."""
    old = desk.start - timedelta(days=9)
    monitor = monitor_of(log, current)
    log[1].append([desk.prediction("p1", old)]).result()
    monitor.tick(desk.start)
    current.in_force = desk.in_force_of(promoted_at=old)
    made = monitor.tick(desk.start)
    assert (seen(made, "7d"), seen(made, "since_promotion")) == (0, 1)


def test_what_came_while_another_version_was_watched(desk: Any, log: Log, current: Current) -> None:
    """Going back to a version shows what was counted for it meanwhile."""
    monitor = monitor_of(log, current)
    log[1].append([desk.prediction("p1", desk.start)]).result()
    monitor.tick(desk.start)
    current.in_force = desk.in_force_of(version=2)
    of_two = [desk.prediction(f"q{n}", desk.start, version=2) for n in range(3)]
    log[1].append([desk.prediction("p2", desk.start), *of_two]).result()
    assert seen(monitor.tick(desk.start)) == 3
    current.in_force = desk.in_force_of(version=1)
    assert seen(monitor.tick(desk.start)) == 2


class Forgetful(Writer):
    """A writer that loses answers after their commit, while it is told to."""

    forgets = False

    def submit(self, work: Callable[[Connection], Any]) -> Future[Any]:
        answer = super().submit(work)
        if self.forgets:
            answer.result()
            raise StoreError("the answer was lost")
        return answer


def test_a_tick_that_failed_is_made_good(desk: Any, log: Log, current: Current) -> None:
    """Where blocks were counted, and the tick did not learn of it, the next one shows them all the same."""
    writer = Forgetful(log[0])
    monitor = monitor_of((log[0], writer), current)
    first = monitor.tick(desk.start)
    writer.append([desk.prediction("p1", desk.start)]).result()
    writer.forgets = True
    with pytest.raises(StoreError, match="was lost"):
        monitor.tick(desk.start)
    assert current.snapshot == first
    writer.forgets = False
    assert seen(monitor.tick(desk.start)) == 1
    writer.stop()


def test_a_row_that_comes_between_ticks_is_added_to_every_sum(desk: Any, log: Log, current: Current) -> None:
    """Sums that an earlier tick made of hours and days are made again."""
    monitor, old = monitor_of(log, current), desk.start - timedelta(days=3)
    for n in range(3):
        log[1].append([desk.prediction(f"p{n}", old + timedelta(seconds=20 * n))]).result()
        assert seen(monitor.tick(desk.start)) == n + 1


def test_the_last_snapshot_is_shown_after_a_restart(desk: Any, tmp_path: Path, current: Current) -> None:
    """A new process shows what was committed before, without counting."""
    log = desk.opened(tmp_path / "other.db")
    log[1].append([desk.prediction("p1", desk.start)])
    made = monitor_of(log, current).tick(desk.start)
    desk.closed(*log)
    log = desk.opened(tmp_path / "other.db")
    shown: list[Snapshot] = []
    again = Current(desk.in_force_of())
    monitor_of(log, again, shown).restore()
    assert shown == [made]
    assert again.snapshot == made
    desk.closed(*log)


@pytest.mark.parametrize("state", [b"", b"{}", b"\xff", b"x\x9c", zlib.compress(b"{}"), b'{"format": 99}'])
def test_a_damaged_snapshot_is_passed_over(
    desk: Any, log: Log, current: Current, state: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A snapshot that cannot be read is not shown, is named in the log, and keeps nothing from starting."""
    log[1].save_checkpoint(CHECKPOINT, desk.start, state).result()
    monitor_of(log, current).restore()
    assert current.snapshot is None
    assert "snapshot" in caplog.text


def test_a_snapshot_is_kept_small(desk: Any, log: Log, current: Current) -> None:
    """It is compressed; as the text that earlier versions kept it is read as well."""
    made = monitor_of(log, current).tick(desk.start)
    assert made is not None
    text = to_text(made).encode()
    with log[0].read() as connection:
        kept = queries.checkpoint(connection, CHECKPOINT)
    assert kept is not None
    assert len(kept.state) < len(text) / 4
    log[1].save_checkpoint(CHECKPOINT, desk.start, text).result()
    again = Current(desk.in_force_of())
    monitor_of(log, again).restore()
    assert again.snapshot == made


def test_a_set_that_learns_its_votes_is_counted_again(desk: Any, log: Log, current: Current) -> None:
    """The monitor takes over what the store now knows of a set, and the rows that only votes took in."""
    voting = desk.sets["voting"]
    log[1].record_functions(replace(voting, votes=())).result()
    current.in_force = desk.in_force_of("voting")
    log[1].append([desk.prediction("p1", desk.start, set_hash="voting", member=b"\x02")]).result()
    monitor = monitor_of(log, current)

    def none(made: Snapshot | None) -> int:
        assert made is not None
        return made.windows["7d"].slices[-2].members.labelled

    log[1].label("m", [desk.label("p1", desk.start)]).result()
    assert none(monitor.tick(desk.start)) == 0
    log[1].record_functions(voting).result()
    current.in_force = desk.in_force_of("first")
    assert none(monitor.tick(desk.start)) == 1


def test_a_snapshot_of_another_version_is_not_shown(desk: Any, log: Log, current: Current) -> None:
    """After a promotion while the service was down, the figures of the version before are not this one's."""
    monitor = monitor_of(log, current)
    monitor.restore()
    monitor.tick(desk.start)
    other = Current(desk.in_force_of(version=2))
    monitor_of(log, other).restore()
    assert other.snapshot is None


def test_blocks_that_the_store_merged_are_taken_over(desk: Any, log: Log, current: Current) -> None:
    """The long block takes the place of the short ones, so that memory does not grow with time."""
    old = floor_to(desk.start - timedelta(days=2), 300)
    rows = [desk.prediction(f"p{n}", old + timedelta(seconds=10 * n)) for n in range(6)]
    log[1].append(rows).result()
    recount(*log)
    with log[0].read() as connection:
        held = BlockCache(connection, "m", 1, desk.start - timedelta(days=7))
    part, whole = (Span(old, old + timedelta(seconds=n)) for n in (20, 300))
    assert (held.timelines["first"].total(part).n, held.timelines["first"].total(whole).n) == (2, 6)
    assert roll_up(log[1], desk.start) == 6
    with log[0].read() as connection:
        held.take_merged(connection)
    assert held.timelines["first"].total(whole).n == 6
    with pytest.raises(ValueError, match="part of a block of 300 s"):
        held.timelines["first"].total(part)


def test_blocks_are_merged_an_hour_later_than_they_may_be(desk: Any, log: Log) -> None:
    """A tick that is late by less than an hour still finds the boundaries that its windows begin at."""
    edge = floor_to(desk.start, 300) - timedelta(days=1)
    ages = {"young": timedelta(minutes=59), "old": timedelta(minutes=66)}
    for name, age in ages.items():
        rows = [desk.prediction(f"{name}{n}", edge - age + timedelta(seconds=10 * n)) for n in range(2)]
        log[1].append(rows).result()
    recount(*log)
    assert roll_up(log[1], desk.start) == 2
