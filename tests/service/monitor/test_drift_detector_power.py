"""False alarms and detection delay of the drift detector."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from service.decisions import DriftKind, RateKey
from service.monitor.alternatives import Alternatives, labels_to_alarm
from service.monitor.drift_detector import DetectorState, DriftDetector, Observation, log_threshold
from service.monitor.tolerance_band import accuracy_band, coverage_band
from sfs.intervals import Rate

TEN = datetime(2026, 3, 1, 10, tzinfo=UTC)
SEEDS, SLICES = 10, 50
DOCTORATE = accuracy_band(Rate(28, 40), 0.01, 200, target=0.75)
"""A small slice: 28 of 40 held-out rows correct, so that the reference alone sets a limit of 38%."""


def block_of(number: int, keys: list[RateKey], counts: Any, n: int) -> Observation:
    start = TEN + number * timedelta(seconds=10)
    rates = {key: Rate(count, n) for key, count in zip(keys, counts.tolist(), strict=True)}
    return Observation(start, start + timedelta(seconds=10), rates)


@pytest.mark.parametrize(
    ("kind", "low", "high", "reference", "rows", "block"),
    [
        ("coverage", 0.002, 0.3, 200_000, 200_000, 1_000),
        ("coverage", 0.002, 0.3, 200_000, 200_000, 250),
        ("accuracy", 0.7, 0.99, 2_000, 20_000, 20),
    ],
)
def test_calm_is_calm(kind: DriftKind, low: float, high: float, reference: int, rows: int, block: int) -> None:
    """50 slices with constant rates and sampled references raise no alarm in 10 seeds."""
    rng = np.random.default_rng(4)
    p = np.exp(rng.uniform(np.log(low), np.log(high), SEEDS * SLICES))
    make, tolerance = (coverage_band, 0.1) if kind == "coverage" else (accuracy_band, 0.01)
    keys = [RateKey(f"{k // SLICES}/{k % SLICES}", "f", kind) for k in range(len(p))]
    known = [Rate(count, reference) for count in rng.binomial(reference, p).tolist()]
    zones = [make(rate, tolerance, SLICES) for rate in known]
    detector = DriftDetector(dict(zip(keys, zones, strict=True)), log_threshold(SLICES, 1.0))
    alarms = [
        detection
        for number in range(rows // block)
        for detection in detector.advance(block_of(number, keys, rng.binomial(block, p), block))
    ]
    assert alarms == []


def test_a_small_slice_with_a_target_alarms_within_thirty_labels() -> None:
    """In 200 runs the accuracy falls from 80% to 12%: an alarm after 30 labels in the mean, and none before."""
    runs, calm, rng = 200, 60, np.random.default_rng(11)
    keys = [RateKey(str(k), "f", "accuracy") for k in range(runs)]
    detector = DriftDetector(dict.fromkeys(keys, DOCTORATE), log_threshold(200, 1.0))
    delays = np.zeros(runs)
    for number in range(calm + 100):
        detections = detector.advance(block_of(number, keys, rng.binomial(1, 0.8 if number < calm else 0.12, runs), 1))
        for detection in detections:
            delays[int(detection.drift.slice)] = delays[int(detection.drift.slice)] or number + 1 - calm
            assert detection.drift.direction == "down"
    assert delays.min() > 0, "one alarmed before the fall, or not at all"
    expected = labels_to_alarm(DOCTORATE, 0.12, log_threshold(200, 1.0))
    assert delays.mean() <= 30
    assert expected == pytest.approx(delays.mean(), rel=0.25)


def test_a_kept_target_raises_no_false_alarm_in_a_month() -> None:
    """At exactly 75%, with 100 labels a day over 30 days, 200 slices raise none; at c = 500 as many as is allowed."""
    slices, labels, rng = 200, 3_000, np.random.default_rng(12)
    against, ones = Alternatives.of([("accuracy", DOCTORATE)] * slices), np.ones(slices, np.int64)
    alarms = {log_threshold(200, 1.0): 0, float(np.log(500)): 0}
    states = {threshold: DetectorState.zeros(slices) for threshold in alarms}
    for start in range(labels):
        correct = rng.binomial(1, 0.75, slices)
        for threshold, state in states.items():
            state.advance(against, correct, ones, np.zeros(slices, np.int64), start)
            alarmed = np.flatnonzero(state.evidence >= threshold)
            alarms[threshold] += len(alarmed)
            if alarmed.size:
                state.reset(alarmed)
    real, weak = alarms.values()
    assert real == 0
    assert 0.25 <= weak / (slices * labels / 500) <= 1
