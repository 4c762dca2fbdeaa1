"""What labelled rows said about each slice: the first reference that live traffic is measured against.

Coverage is counted on all rows: functions learn nothing, so none of the rows flatters them. Accuracy is counted
on held-out rows only. Rows that repeat a content are counted as often as they occur, as traffic consists of
rows; but they are not independent, so that the rates say how many different contents they stand on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from sfs.function import ALL_ROWS
from sfs.intervals import Rate
from sfs.matrix import SliceMatrix

_BEFORE = {"n", "member", "unknown", "correct"}
"""What earlier versions stored: counts of held-out rows, without contents."""


@dataclass(frozen=True, slots=True)
class SliceCounts:
    """Counts of one slice among labelled rows.

    Parameters
    ----------
    n
        All rows.
    unknown
        Rows whose membership was not known; the coverage's denominator is ``n - unknown``.
    member
        Known members.
    contents
        Different contents among the rows whose membership was known.
    held_out
        Known members that are held out.
    correct
        Of these, those that the model predicts rightly.
    held_out_contents
        Different contents among these.
    """

    n: int
    member: int
    unknown: int
    contents: int
    held_out: int
    correct: int
    held_out_contents: int

    def __post_init__(self) -> None:
        counts = [getattr(self, name) for name in self.__slots__]
        if not all(type(count) is int and count >= 0 for count in counts) or not self._possible():
            raise BundleError(f"reference.json holds counts that cannot be: {self}")

    def _possible(self) -> bool:
        known = self.n - self.unknown
        return (
            self.held_out <= self.member <= known
            and max(self.correct, self.held_out_contents) <= self.held_out
            and self.contents <= known
            and (self.contents > 0) == (known > 0)
            and (self.held_out_contents > 0) == (self.held_out > 0)
        )

    @property
    def coverage(self) -> Rate:
        """Known members among known rows; n is as if every different content had been seen once."""
        return thinned(Rate(self.member, self.n - self.unknown), self.contents)

    @property
    def accuracy(self) -> Rate:
        """Right among held-out members; n as of the coverage."""
        return thinned(Rate(self.correct, self.held_out), self.held_out_contents)


def thinned(rate: Rate, contents: int) -> Rate:
    """Return a rate of rows with the n of so many different contents, and nearly the same value.

    Where most of ``rate.n`` rows are repeats, an interval of the rate itself would be too narrow. The rarer of
    the two outcomes keeps a count of at least 1, so that a rare slice stays as rare as it was.

    Examples
    --------
    >>> thinned(Rate(30, 1000), 100), thinned(Rate(995, 1000), 100), thinned(Rate(3, 8), 8)
    (Rate(count=3, n=100), Rate(count=199, n=200), Rate(count=3, n=8))
    """
    if contents >= rate.n:
        return rate
    rare = min(rate.count, rate.n - rate.count)
    if not rare:
        return Rate(contents if rate.count else 0, contents)
    kept = max(1, rare * contents // rate.n)
    n = round(kept * rate.n / rare)
    return Rate(kept if rare == rate.count else n - kept, n)


def reference_counts(
    S: SliceMatrix, hashes: NDArray[np.uint64], held_out: NDArray[np.int64], correct: NDArray[np.bool_]
) -> dict[str, SliceCounts]:
    """Return the counts of all rows (``__all__``) and of every slice.

    Parameters
    ----------
    S
        Memberships of the N rows.
    hashes
        uint64[N], equal for rows of one content.
    held_out
        Positions of the H rows that are held out.
    correct
        bool[H], whether the model predicts them rightly.
    """
    _, contents = np.unique(hashes, return_inverse=True)
    everyone = np.ones(len(S), dtype=bool)
    counts = {ALL_ROWS: _counted(everyone, ~everyone, contents, held_out, correct)}
    for k, name in enumerate(S.names):
        counts[name] = _counted(S.member[:, k], S.unknown[:, k], contents, held_out, correct)
    return counts


def _counted(
    member: NDArray[np.bool_],
    unknown: NDArray[np.bool_],
    contents: NDArray[np.intp],
    held_out: NDArray[np.int64],
    correct: NDArray[np.bool_],
) -> SliceCounts:
    judged = member[held_out]
    return SliceCounts(
        n=len(member),
        member=int(member.sum()),
        unknown=int(unknown.sum()),
        contents=different(contents[~unknown]),
        held_out=int(judged.sum()),
        correct=int((judged & correct).sum()),
        held_out_contents=different(contents[held_out[judged]]),
    )


def different(contents: NDArray[Any]) -> int:
    """Return how many different values there are."""
    return len(np.unique(contents))


def counts_to_json(counts: Mapping[str, SliceCounts]) -> dict[str, Any]:
    """Return counts per slice as JSON values."""
    return {name: asdict(count) for name, count in counts.items()}


def counts_from_json(saved: Any, slice_names: Sequence[str]) -> dict[str, SliceCounts]:
    """Return the counts of all rows and of the named slices; BundleError unless exactly these are there."""
    expected = [ALL_ROWS, *slice_names]
    if not isinstance(saved, Mapping) or set(saved) != set(expected):
        raise BundleError(f"reference.json must hold counts of {', '.join(expected)}")
    return {name: slice_counts(saved[name]) for name in expected}


def slice_counts(saved: Any) -> SliceCounts:
    """Return the counts of one slice; those of earlier versions are of held-out rows, taken as all different.

    Raises
    ------
    BundleError
        If they are none.
    """
    try:
        if set(saved) == _BEFORE:
            member = saved["member"]
            repeats = {"contents": saved["n"] - saved["unknown"], "held_out_contents": member}
            return SliceCounts(**saved, held_out=member, **repeats)
        return SliceCounts(**saved)
    except TypeError as error:
        raise BundleError(f"reference.json holds no counts: {error}") from error
