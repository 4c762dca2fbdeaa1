"""A slice's page: every window side by side, its history, and its last records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from markupsafe import Markup

from service.console import words
from service.console.charts import Flag, Spot, chart
from service.console.choices import OverviewChoices, SliceChoices
from service.console.figures import accuracy_plot, band, coverage_plot, exact
from service.console.overview import age_of
from service.console.plots import Band
from service.console.records import confusion
from service.console.render import Frame, page
from service.console.states import shown, title
from service.console.watch import watch_row
from service.decisions import Alarm, DriftStatus
from service.events import Estimate, InsufficientData, SliceEstimate, Snapshot, WindowName
from service.views.alarms import alarm_sentence
from service.views.records import RecordsView
from service.views.series import SliceSeries
from service.views.slices import SliceKind, SlicesView, SliceView

_ABOUT: dict[SliceKind, str] = {
    "slice": "no description",
    "labeling": "The rows on which this labelling function votes.",
    "none": "The rows that are in none of the slices.",
    "all": "Every row.",
}


@dataclass(frozen=True, slots=True)
class SliceLoop:
    """What the loop knows of a slice.

    Parameters
    ----------
    unresolved
        How many alarms stand, of all slices; None where that is not known.
    alarms
        The slice's own, newest first: those that stand, and those of late.
    drifts
        Where it stands with the detectors.
    failures
        Rows that its function gave no answer for, by reason, since the service began.
    speed
        Of the clock.
    """

    unresolved: int | None = None
    alarms: tuple[Alarm, ...] = ()
    drifts: tuple[DriftStatus, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    speed: float = 1.0


NOTHING_MOVES = SliceLoop()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a slice; ``alarm`` is the id of one whose page is known."""

    at: datetime
    detail: str
    is_alarm: bool
    alarm: int | None


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A slice in one window."""

    name: WindowName
    start: datetime
    estimate: SliceEstimate
    coverage_plot: Markup
    accuracy_plot: Markup


@dataclass(frozen=True, slots=True)
class RateChart:
    """A share over time; ``svg`` is empty where there is none."""

    svg: Markup
    spots: tuple[Spot, ...]
    mark: Band | None


def detail(
    view: SlicesView,
    slice_: SliceView,
    snapshot: Snapshot,
    series: SliceSeries,
    records: RecordsView,
    choices: SliceChoices,
    now: datetime,
    loop: SliceLoop = NOTHING_MOVES,
) -> str:
    """Return the page.

    Parameters
    ----------
    view, slice_
        The chosen window, and the slice in it.
    snapshot
        All windows.
    series, records
        The slice over time, and a page of its records of the chosen kind.
    choices
        What the reader has chosen.
    now
        The time, UTC.
    loop
        Its alarms, its detectors, and why its function fails.
    """
    events = _events(series, loop.alarms)
    flags = [Flag(event.at, n, event.is_alarm) for n, event in enumerate(events, 1)]
    return page(
        "slice.html",
        Frame("slices", loop.unresolved),
        view=view,
        slice=slice_,
        heading=title(slice_),
        about=_ABOUT[slice_.kind],
        choices=choices,
        back=OverviewChoices(window=choices.window).href(),
        state=shown(slice_),
        standing=[each for each in loop.alarms if each.state != "resolved"],
        watch=[watch_row(each) for each in loop.drifts],
        failures=sorted(loop.failures.items(), key=lambda each: (-each[1], each[0])),
        rows=_windows(slice_, snapshot),
        shown_windows=list(snapshot.windows),
        step=words.duration(timedelta(seconds=series.step_seconds)),
        coverage=_coverage_chart(slice_, series, flags),
        accuracy=_accuracy_chart(slice_, series, flags),
        events=events,
        records=records,
        confusion=confusion(records.buckets),
        older=choices.href(cursor=records.next) if records.next else "",
        now=now,
        **age_of(view.at, now, loop.speed),
    )


def _events(series: SliceSeries, alarms: Sequence[Alarm]) -> list[Event]:
    """Return what happened, with the page of each alarm among it."""
    pages = {f"alarm {each.id}: {alarm_sentence(each)}": each.id for each in alarms}
    return [
        Event(each.at, each.detail, each.kind == "alarm", pages.get(each.detail)) for each in series.events
    ]


def _windows(slice_: SliceView, snapshot: Snapshot) -> list[WindowRow]:
    return [
        WindowRow(
            name,
            window.start,
            estimate,
            coverage_plot(estimate.coverage, slice_.reference),
            accuracy_plot(estimate.members.accuracy, slice_.metadata.target),
        )
        for name, window in snapshot.windows.items()
        for estimate in window.slices
        if estimate.slice == slice_.name
    ]


def _coverage_chart(slice_: SliceView, series: SliceSeries, flags: Sequence[Flag]) -> RateChart:
    found = [point.estimate.coverage for point in series.points]
    return _chart("coverage", "rows", series, found, band("expected", slice_.reference), flags)


def _accuracy_chart(slice_: SliceView, series: SliceSeries, flags: Sequence[Flag]) -> RateChart:
    found = [point.estimate.members.accuracy for point in series.points]
    return _chart("accuracy", "labels", series, found, exact("target", slice_.metadata.target), flags)


def _chart(
    name: str,
    unit: str,
    series: SliceSeries,
    found: Sequence[Estimate | InsufficientData],
    mark: Band | None,
    flags: Sequence[Flag],
) -> RateChart:
    spots = tuple(
        Spot(point.start, point.end, band(name, share), _counted(share, unit))
        for point, share in zip(series.points, found, strict=True)
    )
    return RateChart(chart(name, spots, mark, flags), spots, mark)


def _counted(share: Estimate | InsufficientData, unit: str) -> str:
    return (
        words.needed(share, unit) if isinstance(share, InsufficientData) else f"{words.out_of(share)} {unit}"
    )
