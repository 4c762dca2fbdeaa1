"""How labelling functions cover, overlap and contradict one another: Snorkel's ``LFAnalysis``."""

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


class LFAnalysis:
    """Statistics of a label matrix.

    Parameters
    ----------
    L
        int[N, M], the label that each of M functions gives to each of N rows; -1 where it abstains.
    lfs
        The M functions, for their names.

    Raises
    ------
    SliceError
        If L has no rows, is not a whole-number matrix, or does not fit the functions.

    Examples
    --------
    >>> L = np.array([[-1, 0, 0], [-1, -1, -1], [1, 0, -1], [-1, 0, -1], [0, 0, 0]])
    >>> LFAnalysis(L).label_coverage(), LFAnalysis(L).label_overlap(), LFAnalysis(L).label_conflict()
    (0.8, 0.6, 0.2)
    """

    def __init__(self, L: ArrayLike, lfs: Sequence[LabelingFunction] | None = None) -> None:
        self.L = _checked_matrix(L)
        if lfs is not None and len(lfs) != self.L.shape[1]:
            raise SliceError(
                f"L has {self.L.shape[1]} columns, but {len(lfs)} functions: give those that made it"
            )
        self._names = None if lfs is None else [function.name for function in lfs]
        self._labelled = self.L != -1  # [N, M]

    def _overlapped(self) -> NDArray[np.bool_]:
        return np.asarray(self._labelled.sum(axis=1) > 1)

    def _conflicted(self) -> NDArray[np.bool_]:
        """Return bool[N], rows to which two functions give different labels."""
        if not self.L.shape[1]:
            return np.zeros(len(self.L), dtype=bool)
        highest = self.L.max(axis=1)
        lowest = np.where(self._labelled, self.L, highest[:, None]).min(axis=1)
        return np.asarray(lowest != highest)

    def label_coverage(self) -> float:
        """Return the share of rows with at least one label."""
        return float(self._labelled.any(axis=1).mean())

    def label_overlap(self) -> float:
        """Return the share of rows with at least two labels."""
        return float(self._overlapped().mean())

    def label_conflict(self) -> float:
        """Return the share of rows with two different labels."""
        return float(self._conflicted().mean())

    def lf_polarities(self) -> list[list[int]]:
        """Return per function the sorted labels that it gives."""
        return [np.unique(column[column != -1]).tolist() for column in self.L.T]

    def lf_coverages(self) -> Floats:
        """Return float[M], the share of rows that each function labels."""
        return np.asarray(self._labelled.mean(axis=0))

    def lf_overlaps(self, normalize_by_coverage: bool = False) -> Floats:
        """Return float[M], the share of rows that a function and another one label.

        Normalized, it is the share among the rows that the function labels.
        """
        overlaps = self._share_with(self._overlapped())
        return _ratio(overlaps, self.lf_coverages()) if normalize_by_coverage else overlaps

    def lf_conflicts(self, normalize_by_overlaps: bool = False) -> Floats:
        """Return float[M], the share of rows a function labels and another one labels differently.

        Normalized, it is the share among the rows where the function overlaps another.
        """
        conflicts = self._share_with(self._conflicted())
        return _ratio(conflicts, self.lf_overlaps()) if normalize_by_overlaps else conflicts

    def _share_with(self, rows: NDArray[np.bool_]) -> Floats:
        return np.asarray((self._labelled & rows[:, None]).mean(axis=0))

    def lf_empirical_accuracies(self, Y: ArrayLike) -> Floats:
        """Return float[M], the share of right labels among those each function gives; 0 where it gives none.

        Parameters
        ----------
        Y
            int[N] or int[N, 1], the true labels.
        """
        right = self._labelled & (self._checked_truth(Y)[:, None] == self.L)
        return _ratio(right.sum(axis=0), self._labelled.sum(axis=0))

    def lf_empirical_probs(self, Y: ArrayLike, k: int) -> Floats:
        """Return float[M, k + 1, k], how often a function gives a label (abstain first) for each true label.

        A class without rows has no shares: NaN, as NumPy spells it.

        Parameters
        ----------
        Y
            int[N] or int[N, 1], the true labels in 0..k-1.
        k
            How many classes there are.
        """
        truth = self._checked_truth(Y)
        given = (self.L[:, :, None] == np.arange(-1, k)).astype(np.float64)  # [N, M, k + 1]
        true = (truth[:, None] == np.arange(k)).astype(np.float64)  # [N, k]
        with np.errstate(invalid="ignore"):
            return np.asarray(np.einsum("nml,ny->mly", given, true) / true.sum(axis=0))

    def lf_summary(self, Y: ArrayLike | None = None, est_weights: ArrayLike | None = None) -> pd.DataFrame:
        """Return a table with a row per function.

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
            columns |= self._against(Y)
        if est_weights is not None:
            columns["Learned Weight"] = np.asarray(est_weights)
        return pd.DataFrame(columns, index=self._names)

    def _against(self, Y: ArrayLike) -> dict[str, Any]:
        truth = self._checked_truth(Y)[:, None]
        judged = self._labelled & (truth != -1)
        right = judged & (truth == self.L)
        return {
            "Correct": right.sum(axis=0),
            "Incorrect": (judged & ~right).sum(axis=0),
            "Emp. Acc.": self.lf_empirical_accuracies(Y),
        }

    def _checked_truth(self, Y: ArrayLike) -> NDArray[np.int64]:
        truth = _whole_numbers(np.asarray(Y), "Y").reshape(-1)
        if len(truth) != len(self.L):
            raise SliceError(f"Y has {len(truth)} labels for the {len(self.L)} rows of L")
        return truth


def filter_unlabeled_dataframe(
    X: pd.DataFrame, y: NDArray[Any], L: NDArray[Any]
) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Return the rows of a data frame, and of what belongs to them, that at least one function labels.

    Parameters
    ----------
    X
        N rows.
    y
        N rows, such as probabilities [N, C].
    L
        int[N, M], -1 where a function abstains.
    """
    labelled = (np.asarray(L) != -1).any(axis=1)
    return X.iloc[np.flatnonzero(labelled)], y[labelled]


def _checked_matrix(L: ArrayLike) -> NDArray[np.int64]:
    matrix = np.asarray(L)
    if matrix.ndim != 2 or not len(matrix):
        raise SliceError(f"L is a matrix [rows, functions] with at least one row, got shape {matrix.shape}")
    whole = _whole_numbers(matrix, "L")
    if whole.size and whole.min() < -1:
        raise SliceError(f"labels in L are -1 (abstain), 0, 1, ..., got {whole.min()}")
    return whole


def _whole_numbers(array: NDArray[Any], what: str) -> NDArray[np.int64]:
    numeric = array.dtype.kind in "biuf"
    if not numeric or (array.dtype.kind == "f" and not (np.isfinite(array) & (array % 1 == 0)).all()):
        raise SliceError(f"{what} holds whole numbers, got {array.dtype} with other values")
    return array.astype(np.int64)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Return part / whole, 0 where there is nothing to divide by."""
    return np.asarray(np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0))
