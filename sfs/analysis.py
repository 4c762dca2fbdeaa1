"""Coverage, overlaps and conflicts of labelling functions: Snorkel's ``LFAnalysis``; and redundant slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfs.errors import SliceError
from sfs.function import LabelingFunction

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

NEARLY_EQUAL = 0.95
"""Shared members of two slices by the members of either, from which they are near duplicates."""
_BY_CHANCE = 1e-6


class LFAnalysis:
    """Statistics of a label matrix.

    Parameters
    ----------
    L
        int[N, M], the labels of M functions for N rows; -1 for an abstention.
    lfs
        The M functions; their names are the index of the summary.

    Raises
    ------
    SliceError
        If L has no rows, is not an integer matrix, or does not have one column per function in ``lfs``.

    Examples
    --------
    >>> L = np.array([[-1, 0, 0], [-1, -1, -1], [1, 0, -1], [-1, 0, -1], [0, 0, 0]])
    >>> LFAnalysis(L).label_coverage(), LFAnalysis(L).label_overlap(), LFAnalysis(L).label_conflict()
    (0.8, 0.6, 0.2)
    """

    def __init__(self, L: ArrayLike, lfs: Sequence[LabelingFunction] | None = None) -> None:
        matrix = np.asarray(L)
        if matrix.ndim != 2 or not len(matrix):
            raise SliceError(f"L must be a matrix [rows, functions] with at least one row, got shape {matrix.shape}")
        self.L = _integers(matrix, "L")
        if self.L.size and self.L.min() < -1:
            raise SliceError(f"labels in L must be -1 (abstain), 0, 1, ..., got {self.L.min()}")
        if lfs is not None and len(lfs) != self.L.shape[1]:
            raise SliceError(
                f"Number of LFs ({len(lfs)}) and number of LF matrix columns ({self.L.shape[1]}) are different"
            )
        self._names = None if lfs is None else [function.name for function in lfs]
        self._labelled = self.L != -1  # [N, M]
        self._overlapped = np.asarray(self._labelled.sum(axis=1) > 1)  # [N], rows with at least two labels
        self._conflicted = np.zeros(len(self.L), dtype=bool)  # [N], rows with two different labels
        if self.L.shape[1]:
            highest = self.L.max(axis=1)
            self._conflicted = np.where(self._labelled, self.L, highest[:, None]).min(axis=1) != highest

    def label_coverage(self) -> float:
        """Return the fraction of rows with at least one label."""
        return float(self._labelled.any(axis=1).mean())

    def label_overlap(self) -> float:
        """Return the fraction of rows with at least two labels."""
        return float(self._overlapped.mean())

    def label_conflict(self) -> float:
        """Return the fraction of rows with two different labels."""
        return float(self._conflicted.mean())

    def lf_polarities(self) -> list[list[int]]:
        """Return the sorted distinct labels of each function."""
        return [np.unique(column[column != -1]).tolist() for column in self.L.T]

    def lf_coverages(self) -> Floats:
        """Return float[M], the fraction of rows that each function labels."""
        return np.asarray(self._labelled.mean(axis=0))

    def lf_overlaps(self, normalize_by_coverage: bool = False) -> Floats:
        """Return float[M], the fraction of rows labelled by a function and at least one other function.

        With ``normalize_by_coverage``, the fraction of the rows that the function labels.
        """
        overlaps = self._fraction_with(self._overlapped)
        return _ratio(overlaps, self.lf_coverages()) if normalize_by_coverage else overlaps

    def lf_conflicts(self, normalize_by_overlaps: bool = False) -> Floats:
        """Return float[M], the fraction of rows that a function labels and on which two labels differ.

        With ``normalize_by_overlaps``, the fraction of the rows on which the function overlaps another.
        """
        conflicts = self._fraction_with(self._conflicted)
        return _ratio(conflicts, self.lf_overlaps()) if normalize_by_overlaps else conflicts

    def _fraction_with(self, rows: NDArray[np.bool_]) -> Floats:
        return np.asarray((self._labelled & rows[:, None]).mean(axis=0))

    def lf_empirical_accuracies(self, Y: ArrayLike) -> Floats:
        """Return float[M], the accuracy of each function on the rows that it labels; 0 if it labels none.

        Parameters
        ----------
        Y
            int[N] or int[N, 1], the true labels.
        """
        correct = self._labelled & (self._validate_truth(Y)[:, None] == self.L)
        return _ratio(correct.sum(axis=0), self._labelled.sum(axis=0))

    def lf_empirical_probs(self, Y: ArrayLike, k: int) -> Floats:
        """Return float[M, k + 1, k], the distribution of labels (abstain first) per function and true label.

        The distribution is NaN for a class without rows.

        Parameters
        ----------
        Y
            int[N] or int[N, 1], the true labels in 0..k-1.
        k
            Number of classes.
        """
        truth = self._validate_truth(Y)
        given = (self.L[:, :, None] == np.arange(-1, k)).astype(np.float64)  # [N, M, k + 1]
        true = (truth[:, None] == np.arange(k)).astype(np.float64)  # [N, k]
        with np.errstate(invalid="ignore"):
            return np.asarray(np.einsum("nml,ny->mly", given, true) / true.sum(axis=0))

    def lf_summary(self, Y: ArrayLike | None = None, est_weights: ArrayLike | None = None) -> pd.DataFrame:
        """Return a data frame of statistics, one row per function.

        Parameters
        ----------
        Y
            int[N] or int[N, 1], the true labels; adds Correct, Incorrect and Emp. Acc.
        est_weights
            float[M]; adds Learned Weight.
        """
        import pandas as pd

        columns: dict[str, Any] = {} if self._names is None else {"j": range(self.L.shape[1])}
        columns["Polarity"] = self.lf_polarities()
        columns["Coverage"] = self.lf_coverages()
        columns["Overlaps"] = self.lf_overlaps()
        columns["Conflicts"] = self.lf_conflicts()
        if Y is not None:
            truth = self._validate_truth(Y)[:, None]
            known = self._labelled & (truth != -1)
            correct = known & (truth == self.L)
            columns["Correct"] = correct.sum(axis=0)
            columns["Incorrect"] = (known & ~correct).sum(axis=0)
            columns["Emp. Acc."] = self.lf_empirical_accuracies(Y)
        if est_weights is not None:
            columns["Learned Weight"] = np.asarray(est_weights)
        return pd.DataFrame(columns, index=self._names)

    def _validate_truth(self, Y: ArrayLike) -> NDArray[np.int64]:
        truth = _integers(np.asarray(Y), "Y").reshape(-1)
        if len(truth) != len(self.L):
            raise SliceError(f"Y has {len(truth)} labels, but L has {len(self.L)} rows: pass one label per row")
        return truth


def filter_unlabeled_dataframe(X: pd.DataFrame, y: NDArray[Any], L: NDArray[Any]) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Drop the rows without a label from a data frame and an array.

    Parameters
    ----------
    X
        N rows.
    y
        N rows, such as probabilities [N, C].
    L
        int[N, M], -1 for an abstention.
    """
    labelled = (np.asarray(L) != -1).any(axis=1)
    return X.iloc[np.flatnonzero(labelled)], y[labelled]


def _integers(array: NDArray[Any], name: str) -> NDArray[np.int64]:
    numeric = array.dtype.kind in "biuf"
    if not numeric or (array.dtype.kind == "f" and not (np.isfinite(array) & (array % 1 == 0)).all()):
        raise SliceError(f"{name} must contain integers, got non-integer values of type {array.dtype}")
    return array.astype(np.int64)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Return part / whole, or 0 where whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0))


def shared_members(member: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return int64[K, K], the common members of every two of K slices; their own members on the diagonal."""
    values = member.astype(np.float32)
    return np.asarray(np.rint(values.T @ values), dtype=np.int64)


def redundant_slices(names: Sequence[str], known: NDArray[np.int64], shared: NDArray[np.int64]) -> dict[str, str]:
    """Return the slices that say nothing of their own, each with a sentence that says why.

    A slice is redundant if it is empty, holds every row, has nearly the members of an earlier slice, or lies
    within another slice by more than chance.

    Parameters
    ----------
    names, known
        K slices, and their rows of known membership.
    shared
        int64[K, K] of `shared_members`, which may be summed over batches.

    Examples
    --------
    >>> member = np.array([[True, True], [True, True], [False, False]])
    >>> redundant_slices(["a", "b"], np.array([3, 3]), shared_members(member))
    {'b': "slices 'a' and 'b' share 2 of 2 members: keep one of them"}
    """
    sizes = np.diagonal(shared)
    reasons: dict[str, str] = {}
    for k, name in enumerate(names):
        if not known[k]:
            continue
        if sizes[k] in (0, known[k]):
            holds = "has no member" if not sizes[k] else "holds every row"
            reasons[name] = f"slice {name!r} {holds} ({known[k]:,} rows)"
            continue
        unions = sizes + sizes[k] - shared[k]
        twins = np.flatnonzero(shared[k, :k] >= NEARLY_EQUAL * unions[:k])
        if len(twins):
            first = twins[0]
            reasons[name] = (
                f"slices {names[first]!r} and {name!r} share {shared[k, first]:,} of {unions[first]:,} members: "
                "keep one of them"
            )
            continue
        with np.errstate(divide="ignore"):
            chance = sizes[k] * np.log(np.minimum(sizes / np.maximum(known, 1), 1.0))
        around = (shared[k] == sizes[k]) & (sizes > sizes[k]) & (chance < np.log(_BY_CHANCE))
        if around.any():
            outer = int(np.flatnonzero(around)[0])
            reasons[name] = (
                f"slice {name!r} lies within {names[outer]!r}: all its {sizes[k]:,} members are among the "
                f"{sizes[outer]:,} of {names[outer]!r}"
            )
    return reasons
