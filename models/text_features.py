"""Text as hashed word counts: no vocabulary to keep, so no word can be missing from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

N_HASHED = 2048
_WORD = re.compile(r"(?u)\b\w\w+\b")
_MEMO_WORDS = 200_000
_MEMO_CHARACTERS = 64


class SparseRows(NamedTuple):
    """N rows of ``width`` columns: how many entries each row has int[N], then all columns and values."""

    width: int
    counts: NDArray[Any]
    columns: NDArray[Any]
    values: NDArray[np.float32]


class HashedWords:
    """Signed counts of lowered words of two characters and more, hashed to columns, each row of length one.

    The same numbers as scikit-learn's ``HashingVectorizer(n_features)``; a word of up to 64
    characters is hashed once and then remembered, up to 200,000 of them.

    Parameters
    ----------
    n_features
        How many columns words are hashed to.

    Examples
    --------
    >>> HashedWords(100).transform(["Hot hot water"]).values.astype(float).round(3).tolist()
    [0.447, 0.894]
    """

    def __init__(self, n_features: int = N_HASHED) -> None:
        self.n_features = n_features
        self._places = _Places(n_features)

    def transform(self, texts: Sequence[str | None]) -> SparseRows:
        """Return N rows; a missing text, like one without words, is a row of zeros."""
        words = [() if text is None else _WORD.findall(text.lower()) for text in texts]
        counts = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
        places = np.fromiter(
            map(self._places.__getitem__, chain.from_iterable(words)), dtype=np.int64, count=int(counts.sum())
        )
        signs = np.where(places < 0, -1.0, 1.0)
        columns = np.where(places < 0, ~places, places)
        return _unit_rows(signs, columns, _ends(counts), self.n_features)


class _Places(dict[str, int]):
    """Where a word counts: column j, or ~j where it counts negatively."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features

    def __missing__(self, word: str) -> int:
        from sklearn.utils import murmurhash3_32  # slow to import, and needed for new words only

        code = int(murmurhash3_32(word.encode("utf-8", "surrogatepass"), seed=0))
        column = abs(code) % self.n_features
        place = column if code >= 0 else ~column
        if len(self) < _MEMO_WORDS and len(word) <= _MEMO_CHARACTERS:
            self[word] = place
        return place


def _unit_rows(
    signs: NDArray[np.float64], columns: NDArray[np.int64], ends: NDArray[np.int64], width: int
) -> SparseRows:
    summed = sparse.csr_matrix((signs, columns, ends), shape=(len(ends) - 1, width))
    summed.sum_duplicates()
    counts = np.diff(summed.indptr)
    rows = np.repeat(np.arange(len(counts)), counts)
    lengths = np.sqrt(np.bincount(rows, weights=summed.data**2, minlength=len(counts)))
    lengths[lengths == 0] = 1.0  # a row without words, or whose words cancel out
    return SparseRows(width, counts, summed.indices, (summed.data / lengths[rows]).astype(np.float32))


def _ends(counts: NDArray[Any]) -> NDArray[np.int64]:
    ends = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends


def side_by_side(parts: Sequence[SparseRows]) -> sparse.csr_matrix:
    """Return CSR float32[N, sum of widths] of one part or more, without a matrix for each."""
    offsets = np.cumsum([0, *(part.width for part in parts)])
    columns = np.concatenate([part.columns + offset for part, offset in zip(parts, offsets, strict=False)])
    values = np.concatenate([part.values for part in parts])
    counts = np.sum([part.counts for part in parts], axis=0)
    if len(parts) > 1:
        rows = np.concatenate([np.repeat(np.arange(len(counts)), part.counts) for part in parts])
        order = np.argsort(rows, kind="stable")
        columns, values = columns[order], values[order]
    return sparse.csr_matrix((values, columns, _ends(counts)), shape=(len(counts), int(offsets[-1])))
