"""Pages of alarms and incidents: lists, evidence and acknowledgement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup

from service.console.csrf import read_form, reject_cross_site
from service.console.formatting import percent_range, quantity, signed_points, slice_title, times_reference
from service.console.query_params import AlarmFilter, BeforeQuery, IdPath, ListParams, RefreshQuery
from service.console.render import HEADERS, PageContext, PageExecutor, page_context, render_page
from service.console.svg import evidence_meter, tolerance_chart, tolerance_plot
from service.decisions import RATES, Alarm, DriftKind, DriftStatus, Incident, Run
from service.errors import MisuseError
from service.events import Snapshot
from service.formatting import limit_text, percent
from service.store.runs import runs_since
from service.views.alarms import (
    alarm_sentence,
    alarm_unknown_since,
    alarm_view,
    alarms_view,
    drift_view,
    drifts_by_slice,
    incident_sentence,
    incident_view,
    incidents_view,
    labels_at_half,
    pooled_text,
    unknown_since,
    unresolved_by_slice,
)

if TYPE_CHECKING:
    from service.runtime.access import Caller
    from service.runtime.runtime import Runtime
    from service.settings.schema import DriftSettings

UNRESOLVED_ROWS, RESOLVED_ROWS, INCIDENTS = 50, 20, 20
NEAREST, MIN_EVIDENCE = 5, 0.2
"""Maximum number of detectors shown without an alarm, and their minimum fraction of the alarm threshold."""
NAME_CHARACTERS, NOTE_CHARACTERS = 100, 1000


def add_routes(routes: APIRouter, runtime: Runtime, executor: PageExecutor) -> None:
    """Add the routes of alarms and incidents, and the forms that acknowledge one."""

    @routes.get("/alarms")
    async def list_alarms(
        which: AlarmFilter = "all", before: BeforeQuery = None, refresh: RefreshQuery = 0
    ) -> Response:
        params = ListParams("/alarms", which, before, refresh)
        return await executor.respond(lambda: alarms_page(runtime, params))

    @routes.get("/alarms/{id}")
    async def show_alarm(id: IdPath, request: Request) -> Response:
        caller = caller_of(request)
        return await executor.respond(lambda: alarm_page(runtime, id, caller))

    @routes.post("/alarms/{id}/acknowledge")
    async def acknowledge(id: IdPath, request: Request) -> Response:
        reject_cross_site(request.headers)
        await runtime.model.alarms.acknowledge(id, *acknowledgement(await read_form(request), caller_of(request)))
        return RedirectResponse(f"/alarms/{id}", 303, headers=HEADERS)

    @routes.post("/alarms/{id}/accept")
    async def accept(id: IdPath, request: Request) -> Response:
        reject_cross_site(request.headers)
        by, note = acknowledgement(await read_form(request), caller_of(request))
        await runtime.model.alarms.accept(id, note, actor=by)
        return RedirectResponse(f"/alarms/{id}", 303, headers=HEADERS)

    @routes.get("/incidents/{id}")
    async def show_incident(id: IdPath, request: Request) -> Response:
        caller = caller_of(request)
        return await executor.respond(lambda: incident_page(runtime, id, caller))

    @routes.post("/incidents/{id}/acknowledge")
    async def acknowledge_incident(id: IdPath, request: Request) -> Response:
        reject_cross_site(request.headers)
        by, note = acknowledgement(await read_form(request), caller_of(request))
        await runtime.model.alarms.acknowledge_incident(id, by, note)
        return RedirectResponse(f"/incidents/{id}", 303, headers=HEADERS)


def alarms_page(runtime: Runtime, params: ListParams) -> str:
    """Return the page of all alarms."""
    drifts = drift_view(runtime.model.deployment)
    alarms = unresolved_by_slice(runtime.store, runtime.model.name)
    alarmed = {(alarm.drift.slice, alarm.drift.kind) for some in alarms.values() for alarm in some}
    return render_alarms(
        page_context(runtime, "alarms", params.refresh),
        runtime.model.name,
        params,
        _alarm_list(runtime, params, "unresolved", UNRESOLVED_ROWS),
        _alarm_list(runtime, params, "resolved", RESOLVED_ROWS),
        detector_summary(drifts, alarmed),
        runtime.settings.drift,
        runtime.clock(),
        incidents_view(runtime.store, runtime.model.name, unresolved=True, limit=INCIDENTS).items,
        awaits_repair=runtime.model.deployment.state.awaits_repair,
    )


def alarm_page(runtime: Runtime, alarm_id: int, caller: Caller | None = None) -> str:
    """Return the page of one alarm, with the form for a caller with the scope ``write``, or without keys.

    Raises
    ------
    UnknownAlarm
        If there is no such alarm.
    """
    alarm = alarm_view(runtime.store, runtime.model.name, alarm_id)
    with runtime.store.read() as connection:
        runs = runs_since(connection, runtime.model.name, alarm.at)
    drifts = drifts_by_slice(runtime.model.deployment).get(alarm.drift.slice, {})
    return render_alarm(
        page_context(runtime, "alarms"),
        alarm,
        runs,
        drifts.get(alarm.drift.kind),
        runtime.settings.drift,
        runtime.clock(),
        caller,
        runtime.model.deployment.snapshot,
    )


def incident_page(runtime: Runtime, incident_id: int, caller: Caller | None = None) -> str:
    """Return the page of one incident, with a form as that of an alarm.

    Raises
    ------
    UnknownIncident
        If there is no such incident.
    """
    incident = incident_view(runtime.store, runtime.model.name, incident_id)
    return render_incident(page_context(runtime, "alarms"), incident, runtime.clock(), caller)


def caller_of(request: Request) -> Caller | None:
    """Return the caller of a page; None without keys."""
    caller: Caller | None = request.scope.get("state", {}).get("caller")
    return caller


def acknowledgement(form: Mapping[str, str], caller: Caller | None = None) -> tuple[str, str]:
    """Return the name, which is that of the caller if there is one, and the note of a form, each in one line.

    Raises
    ------
    MisuseError
        If the name is missing, or a field is too long.
    """
    values = []
    form = form if caller is None else {**form, "by": caller.name}
    for field, label, limit in (("by", "your name", NAME_CHARACTERS), ("note", "the note", NOTE_CHARACTERS)):
        printable = "".join(char if char.isprintable() else " " for char in form.get(field, ""))
        values.append(" ".join(printable.split()))
        if len(values[-1]) > limit:
            raise MisuseError(f"{label} has {len(values[-1])} characters; the limit is {limit}")
    if not values[0]:
        raise MisuseError("your name is missing; enter it to change the alarm")
    return values[0], values[1]


@dataclass(frozen=True, slots=True)
class DetectorRow:
    """Status of a drift detector, with the tolerance band, the change and the labels to an alarm in words."""

    drift: DriftStatus
    title: str
    plot: Markup
    meter: Markup
    expected: str
    change: str
    fall: str
    baseline: str
    unknown_since: datetime | None


def detector_row(drift: DriftStatus, unknown_since: datetime | None = None) -> DetectorRow:
    """Return the status of a detector as a table row."""
    zone, value = drift.zone, drift.observed.value
    if zone is None:
        expected = "no reference yet"
    elif drift.is_accuracy:
        expected = f"at least {limit_text(zone.lower, zone.target)}"
    else:
        expected = percent_range(zone.lower, zone.upper)
    reference = None if zone is None else zone.expected
    if value is None or zone is None or reference is None:
        change = ""
    elif not drift.is_accuracy:
        change = times_reference(value, reference)
    else:
        origin = "reference" if zone.target is None else "target"
        change = f"{signed_points(value - reference)} points from the {origin}"
    title, plot, labels = slice_title(drift.place), tolerance_plot(drift), labels_at_half(drift)
    fall = "" if labels is None else f"a fall to {percent(labels.accuracy)} alarms after about {labels.labels:,} labels"
    fall = "; ".join(filter(None, [fall, pooled_text(drift)]))
    meter = evidence_meter(drift.evidence_ratio)
    return DetectorRow(drift, title, plot, meter, expected, change, fall, baseline(drift), unknown_since)


def baseline(drift: DriftStatus) -> str:
    """Return the source of an expected coverage and its missing parts; empty for an accuracy."""
    live = None if drift.zone is None else drift.zone.live
    if live is None:
        return ""
    days = f", {quantity(live.days, 'day', 'days')}" if live.days else ""
    return f"by {live.source}{days}" + (f"; learning {live.missing}" if live.missing else "")


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """Alarm in a table, with the latest run that responds to it."""

    alarm: Alarm
    sentence: str
    detector: DetectorRow
    run: Run | None


@dataclass(frozen=True, slots=True)
class AlarmList:
    """Page of alarms, and the address of the next one; empty at the end."""

    rows: tuple[AlarmRow, ...] = ()
    older: str = ""


@dataclass(frozen=True, slots=True)
class DetectorSummary:
    """Drift detectors of a model.

    Parameters
    ----------
    slices
        Number of monitored slices by kind of drift.
    unmonitored
        Slices without a reference.
    nearest
        Detectors without an alarm that have gathered the most evidence.
    """

    slices: Mapping[DriftKind, int]
    unmonitored: tuple[str, ...]
    nearest: tuple[DetectorRow, ...]


def alarm_row(alarm: Alarm, runs: Iterable[Run] = (), snapshot: Snapshot | None = None) -> AlarmRow:
    """Return an alarm as a table row; ``runs`` are newest first, ``snapshot`` is the latest."""
    response, since = next((run for run in runs if alarm.id in run.alarms), None), alarm_unknown_since(alarm, snapshot)
    return AlarmRow(alarm, alarm_sentence(alarm, since), detector_row(alarm.drift, since), response)


def detector_summary(drifts: Sequence[DriftStatus], alarmed: Iterable[tuple[str, DriftKind]] = ()) -> DetectorSummary:
    """Return a summary of detectors, ordered by evidence; ``alarmed`` slices and kinds have an unresolved alarm."""
    monitored, raised = [drift for drift in drifts if drift.zone is not None], set(alarmed)
    quiet = [drift for drift in drifts if (drift.slice, drift.kind) not in raised][:NEAREST]
    kinds = sorted({"coverage", "accuracy", *(drift.kind for drift in monitored)}, key=[*RATES].index)
    return DetectorSummary(
        slices={kind: sum(drift.kind == kind for drift in monitored) for kind in kinds},
        unmonitored=tuple(sorted({drift.slice for drift in drifts} - {drift.slice for drift in monitored})),
        nearest=tuple(detector_row(drift) for drift in quiet if drift.zone and drift.evidence_ratio >= MIN_EVIDENCE),
    )


def _alarm_list(runtime: Runtime, params: ListParams, which: AlarmFilter, limit: int) -> AlarmList:
    if params.which not in ("all", which):
        return AlarmList()
    store, model = runtime.store, runtime.model.name
    alarms: list[Alarm] = []
    before = params.before
    while len(alarms) <= limit:
        view = alarms_view(store, model, unresolved=which == "unresolved", before=before, limit=200)
        alarms += [alarm for alarm in view.items if (alarm.state == "resolved") is (which == "resolved")]
        before = view.next
        if before is None:
            break
    if not alarms:
        return AlarmList()
    older = params.href(which=which, before=alarms[limit - 1].id) if len(alarms) > limit else ""
    alarms = alarms[:limit]
    with store.read() as connection:
        runs = runs_since(connection, model, min(alarm.at for alarm in alarms))
    snapshot = runtime.model.deployment.snapshot
    return AlarmList(tuple(alarm_row(alarm, runs, snapshot) for alarm in alarms), older)


def render_alarms(
    context: PageContext,
    model: str,
    params: ListParams,
    unresolved: AlarmList,
    resolved: AlarmList,
    detectors: DetectorSummary,
    policy: DriftSettings,
    now: datetime,
    incidents: Sequence[Incident] = (),
    awaits_repair: bool = False,
) -> str:
    """Render the page of all alarms."""
    return render_page(
        "alarms.html",
        context,
        model=model,
        params=params,
        unresolved=unresolved,
        resolved=resolved,
        detectors=detectors,
        policy=policy,
        now=now,
        incidents=incidents,
        awaits_repair=awaits_repair,
    )


def render_alarm(
    context: PageContext,
    alarm: Alarm,
    runs: Sequence[Run],
    current: DriftStatus | None,
    policy: DriftSettings,
    now: datetime,
    caller: Caller | None = None,
    snapshot: Snapshot | None = None,
) -> str:
    """Render the page of one alarm; ``runs`` are newest first, ``current`` is the detector's status now."""
    return render_page(
        "alarm.html",
        context,
        row=alarm_row(alarm, runs, snapshot),
        alarm=alarm,
        drift=alarm.drift,
        chart=tolerance_chart(alarm.drift),
        current=None if current is None else detector_row(current, unknown_since(current, snapshot)),
        policy=policy,
        now=now,
        caller=caller,
    )


def render_incident(context: PageContext, incident: Incident, now: datetime, caller: Caller | None = None) -> str:
    """Render the page of one incident."""
    return render_page(
        "incident.html",
        context,
        incident=incident,
        sentence=incident_sentence(incident),
        rows=[alarm_row(alarm) for alarm in incident.alarms],
        now=now,
        caller=caller,
    )
