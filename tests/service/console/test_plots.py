"""Plots stand where their figures are."""

import re
from datetime import timedelta
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.console.axes import share_axis, time_axis
from service.console.charts import Flag, Spot, chart, together
from service.console.plots import Band, by_points, by_ratio, line_path, lone_path, range_plot, runs, sparkline

SHARES = st.floats(0, 1)


def spots_of(now, values):
    """A minute for each value."""
    return [
        Spot(
            now + timedelta(minutes=i),
            now + timedelta(minutes=i + 1),
            None if v is None else Band("coverage", v, max(v - 0.1, 0), min(v + 0.1, 1)),
            "n",
        )
        for i, v in enumerate(values)
    ]


def drawn(svg, class_):
    """The elements of a class, of a plot that is well-formed."""
    root = ET.fromstring(str(svg))  # noqa: S314  # ours
    return [each for each in root.iter() if each.get("class") == class_]


@settings(deadline=None)
@given(SHARES, SHARES, SHARES)
def test_scales_rise_and_stay_inside(mark, one, other):
    """A larger share never stands further left, and all stand between 0 and 1."""
    for scale in (by_ratio, by_points):
        low, high = scale(min(one, other), mark), scale(max(one, other), mark)
        assert 0 <= low <= high <= 1


def test_a_range_reaches_from_lower_to_upper():
    """The bar of an interval at half and twice the mark stands at a quarter and three quarters."""
    svg = range_plot(Band("coverage", 0.1, 0.05, 0.2), Band("expected", 0.1, 0.1, 0.1), by_ratio)
    assert [path.get("d") for path in drawn(svg, "bar")] == ["M25 8H75"]
    assert [dot.get("cx") for dot in drawn(svg, "dot")] == ["50"]


def test_a_sparkline_has_gaps_and_lone_dots():
    """A line is lifted where there is no figure, and one alone is a dot."""
    svg = sparkline([0.0, 1.0, None, 0.5, None], "coverage")
    paths = [drawn(svg, class_)[0].get("d") for class_ in ("line", "lone")]
    assert paths == ["M0 22L25 3", "M75 12.5h.01"]


@pytest.mark.parametrize("values", [[], [None], [None, None]])
def test_nothing_known_draws_nothing(values):
    """Without a figure there is no sparkline."""
    assert sparkline(values, "coverage") == ""


def test_a_line_of_nothing_lies_on_the_ground():
    """Shares of 0 do not divide by their height of nothing."""
    (line,) = drawn(sparkline([0.0, 0.0], "coverage"), "line")
    assert line.get("d") == "M0 22L100 22"


@settings(deadline=None)
@given(st.lists(st.none() | SHARES, max_size=30))
def test_runs_hold_every_known_place_once(values):
    """Runs, put together, are the places that have a height."""
    places = [(float(i), v) for i, v in enumerate(values)]
    assert [place for run in runs(places) for place in run] == [p for p in places if p[1] is not None]
    assert (line_path(places) + lone_path(places)).count("M") == len(runs(places))


@settings(deadline=None)
@given(st.lists(SHARES, max_size=8))
def test_a_share_axis_holds_its_shares(shares):
    """The axis begins and ends with a tick, inside [0, 1], and no share stands beyond it."""
    axis = share_axis(shares)
    assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])
    assert 0 <= axis.low < axis.high <= 1
    assert 2 <= len(axis.ticks) <= 6
    assert all(axis.low - 1e-6 <= share <= axis.high + 1e-6 for share in shares)


@settings(deadline=None)
@given(st.integers(1, 3 * 10**7), st.integers(0, 10**6))
def test_a_time_axis_has_few_round_ticks_inside(pages, seconds, offset):
    """At most six ticks stand between start and end, each on a multiple of the step."""
    start = pages.now + timedelta(seconds=offset)
    axis = time_axis(start, start + timedelta(seconds=seconds))
    assert len(axis.ticks) <= 6
    assert all(axis.start <= tick <= axis.end for tick in axis.ticks)
    assert len({tick.timestamp() % axis.step.total_seconds() for tick in axis.ticks}) <= 1


def test_days_are_named_where_they_begin(pages):
    """Midnight is said as its day, other ticks as their time."""
    axis = time_axis(pages.now, pages.now + timedelta(hours=24))
    assert [axis.said(tick) for tick in axis.ticks] == ["18:00", "2 May", "06:00", "12:00"]


def test_a_chart_draws_line_band_mark_and_flags(pages):
    """The chart is well-formed; flags outside of its time are left out."""
    flags = [Flag(pages.now + timedelta(minutes=1), 1), Flag(pages.now - timedelta(days=1), 2)]
    svg = chart(
        "coverage", spots_of(pages.now, [0.2, 0.3, None, 0.4]), Band("expected", 0.2, 0.1, 0.3), flags
    )
    svg = str(svg)
    assert drawn(svg, "line")[0].get("d").count("M") == 1
    assert drawn(svg, "band")[0].get("d").count("Z") == 1
    lone = [drawn(svg, class_)[0].get("d") for class_ in ("whisker", "lone")]
    assert lone == ["M875 0L875 50", "M875 25h.01"]
    assert [each.text for each in drawn(svg, "flag") if each.tag == "text"] == ["1"]
    assert [each[0].text.splitlines()[-1] for each in drawn(svg, "hover")] == ["n"] * 4


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=40))
def test_numbers_of_events_stand_apart(places):
    """Whatever happens when, every event has its number in one of the words, in order, and no two words touch."""
    flags = [(place, k) for k, place in enumerate(sorted(places), 1)]
    shown = together(flags)
    spans = [tuple(map(int, said.split("–"))) for _, said in shown]
    assert [k for span in spans for k in range(span[0], span[-1] + 1)] == [k for _, k in flags]
    for (one, said), (other, further) in pairwise(shown):
        assert other - one >= 0.028 * (len(said) + len(further)) / 2


def test_no_colours_or_styles_are_inside(pages):
    """A plot takes its looks from the style sheet, which the policy of the pages allows alone."""
    svg = str(chart("coverage", spots_of(pages.now, [0.2]), None))
    assert re.findall(r"style=|fill=|stroke=|#[0-9a-f]{3}", svg) == []
    assert chart("coverage", spots_of(pages.now, [None]), None) == ""
