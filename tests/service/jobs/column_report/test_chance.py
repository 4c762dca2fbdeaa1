"""What chance alone gives."""

from __future__ import annotations

import numpy as np
import pytest

from service.jobs.column_report.columns import (
    QUANTILE,
    SHUFFLES,
    chance_of_numbers,
    chance_of_shares,
    counts_of,
    distance_of_numbers,
    distance_of_shares,
    in_deviations,
)

RANDOM_SAMPLES = 60


def test_chance_of_numbers_is_what_exchanged_rows_give() -> None:
    """The fast way gives what shuffling the rows and measuring each time gives."""
    random = np.random.default_rng(1)
    reference, live = random.lognormal(size=30), random.lognormal(1, size=50)
    pool = np.sort(np.concatenate([reference, live]))
    shuffle, distances = np.random.default_rng(0), []
    for _ in range(SHUFFLES):
        first = shuffle.permutation(np.arange(80) < 30)
        apart = distance_of_numbers(pool[first], pool[~first]) * np.std(pool[first])
        distances.append(apart / np.std(reference))
    assert chance_of_numbers(reference, live) == pytest.approx(float(np.quantile(distances, QUANTILE)))


def test_two_samples_of_one_distribution_rarely_exceed_chance() -> None:
    """With 100 rows on each side a fixed threshold of 0.1 is passed nearly always, that of chance rarely."""
    random = np.random.default_rng(2)
    fixed = by_chance = 0
    for _ in range(RANDOM_SAMPLES):
        reference, live = random.normal(size=100), random.normal(size=100)
        value = distance_of_numbers(reference, live)
        fixed, by_chance = fixed + (value >= 0.1), by_chance + (value > chance_of_numbers(reference, live))
    assert fixed >= 0.8 * RANDOM_SAMPLES
    assert by_chance <= 0.1 * RANDOM_SAMPLES


def test_two_samples_of_one_share_rarely_exceed_chance() -> None:
    """So do counts of ten names, 60 on each side."""
    random = np.random.default_rng(3)
    fixed = by_chance = 0
    for _ in range(RANDOM_SAMPLES):
        reference, live = random.multinomial(60, [0.1] * 10, size=2)
        value = distance_of_shares(reference, live)
        fixed, by_chance = fixed + (value >= 0.1), by_chance + (value > chance_of_shares(reference, live))
    assert fixed >= 0.8 * RANDOM_SAMPLES
    assert by_chance <= 0.1 * RANDOM_SAMPLES


def test_chance_is_the_same_for_the_same_rows() -> None:
    """No two reports on the same rows differ."""
    counts = np.array([5, 50]), np.array([9, 30])
    assert chance_of_shares(*counts) == chance_of_shares(*counts)


def test_a_change_is_far_beyond_chance() -> None:
    """Half a standard deviation on a thousand rows is no chance, and neither is 2 % that become 8 %."""
    random = np.random.default_rng(4)
    reference, live = random.normal(size=1000), random.normal(0.5, size=1000)
    assert distance_of_numbers(reference, live) > 3 * chance_of_numbers(reference, live)
    counts = np.array([20, 980]), np.array([400, 4600])
    assert distance_of_shares(*counts) > 1.5 * chance_of_shares(*counts)


def test_small_numbers_are_counted_in_deviations() -> None:
    """Numbers that vary by less than a thousandth are measured as well as any; others stay what they are."""
    random = np.random.default_rng(5)
    reference, live = random.normal(size=500), random.normal(1, size=500)
    small = in_deviations(reference * 1e-6, live * 1e-6)
    assert distance_of_numbers(*small) == pytest.approx(distance_of_numbers(reference, live))
    assert in_deviations(reference, live)[0] is reference


def test_names_of_both_sides_are_counted() -> None:
    """A name that one side lacks is counted 0 there."""
    names, reference, live = counts_of(["b", "b"], ["a", "b"])
    assert (names, reference.tolist(), live.tolist()) == (["a", "b"], [0, 2], [1, 1])
