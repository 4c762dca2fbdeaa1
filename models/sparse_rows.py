"""Sparse columns of some rows as entries, and their product with weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

NARROW = 16
"""Outputs up to which sums of entries, one output after another, are faster than a sparse matrix."""
_FEW = 100_000
"""Rows times entries up to which a small dense matrix is faster than a sparse one."""


class SparseBlock(Protocol):
    """Columns of N rows that are mostly zero."""

    @property
    def n_rows(self) -> int:
        """N."""
        ...

    @property
    def width(self) -> int:
        """Number of columns."""
        ...

    @property
    def repeat(self) -> bool:
        """Whether several entries may be of one cell."""
        ...

    def entries(self) -> SparseRows:
        """Return the entries."""
        ...

    def product(self, weight: Floats, start: int) -> Floats:
        """Return float32[N, H], the rows times the rows of weight float32[D, H] from ``start`` on."""
        ...


class SparseRows(NamedTuple):
    """Entries of N rows of ``width`` columns, in any order: their rows, columns and values.

    Entries of one cell, which only rows that ``repeat`` may have, add up.
    """

    n_rows: int
    width: int
    rows: Rows
    columns: Rows | NDArray[np.int32]
    values: Floats
    repeat: bool = False

    def entries(self) -> SparseRows:
        """Return itself."""
        return self

    def to_csr(self) -> scipy.sparse.csr_matrix:
        """Return CSR float32[N, width]."""
        return scipy.sparse.csr_matrix((self.values, (self.rows, self.columns)), shape=(self.n_rows, self.width))

    def product(self, weight: Floats, start: int) -> Floats:
        """Return float32[N, H], the rows times the rows of weight float32[D, H] from ``start`` on."""
        if self.n_rows * len(self.values) <= _FEW:
            entries = np.zeros((self.n_rows, len(self.values)), dtype=np.float32)
            entries[self.rows, np.arange(len(self.values))] = self.values
            return np.asarray(entries @ weight[self.columns + start])
        if weight.shape[1] <= NARROW:
            return sums_by_row(weight[self.columns + start] * self.values[:, None], self.rows, self.n_rows)
        return np.asarray(self.to_csr() @ weight[start : start + self.width])


def sums_by_row(terms: Floats, rows: Rows, n_rows: int) -> Floats:
    """Return float32[N, H], the sums of terms float32[M, H] by their rows int[M]."""
    if n_rows == 1:
        return np.asarray(terms.sum(axis=0, keepdims=True))
    if n_rows * len(terms) <= _FEW:
        members = np.zeros((n_rows, len(terms)), dtype=np.float32)
        members[rows, np.arange(len(terms))] = 1
        return np.asarray(members @ terms)
    sums = [np.bincount(rows, weights=each, minlength=n_rows) for each in terms.T]
    return np.stack(sums, axis=1).astype(np.float32)


def joined_csr(blocks: Sequence[Any]) -> scipy.sparse.csr_matrix:
    """Return the columns of at least one block side by side, as CSR."""
    parts = [block.entries().to_csr() for block in blocks]
    return parts[0] if len(parts) == 1 else scipy.sparse.hstack(parts, format="csr")
