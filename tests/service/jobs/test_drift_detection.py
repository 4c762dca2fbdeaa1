"""Drift detection: from rows and labels in the log to alarms, exactly once across restarts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from factories import (
    FUNCTION_SETS,
    START,
    dirty_count,
    make_counts,
    make_deployment,
    make_label,
    make_local_state,
    make_prediction,
    make_state,
)

from models.bundle.reference import FamilyCounts, SliceCounts
from models.function_labels import LabelingFunctionMetrics
from models.outputs import LIMITS, OutputRates, nearest_limit
from models.table_season import TableSeason
from service.decisions import Alarm, DriftStatus, RateKey
from service.events import NONE_FIRED, Snapshot
from service.jobs.drift_detection import DriftDetection
from service.jobs.drift_observations import EVERY_ROW, LabelCounter
from service.jobs.snapshot import SnapshotJob
from service.monitor.block_counts import empty
from service.monitor.drift_detector import DriftDetector, Observation, log_threshold
from service.monitor.live_baseline import LiveBaseline
from service.monitor.tolerance_band import coverage_band
from service.monitor.windows import watermark
from service.serving.deployment import ActiveModel, DeploymentState
from service.serving.live_functions import LiveFunctions
from service.serving.table_reference import TableReference
from service.settings.schema import DriftSettings, Settings
from service.store.alarms import accept_alarm, alarms, resolve_alarm
from service.store.audit import entries
from service.store.block_store import SeriesKey, write_counts
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.labels import FirstLabel
from service.store.writer import Writer
from service.views.alarms import alarm_sentence
from sfs.function import ALL_ROWS, LabelingFunction, LabelingFunctionSlice
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.validation import Metadata

THRESHOLD = log_threshold(200, 1.0)
REFERENCES = {"a": Rate(4_000, 20_000), "b": Rate(2_000, 20_000)}
ACCURACIES = {ALL_ROWS: Rate(950, 1_000), "a": Rate(475, 500)}


class Watch:
    """Snapshots and drift detection over one log, restarted at will."""

    def __init__(self, log: tuple[Store, Writer], settings: Settings, page: Any, state: dict[str, Any]) -> None:
        (self.store, self.writer), self.page = log, page
        self.begin = START.replace(second=0, microsecond=0)
        self.now, self.rows = self.begin, 0
        values = {"promoted_at": self.begin, "references": REFERENCES, "accuracies": ACCURACIES} | state
        self.deployment: Any = make_deployment(*log, settings, state=make_local_state(**values))
        self.settings = DriftSettings(swing=0.0, settling_hours=0.0)  # its traffic has no season
        self.restart()

    def restart(self) -> None:
        self.snapshots = SnapshotJob(self.deployment, self.store, self.writer, self.page, timer=lambda: 0.0)
        self.job = self.detection(self.writer)

    def detection(self, writer: Writer) -> DriftDetection:
        return DriftDetection(self.deployment, self.store, writer, self.page, self.settings)

    def predict(self, member: np.ndarray, labels: str | None = None, version: int = 1, called: str = "x") -> None:
        """Log the rows of one block, bit k of ``member`` for slice k, and move on to the next block."""
        ids = self.log(self.now, member, version, called)
        if labels is not None:
            given = [make_label(id_, self.now, label) for id_, label in zip(ids, labels, strict=True)]
            self.writer.label("m", given).result()
        self.now += timedelta(seconds=10)

    def log(self, at: datetime, member: np.ndarray, version: int = 1, called: str = "x") -> list[str]:
        """Log rows of any time and distinct contents, whose predicted classes take turns, and return their ids."""
        classes = [called[n % len(called)] for n in range(len(member))]
        rows = [
            make_prediction(f"r{i}", at, name, member=bytes([int(bits)]), version=version, content_hash=i)
            for i, (name, bits) in enumerate(zip(classes, member, strict=True), self.rows)
        ]
        self.rows += len(rows)
        self.writer.append(rows).result()
        return [row.id for row in rows]

    def run(self, after: timedelta = timedelta(seconds=40)) -> None:
        self.snapshots.run(self.now + after)
        self.job.run(self.now + after)

    def alarms(self, unresolved: bool = False) -> list[Alarm]:
        with self.store.read() as connection:
            return alarms(connection, "m", unresolved=unresolved)

    def drift(self, name: str, kind: str = "coverage") -> DriftStatus:
        statuses = self.deployment.drift_statuses
        return next(each for each in statuses if (each.slice, each.kind) == (name, kind))


Make = Callable[..., Watch]


@pytest.fixture
def watch(log: tuple[Store, Writer], settings: Settings, page: Any) -> Make:
    return lambda **state: Watch(log, settings, page, state)


def rows(a: int, b: int, of: int = 100) -> np.ndarray:
    """Return bitmaps of rows, the first ``a`` of which are in slice a, and the last ``b`` in slice b."""
    bits = np.zeros(of, np.uint8)
    bits[:a] |= 1
    bits[of - b :] |= 2
    return bits


def test_a_slice_that_grows_alarms_and_one_that_stays_does_not(watch: Make) -> None:
    """The alarm names the slice, the direction, and the block in which the change began."""
    here = watch()
    for _ in range(30):
        here.predict(rows(20, 10))
    changed_at = here.now
    for _ in range(20):
        here.predict(rows(40, 10))
        here.run()
    (alarm,) = here.alarms()
    assert (alarm.drift.slice, alarm.drift.direction, alarm.state) == ("a", "up", "open")
    assert alarm.drift.since is not None
    assert abs(alarm.drift.since - changed_at) <= timedelta(seconds=20)
    assert alarm.drift.evidence >= alarm.drift.threshold == THRESHOLD
    assert alarm.drift.observed.value == pytest.approx(0.4, abs=0.05)


def test_the_metrics_page_shows_every_status(watch: Make) -> None:
    """The page receives the model, a status per watched rate, and the unresolved alarms."""
    here = watch()
    for _ in range(3):
        here.predict(rows(60, 10))
    here.run()
    model, drifts, unresolved = here.page.drift
    assert (model, [each.drift.slice for each in unresolved]) == ("m", ["a"])
    assert {(d.slice, d.kind) for d in drifts} == {
        ("a", "coverage"),
        ("b", "coverage"),
        ("a", "accuracy"),
        (ALL_ROWS, "accuracy"),
    }


def test_rows_are_not_read_before_they_are_final(watch: Make) -> None:
    """A block is fed to the detectors once the watermark has passed its end, and only once."""
    here = watch()
    here.predict(rows(20, 10))
    here.run(after=timedelta(seconds=5))
    assert here.drift("a").observed == Rate(0, 0)
    for _ in range(3):
        here.run()
    assert here.drift("a").observed == Rate(20, 100)


def test_an_unresolved_alarm_is_not_raised_again(watch: Make) -> None:
    """A slice that stays outside its band has one alarm."""
    here = watch()
    for _ in range(20):
        here.predict(rows(60, 10))
        here.run()
    assert [each.drift.slice for each in here.alarms()] == ["a"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_standing_alarm_shows_the_rate_since_its_change(watch: Make, restarts: bool) -> None:
    """All rows since the change are counted, whenever the detector restarts; evidence and start are the alarm's."""
    here = watch(accuracies={})
    for _ in range(20):
        here.predict(rows(60, 10))
        here.run()
        if restarts:
            here.restart()
    (alarm,) = here.alarms(unresolved=True)
    drift = here.drift("a")
    assert (drift.observed, drift.since, drift.direction) == (Rate(1_200, 2_000), here.begin, "up")
    assert drift.lower < 0.6 < drift.upper
    assert drift.evidence >= alarm.drift.evidence >= THRESHOLD
    assert here.drift("b").observed == Rate(200, 2_000)


def test_a_superseding_alarm_has_a_rate_of_its_own(watch: Make) -> None:
    """After a further change the rate is that since the further change."""
    here = watch(accuracies={})
    for members in (60, 95):
        changed_at = here.now
        for _ in range(20):
            here.predict(rows(members, 5))
            here.run()
    (alarm,) = (each for each in here.alarms(unresolved=True) if each.drift.slice == "a")
    drift = here.drift("a")
    assert alarm.drift.since == drift.since
    assert drift.since is not None
    assert drift.since >= changed_at - timedelta(seconds=20)
    blocks = (here.now - drift.since) // timedelta(seconds=10)
    assert drift.observed.n == 100 * blocks
    assert drift.observed.value == pytest.approx(0.95, abs=0.05)


def test_a_resolved_alarm_leaves_no_rate_behind(watch: Make) -> None:
    """The detector's own counts are shown again."""
    here = watch(accuracies={})
    for _ in range(5):
        here.predict(rows(60, 10))
        here.run()
    (alarm,) = here.alarms(unresolved=True)
    here.writer.submit(lambda connection: resolve_alarm(connection, alarm.id, here.now, "by hand")).result()
    here.run()
    assert here.drift("a").observed.n < 500
    assert here.drift("a").evidence < THRESHOLD


@pytest.mark.parametrize("every", [1, 7])
def test_restarts_change_nothing(watch: Make, every: int) -> None:
    """Detection restarted after every few blocks alarms at the same block on the same evidence."""
    bands = {RateKey(name, "1", "coverage"): coverage_band(rate, 0.1, 200) for name, rate in REFERENCES.items()}
    baseline = LiveBaseline([RateKey(key.slice, "1", "coverage") for key in bands], [*bands.values()], 0.1, 0.0)
    twin = DriftDetector(bands, THRESHOLD, baseline)
    here, detections = watch(accuracies={}), []
    for block in range(30):
        a = 20 if block < 10 else 33
        start = here.now
        here.predict(rows(a, 10))
        counts = {RateKey("a", "1", "coverage"): Rate(a, 100), RateKey("b", "1", "coverage"): Rate(10, 100)}
        detections += twin.advance(Observation.of(start, here.now, counts))
        here.run(timedelta(seconds=30))
        if block % every == 0:
            here.restart()
    (alarm,) = here.alarms()
    assert alarm.drift == detections[0].drift
    assert alarm.at == detections[0].at
    assert here.drift("b") == twin.drifts()[1]
    assert here.drift("a").observed.n == (here.now - detections[0].drift.since) // timedelta(seconds=10) * 100


def test_evidence_that_was_not_stored_is_read_again(watch: Make) -> None:
    """After a failed commit the next run reads the same rows, and none twice."""
    here = watch()
    here.predict(rows(20, 10))
    stopped, here.job = here.job, here.detection(Refusing())  # type: ignore[arg-type]
    here.snapshots.run(here.now + timedelta(seconds=40))
    with pytest.raises(OSError, match="no space"):
        here.job.run(here.now + timedelta(seconds=40))
    here.job = stopped
    here.run()
    assert here.drift("a").observed == Rate(20, 100)


class Refusing:
    """A writer whose disk is full."""

    def submit(self, work: object) -> object:
        raise OSError("no space left on device")


def test_first_labels_raise_accuracy_alarms(watch: Make) -> None:
    """Labels that contradict the model raise accuracy alarms of the slice and of all rows."""
    here = watch()
    for _ in range(10):
        here.predict(rows(20, 10), "y" * 20 + "x" * 80)
        here.run()
    found = {(each.drift.slice, each.drift.kind, each.drift.direction) for each in here.alarms()}
    assert found == {("a", "accuracy", "down"), (ALL_ROWS, "accuracy", "down")}


def test_without_an_expected_accuracy_nothing_is_watched(watch: Make) -> None:
    """A model without expected accuracies raises no accuracy alarm, whatever the labels."""
    here = watch(accuracies={})
    for _ in range(10):
        here.predict(rows(20, 10), "y" * 20 + "x" * 80)
        here.run()
    assert here.alarms() == []
    assert {each.kind for each in here.deployment.drift_statuses} == {"coverage"}


def of_both(n: int, wrong: int) -> dict[str, str]:
    """Return predictions that take turns and their labels, of which the first are wrong."""
    labels = ["yx"[i % 2] if i < wrong else "xy"[i % 2] for i in range(n)]
    return {"labels": "".join(labels), "called": "xy"}


WRONG, RIGHT = "y" * 20 + "x" * 80, "x" * 100
"""Labels of the 20 members of a slice and of 80 other rows: the members wrong, and all correct."""


def targeted(target: float | None, **changes: Any) -> dict[str, Any]:
    """Return a state in which nothing but a target of slice a is expected."""
    return {"references": {}, "accuracies": {}, "metadata": {"a": Metadata(target=target)}} | changes


@pytest.mark.parametrize("reference", [None, Rate(28, 40)])
def test_a_missed_target_alarms_whatever_the_reference(watch: Make, reference: Rate | None) -> None:
    """Few or no held-out rows leave a wide band; the alarm names the target, and there is one."""
    here = watch(**targeted(0.75, accuracies={"a": reference} if reference else {}))
    for _ in range(6):
        here.predict(rows(20, 10), WRONG)
        here.run()
    (alarm,) = here.alarms()
    assert (alarm.drift.slice, alarm.drift.kind, alarm.drift.direction) == ("a", "accuracy", "down")
    assert (alarm.drift.zone.lower, alarm.drift.zone.target) == (0.75, 0.75)
    assert alarm_sentence(alarm).endswith("expected at least 75.0% (target)")
    assert here.page.drift[2] == [alarm]


def test_a_fall_below_reference_and_target_is_one_alarm(watch: Make) -> None:
    """Where the band begins above the target, the alarm is about the band."""
    here = watch(**targeted(0.75, accuracies={"a": Rate(475, 500)}))
    for _ in range(6):
        here.predict(rows(20, 10), WRONG)
        here.run()
    (alarm,) = here.alarms()
    assert alarm.drift.zone.target is None
    assert alarm.drift.zone.lower > 0.85


def missed(watch: Make, target: float = 0.75, wrong: int = 20) -> Watch:
    """Return a watch with an unresolved alarm about a target."""
    here = watch(**targeted(target))
    for _ in range(8):
        here.predict(rows(20, 10), "y" * wrong + "x" * (100 - wrong))
    here.run()
    assert [alarm.drift.zone.target for alarm in here.alarms(unresolved=True)] == [target]
    return here


def test_an_alarm_is_resolved_once_the_target_is_met_for_an_hour(watch: Make) -> None:
    """The resolution names the target."""
    here = missed(watch)
    here.now += timedelta(minutes=65)
    for _ in range(2):
        here.predict(rows(20, 10), RIGHT)
    here.run()
    assert [each.resolution for each in here.alarms()] == [
        "accuracy was 1 in the last hour, back at its target of 75.0%"
    ]


@pytest.mark.parametrize(("last", "resolved"), [(rows(1, 0), True), (rows(30, 0), False)])
def test_a_slice_with_few_labels_an_hour_has_a_day_to_be_back(watch: Make, last: np.ndarray, resolved: bool) -> None:
    """The last hour has too few labels to show anything, or shows that the target is missed again."""
    here = missed(watch)
    here.now += timedelta(hours=3)
    for _ in range(20):
        here.predict(rows(20, 10), RIGHT)
    here.now += timedelta(hours=22)
    here.predict(last, "y" * 30 + "x" * 70)
    here.run()
    resolutions = [each.resolution for each in here.alarms()]
    assert resolutions == (["accuracy was 0.998 in the last day, back at its target of 75.0%"] if resolved else [""])


@pytest.mark.parametrize(
    ("target", "resolution"),
    [
        (0.5, "the target of 99.0% was lowered or removed"),
        (None, "the target of 99.0% was lowered or removed"),
        (0.98, ""),  # missed as well
        (1.0, ""),
    ],
)
def test_an_alarm_about_a_target_that_no_longer_applies_is_resolved(
    watch: Make, target: float | None, resolution: str
) -> None:
    """With 80% correct, an alarm about 99% stands only while a target above 80% applies."""
    here = missed(watch, 0.99, wrong=4)
    here.deployment.state = make_local_state(promoted_at=here.begin, **targeted(target))
    here.run()
    assert [each.resolution for each in here.alarms()] == [resolution]


def test_evidence_about_another_target_is_not_used(watch: Make, caplog: pytest.LogCaptureFixture) -> None:
    """After a change of the target the labels are counted from there, and the log says so."""
    here = watch(**targeted(0.75, accuracies={ALL_ROWS: Rate(950, 1_000)}))
    here.predict(rows(20, 10), RIGHT)
    here.run()
    changed = targeted(0.8, accuracies={ALL_ROWS: Rate(950, 1_000)})
    here.deployment.state = make_local_state(promoted_at=here.begin, **changed)
    with caplog.at_level("INFO"):
        here.run()
    assert here.drift("a", "accuracy").observed == Rate(0, 0)
    assert here.drift(ALL_ROWS, "accuracy").observed == Rate(100, 100)
    assert "gathered from the start where the tolerance band changed: accuracy of a" in caplog.text


def elsewhere(watch: Make) -> Watch:
    """Return a watch of external version 1, which has a reference table; 100 first labels set its accuracy."""
    here = watch()
    here.settings = DriftSettings(swing=0.0, settling_hours=0.0, reference_labels=100)
    here.deployment.state = make_state(promoted_at=here.begin)
    counts = {name: make_counts(20_000, members, 0, 20_000) for name, members in (("a", 4_000), ("b", 2_000))}
    here.deployment.set_table(TableReference("t.csv", "", 20_000, False, None, {"a": "1", "b": "1"}, counts))
    here.restart()
    return here


def test_an_external_version_raises_the_alarms_of_a_local_one(watch: Make) -> None:
    """Its expected coverage is that of the table, and the sentence of the alarm is the same."""
    here = elsewhere(watch)
    for _ in range(10):
        here.predict(rows(60, 10))
    here.run()
    (alarm,) = here.alarms()
    assert (alarm.drift.slice, alarm.drift.kind, alarm.drift.direction) == ("a", "coverage", "up")
    assert alarm.drift.zone is not None
    assert alarm.drift.zone.has_limits_of(coverage_band(Rate(4_000, 20_000), 0.1, 200))


@pytest.mark.parametrize("restarts", [False, True])
def test_first_labels_set_the_accuracy_expected_of_an_external_version(watch: Make, restarts: bool) -> None:
    """Each rate has its own 100, and begins after them; then a fall alarms."""
    here = elsewhere(watch)
    for _ in range(10):
        here.predict(rows(20, 10), **of_both(100, wrong=2))
        here.run()
        if restarts:  # the first row of the version may be known more exactly then
            here.deployment.state = replace(here.deployment.state, promoted_at=here.now - timedelta(hours=1))
            here.restart()
    accuracies = here.deployment.state.accuracies
    assert accuracies == {ALL_ROWS: Rate(98, 100), "a": Rate(90, 100), "b": Rate(100, 100)}
    observed = {each.slice: each.observed for each in here.deployment.drift_statuses if each.kind == "accuracy"}
    assert observed == {ALL_ROWS: Rate(882, 900), "a": Rate(90, 100), "b": Rate(0, 0)}
    assert here.alarms() == []
    for _ in range(10):
        here.predict(rows(20, 10), **of_both(100, wrong=20))
        here.run()
    assert ("a", "accuracy", "down") in {(a.drift.slice, a.drift.kind, a.drift.direction) for a in here.alarms()}


def test_a_target_on_a_slice_of_an_external_version_holds_from_its_first_label_on(watch: Make) -> None:
    """The labels that set its expected accuracy are evidence for the target, also past the end of their period."""
    here = elsewhere(watch)
    here.deployment.state = replace(here.deployment.state, metadata={"a": Metadata(target=0.9)})
    here.predict(rows(20, 10), WRONG)
    here.run()
    assert here.drift("a", "accuracy").observed == Rate(0, 20)
    assert here.deployment.state.accuracies == {ALL_ROWS: Rate(80, 100)}
    (alarm,) = here.alarms()
    assert (alarm.drift.slice, alarm.drift.kind, alarm.drift.zone.target) == ("a", "accuracy", 0.9)
    for _ in range(5):
        here.predict(rows(20, 10), WRONG)
        here.run()
    assert here.deployment.state.accuracies["a"] == Rate(0, 100)
    assert here.drift("a", "accuracy").observed == Rate(0, 120)
    assert [(each.drift.slice, each.drift.zone.target) for each in here.alarms()] == [("a", 0.9)]


def test_first_labels_are_evidence_for_a_target_alone(watch: Make) -> None:
    """Where the band that they set begins above the target, it has only the labels after them."""
    here = elsewhere(watch)
    here.deployment.state = replace(here.deployment.state, metadata={"a": Metadata(target=0.3)})
    here.predict(rows(160, 0, of=160), "y" * 10 + "x" * 90 + "y" * 4 + "x" * 56)
    here.run()
    status = here.drift("a", "accuracy")
    assert here.deployment.state.accuracies["a"] == Rate(90, 100)
    assert status.zone is not None
    assert (status.zone.target, status.observed) == (None, Rate(56, 60))


def test_first_labels_of_repeated_features_are_worth_their_contents(watch: Make) -> None:
    """Records that differ in other fields only are one content; more are gathered until they are worth 30."""
    here = elsewhere(watch)
    here.deployment.state = replace(here.deployment.state, features={"text": "text"})
    key = RateKey("a", "1", "accuracy")
    for part in range(2):
        texts = [i + 100 if part else i // 5 for i in range(100)]
        logged = [
            make_prediction(f"c{part}.{i}", here.now, member=b"", features=f'{{"text": "t{text}", "key": {i}}}')
            for i, text in enumerate(texts)
        ]
        here.writer.append(logged).result()
        here.writer.label("m", [make_label(row.id, here.now, "x") for row in logged]).result()
        here.now += timedelta(seconds=10)
        here.run()
        here.restart()
        if part == 0:
            assert (here.deployment.state.accuracies, here.deployment.state.label_counts[key]) == ({}, 100)
    assert here.deployment.state.accuracies["a"] == Rate(200, 200, 67)


def test_many_labels_at_once_are_expectation_first_and_evidence_then(watch: Make) -> None:
    """A file of labels that arrives in one block alarms as one that arrives block by block."""
    here = elsewhere(watch)
    given = of_both(400, wrong=200)
    here.predict(rows(400, 0, of=400), given["labels"][::-1], called="yx")
    here.run()
    assert here.deployment.state.accuracies["a"] == Rate(100, 100)
    assert ("a", "accuracy", Rate(100, 300)) in {(a.drift.slice, a.drift.kind, a.drift.observed) for a in here.alarms()}


def test_another_external_version_has_its_own_first_labels(watch: Make) -> None:
    """Expected coverage stays, alarms are resolved, and the accuracy of a version that returns is known again."""
    here = elsewhere(watch)
    for _ in range(2):
        here.predict(rows(60, 10), "x" * 100)
        here.run()
    first = dict(here.deployment.state.accuracies)
    assert first == {ALL_ROWS: Rate(100, 100), "a": Rate(100, 100)}
    for version, expected, labels in ((2, {ALL_ROWS: Rate(100, 100)}, 200), (1, first, 300)):
        for _ in range(10):
            here.predict(rows(20, 10), version=version)
        here.run()
        assert here.deployment.state.version != version
        here.now += timedelta(minutes=5)
        for _ in range(3):
            here.predict(rows(20, 10), "x" * 100, version=version)
        here.run()
        state = here.deployment.state
        assert (state.version, state.accuracies) == (version, expected)
        assert set(state.references) == {"a", "b"}
        assert here.drift("a").observed == Rate(260, 1300)  # of this version since the other's last row
        assert here.drift(ALL_ROWS, "accuracy").observed == Rate(labels, labels)
    assert "version 2 is followed now" in {alarm.resolution for alarm in here.alarms()}


def test_the_accuracies_of_the_versions_followed_last_are_kept(watch: Make) -> None:
    """Ten of them: a version that returned before the eleventh is known, and the second is forgotten."""
    here = elsewhere(watch)

    def follow(version: int) -> dict[str, Rate]:
        here.deployment.activate_external(version, here.now)
        here.predict(rows(0, 0), "x" * 100, version=version)
        here.job.run(here.now + timedelta(seconds=40))
        return dict(here.deployment.state.accuracies)

    for version in [*range(1, 11), 1, 11]:
        assert follow(version) == {ALL_ROWS: Rate(100, 100)}
    observed = []
    for version in (1, 2):
        follow(version)
        observed.append(here.drift(ALL_ROWS, "accuracy").observed if here.deployment.drift_statuses else None)
    assert observed == [Rate(100, 100), Rate(0, 0)]


def test_labels_out_of_the_order_of_their_times_are_no_more_observations() -> None:
    """Every other prediction has a time 40 s ahead of its label: one observation per 10 seconds."""
    labels = [
        FirstLabel(n, START + timedelta(seconds=40 if n % 2 else n), 1, "first", "x", "x", b"\0", b"\0", n, n)
        for n in range(9)
    ]
    blocks = LabelCounter({"first": FUNCTION_SETS["first"]}, ["x"]).blocks(labels)
    assert [block.counts[EVERY_ROW].tolist() for block in blocks] == [[[1]], [[8]]]


HOUR = timedelta(hours=1)


@pytest.mark.parametrize("restarts", [False, True])
def test_another_version_is_followed_while_the_clock_is_behind(watch: Make, restarts: bool) -> None:
    """Its rows are evidence in order of arrival, too, and once."""
    here = elsewhere(watch)
    for step, version, blocks in ((2 * HOUR, 1, 4), (-2 * HOUR, 2, 12), (timedelta(minutes=5), 2, 6)):
        here.now += step
        for _ in range(blocks):
            here.predict(rows(20, 10), version=version)
            here.run(timedelta(0))
            if restarts:
                here.restart()
    assert here.deployment.state.version == 2
    assert here.deployment.behind_until is not None
    for _ in range(2):
        here.now += timedelta(days=1)
        here.run()
    assert here.drift("a").observed == Rate(20 * 18, 100 * 18)


def test_no_change_starts_in_the_future_after_a_second_step_back(watch: Make) -> None:
    """Also of rows that were read in order of arrival, while the clock was behind."""
    here = watch()
    for step in (2 * HOUR, -HOUR, -HOUR / 2):
        here.now += step
        for _ in range(6):
            here.predict(rows(28, 10))
            here.run(timedelta(0))
        assert here.drift("a").since is not None
        assert here.drift("a").since <= here.now
    assert here.alarms() == []


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(
    "steps",
    [[-2 * HOUR], [2 * HOUR, -2 * HOUR], [HOUR, -2 * HOUR, HOUR / 2], [timedelta(seconds=-35)], [-HOUR, -HOUR]],
    ids=lambda steps: " ".join(f"{step.total_seconds():+g} s" for step in steps),
)
def test_rows_and_labels_count_once_while_the_clock_is_set(watch: Make, restarts: bool, steps: list[timedelta]) -> None:
    """Those of an external version whose first labels arrive meanwhile, too: none twice, none left out."""
    here = elsewhere(watch)
    for step in [timedelta(0), *steps]:
        here.now += step
        for _ in range(4):
            here.predict(rows(20, 10), RIGHT)
            here.run(timedelta(0))
            if restarts:
                here.restart()
    here.now += timedelta(days=1)
    here.run()
    blocks = 4 * (1 + len(steps))
    assert here.drift("a").observed == Rate(20 * blocks, 100 * blocks)
    assert here.drift("a", "accuracy").observed == Rate(20 * blocks - 100, 20 * blocks - 100)
    assert here.drift(ALL_ROWS, "accuracy").observed == Rate(100 * blocks - 100, 100 * blocks - 100)
    assert here.alarms() == []


def test_nothing_is_expected_of_a_champion_that_cannot_be_loaded(watch: Make) -> None:
    """What is shown of an earlier version goes, but not its alarm, and the champion continues once it is repaired."""
    here = watch()
    for _ in range(3):
        here.predict(rows(60, 10), RIGHT)
    here.run()
    champion = here.deployment.state
    here.deployment.state = replace(champion, active=None)
    here.deployment.record_first_labels(1, {}, {RateKey("a", "1", "accuracy"): 9})
    here.deployment.record_fault("damaged", 1, (), ())
    here.predict(rows(60, 10), RIGHT)
    here.run()
    assert here.deployment.drift_statuses == ()
    assert here.deployment.state.label_counts == {}
    _, drifts, unresolved = here.page.drift
    assert (tuple(drifts), [alarm.drift.slice for alarm in unresolved]) == ((), ["a"])
    here.deployment.state = champion
    here.run()
    assert here.drift("b").observed == Rate(40, 400)
    assert here.drift(ALL_ROWS, "accuracy").observed == Rate(400, 400)


def test_a_label_is_evidence_once_it_has_settled(watch: Make) -> None:
    """Corrections within two hours count, later ones do not; a label that waits holds back those after it."""
    here = watch()
    here.settings = DriftSettings(swing=0.0, settling_hours=2.0)
    here.restart()
    here.predict(rows(20, 10), WRONG)
    here.run()
    assert here.drift("a", "accuracy").observed == Rate(0, 0)
    for after, ids in ((HOUR, range(10)), (2 * HOUR, range(10, 20))):  # of the 20 wrong ones
        here.now += after
        here.writer.label("m", [make_label(f"r{i}", here.now, "x") for i in ids]).result()
        here.predict(rows(20, 10), RIGHT)
        here.run()
        here.restart()
    assert here.drift("a", "accuracy").observed == Rate(30, 40)
    here.now += 2 * HOUR
    here.run()
    assert here.drift("a", "accuracy").observed == Rate(50, 60)


@pytest.mark.parametrize(("settling", "alarmed"), [(1.0, set()), (0.0, {"a", ALL_ROWS})])
def test_slips_that_are_corrected_in_time_are_no_alarm(watch: Make, settling: float, alarmed: set[str]) -> None:
    """A fifth of the first labels is wrong by mistake, for half an hour; at once they would alarm."""
    here = watch()
    here.settings = DriftSettings(swing=0.0, settling_hours=settling)
    here.restart()
    for _ in range(20):
        first = here.rows
        here.predict(rows(20, 10), **of_both(100, wrong=20))
        right = [make_label(f"r{first + i}", here.now + HOUR / 2, "xy"[i % 2]) for i in range(20)]
        here.writer.label("m", right).result()
    here.now += 2 * HOUR
    here.run()
    assert {alarm.drift.slice for alarm in here.alarms() if alarm.drift.kind == "accuracy"} == alarmed


def family_of_both(watch: Make, **changes: Any) -> Watch:
    """Return a watch of slices a and b in one family, with held-out counts by class of it and of all rows."""
    pairs = (("x", "x", 480), ("x", "y", 20), ("y", "x", 20), ("y", "y", 480))
    counts = SliceCounts(5_000, 5_000, 0, 5_000, 1_000, 960, 1_000, 1_000, 5_000, pairs)
    prints = {"a": "1", "b": "1"}
    here = watch(accuracies={ALL_ROWS: counts.accuracy}, metadata=dict.fromkeys("ab", Metadata(family="f")), **changes)
    bundle = SimpleNamespace(
        outputs=None,
        season=None,
        reference={ALL_ROWS: counts},
        function_fingerprints=prints,
        families={"f": FamilyCounts(prints, counts)},
    )
    here.deployment.state = replace(here.deployment.state, active=SimpleNamespace(bundle=bundle))
    here.restart()
    return here


@pytest.mark.parametrize("restarts", [False, True])
def test_a_family_alarms_for_slices_without_a_reference(watch: Make, restarts: bool) -> None:
    """A row in both slices counts once; the alarm names the class and the slices, and ends when its recall is back."""
    here = family_of_both(watch)
    overlapping = np.array([1] * 10 + [3] * 5 + [2] * 5 + [0] * 80, np.uint8)

    def block(wrong: int) -> None:
        labels = "".join("y" if n % 2 == 0 and n // 2 < wrong else "xy"[n % 2] for n in range(100))
        here.predict(overlapping, labels, called="xy")
        here.now += timedelta(minutes=5)
        here.run()
        if restarts:
            here.restart()

    for _ in range(6):
        block(wrong=0)
    family = here.drift("f", "family_accuracy")
    assert (family.observed, family.zone.reference) == (Rate(120, 120), Rate(960, 1_000, 1_000))
    assert "a" not in {status.slice for status in here.deployment.drift_statuses if status.kind == "accuracy"}
    while not (raised := [alarm for alarm in here.alarms() if alarm.drift.kind == "family_accuracy"]):
        block(wrong=7)
    (alarm,) = raised
    fall = alarm.drift.fall
    assert fall is not None
    assert (fall.true_class, fall.errors == fall.labels) == ("y", False)
    assert {part.slice for part in fall.parts} == {"a", "b"}
    assert sum(part.errors for part in fall.parts) > fall.errors  # those in both
    at = here.now
    while here.alarms(unresolved=True):
        block(wrong=0)
    (ended,) = {each.resolution for each in here.alarms() if each.drift.kind == "family_accuracy"}
    assert ended.startswith("recall of y was ")
    assert here.now - at > timedelta(minutes=50)
    here.deployment.state = replace(here.deployment.state, metadata={})
    here.run()
    assert "family_accuracy" not in {status.kind for status in here.deployment.drift_statuses}


def test_an_accepted_accuracy_is_known_by_class(watch: Make) -> None:
    """Its labels since the change are counted again from the log: the recall since then is no further fall."""
    here = family_of_both(watch)
    while not (raised := [alarm for alarm in here.alarms() if alarm.drift.slice == ALL_ROWS]):
        here.predict(rows(20, 10), **of_both(100, wrong=30))
        here.run()
    accept(here, raised[0])
    here.run()
    for _ in range(20):
        here.predict(rows(20, 10), **of_both(100, wrong=30))
        here.now += timedelta(minutes=5)
        here.run()
    assert [alarm for alarm in here.alarms(unresolved=True) if alarm.drift.slice == ALL_ROWS] == []
    assert here.drift(ALL_ROWS, "accuracy").zone.reference == raised[0].drift.observed


def test_a_corrected_label_is_no_new_evidence(watch: Make) -> None:
    """Only the first label of a prediction counts, where labels do not settle."""
    here = watch()
    here.predict(rows(20, 10), "x" * 100)
    here.writer.label("m", [make_label(f"r{i}", here.now, "y") for i in range(100)]).result()
    here.now += timedelta(seconds=10)
    here.run()
    assert here.drift(ALL_ROWS, "accuracy").observed == Rate(100, 100)


def test_a_promotion_resolves_alarms_of_the_earlier_version(watch: Make) -> None:
    """The promoted version starts with its own references and no evidence."""
    here = watch()
    for _ in range(5):
        here.predict(rows(60, 10))
    here.run()
    values = {"promoted_at": here.now, "references": {"a": Rate(600, 1_000)}, "version": 2}
    here.deployment.state = make_local_state(**values)
    here.run()
    (alarm,) = here.alarms()
    assert (alarm.state, alarm.resolution) == ("resolved", "version 2 was promoted")
    assert [(d.slice, d.observed.n) for d in here.deployment.drift_statuses] == [("a", 0)]


def test_an_alarm_is_resolved_once_the_rate_is_back_for_an_hour(watch: Make) -> None:
    """A rate within its band in the last hour needs no attention."""
    here = watch()
    for _ in range(5):
        here.predict(rows(60, 10))
    here.run()
    assert len(here.alarms(unresolved=True)) == 1
    here.now += timedelta(minutes=65)
    for _ in range(20):
        here.predict(rows(20, 10))
    here.run()
    (alarm,) = here.alarms()
    assert alarm.state == "resolved"
    assert alarm.resolution == "coverage was 0.2 in the last hour, back within its tolerance band"


def test_an_accuracy_alarm_is_resolved_by_labels_and_not_by_a_window_that_leaves_wrong_ones_behind(watch: Make) -> None:
    """Labels run dry after a good end: hours later the last hour has good ones only, and the alarm stays."""
    here = missed(watch)
    here.now += timedelta(minutes=65)
    for labels in (WRONG, WRONG, WRONG):
        here.predict(rows(20, 10), labels)
    here.now += timedelta(minutes=30)
    for _ in range(2):
        here.predict(rows(20, 10), RIGHT)
    here.run()
    for _ in range(6):
        here.now += timedelta(minutes=10)
        here.predict(rows(20, 10))
        here.run()
        here.restart()
    (alarm,) = here.alarms()
    assert (alarm.state, here.drift("a", "accuracy").observed.n) == ("open", 5 * 20 + 8 * 20)
    here.predict(rows(20, 10), RIGHT)
    here.run()
    assert [each.resolution for each in here.alarms()] == [
        "accuracy was 1 in the last hour, back at its target of 75.0%"
    ]


@pytest.mark.parametrize("unknown", [False, True])
def test_a_coverage_alarm_is_not_resolved_by_missing_rows(watch: Make, unknown: bool) -> None:
    """Traffic stops, or the function fails on all rows, after a good end; the last hour loses the bad rows."""
    here = watch(accuracies={})
    for _ in range(5):
        here.predict(rows(60, 10))
    here.run()
    here.now += timedelta(minutes=65)
    for members in (60, 20):
        for _ in range(20):
            here.predict(rows(members, 10))
        here.now += timedelta(minutes=10)
    here.run()
    for minute in range(0, 42, 6):
        if unknown:
            lost = make_prediction(f"lost{minute}", here.now, member=b"\0", unknown=b"\3", content_hash=minute)
            here.writer.append([lost]).result()
        here.now += timedelta(minutes=6)
        here.run()
    assert [(each.drift.slice, each.state) for each in here.alarms()] == [("a", "open")]
    here.predict(rows(20, 10))
    here.run()
    (alarm,) = here.alarms()
    assert alarm.resolution == "coverage was 0.2 in the last hour, back within its tolerance band"


def test_unresolved_alarms_are_on_the_metrics_page_before_the_first_run(watch: Make) -> None:
    """A start shows them with the last snapshot: the first run may take long."""
    here = missed(watch)
    here.restart()
    here.page.drift = None
    here.job.restore()
    assert here.page.drift == ("m", (), here.alarms())


def test_an_alarm_of_a_changed_function_is_resolved(watch: Make) -> None:
    """An alarm concerns one version of a function."""
    here = watch(references={"b": Rate(2_000, 20_000)}, accuracies={})
    for _ in range(5):
        here.predict(rows(20, 60))
    here.run()
    assert [each.drift.slice for each in here.alarms(unresolved=True)] == ["b"]
    here.deployment.state = make_local_state("edited", promoted_at=here.begin)
    here.run()
    (alarm,) = here.alarms()
    assert alarm.resolution == "the slicing function was changed or removed"


def test_the_audit_records_opened_and_resolved_alarms(watch: Make) -> None:
    """Both entries name the monitor as the actor."""
    here = watch()
    for _ in range(5):
        here.predict(rows(60, 10))
    here.run()
    here.deployment.state = make_local_state(version=2, promoted_at=here.now)
    here.run()
    with here.store.read() as connection:
        audit = [(entry.actor, entry.action, entry.subject) for _, entry in entries(connection)]
    assert audit == [("monitor", "alarm.resolved", "alarm 1"), ("monitor", "alarm.opened", "alarm 1")]


def test_without_a_version_nothing_is_detected(watch: Make) -> None:
    """Nothing is shown, since there is no reference."""
    here = watch()
    here.deployment.state = make_state(version=None)
    here.job.run(here.now)
    assert here.page.drift is None


def test_damaged_evidence_is_gathered_again(watch: Make, caplog: pytest.LogCaptureFixture) -> None:
    """An unreadable state is logged, and detection starts over."""
    here = watch()
    here.predict(rows(20, 10))
    here.run()
    here.writer.save_checkpoint("drift", here.now, b'{"version": 1}').result()
    here.restart()
    here.run()
    assert "gathered from the start" in caplog.text
    assert here.drift("a").observed == Rate(20, 100)


def test_detection_starts_at_the_promotion_but_at_most_a_day_ago(watch: Make) -> None:
    """Without stored evidence, older rows are skipped."""
    here = watch()
    here.predict(rows(20, 10))
    here.now += timedelta(days=2)
    here.predict(rows(30, 10))
    here.run()
    assert here.drift("a").observed == Rate(30, 100)


def test_an_incomplete_block_and_later_ones_wait(watch: Make) -> None:
    """Rows that arrive after the watermark, but before a run, are fed exactly once after they are counted."""
    here = watch(accuracies={})
    for _ in range(3):
        here.predict(rows(20, 10))
    now = here.now + timedelta(seconds=40)
    here.snapshots.run(now)
    here.log(here.begin + timedelta(seconds=10), rows(5, 0, of=50))
    here.job.run(now)
    assert here.drift("a").observed == Rate(20, 100)
    for _ in range(2):
        here.run()
        assert here.drift("a").observed == Rate(65, 350)


def test_an_uncounted_block_holds_back_later_ones(watch: Make) -> None:
    """A missing block is not skipped."""
    here = watch(accuracies={})
    here.predict(rows(20, 10))
    here.now += timedelta(seconds=10)
    here.predict(rows(20, 10))
    now = here.now + timedelta(seconds=40)
    here.snapshots.run(now)
    here.log(here.begin + timedelta(seconds=10), rows(30, 10))
    here.job.run(now)
    assert here.drift("a").observed == Rate(20, 100)
    here.run()
    assert here.drift("a").observed == Rate(70, 300)


def test_a_late_label_holds_back_no_block(watch: Make) -> None:
    """A block that is dirty because of a label has all of its rows."""
    here = watch(accuracies={})
    for _ in range(2):
        here.predict(rows(20, 10))
    now = here.now + timedelta(seconds=40)
    here.snapshots.run(now)
    here.writer.label("m", [make_label("r0", here.now)]).result()
    with here.store.read() as connection:
        assert dirty_count(connection) == 1
    here.job.run(now)
    assert here.drift("a").observed == Rate(40, 200)


@pytest.mark.parametrize(("late", "set_hash"), [(220, "first"), (100, "edited")])
def test_blocks_around_a_waiting_long_block_wait_too(watch: Make, late: int, set_hash: str) -> None:
    """After blocks were merged, a short block of the same time does not overtake a long one."""
    full_hour = START.replace(minute=0, second=0, microsecond=0)
    now = full_hour + timedelta(hours=1)
    here = watch(references={"a": Rate(0, 0)}, accuracies={}, promoted_at=full_hour)

    def log(seconds: int, **changes: Any) -> None:
        at = full_hour + timedelta(seconds=seconds)
        changes["member"] = b"\x01"
        here.writer.append([make_prediction(f"{seconds}.{i}", at, **changes) for i in range(10)]).result()

    log(200)
    here.snapshots.run(now)
    assert here.writer.roll_up(now, 300).result() == 1
    log(50, set_hash="edited")
    here.snapshots.run(now)
    log(late, set_hash=set_hash)
    here.job.run(now)
    assert here.drift("a").observed == Rate(0, 0)
    for _ in range(2):
        here.snapshots.run(now)
        here.job.run(now)
        assert here.drift("a").observed == Rate(30, 30)


def test_a_backlog_is_read_in_parts(watch: Make) -> None:
    """No run reads more than an hour of full blocks, and together they read all."""
    here = watch(references={"a": Rate(0, 0)}, accuracies={})
    predictions = [make_prediction(f"p{i}", here.begin + timedelta(seconds=10 * i), member=b"\x00") for i in range(800)]
    here.writer.append(predictions).result()
    now = here.begin + timedelta(seconds=8_040)
    here.snapshots.run(now)
    read = [0]
    for _ in range(5):
        here.job.run(now)
        read.append(here.drift("a").observed.n)
        here.restart()
    assert np.diff(read).max() <= 360
    assert read[-1] == 800


def test_without_references_rows_are_no_evidence(watch: Make) -> None:
    """Once there are references, only later rows are evidence."""
    here = watch(references={}, accuracies={})
    here.predict(rows(20, 10), "x" * 100)
    here.run()
    assert here.deployment.drift_statuses == ()
    values = {"promoted_at": here.begin, "references": REFERENCES, "accuracies": ACCURACIES}
    here.deployment.state = make_local_state(**values)
    here.now += timedelta(seconds=60)
    here.predict(rows(30, 10), "x" * 100)
    here.run()
    assert here.drift("a").observed == Rate(30, 100)
    assert here.drift("a", "accuracy").observed == Rate(30, 30)


class Turning:
    """A deployment that activates another version as soon as its state was read."""

    def __init__(self, states: Sequence[DeploymentState], snapshot: Snapshot | None) -> None:
        self._states, self.snapshot = list(states), snapshot
        self.drift_statuses: tuple[DriftStatus, ...] = ()

    @property
    def state(self) -> DeploymentState:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]


def test_a_run_uses_one_state_of_the_deployment(watch: Make) -> None:
    """A version that is activated during a run takes effect in the next one."""
    here = watch(accuracies={})
    for _ in range(5):
        here.predict(rows(60, 10))
    here.run()
    states = [here.deployment.state, make_local_state(version=2, promoted_at=here.now)]
    here.deployment = Turning(states, here.deployment.snapshot)
    here.job = here.detection(here.writer)
    here.job.run(here.now + timedelta(seconds=40))
    assert [each.state for each in here.alarms()] == ["open"]
    here.job.run(here.now + timedelta(seconds=40))
    assert [each.resolution for each in here.alarms()] == ["version 2 was promoted"]


def test_a_snapshot_of_another_version_resolves_no_alarm(watch: Make) -> None:
    """The last hour may still be that of the earlier version."""
    here = watch(accuracies={})
    for _ in range(5):
        here.predict(rows(60, 10))
    here.run()
    here.now += timedelta(minutes=65)
    for _ in range(20):
        here.predict(rows(20, 10))
    here.snapshots.run(here.now)
    here.deployment.snapshot = replace(here.deployment.snapshot, version=2)
    here.job.run(here.now)
    assert [each.state for each in here.alarms()] == ["open"]


@pytest.mark.parametrize("reference", [Rate(0, 0), Rate(0, 1), Rate(1, 1), Rate(2, 3), Rate(0, 10**9)])
def test_references_of_any_size_are_accepted(watch: Make, reference: Rate) -> None:
    """A reference of few or no rows allows every rate, and so do limits of 0 and 1."""
    here = watch(references=dict.fromkeys("abc", reference), accuracies=dict.fromkeys(("a", ALL_ROWS), reference))
    for member in (rows(0, 0), rows(100, 0), rows(3, 90)):
        here.predict(member, "x" * 50 + "y" * 50)
        here.run()
    assert here.drift("a").observed.n > 0
    alarmed = {each.drift.slice for each in here.alarms() if each.drift.kind == "coverage"}
    assert alarmed == ({"a", "b"} if reference.n > 100 else set())


def test_an_unrecorded_function_set_is_an_error(watch: Make) -> None:
    """The message names the set, and the remedy."""
    here = watch()
    lost = empty("m", 1, "lost", 2, here.begin, 10)
    start_us = int(here.begin.timestamp()) * 1_000_000
    here.writer.submit(lambda c: write_counts(c, [(SeriesKey("m", 1, "lost"), (start_us, 10), lost)])).result()
    with pytest.raises(StoreError, match=r"function set 'lost' is not in the store, but rows .*: restore"):
        here.job.run(here.now + timedelta(seconds=40))


def test_a_slice_that_changes_direction_alarms_again(watch: Make) -> None:
    """When a slice that grew nearly vanishes, its alarm is resolved and another opened."""
    here = watch(accuracies={})
    for a in (60, 1):
        for _ in range(15):
            here.predict(rows(a, 10))
            here.run()
    second, first = here.alarms()
    assert (first.state, first.drift.direction) == ("resolved", "up")
    assert (second.state, second.drift.direction) == ("open", "down")
    assert first.resolution.startswith("superseded: coverage changed from 6")
    assert here.page.drift[2] == [second]


def test_rows_logged_with_a_lag_are_watched(watch: Make, page: Any) -> None:
    """The end of the watched time follows the clock while no block waits, and stands while one does."""
    made = watch()
    for _ in range(3):
        made.log(made.now - timedelta(hours=2), np.ones(5))
        made.now += timedelta(minutes=20)
        made.run()
        assert page.watched_until == watermark(made.now + timedelta(seconds=40))
    made.log(made.now, np.ones(5))
    made.now += timedelta(minutes=20)
    made.job.run(made.now)  # not counted yet
    assert page.watched_until < made.now - timedelta(minutes=20)
    made.run()
    assert page.watched_until == watermark(made.now + timedelta(seconds=40))


def accept(here: Watch, alarm: Alarm) -> None:
    here.writer.submit(lambda c: accept_alarm(c, alarm.id, here.now, "a new client", actor="ada")).result()


def test_an_accepted_rate_is_expected_from_then_on(watch: Make) -> None:
    """After the acceptance the rate since the change raises no alarm, also after a restart, and a further one does."""
    here = watch(accuracies={})
    for _ in range(20):
        here.predict(rows(40, 10))
        here.run()
    (raised,) = here.alarms(unresolved=True)
    accept(here, raised)
    for block in range(30):
        here.predict(rows(40, 10))
        here.run()
        if block == 10:
            here.restart()
    assert [(each.id, each.resolution) for each in here.alarms()] == [
        (raised.id, "accepted as the new normal: a new client")
    ]
    zone = here.drift("a").zone
    assert zone is not None
    assert zone.lower < 0.4 < zone.upper
    for _ in range(20):
        here.predict(rows(75, 10))
        here.run()
    (further,) = here.alarms(unresolved=True)
    assert further.drift.direction == "up"


def test_an_accepted_accuracy_is_expected_from_then_on(watch: Make) -> None:
    """An accuracy that fell is the reference of its slice once it was accepted."""
    here = watch(references={})
    for _ in range(20):
        here.predict(rows(60, 0), "x" * 30 + "y" * 70)
        here.run()
    raised = next(each for each in here.alarms(unresolved=True) if each.drift.slice == "a")
    for each in here.alarms(unresolved=True):
        accept(here, each)
    for _ in range(20):
        here.predict(rows(60, 0), "x" * 30 + "y" * 70)
        here.run()
    assert here.alarms(unresolved=True) == []
    zone = here.drift("a", "accuracy").zone
    assert zone is not None
    assert zone.reference.n >= raised.drift.observed.n


def test_live_traffic_sets_the_expected_coverage_after_a_day(watch: Make) -> None:
    """After a whole day the coverage of live traffic is expected, of other versions, too, and after restarts."""
    here = watch(accuracies={}, references={"a": Rate(400, 2_000)})
    here.now = here.begin = here.begin.replace(hour=23, minute=50)
    here.deployment.state = make_local_state(promoted_at=here.begin, references={"a": Rate(400, 2_000)})
    for block in range(160):
        here.predict(rows(22, 10))
        here.now += timedelta(minutes=9, seconds=50)
        if block % 20 == 0 or block > 155:
            here.run()
        if block == 80:
            here.restart()
    assert here.alarms() == []
    zone = here.drift("b").zone  # without a reference
    assert zone is not None
    assert zone.live is not None
    assert (zone.live.source, zone.live.days) == ("live traffic", 1)
    assert zone.lower < 0.1 < zone.upper
    here.deployment.state = replace(here.deployment.state, version=2, promoted_at=here.now)
    here.predict(rows(22, 10), version=2)
    here.run()
    again = here.drift("b").zone
    assert again is not None
    assert again.live == zone.live


STREAMS = ("no_slice", "unknown", "predicted")


def streaming(watch: Make) -> Watch:
    """Return a watch of further rates after a calm day: no unknown rows, 40% in no slice, 5% predicted as y."""
    here = watch(accuracies={}, references={})
    here.settings = DriftSettings(swing=0.0, streams=STREAMS)
    here.now = here.begin.replace(hour=23, minute=0) - timedelta(days=2)
    here.deployment.state = make_local_state(promoted_at=here.now, accuracies={}, references={})
    here.restart()
    for hour in range(26):
        mixed(here, a=60, unknown=0, y=5)
        here.now += timedelta(minutes=59, seconds=50)
        if hour == 0:
            here.run()
    here.run()
    return here


def mixed(here: Watch, a: int, unknown: int, y: int, blocks: int = 1, version: int = 1) -> None:
    """Log blocks of 100 rows: the first in slice a, the next unknown to b, the last predicted as y."""
    for _ in range(blocks):
        given = [
            make_prediction(
                f"s{here.rows + k}",
                here.now,
                "y" if k >= 100 - y else "x",
                version=version,
                member=b"\x01" if k < a else b"\x00",
                unknown=b"\x02" if a <= k < a + unknown else b"\x00",
                content_hash=here.rows + k,
            )
            for k in range(100)
        ]
        here.rows += 100
        here.writer.append(given).result()
        here.now += timedelta(seconds=10)


def test_further_rates_alarm_once_live_traffic_has_taught_them(watch: Make) -> None:
    """Unknown rows, rows in no slice and classes have alarms of their own, which say what moved; restarts add none."""
    here = streaming(watch)
    assert here.alarms() == []
    mixed(here, a=10, unknown=5, y=50, blocks=10)
    here.run()
    here.restart()
    mixed(here, a=10, unknown=5, y=50, blocks=5)
    here.run()
    found = {(each.drift.kind, each.drift.slice, each.drift.direction): each for each in here.alarms(unresolved=True)}
    assert {("unknown", "b", "up"), ("predicted", "x", "down"), ("predicted", "y", "up")} < found.keys()
    assert ("coverage", NONE_FIRED, "up") in found
    assert "unknown rows of b are 5" in alarm_sentence(found["unknown", "b", "up"])
    assert alarm_sentence(found["unknown", "b", "up"]).endswith("expected <0.001% to 0.54%")
    assert alarm_sentence(found["predicted", "y", "up"]).startswith("share of predicted class y is 50")
    assert len(found) == len(here.alarms())


OUTPUTS = OutputRates(float(LIMITS[20]), Rate(200, 2_000), {"b": Rate(40, 2_000)})
LOW = f"below {LIMITS[20]:.6g}"
HALFWAY = f"below {LIMITS[nearest_limit(0.75)]:.6g}"


def comparing(watch: Make, outputs: OutputRates | None) -> Watch:
    """Return a watch of the outputs of a model with an indicator of slice b, and these held-out rates."""
    here = watch(accuracies={})
    here.settings = DriftSettings(swing=0.0, streams=("disagreement", "confidence"))
    bundle = SimpleNamespace(outputs=outputs, season=None, reference={}, families={}, function_fingerprints={})
    active: Any = SimpleNamespace(bundle=bundle, indicated=lambda: ["b"])
    here.deployment.state = replace(here.deployment.state, active=active)
    here.restart()
    return here


def decided(here: Watch, wrong: int, low: int, known: int = 100) -> None:
    """Log a block of 100 rows: indicators contradict b on the first, and the last have a low confidence."""
    given = [
        make_prediction(
            f"d{here.rows + k}",
            here.now,
            member=b"\x01" if k % 5 == 0 else b"\x02" if k % 10 == 1 else b"\x00",
            unknown=b"\x00" if k < known else b"\x02",
            content_hash=here.rows + k,
            probabilities=(0.52, 0.48) if k >= 100 - low else (0.01, 0.99),
            disagreement=b"\x02" if k < wrong else b"\x00",
        )
        for k in range(100)
    ]
    here.rows += 100
    here.writer.append(given).result()
    here.now += timedelta(seconds=10)


@pytest.mark.parametrize("restarts", [False, True])
def test_outputs_alarm_against_the_held_out_rows(watch: Make, restarts: bool) -> None:
    """At once, without a day of traffic; slices without an indicator have no such rate."""
    here = comparing(watch, OUTPUTS)
    for wrong, low in ((2, 10), (30, 60)):
        for _ in range(20):
            decided(here, wrong, low)
            here.run()
            if restarts:
                here.restart()
        if wrong == 2:
            assert here.alarms() == []
            assert (here.drift("b", "disagreement").observed, here.drift(LOW, "confidence").observed) == (
                Rate(40, 2_000),
                Rate(200, 2_000),
            )
    found = {(each.drift.kind, each.drift.slice): each for each in here.alarms(unresolved=True)}
    assert found.keys() == {("disagreement", "b"), ("confidence", LOW)}
    assert {each.drift.direction for each in found.values()} == {"up"}
    sentences = {kind: alarm_sentence(alarm) for (kind, _), alarm in found.items()}
    assert sentences["disagreement"].startswith("rows of which the model's indicator contradicts b are 30")
    assert sentences["confidence"].startswith(f"share of predictions with a confidence {LOW} is 60")


def test_outputs_of_earlier_bundles_are_learned_from_live_traffic(watch: Make) -> None:
    """They are monitored once there is a day of it, below the limit halfway to certainty; another version begins."""
    here = comparing(watch, None)
    here.now = here.begin.replace(hour=23, minute=0) - timedelta(days=2)
    here.deployment.state = replace(here.deployment.state, promoted_at=here.now)
    here.restart()
    for hour in range(26):
        decided(here, 30, 60)
        here.now += timedelta(minutes=59, seconds=50)
        if hour == 0:
            here.run()
            assert {each.kind for each in here.deployment.drift_statuses} == {"coverage"}
    here.run()
    for drift in (here.drift("b", "disagreement"), here.drift(HALFWAY, "confidence")):
        assert drift.zone is not None
        assert drift.zone.live is not None
        assert drift.zone.live.source == "live traffic"
        assert drift.zone.lower < (0.3 if drift.slice == "b" else 0.6) < drift.zone.upper
    for _ in range(10):
        decided(here, 0, 5)
    here.run()
    assert {(each.drift.kind, each.drift.direction) for each in here.alarms()} == {
        ("disagreement", "down"),
        ("confidence", "down"),
    }
    here.deployment.state = replace(here.deployment.state, version=2, promoted_at=here.now)
    here.run()
    assert {each.kind for each in here.deployment.drift_statuses} == {"coverage"}


def test_outputs_count_once_while_the_clock_is_set(watch: Make) -> None:
    """Rows that are read in order of arrival have them, too; rows without a known membership are not compared."""
    here = comparing(watch, OUTPUTS)
    for step in (timedelta(0), -2 * HOUR):
        here.now += step
        for _ in range(4):
            decided(here, 2, 10, known=90)
            here.run(timedelta(0))
    here.now += timedelta(days=1)
    here.run()
    assert here.drift("b", "disagreement").observed == Rate(16, 720)
    assert here.drift(LOW, "confidence").observed == Rate(80, 800)


@pytest.mark.parametrize(("zone", "fingerprint"), [("UTC", "1"), ("Europe/Berlin", "1"), ("UTC", "2")])
def test_the_season_of_the_table_is_in_force_for_its_functions(watch: Make, zone: str, fingerprint: str) -> None:
    """In the time zone of the settings, and for functions that are those of the training."""
    here = watch(accuracies={})
    here.settings = DriftSettings()
    members = dict.fromkeys(("a", "b"), (40000,) * 84 + (80000,) * 84)
    season = TableSeason(zone, (400_000,) * 168, members, {}, {"a": 1.0, "b": 1.0})
    trained = {"a": fingerprint, "b": "2"}
    bundle = SimpleNamespace(season=season, function_fingerprints=trained, reference={}, families={})
    here.deployment.state = replace(here.deployment.state, active=SimpleNamespace(bundle=bundle))
    here.restart()
    here.predict(rows(20, 10))
    here.run()
    learning = {}
    for name in ("a", "b"):
        zone_of = here.drift(name).zone
        assert zone_of is not None
        assert zone_of.live is not None
        learning[name] = zone_of.live.missing
    is_used = (zone, fingerprint) == ("UTC", "1")
    assert learning["a"] == "hour of day: 0 of 1 days" + "; season: training table" * is_used
    assert learning["b"] == "hour of day: 0 of 1 days"


def test_rows_without_outputs_are_no_evidence(watch: Make) -> None:
    """Such as those of the time before the stream was switched on."""
    here = comparing(watch, OUTPUTS)
    here.predict(rows(20, 10))
    decided(here, 2, 10)
    here.predict(rows(20, 10))
    here.run()
    assert here.drift("b", "disagreement").observed == Rate(2, 100)
    assert here.drift(LOW, "confidence").observed == Rate(10, 100)
    assert here.drift("a").observed == Rate(60, 300)


def test_further_rates_are_accepted_relearned_and_given_up(watch: Make) -> None:
    """An accepted rate is expected, a new version has class shares of its own, and a removed stream has no alarm."""
    here = streaming(watch)
    mixed(here, a=60, unknown=25, y=5, blocks=5)
    here.run()
    (unknown,) = (each for each in here.alarms(unresolved=True) if each.drift.kind == "unknown")
    accept(here, unknown)
    mixed(here, a=60, unknown=25, y=5, blocks=10)
    here.run()
    zone = here.drift("b", "unknown").zone
    assert zone is not None
    assert zone.lower < 0.25 < zone.upper
    assert [each for each in here.alarms(unresolved=True) if each.drift.kind == "unknown"] == []
    mixed(here, a=60, unknown=25, y=60, blocks=5)
    here.run()
    assert "predicted" in {each.drift.kind for each in here.alarms(unresolved=True)}
    here.settings = DriftSettings(swing=0.0, streams=("unknown",))
    here.restart()
    mixed(here, a=60, unknown=25, y=60)
    here.run()
    given_up = {each.resolution for each in here.alarms() if each.drift.kind == "predicted"}
    assert given_up == {"the rate is no longer monitored"}
    here.settings = DriftSettings(swing=0.0, streams=STREAMS)
    here.deployment.state = replace(here.deployment.state, version=2, promoted_at=here.now)
    mixed(here, a=60, unknown=25, y=60, version=2)
    here.run()
    assert {each.kind for each in here.deployment.drift_statuses} == {"coverage", "unknown"}


def voting(watch: Make, **changes: Any) -> Watch:
    """Watch the votes of a labelling function for y, which were right on 475 of 500 labels of the training."""
    function = LabelingFunction("a", lambda x: 1)
    figures = {"classes": ("y",), "votes": 900, "known": 2_000, "estimated_accuracy": 0.94, "labelled": 500}
    counted = {"correct": 475, "effective_n": 500, "accuracy_lower": 0.92, "accuracy_upper": 0.97}
    metrics = LabelingFunctionMetrics("a", **(figures | counted | changes))  # type: ignore[arg-type]
    bundle = make_local_state().active.bundle  # type: ignore[union-attr]
    bundle.report = SimpleNamespace(labels=SimpleNamespace(functions=(metrics,)))
    bundle.lineage = {"config": {"labeling_functions": {"a": function.fingerprint}}}
    live = LiveFunctions(FunctionSet([LabelingFunctionSlice(function)]))
    here = watch(references={}, live=live, active=ActiveModel(bundle, 1, live))
    here.settings = DriftSettings(swing=0.0, settling_hours=0.0, streams=("votes",))
    here.restart()
    return here


def vote(here: Watch, right: int, wrong: int) -> None:
    """Log rows of slice a, of which the model knows the class, and the labels of a function that votes for y."""
    truth = "y" * right + "x" * wrong
    here.predict(np.ones(right + wrong, np.uint8), truth, called=truth)
    here.run()


@pytest.mark.parametrize("restarts", [False, True])
def test_wrong_votes_alarm_though_the_model_is_right(watch: Make, restarts: bool) -> None:
    """The alarm names the function, is none of the model, and ends once the votes are right again."""
    here = voting(watch)
    for _ in range(20):
        vote(here, 19, 1)
    assert here.alarms() == []
    status = here.drift("a", "votes")
    assert (status.observed, status.zone.reference) == (Rate(380, 400), Rate(475, 500))  # type: ignore[union-attr]
    while not here.alarms():
        vote(here, 14, 6)
        if restarts:
            here.restart()
        assert here.now < here.begin + timedelta(hours=1)
    (alarm,) = here.alarms()
    assert (alarm.drift.kind, alarm.drift.slice, alarm.drift.direction) == ("votes", "a", "down")
    assert alarm_sentence(alarm).startswith("accuracy of the votes of a is 7")
    assert alarm.drift.stands_alone
    here.now += timedelta(hours=1)
    for _ in range(40):
        here.now += timedelta(minutes=2)
        vote(here, 20, 0)
    assert here.alarms(unresolved=True) == []


def test_accepted_votes_are_expected(watch: Make) -> None:
    """The accuracy since the change is the new reference."""
    here = voting(watch)
    while not here.alarms():
        vote(here, 14, 6)
    (alarm,) = here.alarms()
    vote(here, 14, 6)
    here.writer.submit(lambda connection: accept_alarm(connection, alarm.id, here.now, actor="ada")).result()
    for _ in range(30):
        vote(here, 14, 6)
    assert [each.id for each in here.alarms()] == [alarm.id]
    assert here.drift("a", "votes").zone.reference.value == pytest.approx(0.7)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "streams"),
    [({}, ()), ({"classes": ("x", "y")}, ("votes",)), ({"labelled": 0, "correct": 0, "effective_n": 0}, ("votes",))],
)
def test_votes_are_monitored_if_wanted_and_known(
    watch: Make, changes: dict[str, Any], streams: tuple[str, ...]
) -> None:
    """Only with the stream, of a function that votes for one class, with labels in the training."""
    here = voting(watch, **changes)
    here.settings = DriftSettings(swing=0.0, settling_hours=0.0, streams=streams)
    here.restart()
    vote(here, 19, 1)
    assert "votes" not in {each.kind for each in here.deployment.drift_statuses}


def test_an_alarm_on_the_votes_of_a_changed_function_is_resolved(watch: Make) -> None:
    """Nothing is expected of the new one until the next training."""
    here = voting(watch)
    while not here.alarms():
        vote(here, 14, 6)
    changed = replace(FUNCTION_SETS["first"], hash="other", fingerprints=("2", "1", "1"))
    here.writer.record_functions(changed).result()
    other = LiveFunctions(FunctionSet([LabelingFunctionSlice(LabelingFunction("a", lambda x: 0))]))
    here.deployment.state = replace(here.deployment.state, functions_version=changed, live=other)
    here.run()
    assert {each.resolution for each in here.alarms()} == {"the labelling function was changed or removed"}
    assert "votes" not in {each.kind for each in here.deployment.drift_statuses}
