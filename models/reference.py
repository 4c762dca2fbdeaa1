"""What held-out rows said about each slice: the first reference that live traffic is measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from sfs.function import ALL_ROWS
from sfs.matrix import SliceMatrix


@dataclass(frozen=True, slots=True)
class SliceCounts:
    """Counts of one slice among held-out rows.

    Parameters
    ----------
    n
        All held-out rows.
    unknown
        Rows whose membership was not known; the coverage's denominator is ``n - unknown``.
    member
        Known members.
    correct
        Members that the model predicts rightly.
    """

    n: int
    member: int
    unknown: int
    correct: int

    def __post_init__(self) -> None:
        counts = (self.n, self.member, self.unknown, self.correct)
        if not all(type(count) is int and count >= 0 for count in counts) or (
            self.member + self.unknown > self.n or self.correct > self.member
        ):
            raise BundleError(f"reference.json holds counts that cannot be: {self}")


def reference_counts(S: SliceMatrix, correct: NDArray[np.bool_]) -> dict[str, SliceCounts]:
    """Return the counts of all rows (``__all__``) and of every slice; ``correct`` is bool[N]."""
    n = len(S)
    counts = {ALL_ROWS: SliceCounts(n, n, 0, int(correct.sum()))}
    for k, name in enumerate(S.names):
        member = S.member[:, k]
        counts[name] = SliceCounts(
            n, int(member.sum()), int(S.unknown[:, k].sum()), int((member & correct).sum())
        )
    return counts


def counts_to_json(counts: Mapping[str, SliceCounts]) -> dict[str, Any]:
    """Return counts per slice as JSON values."""
    return {name: asdict(count) for name, count in counts.items()}


def counts_from_json(saved: Any, slice_names: Sequence[str]) -> dict[str, SliceCounts]:
    """Return the counts of all rows and of the named slices; BundleError unless exactly these are there."""
    expected = [ALL_ROWS, *slice_names]
    if not isinstance(saved, Mapping) or set(saved) != set(expected):
        raise BundleError(f"reference.json must hold counts of {', '.join(expected)}")
    try:
        return {name: SliceCounts(**saved[name]) for name in expected}
    except TypeError as error:
        raise BundleError(f"reference.json holds no counts: {error}") from error
