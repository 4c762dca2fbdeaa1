"""Reports and the audit log as they travel."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from service.api.schemas.fields import Body
from service.decisions import AuditEntry, DriftReport
from service.views.runs import AuditView, ReportsView


class ReportIn(Body):
    """Nothing more is said of a report."""


class ReportOut(BaseModel):
    """One comparison of live traffic with the reference, column by column."""

    id: int
    model: str
    version: int
    at: datetime
    start: datetime = Field(description="Of the traffic.")
    end: datetime
    reference_rows: int
    current_rows: int
    drifted: int = Field(description="How many columns differ by more than their threshold.")
    columns: list[dict[str, Any]] = Field(
        description="Each with ``column``, ``kind``, ``method``, ``threshold``, ``value`` and ``drifted``."
    )
    error: str = Field(description="Why there is no comparison; empty where there is one.")


class ReportsOut(BaseModel):
    """Reports, newest first."""

    reports: list[ReportOut]
    next: int | None = Field(description="The ``before`` of the next page; null where there is none.")


class ReportRequestedOut(BaseModel):
    """A report is being made, and will be the newest."""

    asked_at: datetime


class AuditEntryOut(BaseModel):
    """Who did what, when, to what."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class AuditOut(BaseModel):
    """Entries, newest first."""

    entries: list[AuditEntryOut]
    next: int | None = Field(description="The ``before`` of the next page; null where there is none.")


def report_out(report: DriftReport) -> ReportOut:
    """Return a report."""
    columns = [dict(each) for each in report.columns]
    return ReportOut(
        id=report.id,
        model=report.model,
        version=report.version,
        at=report.at,
        start=report.start,
        end=report.end,
        reference_rows=report.reference_rows,
        current_rows=report.current_rows,
        drifted=sum(bool(each.get("drifted")) for each in columns),
        columns=columns,
        error=report.error,
    )


def reports_out(view: ReportsView) -> ReportsOut:
    """Return a page of reports."""
    return ReportsOut(reports=[report_out(each) for each in view.reports], next=view.next)


def audit_out(view: AuditView) -> AuditOut:
    """Return a page of the audit log."""
    return AuditOut(entries=[_entry(id_, each) for id_, each in view.entries], next=view.next)


def _entry(id_: int, entry: AuditEntry) -> AuditEntryOut:
    return AuditEntryOut(
        id=id_,
        at=entry.at,
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        detail=dict(entry.detail),
    )
