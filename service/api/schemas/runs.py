"""Retrainings and promotions as they travel."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from models.registry import AliasChange
from service.api.schemas.alarms import RateOut
from service.api.schemas.fields import Body, Remark, Text
from service.decisions import (
    Decision,
    Outcome,
    Run,
    RunState,
    SliceDecision,
    SliceOutcome,
    Trigger,
)
from service.views.runs import RunsView
from sfs.intervals import Rate


class ActionIn(Body):
    """Why something is asked for, and by whom."""

    reason: Remark = ""
    by: Text = ""


class PromoteIn(ActionIn):
    """Why a version is to answer, and which one is thought to do so now."""

    expected: Annotated[int, Field(ge=1, lt=2**31, strict=True)] | None = Field(
        None, description="Refuse unless this is the champion; without it, any may be."
    )


class SliceDecisionOut(BaseModel):
    """What the gate says of one slice."""

    slice: str
    protected: bool
    n: int = Field(description="Held-out members with a label.")
    champion: RateOut
    candidate: RateOut
    only_champion: int = Field(description="Rows on which only the champion was right.")
    only_candidate: int
    difference: float = Field(description="Accuracy of the candidate minus that of the champion.")
    lower: float
    upper: float
    outcome: SliceOutcome
    reason: str


class OutcomeOut(BaseModel):
    """What the gate says of a candidate."""

    outcome: Outcome
    reasons: list[str]
    margin: float
    confidence: float


class DecisionOut(OutcomeOut):
    """The same, slice by slice, all rows first."""

    slices: list[SliceDecisionOut]


class RunFieldsOut(BaseModel):
    """What is told of a run everywhere."""

    id: int
    model: str
    state: RunState
    trigger: Trigger
    reason: str
    opened_at: datetime
    updated_at: datetime
    alarms: list[int] = Field(description="Ids of those that it answers.")
    slices: list[str] = Field(description="Those that the alarms are about.")
    since: datetime | None = Field(description="When the change began.")
    attempts: int = Field(description="How often training was begun.")
    champion: int | None
    candidate: int | None
    data: dict[str, Any] | None = Field(description="What it was trained on.")
    outcome: str = Field(description="Why it ended, or what it waits for.")


class RunOut(RunFieldsOut):
    """One run among others."""

    decision: OutcomeOut | None


class RunDetailOut(RunFieldsOut):
    """One run with all that the gate said."""

    decision: DecisionOut | None


class RunsOut(BaseModel):
    """Runs, newest first."""

    runs: list[RunOut]
    next: int | None = Field(description="The ``before`` of the next page; null where there is none.")


class PromotedOut(BaseModel):
    """Which version is the champion now."""

    champion: int
    before: int | None = Field(description="The champion until then; null for the first.")
    changed: bool = Field(description="False where the version was the champion already.")
    change: Literal["promote", "rollback"]
    reason: str
    at: datetime


def actor_of(asked: ActionIn) -> str:
    """Return who asks, as it stands in the audit log."""
    return asked.by or "http"


def run_out(run: Run) -> RunOut:
    """Return a run among others."""
    decision = None if run.decision is None else OutcomeOut(**_verdict(run.decision))
    return RunOut(**_run(run), decision=decision)


def run_detail_out(run: Run) -> RunDetailOut:
    """Return a run with all that the gate said."""
    return RunDetailOut(**_run(run), decision=None if run.decision is None else _decision(run.decision))


def runs_out(view: RunsView) -> RunsOut:
    """Return a page of runs."""
    return RunsOut(runs=[run_out(each) for each in view.runs], next=view.next)


def promoted_out(change: AliasChange, before: int | None, *, changed: bool = True) -> PromotedOut:
    """Return a change of the champion."""
    return PromotedOut(
        champion=change.version,
        before=before,
        changed=changed,
        change=change.change,
        reason=change.reason,
        at=change.at,
    )


def _run(run: Run) -> dict[str, Any]:
    names = [name for name in RunFieldsOut.model_fields if name not in ("alarms", "slices", "data")]
    told: dict[str, Any] = {name: getattr(run, name) for name in names}
    return told | {
        "alarms": list(run.alarms),
        "slices": list(run.slices),
        "data": None if run.data is None else dict(run.data),
    }


def _verdict(decision: Decision) -> dict[str, Any]:
    return {
        "outcome": decision.outcome,
        "reasons": list(decision.reasons),
        "margin": decision.margin,
        "confidence": decision.confidence,
    }


def _decision(decision: Decision) -> DecisionOut:
    return DecisionOut(**_verdict(decision), slices=[_slice(each) for each in decision.slices])


def _slice(decision: SliceDecision) -> SliceDecisionOut:
    pairs = decision.pairs
    return SliceDecisionOut(
        slice=pairs.slice,
        protected=decision.protected,
        n=pairs.n,
        champion=_rate(pairs.champion),
        candidate=_rate(pairs.candidate),
        only_champion=pairs.only_champion,
        only_candidate=pairs.only_candidate,
        difference=decision.difference,
        lower=decision.lower,
        upper=decision.upper,
        outcome=decision.outcome,
        reason=decision.reason,
    )


def _rate(rate: Rate) -> RateOut:
    return RateOut(value=rate.value, count=rate.count, n=rate.n)
