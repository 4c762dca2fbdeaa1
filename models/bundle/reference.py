"""Counts of labelled rows per slice: the first reference for live traffic.

Coverage is counted on all rows, since functions learn nothing from them; accuracy is counted on held-out rows
only. Repeated contents are counted as often as they occur, since traffic consists of rows; but they are not
independent, and every rate has an effective n of at most the number of distinct contents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from sfs.function import ALL_ROWS
from sfs.intervals import Rate, effective_n
from sfs.matrix import SliceMatrix

_EARLIER_FIELDS = {"n", "member", "unknown", "correct"}
"""The fields of earlier versions: counts of held-out rows, without contents."""


@dataclass(frozen=True, slots=True)
class SliceCounts:
    """Counts of one slice among labelled rows.

    Parameters
    ----------
    n
        All rows.
    member
        Known members.
    unknown
        Rows with unknown membership; the coverage's denominator is ``n - unknown``.
    contents
        Distinct contents among the rows with known membership.
    held_out
        Known members that are held out.
    correct
        Correct predictions among these.
    held_out_contents
        Distinct contents among the held-out members.
    held_out_effective_n
        Effective n of these contents (`sfs.intervals.effective_n`).
    coverage_effective_n
        Effective n of the coverage, at most ``contents``.
    confusion
        True class, predicted class and number of the held-out members of every pair of classes that occurs, in the
        order of the classes. Empty if an earlier version counted.

    Raises
    ------
    BundleError
        If a count is negative, no integer, or contradicts another.
    """

    n: int
    member: int
    unknown: int
    contents: int
    held_out: int
    correct: int
    held_out_contents: int
    held_out_effective_n: int
    coverage_effective_n: int
    confusion: tuple[tuple[str, str, int], ...] = ()

    def __post_init__(self) -> None:
        pairs = [(true, predicted) for true, predicted, _ in self.confusion]
        numbers = [number for *_, number in self.confusion]
        counts = [*numbers, *(getattr(self, name) for name in self.__slots__ if name != "confusion")]
        if not all(type(count) is int and count >= 0 for count in counts) or not (
            self.held_out <= self.member <= (known := self.n - self.unknown)
            and max(self.correct, self.held_out_contents) <= self.held_out
            and self.contents <= known
            and (self.contents > 0) == (known > 0)
            and self.held_out_effective_n <= self.held_out_contents
            and (self.held_out_effective_n > 0) == (self.held_out_contents > 0) == (self.held_out > 0)
            and self.coverage_effective_n <= self.contents
            and (self.coverage_effective_n > 0) == (known > 0)
            and all(isinstance(name, str) for pair in pairs for name in pair)
            and 0 not in numbers
            and len(set(pairs)) == len(pairs)
            and (not pairs or self._confused == (self.held_out, self.correct))
        ):
            raise BundleError(f"reference.json holds impossible counts: {self}")

    @property
    def _confused(self) -> tuple[int, int]:
        """All held-out members of the pairs of classes, and the correct ones."""
        right = sum(number for true, predicted, number in self.confusion if true == predicted)
        return sum(number for *_, number in self.confusion), right

    @property
    def coverage(self) -> Rate:
        """Known members among known rows, with the effective n of their contents."""
        return Rate(self.member, self.n - self.unknown, self.coverage_effective_n)

    @property
    def accuracy(self) -> Rate:
        """Correct predictions among held-out members, with the effective n of their contents."""
        return Rate(self.correct, self.held_out, self.held_out_effective_n)


@dataclass(frozen=True, slots=True)
class FamilyCounts:
    """Counts of the rows in any slice of a family.

    Parameters
    ----------
    fingerprints
        Fingerprint of the function by slice of the family.
    counts
        Counts of the union; a row is unknown if it is in none of the slices, and unknown in one.
    """

    fingerprints: Mapping[str, str]
    counts: SliceCounts

    @classmethod
    def from_json(cls, saved: Any, fingerprints: Mapping[str, str]) -> dict[str, FamilyCounts]:
        """Return stored families. Raises BundleError if they are malformed, or of other functions."""
        try:
            found = {
                str(name): cls(dict(each["fingerprints"]), slice_counts(each["counts"])) for name, each in saved.items()
            }
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise BundleError(f"the counts of the families are malformed: {error!r:.100}") from error
        for name, family in found.items():
            if len(family.fingerprints) < 2 or not family.fingerprints.items() <= fingerprints.items():
                raise BundleError(f"the family {name!r:.60} is of other functions: {family.fingerprints!r:.100}")
        return found


def family_counts(
    S: SliceMatrix,
    families: Mapping[str, Sequence[str]],
    fingerprints: Mapping[str, str],
    hashes: NDArray[np.uint64],
    held_out: NDArray[np.int64],
    true: Sequence[str],
    predicted: Sequence[str],
) -> dict[str, FamilyCounts]:
    """Return the counts of families, given with their slices; other parameters as of `reference_counts`."""
    columns = [[S.position(name) for name in names] for names in families.values()]
    none = np.zeros((len(S), 0), np.bool_)
    member = np.column_stack([none, *(S.member[:, column].any(axis=1) for column in columns)])
    unknown = np.column_stack([none, *(S.unknown[:, column].any(axis=1) for column in columns)]) & ~member
    counts = reference_counts(SliceMatrix(families, member, unknown), hashes, held_out, true, predicted)
    return {
        family: FamilyCounts({name: fingerprints[name] for name in names}, counts[family])
        for family, names in families.items()
    }


def reference_counts(
    S: SliceMatrix,
    hashes: NDArray[np.uint64],
    held_out: NDArray[np.int64],
    true: Sequence[str],
    predicted: Sequence[str],
) -> dict[str, SliceCounts]:
    """Return the counts of all rows (``__all__``) and of every slice.

    Parameters
    ----------
    S
        Memberships of the N rows.
    hashes
        uint64[N], equal for rows of one content.
    held_out
        Positions of the H held-out rows.
    true, predicted
        Their H true and predicted classes.
    """
    pairs = sorted(set(zip(true, predicted, strict=True)))
    numbers = {pair: number for number, pair in enumerate(pairs)}
    pair_of = np.array([numbers[pair] for pair in zip(true, predicted, strict=True)], np.intp)  # [H]
    _, contents = np.unique(hashes, return_inverse=True)
    everyone = np.ones(len(S), dtype=bool)
    columns = {ALL_ROWS: (everyone, ~everyone)}
    columns |= {name: (S.member[:, k], S.unknown[:, k]) for k, name in enumerate(S.names)}
    counts = {}
    for name, (member, unknown) in columns.items():
        held_member = member[held_out]
        of_pairs = np.bincount(pair_of[held_member], minlength=len(pairs)).tolist()
        confusion = tuple((*pair, number) for pair, number in zip(pairs, of_pairs, strict=True) if number)
        counts[name] = SliceCounts(
            n=len(S),
            member=int(member.sum()),
            unknown=int(unknown.sum()),
            contents=len(np.unique(contents[~unknown])),
            held_out=int(held_member.sum()),
            correct=sum(number for true_class, called, number in confusion if true_class == called),
            held_out_contents=len(np.unique(contents[held_out[held_member]])),
            held_out_effective_n=effective_n(contents[held_out[held_member]]),
            coverage_effective_n=effective_n(contents[~unknown], member[~unknown]),
            confusion=confusion,
        )
    return counts


def counts_to_json(counts: Mapping[str, SliceCounts]) -> dict[str, Any]:
    """Return counts per slice as JSON values."""
    return {name: asdict(count) for name, count in counts.items()}


def counts_from_json(saved: Any, slice_names: Sequence[str]) -> dict[str, SliceCounts]:
    """Return the counts of all rows and of the named slices; BundleError unless exactly these are present."""
    expected = [ALL_ROWS, *slice_names]
    if not isinstance(saved, Mapping) or set(saved) != set(expected):
        raise BundleError(f"reference.json must hold counts of {', '.join(expected)}")
    return {name: slice_counts(saved[name]) for name in expected}


def slice_counts(saved: Any) -> SliceCounts:
    """Return the counts of one slice; contents that earlier versions did not count are taken as distinct.

    Pairs of classes that they did not count stay unknown.

    Raises
    ------
    BundleError
        If they are malformed.
    """
    try:
        if set(saved) == _EARLIER_FIELDS:
            member = saved["member"]
            contents = {"contents": saved["n"] - saved["unknown"], "held_out_contents": member}
            saved = {**saved, "held_out": member, **contents}
        effective = {"held_out": saved.get("held_out_contents"), "coverage": saved.get("contents")}
        saved = {f"{name}_effective_n": n for name, n in effective.items()} | dict(saved)
        return SliceCounts(**saved | {"confusion": tuple(map(tuple, saved.get("confusion", ())))})
    except BundleError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"reference.json holds malformed counts: {error}") from error
