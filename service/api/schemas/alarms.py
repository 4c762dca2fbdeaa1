"""Drift and alarms as they travel: what was seen, what was expected, and the evidence between them."""

from __future__ import annotations

from datetime import datetime
from math import isfinite

from pydantic import BaseModel, Field

from service.api.schemas.fields import Body, Remark, Text
from service.decisions import Alarm, AlarmState, Direction, DriftKind, DriftStatus, ToleranceBand
from service.views.alarms import AlarmsView, alarm_sentence


class RateOut(BaseModel):
    """A share; it is null where nothing was counted."""

    value: float | None
    count: int = Field(description="How many of the n.")
    n: int


class ObservedOut(RateOut):
    """What was seen since the change, or since the watch began."""

    lower: float = Field(description="Of a 95 % interval that holds at every time at once.")
    upper: float


class ToleranceBandOut(RateOut):
    """Where the rate may lie; the share is that of the reference."""

    lower: float
    upper: float
    tolerance: float = Field(description="Of coverage relative, of accuracy absolute.")


class DriftOut(BaseModel):
    """Where a slice stands with one detector."""

    expected: ToleranceBandOut | None = Field(
        description="Null without a reference: nothing can be said then."
    )
    observed: ObservedOut
    since: datetime | None = Field(description="When the change most likely began, if one is pointed to.")
    direction: Direction | None
    evidence: float | None = Field(description="Natural logarithm; null where there is none at all.")
    threshold: float = Field(description="Natural logarithm of the evidence that alarms.")
    share: float = Field(description="The evidence as a share of the threshold.")


class AlarmOut(DriftOut):
    """One alarm."""

    id: int
    model: str
    version: int
    slice: str
    fingerprint: str | None
    kind: DriftKind
    state: AlarmState
    at: datetime
    sentence: str = Field(description="All of it for people.")
    acknowledged_at: datetime | None
    acknowledged_by: str
    note: str
    resolved_at: datetime | None
    resolution: str


class AlarmsOut(BaseModel):
    """Alarms, newest first."""

    alarms: list[AlarmOut]
    next: int | None = Field(description="The ``before`` of the next page; null where there is none.")


class AlarmIn(Body):
    """Who takes an alarm, and what they say."""

    by: Text = ""
    note: Remark = ""


def drift_out(drift: DriftStatus) -> DriftOut:
    """Return where a slice stands."""
    return DriftOut(
        expected=None if drift.zone is None else _zone(drift.zone),
        observed=ObservedOut(
            value=drift.observed.value,
            count=drift.observed.count,
            n=drift.observed.n,
            lower=drift.lower,
            upper=drift.upper,
        ),
        since=drift.since,
        direction=drift.direction,
        evidence=drift.evidence if isfinite(drift.evidence) else None,
        threshold=drift.threshold,
        share=drift.evidence_ratio,
    )


def alarm_out(alarm: Alarm) -> AlarmOut:
    """Return an alarm."""
    return AlarmOut(
        **drift_out(alarm.drift).model_dump(),
        id=alarm.id,
        model=alarm.model,
        version=alarm.version,
        slice=alarm.drift.slice,
        fingerprint=alarm.drift.fingerprint,
        kind=alarm.drift.kind,
        state=alarm.state,
        at=alarm.at,
        sentence=alarm_sentence(alarm),
        acknowledged_at=alarm.acknowledged_at,
        acknowledged_by=alarm.acknowledged_by,
        note=alarm.note,
        resolved_at=alarm.resolved_at,
        resolution=alarm.resolution,
    )


def alarms_out(view: AlarmsView) -> AlarmsOut:
    """Return a page of alarms."""
    return AlarmsOut(alarms=[alarm_out(each) for each in view.alarms], next=view.next)


def _zone(zone: ToleranceBand) -> ToleranceBandOut:
    rate = zone.reference
    return ToleranceBandOut(
        value=rate.value,
        count=rate.count,
        n=rate.n,
        lower=zone.lower,
        upper=zone.upper,
        tolerance=zone.tolerance,
    )
