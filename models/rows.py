"""Feature rows: N rows of D float32 features, dense or sparse, handed to a network a batch at a time."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

Positions: TypeAlias = NDArray[np.int64]


class FeatureRows:
    """N rows of D features: a sparse block (hashed text) followed by a dense one (numbers, categories).

    Parameters
    ----------
    dense
        float32[N, D1].
    sparse_block
        CSR float32[N, D0] without repeated entries, which comes first; none by default.
    """

    __slots__ = ("_dense", "_sparse", "shape")

    def __init__(self, dense: NDArray[np.float32], sparse_block: sparse.csr_matrix | None = None) -> None:
        self._dense = np.ascontiguousarray(dense, dtype=np.float32)
        self._sparse = sparse_block
        width = 0 if sparse_block is None else sparse_block.shape[1]
        self.shape = (len(self._dense), width + self._dense.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, positions: Positions | slice) -> torch.Tensor:
        """Return float32[B, D] for some rows."""
        dense = self._dense[positions]
        if self._sparse is None:
            return torch.from_numpy(np.array(dense))
        return torch.from_numpy(_side_by_side(self._sparse[positions], dense))

    def subset(self, positions: Positions) -> FeatureRows:
        """Return other rows of the same features, without making them dense."""
        return FeatureRows(self._dense[positions], None if self._sparse is None else self._sparse[positions])


def _side_by_side(block: sparse.csr_matrix, dense: NDArray[np.float32]) -> NDArray[np.float32]:
    """Write a sparse block's few entries into zeros: several times faster than joining two dense blocks."""
    width = block.shape[1]
    out = np.zeros((len(dense), width + dense.shape[1]), dtype=np.float32)
    rows = np.repeat(np.arange(len(dense)), np.diff(block.indptr))
    out[rows, block.indices] = block.data
    out[:, width:] = dense
    return out


def as_rows(X: FeatureRows | torch.Tensor | NDArray[np.float32]) -> FeatureRows:
    """Return feature rows for whatever a caller holds: feature rows, a tensor, or an array of float[N, D]."""
    if isinstance(X, FeatureRows):
        return X
    array = X.detach().cpu().numpy() if isinstance(X, torch.Tensor) else np.asarray(X)
    return FeatureRows(array.astype(np.float32, copy=False))
