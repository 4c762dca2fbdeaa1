"""Every slice in one window: what the snapshot says, beside what is known of the slice and expected of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, TypeAlias

from service.decisions import DriftKind, DriftStatus
from service.errors import ServiceError
from service.events import (
    NONE_FIRED,
    Estimate,
    InsufficientData,
    Performance,
    SliceEstimate,
    WindowEstimates,
    WindowName,
)
from service.serving.deployment import Deployment, DeploymentState, FunctionHealth, Origin
from service.views.alarms import drifts_by_slice
from service.views.functions import kind_of
from service.views.rates import estimate_of
from sfs.function import ALL_ROWS
from sfs.intervals import Rate
from sfs.validation import NO_METADATA, Metadata


class NotReady(ServiceError):
    """No snapshot has been taken yet."""


class UnknownSlice(ServiceError):
    """No slice has this name."""


SliceKind: TypeAlias = Literal["slice", "labeling", "none", "all"]
SliceState: TypeAlias = Literal["ok", "coverage_off", "accuracy_low", "unknown_high", "too_few"]


@dataclass(frozen=True, slots=True)
class SliceView:
    """One slice in one window.

    Parameters
    ----------
    name, fingerprint
        The slice, and the version of its function; None for the extra columns, which no function makes.
    kind
        A slice, the answers of a labelling function, the rows of no slice, or all rows.
    metadata
        What people know about it.
    origin
        Where its function is defined; None for the extra columns.
    reference
        The coverage that is expected.
    estimate
        What was seen.
    health
        Of its function, where it can be kept out.
    state
        A plain comparison of these, no alarm: what a reader should look at first.
    drifts
        Where it stands with its detectors, by kind; none where it is not watched.
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


@dataclass(frozen=True, slots=True)
class SlicesView:
    """Every slice in one window of one snapshot: all rows first, then the rows of no slice, then the slices."""

    at: datetime
    model: str
    version: int
    window: WindowName
    start: datetime
    end: datetime
    last_label_at: datetime | None
    slices: tuple[SliceView, ...]


UNKNOWN_SHARE = 0.1
"""The share of a window's rows, among those that a function was applied to, that may fail without a word."""


def slices_view(deployment: Deployment, window: WindowName) -> SlicesView:
    """Return every slice in one window, as of the last snapshot.

    The slices are those in force now; one whose function came since the snapshot has no figures yet.

    Raises
    ------
    NotReady
        Before the first snapshot, and for a window that it does not have.
    """
    snapshot, state, health = deployment.snapshot, deployment.state, deployment.health()
    if snapshot is None:
        raise NotReady(
            "there is no snapshot yet: the monitor makes one within seconds of the first prediction"
        )
    if window not in snapshot.windows:
        raise NotReady(f"there is no window {window!r}: no version of {snapshot.model!r} was promoted")
    shown = snapshot.windows[window]
    # What is expected was counted with one version: that of the snapshot, or none is shown.
    references = state.references if snapshot.version == state.version else {}
    drifts = drifts_by_slice(deployment)
    return SlicesView(
        at=snapshot.at,
        model=snapshot.model,
        version=snapshot.version,
        window=window,
        start=shown.start,
        end=shown.end,
        last_label_at=snapshot.last_label_at,
        slices=tuple(
            replace(each, drifts=drifts.get(each.name, {}))
            for each in _views(state, shown, references, health)
        ),
    )


def _views(
    state: DeploymentState,
    shown: WindowEstimates,
    references: Mapping[str, Rate],
    health: Mapping[str, FunctionHealth],
) -> tuple[SliceView, ...]:
    found = {(each.slice, each.fingerprint): each for each in shown.slices}
    views = [
        _view("all", _found(found, ALL_ROWS, None), estimate_of(0, 0, "all rows are all rows")),
        _view("none", _found(found, NONE_FIRED, None), estimate_of(0, 0, "nothing is expected of it")),
    ]
    for each in state.functions:
        rate = references.get(each.name)
        expected = estimate_of(rate.count, rate.n) if rate else estimate_of(0, 0, _NO_REFERENCE)
        views.append(
            _view(
                kind_of(each),
                _found(found, each.name, each.fingerprint),
                expected,
                state.metadata.get(each.name, each.metadata),
                state.origins.get(each.name, "file"),
                health.get(each.name),
            )
        )
    return tuple(views)


_NO_REFERENCE = "its function is not the one that the model's held-out rows were counted with"


def _found(
    found: Mapping[tuple[str, str | None], SliceEstimate], name: str, fingerprint: str | None
) -> SliceEstimate:
    """Return the estimate of a slice, or one that says that it came since."""
    nothing = InsufficientData(0, 1, "the slice came after the last snapshot")
    nobody = Performance(0, nothing, nothing)
    return found.get((name, fingerprint)) or SliceEstimate(name, fingerprint, nothing, 0, 0, nobody, nobody)


def _view(
    kind: SliceKind,
    estimate: SliceEstimate,
    reference: Estimate | InsufficientData,
    metadata: Metadata = NO_METADATA,
    origin: Origin | None = None,
    health: FunctionHealth | None = None,
) -> SliceView:
    state = state_of(estimate, reference, metadata.target)
    return SliceView(
        estimate.slice, kind, metadata, origin, estimate.fingerprint, reference, estimate, health, state
    )


def state_of(
    estimate: SliceEstimate, reference: Estimate | InsufficientData, target: float | None
) -> SliceState:
    """Compare a slice with what is expected of it; where several things are wrong, say the worst.

    Accuracy is low where its upper limit is below the target, coverage is off where its interval and that of
    the reference do not meet. There are too few rows where the one or the other cannot be told.
    """
    coverage, accuracy = estimate.coverage, estimate.members.accuracy
    if target is not None and isinstance(accuracy, Estimate) and accuracy.upper < target:
        return "accuracy_low"
    if isinstance(coverage, Estimate) and isinstance(reference, Estimate) and _apart(coverage, reference):
        return "coverage_off"
    known = coverage.rate.n if isinstance(coverage, Estimate) else coverage.n
    if estimate.unknown > UNKNOWN_SHARE * (known + estimate.unknown):
        return "unknown_high"
    untold = isinstance(coverage, InsufficientData) or (
        target is not None and isinstance(accuracy, InsufficientData)
    )
    return "too_few" if untold else "ok"


def _apart(one: Estimate, other: Estimate) -> bool:
    return one.upper < other.lower or other.upper < one.lower
