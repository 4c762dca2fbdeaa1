"""Frozen values of the model lifecycle: drift, alarms, retraining runs, gate decisions, audit and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, NamedTuple, TypeAlias

from sfs.function import NO_SLICE
from sfs.intervals import Rate

DriftKind: TypeAlias = Literal[
    "coverage", "accuracy", "family_accuracy", "votes", "unknown", "predicted", "disagreement", "confidence"
]
Direction: TypeAlias = Literal["up", "down"]
AlarmState: TypeAlias = Literal["open", "acknowledged", "resolved"]
RunState: TypeAlias = Literal[
    "waiting_for_labels", "training", "gated", "promoted", "held", "rejected", "skipped", "failed"
]
Trigger: TypeAlias = Literal["coverage", "accuracy", "age", "request"]
Outcome: TypeAlias = Literal["promote", "hold", "reject"]
SliceOutcome: TypeAlias = Literal["better", "as_good", "no_harm", "worse", "not_verified"]

ACTIVE: tuple[RunState, ...] = ("waiting_for_labels", "training", "gated")
"""States of an unfinished run; a model has at most one such run."""


RATES: Mapping[DriftKind, str] = {
    "coverage": "coverage",
    "accuracy": "accuracy",
    "family_accuracy": "family accuracy",
    "votes": "accuracy of the votes",
    "unknown": "unknown rate",
    "predicted": "predicted share",
    "disagreement": "disagreement",
    "confidence": "share of low confidence",
}
"""Names of the monitored rates, for sentences."""


class RateKey(NamedTuple):
    """Monitored rate of a slice under one version of its function, or of a family, class or limit of confidence.

    The fingerprint is None for all rows, classes and limits; rows in no slice have the hash of their function set. A
    tuple, because every block looks up thousands of them.
    """

    slice: str
    fingerprint: str | None
    kind: DriftKind

    @classmethod
    def of_family(cls, family: str, fingerprints: Mapping[str, str]) -> RateKey:
        """Return the accuracy of a family; its fingerprint is that of its functions, given by slice."""
        digest = sha256(repr(sorted(fingerprints.items())).encode()).hexdigest()
        return cls(family, digest, "family_accuracy")


@dataclass(frozen=True, slots=True)
class LiveTraffic:
    """Live traffic from which the expected coverage of a slice is learned.

    Parameters
    ----------
    since
        Start of the traffic; None before its first row.
    days
        Whole calm days; the reference sets the expected coverage until there is one.
    missing
        What is still being learned; empty if nothing is.
    """

    since: datetime | None
    days: int
    missing: str = ""

    @property
    def source(self) -> Literal["reference", "live traffic"]:
        """Source of the expected coverage."""
        return "live traffic" if self.days >= 1 else "reference"


@dataclass(frozen=True, slots=True)
class ToleranceBand:
    """Range of a rate without drift.

    Parameters
    ----------
    reference
        Reference counts: members of known rows for coverage, correct of labelled rows for accuracy.
    lower, upper
        Limits, which include the tolerance and the uncertainty of the reference.
    tolerance
        Tolerated relative change of coverage, or absolute change of accuracy.
    target
        Accuracy target of the slice, where it is the lower limit; else None.
    live
        Live traffic that is learned, or that set the limits of a coverage already; None for other rates.
    """

    reference: Rate
    lower: float
    upper: float
    tolerance: float
    target: float | None = None
    live: LiveTraffic | None = None

    @property
    def expected(self) -> float | None:
        """The target, where it is the lower limit; else the rate of the reference, None without rows."""
        return self.reference.value if self.target is None else self.target

    def has_limits_of(self, other: ToleranceBand) -> bool:
        """Whether evidence against one band is evidence against the other, whatever their references."""
        return (self.lower, self.upper, self.target) == (other.lower, other.upper, other.target)


@dataclass(frozen=True, slots=True)
class FallPart:
    """Errors and labels of a slice since the fall in its family, or in all rows."""

    slice: str
    errors: int
    labels: int


@dataclass(frozen=True, slots=True)
class AccuracyFall:
    """Labels behind a lower accuracy.

    Parameters
    ----------
    true_class
        Class whose recall fell; None for all classes.
    errors, labels
        Wrong and all labels since the change, of this class or of all.
    limit
        Highest share of errors without drift; None where every class has its own.
    dispersion
        Factor by which the errors of labels that arrive together vary more than independent ones.
    parts
        Of a family, or of all rows: the slices with labels since then, the one with the most errors first.
    """

    true_class: str | None
    errors: int
    labels: int
    limit: float | None
    dispersion: float
    parts: tuple[FallPart, ...] = ()


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """State of the drift detector of one rate.

    Parameters
    ----------
    slice, fingerprint, kind
        Monitored rate, as in ``RateKey``.
    zone
        Tolerance band; None without a reference, which disables the detector.
    evidence, threshold
        Natural logarithms of the detector's statistic and of its alarm threshold.
    since, direction
        Likeliest start and direction of the change; None while there is no evidence of one.
    observed
        Counts since then, or since the detector started.
    lower, upper
        Anytime-valid 95% interval of the observed rate; 0 and 1 without rows.
    fall
        Of an alarm on accuracy, the labels behind it.
    pooled
        Families, and ``__all__``, that watch a slice whose labels of a month are too few for an alarm of its own.
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
    fall: AccuracyFall | None = None
    pooled: tuple[str, ...] = ()

    @property
    def rate(self) -> str:
        """Name of the rate, for sentences."""
        return RATES[self.kind]

    @property
    def place(self) -> str:
        """The slice, or the family by that word."""
        return f"family {self.slice}" if self.kind == "family_accuracy" else self.slice

    @property
    def slices(self) -> tuple[str, ...]:
        """The slice; of a family, the slices with errors in its alarm."""
        if self.kind != "family_accuracy" or self.fall is None:
            return (self.slice,)
        return tuple(part.slice for part in self.fall.parts if part.errors)

    @property
    def is_accuracy(self) -> bool:
        """Whether labels are the evidence, of a slice, a family, all rows, or the votes of a labelling function."""
        return self.kind in ("accuracy", "family_accuracy", "votes")

    @property
    def evidence_ratio(self) -> float:
        """Evidence divided by the threshold, both as logarithms; at least 0, and 1 raises an alarm."""
        return max(0.0, self.evidence) / self.threshold

    @property
    def stands_alone(self) -> bool:
        """Whether no rows of a slice are behind it: it joins no other alarm, and a retraining does not answer it.

        Wrong votes are those of a function, which only its author can change.
        """
        return self.kind not in ("coverage", "accuracy", "family_accuracy") or self.slice == NO_SLICE

    @property
    def is_of_slice(self) -> bool:
        """Whether ``slice`` names a slice, and not a family, a class or a limit of confidence."""
        return self.kind not in ("family_accuracy", "predicted", "confidence")


@dataclass(frozen=True, slots=True)
class ClockStep:
    """Step of the clock, and its time by the clock after it; ``seconds`` are positive if it was set ahead."""

    at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class DriftDetected:
    """Detection: the evidence reached its threshold in the block that ended at ``at``."""

    at: datetime
    drift: DriftStatus


@dataclass(frozen=True, slots=True)
class Alarm:
    """Drift alarm of a model version; a slice has at most one unresolved alarm of each kind.

    ``at`` and ``drift`` are time and evidence of the detection; ``resolution`` is the reason why it was resolved.
    ``incident`` is None until the alarm was assigned to one, in which ``place`` counts from 0, the cause; ``moved``
    says whether its rate moved by itself or with another slice.
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
    incident: int | None = None
    place: int = 0
    moved: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """Alarms of a model with one cause, the first of them; while it is acknowledged, so are those that join."""

    id: int
    model: str
    alarms: tuple[Alarm, ...]
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    note: str = ""

    @property
    def at(self) -> datetime:
        """Time of the earliest alarm."""
        return min(alarm.at for alarm in self.alarms)

    @property
    def unresolved(self) -> tuple[Alarm, ...]:
        """Alarms that are not resolved."""
        return tuple(alarm for alarm in self.alarms if alarm.state != "resolved")

    @property
    def state(self) -> AlarmState:
        """Resolved if all alarms are; acknowledged if all others are."""
        states = {alarm.state for alarm in self.unresolved}
        return "open" if "open" in states else "acknowledged" if states else "resolved"

    @property
    def cause(self) -> str:
        """Slice whose change explains the most of the others: that of the first alarm."""
        return self.alarms[0].drift.slice

    @property
    def resolved_at(self) -> datetime | None:
        """Time of the last resolution; None while an alarm is unresolved."""
        times = [alarm.resolved_at for alarm in self.alarms if alarm.resolved_at is not None]
        return max(times) if len(times) == len(self.alarms) else None


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """Correct predictions of two versions on the same n contents held out of a slice: by both, or by one alone."""

    slice: str
    n: int
    both: int
    only_champion: int
    only_candidate: int

    @property
    def champion(self) -> Rate:
        """Accuracy of the champion."""
        return Rate(self.both + self.only_champion, self.n)

    @property
    def candidate(self) -> Rate:
        """Accuracy of the candidate."""
        return Rate(self.both + self.only_candidate, self.n)


@dataclass(frozen=True, slots=True)
class SliceDecision:
    """Decision of the promotion gate on one slice.

    Parameters
    ----------
    pairs
        Counts behind the decision.
    protected
        True if the slice must be verified before a promotion.
    difference, lower, upper
        Candidate minus champion in accuracy, with one-sided confidence limits.
    outcome
        ``better``; ``as_good``: not worse by more than the margin; ``worse``; ``no_harm``: not significantly
        worse, for slices that are not protected; ``not_verified``: too few rows to decide.
    reason
        The outcome in words.
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
    """Decision of the promotion gate on a candidate: outcome, reasons, and slice by slice, all rows first."""

    outcome: Outcome
    reasons: tuple[str, ...]
    slices: tuple[SliceDecision, ...]
    margin: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Run:
    """One retraining run, from its trigger to its end.

    Parameters
    ----------
    trigger, reason
        Cause of the run, as a code and in words.
    opened_at, updated_at
        Times of its opening and of its last change.
    alarms, slices
        Alarms that it answers, and their slices.
    since
        Start of the change that it answers; None without one.
    champion, candidate
        Version compared with, and version trained.
    data
        Training data as JSON values: ``base_rows``, ``traffic_rows``, ``held_out_rows`` and more.
    outcome
        Reason why the run ended or waits, in words.
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
    """One audited action; ``detail`` holds JSON values."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Comparison of live traffic with the reference sample, column by column.

    Parameters
    ----------
    at, start, end
        Time of the report, and the span of its traffic.
    columns
        JSON values per column: ``column``, ``kind``, ``method``, ``threshold``, ``value``, ``drifted``.
    error
        Reason for a missing comparison; else empty.
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
