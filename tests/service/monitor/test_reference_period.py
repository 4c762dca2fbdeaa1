"""First labels that set an expected accuracy: how many, which of them, and what their repeats are worth."""

from datetime import UTC, datetime, timedelta

import numpy as np

from service.monitor.drift_detector import DriftDetector, Observation, RateKey, log_threshold
from service.monitor.reference_period import ReferencePeriod
from service.monitor.tolerance_band import accuracy_band
from sfs.intervals import Rate

A, B = RateKey("a", "1", "accuracy"), RateKey("b", "1", "accuracy")


def test_a_period_ends_after_its_labels_and_takes_no_more() -> None:
    """Labels beyond the last one are left, and a rate with fewer labels goes on gathering."""
    period = ReferencePeriod(4)
    period.begin([A, B])
    contents, correct = np.arange(6), np.array([True, True, False, True, False, False])
    assert period.take(A, contents, correct) == 4
    assert period.take(B, contents[:3], correct[:3]) == 3
    assert period.end() == {A: Rate(3, 4)}
    assert {key: len(rows) for key, rows in period.contents.items()} == {B: 3}


def test_repeats_of_a_content_lower_the_effective_n() -> None:
    """Two contents, one of them three times of four, are worth Kish's 1.6 independent rows."""
    period = ReferencePeriod(4)
    period.begin([A])
    period.take(A, np.array([7, 7, 7, 8]), np.ones(4, np.bool_))
    assert period.end() == {A: Rate(4, 4, 2)}


def test_labels_of_one_content_expect_nothing() -> None:
    """The next labels are gathered instead."""
    period = ReferencePeriod(4)
    period.begin([A])
    period.take(A, np.full(4, 7), np.ones(4, np.bool_))
    assert period.end() == {}
    assert (period.contents, period.correct) == ({A: []}, {A: 0})


def test_a_rate_that_is_no_longer_monitored_is_forgotten() -> None:
    """The others keep their labels."""
    period = ReferencePeriod(4)
    period.begin([A, B])
    for key in (A, B):
        period.take(key, np.arange(2), np.ones(2, np.bool_))
    period.begin([B])
    assert {key: len(rows) for key, rows in period.contents.items()} == {B: 2}


def test_an_unchanged_accuracy_raises_no_alarm_after_its_first_labels() -> None:
    """200 rates, each expected from its own 300 labels: none alarms in 30,000 further labels of the same accuracy."""
    rates, draw = 200, np.random.default_rng(0)
    keys = [RateKey(f"s{k}", "1", "accuracy") for k in range(rates)]
    accuracy = draw.uniform(0.6, 0.99, rates)
    first = draw.binomial(300, accuracy).tolist()
    bands = {key: accuracy_band(Rate(count, 300), 0.01, rates) for key, count in zip(keys, first, strict=True)}
    detector = DriftDetector(bands, log_threshold(rates, 1.0))
    at, found = datetime(2026, 5, 1, tzinfo=UTC), []
    for _ in range(600):
        counts = {key: Rate(n, 50) for key, n in zip(keys, draw.binomial(50, accuracy).tolist(), strict=True)}
        found += detector.advance(Observation(at, at + timedelta(seconds=10), counts))
        at += timedelta(seconds=10)
    assert found == []
