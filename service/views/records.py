"""The last records of a slice, and how they were predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

RecordKind: TypeAlias = Literal["all", "errors", "correct", "unlabelled", "unknown"]


@dataclass(frozen=True, slots=True)
class RecordView:
    """One prediction, and what is known of it.

    Parameters
    ----------
    id, at, version, predicted
        The answer.
    label
        The true class; None while there is no label.
    probabilities
        By class; None where the model gave none, or its classes are not those in force.
    features
        The record, as far as it was kept.
    slices, unknown_slices
        Those it is in, and those of which it is not known, by the functions of its time.
    """

    id: str
    at: datetime
    version: int
    predicted: str
    label: str | None
    probabilities: Mapping[str, float] | None
    features: Mapping[str, Any] | None
    slices: tuple[str, ...]
    unknown_slices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordsView:
    """Records, newest first, and counts over all that were looked at.

    Parameters
    ----------
    records
        As many as were asked for, or fewer.
    buckets
        Labelled members by (true, predicted) class, among the rows that were looked at.
    scanned
        How many rows were looked at.
    complete
        Whether these were all rows before the given time; otherwise older ones were not looked at.
    """

    records: tuple[RecordView, ...]
    buckets: Mapping[tuple[str, str], int]
    scanned: int
    complete: bool
