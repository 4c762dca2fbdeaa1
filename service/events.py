"""The frozen values that travel between the rooms of the service; none of them knows how it is made or kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfs.function import ALL_ROWS, NO_SLICE
from sfs.intervals import Rate

Source = Literal["live", "logged", "backfill"]
LabelOutcome = Literal["accepted", "duplicate", "corrected", "pending", "too_late", "rejected"]
IntervalMethod = Literal["clopper-pearson", "anytime"]
WindowName = Literal["5m", "1h", "1d", "7d", "since_promotion"]
Counts = NDArray[np.int64]

NONE_FIRED = NO_SLICE
"""The column of the rows that no slice took in."""

EXTRA_COLUMNS = (NONE_FIRED, ALL_ROWS)
"""The columns after those of the K slices."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answered record, as it stands in the log.

    Parameters
    ----------
    id
        The client's or ours; unique per model.
    model, version, set_hash
        Who answered, and the function set whose slices the bitmaps speak of.
    at
        When the server answered, in UTC.
    label
        The predicted class.
    probabilities
        The C probabilities in the order of the bundle's classes; None where the model gave none.
    member, unknown
        Bitmaps of ceil(K / 8) bytes: bit k is slice k of the set, as ``numpy.packbits(bitorder="little")``
        packs them. A slice is never both.
    features
        The record as JSON, as far as the feature policy lets it be kept.
    content_hash
        Tells the same id with the same content from the same id with other content; fits 64 signed bits.
    source
        Answered here, logged by another server, or filled in from history.
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


@dataclass(frozen=True, slots=True)
class Label:
    """One statement of what a record truly was; the latest ``observed_at`` counts, then arrival."""

    prediction_id: str
    label: str
    observed_at: datetime
    received_at: datetime
    labeller: str = ""
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class FunctionSetVersion:
    """What a set hash stands for: the K names and fingerprints in order, and when it was first seen.

    ``votes`` names the labelling functions among them; "no slice fired" is about the others alone.
    """

    hash: str
    names: tuple[str, ...]
    fingerprints: tuple[str, ...]
    at: datetime
    votes: tuple[str, ...] = ()

    @property
    def slices(self) -> dict[str, str]:
        """Name to fingerprint of all but the votes."""
        return {n: p for n, p in zip(self.names, self.fingerprints, strict=True) if n not in self.votes}


@dataclass(frozen=True, eq=False, slots=True)
class BlockCounts:
    """What happened between ``start`` and ``start + seconds`` under one model version and one function set.

    Every array ends in K + 2 columns: the K slices, then ``EXTRA_COLUMNS``. A row is counted in a column as
    a member, as unknown, or not at all; who is neither is the complement, all rows minus both. "No slice
    fired" is unknown for a row that is unknown to some slice. Arrays of the same classes add.

    Parameters
    ----------
    model, version, set_hash
        Whose rows are counted.
    start, seconds
        The time of the predictions (UTC); labels are counted where their prediction is, whenever they come.
    classes
        The C classes that occur in the rows or their labels, sorted. Counts of other classes are 0.
    predicted, predicted_unknown : int64[C, K+2]
        By predicted class: the members, and the rows unknown to the slice.
    confusion, confusion_unknown : int64[C, C, K+2]
        The labelled ones among them, by true class, then predicted class.
    absent : int64[K+2]
        How many of the unknown rows were answered when the slice's function, as it is now, was not applied.

    Raises
    ------
    ValueError
        If the shapes do not fit together.
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

    def __post_init__(self) -> None:
        by_class = (len(self.classes), len(self.absent))
        square = (by_class[0], *by_class)
        shapes = [a.shape for a in (self.predicted, self.predicted_unknown)]
        squares = [a.shape for a in (self.confusion, self.confusion_unknown)]
        if shapes != [by_class] * 2 or squares != [square] * 2:
            raise ValueError(
                f"the counts of a block have shapes {by_class} and {square}, got {shapes + squares}"
            )

    @property
    def series(self) -> tuple[str, int, str]:
        """Model, version and set hash: blocks of one series add."""
        return self.model, self.version, self.set_hash

    @property
    def end(self) -> datetime:
        """The first moment after the block."""
        return self.start + timedelta(seconds=self.seconds)

    @property
    def n(self) -> int:
        """All rows."""
        return int(self.predicted[:, -1].sum())

    @property
    def labelled(self) -> int:
        """All rows with a label."""
        return int(self.confusion[..., -1].sum())

    @property
    def member(self) -> Counts:
        """Members by column, int64[K+2]."""
        return np.asarray(self.predicted.sum(axis=0), np.int64)

    @property
    def unknown(self) -> Counts:
        """Rows whose membership is unknown by column, int64[K+2]."""
        return np.asarray(self.predicted_unknown.sum(axis=0), np.int64)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BlockCounts):
            return NotImplemented
        return self._key() == other._key() and all(
            np.array_equal(mine, theirs) for mine, theirs in zip(self.arrays(), other.arrays(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def arrays(self) -> tuple[Counts, Counts, Counts, Counts, Counts]:
        """Return predicted, predicted_unknown, confusion, confusion_unknown, absent."""
        return self.predicted, self.predicted_unknown, self.confusion, self.confusion_unknown, self.absent

    def _key(self) -> tuple[object, ...]:
        return *self.series, self.start, self.seconds, self.classes


@dataclass(frozen=True, slots=True)
class InsufficientData:
    """A figure that is not given: how many rows there are, how many are needed, and why, for people."""

    n: int
    needed: int
    reason: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its interval.

    Parameters
    ----------
    rate
        Count and n.
    lower, upper
        The interval's limits.
    method
        How the interval was made: exact at a fixed n, or right at every n at once.
    """

    rate: Rate
    lower: float
    upper: float
    method: IntervalMethod

    @property
    def value(self) -> float:
        """The share in [0, 1]."""
        return self.rate.count / self.rate.n


@dataclass(frozen=True, slots=True)
class Performance:
    """How right the model was on one group of rows, ``labelled`` of them; or why nobody can say."""

    labelled: int
    accuracy: Estimate | InsufficientData
    f1: float | InsufficientData


@dataclass(frozen=True, slots=True)
class SliceEstimate:
    """One slice in one window.

    Parameters
    ----------
    slice, fingerprint
        The name, and the version of its function; None for the extra columns, which no function makes.
    coverage
        Members of the rows whose membership is known.
    unknown
        Rows whose membership is unknown although the function was applied: it failed.
    absent
        Rows from before the function was in the set, or was what it is now.
    members, complement
        How right the model was on the slice, and on the rows known to be outside it.
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
    """One window: the rows predicted in [start, end), and every slice in it, then the extra columns."""

    start: datetime
    end: datetime
    slices: tuple[SliceEstimate, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the monitor last committed about one model version; every gauge and page is drawn from it.

    Parameters
    ----------
    at
        The time of the tick, UTC.
    model, version, set_hash
        What is watched, and the function set in force.
    windows
        Window name to its estimates.
    last_label_at
        When the last label of the model arrived; None before the first.
    """

    at: datetime
    model: str
    version: int
    set_hash: str
    windows: Mapping[WindowName, WindowEstimates]
    last_label_at: datetime | None
