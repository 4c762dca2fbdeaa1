"""Dispersion of labels: estimated without the error rate, at the size of the windows, and predictable."""

import numpy as np
import pytest

from service.monitor.label_dispersion import (
    PRIOR_CORRELATION,
    PRIOR_WINDOWS,
    SCALES_SECONDS,
    SHARED_WINDOWS,
    LabelDispersion,
)

APART = SCALES_SECONDS[-1]
"""Seconds between windows that are apart at both scales, which then agree."""
ONE = np.array([0])


def of_windows(windows: list[tuple[list[int], list[int]]], seconds: int = APART) -> LabelDispersion:
    """Return the dispersion of one rate after windows of labels and errors by stratum."""
    dispersion = LabelDispersion.zeros(1, len(windows[0][0]))
    for number, (labels, errors) in enumerate(windows):
        dispersion.advance(number * seconds, ONE, np.array([labels]), np.array([errors]))
    return dispersion


def correlation_of(windows: list[tuple[list[int], list[int]]]) -> float:
    """The correlation within windows, written out pair by pair; the last window is under way."""
    excess = information = pairs = 0.0
    before: dict[int, tuple[int, int]] = {}
    for labels, errors in windows[:-1]:
        compared = False
        for stratum, (n2, k2) in enumerate(zip(labels, errors, strict=True)):
            if not n2:
                continue
            n1, k1 = before.get(stratum, (0, 0))
            p = (k1 + k2) / (n1 + n2)
            if n1 and 0 < p < 1:
                compared = True
                v = p * (1 - p) * (n1 + n2) / (n1 + n2 - 1)
                h = n1 * n2 / (n1 + n2)
                excess += (2 * h - 1) * (h * (k1 / n1 - k2 / n2) ** 2 - v)
                information += (2 * h - 1) ** 2 * v
            before[stratum] = n2, k2
        pairs += compared
    prior, shared = PRIOR_WINDOWS * information / pairs, SHARED_WINDOWS * information / pairs
    common = (excess + prior * PRIOR_CORRELATION) / (information + prior)
    return max(0.0, (excess + shared * common) / (information + shared))


def test_the_divisor_equals_the_formula_written_out() -> None:
    """The size is that of the windows in the mean over labels, with the one under way."""
    rng = np.random.default_rng(0)
    windows = []
    for _ in range(60):
        labels = rng.integers(0, 30, 2)
        windows.append((labels.tolist(), rng.binomial(labels, rng.beta(2, 20, 2)).tolist()))
    sizes = [sum(labels) for labels, _ in windows]
    expected = 1 + correlation_of(windows) * (sum(n * n for n in sizes) / sum(sizes) - 1)
    assert of_windows(windows).divisors(ONE).tolist() == [pytest.approx(expected)]
    assert expected > 1.5


@pytest.mark.parametrize(("clumps", "low", "high"), [(1.0, 1.0, 1.1), (3.0, 2.4, 3.6), (10.0, 8.0, 12.0)])
def test_the_variance_of_clumps_is_found(clumps: float, low: float, high: float) -> None:
    """40 labels a window, of which the errors vary 1, 3 and 10 times as much as independent ones."""
    rng = np.random.default_rng(1)
    rates, size, error = 50, 40, 0.1
    correlation = (clumps - 1) / (size - 1)
    dispersion, every = LabelDispersion.zeros(rates, 1), np.arange(rates)
    for window in range(200):
        p = np.full(rates, error)
        if correlation:
            total = 1 / correlation - 1
            p = rng.beta(error * total, (1 - error) * total, rates)
        dispersion.advance(window * APART, every, np.full((rates, 1), size), rng.binomial(size, p)[:, None])
    assert low <= dispersion.divisors(every).mean() <= high


def test_single_labels_are_divided_by_nothing() -> None:
    """One label an hour and a day is independent of all others."""
    rng = np.random.default_rng(2)
    windows = [([1], [int(rng.random() < 0.3)]) for _ in range(300)]
    assert of_windows(windows, 86_400).divisors(ONE).tolist() == [1.0]


def test_a_lasting_change_is_no_dispersion() -> None:
    """An error rate that rises fivefold for good disturbs one pair of windows."""
    rng = np.random.default_rng(3)
    errors = [*rng.binomial(20, 0.05, 200).tolist(), *rng.binomial(20, 0.25, 200).tolist()]
    (divisor,) = of_windows([([20], [k]) for k in errors]).divisors(ONE)
    assert divisor <= 1.25


def test_labels_sorted_by_class_are_no_dispersion() -> None:
    """Windows of one class after the other are compared class by class."""
    rng = np.random.default_rng(4)
    windows = []
    for window in range(400):
        spam = window % 2
        errors = [0, 0]
        errors[spam] = int(rng.binomial(20, (0.02, 0.3)[spam]))
        windows.append(([20 * (1 - spam), 20 * spam], errors))
    (divisor,) = of_windows(windows).divisors(ONE)
    assert divisor <= 1.25


def test_a_rate_with_few_windows_has_the_correlation_of_all() -> None:
    """99 clumped rates set the divisor of one with independent labels, until it has windows of its own."""
    rng = np.random.default_rng(5)
    rates, size = 100, 30
    dispersion, every = LabelDispersion.zeros(rates, 1), np.arange(rates)
    divisors = []
    for window in range(4 * SHARED_WINDOWS):
        p = rng.beta(1.2, 10.8, rates)
        p[0] = 0.1
        dispersion.advance(window * APART, every, np.full((rates, 1), size), rng.binomial(size, p)[:, None])
        divisors.append(float(dispersion.divisors(ONE)[0]))
    assert divisors[20] > 2.5
    assert divisors[-1] < 1.8


def test_the_window_under_way_counts_at_once() -> None:
    """A clump larger than any before is divided by more while it arrives."""
    windows = [([10], [k]) for k in [0, 5] * 40]
    dispersion = of_windows(windows)
    (before,) = dispersion.divisors(ONE)
    dispersion.advance(80 * APART, ONE, np.array([[2_000]]), np.array([[200]]))
    (after,) = dispersion.divisors(ONE)
    assert after > 3 * before
