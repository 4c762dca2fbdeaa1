"""Time windows, and block sizes by age."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.monitor.block_counts import merge
from service.monitor.windows import floor_to, kept_seconds, watermark, windows

MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@given(at=MOMENTS, seconds=st.sampled_from([10, 300, 3600]))
def test_flooring_finds_the_last_boundary(at: datetime, seconds: int) -> None:
    """The result is a multiple of the step, at most one step before the moment."""
    floor = floor_to(at, seconds)
    assert floor.timestamp() % seconds == 0
    assert timedelta(0) <= at - floor < timedelta(seconds=seconds)


def test_flooring_reads_other_time_zones() -> None:
    """The time zone does not matter."""
    at = datetime(2026, 5, 1, 12, 0, 9, tzinfo=UTC)
    assert floor_to(at.astimezone(timezone(timedelta(hours=5, minutes=30))), 3600) == datetime(
        2026, 5, 1, 12, tzinfo=UTC
    )


def test_a_block_is_final_half_a_minute_after_its_end() -> None:
    """The watermark is 30 s behind."""
    end = datetime(2026, 5, 1, 12, 0, 10, tzinfo=UTC)
    assert watermark(end + timedelta(seconds=30)) == end
    assert watermark(end + timedelta(seconds=29.999)) < end


@given(at=MOMENTS)
def test_sliding_windows_have_their_length_and_hold_the_present(at: datetime) -> None:
    """A window has at least its length, at most 5 min 10 s more, and includes the present."""
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
    """The window since promotion starts with the hour of the promotion."""
    promoted = traffic.at - timedelta(days=30)
    span = windows(traffic.at, promoted)["since_promotion"]
    assert span.start == promoted.replace(minute=0, second=0, microsecond=0)


def test_since_a_promotion_to_come_is_since_this_hour(traffic: Any) -> None:
    """The clock was set back after the promotion: no window ends before it starts."""
    span = windows(traffic.at, traffic.at + timedelta(days=1))["since_promotion"]
    assert span.start == traffic.at.replace(minute=0, second=0, microsecond=0)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_kept_block_is_cut_by_a_window(traffic: Any, data: st.DataObject) -> None:
    """Blocks that were rolled up with age never lie across the start or the end of a later window."""
    rows = data.draw(traffic.histories(edges=traffic.edges))
    aged_at = traffic.at - timedelta(seconds=data.draw(st.integers(0, 10 * 86_400)))
    aged = traffic.age_out(traffic.blocks_of(rows), aged_at)
    traffic.check(merge(aged), rows, traffic.sets["first"])
    for span in windows(traffic.at, traffic.at - timedelta(days=8)).values():
        for block in aged:
            assert block.end <= span.start or block.start >= span.start
            assert block.end <= span.end


@pytest.mark.parametrize(("days", "seconds"), [(0.99, 10), (1.01, 300), (6.9, 300), (7.1, 3600), (400, 3600)])
def test_block_sizes_by_age(days: float, seconds: int) -> None:
    """Blocks have 10 s for a day, 5 min for a week, and then 1 h."""
    assert kept_seconds(days * 86_400) == seconds
