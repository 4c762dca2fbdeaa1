"""Intervals hold their level where n is small, by exact enumeration, and agree with scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from sfs.errors import SliceError
from sfs.intervals import (
    PairedDifference,
    Rate,
    anytime,
    anytime_arrays,
    clopper_pearson,
    clopper_pearson_arrays,
    paired_difference,
)

SIZES = [20, 50, 100, 300]
SHARES = [0.8, 0.9, 0.95, 0.99]
COUNTS = st.integers(0, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_clopper_pearson_covers(n, share):
    """The probability of every count, summed over those whose interval holds the share."""
    counts = np.arange(n + 1)
    lower, upper = clopper_pearson_arrays(counts, n)
    holds = (lower <= share) & (share <= upper)

    assert stats.binom.pmf(counts, n, share)[holds].sum() >= 0.95


@pytest.mark.parametrize(("count", "n"), [(0, 1), (0, 20), (9, 10), (20, 20), (150, 300), (9_999, 10_000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_clopper_pearson_is_scipys(count, n, confidence):
    """Scipy's exact binomial interval is the twin."""
    theirs = stats.binomtest(count, n).proportion_ci(confidence, method="exact")

    assert clopper_pearson(count, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_nothing_counted_leaves_everything_possible():
    """Without rows an interval is the whole scale."""
    assert clopper_pearson(0, 0) == anytime(0, 0) == (0.0, 1.0)
    assert Rate(0, 0).interval() == (0.0, 1.0)


@pytest.mark.parametrize("share", SHARES)
def test_the_anytime_sequence_misses_ever_in_at_most_5_percent_of_long_runs(share):
    """1,000 runs of 10,000 labels, looked at after every label near the start and ever more seldom after."""
    looks = np.unique(np.geomspace(1, 10_000, 80).astype(int))
    rng = np.random.default_rng(int(share * 1000))
    counts = np.cumsum(rng.binomial(np.diff(looks, prepend=0), share, size=(1_000, len(looks))), axis=1)
    lower, upper = anytime_arrays(counts, looks)
    ever = ((lower > share) | (share > upper)).any(axis=1)

    assert ever.mean() <= 0.05


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_the_anytime_sequence_covers_at_any_n_looked_at_once(n, share):
    """By enumeration of the counts."""
    counts = np.arange(n + 1)
    lower, upper = anytime_arrays(counts, n)

    assert stats.binom.pmf(counts, n, share)[(lower <= share) & (share <= upper)].sum() >= 0.95


@pytest.mark.parametrize(("count", "n"), [(0, 5), (5, 5), (3, 5), (90, 100), (9_900, 10_000)])
def test_the_anytime_limits_solve_their_equation(count, n):
    """A root finder on the formula as it is published is the twin."""

    def excess(p):
        mixture = special.betaln(count + 0.5, n - count + 0.5) - special.betaln(0.5, 0.5)
        return mixture - count * np.log(p) - (n - count) * np.log1p(-p) - np.log(1 / 0.05)

    lower, upper = anytime(count, n)
    eps = 1e-12
    middle = min(max(count / n, eps), 1 - eps)

    assert lower == (pytest.approx(optimize.brentq(excess, eps, middle), rel=1e-6) if count else 0.0)
    assert upper == (pytest.approx(optimize.brentq(excess, middle, 1 - eps), rel=1e-6) if count < n else 1.0)


@given(COUNTS)
def test_intervals_hold_their_share_and_anytime_is_the_wider(counted):
    """The price of looking at every time is width."""
    count, n = counted
    lower, upper = clopper_pearson(count, n)
    wide_lower, wide_upper = anytime(count, n)

    assert 0 <= lower <= upper <= 1
    if n:
        assert wide_lower - 1e-12 <= lower <= count / n <= upper <= wide_upper + 1e-12


@given(COUNTS, COUNTS)
def test_rates_add_like_their_counts(one, other):
    """Windows are sums of blocks."""
    assert Rate(*one) + Rate(*other) == Rate(one[0] + other[0], one[1] + other[1])


@pytest.mark.parametrize("n", SIZES)
def test_the_paired_interval_covers(n):
    """Pairs of disagreeing cells enumerated, far ones taken as missed, at rare and frequent disagreement."""
    cell = np.arange(min(n, 110) + 1)
    first, second = (each.ravel() for each in np.meshgrid(cell, cell, indexing="ij"))
    possible = first + second <= n
    first, second = first[possible], second[possible]
    limits = {pair: _limits(*pair, n) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    lower, upper = np.array(list(limits.values())).T
    for p, q in [
        (0.002, 0.002),
        (0.01, 0.01),
        (0.002, 0.05),
        (0.05, 0.01),
        (0.05, 0.05),
        (0.1, 0.02),
        (0.2, 0.1),
    ]:
        cells = np.stack([first, second, n - first - second], axis=1)
        mass = stats.multinomial.pmf(cells, n, [p, q, 1 - p - q])
        covered = mass[(lower <= p - q) & (p - q <= upper)].sum()
        assert covered >= 0.935, (p, q)


def _limits(first, second, n):
    difference = paired_difference(first, second, n)
    return difference.lower, difference.upper


PAIRS = st.integers(0, 60).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda a: st.tuples(st.just(a), st.integers(0, n - a), st.just(n)))
)


@given(PAIRS)
def test_exchanging_the_two_turns_the_interval_round(pair):
    """First minus second is minus second minus first."""
    first, second, n = pair
    one, other = paired_difference(first, second, n), paired_difference(second, first, n)

    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower))
    assert -1 <= one.lower <= one.upper <= 1


@given(PAIRS, PAIRS, PAIRS)
def test_paired_differences_add_in_any_grouping(a, b, c):
    """Blocks may be merged in any order."""
    x, y, z = (paired_difference(*each) for each in (a, b, c))

    assert (x + y) + z == x + (y + z)
    assert x + y == y + x == paired_difference(a[0] + b[0], a[1] + b[1], a[2] + b[2])


def test_no_disagreement_is_no_evidence():
    """The interval then has the width that n alone allows, and is marked."""
    equal = paired_difference(0, 0, 50)

    assert equal.no_evidence
    assert equal.value == 0.0
    assert equal.lower == -equal.upper < 0
    assert not paired_difference(1, 1, 50).no_evidence


def test_no_rows_leave_every_difference_possible():
    """And the difference itself is no number."""
    nothing = paired_difference(0, 0, 0)

    assert (nothing.value, nothing.lower, nothing.upper) == (None, -1.0, 1.0)


def test_differences_at_two_confidences_do_not_add():
    """Their sum would have none."""
    with pytest.raises(SliceError, match=r"at confidence 0\.95 and 0\.9"):
        PairedDifference(1, 0, 5) + PairedDifference(1, 0, 5, 0.9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clopper_pearson(3, 2), "a count lies between 0 and n, got 3 of 2"),
        (lambda: clopper_pearson(-1, 2), "got -1 of 2"),
        (lambda: anytime(1, 2, 1.0), r"a confidence lies between 0 and 1, got 1\.0"),
        (lambda: clopper_pearson_arrays([1, 5], [2, 3]), "got 5 of 3"),
        (lambda: paired_difference(3, 3, 5), "got 6 of 5"),
        (lambda: paired_difference(3, -1, 5), "got -1 of 5"),
    ],
)
def test_what_are_no_counts_is_refused(call, message):
    """With the values."""
    with pytest.raises(SliceError, match=message):
        call()
