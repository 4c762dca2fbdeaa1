"""How long the steps of a series are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from service.decisions import Alarm
from service.errors import MisuseError
from service.events import EXTRA_COLUMNS, BlockCounts, FunctionSetVersion, SliceEstimate, WindowName
from service.monitor.block_counts import empty, merge, remap_columns
from service.monitor.estimates import EstimateConfig, estimates
from service.monitor.windows import floor_to, kept_seconds, windows
from service.serving.deployment import Deployment, DeploymentState
from service.store import queries
from service.store.alarms import alarms
from service.store.engine import Store
from service.views.alarms import alarm_sentence
from service.views.slices import NotReady, UnknownSlice
from sfs.function import ALL_ROWS, NO_SLICE

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
STEPS = (
    *(10, 30, _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 7 * _DAY),
)
"""Seconds that people read easily; every one from a size of blocks upwards is a multiple of that size."""


def step_seconds(since: datetime, until: datetime, points: int, now: datetime) -> int:
    """Return the seconds of a step that cuts a time into about so many, and no block that is kept there.

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


@dataclass(frozen=True, slots=True)
class Point:
    """The rows predicted in [start, end)."""

    start: datetime
    end: datetime
    estimate: SliceEstimate


@dataclass(frozen=True, slots=True)
class SeriesEvent:
    """Something that happened to the slice's model or function, for people."""

    at: datetime
    kind: Literal["promotion", "function_version", "alarm"]
    detail: str


@dataclass(frozen=True, slots=True)
class SliceSeries:
    """One slice of one model version over time; points have one length and follow each other without gaps."""

    name: str
    model: str
    version: int | None
    step_seconds: int
    points: tuple[Point, ...]
    events: tuple[SeriesEvent, ...]


MOST_POINTS = 500
MOST_ALARMS = 1_000
"""Alarms of all slices, the last ones, among which those of the slice are looked for."""


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
    """Return a slice of the version in force over time, with what happened to it meanwhile.

    Parameters
    ----------
    name
        A slice, ``__all__`` or ``__none__``.
    window
        The time that is shown where ``since`` and ``until`` do not say otherwise.
    points
        How many to make, about: a step is as long as the blocks that are kept, or a multiple.
    now
        The time, UTC.

    Raises
    ------
    UnknownSlice
        If no slice has the name.
    NotReady
        If the window begins with a promotion, and there was none.
    MisuseError
        If the time is empty.
    """
    state = deployment.state
    wanted, column = _narrowed(state, name)
    since, until = _span(state, window, since, until, now)
    step = step_seconds(since, until, min(max(points, 1), MOST_POINTS), now)
    start = floor_to(since, step)
    with store.read() as connection:
        totals = (
            queries.totals_between(connection, state.model, state.version, start, until, step)
            if state.version is not None
            else []
        )
        sets = queries.all_function_sets(connection)
        raised = alarms(connection, state.model, limit=MOST_ALARMS)
    made = _points(totals, wanted, column, sets, (start, until, step), deployment.estimate_config)
    events = [*_promotions(state), *_function_versions(sets, name), *_alarms(raised, name)]
    shown = sorted((each for each in events if start <= each.at < until), key=lambda each: each.at)
    return SliceSeries(name, state.model, state.version, step, tuple(made), tuple(shown))


def sparklines(
    store: Store, deployment: Deployment, *, hours: int = 24, points: int = 24, now: datetime
) -> Mapping[str, tuple[float | None, ...]]:
    """Return the coverage of every slice in force, the extra columns among them, in equal steps up to now.

    Parameters
    ----------
    hours
        How far back, about: steps are multiples of the blocks that are kept.
    points
        How many steps; None stands where there are no rows of known membership.
    """
    state = deployment.state
    step = step_seconds(now - timedelta(hours=hours), now, points, now)
    end = floor_to(now, step) + timedelta(seconds=step)
    start = end - timedelta(seconds=points * step)
    names = (*state.functions_version.names, *EXTRA_COLUMNS)
    lines: dict[str, list[float | None]] = {name: [None] * points for name in names}
    if state.version is not None:
        with store.read() as connection:
            # not further: where a clock was set back, there are rows of a step that has not begun
            totals = queries.totals_between(connection, state.model, state.version, start, end, step)
            sets = {each.hash: each for each in queries.all_function_sets(connection)}
        for at, total in _projected(totals, state.functions_version, sets).items():
            place = round((at - start).total_seconds()) // step
            for name, member, known in zip(names, total.member, total.n - total.unknown, strict=True):
                lines[name][place] = float(member / known) if known else None
    return {name: tuple(line) for name, line in lines.items()}


def _narrowed(state: DeploymentState, name: str) -> tuple[FunctionSetVersion, int]:
    """Return a function set that is as small as the slice needs, and the slice's column under it."""
    at = state.functions_version.at
    if name == NO_SLICE:  # speaks of all the slices together
        return state.functions_version, EXTRA_COLUMNS.index(NO_SLICE) - len(EXTRA_COLUMNS)
    if name == ALL_ROWS:
        return FunctionSetVersion("", (), (), at), EXTRA_COLUMNS.index(ALL_ROWS) - len(EXTRA_COLUMNS)
    prints = dict(zip(state.functions_version.names, state.functions_version.fingerprints, strict=True))
    if name not in prints:
        raise UnknownSlice(f"there is no slice {name!r}; the slices are listed under /v1/slices")
    return FunctionSetVersion("", (name,), (prints[name],), at), 0


def _span(
    state: DeploymentState, window: WindowName, since: datetime | None, until: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    spans = windows(now, state.promoted_at)
    if window not in spans:
        raise NotReady(f"there is no window {window!r}: no version of {state.model!r} was promoted")
    since, until = since or spans[window].start, until or spans[window].end
    if since >= until:
        raise MisuseError(
            f"the time from {since.isoformat()} to {until.isoformat()} is empty: begin before its end"
        )
    return since, until


def _points(
    totals: Iterable[BlockCounts],
    wanted: FunctionSetVersion,
    column: int,
    sets: Iterable[FunctionSetVersion],
    steps: tuple[datetime, datetime, int],
    judging: EstimateConfig,
) -> Iterable[Point]:
    start, until, step = steps
    found = _projected(totals, wanted, {each.hash: each for each in sets})
    while start < until:
        end = start + timedelta(seconds=step)
        total = found.get(start) or empty("", 0, wanted.hash, len(wanted.names), start, step)
        yield Point(start, end, estimates(total, wanted, "clopper-pearson", judging)[column])
        start = end


def _projected(
    totals: Iterable[BlockCounts], wanted: FunctionSetVersion, sets: Mapping[str, FunctionSetVersion]
) -> dict[datetime, BlockCounts]:
    """Return the counts by time, those of all function sets together as the wanted set names them."""
    groups: dict[datetime, list[BlockCounts]] = {}
    for total in totals:
        groups.setdefault(total.start, []).append(remap_columns(total, sets[total.set_hash], wanted))
    return {at: merge(group) for at, group in groups.items()}


def _promotions(state: DeploymentState) -> Iterable[SeriesEvent]:
    for each in state.history:
        yield SeriesEvent(each.at, "promotion", f"version {each.version}: {each.reason}")


def _alarms(raised: Iterable[Alarm], name: str) -> Iterable[SeriesEvent]:
    for each in raised:
        if each.drift.slice == name:
            yield SeriesEvent(each.at, "alarm", f"alarm {each.id}: {alarm_sentence(each)}")


def _function_versions(sets: Iterable[FunctionSetVersion], name: str) -> Iterable[SeriesEvent]:
    """Yield when the slice came, changed or went, as far as predictions were made with the set."""
    before: object = None
    for k, each in enumerate(sets):
        prints = dict(zip(each.names, each.fingerprints, strict=True))
        now: object = each.slices if name == NO_SLICE else prints.get(name)
        if k and now != before:
            what = "changed" if None not in (before, now) else "came" if before is None else "went"
            said = "the functions changed" if name == NO_SLICE else f"its function {what}"
            yield SeriesEvent(each.at, "function_version", said)
        before = now
