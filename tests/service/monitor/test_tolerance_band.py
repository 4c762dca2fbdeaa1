"""Where a rate may lie."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from service.decisions import ToleranceBand
from service.monitor.tolerance_band import accuracy_band, coverage_band, is_back_inside
from sfs.intervals import Rate

MAKERS: list[Callable[[Rate, float, int], ToleranceBand]] = [coverage_band, accuracy_band]

rates = st.integers(1, 10**6).flatmap(lambda n: st.builds(Rate, st.integers(0, n), st.just(n)))


@given(rate=rates, tolerance=st.floats(0, 0.5), slices=st.integers(1, 5_000))
@pytest.mark.parametrize("make", MAKERS)
def test_a_zone_contains_its_reference(
    make: Callable[[Rate, float, int], ToleranceBand], rate: Rate, tolerance: float, slices: int
) -> None:
    """The rate that was counted lies in the zone, and the zone in [0, 1]."""
    zone = make(rate, tolerance, slices)
    assert 0 <= zone.lower <= rate.count / rate.n <= zone.upper <= 1
    assert zone.reference == rate


@given(rate=rates, independent=st.integers(1, 10**6))
@pytest.mark.parametrize("make", MAKERS)
def test_a_zone_is_that_of_the_effective_n(
    make: Callable[[Rate, float, int], ToleranceBand], rate: Rate, independent: int
) -> None:
    """Repeated rows leave a zone as wide as fewer rows, around the same rate."""
    repeated, apart = make(Rate(rate.count, rate.n, independent), 0.1, 100), make(rate, 0.1, 100)
    assert repeated.lower <= apart.lower + 1e-9
    assert repeated.upper >= apart.upper - 1e-9
    assert repeated.reference.value == rate.value


@given(rate=rates, times=st.integers(2, 20))
@pytest.mark.parametrize("make", MAKERS)
def test_a_zone_shrinks_with_the_reference(
    make: Callable[[Rate, float, int], ToleranceBand], rate: Rate, times: int
) -> None:
    """The same rate counted in more rows leaves less open."""
    few, many = make(rate, 0.1, 100), make(Rate(rate.count * times, rate.n * times), 0.1, 100)
    assert few.lower <= many.lower + 1e-12
    assert many.upper <= few.upper + 1e-12


@pytest.mark.parametrize("make", MAKERS)
def test_without_a_reference_every_rate_is_in_the_zone(
    make: Callable[[Rate, float, int], ToleranceBand],
) -> None:
    """Nothing counted, nothing wrong."""
    zone = make(Rate(0, 0), 0.1, 100)
    assert (zone.lower, zone.upper) == (0, 1)


def test_of_a_large_reference_the_tolerance_is_left() -> None:
    """With millions of rows the zone is the rate, more or less the tolerance."""
    zone = coverage_band(Rate(2_000_000, 10_000_000), 0.1, 100)
    assert zone.lower == pytest.approx(0.18, rel=2e-3)
    assert zone.upper == pytest.approx(0.22, rel=2e-3)
    assert accuracy_band(Rate(9_000_000, 10_000_000), 0.01, 100).lower == pytest.approx(0.89, rel=1e-3)


def outside(make: Callable[[Rate, float, int], ToleranceBand], p: float, now: float, n: int) -> tuple[float, float]:
    """Return how probable it is that ``now`` is below, and above, a zone made of n rows of rate p."""
    weights = enumerate(stats.binom.pmf(range(n + 1), n, p))
    zones = [(weight, make(Rate(k, n), 0.1, 20)) for k, weight in weights if weight > 1e-12]
    below = sum(weight for weight, zone in zones if now < zone.lower)
    return float(below), float(sum(weight for weight, zone in zones if now > zone.upper))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("p", "n"), [(0.02, 500), (0.3, 300), (0.9, 300)])
def test_a_rate_that_has_not_changed_is_in_its_zone(
    make: Callable[[Rate, float, int], ToleranceBand], p: float, n: int
) -> None:
    """Computed over all references: the misses of all slices sum to 0.01 on each side at most."""
    below, above = outside(make, p, p, n)
    assert below <= 0.01 / 20
    assert above <= 0.01 / 20


@pytest.mark.parametrize(("p", "n"), [(0.02, 500), (0.3, 5_000)])
def test_a_change_by_the_tolerance_is_let_pass(p: float, n: int) -> None:
    """Computed over all references: such a coverage is outside with probability 0.05 at most."""
    assert outside(coverage_band, p, 0.9 * p, n)[0] <= 0.05
    assert outside(coverage_band, p, 1.1 * p, n)[1] <= 0.05


def test_a_loss_by_the_tolerance_is_let_pass() -> None:
    """Computed over all references: such an accuracy is below with probability 0.05 at most."""
    assert outside(accuracy_band, 0.95, 0.85, 300)[0] <= 0.05


def test_the_tolerance_of_accuracy_doubles_where_much_is_wrong() -> None:
    """The tolerated loss doubles from an error rate of one fifth."""
    assert accuracy_band(Rate(801, 1_000), 0.01, 1).tolerance == 0.01
    assert accuracy_band(Rate(800, 1_000), 0.01, 1).tolerance == 0.02


@pytest.mark.parametrize(
    ("reference", "target", "lower", "at_target"),
    [
        (Rate(28, 40), 0.75, 0.75, True),  # alone, the 40 rows give 0.38
        (Rate(950, 1_000), 0.75, 0.917, False),  # the reference is closer
        (Rate(0, 0), 0.6, 0.6, True),
        (Rate(38, 40), 1.0, 0.999, True),  # a single wrong label would refute 1
    ],
)
def test_a_target_is_the_limit_where_it_is_the_higher_one(
    reference: Rate, target: float, lower: float, at_target: bool
) -> None:
    """Whatever the reference, an accuracy below its target is outside."""
    zone = accuracy_band(reference, 0.01, 200, target)
    assert zone.lower == pytest.approx(lower, abs=1e-3)
    assert (zone.target is not None) is at_target
    assert zone.expected == (zone.lower if at_target else reference.value)
    assert accuracy_band(reference, 0.01, 200).target is None


@pytest.mark.parametrize(
    ("rate", "back"),
    [
        (Rate(20, 1_000), True),
        (Rate(2, 100), False),  # in the zone, but not shown to be
        (Rate(40, 1_000), False),
        (Rate(5, 1_000), False),
        (Rate(0, 0), False),
    ],
)
def test_a_coverage_is_back_when_its_interval_is_inside(rate: Rate, back: bool) -> None:
    """Both limits have to be inside, so few rows show nothing."""
    assert is_back_inside(ToleranceBand(Rate(200, 10_000), 0.01, 0.035, 0.1), rate) is back


def test_an_accuracy_is_back_when_its_lower_limit_is() -> None:
    """An accuracy above the reference is no reason for an alarm to stand."""
    zone = accuracy_band(Rate(900, 1_000), 0.01, 20)
    assert is_back_inside(zone, Rate(500, 500))
    assert not is_back_inside(zone, Rate(90, 100))


def test_a_target_that_is_not_monitored_as_it_is_sets_no_limit() -> None:
    """Above 99.9% it is monitored as 99.9%, below which this band does not begin."""
    band = accuracy_band(Rate(9_999_990, 10_000_000), 0.0001, 1, 1.0)
    assert band.lower > 0.9995
    assert band.target is None
