"""Frozen values of the traffic: predictions, labels, counts, estimates and snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfs.function import ALL_ROWS, NO_SLICE
from sfs.intervals import Rate

Source = Literal["live", "logged", "backfill"]
_RateKind = Literal[
    "coverage", "accuracy", "family_accuracy", "votes", "unknown", "predicted", "disagreement", "confidence"
]
LabelOutcome = Literal["accepted", "duplicate", "corrected", "pending", "too_late", "rejected"]
IntervalMethod = Literal["clopper-pearson", "anytime"]
WindowName = Literal["5m", "1h", "1d", "7d", "since_promotion"]
Counts = NDArray[np.int64]

BREAKER_OPEN = "breaker open"
CHANGED = "changed on disk"
DIED = "process died"
INVALID_ANSWER = "invalid answer"
NOT_JSON = "not JSON"
STARTING = "isolation starting"
SERVICE_REASONS = frozenset({BREAKER_OPEN, CHANGED, DIED, INVALID_ANSWER, NOT_JSON, STARTING})
"""Reasons of the service, beside those of ``sfs``, for an unknown membership."""

STALE = timedelta(hours=1)
"""Age of the last row or label of a slice from which its rate is unknown."""

NONE_FIRED = NO_SLICE
"""Column of the rows that are in no slice."""

EXTRA_COLUMNS = (NONE_FIRED, ALL_ROWS)
"""Columns after those of the K slices."""


class Prediction(NamedTuple):
    """One logged prediction.

    Parameters
    ----------
    id
        Unique per model; chosen by the client or generated.
    model, version, set_hash
        Model version, and the function set that the bitmaps refer to.
    at
        Time of the answer, UTC.
    label
        Predicted class.
    probabilities
        C probabilities in the order of the bundle's classes; None if the model gave none.
    member, unknown
        Bitmaps of ceil(K / 8) bytes, packed as by ``numpy.packbits(bitorder="little")``: bit k is slice k of
        the set. No bit is set in both.
    features
        Record as JSON, reduced by the feature policy.
    content_hash
        Signed 64-bit hash of the record, which detects an id that is reused for other content.
    source
        Answered here, logged by another server, or backfilled from history.
    disagreement
        Bitmap of the slices of which the model's own indicator contradicts the function; None if not compared.
    """

    id: str
    model: str
    version: int
    set_hash: str
    at: datetime
    label: str
    probabilities: tuple[float, ...] | None
    member: bytes
    unknown: bytes
    features: str | None
    content_hash: int
    source: Source
    disagreement: bytes | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """One observation of the true class; the latest ``observed_at`` counts, then the latest arrival."""

    prediction_id: str
    label: str
    observed_at: datetime
    received_at: datetime
    labeller: str = ""
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class FunctionSetVersion:
    """Function set behind a hash: K names and fingerprints in order, and the time it was first seen.

    ``votes`` names the labelling functions; "no slice fired" disregards them.
    """

    hash: str
    names: tuple[str, ...]
    fingerprints: tuple[str, ...]
    at: datetime
    votes: tuple[str, ...] = ()

    @property
    def slices(self) -> dict[str, str]:
        """Fingerprints of the slicing functions by name, without the votes."""
        return {n: p for n, p in zip(self.names, self.fingerprints, strict=True) if n not in self.votes}


@dataclass(frozen=True, eq=False, slots=True)
class BlockCounts:
    """Counts of [start, start + seconds) for one model version and one function set.

    Every array ends in K + 2 columns: the K slices, then ``EXTRA_COLUMNS``. In a column a row counts as
    member, as unknown, or as neither; the complement is all rows minus both. "No slice fired" is unknown for
    a row that is unknown to some slice. Arrays of the same classes can be added.

    Parameters
    ----------
    model, version, set_hash
        Series of the rows.
    start, seconds
        Time span of the predictions (UTC); a label counts where its prediction is, whenever it arrives.
    classes
        The C classes among predictions and labels, sorted. Counts of other classes are 0.
    predicted, predicted_unknown : int64[C, K+2]
        Members, and rows unknown to the slice, by predicted class.
    confusion, confusion_unknown : int64[C, C, K+2]
        Labelled rows among these, by true class, then predicted class.
    absent : int64[K+2]
        Unknown rows that were answered without the current version of the slice's function.
    confidence : int64[62]
        Rows by range of confidence (`models.outputs`); rows without probabilities are not counted.
    indicated : int64[2, K]
        Known rows of which indicators of the model were logged, and those on which they contradict the function.

    Raises
    ------
    ValueError
        If the shapes disagree.
    """

    model: str
    version: int
    set_hash: str
    start: datetime
    seconds: int
    classes: tuple[str, ...]
    predicted: Counts
    predicted_unknown: Counts
    confusion: Counts
    confusion_unknown: Counts
    absent: Counts
    confidence: Counts
    indicated: Counts

    def __post_init__(self) -> None:
        by_class = (len(self.classes), len(self.absent))
        expected = [by_class] * 2 + [(by_class[0], *by_class)] * 2
        shapes = [array.shape for array in self.arrays()[:4]]
        if shapes != expected:
            raise ValueError(f"the counts of a block must have shapes {expected}, got {shapes}")

    @property
    def series(self) -> tuple[str, int, str]:
        """Model, version and set hash; blocks of one series can be added."""
        return self.model, self.version, self.set_hash

    @property
    def end(self) -> datetime:
        """First moment after the block."""
        return self.start + timedelta(seconds=self.seconds)

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.predicted[:, -1].sum())

    @property
    def labelled(self) -> int:
        """Number of labelled rows."""
        return int(self.confusion[..., -1].sum())

    @property
    def member(self) -> Counts:
        """Members by column, int64[K+2]."""
        return np.asarray(self.predicted.sum(axis=0), np.int64)

    @property
    def unknown(self) -> Counts:
        """Rows of unknown membership by column, int64[K+2]."""
        return np.asarray(self.predicted_unknown.sum(axis=0), np.int64)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BlockCounts):
            return NotImplemented
        own, others = ((*b.series, b.start, b.seconds, b.classes) for b in (self, other))
        return own == others and all(map(np.array_equal, self.arrays(), other.arrays()))

    __hash__ = None  # type: ignore[assignment]  # arrays are not hashable

    def arrays(self) -> tuple[Counts, ...]:
        """Return predicted, predicted_unknown, confusion, confusion_unknown, absent, confidence, indicated."""
        by_class = self.predicted, self.predicted_unknown, self.confusion, self.confusion_unknown
        return *by_class, self.absent, self.confidence, self.indicated


@dataclass(frozen=True, slots=True)
class InsufficientData:
    """Missing figure: rows available, rows needed, and the reason in words."""

    n: int
    needed: int
    reason: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """Rate with its interval, which is exact at a fixed n, or valid at every n at once (``anytime``)."""

    rate: Rate
    lower: float
    upper: float
    method: IntervalMethod

    @property
    def value(self) -> float:
        """Point estimate in [0, 1]."""
        return self.rate.count / self.rate.n


@dataclass(frozen=True, slots=True)
class Performance:
    """Accuracy and F1 on a group with this many labelled rows."""

    labelled: int
    accuracy: Estimate | InsufficientData
    f1: float | InsufficientData


@dataclass(frozen=True, slots=True)
class SliceEstimate:
    """One slice in one window.

    Parameters
    ----------
    slice, fingerprint
        Name, and version of its function; None for the extra columns.
    coverage
        Members among the rows of known membership.
    unknown
        Rows on which the function failed.
    absent
        Rows from before the function existed in its current version.
    members, complement
        Performance on the slice, and on the rows known to be outside it.
    """

    slice: str
    fingerprint: str | None
    coverage: Estimate | InsufficientData
    unknown: int
    absent: int
    members: Performance
    complement: Performance


@dataclass(frozen=True, slots=True)
class WindowEstimates:
    """Slices, then the extra columns, over the rows predicted in [start, end)."""

    start: datetime
    end: datetime
    slices: tuple[SliceEstimate, ...]


def family_name(family: str) -> str:
    """Return the name of a family where slices are, too; no monitored slice has a slash in its name."""
    return f"family/{family}"


@dataclass(frozen=True, slots=True)
class Freshness:
    """Last row and last label of a slice since the promotion of its version; of a family, the last label alone.

    Parameters
    ----------
    fingerprint
        Version of its function; None for the extra columns.
    known, known_at
        Rows of known membership, and the snapshot that counted the last one; None before the first.
    labelled, correct, labelled_at
        Labelled members, the correct ones if they have an accuracy, and the snapshot that counted the last label or
        correction; None before the first.
    """

    fingerprint: str | None
    known: int
    known_at: datetime | None
    labelled: int
    correct: int | None
    labelled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Latest estimates of one model version, from which gauges and pages are drawn.

    Parameters
    ----------
    at
        Time of the snapshot, UTC.
    model, version, set_hash
        Monitored version, and the current function set.
    windows
        Estimates by window name.
    last_label_at
        Arrival of the model's last label; None before the first.
    freshness
        By slice, and by family under its ``family_name``; empty without a promotion.
    """

    at: datetime
    model: str
    version: int
    set_hash: str
    windows: Mapping[WindowName, WindowEstimates]
    last_label_at: datetime | None
    freshness: Mapping[str, Freshness] = field(default_factory=dict)

    def last_evidence(self, slice_: str, fingerprint: str | None, kind: _RateKind) -> datetime | None:
        """Return the time of a slice's or family's last label, or for its coverage of its last known row.

        Any row is evidence on unknown rows, predicted classes and confidence. Return None if there is none.
        """
        if kind in ("unknown", "predicted", "confidence"):
            slice_, fingerprint, kind = ALL_ROWS, None, "coverage"
        elif kind == "family_accuracy":
            slice_, kind = family_name(slice_), "accuracy"
        elif slice_ == NONE_FIRED:
            fingerprint = None
        fresh = self.freshness.get(slice_)
        if fresh is None or fresh.fingerprint != fingerprint:
            return None
        return fresh.labelled_at if kind in ("accuracy", "votes") else fresh.known_at

    def unknown_since(self, slice_: str, fingerprint: str | None, kind: _RateKind) -> datetime | None:
        """Return the time of the last evidence on a rate that has had none for an hour; None for any other."""
        last = self.last_evidence(slice_, fingerprint, kind)
        return last if last is not None and last < self.at - STALE else None


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes of a store and of its disk.

    Parameters
    ----------
    store, reusable
        Size of the database with its journal, and the part of it that new rows will use again.
    free, disk
        Free space, and size, of the disk; 0 if unknown.
    """

    store: int
    reusable: int
    free: int
    disk: int
