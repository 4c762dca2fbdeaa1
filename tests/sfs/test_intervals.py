"""Intervals: coverage at small n by exact enumeration, and agreement with scipy."""

import numpy as np
import pytest
from factories import anytime
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from sfs.errors import SliceError
from sfs.intervals import (
    PairedDifference,
    Rate,
    anytime_arrays,
    clopper_pearson,
    clopper_pearson_arrays,
    effective_n,
)

SIZES = [20, 50, 100, 300]
SHARES = [0.8, 0.9, 0.95, 0.99]
COUNTS = st.integers(0, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_clopper_pearson_covers(n, share):
    """Exact coverage by enumeration is at least the confidence."""
    counts = np.arange(n + 1)
    lower, upper = clopper_pearson_arrays(counts, n)
    holds = (lower <= share) & (share <= upper)

    assert stats.binom.pmf(counts, n, share)[holds].sum() >= 0.95


@pytest.mark.parametrize(("count", "n"), [(0, 1), (0, 20), (9, 10), (20, 20), (150, 300), (9_999, 10_000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_clopper_pearson_is_scipys(count, n, confidence):
    """The limits equal those of scipy's exact binomial interval."""
    theirs = stats.binomtest(count, n).proportion_ci(confidence, method="exact")

    assert clopper_pearson(count, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_no_rows_give_the_whole_scale():
    """Without rows an interval is (0, 1)."""
    assert clopper_pearson(0, 0) == anytime(0, 0) == (0.0, 1.0)
    assert Rate(0, 0).interval() == (0.0, 1.0)


@pytest.mark.parametrize("share", SHARES)
def test_the_anytime_sequence_misses_ever_in_at_most_5_percent_of_long_runs(share):
    """1,000 runs of 10,000 labels, inspected after every early label and less often later."""
    looks = np.unique(np.geomspace(1, 10_000, 80).astype(int))
    rng = np.random.default_rng(int(share * 1000))
    counts = np.cumsum(rng.binomial(np.diff(looks, prepend=0), share, size=(1_000, len(looks))), axis=1)
    lower, upper = anytime_arrays(counts, looks)
    ever = ((lower > share) | (share > upper)).any(axis=1)

    assert ever.mean() <= 0.05


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_the_anytime_interval_covers_at_any_fixed_n(n, share):
    """Coverage at fixed n, by enumeration of the counts, is at least the confidence."""
    counts = np.arange(n + 1)
    lower, upper = anytime_arrays(counts, n)

    assert stats.binom.pmf(counts, n, share)[(lower <= share) & (share <= upper)].sum() >= 0.95


@pytest.mark.parametrize(("count", "n"), [(0, 5), (5, 5), (3, 5), (90, 100), (9_900, 10_000)])
def test_the_anytime_limits_solve_their_equation(count, n):
    """The limits equal the roots of the published formula."""

    def excess(p):
        mixture = special.betaln(count + 0.5, n - count + 0.5) - special.betaln(0.5, 0.5)
        return mixture - count * np.log(p) - (n - count) * np.log1p(-p) - np.log(1 / 0.05)

    lower, upper = anytime(count, n)
    eps = 1e-12
    middle = min(max(count / n, eps), 1 - eps)

    assert lower == (pytest.approx(optimize.brentq(excess, eps, middle), rel=1e-6) if count else 0.0)
    assert upper == (pytest.approx(optimize.brentq(excess, middle, 1 - eps), rel=1e-6) if count < n else 1.0)


@given(COUNTS)
def test_intervals_contain_the_rate_and_anytime_is_wider(counted):
    """Both intervals contain the rate, and the anytime interval is at least as wide."""
    count, n = counted
    lower, upper = clopper_pearson(count, n)
    wide_lower, wide_upper = anytime(count, n)

    assert 0 <= lower <= upper <= 1
    if n:
        assert wide_lower - 1e-12 <= lower <= count / n <= upper <= wide_upper + 1e-12


@given(COUNTS, COUNTS)
def test_rates_add_like_their_counts(one, other):
    """The sum of two rates adds counts and trials."""
    assert Rate(*one) + Rate(*other) == Rate(one[0] + other[0], one[1] + other[1])


@given(COUNTS, st.integers(1, 1_000), st.sampled_from([0.5, 0.95, 0.9999]))
def test_an_effective_n_widens_the_interval_around_the_rate(counts, independent, confidence):
    """The value is unchanged and inside, the effective n at most n, and fewer independent trials say less."""
    rate = Rate(*counts, independent)
    assert rate.value == Rate(*counts).value
    assert rate.effective_n == min(rate.n, independent)
    lower, upper = rate.interval(confidence)
    inner_lower, inner_upper = Rate(*counts).interval(confidence)
    assert lower <= inner_lower + 1e-9
    assert upper >= inner_upper - 1e-9
    if rate.n:
        assert lower - 1e-12 <= rate.value <= upper + 1e-12


@given(st.lists(st.integers(0, 6)))
def test_the_effective_n_is_at_most_the_number_of_contents(contents):
    """It is the number of contents where each has as many rows, and 0 without rows only."""
    assert (len(contents) > 0) <= effective_n(contents) <= len(set(contents)) <= len(contents)
    assert effective_n(contents * 3) == effective_n(contents)
    assert effective_n(sorted(set(contents)) * 4) == len(set(contents))


@pytest.mark.parametrize("n", SIZES)
def test_the_paired_interval_covers(n):
    """Coverage by enumeration of discordant counts, with few and many discordant rows."""
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
    difference = PairedDifference(first, second, n)
    return difference.lower, difference.upper


PAIRS = st.integers(0, 60).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda a: st.tuples(st.just(a), st.integers(0, n - a), st.just(n)))
)


@given(PAIRS)
def test_exchanging_the_two_mirrors_the_interval(pair):
    """First minus second is the negative of second minus first."""
    first, second, n = pair
    one, other = PairedDifference(first, second, n), PairedDifference(second, first, n)

    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower))
    assert -1 <= one.lower <= one.upper <= 1


def test_no_discordant_rows_leave_a_symmetric_interval():
    """Without discordant rows, the interval is symmetric; its width depends on n only."""
    equal = PairedDifference(0, 0, 50)

    assert equal.value == 0.0
    assert equal.lower == -equal.upper < 0


def test_no_rows_leave_every_difference_possible():
    """Without rows the difference is None and its interval (-1, 1)."""
    nothing = PairedDifference(0, 0, 0)

    assert (nothing.value, nothing.lower, nothing.upper) == (None, -1.0, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clopper_pearson(3, 2), "count must be between 0 and n, got 3 of 2"),
        (lambda: clopper_pearson(-1, 2), "got -1 of 2"),
        (lambda: anytime(1, 2, 1.0), r"confidence must be between 0 and 1, got 1\.0"),
        (lambda: clopper_pearson_arrays([1, 5], [2, 3]), "got 5 of 3"),
        (lambda: PairedDifference(3, 3, 5), "got 6 of 5"),
        (lambda: PairedDifference(3, -1, 5), "got -1 of 5"),
    ],
)
def test_invalid_counts_are_rejected(call, message):
    """The message has the values."""
    with pytest.raises(SliceError, match=message):
        call()
