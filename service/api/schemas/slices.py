"""Estimates of slices: every rate with its n and interval, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AliasPath, BeforeValidator, Field

from service.api.schemas.alarms import EFFECTIVE_N, DriftOut, drift_out
from service.api.schemas.fields import Out, out_of
from service.decisions import Alarm, DriftKind
from service.events import InsufficientData, IntervalMethod, WindowName
from service.serving.deployment import Origin
from service.views.records import RecordsView
from service.views.series import SliceSeries
from service.views.slices import SliceKind, SliceState, SlicesView


class EstimateOut(Out):
    """A rate with its interval."""

    value: float
    count: int = Field(description="Numerator.", validation_alias=AliasPath("rate", "count"))
    n: int = Field(description="Denominator.", validation_alias=AliasPath("rate", "n"))
    lower: float
    upper: float
    method: IntervalMethod


class ReferenceEstimateOut(EstimateOut):
    """A rate of rows that may repeat each other; the interval is that of the effective n."""

    effective_n: int = Field(description=EFFECTIVE_N, validation_alias=AliasPath("rate", "effective_n"))


class InsufficientDataOut(Out):
    """Reason why there is no estimate."""

    n: int
    needed: int
    reason: str


ShareOut: TypeAlias = EstimateOut | InsufficientDataOut


class PerformanceOut(Out):
    """Performance of the model on some rows."""

    labelled: int
    accuracy: ShareOut
    f1: Annotated[float | None, BeforeValidator(lambda f1: None if isinstance(f1, InsufficientData) else f1)] = Field(
        description="Null if there is none, for the reason in `f1_reason`."
    )
    f1_reason: Annotated[
        str | None, BeforeValidator(lambda f1: f1.reason if isinstance(f1, InsufficientData) else None)
    ] = Field(validation_alias="f1", description="Reason why there is no F1; null if there is one.")


class FigureOut(Out):
    """Estimates of one slice in one period."""

    coverage: ShareOut = Field(description="Members among the rows of known membership.")
    unknown: int = Field(description="Rows of unknown membership: the function failed.")
    absent: int = Field(description="Rows from before the function was added.")
    members: PerformanceOut
    complement: PerformanceOut = Field(description="Rows known to be outside the slice.")


class MetadataOut(Out):
    """Metadata of a slice."""

    description: str
    owner: str
    severity: str
    target: float | None = Field(description="Target accuracy.")
    protected: bool
    family: str


class HealthOut(Out):
    """State of a function's circuit breaker; a function with an ``open`` one is not applied."""

    state: Literal["ok", "open"]
    reason: str | None


class SliceOut(FigureOut):
    """One slice in one window, with its expected coverage."""

    name: str
    kind: SliceKind
    state: SliceState = Field(description="Comparison with target and reference; not an alarm.")
    metadata: MetadataOut
    origin: Origin | None
    fingerprint: str | None
    reference: ReferenceEstimateOut | InsufficientDataOut = Field(description="Expected coverage.")
    accuracy_reference: ReferenceEstimateOut | InsufficientDataOut = Field(description="Expected accuracy.")
    health: HealthOut | None
    drift: dict[DriftKind, DriftOut] | None = Field(description="By kind; null if not monitored.")
    last_known_at: datetime | None = Field(description="Last row of known membership, to within a tick.")
    last_label_at: datetime | None = Field(description="Arrival of the slice's last label, to within a tick.")
    alarms: list[int] = Field(description="Ids of the unresolved alarms.")


class ReferenceTableOut(Out):
    """Table from which the coverage of a version served elsewhere is expected."""

    name: str | None = Field(description="Null before it is counted.")
    rows: int | None
    note: str = Field(description="Reason why functions are not counted on the table as it is; empty if all are.")


class FamilyOut(Out):
    """Slices whose functions have the same family."""

    name: str
    slices: list[str]
    drift: DriftOut | None = Field(description="Accuracy of the rows in any of them; null if not monitored.")


class SlicesOut(Out):
    """Every slice in one window: all rows first, then the rows in no slice, then the slices."""

    at: datetime
    model: str
    version: int
    window: WindowName
    start: datetime
    end: datetime
    last_label_at: datetime | None
    slices: list[SliceOut]
    families: list[FamilyOut] = Field(description="Families of several slices.")
    settling_hours: float = Field(description="Hours from a label until it is evidence on accuracy.")
    clock: str | None = Field(description="Last step of the clock, and its effect on drift detection.")
    reference_table: ReferenceTableOut | None = Field(description="Null unless the version is served elsewhere.")


class PointOut(FigureOut):
    """Estimates over the rows predicted in [start, end)."""

    start: datetime
    end: datetime


class SeriesEventOut(Out):
    """Event of the slice's model or function."""

    at: datetime = Field(description="Data time of an alarm, else clock time.")
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
    """One prediction with its label."""

    id: str
    at: datetime
    version: int
    predicted: str
    label: str | None = Field(description="The true class; null if unknown.")
    probabilities: dict[str, float] | None
    features: dict[str, Any] | None = Field(description="Stored features of the record; long values are cut in lists.")
    slices: list[str]
    unknown_slices: list[str]
    cut: dict[str, int] = Field(
        description="Full length of each feature that is cut; `GET /v1/predictions/{id}` returns the whole record."
    )
    omitted: int = Field(description="Number of features left out.")


class BucketOut(Out):
    """Number of labelled members by true and predicted class."""

    label: str
    predicted: str
    n: int


class RecordsOut(Out):
    """Records of a slice, newest first."""

    records: list[RecordOut]
    buckets: list[BucketOut] = Field(description="Counts over all scanned rows.")
    scanned: int = Field(description="Number of scanned rows.")
    complete: bool = Field(description="Whether all rows before the given time were scanned.")
    next: str | None = Field(description="`cursor` of the next page; null on the last page.")


def slices_out(view: SlicesView, alarms: Mapping[str, Sequence[Alarm]]) -> SlicesOut:
    """Return every slice of a window, with the unresolved alarms by slice."""
    slices = [
        out_of(
            SliceOut,
            row,
            row.estimate,
            drift={kind: drift_out(drift, row.unknown_since.get(kind)) for kind, drift in row.drifts.items()} or None,
            alarms=[alarm.id for alarm in alarms.get(row.name, ())],
        )
        for row in view.slices
    ]
    families = [
        out_of(FamilyOut, each, drift=None if each.drift is None else drift_out(each.drift, each.unknown_since))
        for each in view.families
    ]
    return out_of(SlicesOut, view, slices=slices, families=families)


def series_out(view: SliceSeries) -> SeriesOut:
    """Return a slice over time."""
    return out_of(SeriesOut, view, points=[out_of(PointOut, point, point.estimate) for point in view.points])


def records_out(view: RecordsView) -> RecordsOut:
    """Return records and their counts by class."""
    counts = sorted(view.buckets.items())
    buckets = [BucketOut(label=label, predicted=predicted, n=n) for (label, predicted), n in counts]
    return out_of(RecordsOut, view, buckets=buckets)
