"""Plots place values correctly, stay inside their bounds, and are well-formed."""

import re
from datetime import timedelta
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_factories import NOW, drift, slice_decision

from service.console.svg import (
    Band,
    ChartPoint,
    EventMarker,
    difference_plot,
    dot_path,
    evidence_meter,
    interval_plot,
    line_chart,
    line_path,
    merge_labels,
    points_scale,
    rate_axis,
    ratio_scale,
    segments,
    sparkline,
    time_axis,
    tolerance_chart,
    tolerance_plot,
)
from service.decisions import ToleranceBand
from sfs.intervals import Rate

RATES = st.floats(0, 1)


def chart_points(values):
    """One point a minute."""
    return [
        ChartPoint(
            NOW + timedelta(minutes=i),
            NOW + timedelta(minutes=i + 1),
            None if v is None else Band("coverage", v, max(v - 0.1, 0), min(v + 0.1, 1)),
            "n",
        )
        for i, v in enumerate(values)
    ]


def drawn(svg, class_):
    """The elements of a class in a well-formed plot."""
    root = ET.fromstring(str(svg))  # noqa: S314  # ours
    return [each for each in root.iter() if each.get("class") == class_]


@settings(deadline=None)
@given(RATES, RATES, RATES)
def test_scales_are_monotone_and_stay_in_bounds(mark, one, other):
    """A larger rate is never further left, and all positions are between 0 and 1."""
    for scale in (ratio_scale, points_scale):
        low, high = scale(min(one, other), mark), scale(max(one, other), mark)
        assert 0 <= low <= high <= 1


def test_an_interval_plot_spans_lower_to_upper():
    """Half and twice the mark are at a quarter and three quarters of the plot."""
    svg = interval_plot(Band("coverage", 0.1, 0.05, 0.2), Band("expected", 0.1, 0.1, 0.1), ratio_scale)
    assert [path.get("d") for path in drawn(svg, "bar")] == ["M25 8H75"]
    assert [dot.get("cx") for dot in drawn(svg, "dot")] == ["50"]


def test_a_sparkline_has_gaps_and_dots():
    """Missing values interrupt the line, and a single value is a dot."""
    svg = sparkline([0.0, 1.0, None, 0.5, None], "coverage")
    paths = [drawn(svg, class_)[0].get("d") for class_ in ("line", "lone")]
    assert paths == ["M0 22L25 3", "M75 12.5h.01"]


@pytest.mark.parametrize("values", [[], [None], [None, None]])
def test_a_sparkline_without_values_is_empty(values):
    """Without any value there is no sparkline."""
    assert sparkline(values, "coverage") == ""


def test_a_sparkline_of_zeros_lies_at_the_bottom():
    """Rates of 0 do not divide by a maximum of 0."""
    (line,) = drawn(sparkline([0.0, 0.0], "coverage"), "line")
    assert line.get("d") == "M0 22L100 22"


@settings(deadline=None)
@given(st.lists(st.none() | RATES, max_size=30))
def test_segments_hold_every_known_place_once(values):
    """The segments together are the places with a value."""
    places = [(float(i), v) for i, v in enumerate(values)]
    assert [place for segment in segments(places) for place in segment] == [p for p in places if p[1] is not None]
    assert (line_path(places) + dot_path(places)).count("M") == len(segments(places))


@settings(deadline=None)
@given(st.lists(RATES, max_size=8))
def test_a_rate_axis_holds_its_rates(rates):
    """The axis starts and ends with a tick inside [0, 1], and holds every rate."""
    axis = rate_axis(rates)
    assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])
    assert 0 <= axis.low < axis.high <= 1
    assert 2 <= len(axis.ticks) <= 6
    assert all(axis.low - 1e-6 <= rate <= axis.high + 1e-6 for rate in rates)


@settings(deadline=None)
@given(st.integers(1, 3 * 10**7), st.integers(0, 10**6))
def test_a_time_axis_has_few_round_ticks_inside(seconds, offset):
    """At most six ticks, multiples of the step, lie between start and end."""
    start = NOW + timedelta(seconds=offset)
    axis = time_axis(start, start + timedelta(seconds=seconds))
    assert len(axis.ticks) <= 6
    assert all(axis.start <= tick <= axis.end for tick in axis.ticks)
    assert len({tick.timestamp() % axis.step.total_seconds() for tick in axis.ticks}) <= 1


def test_midnight_is_labelled_with_its_day():
    """The tick at midnight shows the day, other ticks show the time."""
    axis = time_axis(NOW, NOW + timedelta(hours=24))
    assert [axis.tick_label(tick) for tick in axis.ticks] == ["18:00", "2 May", "06:00", "12:00"]


def test_a_chart_draws_line_band_reference_and_events():
    """The chart is well-formed, and leaves out events outside of its time."""
    flags = [EventMarker(NOW + timedelta(minutes=1), 1), EventMarker(NOW - timedelta(days=1), 2)]
    svg = line_chart("coverage", chart_points([0.2, 0.3, None, 0.4]), Band("expected", 0.2, 0.1, 0.3), flags)
    svg = str(svg)
    assert drawn(svg, "line")[0].get("d").count("M") == 1
    assert drawn(svg, "band")[0].get("d").count("Z") == 1
    lone = [drawn(svg, class_)[0].get("d") for class_ in ("whisker", "lone")]
    assert lone == ["M875 0L875 50", "M875 25h.01"]
    assert [each.text for each in drawn(svg, "flag") if each.tag == "text"] == ["1"]
    assert [each[0].text.splitlines()[-1] for each in drawn(svg, "hover")] == ["n"] * 4


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=40))
def test_event_labels_do_not_overlap(places):
    """Every event number is in one label, in order, and no two labels touch."""
    flags = [(place, k) for k, place in enumerate(sorted(places), 1)]
    shown = merge_labels(flags)
    spans = [tuple(map(int, said.split("–"))) for _, said in shown]
    assert [k for span in spans for k in range(span[0], span[-1] + 1)] == [k for _, k in flags]
    for (one, said), (other, further) in pairwise(shown):
        assert other - one >= 0.028 * (len(said) + len(further)) / 2


def test_plots_contain_no_styles():
    """Colours come from the style sheet alone, as the content security policy requires."""
    svg = str(line_chart("coverage", chart_points([0.2]), None))
    assert re.findall(r"style=|fill=|stroke=|#[0-9a-f]{3}", svg) == []
    assert line_chart("coverage", chart_points([None]), None) == ""


def test_a_rate_above_its_band_is_right_of_it():
    """The band ends before the interval starts, and holds the reference."""
    svg = tolerance_plot(drift())
    (zone,) = drawn(svg, "zone")
    end = float(zone.get("x")) + float(zone.get("width"))
    begin = float(drawn(svg, "bar")[0].get("d").removeprefix("M").split(" ")[0])
    assert float(zone.get("x")) < float(drawn(svg, "mark")[0].get("d").removeprefix("M").split(" ")[0]) < end
    assert end < begin


@settings(deadline=None)
@given(RATES, RATES, RATES, RATES, st.integers(0, 50))
def test_tolerance_plots_stay_in_bounds(one, other, lower, upper, count):
    """For any band and interval, positions are between 0 and 100 and the plots are well-formed."""
    zone = ToleranceBand(Rate(1, 2), min(one, other), max(one, other), 0.1)
    found = drift(zone=zone, observed=Rate(count, 50), lower=min(lower, upper), upper=max(lower, upper))
    for svg in (tolerance_plot(found), tolerance_chart(found)):
        (bar,) = drawn(svg, "bar")
        start, end = bar.get("d").removeprefix("M").replace("H", " ").split(" ")[::2]
        assert 0 <= float(start) <= float(end) <= 100.01
        (rect,) = drawn(svg, "zone")
        assert 0 <= float(rect.get("x")) <= 100


def test_a_missing_band_or_count_is_not_drawn():
    """Without a band there is no plot, and without rows no interval."""
    assert tolerance_plot(drift(zone=None)) == tolerance_chart(drift(zone=None)) == ""
    assert drawn(tolerance_plot(drift(observed=Rate(0, 0))), "bar") == []


@pytest.mark.parametrize(("share", "kind", "width"), [(0.0, "part", "0"), (0.5, "part", "50"), (1.2, "full", "100")])
def test_a_meter_is_full_at_the_threshold(share, kind, width):
    """Evidence beyond the threshold fills the meter."""
    (bar,) = drawn(evidence_meter(share), kind)
    assert bar.get("width") == width


def test_a_difference_of_zero_is_in_the_middle():
    """Zero is in the middle, the margin left of it."""
    svg = difference_plot(slice_decision("a", "as_good", (100, 80, 5, 5)), 0.02)
    assert drawn(svg, "dot as_good")[0].get("cx") == "50"
    assert drawn(svg, "mark")[0].get("d").startswith("M40 ")
    assert difference_plot(slice_decision("a", "not_verified", (0, 0, 0, 0)), 0.02) == ""
