"""Column reports and the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from service.api.schemas.fields import Body, Out, out_of
from service.decisions import AuditEntry, DriftReport
from service.views import Page


class ReportIn(Body):
    """A report has no options."""


class ReportOut(Out):
    """One comparison of live traffic with the reference, column by column."""

    id: int
    model: str
    version: int
    at: datetime
    start: datetime = Field(description="Start of the traffic.")
    end: datetime
    reference_rows: int
    current_rows: int
    drifted: int = Field(description="Number of columns beyond their threshold.")
    columns: list[dict[str, Any]] = Field(
        description="`column`, `kind`, `method`, `threshold`, `value` and `drifted` of every column."
    )
    error: str = Field(description="Reason why the report failed; empty otherwise.")


class ReportsOut(Out):
    """Reports, newest first."""

    reports: list[ReportOut]
    next: int | None = Field(description="`before` of the next page; null on the last page.")


class ReportRequestedOut(Out):
    """The report has started; when finished, it is the newest."""

    asked_at: datetime


class AuditEntryOut(Out):
    """One change: actor, action, subject and time."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class AuditOut(Out):
    """Changes, newest first."""

    entries: list[AuditEntryOut]
    next: int | None = Field(description="`before` of the next page; null on the last page.")


def report_out(report: DriftReport) -> ReportOut:
    """Return a report."""
    return out_of(ReportOut, report, drifted=sum(bool(each.get("drifted")) for each in report.columns))


def reports_out(page: Page[DriftReport]) -> ReportsOut:
    """Return a page of reports."""
    return ReportsOut(reports=[report_out(each) for each in page.items], next=page.next)


def audit_out(page: Page[tuple[int, AuditEntry]]) -> AuditOut:
    """Return a page of the audit log."""
    return AuditOut(entries=[out_of(AuditEntryOut, each, id=id_) for id_, each in page.items], next=page.next)
