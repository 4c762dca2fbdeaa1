"""The series of the electricity market: its rows, slices and counts, and the changes to see in it."""

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
from elec_series import CHANGES, CONTROLS, DAY, LEARNING_ROWS, WEEK, ElecSeries, SeenChange, SliceRows, judge, picture


@pytest.fixture(scope="module")
def series(data_dir: Path) -> ElecSeries:
    if not (data_dir / "elec/elec.csv").exists():
        pytest.skip("the folder of public data has no elec/elec.csv")
    return ElecSeries.read(data_dir)


@pytest.fixture(scope="module")
def rows(series: ElecSeries) -> SliceRows:
    return series.rows()


@pytest.fixture
def few() -> Iterator[SliceRows]:
    """Two slices over two weeks: one every other row, one from the second week on."""
    n = np.arange(2 * WEEK)
    member = np.stack([n % 2 == 0, n >= WEEK], axis=1)
    return SliceRows(("even", "late"), member, n % 3 // 2, np.zeros_like(n))


@pytest.mark.data
def test_every_day_has_its_weekday(series: ElecSeries) -> None:
    """The file ends on 5 December 1998, and demand is lowest on Sundays and at Christmas in both halves of it."""
    assert series.times[-1] == datetime(1998, 12, 5, 23, 30)
    for part in (series.half_hour < 363 * DAY, series.half_hour >= 363 * DAY):
        by_weekday = [series.demand[part & (series.weekday == day)].mean() for day in range(7)]
        assert np.argmin(by_weekday) == 6
        assert max(by_weekday[5:]) < min(by_weekday[:5])
    daily = series.demand.reshape(-1, DAY).mean(axis=1)
    for year in (1996, 1997):
        christmas = (date(year, 12, 25) - date(1996, 5, 7)).days
        assert daily[christmas] < daily[christmas - 2]


@pytest.mark.data
def test_the_limits_are_those_of_the_first_weeks(series: ElecSeries, rows: SliceRows) -> None:
    """Whatever comes later, the slices of the first four weeks are the same, and a record is above all of them."""
    first = ElecSeries(*(getattr(series, name)[:LEARNING_ROWS] for name in series.__dataclass_fields__))
    for name, member in first.slices().items():
        assert np.array_equal(member, rows.member[:LEARNING_ROWS, rows.names.index(name)]), name
    assert 20 <= len(rows.names) <= 40
    assert rows.counts(LEARNING_ROWS)[0, rows.names.index("record_demand")] == 0
    assert rows.counts(LEARNING_ROWS)[0, rows.names.index("high_demand")] == pytest.approx(134, abs=2)


@pytest.mark.data
def test_the_seen_changes_are_there(rows: SliceRows) -> None:
    """Each has a slice that moves in its direction, by half at least; the slices of time never move."""
    for change in CHANGES:
        moved = []
        for name, up in [*((n, True) for n in change.up), *((n, False) for n in change.down)]:
            _, before, after = rows.around(name, change.last)
            _, earlier, _ = rows.around(name, change.first)
            _, _, begin = rows.around(name, change.first)
            lowest, highest = min(before, earlier), max(after, begin)
            moved.append(highest > 1.5 * lowest if up else min(after, begin) < max(before, earlier) / 1.5)
        assert any(moved), change
        assert not {*change.up, *change.down} & set(CONTROLS)
        assert {*change.up, *change.down} <= set(rows.names)
    weekly = rows.counts(WEEK)[:, [rows.names.index(name) for name in CONTROLS]]
    assert not weekly.std(axis=0).any()


@pytest.mark.data
def test_a_shuffled_copy_is_independent(rows: SliceRows) -> None:
    """Its days vary as independent rows do, while those of the series vary many times as much."""
    everything = slice(None)
    shuffled = rows.shuffled(0)
    assert np.array_equal(shuffled.member.sum(axis=0), rows.member.sum(axis=0))
    assert shuffled.dispersion(DAY, everything).max() < 1.3
    assert np.median(rows.dispersion(DAY, everything)) > 5
    assert np.array_equal(shuffled.member, rows.shuffled(0).member)


@pytest.mark.data
def test_the_picture_shows_every_slice(rows: SliceRows) -> None:
    """With its name, and a mark for each change in it."""
    drawn = picture(rows)
    assert all(name in drawn for name in rows.names)
    assert drawn.count("stroke-dasharray") == sum(len(change.up) + len(change.down) for change in CHANGES)


@pytest.mark.data
def test_alarms_are_judged(rows: SliceRows) -> None:
    """A listed change, one that is plain though not listed, and one that nobody would see; others are not coverage."""
    listed = ("transfer_above", "up", "1997-05-04")
    plain = ("lowest_demand", "up", "1998-04-10")
    alarms = [
        {
            "slice": name,
            "kind": kind,
            "direction": direction,
            "since": f"{since}T00:00:00Z",
            "raised": f"{since}T09:00Z",
        }
        for name, direction, since in (listed, plain, ("night", "down", "1997-05-04"))
        for kind in ("coverage", "accuracy")
    ]
    judged, missed = judge(rows, alarms)
    assert [(each.slice, each.plain) for each in judged] == [(listed[0], True), (plain[0], True), ("night", False)]
    assert judged[0].change is not None
    assert judged[1].change is None
    assert len(missed) == len(CHANGES) - 1
    assert picture(rows, judged).count("<circle") == 3


def test_counts_are_those_of_whole_blocks(few: SliceRows) -> None:
    """Rows that fill no block are left out; right predictions count within the slices."""
    assert few.counts(WEEK).tolist() == [[WEEK // 2, 0], [WEEK // 2, WEEK]]
    assert len(few.counts(WEEK - 1)) == 2
    assert few.correct(2 * WEEK).tolist() == [[2 * WEEK // 6 * 2, WEEK // 3 * 2]]


def test_dispersion_is_relative_to_independent_rows(few: SliceRows) -> None:
    """A slice that alternates has none at the scale of a day, and one that comes in a block has many rows' worth."""
    even, late = few.dispersion(DAY, slice(None))
    assert even == 0
    assert late > DAY / 2


def test_rates_around_a_day(few: SliceRows) -> None:
    """Before and after it."""
    _, before, after = few.around("late", date(1996, 5, 14))
    assert (before, after) == (0, 1)


def test_labels_come_a_day_later(few: SliceRows) -> None:
    """And later for one class, if so simulated; the same seed gives the same delays."""
    hours = few.label_hours(0, slower=4)
    assert hours.min() >= 24
    assert hours[few.label == 1].mean() - 24 == pytest.approx(24, rel=0.3)
    assert hours[few.label == 0].mean() - 24 == pytest.approx(6, rel=0.3)
    assert np.array_equal(hours, few.label_hours(0, slower=4))


def test_a_change_explains_alarms_near_it() -> None:
    """In a listed slice and direction, up to a week before and after the days of the change."""
    change = SeenChange(date(1997, 5, 4), date(1997, 5, 13), "", ("a",), ("b",))
    assert change.explains("a", "up", date(1997, 4, 27))
    assert change.explains("b", "down", date(1997, 5, 20))
    assert not change.explains("a", "down", date(1997, 5, 5))
    assert not change.explains("a", "up", date(1997, 5, 21))


def test_the_table_of_counts(few: SliceRows, tmp_path: Path) -> None:
    """A line for each half hour, with its start, one known row, and the members of every slice."""
    few.write_counts(tmp_path / "counts.csv")
    lines = (tmp_path / "counts.csv").read_text().splitlines()
    assert lines[:3] == ["start,known,even,late", "1996-05-07T00:00:00Z,1,1,0", "1996-05-07T00:30:00Z,1,0,0"]
    assert len(lines) == 2 * WEEK + 1
