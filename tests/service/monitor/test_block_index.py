"""Blocks in memory, and the sums over them."""

import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import BlockCounts
from service.monitor.block_counts import empty
from service.monitor.block_index import BlockIndex
from service.monitor.windows import Span, floor_to, windows


def timeline(*blocks: BlockCounts) -> BlockIndex:
    line = BlockIndex("m", 3, "first", 3)
    for block in blocks:
        line.put(block)
    return line


def inside(rows: list[Any], span: Span) -> list[Any]:
    return [row for row in rows if span.start <= row.prediction.at < span.end]


def span_of(block: BlockCounts) -> Span:
    return Span(block.start, block.end)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_span_equals_a_recount(traffic: Any, data: st.DataObject) -> None:
    """Between any two boundaries of ten seconds the counts are those of the rows in between."""
    rows = data.draw(traffic.histories(edges=traffic.edges))
    line = timeline(*data.draw(st.permutations(traffic.blocks_of(rows))))
    ages = st.sampled_from([-10, *traffic.edges, 20 * 86_400])
    jitter = st.integers(-400, 400)
    at, first, last = traffic.at, *(data.draw(ages) + data.draw(jitter) for _ in "12")
    start, end = (floor_to(at - timedelta(seconds=age), 10) for age in sorted([first, last], reverse=True))
    traffic.check(line.total(Span(start, end)), inside(rows, Span(start, end)), traffic.sets["first"])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_late_blocks_reach_sums_that_were_made_before(traffic: Any, data: st.DataObject) -> None:
    """Windows equal a recount after adding, replacing and rolling up blocks, with any earlier cache."""
    rows = data.draw(traffic.histories(edges=traffic.edges))
    spans = windows(traffic.at, traffic.at - timedelta(days=9)).values()
    line = timeline()
    for block in data.draw(st.permutations(traffic.blocks_of(rows))):
        unlabelled = [traffic.row(r.prediction.id, r.prediction.at) for r in inside(rows, span_of(block))]
        line.put(traffic.block_of(unlabelled))
        for span in spans:
            line.total(span)
        line.put(block)
    for block in traffic.age_out(traffic.blocks_of(rows), traffic.at):
        line.put(block)
    for span in spans:
        traffic.check(line.total(span), inside(rows, span), traffic.sets["first"])


def test_a_span_without_blocks_counts_no_rows(traffic: Any) -> None:
    """A span without blocks has an empty total of the same time."""
    span = windows(traffic.at, None)["1h"]
    total = timeline().total(span)
    assert (total.n, total.start, total.end) == (0, span.start, span.end)


def test_empty_days_are_not_searched(traffic: Any) -> None:
    """A span over 5,000 empty days and one row finds the row, with few calls per empty day."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    start = floor_to(traffic.at, 86_400) - timedelta(days=5000)
    line = timeline(traffic.block_of([traffic.row("1")]))
    sys.setprofile(count)
    total = line.total(Span(start, start + timedelta(days=5002)))
    sys.setprofile(None)
    assert (total.n, total.start, total.seconds) == (1, start, 5002 * 86_400)
    print(f"{calls:,} calls")
    assert calls < 200_000  # and 8,900 a day where every part of a day is searched


def test_a_recount_takes_the_place_of_the_block(traffic: Any) -> None:
    """A recounted block replaces the previous one."""
    span = windows(traffic.at, None)["5m"]
    line = timeline(traffic.block_of([traffic.row("1")]), traffic.block_of([traffic.row("1", label="x")]))
    assert (line.total(span).n, line.total(span).labelled) == (1, 1)


def test_a_larger_block_takes_the_place_of_its_parts(traffic: Any) -> None:
    """A rolled-up block replaces its parts."""
    rows = [traffic.row("1"), traffic.row("2", traffic.at + timedelta(seconds=20))]
    hour = traffic.block_of(rows, seconds=3600)
    assert timeline(*traffic.blocks_of(rows), hour).total(span_of(hour)).n == 2


def test_a_part_of_a_larger_block_is_refused(traffic: Any) -> None:
    """A part of a rolled-up block cannot be added."""
    rows = [traffic.row("1")]
    line = timeline(traffic.block_of(rows, seconds=300))
    with pytest.raises(ValueError, match="part of a block of 300 s: use all of it"):
        line.put(traffic.block_of(rows))


def test_a_span_that_cuts_a_block_is_refused(traffic: Any) -> None:
    """A span that starts inside a block is an error."""
    hour = traffic.block_of([traffic.row("1")], seconds=3600)
    with pytest.raises(ValueError, match="part of a block of 3600 s"):
        timeline(hour).total(Span(hour.start + timedelta(seconds=300), hour.end))


@pytest.mark.parametrize("seconds", [3, 0.5])
def test_a_span_between_boundaries_is_refused(traffic: Any, seconds: float) -> None:
    """Spans start at multiples of ten seconds."""
    start = floor_to(traffic.at, 10)
    with pytest.raises(ValueError, match="start"):
        timeline().total(Span(start + timedelta(seconds=seconds), start + timedelta(seconds=20)))


def test_a_block_of_another_series_is_refused(traffic: Any) -> None:
    """An index holds one model version and one function set."""
    with pytest.raises(ValueError, match="does not belong to the series"):
        timeline(traffic.block_of([traffic.row("1", set_hash="edited")]))


@pytest.mark.parametrize(("offset", "seconds"), [(0, 20), (-12_890, 86_400), (-3, 10)])
def test_a_block_of_no_kept_size_is_refused(traffic: Any, offset: int, seconds: int) -> None:
    """Blocks have 10, 300 or 3600 s, and start at a multiple of their size."""
    start = floor_to(traffic.at, 10) + timedelta(seconds=offset)
    with pytest.raises(ValueError, match="blocks have"):
        timeline(traffic.block_of([traffic.row("1", start)], start, seconds))


@pytest.mark.parametrize("seconds", [300, 3600])
def test_a_span_that_cuts_a_merged_block_can_be_extended(traffic: Any, seconds: int) -> None:
    """Blocks that were merged while the clock was ahead are counted as a whole, other spans stay as they are."""
    start = floor_to(traffic.at, seconds)
    line = timeline(empty("m", 3, "first", 3, start, seconds))
    inner = Span(start + timedelta(seconds=20), start + timedelta(seconds=90))
    before = Span(start - timedelta(seconds=50), start)
    assert line.whole(inner) == Span(start, start + timedelta(seconds=seconds))
    assert line.total(line.whole(inner)).n == 0
    assert line.whole(before) == before
