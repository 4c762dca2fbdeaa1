"""The live functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from service.decisions import ClockStep, DriftKind, DriftStatus, RateKey
from service.errors import ServiceError
from service.events import NONE_FIRED, Estimate, InsufficientData, Performance, SliceEstimate, WindowName
from service.formatting import step_text
from service.monitor.reference_period import MINIMUM_CONTENTS
from service.serving.deployment import DAMAGED, Deployment, DeploymentState, FunctionHealth, Origin
from service.views.alarms import drifts_by_slice
from sfs.declarations import to_declaration
from sfs.function import ALL_ROWS, LabelingFunctionSlice, SlicingFunction
from sfs.intervals import Rate
from sfs.template import Template
from sfs.validation import NO_METADATA, Metadata


@dataclass(frozen=True, slots=True)
class FunctionView:
    """One function; ``declaration`` is that of a template, and None for Python code."""

    name: str
    kind: Literal["slice", "labeling"]
    origin: Origin
    fingerprint: str
    metadata: Metadata
    declaration: Mapping[str, Any] | None
    health: FunctionHealth | None


def functions_view(deployment: Deployment) -> tuple[FunctionView, ...]:
    """Return the live functions, in order."""
    state, health = deployment.state, deployment.health()
    return tuple(
        FunctionView(
            function.name,
            kind_of(function),
            state.origins.get(function.name, "file"),
            function.fingerprint,
            state.metadata.get(function.name, function.metadata),
            to_declaration(function) if isinstance(function, Template) else None,
            health.get(function.name),
        )
        for function in state.functions
    )


def kind_of(function: SlicingFunction) -> Literal["slice", "labeling"]:
    """Return the kind of a function; the members of a labelling function are the rows that it labels."""
    return "labeling" if isinstance(function, LabelingFunctionSlice) else "slice"


SliceKind: TypeAlias = Literal["slice", "labeling", "none", "all"]
SliceState: TypeAlias = Literal["ok", "coverage_off", "accuracy_low", "unknown_high", "too_few"]

MAX_UNKNOWN = 0.1
"""Fraction of the rows of unknown membership above which a slice is in state ``unknown_high``."""


_NO_ACCURACY = InsufficientData(0, 1, "no expected accuracy")


class NotReady(ServiceError):
    """No snapshot has been taken yet."""


class UnknownSlice(ServiceError):
    """No slice has this name."""


@dataclass(frozen=True, slots=True)
class SliceView:
    """One slice in one window.

    Parameters
    ----------
    name, fingerprint
        The slice, and the version of its function; None for the extra columns, which have no function.
    kind
        A slice, the members of a labelling function, the rows in no slice, or all rows.
    metadata, origin, health
        Of the function; the extra columns have no origin, and Python functions and disabled templates have a health.
    reference
        Expected coverage.
    estimate
        Coverage, accuracy and F1 in the window.
    state
        Comparison of these values for sorting and colouring; not an alarm.
    drifts
        Drift statuses by kind; empty if the slice is not monitored.
    accuracy_reference
        Expected accuracy.
    last_known_at, last_label_at
        Snapshots that counted its last row of known membership, and its last label; None before the first.
    unknown_since
        Time of the last row or label, by kind, if there was none in the last hour.
    """

    name: str
    kind: SliceKind
    metadata: Metadata
    origin: Origin | None
    fingerprint: str | None
    reference: Estimate | InsufficientData
    estimate: SliceEstimate
    health: FunctionHealth | None
    state: SliceState
    drifts: Mapping[DriftKind, DriftStatus] = field(default_factory=dict)
    accuracy_reference: Estimate | InsufficientData = _NO_ACCURACY
    last_known_at: datetime | None = None
    last_label_at: datetime | None = None
    unknown_since: Mapping[DriftKind, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReferenceTableView:
    """Table from which the coverage of a version served elsewhere is expected.

    Parameters
    ----------
    name, rows
        Name and number of rows as last counted; None before.
    note
        Reason why functions are not counted on the table as it is; empty if all are.
    """

    name: str | None
    rows: int | None
    note: str


@dataclass(frozen=True, slots=True)
class FamilyView:
    """Slices of a family, and its drift status; None if its accuracy is not monitored.

    ``unknown_since`` is the time of its last label, if it had none for an hour.
    """

    name: str
    slices: tuple[str, ...]
    drift: DriftStatus | None
    unknown_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class SlicesView:
    """Every slice in one window of one snapshot: all rows first, then the rows in no slice, then the slices.

    ``fault`` is the reason why the champion cannot be loaded, if it cannot; ``reference_table`` is None unless the
    version is served elsewhere and has one, or a reason why it has none.
    """

    at: datetime
    model: str
    version: int
    window: WindowName
    start: datetime
    end: datetime
    last_label_at: datetime | None
    slices: tuple[SliceView, ...]
    fault: str = ""
    clock: str | None = None
    reference_table: ReferenceTableView | None = None
    families: tuple[FamilyView, ...] = ()
    settling_hours: float = 0.0


def slices_view(deployment: Deployment, window: WindowName) -> SlicesView:
    """Return every live slice in one window, as of the latest snapshot.

    A slice whose function was added or changed after the snapshot has no estimates yet.

    Raises
    ------
    NotReady
        Before the first snapshot, or if the snapshot does not have the window.
    """
    snapshot, state, health = deployment.snapshot, deployment.state, deployment.health()
    if snapshot is None:
        raise NotReady("no snapshot yet; the first follows within seconds of the first prediction")
    if window not in snapshot.windows:
        raise no_promotion(window, snapshot.model)
    window_estimates = snapshot.windows[window]
    estimates = {(estimate.slice, estimate.fingerprint): estimate for estimate in window_estimates.slices}
    # Expected coverage belongs to one version: it is omitted while the snapshot is of another one.
    is_current = snapshot.version == state.version
    references = state.references if is_current else {}
    accuracies = state.accuracies if is_current else {}
    drifts = drifts_by_slice(deployment)
    kinds: tuple[DriftKind, ...] = ("coverage", "accuracy")

    def view(
        name: str,
        kind: SliceKind,
        fingerprint: str | None,
        reference: Estimate | InsufficientData,
        metadata: Metadata = NO_METADATA,
        origin: Origin | None = None,
    ) -> SliceView:
        newer = InsufficientData(0, 1, "the slice is newer than the latest snapshot")
        unlabelled = Performance(0, newer, newer)
        estimate = estimates.get(
            (name, fingerprint), SliceEstimate(name, fingerprint, newer, 0, 0, unlabelled, unlabelled)
        )
        return SliceView(
            name,
            kind,
            metadata,
            origin,
            fingerprint,
            reference,
            estimate,
            health.get(name),
            state_of(estimate, reference, metadata.target),
            drifts.get(name, {}),
            _expected_accuracy(state, name, fingerprint, accuracies.get(name)),
            snapshot.last_evidence(name, fingerprint, "coverage"),
            snapshot.last_evidence(name, fingerprint, "accuracy"),
            {kind: at for kind in kinds if (at := snapshot.unknown_since(name, fingerprint, kind)) is not None},
        )

    slices = [
        view(ALL_ROWS, "all", None, estimate_of(Rate(0, 0), "not defined for all rows")),
        view(NONE_FIRED, "none", None, estimate_of(Rate(0, 0), "not defined for rows in no slice")),
    ]
    for function in state.functions:
        rate = references.get(function.name)
        if rate is None:
            reference = estimate_of(Rate(0, 0), state.missing_reference(function.name))
        else:
            reference = estimate_of(rate)
        slices.append(
            view(
                function.name,
                kind_of(function),
                function.fingerprint,
                reference,
                state.metadata.get(function.name, function.metadata),
                state.origins.get(function.name, "file"),
            )
        )
    return SlicesView(
        at=snapshot.at,
        model=snapshot.model,
        version=snapshot.version,
        window=window,
        start=window_estimates.start,
        end=window_estimates.end,
        last_label_at=snapshot.last_label_at,
        slices=tuple(slices),
        clock=clock_note(deployment.clock_step, deployment.behind_until, snapshot.at),
        fault=state.fault,
        reference_table=_reference_table(state),
        families=families_view(deployment),
        settling_hours=state.settling_hours,
    )


def families_view(deployment: Deployment) -> tuple[FamilyView, ...]:
    """Return the families of several slices."""
    statuses = {(each.slice, each.fingerprint): each for each in deployment.drift_statuses if not each.is_of_slice}
    keys = {RateKey.of_family(family, own): own for family, own in deployment.state.families.items()}
    last = deployment.snapshot
    return tuple(
        FamilyView(key.slice, tuple(own), statuses.get(key[:2]), None if last is None else last.unknown_since(*key))
        for key, own in keys.items()
    )


def _reference_table(state: DeploymentState) -> ReferenceTableView | None:
    table, note = state.table, state.table_note
    if not state.is_external or not (table or note):
        return None
    return ReferenceTableView(table.name if table else None, table.rows if table else None, note)


def _expected_accuracy(
    state: DeploymentState, name: str, fingerprint: str | None, rate: Rate | None
) -> Estimate | InsufficientData:
    if rate is not None:
        return estimate_of(rate)
    key = RateKey(name, fingerprint, "accuracy")
    if key in state.label_counts:
        n, labels = state.label_counts[key], state.reference_labels
        reason = "the first labels set the expected accuracy, and raise no alarm"
        if n >= labels:
            reason += f"; those so far have few contents, worth fewer than {MINIMUM_CONTENTS} independent labels"
        return InsufficientData(n, labels * (n // labels + 1), reason)
    reason = DAMAGED if state.awaits_repair else "no expected accuracy for this version of the function"
    return estimate_of(Rate(0, 0), reason)


def clock_note(step: ClockStep | None, behind_until: datetime | None, now: datetime) -> str | None:
    """Return the last step of the clock, for a day, and how rows are evidence since, in words; None if neither is.

    Examples
    --------
    >>> at = datetime(2026, 5, 1, 12)
    >>> clock_note(ClockStep(at, 90.0), None, at), clock_note(ClockStep(at, 90.0), None, at + timedelta(days=2))
    ('the clock was set ahead by 0:01:30, to 2026-05-01 12:00:00 UTC', None)
    """
    notes = []
    if step is not None and (behind_until is not None or now < step.at + timedelta(days=1)):
        notes.append(step_text(step.seconds, step.at))
    if behind_until is not None:
        notes.append(f"until {behind_until:%Y-%m-%d %H:%M:%S} UTC rows are evidence of drift in order of arrival")
    return "; ".join(notes) or None


def estimate_of(rate: Rate, reason: str = "no rows of known membership") -> Estimate | InsufficientData:
    """Return a rate with its Clopper-Pearson interval, or the reason if n is 0.

    Examples
    --------
    >>> estimate = estimate_of(Rate(9, 10))
    >>> estimate.value, round(estimate.lower, 3)
    (0.9, 0.555)
    """
    if not rate.n:
        return InsufficientData(0, 1, reason)
    return Estimate(rate, *rate.interval(), "clopper-pearson")


def state_of(estimate: SliceEstimate, reference: Estimate | InsufficientData, target: float | None) -> SliceState:
    """Compare a slice with its target and its expected coverage; of several problems, return the worst.

    Accuracy is low if its upper limit is below the target. Coverage is off if its interval and that of the
    reference are disjoint. There are too few rows if one of them has no estimate.
    """
    coverage, accuracy = estimate.coverage, estimate.members.accuracy
    if target is not None and isinstance(accuracy, Estimate) and accuracy.upper < target:
        return "accuracy_low"
    if (
        isinstance(coverage, Estimate)
        and isinstance(reference, Estimate)
        and (coverage.upper < reference.lower or reference.upper < coverage.lower)
    ):
        return "coverage_off"
    known = coverage.rate.n if isinstance(coverage, Estimate) else coverage.n
    if estimate.unknown > MAX_UNKNOWN * (known + estimate.unknown):
        return "unknown_high"
    if isinstance(coverage, InsufficientData):
        return "too_few"
    return "too_few" if target is not None and isinstance(accuracy, InsufficientData) else "ok"


def unknown_slice(name: str) -> UnknownSlice:
    """Return the error for a name that no slice has."""
    return UnknownSlice(f"there is no slice {name!r}; the slices are listed under /v1/slices")


def no_promotion(window: WindowName, model: str) -> NotReady:
    """Return the error for the window since promotion of a model that was never promoted."""
    return NotReady(f"there is no window {window!r}: no version of {model!r} was promoted")
