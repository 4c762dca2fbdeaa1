"""Figures as they travel: every share with its n and its interval, or the reason why it is not given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.alarms import DriftOut, drift_out
from service.decisions import Alarm, DriftKind
from service.events import Estimate, InsufficientData, IntervalMethod, Performance, SliceEstimate, WindowName
from service.serving.deployment import FunctionHealth, Origin
from service.views.records import RecordsView, RecordView
from service.views.series import Point, SliceSeries
from service.views.slices import SliceKind, SliceState, SlicesView, SliceView


class Out(BaseModel):
    """A value of the views on the wire; most are read off their attributes."""

    model_config = ConfigDict(from_attributes=True)


class EstimateOut(Out):
    """A share with its interval."""

    value: float
    count: int = Field(description="How many of the n.")
    n: int
    lower: float
    upper: float
    method: IntervalMethod


class InsufficientDataOut(Out):
    """A figure that is not given, and why."""

    n: int
    needed: int
    reason: str


ShareOut: TypeAlias = EstimateOut | InsufficientDataOut


class PerformanceOut(Out):
    """How right the model was on some rows."""

    labelled: int
    accuracy: ShareOut
    f1: float | InsufficientDataOut


class FigureOut(Out):
    """One slice in one span of time."""

    coverage: ShareOut = Field(description="Members of the rows whose membership is known.")
    unknown: int = Field(description="Rows whose membership is unknown because the function failed.")
    absent: int = Field(description="Rows from before the function was in force.")
    members: PerformanceOut
    complement: PerformanceOut = Field(description="The rows known to be outside.")


class MetadataOut(Out):
    """What people know about a slice."""

    description: str
    owner: str
    severity: str
    target: float | None = Field(description="The accuracy that it must keep.")
    protected: bool
    family: str


class HealthOut(Out):
    """Whether a function is applied; ``open`` is a breaker that keeps it out."""

    state: Literal["ok", "open"]
    reason: str | None


class SliceOut(FigureOut):
    """One slice in one window, beside what is expected of it."""

    name: str
    kind: SliceKind
    state: SliceState = Field(description="A plain comparison, no alarm.")
    metadata: MetadataOut
    origin: Origin | None
    fingerprint: str | None
    reference: ShareOut = Field(description="The coverage that is expected.")
    health: HealthOut | None
    drift: dict[DriftKind, DriftOut] | None = Field(description="By kind; null where it is not watched.")
    alarms: list[int] = Field(description="Ids of those that have not ended.")


class SlicesOut(Out):
    """Every slice in one window: all rows first, then the rows of no slice, then the slices."""

    at: datetime
    model: str
    version: int
    window: WindowName
    start: datetime
    end: datetime
    last_label_at: datetime | None
    slices: list[SliceOut]


class PointOut(FigureOut):
    """The slice in the rows predicted in [start, end)."""

    start: datetime
    end: datetime


class SeriesEventOut(Out):
    """Something that happened to the slice's model or function."""

    at: datetime
    kind: Literal["promotion", "function_version", "alarm"]
    detail: str


class SeriesOut(Out):
    """One slice over time."""

    name: str
    model: str
    version: int | None
    step_seconds: int
    points: list[PointOut]
    events: list[SeriesEventOut]


class RecordOut(Out):
    """One prediction, and what is known of it."""

    id: str
    at: datetime
    version: int
    predicted: str
    label: str | None = Field(description="The true class, once it is known.")
    probabilities: dict[str, float] | None
    features: dict[str, Any] | None = Field(description="As far as they are kept.")
    slices: list[str]
    unknown_slices: list[str]


class BucketOut(BaseModel):
    """How many labelled members are of one class and were predicted as another, or the same."""

    label: str
    predicted: str
    n: int


class RecordsOut(BaseModel):
    """Records of a slice, newest first."""

    records: list[RecordOut]
    buckets: list[BucketOut] = Field(description="Over all rows that were looked at.")
    scanned: int = Field(description="How many rows were looked at.")
    complete: bool = Field(description="Whether these were all before the given time.")
    next: str | None = Field(description="The cursor of the next page; null where there is none.")


def share_out(share: Estimate | InsufficientData) -> ShareOut:
    """Return a share, or why there is none."""
    if isinstance(share, InsufficientData):
        return InsufficientDataOut.model_validate(share)
    return EstimateOut(
        value=share.value,
        count=share.rate.count,
        n=share.rate.n,
        lower=share.lower,
        upper=share.upper,
        method=share.method,
    )


def slices_out(view: SlicesView, alarms: Mapping[str, Sequence[Alarm]]) -> SlicesOut:
    """Return every slice of a window; ``alarms`` are those that have not ended, by slice."""
    return SlicesOut(
        at=view.at,
        model=view.model,
        version=view.version,
        window=view.window,
        start=view.start,
        end=view.end,
        last_label_at=view.last_label_at,
        slices=[_slice_out(each, alarms.get(each.name, ())) for each in view.slices],
    )


def series_out(view: SliceSeries) -> SeriesOut:
    """Return a slice over time."""
    return SeriesOut(
        name=view.name,
        model=view.model,
        version=view.version,
        step_seconds=view.step_seconds,
        points=[_point_out(each) for each in view.points],
        events=[SeriesEventOut.model_validate(each) for each in view.events],
    )


def records_out(view: RecordsView) -> RecordsOut:
    """Return records and their buckets."""
    return RecordsOut(
        records=[_record_out(each) for each in view.records],
        buckets=[
            BucketOut(label=label, predicted=predicted, n=n)
            for (label, predicted), n in sorted(view.buckets.items())
        ],
        scanned=view.scanned,
        complete=view.complete,
        next=view.next,
    )


def health_out(health: FunctionHealth | None) -> HealthOut | None:
    """Return the health of a function that has any."""
    return None if health is None else HealthOut.model_validate(health)


def _record_out(view: RecordView) -> RecordOut:
    return RecordOut.model_validate(view)


def _slice_out(view: SliceView, alarms: Sequence[Alarm]) -> SliceOut:
    return SliceOut(
        **_figures(view.estimate),
        name=view.name,
        kind=view.kind,
        state=view.state,
        metadata=MetadataOut.model_validate(view.metadata),
        origin=view.origin,
        fingerprint=view.fingerprint,
        reference=share_out(view.reference),
        health=health_out(view.health),
        drift={kind: drift_out(each) for kind, each in view.drifts.items()} or None,
        alarms=[each.id for each in alarms],
    )


def _point_out(point: Point) -> PointOut:
    return PointOut(**_figures(point.estimate), start=point.start, end=point.end)


def _figures(estimate: SliceEstimate) -> dict[str, Any]:
    return {
        "coverage": share_out(estimate.coverage),
        "unknown": estimate.unknown,
        "absent": estimate.absent,
        "members": _performance(estimate.members),
        "complement": _performance(estimate.complement),
    }


def _performance(performance: Performance) -> PerformanceOut:
    f1 = performance.f1
    return PerformanceOut(
        labelled=performance.labelled,
        accuracy=share_out(performance.accuracy),
        f1=InsufficientDataOut.model_validate(f1) if isinstance(f1, InsufficientData) else f1,
    )
