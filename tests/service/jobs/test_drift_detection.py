"""The watch over drift: from rows and labels in the log to alarms, once, whatever is restarted."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from factories import dirty_count

from service.decisions import Alarm, DriftStatus
from service.jobs.drift_detection import DriftDetection, DriftRules
from service.jobs.snapshot import SnapshotJob
from service.monitor.block_counts import empty
from service.monitor.drift_detector import DriftDetector, Observation, RateKey, log_threshold
from service.monitor.estimates import EstimateConfig
from service.monitor.tolerance_band import coverage_band
from service.store.alarms import alarms
from service.store.audit import entries
from service.store.block_store import SeriesKey, write_counts
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.queries import checkpoint
from service.store.writer import Writer
from service.views.current import Current, InForce
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

THRESHOLD = log_threshold(200, 1.0)
REFERENCES = {"a": Rate(4_000, 20_000), "b": Rate(2_000, 20_000)}
ACCURACIES = {ALL_ROWS: Rate(950, 1_000), "a": Rate(475, 500)}


class Watch:
    """A monitor and its watch over one log, restarted at will."""

    def __init__(self, desk: Any, log: tuple[Store, Writer], in_force: dict[str, Any]) -> None:
        self.desk, (self.store, self.writer) = desk, log
        self.begin = desk.start.replace(second=0, microsecond=0)
        self.now = self.begin
        self.shown: tuple[Any, ...] = ()
        self.rows = 0
        values = {"promoted_at": self.begin, "references": REFERENCES, "accuracies": ACCURACIES} | in_force
        self.current = Current(desk.in_force_of(**values))
        self.restart()

    def restart(self) -> None:
        self.monitor = SnapshotJob(self.store, self.writer, self.current, EstimateConfig, lambda _: None)
        rules = DriftRules(0.1, 0.01, 200, THRESHOLD)
        self.job = DriftDetection(self.store, self.writer, self.current, rules, self.show)

    def show(self, *shown: Any) -> None:
        self.shown = shown

    def answer(self, member: np.ndarray, labels: str | None = None) -> None:
        """Answer rows of one block, bit k of ``member`` for slice k; then step past the watermark."""
        ids = self.log(self.now, member)
        if labels is not None:
            given = [self.desk.label(id_, self.now, label) for id_, label in zip(ids, labels, strict=True)]
            self.writer.label("m", given).result()
        self.now += timedelta(seconds=10)

    def log(self, at: datetime, member: np.ndarray) -> list[str]:
        """Log rows of any time, and return their ids."""
        rows = [
            self.desk.prediction(f"r{self.rows + i}", at, member=bytes([int(bits)]))
            for i, bits in enumerate(member)
        ]
        self.rows += len(rows)
        self.writer.append(rows).result()
        return [row.id for row in rows]

    def step(self, after: timedelta = timedelta(seconds=40)) -> None:
        self.monitor.tick(self.now + after)
        self.job.step(self.now + after)

    def alarms(self, unresolved: bool = False) -> list[Alarm]:
        with self.store.read() as connection:
            return alarms(connection, "m", unresolved=unresolved)

    def drift(self, name: str, kind: str = "coverage") -> DriftStatus:
        return next(d for d in self.current.drifts if (d.slice, d.kind) == (name, kind))


Make = Callable[..., Watch]


@pytest.fixture
def watch(desk: Any, log: tuple[Store, Writer]) -> Make:
    return lambda **in_force: Watch(desk, log, in_force)


def rows(a: int, b: int, of: int = 100) -> np.ndarray:
    """Return bitmaps of rows, the first ``a`` of which are in slice a, and the last ``b`` in slice b."""
    bits = np.zeros(of, np.uint8)
    bits[:a] |= 1
    bits[of - b :] |= 2
    return bits


def test_a_slice_that_grows_alarms_and_one_that_stays_does_not(watch: Make) -> None:
    """The alarm names slice, direction and the block where the change began; the other slice has none."""
    here = watch()
    for _ in range(30):
        here.answer(rows(20, 10))
    changed_at = here.now
    for _ in range(20):
        here.answer(rows(40, 10))
        here.step()
    (alarm,) = here.alarms()
    assert (alarm.drift.slice, alarm.drift.direction, alarm.state) == ("a", "up", "open")
    assert alarm.drift.since is not None
    assert abs(alarm.drift.since - changed_at) <= timedelta(seconds=20)
    assert alarm.drift.evidence >= alarm.drift.threshold == THRESHOLD
    assert alarm.drift.observed.value == pytest.approx(0.4, abs=0.05)


def test_what_is_shown_is_where_every_slice_stands(watch: Make) -> None:
    """The model, a drift per watched rate, and the alarms that stand are handed on."""
    here = watch()
    for _ in range(3):
        here.answer(rows(60, 10))
    here.step()
    model, drifts, standing = here.shown
    assert (model, [each.drift.slice for each in standing]) == ("m", ["a"])
    assert {(d.slice, d.kind) for d in drifts} == {
        ("a", "coverage"),
        ("b", "coverage"),
        ("a", "accuracy"),
        (ALL_ROWS, "accuracy"),
    }


def test_rows_are_not_read_before_they_are_final(watch: Make) -> None:
    """A block is fed to the detectors once the watermark has passed its end, and only once."""
    here = watch()
    here.answer(rows(20, 10))
    here.step(after=timedelta(seconds=5))
    assert here.drift("a").observed == Rate(0, 0)
    for _ in range(3):
        here.step()
    assert here.drift("a").observed == Rate(20, 100)


def test_an_alarm_that_stands_is_not_raised_again(watch: Make) -> None:
    """However long a slice stays out of its zone, one alarm of it stands."""
    here = watch()
    for _ in range(60):
        here.answer(rows(60, 10))
        here.step()
    assert [each.drift.slice for each in here.alarms()] == ["a"]


@pytest.mark.parametrize("every", [1, 7])
def test_restarts_change_nothing(watch: Make, every: int) -> None:
    """A watch that is restarted after every few blocks alarms at the same block on the same evidence."""
    twin = DriftDetector(
        {RateKey(name, "1", "coverage"): coverage_band(rate, 0.1, 200) for name, rate in REFERENCES.items()},
        THRESHOLD,
    )
    here, verdicts = watch(accuracies={}), []
    for block in range(40):
        a = 20 if block < 20 else 31
        start = here.now
        here.answer(rows(a, 10))
        counts = {RateKey("a", "1", "coverage"): Rate(a, 100), RateKey("b", "1", "coverage"): Rate(10, 100)}
        verdicts += twin.advance(Observation(start, here.now, counts))
        here.step(timedelta(seconds=30))
        if block % every == 0:
            here.restart()
    (alarm,) = here.alarms()
    assert alarm.drift == verdicts[0].drift
    assert alarm.at == verdicts[0].at
    assert here.current.drifts == twin.drifts()


def test_what_failed_to_be_kept_is_read_again(watch: Make, desk: Any) -> None:
    """Where the store refuses the evidence, the next look reads the same rows, and none twice."""
    here = watch()
    here.answer(rows(20, 10))
    stopped, here.job = (
        here.job,
        DriftDetection(
            here.store, Refusing(), here.current, DriftRules(0.1, 0.01, 200, THRESHOLD), here.show
        ),
    )  # type: ignore[arg-type]
    here.monitor.tick(here.now + timedelta(seconds=40))
    with pytest.raises(OSError, match="no space"):
        here.job.step(here.now + timedelta(seconds=40))
    here.job = stopped
    here.step()
    assert here.drift("a").observed == Rate(20, 100)


class Refusing:
    """A writer whose disk is full."""

    def submit(self, work: object) -> object:
        raise OSError("no space left on device")


def test_accuracy_is_watched_on_first_labels(watch: Make) -> None:
    """Labels that say that the model is wrong raise alarms of accuracy, of the slice and of all rows."""
    here = watch()
    for _ in range(10):
        here.answer(rows(20, 10), "y" * 20 + "x" * 80)
        here.step()
    found = {(each.drift.slice, each.drift.kind, each.drift.direction) for each in here.alarms()}
    assert found == {("a", "accuracy", "down"), (ALL_ROWS, "accuracy", "down")}


def test_a_correction_is_no_new_evidence(watch: Make, desk: Any) -> None:
    """What counts is what a prediction was first said to be."""
    here = watch()
    here.answer(rows(20, 10), "x" * 100)
    here.writer.label("m", [desk.label(f"r{i}", here.now, "y") for i in range(100)]).result()
    here.now += timedelta(seconds=10)
    here.step()
    assert here.drift(ALL_ROWS, "accuracy").observed == Rate(100, 100)


def test_another_version_ends_the_alarms_of_the_last(watch: Make, desk: Any) -> None:
    """A version that is put in force has references of its own; the alarms against the last are resolved."""
    here = watch()
    for _ in range(5):
        here.answer(rows(60, 10))
    here.step()
    values = {"promoted_at": here.now, "references": {"a": Rate(600, 1_000)}, "version": 2}
    here.current.in_force = desk.in_force_of(**values)
    here.step()
    (alarm,) = here.alarms()
    assert (alarm.state, alarm.resolution) == ("resolved", "version 2 was put in force")
    assert [(d.slice, d.observed.n) for d in here.current.drifts] == [("a", 0)]


def test_an_alarm_ends_when_the_rate_is_back_for_an_hour(watch: Make) -> None:
    """A slice that is in its zone for the whole of the last hour needs nobody's attention."""
    here = watch()
    for _ in range(5):
        here.answer(rows(60, 10))
    here.step()
    assert len(here.alarms(unresolved=True)) == 1
    here.now += timedelta(minutes=65)
    for _ in range(20):
        here.answer(rows(20, 10))
    here.step()
    (alarm,) = here.alarms()
    assert alarm.state == "resolved"
    assert alarm.resolution == "coverage was 0.2 in the last hour, which is in its zone again"


def test_an_alarm_of_a_changed_function_ends(watch: Make, desk: Any) -> None:
    """The alarm is about a version of a function; where another is applied it says nothing."""
    here = watch(references={"b": Rate(2_000, 20_000)}, accuracies={})
    for _ in range(5):
        here.answer(rows(20, 60))
    here.step()
    assert [each.drift.slice for each in here.alarms(unresolved=True)] == ["b"]
    here.current.in_force = desk.in_force_of("edited", promoted_at=here.begin)
    here.step()
    (alarm,) = here.alarms()
    assert alarm.resolution == "the slice's function was changed or removed"


def test_opening_and_resolving_are_in_the_audit(watch: Make, desk: Any) -> None:
    """Who did what is kept: here the monitor did all of it."""
    here = watch()
    for _ in range(5):
        here.answer(rows(60, 10))
    here.step()
    here.current.in_force = desk.in_force_of(version=2, promoted_at=here.now)
    here.step()
    with here.store.read() as connection:
        told = [(entry.actor, entry.action, entry.subject) for _, entry in entries(connection)]
    assert told == [("monitor", "alarm.resolved", "alarm 1"), ("monitor", "alarm.opened", "alarm 1")]


def test_without_a_version_nothing_is_watched(watch: Make) -> None:
    """Where no version is in force there is nothing to compare with, and nothing is said."""
    here = watch(version=None, promoted_at=None)
    here.job.step(here.now)
    assert here.shown == ()


def test_damaged_evidence_is_gathered_anew(watch: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A state that cannot be read stops nothing: the watch begins again, and says so."""
    here = watch()
    here.answer(rows(20, 10))
    here.step()
    here.writer.save_checkpoint("drift", here.now, b'{"version": 1}').result()
    here.restart()
    here.step()
    assert "gathered anew" in caplog.text
    assert here.drift("a").observed == Rate(20, 100)


def test_a_version_is_watched_from_its_promotion_but_not_from_long_ago(watch: Make) -> None:
    """Without kept evidence the watch reaches back a day at most."""
    here = watch()
    here.answer(rows(20, 10))
    here.now += timedelta(days=2)
    here.answer(rows(30, 10))
    here.step()
    assert here.drift("a").observed == Rate(30, 100)


def test_a_block_that_lacks_rows_waits_with_those_after_it(watch: Make) -> None:
    """Rows that come after the watermark, before the watch has looked, are fed once they are counted, and once."""
    here = watch(accuracies={})
    for _ in range(3):
        here.answer(rows(20, 10))
    now = here.now + timedelta(seconds=40)
    here.monitor.tick(now)
    here.log(here.begin + timedelta(seconds=10), rows(5, 0, of=50))
    here.job.step(now)
    assert here.drift("a").observed == Rate(20, 100)
    for _ in range(2):
        here.step()
        assert here.drift("a").observed == Rate(65, 350)


def test_a_block_that_was_never_counted_waits(watch: Make) -> None:
    """Where a whole block is missing, those after it do not go past it."""
    here = watch(accuracies={})
    here.answer(rows(20, 10))
    here.now += timedelta(seconds=10)
    here.answer(rows(20, 10))
    now = here.now + timedelta(seconds=40)
    here.monitor.tick(now)
    here.log(here.begin + timedelta(seconds=10), rows(30, 10))
    here.job.step(now)
    assert here.drift("a").observed == Rate(20, 100)
    here.step()
    assert here.drift("a").observed == Rate(70, 300)


def test_a_label_makes_no_block_wait(watch: Make, desk: Any) -> None:
    """A block that is to be counted again for a label alone has all of its rows."""
    here = watch(accuracies={})
    for _ in range(2):
        here.answer(rows(20, 10))
    now = here.now + timedelta(seconds=40)
    here.monitor.tick(now)
    here.writer.label("m", [desk.label("r0", here.now)]).result()
    with here.store.read() as connection:
        assert dirty_count(connection) == 1
    here.job.step(now)
    assert here.drift("a").observed == Rate(40, 200)


@pytest.mark.parametrize(("late", "set_hash"), [(220, "first"), (100, "edited")])
def test_what_is_around_a_long_block_waits_with_it(watch: Make, desk: Any, late: int, set_hash: str) -> None:
    """Where blocks were merged while the watch was away, none is passed over for a shorter one at its time."""
    full_hour = desk.start.replace(minute=0, second=0, microsecond=0)
    now = full_hour + timedelta(hours=1)
    here = watch(references={"a": Rate(0, 0)}, accuracies={}, promoted_at=full_hour)

    def log(seconds: int, **changes: Any) -> None:
        at = full_hour + timedelta(seconds=seconds)
        changes["member"] = b"\x01"
        here.writer.append([desk.prediction(f"{seconds}.{i}", at, **changes) for i in range(10)]).result()

    log(200)
    here.monitor.tick(now)
    assert here.writer.roll_up(now, 300).result() == 1
    log(50, set_hash="edited")
    here.monitor.tick(now)
    log(late, set_hash=set_hash)
    here.job.step(now)
    assert here.drift("a").observed == Rate(0, 0)
    for _ in range(2):
        here.monitor.tick(now)
        here.job.step(now)
        assert here.drift("a").observed == Rate(30, 30)


def test_a_long_past_is_read_in_parts(watch: Make) -> None:
    """No look takes in more than an hour of full blocks, and together they leave nothing out."""
    here = watch(references={"a": Rate(0, 0)}, accuracies={})
    predictions = [
        here.desk.prediction(f"p{i}", here.begin + timedelta(seconds=10 * i), member=b"\x00")
        for i in range(800)
    ]
    here.writer.append(predictions).result()
    now = here.begin + timedelta(seconds=8_040)
    here.monitor.tick(now)
    read = [0]
    for _ in range(5):
        here.job.step(now)
        read.append(here.drift("a").observed.n)
        here.restart()
    assert np.diff(read).max() <= 360
    assert read[-1] == 800


def test_where_nothing_can_be_watched_nothing_is_read(watch: Make, desk: Any) -> None:
    """A version without references is passed over; once there are some, what comes then is watched."""
    here = watch(references={}, accuracies={})
    here.answer(rows(20, 10), "x" * 100)
    here.step()
    assert here.current.drifts == ()
    with here.store.read() as connection:
        assert checkpoint(connection, "drift") is None
    values = {"promoted_at": here.begin, "references": REFERENCES, "accuracies": ACCURACIES}
    here.current.in_force = desk.in_force_of(**values)
    here.now += timedelta(seconds=60)
    here.answer(rows(30, 10), "x" * 100)
    here.step()
    assert here.drift("a").observed == Rate(30, 100)
    assert here.drift("a", "accuracy").observed == Rate(30, 30)


class Turning(Current):
    """Another version is put in force as soon as what is in force has been read."""

    __slots__ = ("turns",)

    @property
    def in_force(self) -> InForce:
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]

    @in_force.setter
    def in_force(self, value: InForce) -> None:
        self.turns = [value]


def test_one_look_speaks_of_one_version(watch: Make, desk: Any) -> None:
    """What is put in force while the watch looks counts the next time."""
    here = watch(accuracies={})
    for _ in range(5):
        here.answer(rows(60, 10))
    here.step()
    first, second = here.current.in_force, desk.in_force_of(version=2, promoted_at=here.now)
    here.current = Turning(first, snapshot=here.current.snapshot)
    here.restart()
    here.current.turns = [first, second]
    here.job.step(here.now + timedelta(seconds=40))
    assert [each.state for each in here.alarms()] == ["open"]
    here.job.step(here.now + timedelta(seconds=40))
    assert [each.resolution for each in here.alarms()] == ["version 2 was put in force"]


def test_an_alarm_does_not_end_by_what_another_version_answered(watch: Make, desk: Any) -> None:
    """The last hour that is shown may still be that of the version before."""
    here = watch(accuracies={})
    for _ in range(5):
        here.answer(rows(60, 10))
    here.step()
    here.now += timedelta(minutes=65)
    for _ in range(20):
        here.answer(rows(20, 10))
    here.monitor.tick(here.now)
    here.current.snapshot = replace(here.current.snapshot, version=2)
    here.job.step(here.now)
    assert [each.state for each in here.alarms()] == ["open"]


@pytest.mark.parametrize("reference", [Rate(0, 0), Rate(0, 1), Rate(1, 1), Rate(2, 3), Rate(0, 10**9)])
def test_a_reference_of_any_size_can_be_watched(watch: Make, reference: Rate) -> None:
    """Few rows, or none, allow every rate, and stop nothing; so do limits at the ends of the scale."""
    here = watch(
        references=dict.fromkeys("abc", reference), accuracies=dict.fromkeys(("a", ALL_ROWS), reference)
    )
    for member in (rows(0, 0), rows(100, 0), rows(3, 90)):
        here.answer(member, "x" * 50 + "y" * 50)
        here.step()
    assert here.drift("a").observed.n > 0
    alarmed = {each.drift.slice for each in here.alarms() if each.drift.kind == "coverage"}
    assert alarmed == ({"a", "b"} if reference.n > 100 else set())


def test_rows_of_functions_that_nobody_recorded_are_refused(watch: Make) -> None:
    """The store is damaged then: the sentence says what is missing, and what to do."""
    here = watch()
    lost = empty("m", 1, "lost", 2, here.begin, 10)
    start_us = int(here.begin.timestamp()) * 1_000_000
    here.writer.submit(
        lambda c: write_counts(c, [(SeriesKey("m", 1, "lost"), (start_us, 10), lost)])
    ).result()
    with pytest.raises(
        StoreError, match=r"function set 'lost' is not in the store, but rows are .*: restore"
    ):
        here.job.step(here.now + timedelta(seconds=40))


def test_a_slice_that_moves_on_is_told_again(watch: Make) -> None:
    """The alarm of a slice that grew ends, and another begins, when the slice nearly vanishes."""
    here = watch(accuracies={})
    for a in (60, 1):
        for _ in range(15):
            here.answer(rows(a, 10))
            here.step()
    second, first = here.alarms()
    assert (first.state, first.drift.direction) == ("resolved", "up")
    assert (second.state, second.drift.direction) == ("open", "down")
    assert first.resolution.startswith("superseded: coverage changed from 6")
    assert here.shown[2] == [second]
