"""First labels that set an expected accuracy: how many, which of them, and what their repeats are worth."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np

from service.decisions import RateKey
from service.monitor.accuracy_detector import AccuracyDetector, AccuracyReference, LabelledBlock, pairs_of
from service.monitor.reference_period import ReferencePeriod
from service.monitor.tolerance_band import accuracy_band
from service.settings.schema import DriftSettings
from sfs.intervals import Rate

A, B = RateKey("a", "1", "accuracy"), RateKey("b", "1", "accuracy")


def labelled(n: int, wrong: int = 0) -> list[tuple[str, str]]:
    """Return classes of labels, the last of them wrong."""
    return [("x", "x")] * (n - wrong) + [("y", "x")] * wrong


def test_a_period_ends_after_its_labels_and_takes_no_more() -> None:
    """Labels beyond the last one are left, and a rate with fewer labels goes on gathering."""
    period = ReferencePeriod(40)
    period.begin([A, B])
    contents, pairs = range(60), labelled(60, 25)
    assert period.take(A, contents, pairs) == 40
    assert period.take(A, contents, pairs) == 0
    assert period.take(B, contents[:39], pairs[:39]) == 39
    assert period.end() == {A: (Rate(35, 40), (("x", "x", 35), ("y", "x", 5)))}
    assert {key: len(rows) for key, rows in period.contents.items()} == {B: 39}


def test_repeats_of_a_content_lower_the_effective_n() -> None:
    """One content in ten rows of 60 and 50 others are worth Kish's 3,600 / 150 = 24 rows, with 60 more 69."""
    period = ReferencePeriod(60)
    period.begin([A])
    contents = [0] * 10 + [*range(1, 171)]
    assert period.take(A, contents[:100], labelled(100)) == 60
    assert (period.end(), period.lacks(A)) == ({}, 60)
    assert period.take(A, contents[60:], labelled(120)) == 60
    assert period.end() == {A: (Rate(120, 120, 69), (("x", "x", 120),))}


def test_labels_of_few_contents_are_gathered_on_and_then_forgotten() -> None:
    """Five times the labels at most; the end does not depend on the correct ones."""
    period = ReferencePeriod(60)
    lengths = []
    for _ in range(5):
        period.begin([A])
        period.take(A, [k % 20 for k in range(60)], labelled(60))
        assert period.end() == {}
        lengths.append(len(period.contents[A]))
    assert lengths == [60, 120, 180, 240, 0]
    assert period.confusion == {A: Counter()}
    period.take(A, range(60), labelled(60, 6))
    assert period.end() == {A: (Rate(54, 60), (("x", "x", 54), ("y", "x", 6)))}


def test_a_rate_that_is_no_longer_monitored_is_forgotten() -> None:
    """The others keep their labels."""
    period = ReferencePeriod(4)
    period.begin([A, B])
    for key in (A, B):
        period.take(key, range(2), labelled(2))
    period.begin([B])
    assert {key: len(rows) for key, rows in period.contents.items()} == {B: 2}


def test_an_unchanged_accuracy_raises_no_alarm_after_its_first_labels() -> None:
    """200 rates, each expected from its own 300 labels: none alarms in 30,000 further labels of the same accuracy."""
    rates, draw, classes = 200, np.random.default_rng(0), ["x", "y"]
    errors = draw.uniform(0.01, 0.4, (rates, 2))

    def confusion(n: int) -> np.ndarray:
        """Return labels of every rate, half of them of each class: int64[K, 2, 2]."""
        wrong = draw.binomial(n // 2, errors)
        right = n // 2 - wrong
        return np.stack([np.stack([right[:, 0], wrong[:, 0]], 1), np.stack([wrong[:, 1], right[:, 1]], 1)], 1)

    references = {}
    for k, first in enumerate(confusion(300)):
        band = accuracy_band(Rate(int(first.trace()), 300), 0.01, rates)
        references[RateKey(f"s{k}", "1", "accuracy")] = AccuracyReference(band, pairs_of(first, classes))
    at, found = datetime(2026, 5, 1, tzinfo=UTC), []
    detector = AccuracyDetector(references, {}, classes, DriftSettings(), at)
    for _ in range(600):
        end = at + timedelta(seconds=10)
        found += detector.advance(LabelledBlock(at, end, dict(zip(references, confusion(50), strict=True))))
        at = end
    assert found == []
