"""Season of a training table: its counts by hour of week."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.errors import BundleError
from models.table_season import WEEK_HOURS, TableSeason, utc_times
from sfs.matrix import SliceMatrix

START = pd.Timestamp("2026-02-16T00:00:00Z")  # a Monday
PER_HOUR = 20


def season_of(hours: int, zone: str = "UTC") -> TableSeason | None:
    """Return the season of rows in which half are in slice a from 0 to 6 h UTC, b is unknown at 3 h, c is empty."""
    times = pd.Series(np.repeat(pd.date_range(START, periods=hours, freq="h"), PER_HOUR))
    hour = times.dt.hour.to_numpy()
    member = (np.arange(len(times)) % 2 == 0) & (hour < 6)
    unknown = hour == 3
    nothing = np.zeros_like(member)
    S = SliceMatrix(
        ("a", "b", "c"), np.column_stack([member, ~unknown, nothing]), np.column_stack([nothing, unknown, nothing])
    )
    return TableSeason.of(times, zone, S)


def test_counts_are_by_hour_of_week() -> None:
    """Unknown rows are counted where there are any; a slice without members has no season."""
    season = season_of(2 * WEEK_HOURS)
    assert season is not None
    assert season.rows == (2 * PER_HOUR,) * WEEK_HOURS
    assert season.members["a"] == ((PER_HOUR,) * 6 + (0,) * 18) * 7
    assert season.unknown == {"b": ((0,) * 3 + (2 * PER_HOUR,) + (0,) * 20) * 7}
    assert season.members.keys() == season.dispersion.keys() == {"a", "b"}
    assert season.dispersion["a"] == 1.0  # both weeks are equal


def test_hours_are_those_of_the_time_zone() -> None:
    """Midnight UTC is one o'clock in Berlin in winter."""
    season = season_of(2 * WEEK_HOURS, "Europe/Berlin")
    assert season is not None
    assert season.members["a"][:8] == (0, *(PER_HOUR,) * 6, 0)


@pytest.mark.parametrize("hours", [0, 1, 2 * WEEK_HOURS - 1])
def test_less_than_two_weeks_have_no_season(hours: int) -> None:
    """One week cannot be compared with another."""
    assert season_of(hours) is None


@pytest.mark.parametrize("clump", [1, 5])
def test_dispersion_is_that_between_the_weeks(clump: int) -> None:
    """Members that come five at a time have five times the variance."""
    random = np.random.default_rng(3)
    times = pd.Series(np.repeat(pd.date_range(START, periods=6 * WEEK_HOURS, freq="h"), 100))
    member = np.repeat(random.random(len(times) // clump) < 0.2, clump)[:, None]
    season = TableSeason.of(times, "UTC", SliceMatrix(("a",), member, np.zeros_like(member)))
    assert season is not None
    assert season.dispersion["a"] == pytest.approx(clump, rel=0.25)


def test_rows_without_a_time_are_left_out() -> None:
    """Text that is no time, too; a time without a zone is UTC."""
    text = pd.Series(["2026-02-16T01:30:00", "2026-02-16 02:00:00+01:00", "soon", None, "2026-02-17"])
    times = utc_times(text)
    assert times.isna().tolist() == [False, False, True, True, False]
    assert times[0] == times[1] + pd.Timedelta(minutes=30)


def test_a_season_comes_back_as_it_was_stored() -> None:
    """Also with unknown rows."""
    season = season_of(3 * WEEK_HOURS)
    assert season is not None
    assert TableSeason.from_json(season.to_json(), ["a", "b", "c"]) == season


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [1] * 167},
        {"rows": [1.0] * 168},
        {"members": {"d": [1] * 168}},
        {"dispersion": {"a": 0.5, "b": 1.0}},
        {"dispersion": {"a": 1.0}},
        {"zone": 3},
        {"unknown": ["a"]},
        {"members": None},
    ],
)
def test_a_season_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    """Of another number of hours, other types, or slices that the bundle does not have."""
    season = season_of(2 * WEEK_HOURS)
    assert season is not None
    with pytest.raises(BundleError, match="the season of the table is"):
        TableSeason.from_json(season.to_json() | change, ["a", "b", "c"])
