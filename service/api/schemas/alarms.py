"""Drift statuses and alarms: observed and expected rate, and the evidence for a change."""

from __future__ import annotations

from datetime import datetime
from math import isfinite
from typing import Any

from pydantic import Field

from service.api.schemas.fields import Body, Out, Remark, Text, out_of
from service.decisions import Alarm, AlarmState, Direction, DriftKind, DriftStatus
from service.views import Page
from service.views.alarms import alarm_sentence, labels_at_half


class RateOut(Out):
    """A rate; its value is null if n is 0."""

    value: float | None
    count: int = Field(description="Numerator.")
    n: int = Field(description="Denominator.")


EFFECTIVE_N = "Number of independent rows, at most the number of distinct contents."


class ObservedOut(RateOut):
    """Rate since the change, or since monitoring began."""

    lower: float = Field(description="Lower limit of a 95% confidence sequence, valid at any time.")
    upper: float


class ToleranceBandOut(RateOut):
    """Range of rates without drift, with the reference rate."""

    effective_n: int = Field(description=EFFECTIVE_N)
    lower: float
    upper: float
    tolerance: float = Field(description="Relative for coverage, absolute for accuracy.")
    target: float | None = Field(description="Accuracy target of the slice if it is the lower limit; else null.")


class LabelsToAlarmOut(Out):
    """Labels that an alarm takes after a fall of the accuracy."""

    accuracy: float = Field(description="Accuracy after the fall: half of the lower limit.")
    labels: int = Field(description="Expected number of labels from the fall to the alarm, about.")


class DriftOut(Out):
    """Status of one slice with one drift detector."""

    expected: ToleranceBandOut | None = Field(description="Null without a reference.")
    observed: ObservedOut
    since: datetime | None = Field(
        description="Most likely start of the change, of the alarm while one is unresolved; null if there is none."
    )
    direction: Direction | None
    evidence: float | None = Field(description="Natural logarithm; null if there is no evidence.")
    threshold: float = Field(description="Evidence at which an alarm is raised, natural logarithm.")
    share: float = Field(description="Evidence as a fraction of the threshold.")
    labels_to_alarm: LabelsToAlarmOut | None = Field(description="Null for coverage, and where no fall can alarm.")


class AlarmOut(DriftOut):
    """One alarm."""

    id: int
    model: str
    version: int
    slice: str
    fingerprint: str | None
    kind: DriftKind
    state: AlarmState
    at: datetime = Field(
        description="Data time: end of the block of rows that raised the alarm. The block is evaluated when it is "
        "final, 30 s later or more; the `opened_at` of a run that follows is the clock time of its opening."
    )
    sentence: str = Field(description="The alarm as a sentence.")
    acknowledged_at: datetime | None
    acknowledged_by: str
    note: str
    resolved_at: datetime | None
    resolution: str


class AlarmsOut(Out):
    """Alarms, newest first."""

    alarms: list[AlarmOut]
    next: int | None = Field(description="`before` of the next page; null on the last page.")


class AlarmIn(Body):
    """Author and note of a change to an alarm."""

    by: Text = ""
    note: Remark = ""


def drift_out(drift: DriftStatus) -> DriftOut:
    """Return a drift status."""
    return out_of(DriftOut, drift, **_drift_fields(drift))


def alarm_out(alarm: Alarm) -> AlarmOut:
    """Return an alarm."""
    drift = alarm.drift
    return out_of(AlarmOut, alarm, drift, sentence=alarm_sentence(alarm), **_drift_fields(drift))


def alarms_out(page: Page[Alarm]) -> AlarmsOut:
    """Return a page of alarms."""
    return AlarmsOut(alarms=[alarm_out(alarm) for alarm in page.items], next=page.next)


def _drift_fields(drift: DriftStatus) -> dict[str, Any]:
    band, fall = drift.zone, labels_at_half(drift)
    return {
        "expected": None if band is None else out_of(ToleranceBandOut, band, band.reference),
        "observed": out_of(ObservedOut, drift.observed, drift),
        "share": drift.evidence_ratio,
        "evidence": drift.evidence if isfinite(drift.evidence) else None,
        "labels_to_alarm": None if fall is None else out_of(LabelsToAlarmOut, fall),
    }
