"""Retrainings and reports, newest first."""

from __future__ import annotations

from dataclasses import dataclass

from service.decisions import AuditEntry, DriftReport, Run
from service.store import audit as kept_audit
from service.store import reports as kept_reports
from service.store import runs as kept_runs
from service.store.engine import Store
from service.store.errors import UnknownReport, UnknownRun


@dataclass(frozen=True, slots=True)
class RunsView:
    """Some runs, newest first; those before the last one follow, if ``next`` says so."""

    runs: tuple[Run, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class ReportsView:
    """Some reports, newest first; those before the last one follow, if ``next`` says so."""

    reports: tuple[DriftReport, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class AuditView:
    """Some entries with their ids, newest first; those before the last one follow, if ``next`` says so."""

    entries: tuple[tuple[int, AuditEntry], ...]
    next: int | None


def runs_view(store: Store, model: str, *, before: int | None = None, limit: int = 50) -> RunsView:
    """Return a page of runs; ``before`` is the ``next`` of the page before."""
    with store.read() as connection:
        found = kept_runs.runs(connection, model, before=before, limit=limit + 1)
    return RunsView(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)


def run_view(store: Store, model: str, id_: int) -> Run:
    """Return one run.

    Raises
    ------
    UnknownRun
        If the model has none with the id.
    """
    with store.read() as connection:
        found = kept_runs.run(connection, id_)
    if found is None or found.model != model:
        raise UnknownRun(f"there is no run {id_}; the runs are listed under /v1/runs")
    return found


def reports_view(store: Store, model: str, *, before: int | None = None, limit: int = 50) -> ReportsView:
    """Return a page of reports; ``before`` is the ``next`` of the page before."""
    with store.read() as connection:
        found = kept_reports.reports(connection, model, before=before, limit=limit + 1)
    return ReportsView(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)


def report_view(store: Store, model: str, id_: int) -> DriftReport:
    """Return one report.

    Raises
    ------
    UnknownReport
        If the model has none with the id.
    """
    with store.read() as connection:
        found = kept_reports.report(connection, id_)
    if found is None or found.model != model:
        raise UnknownReport(f"there is no report {id_}; the reports are listed under /v1/reports")
    return found


def audit_view(store: Store, *, before: int | None = None, limit: int = 100) -> AuditView:
    """Return a page of who did what; ``before`` is the ``next`` of the page before."""
    with store.read() as connection:
        found = kept_audit.entries(connection, before=before, limit=limit + 1)
    return AuditView(tuple(found[:limit]), found[limit - 1][0] if len(found) > limit else None)
