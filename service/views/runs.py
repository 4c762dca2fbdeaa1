"""Retraining runs, reports and the audit log, page by page."""

from __future__ import annotations

from service.decisions import AuditEntry, DriftReport, Run
from service.store import audit as stored_audit
from service.store import reports as stored_reports
from service.store import runs as stored_runs
from service.store.engine import Store
from service.store.errors import UnknownReport, UnknownRun
from service.views import Page, first_page


def runs_view(store: Store, model: str, *, before: int | None = None, limit: int = 50) -> Page[Run]:
    """Return a page of runs; ``before`` is ``next`` of the previous page."""
    with store.read() as connection:
        runs = stored_runs.runs(connection, model, before=before, limit=limit + 1)
    return first_page(runs, limit, lambda run: run.id)


def run_view(store: Store, model: str, id_: int) -> Run:
    """Return one run. Raises UnknownRun if the model has no run with the id."""
    with store.read() as connection:
        run = stored_runs.run(connection, id_)
    if run is None or run.model != model:
        raise UnknownRun(f"there is no run {id_}; the runs are listed under /v1/runs")
    return run


def reports_view(store: Store, model: str, *, before: int | None = None, limit: int = 50) -> Page[DriftReport]:
    """Return a page of reports; ``before`` is ``next`` of the previous page."""
    with store.read() as connection:
        reports = stored_reports.reports(connection, model, before=before, limit=limit + 1)
        return first_page(reports, limit, lambda report: report.id, _values)


def _values(report: DriftReport) -> int:
    return sum(len(column) + len(column.get("shares") or ()) for column in report.columns)


def report_view(store: Store, model: str, id_: int) -> DriftReport:
    """Return one report. Raises UnknownReport if the model has no report with the id."""
    with store.read() as connection:
        report = stored_reports.report(connection, id_)
    if report is None or report.model != model:
        raise UnknownReport(f"there is no report {id_}; the reports are listed under /v1/reports")
    return report


def audit_view(store: Store, *, before: int | None = None, limit: int = 100) -> Page[tuple[int, AuditEntry]]:
    """Return a page of audit entries with their ids; ``before`` is ``next`` of the previous page."""
    with store.read() as connection:
        entries = stored_audit.entries(connection, before=before, limit=limit + 1)
    return first_page(entries, limit, lambda entry: entry[0])
