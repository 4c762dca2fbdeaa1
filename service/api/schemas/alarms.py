"""Drift statuses, alarms and incidents: observed and expected rate, and the evidence for a change."""

from __future__ import annotations

from datetime import datetime
from math import isfinite
from typing import Any, Literal

from pydantic import Field

from service.api.schemas.fields import Body, Out, Remark, Text, out_of
from service.decisions import (
    AccuracyFall,
    Alarm,
    AlarmState,
    Direction,
    DriftKind,
    DriftStatus,
    Incident,
    ToleranceBand,
)
from service.events import Snapshot
from service.views import Page
from service.views.alarms import alarm_sentence, alarm_unknown_since, incident_sentence, labels_at_half


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


class BaselineOut(Out):
    """Source of the expected coverage: the reference at first, live traffic after a whole day of it."""

    source: Literal["reference", "live traffic"]
    since: datetime | None = Field(description="Start of the live traffic that is learned; null before its first row.")
    days: int = Field(description="Whole calm days that were learned.")
    learning: str = Field(description="What is still being learned, such as `hour of week: 3 of 8 days`; else empty.")


class ToleranceBandOut(RateOut):
    """Range of rates without drift, with the reference rate."""

    effective_n: int = Field(description=EFFECTIVE_N)
    lower: float
    upper: float
    tolerance: float = Field(description="Relative for coverage, absolute for accuracy.")
    target: float | None = Field(description="Accuracy target of the slice if it is the lower limit; else null.")
    baseline: BaselineOut | None = Field(description="Null for an accuracy.")


class LabelsToAlarmOut(Out):
    """Labels that an alarm takes after a fall of the accuracy."""

    accuracy: float = Field(description="Accuracy after the fall: half of the lower limit.")
    labels: int = Field(description="Expected number of labels from the fall to the alarm, about.")


class FallPartOut(Out):
    """Errors and labels of a slice since the fall in its family, or in all rows."""

    slice: str
    errors: int
    labels: int


class AccuracyFallOut(Out):
    """Labels behind an alarm on accuracy."""

    true_class: str | None = Field(description="Class whose recall fell; null for all classes.")
    errors: int = Field(description="Wrong labels since the change, of the class or of all.")
    labels: int
    limit: float | None = Field(
        description="Highest share of errors without drift; null where every class has its own."
    )
    dispersion: float = Field(description="Variance of errors that arrive together over that of independent ones.")
    parts: list[FallPartOut] = Field(description="Of a family or all rows: its slices, the most errors first.")


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
    fall: AccuracyFallOut | None = Field(description="Labels behind an alarm on accuracy; else null.")
    pooled: list[str] = Field(
        description="Families, and `__all__`, that watch a slice whose labels of a month are too few for an alarm."
    )
    unknown_since: datetime | None = Field(
        description="Time of the last label of the slice or family, or for a coverage of the last row of known "
        "membership, if it is more than an hour old: the rate is unknown since then. Null if it is not, and for a "
        "resolved alarm."
    )


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
    incident: int | None = Field(description="Null for a moment after the alarm was raised.")
    moved: str = Field(
        description="`by itself`, or `with X`: less than half of the change remains among the rows outside slice X. "
        "Ends in `, too few rows to be sure` where these do not show it at 95%."
    )


class AlarmsOut(Out):
    """Alarms, newest first."""

    alarms: list[AlarmOut]
    next: int | None = Field(description="`before` of the next page; null on the last page.")


class IncidentOut(Out):
    """Alarms with one cause."""

    id: int
    model: str
    state: AlarmState
    at: datetime = Field(description="Data time: that of the earliest alarm.")
    cause: str = Field(description="Slice whose change explains the most of the others.")
    sentence: str = Field(description="The incident as a sentence.")
    slices: list[str] = Field(description="Slices with an alarm, the cause first.")
    acknowledged_at: datetime | None = Field(description="While it is set, alarms that join are acknowledged.")
    acknowledged_by: str
    note: str
    resolved_at: datetime | None = Field(description="Null while an alarm is unresolved.")
    alarms: list[AlarmOut] = Field(description="The cause first.")


class IncidentsOut(Out):
    """Incidents, newest first."""

    incidents: list[IncidentOut]
    next: int | None = Field(description="`before` of the next page; null on the last page.")


class AlarmIn(Body):
    """Author and note of a change to an alarm or incident."""

    by: Text = ""
    note: Remark = ""


def drift_out(drift: DriftStatus, unknown_since: datetime | None = None) -> DriftOut:
    """Return a drift status."""
    return out_of(DriftOut, drift, unknown_since=unknown_since, **_drift_fields(drift))


def alarm_out(alarm: Alarm, snapshot: Snapshot | None = None) -> AlarmOut:
    """Return an alarm; the latest snapshot says since when its rate is unknown."""
    drift, since = alarm.drift, alarm_unknown_since(alarm, snapshot)
    sentence = alarm_sentence(alarm, since)
    return out_of(AlarmOut, alarm, drift, sentence=sentence, unknown_since=since, **_drift_fields(drift))


def alarms_out(page: Page[Alarm], snapshot: Snapshot | None = None) -> AlarmsOut:
    """Return a page of alarms; ``snapshot`` as for ``alarm_out``."""
    return AlarmsOut(alarms=[alarm_out(alarm, snapshot) for alarm in page.items], next=page.next)


def incident_out(incident: Incident, snapshot: Snapshot | None = None) -> IncidentOut:
    """Return an incident; ``snapshot`` as for ``alarm_out``."""
    slices = list(dict.fromkeys(alarm.drift.slice for alarm in incident.alarms))
    alarms = [alarm_out(alarm, snapshot) for alarm in incident.alarms]
    return out_of(IncidentOut, incident, sentence=incident_sentence(incident), slices=slices, alarms=alarms)


def incidents_out(page: Page[Incident], snapshot: Snapshot | None = None) -> IncidentsOut:
    """Return a page of incidents; ``snapshot`` as for ``alarm_out``."""
    return IncidentsOut(incidents=[incident_out(incident, snapshot) for incident in page.items], next=page.next)


def _baseline(band: ToleranceBand) -> BaselineOut | None:
    live = band.live
    return None if live is None else out_of(BaselineOut, live, source=live.source, learning=live.missing)


def _drift_fields(drift: DriftStatus) -> dict[str, Any]:
    band, fall = drift.zone, labels_at_half(drift)
    return {
        "expected": None if band is None else out_of(ToleranceBandOut, band, band.reference, baseline=_baseline(band)),
        "observed": out_of(ObservedOut, drift.observed, drift),
        "share": drift.evidence_ratio,
        "evidence": drift.evidence if isfinite(drift.evidence) else None,
        "labels_to_alarm": None if fall is None else out_of(LabelsToAlarmOut, fall),
        "fall": None if drift.fall is None else _fall_out(drift.fall),
    }


def _fall_out(fall: AccuracyFall) -> AccuracyFallOut:
    return out_of(AccuracyFallOut, fall, parts=[out_of(FallPartOut, part) for part in fall.parts])
