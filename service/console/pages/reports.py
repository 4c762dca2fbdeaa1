"""Pages of column reports: live traffic against the reference sample, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response

from service.console.query_params import BeforeQuery, IdPath, ListParams
from service.console.render import PageContext, PageExecutor, page_context, render_page
from service.decisions import DriftReport
from service.formatting import percent
from service.views.runs import report_view, reports_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

REPORT_ROWS = 30
SHOWN_VALUES = 3
"""Maximum number of categories shown with their frequencies."""


def add_routes(routes: APIRouter, runtime: Runtime, executor: PageExecutor) -> None:
    """Add the routes of column reports."""

    @routes.get("/reports")
    async def list_reports(before: BeforeQuery = None) -> Response:
        return await executor.respond(lambda: reports_page(runtime, ListParams("/reports", before=before)))

    @routes.get("/reports/{id}")
    async def show_report(id: IdPath) -> Response:
        return await executor.respond(lambda: report_page(runtime, id))


def reports_page(runtime: Runtime, params: ListParams) -> str:
    """Return the page of all reports."""
    view = reports_view(runtime.store, runtime.model.name, before=params.before, limit=REPORT_ROWS)
    older = params.href(before=view.next) if view.next else ""
    return render_reports(
        page_context(runtime, "reports"),
        runtime.model.name,
        params,
        view.items,
        older,
        runtime.settings.report.every_hours,
        runtime.clock(),
    )


def report_page(runtime: Runtime, report_id: int) -> str:
    """Return the page of one report.

    Raises
    ------
    UnknownReport
        If there is no such report.
    """
    report = report_view(runtime.store, runtime.model.name, report_id)
    return render_report(page_context(runtime, "reports"), report, runtime.clock())


@dataclass(frozen=True, slots=True)
class ColumnRow:
    """Column of a report as text, empty where the report lacks a value; ``change`` is reference → traffic."""

    column: str
    kind: str
    method: str
    threshold: str
    value: str
    error: str
    change: str
    drifted: bool | None


def drifted_columns(report: DriftReport) -> list[str]:
    """Return the names of the columns that drifted."""
    return [str(column.get("column")) for column in report.columns if column.get("drifted")]


def column_rows(report: DriftReport) -> list[ColumnRow]:
    """Return the columns of a report, drifted ones first."""
    rows = []
    for column in report.columns:
        names = ("column", "kind", "method", "threshold", "value", "error")
        drifted = column.get("drifted")
        rows.append(
            ColumnRow(
                **{name: _value_text(column.get(name)) for name in names},
                change=_change(column),
                drifted=None if drifted is None else bool(drifted),
            )
        )
    return sorted(rows, key=lambda row: (not row.drifted, row.column))


def _change(column: Mapping[str, Any]) -> str:
    def is_pair(values: Any) -> bool:
        return (
            isinstance(values, list | tuple)
            and len(values) == 2
            and all(isinstance(value, int | float) for value in values)
        )

    mean, shares = column.get("mean"), column.get("shares")
    if mean is not None and is_pair(mean):
        return f"mean {_value_text(mean[0])} → {_value_text(mean[1])}"
    if not isinstance(shares, Mapping):
        return ""
    pairs = [(name, pair) for name, pair in shares.items() if is_pair(pair)][:SHOWN_VALUES]
    return ", ".join(f"{name} {percent(pair[0])} → {percent(pair[1])}" for name, pair in pairs)


def _value_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def render_reports(
    context: PageContext,
    model: str,
    params: ListParams,
    reports: Sequence[DriftReport],
    older: str,
    every_hours: float,
    now: datetime,
) -> str:
    """Render the page of all reports, newest first; ``older`` is the address of the next page."""
    return render_page(
        "reports.html",
        context,
        model=model,
        params=params,
        rows=[(report, drifted_columns(report)) for report in reports],
        older=older,
        every_hours=every_hours,
        now=now,
    )


def render_report(context: PageContext, report: DriftReport, now: datetime) -> str:
    """Render the page of one report."""
    return render_page(
        "report.html",
        context,
        report=report,
        drifted=drifted_columns(report),
        columns=column_rows(report),
        now=now,
    )
