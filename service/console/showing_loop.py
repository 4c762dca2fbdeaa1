"""From the parts and the reader's choices to the pages of alarms, runs, models and reports."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from models.errors import ModelError
from models.registry import CHAMPION, AliasChange, ModelRegistry
from service.console import alarms as of_alarms
from service.console import reports as of_reports
from service.console import runs as of_runs
from service.console import versions as of_versions
from service.console.choices import ListChoices, Which
from service.console.parts import ConsoleParts
from service.console.render import Frame, Section
from service.decisions import Alarm
from service.errors import ServiceError
from service.events import Estimate, InsufficientData
from service.store.alarms import count_unresolved
from service.store.audit import entries_about
from service.store.engine import Store
from service.store.runs import runs_since
from service.views.alarms import alarm_view, alarms_view, drift_view, drifts_by_slice, unresolved_by_slice
from service.views.models import ModelView, held_out_accuracy, models_view
from service.views.runs import report_view, reports_view, run_view, runs_view

UNRESOLVED_ROWS, RESOLVED_ROWS, LIST_ROWS = 50, 20, 30
MOST_ALARMS, MOST_RUNS = 1000, 200
"""Alarms that are looked through for those of one slice, and runs for those that made a version."""


def show_alarms(parts: ConsoleParts, choices: ListChoices) -> str:
    """Return the page of all alarms."""
    model = parts.deployment.state.model
    drifts = drift_view(parts.deployment).drifts
    standing = {
        (name, each.drift.kind)
        for name, some in unresolved_by_slice(parts.store, model).items()
        for each in some
    }
    quiet = [each for each in drifts if (each.slice, each.kind) not in standing]
    return of_alarms.alarms(
        frame_of(parts, "alarms", choices),
        model,
        choices,
        _listed(parts, choices, "unresolved"),
        _listed(parts, choices, "resolved"),
        of_alarms.watched(drifts, quiet),
        parts.promises,
        parts.clock(),
    )


def show_alarm(parts: ConsoleParts, alarm_id: int) -> str:
    """Return the page of one alarm.

    Raises
    ------
    UnknownAlarm
        If there is none of this id.
    """
    model = parts.deployment.state.model
    shown = alarm_view(parts.store, model, alarm_id)
    with parts.store.read() as connection:
        runs = runs_since(connection, model, shown.at)
    return of_alarms.alarm(
        frame_of(parts, "alarms"),
        shown,
        runs,
        drifts_by_slice(parts.deployment).get(shown.drift.slice, {}).get(shown.drift.kind),
        parts.promises,
        parts.clock(),
        answerable=parts.writer is not None,
    )


def show_runs(parts: ConsoleParts, choices: ListChoices) -> str:
    """Return the page of all runs."""
    model = parts.deployment.state.model
    view = runs_view(parts.store, model, before=choices.before, limit=LIST_ROWS)
    older = choices.href(before=view.next) if view.next else ""
    return of_runs.runs(frame_of(parts, "runs", choices), model, choices, view.runs, older, parts.clock())


def show_run(parts: ConsoleParts, run_id: int, choices: ListChoices) -> str:
    """Return the page of one run.

    Raises
    ------
    UnknownRun
        If there is none of this id.
    """
    shown = run_view(parts.store, parts.deployment.state.model, run_id)
    with parts.store.read() as connection:
        entries = entries_about(connection, f"run {run_id}")
    return of_runs.run(frame_of(parts, "runs", choices), shown, entries, choices, parts.clock())


def show_models(parts: ConsoleParts, choices: ListChoices) -> str:
    """Return the page of the versions.

    Raises
    ------
    ServiceError
        If the registry cannot be read.
    """
    model, registry = parts.deployment.state.model, parts.registry
    found, history = _versions(parts)
    left = [each for each in found if choices.before is None or each.version < choices.before]
    page = left[-LIST_ROWS:]
    return of_versions.versions(
        frame_of(parts, "models", choices),
        model,
        choices,
        of_versions.version_rows(
            [_without_folder(each, registry) for each in page],
            {each.version: _accuracy(each, registry) for each in page},
            history,
            runs_view(parts.store, model, limit=MOST_RUNS).runs,
        ),
        of_versions.change_rows(history),
        choices.href(before=page[0].version) if len(left) > len(page) else "",
        registry is not None,
        parts.clock(),
    )


def _versions(parts: ConsoleParts) -> tuple[tuple[ModelView, ...], tuple[AliasChange, ...]]:
    registry = parts.registry
    if registry is None:
        return (), parts.deployment.state.history
    try:
        return models_view(registry, parts.deployment), registry.history(CHAMPION)
    except (ModelError, OSError) as error:
        raise ServiceError(f"the registry cannot be read: {error}") from error


def _without_folder(view: ModelView, registry: ModelRegistry | None) -> ModelView:
    """Return a version that does not say where its files are: that is nobody's business here."""
    if registry is None or view.damaged is None:
        return view
    root = registry.path(view.version).parents[1]
    return replace(view, damaged=view.damaged.replace(f"{root}/", ""))


def _accuracy(view: ModelView, registry: ModelRegistry | None) -> Estimate | InsufficientData:
    if registry is None or view.damaged is not None:
        return InsufficientData(0, 1, "the version cannot be read")
    return held_out_accuracy(registry.path(view.version))


def show_reports(parts: ConsoleParts, choices: ListChoices) -> str:
    """Return the page of all reports."""
    model = parts.deployment.state.model
    view = reports_view(parts.store, model, before=choices.before, limit=LIST_ROWS)
    return of_reports.reports(
        frame_of(parts, "reports", choices),
        model,
        choices,
        [of_reports.report_row(each) for each in view.reports],
        choices.href(before=view.next) if view.next else "",
        parts.promises,
        parts.clock(),
    )


def show_report(parts: ConsoleParts, report_id: int) -> str:
    """Return the page of one report.

    Raises
    ------
    UnknownReport
        If there is none of this id.
    """
    shown = report_view(parts.store, parts.deployment.state.model, report_id)
    return of_reports.report(frame_of(parts, "reports"), shown, parts.clock())


def frame_of(parts: ConsoleParts, here: Section, choices: ListChoices | None = None) -> Frame:
    """Return what is around a page."""
    with parts.store.read() as connection:
        unresolved = count_unresolved(connection, parts.deployment.state.model)
    return Frame(here, unresolved, choices.refresh if choices else 0)


def alarms_since(store: Store, model: str, since: datetime) -> list[Alarm]:
    """Return the alarms that were raised at or after a moment, newest first; of very many, the last."""
    found = alarms_view(store, model, limit=MOST_ALARMS).alarms
    return [each for each in found if each.at >= since]


def _listed(parts: ConsoleParts, choices: ListChoices, which: Which) -> of_alarms.AlarmList:
    """Return a page of the alarms that stand, or of those that have ended; none where others are asked for."""
    if choices.which not in ("all", which):
        return of_alarms.AlarmList((), "")
    limit = UNRESOLVED_ROWS if which == "unresolved" else RESOLVED_ROWS
    found = _alarms(parts, which, choices.before, limit + 1)
    model = parts.deployment.state.model
    with parts.store.read() as connection:
        runs = runs_since(connection, model, min(each.at for each in found)) if found else []
    older = choices.href(which=which, before=found[limit - 1].id) if len(found) > limit else ""
    return of_alarms.AlarmList(tuple(of_alarms.alarm_row(each, runs) for each in found[:limit]), older)


def _alarms(parts: ConsoleParts, which: Which, before: int | None, limit: int) -> list[Alarm]:
    found: list[Alarm] = []
    store, model = parts.store, parts.deployment.state.model
    while len(found) < limit:
        view = alarms_view(store, model, unresolved=which == "unresolved", before=before, limit=200)
        found += [each for each in view.alarms if (each.state == "resolved") is (which == "resolved")]
        before = view.next
        if before is None:
            break
    return found[:limit]
