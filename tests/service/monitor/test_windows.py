"""Which time a window covers, and in which sizes blocks are kept."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import BlockCounts
from service.monitor.block_counts import merge
from service.monitor.windows import age_out, finalised, floor_to, kept_seconds, roll_up, windows


def _by_time(blocks: list[BlockCounts]) -> list[BlockCounts]:
    return sorted(blocks, key=lambda block: (block.series, block.start))


MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@given(at=MOMENTS, seconds=st.sampled_from([10, 300, 3600]))
def test_flooring_finds_the_last_boundary(at: datetime, seconds: int) -> None:
    """A boundary is a whole multiple since 1970, at or before the moment, less than a step away."""
    floor = floor_to(at, seconds)
    assert floor.timestamp() % seconds == 0
    assert timedelta(0) <= at - floor < timedelta(seconds=seconds)


def test_flooring_reads_other_time_zones() -> None:
    """The same moment in another zone has the same boundary."""
    at = datetime(2026, 5, 1, 12, 0, 9, tzinfo=UTC)
    assert floor_to(at.astimezone(timezone(timedelta(hours=5, minutes=30))), 3600) == datetime(
        2026, 5, 1, 12, tzinfo=UTC
    )


def test_a_block_is_final_half_a_minute_after_its_end() -> None:
    """Blocks that end at or before the watermark get no more predictions."""
    end = datetime(2026, 5, 1, 12, 0, 10, tzinfo=UTC)
    assert finalised(end + timedelta(seconds=30)) == end
    assert finalised(end + timedelta(seconds=29.999)) < end


@given(at=MOMENTS)
def test_sliding_windows_have_their_length_and_hold_the_present(at: datetime) -> None:
    """Each window holds the moment of the tick and at least its length before, and less than 5 min 10 s more."""
    lengths = {"5m": 300, "1h": 3600, "1d": 86_400, "7d": 604_800}
    spans = windows(at, None)
    assert spans.keys() == lengths.keys()
    for name, span in spans.items():
        length = timedelta(seconds=lengths[name])
        slack = timedelta(seconds=310 if name == "7d" else 20)
        assert span.start <= at - length
        assert at < span.end
        assert span.end - span.start <= length + slack


def test_since_promotion_begins_with_its_hour(traffic: Any) -> None:
    """The window since promotion begins with the hour in which the version became champion."""
    promoted = traffic.at - timedelta(days=30)
    span = windows(traffic.at, promoted)["since_promotion"]
    assert span.start == promoted.replace(minute=0, second=0, microsecond=0)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_rolling_up_keeps_every_row(traffic: Any, data: st.DataObject) -> None:
    """Five minutes made of ten-second blocks equal five minutes counted from the rows; so does the hour on them."""
    rows = data.draw(traffic.histories(set_hashes=("first", "edited"), edges=traffic.edges[:5]))
    fives = roll_up(data.draw(st.permutations(traffic.blocks_of(rows))), 300)
    assert fives == _by_time(traffic.blocks_of(rows, 300))
    assert roll_up(fives, 3600) == _by_time(traffic.blocks_of(rows, 3600))


def test_a_block_that_does_not_fit_is_not_rolled_up(traffic: Any) -> None:
    """An hour cannot be made into five minutes."""
    hour = traffic.block_of([traffic.row("1")], seconds=3600)
    with pytest.raises(ValueError, match=r"3600 s at .* does not fit into one of 300 s"):
        roll_up([hour], 300)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_ageing_keeps_every_row_and_every_window(traffic: Any, data: st.DataObject) -> None:
    """Aged blocks count the same rows, and none of them lies across the start or end of a later window."""
    rows = data.draw(traffic.histories(edges=traffic.edges))
    aged_at = traffic.at - timedelta(seconds=data.draw(st.integers(0, 10 * 86_400)))
    aged = age_out(data.draw(st.permutations(traffic.blocks_of(rows))), aged_at)
    traffic.check(merge(aged), rows, traffic.sets["first"])
    for span in windows(traffic.at, traffic.at - timedelta(days=8)).values():
        for block in aged:
            assert block.end <= span.start or block.start >= span.start
            assert block.end <= span.end


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_ageing_in_steps_equals_ageing_at_once(traffic: Any, data: st.DataObject) -> None:
    """Blocks aged earlier and again later are those that are aged once."""
    blocks = traffic.blocks_of(data.draw(traffic.histories(edges=traffic.edges)))
    earlier = traffic.at - timedelta(seconds=data.draw(st.integers(0, 10 * 86_400)))
    assert age_out(age_out(blocks, earlier), traffic.at) == age_out(blocks, traffic.at)


@pytest.mark.parametrize(("days", "seconds"), [(0.99, 10), (1.01, 300), (6.9, 300), (7.1, 3600), (400, 3600)])
def test_blocks_are_kept_by_age(traffic: Any, days: float, seconds: int) -> None:
    """A row is kept in 10 s for a day, in 5 min for a week, and in 1 h for ever."""
    block = traffic.block_of([traffic.row("1", traffic.at - timedelta(days=days, hours=days > 7))])
    assert age_out([block], traffic.at)[0].seconds == seconds == kept_seconds(days * 86_400)
