"""Replay of a history."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from service.decisions import Alarm, DriftStatus, RateKey, ToleranceBand
from service.monitor.accuracy_detector import AccuracyDetector, AccuracyReference, LabelledBlock
from service.monitor.label_detector import log_thresholds
from service.monitor.replay import DriftReplay, SpacedRows, incidents_of
from service.monitor.tolerance_band import accuracy_band, recovery
from service.settings.schema import DriftSettings
from sfs.intervals import Rate

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
TEN, MINUTE = timedelta(seconds=10), timedelta(minutes=1)
A, B, C = (RateKey(name, "f", "coverage") for name in "abc")
BAND = ToleranceBand(Rate(200, 1000), 0.18, 0.22, 0.1)
DRIFT = DriftStatus("a", "f", "coverage", BAND, 20.0, 18.0, NOON, "up", Rate(60, 100), 0.5, 0.7)


def alarm(key: RateKey, minute: int) -> Alarm:
    at = NOON + minute * MINUTE
    drift = replace(DRIFT, slice=key.slice, fingerprint=key.fingerprint, since=at - MINUTE)
    return Alarm(1, "", 0, at, drift)


def feed(replay: DriftReplay, blocks: int, members: int) -> None:
    none = np.zeros(1, np.int64)
    for _ in range(blocks):
        start = replay.end or NOON
        replay.add(start, start + TEN, none + members, none + 1000, none)


def test_a_lasting_change_has_one_alarm() -> None:
    """While an alarm is unresolved, further detections of the same change are covered by it."""
    replay = DriftReplay([A], DriftSettings(), {A: Rate(200, 10_000)})
    feed(replay, 200, members=60)
    (only,) = replay.alarms
    assert (only.drift.slice, only.drift.direction, only.state) == ("a", "up", "open")


def test_a_reversed_change_supersedes_the_alarm() -> None:
    """A change in the other direction resolves the alarm and raises another one."""
    replay = DriftReplay([A], DriftSettings(), {A: Rate(200, 10_000)})
    feed(replay, 60, members=200)
    feed(replay, 300, members=0)
    first, second = replay.alarms[0], replay.alarms[-1]
    assert (first.drift.direction, first.state) == ("up", "resolved")
    assert first.resolution.startswith("superseded: coverage changed from 20.0% to ")
    assert second.drift.direction == "down"


def test_a_slice_without_a_reference_is_learned_first() -> None:
    """Without a reference nothing alarms on the first day, and live traffic is in force after it."""
    replay = DriftReplay([A], DriftSettings(), {})
    none, hour = np.zeros(1, np.int64), timedelta(hours=1)
    start = NOON.replace(hour=0)
    for k in range(50):
        replay.add(start + k * hour, start + (k + 1) * hour, none + (200 if k < 20 else 300), none + 1000, none)
    (learned,) = replay.learned()
    assert (learned.since, learned.live, learned.season) == (start, start + 24 * hour, None)
    assert all(each.at > start + 24 * hour for each in replay.alarms)


def test_the_budget_counts_rates_and_blocks() -> None:
    """A rate of the traffic has blocks with rows; an accuracy that is expected has blocks without labels, too."""
    key = RateKey("a", "f", "accuracy")
    band = accuracy_band(Rate(900, 1000), 0.01, 200)
    replay = DriftReplay([A, B], DriftSettings(), {})
    none = np.zeros(2, np.int64)
    for k in range(10):
        replay.add(NOON + k * TEN, NOON + (k + 1) * TEN, none, none + 10, none)
    references = {key: AccuracyReference(band), key._replace(slice="b"): AccuracyReference(None)}
    replay.accuracy.expect(AccuracyDetector(references, {}, "xy", DriftSettings(), NOON))
    for k in (0, 5):
        replay.accuracy.add(LabelledBlock(NOON + k * TEN, NOON + (k + 1) * TEN, {key: np.array([[9, 1], [0, 0]])}))
    of_slice, _, _ = log_thresholds(200, 0, 0.5)
    assert replay.false_alarms == pytest.approx(2 * 10 * np.exp(-replay.threshold) + 6 * np.exp(-of_slice))


def test_alarms_of_one_time_are_one_incident_without_rows() -> None:
    """Without rows, alarms whose changes may have begun together are one incident, later ones another."""
    assert incidents_of([alarm(A, 10), alarm(B, 11), alarm(C, 60)], None) == [[0, 1], [2]]
    assert incidents_of([], None) == []


def test_alarms_in_other_rows_are_other_incidents() -> None:
    """With rows, alarms of one time are one incident only if one slice contains the other."""
    sample = SpacedRows([A, B, C])
    rows = np.arange(50_000)
    sample.add(np.column_stack([rows % 10 == 0, rows % 20 == 0, rows % 10 == 3]))
    assert incidents_of([alarm(A, 10), alarm(B, 10), alarm(C, 10)], sample) == [[0, 1], [2]]


def test_a_sample_spans_all_rows() -> None:
    """Rows of the end weigh as much as those of the start, however many there are."""
    sample = SpacedRows([A, B])
    for part in range(30):
        sample.add(np.full((5000, 2), [part < 15, True]))
    a, b = alarm(A, 10), alarm(B, 10)
    assert sample.contained([a, b]).tolist() == [[True, True], [False, True]]


def test_a_shorter_window_outside_the_band_holds_the_alarm() -> None:
    """A rate is not back while it is demonstrably outside over a shorter window, whatever the longer ones show."""
    inside, outside = Rate(4_000, 20_000), Rate(600, 1_000)
    assert recovery("coverage", [("hour", BAND, outside), ("day", BAND, inside)]) == ""
    assert recovery("coverage", [("hour", BAND, Rate(2, 10)), ("day", BAND, inside)]) == (
        "coverage was 0.2 in the last day, back within its tolerance band"
    )
    assert recovery("coverage", []) == ""
