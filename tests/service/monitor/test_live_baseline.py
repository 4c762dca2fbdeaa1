"""Live baseline of a coverage: from the reference to live traffic, and what is learned of which."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from service.decisions import RateKey
from service.monitor.drift_detector import DriftDetector, log_threshold
from service.monitor.live_baseline import NO_REFERENCE, LiveBaseline, named_zone
from service.monitor.season import TableProfile
from service.monitor.tolerance_band import coverage_band
from sfs.intervals import Rate

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
KEYS = [RateKey("short", "1", "coverage"), RateKey("links", "1", "coverage")]
BANDS = [coverage_band(Rate(4_000, 20_000), 0.1, 200), NO_REFERENCE]
RATES = np.array([0.2, 0.05])
MINUTES = 15  # of a block, where a test states no other
BLOCK, ROWS_OF_MINUTE = timedelta(minutes=MINUTES), 400
BLOCKS_OF_DAY = 1_440 // MINUTES


def make(zone: str = "UTC", swing: float = 0.4) -> tuple[DriftDetector, LiveBaseline]:
    """Return a detector of two slices, of which one has a reference."""
    baseline = LiveBaseline(KEYS, BANDS, 0.1, swing, named_zone(zone))
    bands = dict(zip(KEYS, BANDS, strict=True))
    return DriftDetector(bands, log_threshold(200, 1.0), baseline), baseline


def feed(
    detector: DriftDetector, start: datetime, days: float, rates: np.ndarray = RATES, seed: int = 0,
    minutes: int = MINUTES,
) -> list:  # fmt: skip
    """Feed blocks of some minutes with 400 rows a minute, and return the detections."""
    rng, found, block = np.random.default_rng(seed), [], timedelta(minutes=minutes)
    for k in range(round(days * 1_440 / minutes)):
        at, n = start + k * block, np.full(2, ROWS_OF_MINUTE * minutes)
        found += detector.advance_arrays(at, at + block, rng.binomial(n, rates), n, np.zeros(2, np.int64))
    return found


def test_limits_over_a_change_of_the_clocks_are_those_of_its_hours() -> None:
    """The mean over three hours, of which one is left out by the clock, is that of the hours by the clock."""
    detector, baseline = make("Europe/Berlin")
    change = datetime(2026, 3, 29, 1, tzinfo=UTC)
    for hour in range(9 * 24):
        feed(detector, change - timedelta(days=9, hours=-hour), 1 / 24, RATES * (1 + hour % 24 / 24), seed=hour)
    start = change - timedelta(hours=2)
    hours = [baseline.limits(start + timedelta(minutes=30 + 60 * k)).expected for k in range(4)]
    over = baseline.limits_over(start, start + timedelta(hours=4)).expected
    assert over == pytest.approx(np.mean(hours, axis=0), rel=0.01)
    assert np.ptp(hours, axis=0).min() > 0.02


def test_the_reference_is_in_force_until_a_whole_day_is_known() -> None:
    """A day that began before the service did is no whole day; a slice without a reference is not monitored."""
    detector, baseline = make()
    assert feed(detector, MONDAY + timedelta(hours=12), 1.4) == []
    assert [each.slice for each in detector.drifts()] == ["short"]
    band = detector.drifts()[0].zone
    assert band is not None
    assert band.live is not None
    assert (band.reference, band.live.days, band.live.missing) == (Rate(4_000, 20_000), 0, "hour of day: 0 of 1 days")
    feed(detector, MONDAY + timedelta(hours=12, days=1.4), 0.2)
    assert baseline.is_live().tolist() == [True, True]
    short, links = (each.zone for each in detector.drifts())
    assert short is not None
    assert links is not None
    assert links.live is not None
    assert links.live.missing == "hour of week: 1 of 8 days"
    assert short.reference.n == 1.5 * 1_440 * ROWS_OF_MINUTE
    assert links.lower < 0.05 < links.upper


def test_a_day_without_members_is_no_proof_of_their_absence() -> None:
    """A slice of 4 % that few rows of the first day show once, or never, raises no alarm for two months."""
    half_hour, none = timedelta(minutes=30), np.zeros(40, np.int64)
    keys = [RateKey(str(k), "1", "coverage") for k in range(40)]
    baseline = LiveBaseline(keys, [NO_REFERENCE] * 40, 0.1, 0.4)
    detector = DriftDetector(dict.fromkeys(keys, NO_REFERENCE), log_threshold(200, 1.0), baseline)
    rng, found, first_day = np.random.default_rng(3), [], np.zeros(40, np.int64)
    for row in range(60 * 48):
        members = rng.binomial(1, 0.04, 40)
        first_day += members * (row < 48)
        at = MONDAY + row * half_hour
        found += detector.advance_arrays(at, at + half_hour, members, none + 1, none)
    assert (first_day == 0).sum() >= 3
    assert found == []


def test_limits_narrow_once_a_week_is_known() -> None:
    """A swing is tolerated on top before, and the tolerance alone afterwards."""
    detector, baseline = make()
    widths = []
    for day in range(9):
        assert feed(detector, MONDAY + timedelta(days=day), 1, seed=day) == []
        limits = baseline.limits(MONDAY + timedelta(days=day + 1))
        widths.append(float(limits.upper[0] / limits.expected[0]))
    assert widths[3] > 1.5
    assert 1.1 <= widths[8] < 1.15


def test_a_change_is_not_learned() -> None:
    """The days of an alarm, and those after it at the new level, teach nothing."""
    detector, baseline = make()
    feed(detector, MONDAY, 9)
    changed = np.array([0.2, 0.1])
    assert {each.drift.slice for each in feed(detector, MONDAY + timedelta(days=9), 3, changed)} == {"links"}
    limits = baseline.limits(MONDAY + timedelta(days=12))
    assert limits.expected.tolist() == pytest.approx([0.2, 0.05], rel=0.02)
    assert baseline.season.days.tolist() == [11, 9]


@pytest.mark.parametrize("first_week", [0, 5])
def test_a_weekend_is_learned_when_it_recurs(first_week: int) -> None:
    """Three times the members on Saturday and Sunday alarm on two weekends at most; other days stay as they are.

    Also if they begin after the level was fixed.
    """
    detector, baseline = make()
    weeks = range(first_week + 4)
    alarms = []
    for day in range(7 * len(weeks)):
        week, weekday = divmod(day, 7)
        factor = np.array([3.0 if weekday >= 5 and week >= first_week else 1.0, 1.0])
        found = feed(detector, MONDAY + timedelta(days=day), 1, RATES * factor, day, minutes=60)
        alarms += [(week, weekday) for each in found if each.drift.slice == "short"]
    assert set(alarms) <= {(week, day) for week in (first_week, first_week + 1) for day in (5, 6)}
    assert alarms
    start = MONDAY + timedelta(weeks=len(weeks))
    expected = [baseline.limits(start + timedelta(days=day, hours=12)).expected[0] for day in range(7)]
    assert expected == pytest.approx([0.2] * 5 + [0.6] * 2, rel=0.05)


def test_a_change_that_lasts_for_weeks_is_not_learned() -> None:
    """It deviates on the same weekdays, and is calm on none between."""
    detector, baseline = make()
    feed(detector, MONDAY, 9, minutes=60)
    feed(detector, MONDAY + timedelta(days=9), 21, np.array([0.2, 0.1]), minutes=60)
    assert baseline.limits(MONDAY + timedelta(days=30)).expected[1] == pytest.approx(0.05, rel=0.02)


def test_an_accepted_rate_is_expected_at_once() -> None:
    """After an acceptance the new level raises no alarm, and a further change does."""
    detector, baseline = make()
    feed(detector, MONDAY, 9)
    feed(detector, MONDAY + timedelta(days=9), 1, np.array([0.2, 0.1]))
    baseline.rebase({KEYS[1]: Rate(10_000, 100_000)})
    detector.restart([KEYS[1]])
    assert feed(detector, MONDAY + timedelta(days=10), 3, np.array([0.2, 0.1])) == []
    assert feed(detector, MONDAY + timedelta(days=13), 1, np.array([0.2, 0.05]))


def test_a_second_change_is_found_as_soon_as_the_first() -> None:
    """The evidence of an alarm does not count as that of calm traffic, after which a slice would be nearly blind."""
    detector, _ = make()
    feed(detector, MONDAY, 9)
    changed, delays = np.array([0.2, 0.1]), []
    for day in (9, 11):
        start = MONDAY + timedelta(days=day)
        (first, *_) = feed(detector, start, 0.25, changed, seed=day)
        delays.append((first.at - start).total_seconds())
        feed(detector, start + timedelta(days=0.25), 1.75, seed=day + 1)
    assert delays[1] <= delays[0] + BLOCK.total_seconds()


def test_hours_are_those_of_the_time_zone() -> None:
    """Monday begins at midnight there."""
    baseline = make("Asia/Tokyo")[1]
    assert baseline.hour(int(MONDAY.timestamp())) == 9
    assert make()[1].hour(int(MONDAY.timestamp())) == 0


def test_late_blocks_are_not_learned() -> None:
    """A block before the last one changes no count of the season and no dispersion."""
    detector, baseline = make()
    feed(detector, MONDAY, 1.5)
    before = baseline.to_bytes()
    baseline.add(int(MONDAY.timestamp()), 10, np.array([100, 100]), np.array([100, 100]))
    assert baseline.to_bytes() == before


def test_restarts_change_nothing() -> None:
    """A detector that is stored and restored every few hours detects the same at the same blocks."""
    once, again = make()[0], make()
    changed = np.array([0.2, 0.08])
    whole = feed(once, MONDAY, 9) + feed(once, MONDAY + timedelta(days=9), 1, changed, seed=1)
    detector, baseline = again
    rng, found = np.random.default_rng(0), []
    n = np.full(2, ROWS_OF_MINUTE * MINUTES)
    for block in range(10 * BLOCKS_OF_DAY):
        if block == 9 * BLOCKS_OF_DAY:
            rng = np.random.default_rng(1)
        if block % 160 == 7:
            states = detector.to_bytes(), baseline.to_bytes()
            _, baseline = make()
            baseline.resume(LiveBaseline.from_bytes(states[1]))
            bands = dict(zip(KEYS, BANDS, strict=True))
            detector = DriftDetector.from_bytes(states[0], bands, log_threshold(200, 1.0), baseline)
        at, rates = MONDAY + block * BLOCK, RATES if block < 9 * BLOCKS_OF_DAY else changed
        found += detector.advance_arrays(at, at + BLOCK, rng.binomial(n, rates), n, np.zeros(2, np.int64))
    assert whole
    assert found == whole
    assert detector.drifts() == once.drifts()


def test_damaged_states_are_refused() -> None:
    """The message says what follows."""
    state = make()[1].to_bytes()
    for damaged in (b"", state[:-10], state.replace(b'"format": 1', b'"format": 9')):
        with pytest.raises(ValueError, match="learned from the start"):
            LiveBaseline.from_bytes(damaged)


def test_rates_of_one_slice_are_apart_and_a_limit_has_a_floor() -> None:
    """Unknown rows are learned beside the coverage; a rate of 0 is expected to stay below 0.1%, also when restored."""
    keys = [KEYS[1], KEYS[1]._replace(kind="unknown")]
    bands = dict.fromkeys(keys, NO_REFERENCE)
    baseline = LiveBaseline(keys, [*bands.values()], 0.1, 0.0)
    detector = DriftDetector(bands, log_threshold(200, 1.0), baseline)
    assert feed(detector, MONDAY, 1.1, np.array([0.05, 0.0])) == []
    restored = LiveBaseline(keys[::-1], [*bands.values()], 0.1, 0.0)
    restored.resume(LiveBaseline.from_bytes(baseline.to_bytes()))
    for limits in (baseline.limits(MONDAY + timedelta(days=1.1)).upper, restored.limits(MONDAY).upper[::-1]):
        assert limits[0] > 0.05
        assert limits[1] == 0.001


def seasonal(hours: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Return the factor of a swing of 30% by hours since Monday, whose mean is 1."""
    return (1 + 0.3 * np.sin(2 * np.pi * hours / 24)) ** power  # type: ignore[no-any-return]


def with_table(rows: int = 50_000) -> tuple[DriftDetector, LiveBaseline]:
    """Return a detector whose slices have a season in a table with so many rows in an hour of week."""
    n = np.full((168, 2), rows, np.float32)
    members = (n * RATES * seasonal(np.arange(168) + 0.5)[:, None]).astype(np.float32)
    table = TableProfile.of(members, n, np.ones(2))
    baseline = LiveBaseline(KEYS, BANDS, 0.1, 0.4, UTC, table)
    return DriftDetector(dict(zip(KEYS, BANDS, strict=True)), log_threshold(200, 1.0), baseline), baseline


def days_of(detector: DriftDetector, days: int, power: float = 1.0, level: float = 1.0) -> list:
    """Feed seasonal blocks from Monday on, and return the detections."""
    return [
        detection
        for block in range(days * BLOCKS_OF_DAY)
        for detection in feed(
            detector, MONDAY + block * BLOCK, 1 / BLOCKS_OF_DAY,
            level * RATES * seasonal(np.array(block * 24 / BLOCKS_OF_DAY), power), seed=block,
        )
    ]  # fmt: skip


def test_the_season_of_the_table_takes_the_place_of_the_swing() -> None:
    """The limits follow its hours around the reference, and both are narrower than the swing; the source is said."""
    _, baseline = with_table()
    plain = make()[1]
    for hour in (0, 6, 18):
        own, other = (each.limits(MONDAY + timedelta(hours=hour)) for each in (baseline, plain))
        assert own.expected[0] == pytest.approx(0.2 * seasonal(np.array(hour)), rel=0.02)
        assert own.lower[0] < own.calm_lower[0] < own.expected[0] < own.calm_upper[0] < own.upper[0]
        assert own.upper[0] / own.lower[0] < 0.85 * other.upper[0] / other.lower[0]
    live = baseline.band(0, baseline.limits(MONDAY)).live
    assert live is not None
    assert live.missing == "hour of day: 0 of 1 days; season: training table"


def test_a_table_with_few_rows_leaves_the_swing() -> None:
    """Its season is too uncertain."""
    small, plain = with_table(rows=30)[1], make()[1]
    for name in ("lower", "upper", "expected"):
        assert getattr(small.limits(MONDAY), name).tolist() == getattr(plain.limits(MONDAY), name).tolist()


@pytest.mark.parametrize("power", [0.6, 1.4])
def test_a_weaker_or_stronger_season_is_calm(power: float) -> None:
    """A table is older than the traffic."""
    detector, _ = with_table()
    assert days_of(detector, 3, power) == []


def test_the_level_is_that_of_live_traffic_after_a_day() -> None:
    """With the season of the table, which does not depend on the hours that were seen."""
    detector, baseline = with_table()
    days_of(detector, 2, level=1.15)
    for hour in (6, 18):
        limits = baseline.limits(MONDAY + timedelta(days=2, hours=hour))
        assert limits.expected == pytest.approx(1.15 * RATES * seasonal(np.array(hour)), rel=0.03)
        assert limits.lower[1] > 0.5 * limits.expected[1]
    live = baseline.band(1, baseline.limits(MONDAY)).live
    assert live is not None
    assert live.missing == "hour of week: 1 of 8 days; season: training table"


def test_live_traffic_sets_its_own_season_after_a_week() -> None:
    """The limits are those without a table, but for what its dispersion was measured against."""
    (detector, baseline), (other, plain) = with_table(), make()
    days_of(detector, 9)
    days_of(other, 9)
    at = MONDAY + timedelta(days=9, hours=6)
    for name in ("lower", "upper", "expected"):
        assert getattr(baseline.limits(at), name) == pytest.approx(getattr(plain.limits(at), name), rel=0.01)
    live = baseline.band(0, baseline.limits(at)).live
    assert live is not None
    assert "table" not in live.missing
