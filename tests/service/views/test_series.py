"""A slice over time equals the count of its rows, however blocks are merged."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.registry import AliasChange
from service.errors import MisuseError
from service.events import Estimate, FunctionSetVersion, InsufficientData, Prediction
from service.jobs.rollup import RollUp
from service.serving.deployment import Deployment
from service.views.series import STEPS, series, sparklines, step_seconds
from service.views.slices import NotReady, UnknownSlice

Row = Callable[..., Any]


def shares(rows: Sequence[Prediction], start: datetime, end: datetime, bit: int) -> tuple[int, int]:
    """Count members, and rows of known membership, row by row."""
    inside = [each for each in rows if start <= each.at < end]
    known = [each for each in inside if not each.unknown[0] & bit]
    return sum(bool(each.member[0] & bit) for each in known), len(known)


def rate_of(estimate: Estimate | InsufficientData) -> tuple[int, int]:
    if isinstance(estimate, Estimate):
        return estimate.rate.count, estimate.rate.n
    return 0, estimate.n


@pytest.fixture
def traffic(log: Any, prediction: Row, now: datetime) -> list[Prediction]:
    """Rows over eleven days, with old blocks rolled up."""
    draw = random.Random(5)
    rows = []
    for n in range(150):
        age = timedelta(seconds=draw.choice([3000, 80_000, 600_000, 950_000]) * draw.random())
        state = draw.choice([("c", ""), ("", ""), ("", "c"), ("s", "")])
        rows.append(prediction(f"p{n}", age, *state, draw.choice(["kept", "lost"])))
    log.add(*rows, **{each.id: "kept" for each in rows[::3]})
    RollUp(log.writer).run(now)
    return rows


@pytest.mark.parametrize("points", [7, 60, 400])
@pytest.mark.parametrize("days", [0.02, 0.5, 1.1, 6.9, 7.2, 12])
def test_points_count_the_rows_of_their_time(
    log: Any, deployment: Deployment, traffic: list[Prediction], now: datetime, days: float, points: int
) -> None:
    """Points are exact at every age and block size, and without gaps."""
    since = now - timedelta(days=days)
    view = series(log.store, deployment, "cheap", since=since, until=now, points=points, now=now)
    assert view.points[0].start <= since < view.points[0].end
    assert view.points[-1].start < now <= view.points[-1].end
    for before, after in zip(view.points, view.points[1:], strict=False):
        assert before.end == after.start
    for point in view.points:
        assert (point.end - point.start).total_seconds() == view.step_seconds
        assert rate_of(point.estimate.coverage) == shares(traffic, point.start, point.end, 1)
        labelled = [each for each in traffic[::3] if point.start <= each.at < point.end]
        assert point.estimate.members.labelled == sum(each.member[0] & 1 for each in labelled)
    assert len(view.points) <= points + 1 or view.step_seconds in (300, 3600)


def test_the_extra_columns_have_a_series(
    log: Any, deployment: Deployment, traffic: list[Prediction], now: datetime
) -> None:
    """All rows, and the rows in no slice, have points."""
    every, none = (series(log.store, deployment, name, window="7d", now=now) for name in ("__all__", "__none__"))
    assert [each.estimate.slice for each in (every.points[0], none.points[0])] == ["__all__", "__none__"]
    for point, other in zip(every.points, none.points, strict=True):
        here = [each for each in traffic if point.start <= each.at < point.end]
        assert rate_of(point.estimate.coverage) == (len(here), len(here))
        none_fired = sum(each.member == each.unknown == b"\0" for each in here)
        holes = sum(each.unknown != b"\0" for each in here)
        assert rate_of(other.estimate.coverage) == (none_fired, len(here) - holes)
        assert other.estimate.unknown == holes


def test_a_window_is_the_default_time(
    log: Any, deployment: Deployment, change: Callable[..., None], now: datetime
) -> None:
    """The series covers the window by default; points without rows have no estimate."""
    view = series(log.store, deployment, "cheap", window="1h", now=now)
    assert view.points[0].start <= now - timedelta(hours=1) < view.points[0].end
    assert view.points[-1].end > now
    assert {type(point.estimate.coverage) for point in view.points} == {InsufficientData}
    with pytest.raises(NotReady, match="no window 'since_promotion'"):
        series(log.store, deployment, "cheap", window="since_promotion", now=now)
    change(promoted_at=now - timedelta(hours=2))
    since = series(log.store, deployment, "cheap", window="since_promotion", now=now)
    assert since.points[0].start == now.replace(hour=10, minute=0, second=0)


def test_without_a_version_there_are_points_without_rows(
    log: Any, deployment: Deployment, change: Callable[..., None], now: datetime
) -> None:
    """Before the first prediction, the series and sparklines are empty."""
    change(version=None)
    view = series(log.store, deployment, "cheap", now=now)
    assert view.version is None
    assert {rate_of(point.estimate.coverage) for point in view.points} == {(0, 0)}
    assert set(sparklines(log.store, deployment, now=now)["cheap"]) == {None}


def test_wrong_arguments_are_refused(log: Any, deployment: Deployment, now: datetime) -> None:
    """The name is unknown, or the time is empty."""
    with pytest.raises(UnknownSlice, match="no slice 'cheep'"):
        series(log.store, deployment, "cheep", now=now)
    with pytest.raises(MisuseError, match="is empty"):
        series(log.store, deployment, "cheap", since=now, until=now, now=now)


def test_rows_of_another_function_of_the_name_are_absent(
    log: Any, deployment: Deployment, prediction: Row, old_set: FunctionSetVersion, now: datetime
) -> None:
    """Such rows are absent from the slice, and counted in all rows."""
    age = timedelta(minutes=10)
    log.add(prediction("p1", age, "c"), prediction("p2", age, "c", set_hash=old_set.hash))
    cheap, short = (series(log.store, deployment, name, window="1h", points=1, now=now) for name in ("cheap", "short"))
    totals = [sum(rate_of(p.estimate.coverage)[1] for p in each.points) for each in (cheap, short)]
    assert totals == [1, 2]
    assert sum(point.estimate.absent for point in cheap.points) == 1


def test_events(log: Any, deployment: Deployment, change: Callable[..., None], now: datetime) -> None:
    """Promotions and changes of the slice's function within the series are listed in order."""
    changes = [
        AliasChange(1, 1, "h", "promote", "first", now - timedelta(days=19)),
        AliasChange(2, 2, "h", "promote", "better", now - timedelta(hours=3)),
    ]
    change(history=tuple(changes))
    gone = FunctionSetVersion("gone", ("short",), deployment.state.functions_version.fingerprints[1:2], now)
    log.writer.record_functions(gone).result()
    now_set = deployment.state.functions_version
    names, prints = (*now_set.names, "quiet"), (*now_set.fingerprints, "q")
    more = FunctionSetVersion("more", names, prints, now - timedelta(hours=1), ("loud", "quiet"))
    log.writer.record_functions(more).result()  # another labelling function: no slice has changed
    since, until = now - timedelta(days=18), now + timedelta(hours=1)

    def events(name: str) -> list[tuple[timedelta, str]]:
        view = series(log.store, deployment, name, since=since, until=until, now=now)
        return [(now - each.at, each.detail) for each in view.events]

    promotion = (timedelta(hours=3), "version 2: better")
    changed = (timedelta(hours=30), "function changed")
    assert events("cheap") == [changed, promotion, (timedelta(0), "function removed")]
    assert events("short") == [promotion]
    assert events("__all__") == [promotion]
    assert events("__none__") == [
        (timedelta(hours=30), "functions changed"),
        promotion,
        (timedelta(0), "functions changed"),
    ]


@pytest.mark.parametrize(("hours", "points"), [(24, 24), (24, 12), (6, 24), (24 * 14, 20)])
def test_sparklines_are_coverages_of_equal_steps_up_to_now(
    log: Any, deployment: Deployment, traffic: list[Prediction], now: datetime, hours: int, points: int
) -> None:
    """Every slice has a line; a step without rows of known membership is None."""
    lines = sparklines(log.store, deployment, hours=hours, points=points, now=now)
    assert list(lines) == ["cheap", "short", "loud", "__none__", "__all__"]
    step = step_seconds(now - timedelta(hours=hours), now, points, now)
    end = datetime.fromtimestamp((now.timestamp() // step + 1) * step, UTC)
    for k in range(points):
        start = end - timedelta(seconds=(points - k) * step)
        member, known = shares(traffic, start, start + timedelta(seconds=step), 1)
        assert lines["cheap"][k] == (member / known if known else None)
        assert lines["__all__"][k] in (1.0, None)


def test_sparklines_end_with_the_current_step(log: Any, deployment: Deployment, prediction: Row, now: datetime) -> None:
    """Rows of the next step, logged meanwhile or before a clock was set back, are omitted."""
    hour = now.replace(minute=0, second=0)
    log.add(prediction("last", now - hour + timedelta(minutes=1), "c"), prediction("next", now - hour))
    lines = sparklines(log.store, deployment, now=hour - timedelta(milliseconds=500))
    assert lines["cheap"] == (*[None] * 23, 1.0)


def test_steps_are_multiples_of_the_stored_blocks() -> None:
    """A step not shorter than a block size is a multiple of it."""
    for size in (10, 300, 3600):
        assert {step % size for step in STEPS if step >= size} == {0}
    week = timedelta(days=7)
    now = datetime(2026, 5, 20, tzinfo=UTC)
    assert step_seconds(now - 400 * week, now, 60, now) == 7 * week.total_seconds()
