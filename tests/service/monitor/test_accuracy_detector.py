"""Accuracy of slices, families and all rows: limits, state, recovery, and the words of an alarm."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from service.decisions import Alarm, DriftDetected, FallPart, RateKey
from service.monitor.accuracy_detector import (
    AccuracyDetector,
    AccuracyReference,
    LabelledBlock,
    labels_to_alarm,
    matrix_of,
    pairs_of,
)
from service.monitor.tolerance_band import accuracy_band
from service.settings.schema import DriftSettings
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

CLASSES = ("ham", "spam")
ALL = RateKey(ALL_ROWS, None, "accuracy")
SLICES = [RateKey(name, "1", "accuracy") for name in "abc"]
FAMILY = RateKey.of_family("f", {"a": "1", "b": "1"})
START = datetime(2026, 5, 1, tzinfo=UTC)
TEN = timedelta(seconds=10)
REFERENCE = np.array([[4_850, 150], [60, 540]])


def expected(times: int = 1, target: float | None = None, by_class: bool = True) -> AccuracyReference:
    """Return the expectation of a multiple of the reference."""
    matrix = times * REFERENCE
    rate = Rate(int(matrix.trace()), int(matrix.sum()))
    return AccuracyReference(accuracy_band(rate, 0.01, 200, target), pairs_of(matrix, CLASSES) if by_class else ())


def make(classes: Sequence[str] = CLASSES, **changes: AccuracyReference) -> AccuracyDetector:
    """Return the detector of three slices, of the family of two, and of all rows."""
    references = {ALL: expected(3), **dict.fromkeys(SLICES, expected()), FAMILY: expected(2)}
    references |= {key: changes[key.slice] for key in references if key.slice in changes}
    return AccuracyDetector(references, {FAMILY: SLICES[:2]}, classes, DriftSettings(), START)


def blocks(
    hours: int, errors: tuple[float, float], seed: int = 0, first: int = 0, n: tuple[int, int] = (10, 4)
) -> Iterator[LabelledBlock]:
    """Yield the labels of every hour, of every slice; c is in no family."""
    rng = np.random.default_rng((seed, first))
    for hour in range(first, first + hours):
        start = START + timedelta(hours=hour)
        wrong = rng.binomial(n, errors, (3, 2))
        right = np.array(n) - wrong
        confusion = np.stack([np.stack([right[:, 0], wrong[:, 0]], 1), np.stack([wrong[:, 1], right[:, 1]], 1)], 1)
        counts = dict(zip(SLICES, confusion, strict=True))
        yield LabelledBlock(
            start, start + TEN, counts | {FAMILY: confusion[:2].sum(axis=0), ALL: confusion.sum(axis=0)}
        )


def feed(detector: AccuracyDetector, labels: Iterator[LabelledBlock]) -> list[DriftDetected]:
    return [found for block in labels for found in detector.advance(block)]


def test_pairs_are_a_matrix_in_the_order_of_the_classes() -> None:
    """Pairs of other classes are left out."""
    assert matrix_of(pairs_of(REFERENCE, CLASSES), CLASSES).tolist() == REFERENCE.tolist()
    assert matrix_of((("spam", "ham", 2), ("eggs", "ham", 9)), ("spam", "ham")).tolist() == [[0, 2], [0, 0]]


def test_a_fall_of_recall_alarms_in_slices_family_and_all_rows() -> None:
    """The alarm names the class, its counts and its limit; the family has its slices as parts."""
    detector = make()
    assert feed(detector, blocks(48, (0.03, 0.1))) == []
    found = feed(detector, blocks(240, (0.03, 0.5), first=48))
    assert {(each.drift.slice, each.drift.kind) for each in found} == {
        *((name, "accuracy") for name in ("a", "b", "c", ALL_ROWS)),
        ("f", "family_accuracy"),
    }
    for drift in (each.drift for each in found):
        assert drift.fall is not None
        assert drift.direction == "down"
        assert drift.since is not None
        assert drift.evidence >= drift.threshold > 0
    drift = next(each.drift for each in found if each.drift.slice == "f")
    assert abs(drift.since - START - timedelta(hours=48)) <= timedelta(hours=6)
    fall = drift.fall
    assert (fall.true_class, fall.errors / fall.labels) == ("spam", pytest.approx(0.5, abs=0.1))
    assert fall.limit == pytest.approx(0.14, abs=0.03)
    assert {part.slice for part in fall.parts} == {"a", "b"}
    assert (sum(part.errors for part in fall.parts), sum(part.labels for part in fall.parts)) == (
        fall.errors,
        fall.labels,
    )
    assert drift.observed.n == pytest.approx(3.5 * fall.labels)  # ten hams beside four spams


@pytest.mark.parametrize("every", [1, 5])
def test_a_restart_after_every_block_changes_nothing(every: int) -> None:
    """The same alarms at the same blocks, and the same states in between."""
    own, twin = make(), make()
    for k, block in enumerate(blocks(90, (0.06, 0.4))):
        assert own.advance(block) == twin.advance(block)
        assert own.drifts() == twin.drifts()
        if k % every == 0:
            state, own = own.to_bytes(), make()
            own.resume(state)
            assert own.restarted == ()


def test_rates_with_other_limits_begin_again_and_others_continue() -> None:
    """Also within one process; labels of before are neither evidence nor shown."""
    detector, changed = make(), make(a=expected(2))
    feed(detector, blocks(24, (0.05, 0.3)))
    changed.resume(detector)
    assert changed.restarted == (SLICES[0],)
    states = {RateKey(each.slice, each.fingerprint, each.kind): each for each in detector.drifts()}
    for after in changed.drifts():
        key = RateKey(after.slice, after.fingerprint, after.kind)
        if key == SLICES[0]:
            assert (after.observed, after.evidence) == (Rate(0, 0), 0)
        else:
            assert after == states[key]


def test_another_version_takes_over_the_dispersion_alone() -> None:
    """Its evidence is its own."""
    detector, next_version = make(), make()
    feed(detector, blocks(24, (0.05, 0.5)))
    next_version.resume(detector, evidence=False)
    assert next_version.restarted == ()
    assert {(each.evidence, each.observed) for each in next_version.drifts()} == {(0, Rate(0, 0))}


def test_other_classes_begin_again() -> None:
    """Counts by class cannot be compared."""
    detector, other = make(), make(classes=("ham", "spam", "eggs"))
    feed(detector, blocks(24, (0.05, 0.3)))
    other.resume(detector.to_bytes())
    assert set(other.restarted) == {ALL, FAMILY, *SLICES}


@pytest.mark.parametrize("state", [b"", b"x" * 100])
def test_a_damaged_state_is_an_error(state: bytes) -> None:
    """Also a state that was cut."""
    for damaged in (state, make().to_bytes()[:-20]):
        with pytest.raises(ValueError, match="damaged"):
            make().resume(damaged)


def test_a_target_is_about_all_labels() -> None:
    """The recalls are calm by their own limits; the target is missed, and the alarm says which labels did."""
    detector = make(c=expected(target=0.97))
    drifts = [each.drift for each in feed(detector, blocks(500, (0.035, 0.12))) if each.drift.slice == "c"]
    assert drifts[0].zone is not None
    assert drifts[0].zone.target == 0.97


def test_without_counts_by_class_labels_are_watched_as_a_whole() -> None:
    """For a reference of an earlier release; the alarm names no class."""
    detector = make(c=expected(by_class=False))
    drifts = [each.drift for each in feed(detector, blocks(240, (0.3, 0.3))) if each.drift.slice == "c"]
    assert drifts[0].fall is not None
    assert (drifts[0].fall.true_class, drifts[0].fall.limit) == (None, pytest.approx(1 - drifts[0].zone.lower))


def test_a_rate_without_expectation_is_counted_for_its_groups_only() -> None:
    """It has no state and no alarm; its labels are part of the fall in its family."""
    detector = make(a=AccuracyReference(None))
    found = feed(detector, blocks(240, (0.03, 0.5)))
    assert "a" not in {each.drift.slice for each in found} | {each.slice for each in detector.drifts()}
    assert any(each.drift.fall and "a" in {part.slice for part in each.drift.fall.parts} for each in found)


def alarmed(name: str) -> tuple[AccuracyDetector, Alarm]:
    """Return a detector that follows its first alarm on a rate, and the alarm."""
    detector = make()
    for block in blocks(400, (0.03, 0.5)):
        for found in detector.advance(block):
            if found.drift.slice == name:
                drift = found.drift
                detector.follow([RateKey(drift.slice, drift.fingerprint, drift.kind)])
                return detector, Alarm(1, "m", 1, found.at, drift)
    raise AssertionError("no alarm")


@pytest.mark.parametrize("name", ["c", "f", ALL_ROWS])
def test_an_alarm_is_over_once_the_labels_of_its_class_are_back(name: str) -> None:
    """Good labels of the other class do not end it, nor a window that began before it; restarts change nothing."""
    detector, alarm = alarmed(name)
    first = int((alarm.at - START).total_seconds()) // 3600 + 1
    feed(detector, blocks(24, (0.0, 0.5), first=first))
    assert detector.recovery(alarm) == ""
    recovered = ""
    for block in blocks(240, (0.03, 0.05), first=first + 24, n=(10, 12)):
        assert not recovered
        detector.advance(block)
        state, detector = detector.to_bytes(), make()
        detector.resume(state)
        recovered = detector.recovery(alarm)
        if recovered:
            break
    assert re.fullmatch(r"recall of spam was (0\.[89]\d*|1) in the last \w+, back within its tolerance band", recovered)


def test_the_limit_of_a_window_is_that_of_its_classes() -> None:
    """Three quarters of spam at the recalls of the reference: an accuracy of 92% is back, if no class is named."""
    detector, alarm = alarmed("c")
    assert alarm.drift.fall is not None
    alarm = replace(alarm, drift=replace(alarm.drift, fall=replace(alarm.drift.fall, true_class=None)))
    first = int((alarm.at - START).total_seconds()) // 3600 + 1
    feed(detector, blocks(24, (0.03, 0.1), first=first, n=(20, 60)))
    assert detector.recovery(alarm).startswith("accuracy was 0.9")


def test_a_slice_with_few_labels_names_the_groups_that_watch_it() -> None:
    """Its family and all rows; with the labels of months, none."""
    few, many = make(), make()
    feed(few, blocks(1, (0.03, 0.1)))
    feed(many, blocks(200, (0.03, 0.1)))
    pooled = [{each.slice: each.pooled for each in detector.drifts()} for detector in (few, many)]
    both = {"a": ("f", ALL_ROWS), "b": ("f", ALL_ROWS), "c": (ALL_ROWS,)}
    assert [{name: groups for name, groups in each.items() if groups} for each in pooled] == [both, {}]


def test_parts_of_an_alarm_are_few() -> None:
    """The slices with the most errors, at most twenty."""
    keys = [RateKey(f"s{k}", "1", "accuracy") for k in range(30)]
    references = {ALL: expected(30), **dict.fromkeys(keys, expected())}
    detector, one = AccuracyDetector(references, {}, CLASSES, DriftSettings(), START), np.array([[3, 3], [1, 1]])
    counts = {key: one + k * np.array([[0, 1], [0, 0]]) for k, key in enumerate(keys)}
    block = LabelledBlock(START, START + TEN, counts | {ALL: np.sum([*counts.values()], axis=0)})
    fall = next(each.drift.fall for each in detector.advance(block) if each.drift.slice == ALL_ROWS)
    assert fall is not None
    assert (len(fall.parts), fall.parts[0]) == (20, FallPart("s29", 33, 37))


def test_labels_to_an_alarm_are_about_those_that_it_takes() -> None:
    """One label a minute, wrong in half of the cases from the start."""
    band = accuracy_band(Rate(475, 500), 0.01, 200)
    waits = []
    for seed in range(20):
        rng, detector = np.random.default_rng(seed), make(c=AccuracyReference(band))
        for n in range(1, 1000):
            at, right = START + timedelta(minutes=n), int(rng.random() < 0.5)
            if detector.advance(LabelledBlock(at, at + TEN, {SLICES[2]: np.array([[right, 1 - right], [0, 0]])})):
                waits.append(n)
                break
    threshold = next(each.threshold for each in detector.drifts() if each.slice == "c")
    assert labels_to_alarm(band, 0.5, threshold) == pytest.approx(np.mean(waits), rel=0.4)
    assert labels_to_alarm(band, 0.99, threshold) is None
    assert labels_to_alarm(accuracy_band(Rate(0, 0), 0.01, 200), 0.1, threshold) is None
