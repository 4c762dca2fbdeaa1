"""The detector of lower accuracy on selected labels: its statistic, its groups, and its restarts."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from service.monitor.label_detector import (
    FACTORS,
    MONTH_BLOCKS,
    PAIRED_LABELS,
    PAIRED_RATIO,
    Fall,
    LabelDetector,
    error_limits,
    log_thresholds,
    target_limits,
)
from service.monitor.tolerance_band import accuracy_band
from sfs.intervals import Rate

IntArray, FloatArray = NDArray[np.int64], NDArray[np.float64]
HAM_FIRST = np.array([[[4_850, 150], [60, 540]]])
LIMITS = error_limits(HAM_FIRST, np.array([5_600]), 0.01, 200)
ONE, BY_CLASS = np.array([0]), np.array([False])
HOUR = 3_600


def detector(threshold: float = 18.0, start: int = 0) -> LabelDetector:
    return LabelDetector(LIMITS, BY_CLASS, np.array([threshold]), start)


def sample(n: IntArray, errors: tuple[float, float], rng: np.random.Generator) -> IntArray:
    """Return counts of labels by true and predicted class: of n[K, 2] labels, these shares are wrong."""
    wrong = rng.binomial(n, errors)
    right = n - wrong
    return np.stack([np.stack([right[:, 0], wrong[:, 0]], 1), np.stack([wrong[:, 1], right[:, 1]], 1)], 1)


def literal_evidence(limits: FloatArray, blocks: list[tuple[int, IntArray, float]]) -> list[float]:
    """The statistic written out: every start, class and size of a change by itself. Divisors are given."""
    classes, last, unpaired, evidence = limits.shape[1], 0, 0, []
    groups = (None, *range(classes))
    starts: dict[tuple[int, int | None, float], list[float]] = {
        (view, group, factor): [] for view in range(2) for group in groups for factor in FACTORS
    }
    for end, confusion, divisor in blocks:
        for (view, group, factor), since_start in starts.items():
            log_e = 0.0
            for c in range(classes) if group is None else (group,):
                limit = limits[view, c]
                row = confusion[c] if view == 0 else confusion[:, c]
                wrong, right = row.sum() - row[c], row[c]
                q = limit * factor / (1 + limit * (factor - 1))
                log_e += wrong * math.log(q / limit) + right * math.log((1 - q) / (1 - limit))
            since_start.append((end - last) / 10)
            since_start[:] = [each * math.exp(log_e / divisor) for each in since_start]
        last = end
        views = [0.0, 0.0]
        for (view, group, _), since_start in starts.items():
            views[view] += sum(since_start) * (0.5 if group is None else 0.5 / classes) / len(FACTORS)
        evidence.append(math.log(min(views)))
        unpaired += confusion.sum()
        if unpaired >= PAIRED_LABELS:
            unpaired = 0
            for (view, _, _), since_start in starts.items():
                since_start[:] = [each * min(1.0, PAIRED_RATIO * min(views) / views[view]) for each in since_start]
    return evidence


@pytest.mark.parametrize("classes", [2, 3])
def test_the_evidence_equals_the_sum_over_all_starts(classes: int) -> None:
    """Blocks without labels are starts; both views are needed; the divisor is that of the labels so far."""
    rng = np.random.default_rng(classes)
    reference = rng.integers(20, 60, (1, classes, classes)) + 800 * np.eye(classes, dtype=np.int64)
    limits = error_limits(reference, reference.sum(axis=(1, 2)), 0.01, 200)
    own, blocks, end = LabelDetector(limits, BY_CLASS, np.array([math.inf]), 0), [], 0
    for _ in range(40):
        end += int(rng.integers(1, 500)) * 10
        confusion = rng.poisson(1, (1, classes, classes)) + 2 * rng.poisson(1, (1, classes, 1)) * np.eye(
            classes, dtype=np.int64
        )
        own.advance(end, ONE, confusion)
        blocks.append((end, confusion[0], float(own.divisors(ONE)[0])))
    evidence = literal_evidence(limits[0], blocks)
    threshold = evidence[-1] - 1e-9
    again = LabelDetector(limits, BY_CLASS, np.array([threshold]), 0)
    falls = [again.advance(end, ONE, confusion[None]) for end, confusion, _ in blocks]
    first = [each >= threshold for each in evidence].index(True)
    assert [len(each) for each in falls[: first + 1]] == [0] * first + [1]
    assert falls[first][0].evidence == pytest.approx(evidence[first])


def test_limits_are_those_of_the_accuracy_band_class_by_class() -> None:
    """Recalls and precisions of the reference, with the tolerance and the level of a slice's classes."""
    recalls, precisions = [Rate(4_850, 5_000), Rate(540, 600)], [Rate(4_850, 4_910), Rate(540, 690)]
    expected = [[1 - accuracy_band(rate, 0.01, 400).lower for rate in rates] for rates in (recalls, precisions)]
    assert LIMITS[0].tolist() == [pytest.approx(view) for view in expected]


def test_repeated_contents_widen_the_limits() -> None:
    """With an effective n of a tenth, limits are those of a tenth of the rows."""
    few = error_limits(HAM_FIRST, np.array([560]), 0.01, 200)
    assert (few > LIMITS + 0.02).all()


def test_a_class_without_reference_is_no_evidence() -> None:
    """Its labels move nothing; the labels of the other class do."""
    confusion = np.array([[[900, 30], [0, 0]]])
    own = LabelDetector(error_limits(confusion, np.array([930]), 0.01, 10), BY_CLASS, np.array([15.0]), 0)
    spam, ham = np.array([[[0, 0], [50, 0]]]), np.array([[[0, 50], [0, 0]]])
    assert [own.advance(HOUR * k, ONE, spam) for k in range(1, 20)] == [[]] * 19
    falls = [fall for k in range(20, 40) for fall in own.advance(HOUR * k, ONE, ham)]
    assert falls == [] or falls[0].true_class in (None, 0)


def test_shares_of_the_budget_add_up() -> None:
    """The expected false alarms of all rates in a month are the budget."""
    for families in (0, 40):
        slices, family, whole = log_thresholds(1_000, families, 0.5)
        alarms = MONTH_BLOCKS * (1_000 * math.exp(-slices) + families * math.exp(-family) + math.exp(-whole))
        assert alarms == pytest.approx(0.5)


def test_a_target_is_met_at_its_limits() -> None:
    """With the reference's mix of classes the error rates give the target; the classes keep their order."""
    confusion = np.array([[880, 20], [30, 70]])
    limits = target_limits(confusion, 0.9)
    assert limits @ [0.9, 0.1] == pytest.approx(0.1)
    assert limits[0] < limits[1]


def test_labels_of_one_class_first_are_no_alarm() -> None:
    """Two thousand labels of the harder class in a row, at its recall in the reference."""
    rng, own = np.random.default_rng(1), detector()
    for hour in range(1, 101):
        assert own.advance(hour * HOUR, ONE, sample(np.array([[0, 20]]), (0.03, 0.1), rng)) == []


def test_the_selection_of_labels_may_change() -> None:
    """Predicted spam is reviewed for a while, which looks like a fall of recall; then spam comes first: no alarm."""
    rng, own = np.random.default_rng(7), detector()
    for hour in range(1, 401):
        confusion = sample(np.array([[18, 2]]) if hour <= 200 else np.array([[0, 20]]), (0.03, 0.1), rng)
        if hour <= 200:
            confusion[:, :, 0] //= 10
        assert own.advance(hour * HOUR, ONE, confusion) == []


def test_a_fall_says_class_start_and_counts() -> None:
    """Recall of spam falls at hour 200: class, start and counts are those of the change."""
    rng, own, found = np.random.default_rng(2), detector(), []
    counts: dict[int, IntArray] = {}
    for hour in range(1, 400):
        counts[hour] = sample(np.array([[16, 4]]), (0.03, 0.1 if hour <= 200 else 0.5), rng)
        found += own.advance(hour * HOUR, ONE, counts[hour])
        if found:
            break
    (fall,) = found
    assert (fall.true_class, fall.evidence >= fall.threshold) == (1, True)
    assert abs(fall.since / HOUR - 200) <= 5
    since = sum(confusion[0] for at, confusion in counts.items() if fall.since // HOUR < at)
    assert (fall.errors, fall.labels) == (since[1, 0], since[1].sum())


def test_the_mix_of_classes_is_no_fall() -> None:
    """Spam grows from a tenth to two thirds at constant recalls: the accuracy falls, the model does not."""
    rng, own = np.random.default_rng(3), detector()
    for hour in range(1, 301):
        mix = np.array([[18, 2]]) if hour <= 100 else np.array([[7, 13]])
        assert own.advance(hour * HOUR, ONE, sample(mix, (0.03, 0.1), rng)) == []


def test_a_reference_without_classes_is_monitored_as_a_whole() -> None:
    """The second view alone: all labels against one limit."""
    limits = np.array([[[1.0, 1.0], [0.08, 1.0]]])
    own = LabelDetector(limits, np.array([True]), np.array([18.0]), 0)
    calm, changed = np.array([[[9, 0], [0, 1]]]), np.array([[[6, 2], [1, 1]]])
    assert [own.advance(hour * HOUR, ONE, calm) for hour in range(1, 100)] == [[]] * 99
    falls = [fall for hour in range(100, 120) for fall in own.advance(hour * HOUR, ONE, changed)]
    assert (falls[0].rate, falls[0].true_class) == (0, None)
    assert falls[0].errors / falls[0].labels == pytest.approx(0.3)


def groups() -> LabelDetector:
    """Return detectors of ten slices, of their family (10), and of all rows (11)."""
    slice_limits = error_limits(np.repeat(HAM_FIRST, 10, axis=0), np.full(10, 5_600), 0.01, 200)
    group_limits = error_limits(np.repeat(10 * HAM_FIRST, 2, axis=0), np.full(2, 56_000), 0.01, 200)
    slices, family, whole = log_thresholds(200, 20, 0.5)
    thresholds = np.array([slices] * 10 + [family, whole])
    limits = np.concatenate([slice_limits, group_limits])
    return LabelDetector(limits, np.zeros(12, np.bool_), thresholds, 0, {10: range(10), 11: range(10)})


def story(days: int, errors: tuple[float, float], seed: int) -> list[tuple[int, IntArray, IntArray]]:
    """Return the labels of a family whose slices have about one label a day; the group has those of all."""
    rng, blocks = np.random.default_rng(seed), []
    for day in range(1, days + 1):
        n = np.stack([rng.poisson(0.6, 10), rng.poisson(0.4, 10)], axis=1)
        confusion = sample(n, errors, rng)
        both = confusion.sum(axis=0, keepdims=True)
        (own,) = np.nonzero(confusion.any(axis=(1, 2)))
        rates = np.array([*own.tolist(), 10, 11])
        blocks.append((day * 86_400, rates, np.concatenate([confusion[own], both, both])))
    return blocks


def falls_of(own: LabelDetector, blocks: list[tuple[int, IntArray, IntArray]]) -> list[Fall]:
    return [fall for end, rates, confusion in blocks for fall in own.advance(end, rates, confusion)]


def test_a_group_finds_what_no_slice_can() -> None:
    """At a label a day, a fall in ten slices is found in the family and in all rows, and its parts add up."""
    falls = falls_of(groups(), story(45, (0.1, 0.3), 4))
    assert {fall.rate for fall in falls} == {10, 11}
    for fall in falls:
        assert fall.errors == sum(part.errors for part in fall.parts)
        assert fall.labels == sum(part.labels for part in fall.parts)
        assert [part.errors for part in fall.parts] == sorted((part.errors for part in fall.parts), reverse=True)


def test_a_calm_family_is_calm() -> None:
    """No group and no slice alarms in a year of unchanged labels."""
    assert falls_of(groups(), story(365, (0.03, 0.1), 5)) == []


def test_a_restart_continues_exactly() -> None:
    """A detector that takes over the arrays finds the same falls."""
    blocks = story(60, (0.1, 0.3), 6)
    whole, half = groups(), groups()
    expected = falls_of(whole, blocks)
    found = falls_of(half, blocks[:20])
    resumed = groups()
    saved = {name: array.copy() for name, array in half.arrays().items()}
    for name, array in resumed.arrays().items():
        array[...] = saved[name]
    assert found + falls_of(resumed, blocks[20:]) == expected


def test_a_rate_begins_again_after_its_alarm() -> None:
    """Labels before an alarm are no evidence for the next one."""
    own, lost = detector(), np.array([[[0, 0], [40, 0]]])
    assert [len(own.advance(HOUR, ONE, lost)), len(own.advance(2 * HOUR, ONE, np.array([[[5, 0], [0, 1]]])))] == [1, 0]


def test_a_long_silence_is_at_most_a_month_of_starts() -> None:
    """The label after a year of silence needs as much evidence as one after a month."""
    few = np.array([[[0, 2], [2, 0]]])
    falls = []
    for days in (30, 365):
        own = detector(threshold=1.0)
        falls += own.advance(days * 86_400, ONE, few)
    assert falls[0].evidence == falls[1].evidence
