"""Input rows and output probabilities of a network: features, labels, weights, memberships, batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import DataError, ModelError
from models.sparse_rows import SparseBlock, SparseRows, joined_csr
from sfs.matrix import SliceMatrix

Positions: TypeAlias = NDArray[np.int64]

_CONSTANT = 1e-9  # standard deviation
MAX_STEPS_PER_EPOCH = 250
"""Maximum number of steps per epoch; batches grow with the data to respect it."""
_MOST_DENSE = 16_000_000
"""Numbers up to which training rows are made dense once (64 MB), and not in every epoch."""
CHUNK_NUMBERS = 4_000_000
"""Maximum number of layer outputs or dense features held in memory at a time (16 MB)."""


class FeatureRows:
    """N rows of D float32 features: a sparse block (hashed text) followed by a dense one (numbers, categories).

    Parameters
    ----------
    dense
        float32[N, D1].
    sparse_block
        CSR without repeated entries, or blocks side by side, float32[N, D0], placed first; none by default.
    one_hot
        First and last column, exclusive, of each category: a row has one 1 there, or none.
    """

    __slots__ = ("_blocks", "_csr", "_dense", "one_hot", "shape")

    def __init__(
        self,
        dense: NDArray[np.float32],
        sparse_block: scipy.sparse.csr_matrix | Sequence[SparseBlock] | None = None,
        one_hot: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.one_hot = one_hot
        self._dense = np.ascontiguousarray(dense, dtype=np.float32)
        self._csr: Any = None
        self._blocks: tuple[SparseBlock, ...] = ()
        if isinstance(sparse_block, Sequence):
            self._blocks = tuple(sparse_block)
        else:
            self._csr = sparse_block
        width = sum(block.width for block in self._blocks) if self._csr is None else self._csr.shape[1]
        self.shape = (len(self._dense), width + self._dense.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, positions: Positions | slice) -> Tensor:
        """Return some rows as float32[B, D]."""
        dense = self._dense[positions]
        whole = isinstance(positions, slice) and positions == slice(0, len(self))
        if self._blocks and whole and not any(block.repeat for block in self._blocks):  # as for the rows of a request
            return torch.from_numpy(self._from_entries([block.entries() for block in self._blocks]))
        if (csr := self._rows(positions)) is None:
            return torch.from_numpy(np.array(dense) if isinstance(positions, slice) else dense)  # a slice is a view
        # A few entries written into zeros: several times faster than joining two dense blocks.
        out = np.zeros((len(dense), self.shape[1]), dtype=np.float32)
        out[np.repeat(np.arange(len(dense)), np.diff(csr.indptr)), csr.indices] = csr.data
        out[:, self.shape[1] - dense.shape[1] :] = dense
        return torch.from_numpy(out)

    def _from_entries(self, entries: Sequence[SparseRows]) -> NDArray[np.float32]:
        """Return all rows float32[N, D] of blocks without repeated entries."""
        out = np.zeros(self.shape, dtype=np.float32)
        place = 0
        for block in entries:
            out[block.rows, block.columns + place] = block.values
            place += block.width
        out[:, place:] = self._dense
        return out

    def product(self, rows: slice, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32[B, H], some rows times float32[D, H], without making them dense."""
        dense = self._dense[rows]
        start = len(weight) - dense.shape[1]
        product: NDArray[np.float32] = dense @ weight[start:]
        blocks = self._blocks
        if blocks and rows == slice(0, len(self)):  # the rows of a request
            place = 0
            for block in blocks:
                product += block.product(weight, place)
                place += block.width
        elif (csr := self._rows(rows)) is not None:
            product += csr @ weight[:start]
        return product

    def dense_scale(self) -> NDArray[np.float64]:
        """Return the standard deviations of the dense columns, float64[D1]; 1 for a constant one."""
        scale = self._dense.std(axis=0, dtype=np.float64)
        return np.where(scale > _CONSTANT, scale, 1.0)

    def matrix(self, scale: NDArray[np.float64]) -> scipy.sparse.csr_matrix | NDArray[np.float64]:
        """Return all columns as float64[N, D], sparse where there is a sparse block; dense columns times ``scale``."""
        dense = self._dense * scale
        block = self._rows(slice(None))
        return dense if block is None else scipy.sparse.hstack([block.astype(np.float64), dense], format="csr")

    def coded(self, positions: Positions | slice, one_hot: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        """Return some rows as float32[B, D + G], with a number for each of G categories after the columns.

        It is the place of the one in the columns of the category, from 1; 0 without a one.
        """
        values: NDArray[np.float32] = self.take(positions).numpy()
        codes = [values[:, start:stop] @ np.arange(1, stop - start + 1, dtype=np.float32) for start, stop in one_hot]
        return np.column_stack([values, *codes]) if codes else values

    def followed_by(self, other: FeatureRows) -> FeatureRows:
        """Return these rows and then those of another object with the same columns."""
        blocks = [self._rows(slice(None)), other._rows(slice(None))]
        joined = None if blocks[0] is None else scipy.sparse.vstack(blocks, format="csr")
        return FeatureRows(np.concatenate([self._dense, other._dense]), joined, self.one_hot)

    def subset(self, positions: Positions) -> FeatureRows:
        """Return some rows, still sparse."""
        return FeatureRows(self._dense[positions], self._rows(positions), self.one_hot)

    def used_columns(self) -> Positions:
        """Return the columns in which some row has another number than 0."""
        block = self._rows(slice(None))
        start = self.shape[1] - self._dense.shape[1]
        of_block = np.unique(block.indices[block.data != 0]) if block is not None else np.zeros(0, np.int64)
        return np.concatenate([of_block.astype(np.int64), start + np.flatnonzero(self._dense.any(axis=0))])

    def columns(self, kept: Positions) -> FeatureRows:
        """Return the rows with some of the columns, in ascending order, no longer as categories."""
        start = self.shape[1] - self._dense.shape[1]
        block = self._rows(slice(None))
        sparse = None if block is None else block[:, kept[kept < start]]
        return FeatureRows(self._dense[:, kept[kept >= start] - start], sparse)

    def _rows(self, positions: Positions | slice) -> scipy.sparse.csr_matrix | None:
        """Return some rows of the sparse block."""
        if self._blocks:
            self._csr, self._blocks = joined_csr(self._blocks), ()
        return None if self._csr is None else self._csr[positions]


def as_rows(X: FeatureRows | Tensor | NDArray[np.float32]) -> FeatureRows:
    """Convert a tensor or an array float[N, D] to feature rows; feature rows are returned unchanged."""
    if isinstance(X, FeatureRows):
        return X
    array = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
    return FeatureRows(array.astype(np.float32, copy=False))


class Memberships(NamedTuple):
    """Memberships of B rows: ``member`` float[B, K], 1 for members; ``known`` bool[B, K]."""

    member: Tensor
    known: Tensor

    def take(self, rows: slice | Tensor) -> Memberships:
        """Return the memberships of some rows."""
        return Memberships(self.member[rows], self.known[rows])


def memberships(S: SliceMatrix | None, names: Sequence[str], n_rows: int) -> Memberships:
    """Return the memberships in the named slices, in order; slices absent from S are unknown.

    Raises
    ------
    DataError
        If S has another number of rows.
    """
    if S is None:
        shape = (n_rows, len(names))
        return Memberships(torch.zeros(shape), torch.zeros(shape, dtype=torch.bool))
    check_same_rows(S, n_rows)
    aligned = S if S.names == tuple(names) else S.align(names)
    return Memberships(torch.from_numpy(aligned.member.astype(np.float32)), torch.from_numpy(~aligned.unknown))


def check_same_rows(S: SliceMatrix | None, n_rows: int) -> None:
    """Raise DataError if a slice matrix is given and its number of rows differs."""
    if S is not None and len(S) != n_rows:
        raise DataError(f"the slice matrix has {len(S)} rows, the features {n_rows}: apply the functions to these rows")


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of one training step.

    ``masked`` bool[B] marks rows whose memberships are hidden from the gates in this step (membership
    dropout); ``weight`` float[B] is the weight of each row, 1 on average over all training rows.
    """

    X: Tensor
    y: Tensor
    slices: Memberships
    weight: Tensor
    masked: Tensor

    def visible_slices(self) -> Memberships:
        """Return the memberships after membership dropout."""
        known = self.slices.known & ~self.masked[:, None]  # [B, K]
        return Memberships(self.slices.member * known, known)


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled rows.

    Parameters
    ----------
    X
        Features of N rows.
    y
        int64[N], positions of classes.
    S
        Memberships of the N rows.
    groups
        int64[N], equal for rows of equal content, kept in one half of a cross-fit; by default every row
        is its own group.
    wide
        Features of the same rows for linear models; by default ``X``.
    weight
        float64[N], weights of training rows: 1 with a true label, less with a label of functions; by default 1.

    Raises
    ------
    DataError
        If they differ in length, or there is no row.
    """

    X: FeatureRows
    y: NDArray[np.int64]
    S: SliceMatrix
    groups: NDArray[np.int64] | None = None
    wide: FeatureRows | None = None
    weight: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        lengths = {"features": len(self.X), "labels": len(self.y), "slice matrix": len(self.S)}
        if self.groups is not None:
            lengths["groups"] = len(self.groups)
        if self.wide is not None:
            lengths["features for linear models"] = len(self.wide)
        if self.weight is not None:
            lengths["weights"] = len(self.weight)
        if len(set(lengths.values())) > 1:
            got = ", ".join(f"{n} {part}" for part, n in lengths.items())
            raise DataError(f"the parts of a split must have the same number of rows, got {got}")
        if not len(self.y):
            raise DataError("the split has no rows: check the file and the split")

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, positions: Positions) -> Split:
        """Return some rows."""
        groups = None if self.groups is None else self.groups[positions]
        wide = None if self.wide is None else self.wide.subset(positions)
        weight = None if self.weight is None else self.weight[positions]
        return Split(self.X.subset(positions), self.y[positions], self.S.take(positions), groups, wide, weight)


def shuffled_batches(n_rows: int, batch_size: int, generator: torch.Generator) -> Iterator[Positions]:
    """Yield positions 0 .. n_rows - 1 in random order, ``batch_size`` at a time; the last may be shorter."""
    order = torch.randperm(n_rows, generator=generator).numpy()
    for start in range(0, n_rows, batch_size):
        yield order[start : start + batch_size]


def training_batches(
    rows: Split,
    names: Sequence[str],
    weight: NDArray[np.float64],
    batch_size: int,
    membership_dropout: float,
) -> Callable[[torch.Generator], Iterator[Batch]]:
    """Return a function from a generator to an epoch's batches; the generator decides order and dropout."""
    y = torch.from_numpy(rows.y)
    weights = torch.from_numpy(weight.astype(np.float32))
    S = rows.S.align(names)
    # Kept as bytes: there may be millions of rows.
    member, known = torch.from_numpy(S.member.copy()), torch.from_numpy(~S.unknown)
    size = max(batch_size, -(-len(rows) // MAX_STEPS_PER_EPOCH))
    block = size * max(1, CHUNK_NUMBERS // (size * max(1, rows.X.shape[1])))  # rows taken together, then in batches
    few = len(rows) * rows.X.shape[1] <= _MOST_DENSE
    X = FeatureRows(rows.X.take(slice(0, len(rows))).numpy()) if few else rows.X

    def epoch(generator: torch.Generator) -> Iterator[Batch]:
        for positions in shuffled_batches(len(rows), block, generator):
            at = torch.from_numpy(positions)
            X_all, y_all, weight_all = X.take(positions), y[at], weights[at]
            member_all, known_all = member[at].float(), known[at]
            for start in range(0, len(at), size):
                part = slice(start, start + size)
                masked = torch.rand(len(y_all[part]), generator=generator) < membership_dropout
                slices = Memberships(member_all[part], known_all[part])
                yield Batch(X_all[part], y_all[part], slices, weight_all[part], masked)

    return epoch


def predict_in_chunks(
    rows: FeatureRows,
    in_features: int,
    num_classes: int,
    logits: Callable[[Tensor, slice], Tensor],
    *,
    widest: int = 0,
) -> NDArray[np.float64]:
    """Return probabilities float64[N, C]; ``logits`` maps features float[B, D] and their place to logits.

    ``widest`` is the most numbers per row of a layer of the network, where that is more than D.

    Raises
    ------
    DataError
        If the rows have another number of features.
    ModelError
        If a logit is not a finite number.
    """
    if rows.shape[1] != in_features:
        raise DataError(f"the model reads {in_features} features, these rows have {rows.shape[1]}")
    out = np.empty((len(rows), num_classes))
    chunk = max(1, CHUNK_NUMBERS // max(1, in_features, widest))
    with torch.inference_mode():
        for start in range(0, len(rows), chunk):
            part = slice(start, min(start + chunk, len(rows)))
            out[part] = finite_softmax(logits(rows.take(part), part), start)
    return out


def finite_softmax(logits: Tensor, start: int) -> NDArray[np.float64]:
    """Return float64[B, C] of the logits of rows ``start`` onwards; ModelError if one is not finite."""
    require_finite(logits.numpy(force=True), start)
    out: NDArray[np.float64] = logits.double().softmax(dim=1).numpy(force=True)
    return out


def require_finite(logits: NDArray[np.float32], start: int) -> None:
    """Raise ModelError if one of the logits float32[B, C] of rows ``start`` onwards is not finite."""
    finite = np.isfinite(logits)
    if not finite.all():
        row = start + int(finite.all(axis=1).argmin())
        raise ModelError(f"the output of the network for row {row} is not finite: check it for NaN or infinity")
