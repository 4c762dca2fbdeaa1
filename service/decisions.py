"""The frozen values of the loop: what drifts, which alarms stand, what is trained, and what the gate says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sfs.intervals import Rate

DriftKind: TypeAlias = Literal["coverage", "accuracy"]
Direction: TypeAlias = Literal["up", "down"]
AlarmState: TypeAlias = Literal["open", "acknowledged", "resolved"]
RunState: TypeAlias = Literal[
    "waiting_for_labels", "training", "gated", "promoted", "held", "rejected", "skipped", "failed"
]
Trigger: TypeAlias = Literal["coverage", "accuracy", "age", "request"]
Outcome: TypeAlias = Literal["promote", "hold", "reject"]
SliceOutcome: TypeAlias = Literal["better", "as_good", "no_harm", "worse", "not_verified"]

ACTIVE: tuple[RunState, ...] = ("waiting_for_labels", "training", "gated")
"""The states of a run that is not at its end; a model has one such run at most."""


@dataclass(frozen=True, slots=True)
class ToleranceBand:
    """Where a rate may lie while nothing is wrong.

    Parameters
    ----------
    reference
        What was counted, with its n. Of coverage: members of known rows; of accuracy: right of labelled.
    lower, upper
        The limits, in which the tolerance and the reference's own uncertainty are taken in.
    tolerance
        Of coverage the relative change that is let pass, of accuracy the difference.
    """

    reference: Rate
    lower: float
    upper: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """Where one slice stands with one detector.

    Parameters
    ----------
    slice, fingerprint
        The slice, and the version of its function; None for the extra columns.
    kind
        Which of its rates.
    zone
        Where the rate may lie; None without a reference: nothing can be said then.
    evidence, threshold
        Natural logarithms of the detector's value and of that at which it alarms.
    since
        When the change most likely began; None while nothing points to one.
    direction
        Where the rate went; None as above.
    observed
        What was counted since then, or since the watch began.
    lower, upper
        The limits of an anytime-valid 95 % interval around it; 0 and 1 where nothing was counted.
    """

    slice: str
    fingerprint: str | None
    kind: DriftKind
    zone: ToleranceBand | None
    evidence: float
    threshold: float
    since: datetime | None
    direction: Direction | None
    observed: Rate
    lower: float
    upper: float

    @property
    def share(self) -> float:
        """The evidence as a share of what alarms, both as logarithms; 0 at least."""
        return max(0.0, self.evidence) / self.threshold


@dataclass(frozen=True, slots=True)
class DriftDetected:
    """A detector has reached its threshold with the block that ended at ``at``."""

    at: datetime
    drift: DriftStatus


@dataclass(frozen=True, slots=True)
class Alarm:
    """A verdict that stands until it is resolved; a slice has one of a kind that is not.

    Parameters
    ----------
    id
        Counts up.
    model, version
        Which version answered.
    at, drift
        When it was raised, and on what evidence.
    state
        Somebody knows of it once it is acknowledged.
    acknowledged_at, acknowledged_by, note
        When, who, and what they said.
    resolved_at, resolution
        When it ended, and why.
    """

    id: int
    model: str
    version: int
    at: datetime
    drift: DriftStatus
    state: AlarmState = "open"
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    note: str = ""
    resolved_at: datetime | None = None
    resolution: str = ""


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """Two versions on the same n held-out members of a slice: how often both, or only one, was right."""

    slice: str
    n: int
    both: int
    only_champion: int
    only_candidate: int

    @property
    def champion(self) -> Rate:
        """How often the champion was right."""
        return Rate(self.both + self.only_champion, self.n)

    @property
    def candidate(self) -> Rate:
        """How often the candidate was right."""
        return Rate(self.both + self.only_candidate, self.n)


@dataclass(frozen=True, slots=True)
class SliceDecision:
    """What the gate says of one slice.

    Parameters
    ----------
    pairs
        What it was judged on.
    protected
        Whether it has to be shown that the candidate is as good.
    difference, lower, upper
        Candidate minus champion in accuracy, and the limits of its interval.
    outcome
        Shown to be better; shown to be as good up to the margin; not shown to be worse (of slices that are not
        protected); shown to be worse; or too few rows to say, which never passes for a protected slice.
    reason
        In a sentence.
    """

    pairs: PairedCounts
    protected: bool
    difference: float
    lower: float
    upper: float
    outcome: SliceOutcome
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says of a candidate: what to do, why, and slice by slice, all rows first."""

    outcome: Outcome
    reasons: tuple[str, ...]
    slices: tuple[SliceDecision, ...]
    margin: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Run:
    """One retraining, from its cause to its end.

    Parameters
    ----------
    id
        Counts up.
    model
        Whose.
    state
        Where it stands.
    trigger, reason
        What caused it, and that in a sentence.
    opened_at, updated_at
        When it was opened, and when it last moved.
    alarms, slices
        The alarms that it answers, and the slices that these are about.
    since
        When the change began that it answers; None without one.
    attempts
        How often training was begun.
    champion, candidate
        The version that it was compared with, and the one that it made.
    data
        What it was trained on, as JSON values: ``base_rows``, ``traffic_rows``, ``held_out_rows`` and more.
    decision
        What the gate said.
    outcome
        Why it ended, or what it waits for, in a sentence.
    """

    id: int
    model: str
    state: RunState
    trigger: Trigger
    reason: str
    opened_at: datetime
    updated_at: datetime
    alarms: tuple[int, ...] = ()
    slices: tuple[str, ...] = ()
    since: datetime | None = None
    attempts: int = 0
    champion: int | None = None
    candidate: int | None = None
    data: Mapping[str, Any] | None = None
    decision: Decision | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, when, to what; ``detail`` holds JSON values."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One comparison of live traffic with the reference sample, column by column.

    Parameters
    ----------
    id
        Counts up.
    model, version
        Whose traffic.
    at, start, end
        When it was made, and the span of the traffic.
    reference_rows, current_rows
        How many rows were compared.
    columns
        A record per column, as JSON values: ``column``, ``kind``, ``method``, ``threshold``, ``value``,
        ``drifted``.
    error
        Why there is none; empty where there is one.
    """

    id: int
    model: str
    version: int
    at: datetime
    start: datetime
    end: datetime
    reference_rows: int
    current_rows: int
    columns: tuple[Mapping[str, Any], ...]
    error: str = ""
