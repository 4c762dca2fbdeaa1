"""One slice over time, in steps that never divide a stored block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from service.errors import MisuseError
from service.events import EXTRA_COLUMNS, BlockCounts, FunctionSetVersion, SliceEstimate, WindowName
from service.monitor.block_counts import empty, merge, remap_columns
from service.monitor.estimates import estimates
from service.monitor.windows import floor_to, kept_seconds, windows
from service.serving.deployment import Deployment, DeploymentState
from service.store import queries
from service.store.alarms import alarms
from service.store.engine import Store
from service.views.alarms import alarm_sentence
from service.views.slices import no_promotion, unknown_slice
from sfs.function import ALL_ROWS, NO_SLICE

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
STEPS = (
    *(10, 30, _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 7 * _DAY),
)
"""Lengths of a step in seconds; a step not shorter than a block size is a multiple of that size."""

MAX_POINTS = 500
MAX_ALARMS = 1_000
"""Number of latest alarms, of all slices, that are searched for those of the slice."""


@dataclass(frozen=True, slots=True)
class Point:
    """Estimates over the rows predicted in [start, end)."""

    start: datetime
    end: datetime
    estimate: SliceEstimate


@dataclass(frozen=True, slots=True)
class SeriesEvent:
    """Event of the slice's model or function; ``alarm`` is the id of the alarm, if it is one."""

    at: datetime
    kind: Literal["promotion", "function_version", "alarm"]
    detail: str
    alarm: int | None = None


@dataclass(frozen=True, slots=True)
class SliceSeries:
    """One slice of one model version over time; points are of equal length and without gaps."""

    name: str
    model: str
    version: int | None
    step_seconds: int
    points: tuple[Point, ...]
    events: tuple[SeriesEvent, ...]


def step_seconds(since: datetime, until: datetime, points: int, now: datetime) -> int:
    """Return the step in seconds for about this many points, at least the length of the oldest blocks.

    Examples
    --------
    >>> from datetime import UTC
    >>> day, next_day = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 2, tzinfo=UTC)
    >>> step_seconds(day, next_day, 60, next_day), step_seconds(day, next_day, 60, datetime(2026, 6, 1, tzinfo=UTC))
    (1800, 3600)
    """
    least = max((until - since).total_seconds() / points, kept_seconds((now - since).total_seconds()))
    week = STEPS[-1]
    return next((step for step in STEPS if step >= least), -int(-least // week) * week)


def series(
    store: Store,
    deployment: Deployment,
    name: str,
    *,
    window: WindowName = "1d",
    since: datetime | None = None,
    until: datetime | None = None,
    points: int = 60,
    now: datetime,
) -> SliceSeries:
    """Return a slice of the active version over time, with its events.

    Parameters
    ----------
    name
        A slice, ``__all__`` or ``__none__``.
    window
        Default of ``since`` and ``until``.
    points
        Approximate number of points: a step is a multiple of the stored blocks.
    now
        Current time, UTC.

    Raises
    ------
    UnknownSlice
        If no slice has the name.
    NotReady
        If the window starts with a promotion, and there was none.
    MisuseError
        If ``since`` is not before ``until``.
    """
    state, config = deployment.state, deployment.estimate_config
    functions, column = _smallest_set(state, name)
    spans = windows(now, state.promoted_at)
    if window not in spans:
        raise no_promotion(window, state.model)
    since, until = since or spans[window].start, until or spans[window].end
    if since >= until:
        raise MisuseError(
            f"the time from {since.isoformat()} to {until.isoformat()} is empty: give an end after the start"
        )
    step = step_seconds(since, until, min(max(points, 1), MAX_POINTS), now)
    start = floor_to(since, step)
    with store.read() as connection:
        totals = (
            []
            if state.version is None
            else queries.totals_between(connection, state.model, state.version, start, until, step)
        )
        sets = queries.all_function_sets(connection)
        recent_alarms = alarms(connection, state.model, limit=MAX_ALARMS)
    counts = _counts_by_start(totals, functions, sets)
    length = timedelta(seconds=step)
    series_points = []
    at = start
    while at < until:
        total = counts.get(at) or empty("", 0, functions.hash, len(functions.names), at, step)
        slices = estimates(total, functions, "clopper-pearson", config)
        series_points.append(Point(at, at + length, slices[column]))
        at += length
    events = [
        *(
            SeriesEvent(change.at, "promotion", f"version {change.version}: {change.reason}")
            for change in state.history
        ),
        *_function_changes(sets, name),
        *(
            SeriesEvent(alarm.at, "alarm", f"alarm {alarm.id}: {alarm_sentence(alarm)}", alarm.id)
            for alarm in recent_alarms
            if name in alarm.drift.slices
        ),
    ]
    events = sorted((event for event in events if start <= event.at < until), key=lambda event: event.at)
    return SliceSeries(name, state.model, state.version, step, tuple(series_points), tuple(events))


def sparklines(
    store: Store, deployment: Deployment, *, hours: int = 24, points: int = 24, now: datetime
) -> Mapping[str, tuple[float | None, ...]]:
    """Return the coverage of every live slice and extra column, in equal steps up to now.

    Parameters
    ----------
    hours
        Approximate total length: steps are multiples of the stored blocks.
    points
        Number of steps; a step without rows of known membership is None.
    """
    state = deployment.state
    step = step_seconds(now - timedelta(hours=hours), now, points, now)
    end = floor_to(now, step) + timedelta(seconds=step)
    start = end - timedelta(seconds=points * step)
    names = (*state.functions_version.names, *EXTRA_COLUMNS)
    lines: dict[str, list[float | None]] = {name: [None] * points for name in names}
    if state.version is not None:
        with store.read() as connection:
            # Up to the end only: after a clock was set back, the log has rows of later steps.
            totals = queries.totals_between(connection, state.model, state.version, start, end, step)
            sets = queries.all_function_sets(connection)
        for at, total in _counts_by_start(totals, state.functions_version, sets).items():
            k = round((at - start).total_seconds()) // step
            for name, member, known in zip(names, total.member, total.n - total.unknown, strict=True):
                lines[name][k] = float(member / known) if known else None
    return {name: tuple(line) for name, line in lines.items()}


def _smallest_set(state: DeploymentState, name: str) -> tuple[FunctionSetVersion, int]:
    """Return the smallest function set that the slice needs, and the column of the slice under it."""
    at = state.functions_version.at
    if name == NO_SLICE:  # depends on all slices together
        return state.functions_version, EXTRA_COLUMNS.index(NO_SLICE) - len(EXTRA_COLUMNS)
    if name == ALL_ROWS:
        return FunctionSetVersion("", (), (), at), EXTRA_COLUMNS.index(ALL_ROWS) - len(EXTRA_COLUMNS)
    if name not in state.fingerprints:
        raise unknown_slice(name)
    return FunctionSetVersion("", (name,), (state.fingerprints[name],), at), 0


def _counts_by_start(
    totals: Iterable[BlockCounts], functions: FunctionSetVersion, sets: Iterable[FunctionSetVersion]
) -> dict[datetime, BlockCounts]:
    """Return the counts of all function sets, merged into the columns of one set, by start."""
    by_hash = {functions.hash: functions for functions in sets}
    groups: dict[datetime, list[BlockCounts]] = {}
    for total in totals:
        groups.setdefault(total.start, []).append(remap_columns(total, by_hash[total.set_hash], functions))
    return {at: merge(group) for at, group in groups.items()}


def _function_changes(sets: Iterable[FunctionSetVersion], name: str) -> Iterator[SeriesEvent]:
    """Yield the times at which the slice's function was added, changed or removed, by the sets in the log."""
    before: object = None
    for k, functions in enumerate(sets):
        fingerprints = dict(zip(functions.names, functions.fingerprints, strict=True))
        now: object = functions.slices if name == NO_SLICE else fingerprints.get(name)
        if k and now != before:
            change = "added" if before is None else "removed" if now is None else "changed"
            detail = "functions changed" if name == NO_SLICE else f"function {change}"
            yield SeriesEvent(functions.at, "function_version", detail)
        before = now
