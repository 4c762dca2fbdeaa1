"""Pages of slices: the overview of all in one window, and a slice in every window with its history and records."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup

from service.console import formatting
from service.console.formatting import STATES, WINDOWS, DisplayState
from service.console.pages.alarms import detector_row
from service.console.query_params import Refresh, RefreshQuery, TextQuery, query_string, slice_href
from service.console.render import NavLink, PageContext, PageExecutor, render_message, render_page
from service.console.svg import (
    Band,
    ChartPoint,
    EventMarker,
    accuracy_plot,
    band,
    coverage_plot,
    exact_band,
    line_chart,
    sparkline,
)
from service.decisions import Alarm, DriftStatus
from service.events import Estimate, InsufficientData, SliceEstimate, Snapshot, WindowName
from service.store.queries import recent_records
from service.views.alarms import alarms_view, drifts_by_slice, unresolved_by_slice
from service.views.records import CURSOR, RecordKind, RecordsView, records
from service.views.series import SliceSeries, series, sparklines
from service.views.slices import SliceKind, SlicesView, SliceView, UnknownSlice, slices_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

Sort: TypeAlias = Literal["alarms", "worst", "name", "coverage", "accuracy"]
SORTS: dict[Sort, str] = {
    "alarms": "alarms first",
    "worst": "worst first",
    "name": "name",
    "coverage": "highest coverage",
    "accuracy": "lowest accuracy",
}
RECORD_KINDS: dict[RecordKind, str] = {
    "errors": "errors",
    "correct": "correct",
    "unlabelled": "unlabelled",
    "unknown": "unknown membership",
    "all": "all members",
}
STALE_SECONDS = 60
"""Age from which the page warns of old figures; a snapshot is due every 10 s."""
PAGE_RECORDS = 25
SEARCHED_ALARMS = 1000
"""Number of latest alarms searched for those of a slice."""
MAX_CLASSES, MAX_PAIRS = 12, 30
"""Maximum number of classes in a confusion matrix, and of pairs listed instead."""
EXAMPLE_CHARACTERS = 60

_SEVERITIES = {"critical": 0, "warning": 1, "info": 2}
_DESCRIPTIONS: dict[SliceKind, str] = {
    "slice": "No description.",
    "labeling": "Rows on which this labelling function votes.",
    "none": "Rows in no slice.",
    "all": "All rows.",
}


@dataclass(frozen=True, slots=True)
class OverviewParams:
    """Window, order and filters of the overview."""

    window: WindowName = "1h"
    sort: Sort = "alarms"
    q: str = ""
    owner: str = ""
    state: DisplayState | Literal[""] = ""
    refresh: Refresh = 0

    @property
    def filtered(self) -> bool:
        """True if a filter may hide slices."""
        return bool(self.q or self.owner or self.state)

    def href(self, **changes: Any) -> str:
        """Return the address of the overview with changed parameters."""
        return "/" + query_string(asdict(self) | changes, asdict(OverviewParams()))


@dataclass(frozen=True, slots=True)
class SliceParams:
    """Slice, window, and kind of records; ``cursor`` is the end of the previous page of records."""

    name: str
    window: WindowName = "1h"
    kind: RecordKind = "errors"
    cursor: str = ""

    def href(self, **changes: Any) -> str:
        """Return the address of the slice's page with changed parameters."""
        values = asdict(self) | changes
        return slice_href(values.pop("name")) + query_string(values, asdict(SliceParams("")))


def add_routes(routes: APIRouter, runtime: Runtime, executor: PageExecutor) -> None:
    """Add the routes of the overview and of a slice."""

    @routes.get("/")
    async def show_overview(
        request: Request,
        window: WindowName = "1h",
        sort: Sort = "alarms",
        q: TextQuery = "",
        owner: TextQuery = "",
        state: DisplayState | Literal[""] = "",
        refresh: RefreshQuery = 0,
    ) -> Response:
        params = OverviewParams(window, sort, q, owner, state, refresh)
        return await executor.respond(lambda: overview_page(runtime, params, str(request.base_url)))

    @routes.get("/slices/{name:path}")
    async def show_slice(
        name: str,
        window: WindowName = "1h",
        kind: RecordKind = "errors",
        cursor: Annotated[str, Query(pattern=CURSOR)] = "",
    ) -> Response:
        params = SliceParams(name, window, kind, cursor)
        return await executor.respond(lambda: slice_page(runtime, params))


def overview_page(runtime: Runtime, params: OverviewParams, base_url: str) -> str:
    """Return the overview; ``base_url`` is the service's address in the commands to copy."""
    deployment, snapshot = runtime.model.deployment, runtime.model.deployment.snapshot
    classes = deployment.state.classes
    if snapshot is None:
        return _no_snapshot_page(
            runtime,
            params.href(),
            example_commands(base_url, None, classes, _example_record(runtime), with_key=runtime.access.has_keys),
        )
    if params.window not in snapshot.windows:
        return _no_window_page(snapshot, params)
    now = runtime.clock()
    view = slices_view(deployment, params.window)
    unlabelled_id = None
    if not view.slices[0].estimate.members.labelled:  # the page then shows how to send a label
        with runtime.store.read() as connection:
            for record in recent_records(connection, runtime.model.name, before=now, limit=1, labelled=False):
                unlabelled_id = record.id
    external = view.version if deployment.state.is_external else None
    commands = example_commands(
        base_url, unlabelled_id, classes, _example_record(runtime), external, with_key=runtime.access.has_keys
    )
    if deployment.state.awaits_repair:
        commands = replace(commands, predict="")
    return render_overview(
        view,
        params,
        now,
        coverage_by_hour=sparklines(runtime.store, deployment, now=now),
        commands=commands,
        alarms=unresolved_by_slice(runtime.store, runtime.model.name),
        speed=runtime.speed,
    )


def slice_page(runtime: Runtime, params: SliceParams) -> str:
    """Return a slice's page.

    Raises
    ------
    UnknownSlice
        If no current slice has the name.
    """
    store, model, deployment = runtime.store, runtime.model.name, runtime.model.deployment
    snapshot = deployment.snapshot
    if snapshot is None:
        return _no_snapshot_page(runtime, params.href(), example_commands("", None, ()))
    if params.window not in snapshot.windows:
        return _no_window_page(snapshot, params)
    view = slices_view(deployment, params.window)
    slice_view = next((slice_ for slice_ in view.slices if slice_.name == params.name), None)
    if slice_view is None:
        raise UnknownSlice(f"there is no slice {params.name!r}; it may have been renamed or removed")
    now = runtime.clock()
    history = series(store, deployment, params.name, window=params.window, since=None, until=None, now=now)
    unresolved = unresolved_by_slice(store, model)
    recent = alarms_view(store, model, limit=SEARCHED_ALARMS).items
    alarms = {
        alarm.id: alarm
        for alarm in (*unresolved.get(params.name, ()), *recent)
        if params.name in alarm.drift.slices and (alarm.state != "resolved" or alarm.at >= history.points[0].start)
    }
    return render_slice(
        view,
        slice_view,
        snapshot,
        history,
        records(store, deployment, params.name, kind=params.kind, limit=PAGE_RECORDS, cursor=params.cursor or None),
        params,
        now,
        SliceActivity(
            unresolved=sum(map(len, unresolved.values())),
            alarms=tuple(alarms[id_] for id_ in sorted(alarms, reverse=True)),
            drifts=tuple(drifts_by_slice(deployment).get(params.name, {}).values()),
            failures=runtime.metrics.unknown_rows(params.name),
            speed=runtime.speed,
        ),
    )


def _example_record(runtime: Runtime) -> Mapping[str, Any] | None:
    """Return the features of a record of the reference; null in a bundle without a sample."""
    state = runtime.model.deployment.state
    if state.active is None:
        return {column: state.sample[0].get(column) for column in runtime.settings.features} if state.sample else None
    record = state.sample[0] if state.sample else {}
    return {column: record.get(column) for column in state.active.bundle.feature_columns}


def _no_snapshot_page(runtime: Runtime, href: str, commands: ExampleCommands) -> str:
    state = runtime.model.deployment.state
    model, version = runtime.model.name, state.version
    if state.awaits_repair:
        return render_message(
            "The model cannot be loaded",
            f"{state.fault}.",
            "Predictions are refused until it is repaired; labels and logged predictions are accepted.",
            link=NavLink(href, "Refresh"),
            context=PageContext("slices", refresh=10),
        )
    if version is None:
        return render_message(
            "No model yet",
            f"No version of {model} is in service, and no predictions of it are logged.",
            "Train a version with the first command, or log predictions of a model served elsewhere with the second.",
            commands=("slicewatch train", commands.logged),
            link=NavLink(href, "Refresh"),
            context=PageContext("slices"),
        )
    return render_message(
        "No snapshot yet",
        f"Version {version} of {model} is in service, but has no figures yet.",
        "The first figures appear within 10 s.",
        link=NavLink(href, "Refresh"),
        context=PageContext("slices", refresh=10),
    )


def _no_window_page(snapshot: Snapshot, params: OverviewParams | SliceParams) -> str:
    return render_message(
        f"No figures {WINDOWS[params.window]}",
        f"Version {snapshot.version} of {snapshot.model} was never promoted.",
        link=NavLink(params.href(window="1h"), "Show the last hour"),
    )


def display_state(view: SliceView) -> DisplayState:
    """Return the state of a slice as the pages show it."""
    if view.state == "too_few" and isinstance(view.estimate.coverage, Estimate):
        return "few_labels"
    judged = isinstance(view.reference, Estimate) or view.metadata.target is not None
    return view.state if judged or view.state != "ok" else "not_judged"


def urgency(view: SliceView) -> tuple[int, int, int, float, str]:
    """Return a sort key that puts the most urgent slice first."""
    disabled = view.health is not None and view.health.state == "open"
    rank = list(STATES).index(display_state(view))
    return 0 if disabled else rank, rank, _SEVERITIES[view.metadata.severity], -_deviation(view), view.name


def _deviation(view: SliceView) -> float:
    """Return the distance from the target, or from the reference on a logarithmic scale."""
    target, accuracy = view.metadata.target, view.estimate.members.accuracy
    if view.state == "accuracy_low" and target is not None and isinstance(accuracy, Estimate):
        return target - accuracy.value
    coverage, reference = view.estimate.coverage, view.reference
    if not isinstance(coverage, Estimate) or not isinstance(reference, Estimate):
        return 0.0
    if coverage.value == 0 or reference.value == 0:
        return math.inf if coverage.value != reference.value else 0.0
    return abs(math.log(coverage.value / reference.value))


def _sort_key(view: SliceView, sort: Sort) -> tuple[Any, ...]:
    coverage, accuracy = view.estimate.coverage, view.estimate.members.accuracy
    if sort == "name":
        return view.name.casefold(), view.name
    if sort == "coverage":
        return -coverage.value if isinstance(coverage, Estimate) else 1.0, view.name
    if sort == "accuracy":
        return accuracy.value if isinstance(accuracy, Estimate) else 2.0, view.name
    return urgency(view)


@dataclass(frozen=True, slots=True)
class SliceRow:
    """Slice in a table of the overview."""

    slice: SliceView
    state: DisplayState
    alarms: tuple[Alarm, ...]
    href: str
    coverage_plot: Markup
    accuracy_plot: Markup
    sparkline: Markup


def render_overview(
    view: SlicesView,
    params: OverviewParams,
    now: datetime,
    coverage_by_hour: Mapping[str, Sequence[float | None]],
    commands: ExampleCommands,
    alarms: Mapping[str, tuple[Alarm, ...]] = MappingProxyType({}),
    speed: float = 1.0,
) -> str:
    """Render the overview; ``alarms`` are the unresolved ones by slice."""
    kinds: dict[SliceKind, list[SliceView]] = {"all": [], "none": [], "slice": [], "labeling": []}
    for slice_ in view.slices:
        kinds[slice_.kind].append(slice_)
    slices, traffic = kinds["slice"], kinds["all"][0].estimate
    states = Counter(map(display_state, slices))
    search = params.q.strip().casefold()
    matching = [
        slice_
        for slice_ in slices
        if search in slice_.name.casefold()
        and params.owner in ("", slice_.metadata.owner)
        and params.state in ("", display_state(slice_))
    ]

    def rows(some: Iterable[SliceView]) -> list[SliceRow]:
        def key(slice_: SliceView) -> tuple[Any, ...]:
            return params.sort == "alarms" and slice_.name not in alarms, _sort_key(slice_, params.sort)

        return [
            SliceRow(
                slice_,
                display_state(slice_),
                alarms.get(slice_.name, ()),
                SliceParams(slice_.name, params.window).href(),
                coverage_plot(slice_.estimate.coverage, slice_.reference),
                accuracy_plot(slice_.estimate.members.accuracy, slice_.metadata.target),
                sparkline(
                    coverage_by_hour.get(slice_.name, ()),
                    "coverage by hour over 24 h",
                    slice_.reference.value if isinstance(slice_.reference, Estimate) else None,
                ),
            )
            for slice_ in sorted(some, key=key)
        ]

    def aria_sort(column: Sort) -> Markup:
        direction = "descending" if column == "coverage" else "ascending"
        return Markup(' aria-sort="{}"').format(direction) if column == params.sort else Markup("")

    return render_page(
        "overview.html",
        PageContext("slices", sum(map(len, alarms.values())), params.refresh, view.fault),
        view=view,
        params=params,
        sorts=SORTS,
        commands=commands,
        traffic=traffic,
        traffic_alarms=alarms.get(traffic.slice, ()),
        traffic_href=SliceParams(traffic.slice, params.window).href(),
        predictions=traffic.coverage.rate.n if isinstance(traffic.coverage, Estimate) else traffic.coverage.n,
        label_age=None if view.last_label_at is None else formatting.duration(now - view.last_label_at),
        total=len(slices),
        state_counts={state: states[state] for state in STATES if states[state]},
        alarmed=sum(slice_.name in alarms for slice_ in slices),
        owners=sorted({slice_.metadata.owner for slice_ in slices if slice_.metadata.owner}),
        slices=rows(matching),
        labeling=rows(kinds["labeling"]),
        unsliced=rows(kinds["none"]),
        aria_sort=aria_sort,
        **_snapshot_age(view.at, now, speed),
    )


def _snapshot_age(at: datetime, now: datetime, speed: float) -> dict[str, Any]:
    return {
        "age": formatting.duration(now - at),
        "stale": now - at > timedelta(seconds=STALE_SECONDS * speed),
    }


@dataclass(frozen=True, slots=True)
class SliceActivity:
    """Alarms, detectors and failures of a slice.

    Parameters
    ----------
    unresolved
        Number of unresolved alarms of all slices; None if unknown.
    alarms
        Alarms of the slice, newest first: unresolved ones, and those raised in the window.
    drifts
        Status of its drift detectors.
    failures
        Rows without a result since the service started, by reason.
    speed
        Speed of the clock, in clock seconds per second.
    """

    unresolved: int | None = None
    alarms: tuple[Alarm, ...] = ()
    drifts: tuple[DriftStatus, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class WindowRow:
    """Slice in one window."""

    name: WindowName
    start: datetime
    estimate: SliceEstimate
    coverage_plot: Markup
    accuracy_plot: Markup


@dataclass(frozen=True, slots=True)
class RateChart:
    """Chart of a rate over time; ``svg`` is empty without any rate."""

    svg: Markup
    points: tuple[ChartPoint, ...]
    mark: Band | None


def render_slice(
    view: SlicesView,
    slice_: SliceView,
    snapshot: Snapshot,
    history: SliceSeries,
    records: RecordsView,
    params: SliceParams,
    now: datetime,
    activity: SliceActivity,
) -> str:
    """Render a slice's page."""
    markers = [EventMarker(event.at, n, event.kind == "alarm") for n, event in enumerate(history.events, 1)]

    def chart(
        name: str,
        unit: str,
        rate: Callable[[SliceEstimate], Estimate | InsufficientData],
        mark: Band | None,
    ) -> RateChart:
        points = []
        for point in history.points:
            value = rate(point.estimate)
            counts = (
                formatting.counts(value.rate, unit) if isinstance(value, Estimate) else formatting.needed(value, unit)
            )
            points.append(ChartPoint(point.start, point.end, band(name, value), counts))
        return RateChart(line_chart(name, points, mark, markers), tuple(points), mark)

    return render_page(
        "slice.html",
        PageContext("slices", activity.unresolved, fault=view.fault),
        view=view,
        slice=slice_,
        title=formatting.slice_title(slice_.name),
        description=slice_.metadata.description or _DESCRIPTIONS[slice_.kind],
        params=params,
        record_kinds=RECORD_KINDS,
        back=OverviewParams(window=params.window).href(),
        state=display_state(slice_),
        unresolved=[alarm for alarm in activity.alarms if alarm.state != "resolved"],
        detectors=[detector_row(drift, slice_.unknown_since.get(drift.kind)) for drift in activity.drifts],
        failures=sorted(activity.failures.items(), key=lambda item: (-item[1], item[0])),
        rows=[
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
        ],
        shown_windows=list(snapshot.windows),
        step=formatting.duration(timedelta(seconds=history.step_seconds)),
        coverage=chart("coverage", "rows", lambda x: x.coverage, band("expected", slice_.reference)),
        accuracy=chart(
            "accuracy",
            "labels",
            lambda x: x.members.accuracy,
            exact_band("target", slice_.metadata.target),
        ),
        events=history.events,
        records=records,
        confusion=confusion_matrix(records.buckets),
        older=params.href(cursor=records.next) if records.next else "",
        now=now,
        **_snapshot_age(view.at, now, activity.speed),
    )


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Labelled records by (true, predicted) class; the most frequent ``pairs`` instead if classes are many."""

    classes: tuple[str, ...]
    counts: Mapping[tuple[str, str], int]
    pairs: tuple[tuple[str, str, int], ...]

    @property
    def labelled(self) -> int:
        """Number of labelled records."""
        return sum(self.counts.values())

    def row(self, true: str) -> list[int]:
        """Return the counts of a true class by predicted class."""
        return [self.counts.get((true, predicted), 0) for predicted in self.classes]


def confusion_matrix(counts: Mapping[tuple[str, str], int]) -> ConfusionMatrix:
    """Return the counts of records by (true, predicted) class as a matrix or a list of pairs."""
    classes = tuple(sorted({name for pair in counts for name in pair}))
    if len(classes) <= MAX_CLASSES:
        return ConfusionMatrix(classes, counts, ())
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_PAIRS]
    return ConfusionMatrix(classes, counts, tuple((true, predicted, n) for (true, predicted), n in frequent))


@dataclass(frozen=True, slots=True)
class ExampleCommands:
    """Commands that send a prediction (empty if none can be made), log one, label one, and add a function."""

    predict: str
    logged: str
    label: str
    function: str


def example_commands(
    base_url: str,
    prediction_id: str | None,
    classes: Sequence[str],
    record: Mapping[str, Any] | None = None,
    external: int | None = None,
    *,
    with_key: bool = False,
) -> ExampleCommands:
    """Return commands to copy.

    Parameters
    ----------
    base_url
        Address of the service as the reader reaches it.
    prediction_id
        Prediction to label; None for a placeholder.
    classes
        Classes of the model; the first one is the label.
    record
        Features that the model takes; None if unknown.
    external
        Version to log predictions of while none can be made here; None if they can.
    with_key
        Whether the service asks for a key, which the commands take from ``SLICEWATCH_KEY``.
    """
    key = '-H "Authorization: Bearer $SLICEWATCH_KEY" ' if with_key else ""

    def curl(path: str, body: Any) -> str:
        address = shlex.quote(f"{base_url.rstrip('/')}/v1/{path}")
        content = shlex.quote(json.dumps(body, ensure_ascii=False))
        return f"curl {address} {key}-H 'Content-Type: application/json' \\\n  -d {content}"

    label = classes[0] if classes else "CLASS"
    features = {
        name: value[:EXAMPLE_CHARACTERS] if isinstance(value, str) else value
        for name, value in (record or {"text": "check this out"}).items()
    }
    column = next(iter(features))
    prediction = {"id": "1", "features": features, "label": label, "version": 1 if external is None else external}
    logged = curl("predictions", {"predictions": [prediction]})
    return ExampleCommands(
        predict=curl("predict", {"instances": [features]}) if external is None else logged,
        logged=logged,
        label=curl("labels", {"labels": [{"id": prediction_id or "PREDICTION-ID", "label": label}]}),
        function=curl("functions", {"name": f"no_{column}", "missing": {"field": column}}),
    )
