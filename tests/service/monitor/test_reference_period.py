"""First labels that set an expected accuracy: how many, which of them, and what their repeats are worth."""

from datetime import UTC, datetime, timedelta

import numpy as np

from service.decisions import RateKey
from service.monitor.drift_detector import DriftDetector, Observation, log_threshold
from service.monitor.reference_period import ReferencePeriod
from service.monitor.tolerance_band import accuracy_band
from sfs.intervals import Rate

A, B = RateKey("a", "1", "accuracy"), RateKey("b", "1", "accuracy")


def test_a_period_ends_after_its_labels_and_takes_no_more() -> None:
    """Labels beyond the last one are left, and a rate with fewer labels goes on gathering."""
    period = ReferencePeriod(40)
    period.begin([A, B])
    contents, correct = np.arange(60), np.arange(60) < 35
    assert period.take(A, contents, correct) == 40
    assert period.take(A, contents, correct) == 0
    assert period.take(B, contents[:39], correct[:39]) == 39
    assert period.end() == {A: Rate(35, 40)}
    assert {key: len(rows) for key, rows in period.contents.items()} == {B: 39}


def test_repeats_of_a_content_lower_the_effective_n() -> None:
    """One content in ten rows of 60 and 50 others are worth Kish's 3,600 / 150 = 24 rows, with 60 more 69."""
    period = ReferencePeriod(60)
    period.begin([A])
    contents, correct = np.array([0] * 10 + [*range(1, 171)]), np.ones(180, np.bool_)
    assert period.take(A, contents[:100], correct[:100]) == 60
    assert (period.end(), period.lacks(A)) == ({}, 60)
    assert period.take(A, contents[60:], correct[60:]) == 60
    assert period.end() == {A: Rate(120, 120, 69)}


def test_labels_of_few_contents_are_gathered_on_and_then_forgotten() -> None:
    """Five times the labels at most; the end does not depend on the correct ones."""
    period = ReferencePeriod(60)
    lengths = []
    for _ in range(5):
        period.begin([A])
        period.take(A, np.arange(60) % 20, np.ones(60, np.bool_))
        assert period.end() == {}
        lengths.append(len(period.contents[A]))
    assert lengths == [60, 120, 180, 240, 0]
    assert period.correct == {A: 0}
    period.take(A, np.arange(60), np.arange(60) > 5)
    assert period.end() == {A: Rate(54, 60)}


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
