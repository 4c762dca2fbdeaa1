"""Retraining runs, the decisions of the promotion gate, and promotions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AliasPath, Field

from models.registry import AliasChange
from service.api.schemas.alarms import RateOut
from service.api.schemas.fields import Body, Out, Remark, Text, out_of
from service.decisions import AuditEntry, DriftReport, Outcome, Run, RunState, SliceOutcome, Trigger
from service.views import Page


class ActionIn(Body):
    """Reason and author of an action."""

    reason: Remark = ""
    by: Text = ""


class PromoteIn(ActionIn):
    """Reason and author of a promotion, and the expected champion."""

    expected: Annotated[int, Field(ge=1, lt=2**31, strict=True)] | None = Field(
        None, description="Refuse if the champion is another version; default: accept any champion."
    )


class SliceDecisionOut(Out):
    """Decision of the gate on one slice."""

    slice: str = Field(validation_alias=AliasPath("pairs", "slice"))
    protected: bool
    n: int = Field(description="Distinct held-out contents.", validation_alias=AliasPath("pairs", "n"))
    champion: RateOut = Field(validation_alias=AliasPath("pairs", "champion"))
    candidate: RateOut = Field(validation_alias=AliasPath("pairs", "candidate"))
    only_champion: int = Field(
        description="Contents that only the champion predicted correctly.",
        validation_alias=AliasPath("pairs", "only_champion"),
    )
    only_candidate: int = Field(validation_alias=AliasPath("pairs", "only_candidate"))
    difference: float = Field(description="Accuracy of the candidate minus that of the champion.")
    lower: float
    upper: float
    outcome: SliceOutcome
    reason: str


class OutcomeOut(Out):
    """Decision of the gate on a candidate."""

    outcome: Outcome
    reasons: list[str]
    margin: float
    confidence: float


class DecisionOut(OutcomeOut):
    """Decision of the gate on a candidate, and on every slice, all rows first."""

    slices: list[SliceDecisionOut]


class RunFieldsOut(Out):
    """Fields of a run in lists and details."""

    id: int
    model: str
    state: RunState
    trigger: Trigger
    reason: str
    opened_at: datetime = Field(
        description="Clock time of the opening. The `at` of an alarm is data time, and therefore earlier."
    )
    updated_at: datetime = Field(description="Clock time of the last change.")
    alarms: list[int] = Field(description="Ids of the alarms that caused the run.")
    slices: list[str] = Field(description="Slices of these alarms.")
    since: datetime | None = Field(description="Start of the change.")
    attempts: int = Field(description="Number of training attempts.")
    champion: int | None
    candidate: int | None
    data: dict[str, Any] | None = Field(description="Training data.")
    outcome: str = Field(description="Reason why the run ended, or what it waits for.")


class RunOut(RunFieldsOut):
    """One run in a list."""

    decision: OutcomeOut | None


class RunDetailOut(RunFieldsOut):
    """One run, with the decision of the gate per slice."""

    decision: DecisionOut | None


class RunsOut(Out):
    """Runs, newest first."""

    runs: list[RunOut]
    next: int | None = Field(description="`before` of the next page; null on the last page.")


class PromotedOut(Out):
    """The champion after a promotion or rollback."""

    champion: int
    before: int | None = Field(description="Previous champion; null for the first one.")
    changed: bool = Field(description="False if the version was already the champion.")
    change: Literal["promote", "rollback"]
    reason: str
    at: datetime


def runs_out(page: Page[Run]) -> RunsOut:
    """Return a page of runs."""
    return RunsOut(runs=[RunOut.model_validate(run) for run in page.items], next=page.next)


def promoted_out(change: AliasChange, before: int | None, *, changed: bool = True) -> PromotedOut:
    """Return a change of the champion."""
    return out_of(PromotedOut, change, champion=change.version, before=before, changed=changed)


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
    return out_of(ReportOut, report, drifted=sum(bool(column.get("drifted")) for column in report.columns))


def reports_out(page: Page[DriftReport]) -> ReportsOut:
    """Return a page of reports."""
    return ReportsOut(reports=[report_out(report) for report in page.items], next=page.next)


def audit_out(page: Page[tuple[int, AuditEntry]]) -> AuditOut:
    """Return a page of the audit log."""
    return AuditOut(entries=[out_of(AuditEntryOut, entry, id=i) for i, entry in page.items], next=page.next)
