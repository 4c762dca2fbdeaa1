"""Rates stand where they are in their zone, and differences beside the margin."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.console.spans import difference_plot, meter, zone_chart, zone_plot
from service.decisions import ToleranceBand
from sfs.intervals import Rate

SHARES = st.floats(0, 1)


def drawn(svg, class_):
    """The elements of a class, of a plot that is well-formed."""
    root = ET.fromstring(str(svg))  # noqa: S314  # ours
    return [each for each in root.iter() if each.get("class") == class_]


def test_a_rate_above_its_zone_stands_right_of_it(pages):
    """The zone ends before the interval begins, and the reference is inside the zone."""
    svg = zone_plot(pages.drift())
    (zone,) = drawn(svg, "zone")
    end = float(zone.get("x")) + float(zone.get("width"))
    begin = float(drawn(svg, "bar")[0].get("d").removeprefix("M").split(" ")[0])
    assert float(zone.get("x")) < float(drawn(svg, "mark")[0].get("d").removeprefix("M").split(" ")[0]) < end
    assert end < begin


@settings(deadline=None)
@given(SHARES, SHARES, SHARES, SHARES, st.integers(0, 50))
def test_nothing_is_drawn_outside(pages, one, other, lower, upper, count):
    """Whatever the zone and the interval, every place is between 0 and 100, and the plots are well-formed."""
    zone = ToleranceBand(Rate(1, 2), min(one, other), max(one, other), 0.1)
    found = pages.drift(zone=zone, observed=Rate(count, 50), lower=min(lower, upper), upper=max(lower, upper))
    for svg in (zone_plot(found), zone_chart(found)):
        (bar,) = drawn(svg, "bar")
        start, end = bar.get("d").removeprefix("M").replace("H", " ").split(" ")[::2]
        assert 0 <= float(start) <= float(end) <= 100.01
        (rect,) = drawn(svg, "zone")
        assert 0 <= float(rect.get("x")) <= 100


def test_without_a_zone_or_a_count_there_is_less_to_draw(pages):
    """No zone, no plot; nothing counted, no interval."""
    assert zone_plot(pages.drift(zone=None)) == zone_chart(pages.drift(zone=None)) == ""
    assert drawn(zone_plot(pages.drift(observed=Rate(0, 0))), "bar") == []


@pytest.mark.parametrize(
    ("share", "kind", "width"), [(0.0, "part", "0"), (0.5, "part", "50"), (1.2, "full", "100")]
)
def test_a_meter_is_full_where_it_alarms(share, kind, width):
    """Evidence beyond the threshold fills the meter, and no more."""
    (bar,) = drawn(meter(share), kind)
    assert bar.get("width") == width


def test_a_difference_of_nothing_stands_in_the_middle(pages):
    """Zero is the middle, and the margin left of it."""
    svg = difference_plot(pages.verdict("a", "as_good", (100, 80, 5, 5)), 0.02, 0.1)
    assert drawn(svg, "dot as_good")[0].get("cx") == "50"
    assert drawn(svg, "mark")[0].get("d").startswith("M40 ")
    assert difference_plot(pages.verdict("a", "not_verified", (0, 0, 0, 0)), 0.02, 0.1) == ""
