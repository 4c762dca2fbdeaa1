"""Rows on their way into a network: features, labels, weights, and memberships that may be unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import DataError
from models.rows import FeatureRows
from models.trainer import shuffled_batches
from sfs.matrix import SliceMatrix

MAX_STEPS_PER_EPOCH = 500
"""Batches grow with the data so that an epoch has no more steps than this."""


class Memberships(NamedTuple):
    """Memberships of B rows: ``member`` float[B, K], 1 for members; ``known`` bool[B, K], where it counts."""

    member: Tensor
    known: Tensor

    def take(self, rows: slice | Tensor) -> Memberships:
        """Return the memberships of some rows."""
        return Memberships(self.member[rows], self.known[rows])

    def hidden(self, rows: Tensor) -> Memberships:
        """Return the same with every membership of some rows, bool[B], made unknown."""
        known = self.known & ~rows[:, None]  # [B, K]
        return Memberships(self.member * known, known)


def memberships(S: SliceMatrix | None, names: Sequence[str], n_rows: int) -> Memberships:
    """Return the memberships in the named slices, in order; a slice that S lacks is unknown in every row.

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
    return Memberships(
        torch.from_numpy(aligned.member.astype(np.float32)), torch.from_numpy(~aligned.unknown)
    )


def check_same_rows(S: SliceMatrix | None, n_rows: int) -> None:
    """Raise DataError if there is a slice matrix of another number of rows."""
    if S is not None and len(S) != n_rows:
        raise DataError(
            f"the slice matrix has {len(S)} rows, the features {n_rows}: apply the functions to these rows"
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of one training step.

    ``hidden`` bool[B] marks rows whose memberships the gates may not see in this step (membership dropout);
    ``weight`` float[B] is how much each row counts, 1 on average over all training rows.
    """

    X: Tensor
    y: Tensor
    slices: Memberships
    weight: Tensor
    hidden: Tensor

    def seen(self) -> Memberships:
        """Return the memberships that the gates may see."""
        return self.slices.hidden(self.hidden)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows with labels.

    Parameters
    ----------
    X
        Features of N rows.
    y
        int64[N], positions of classes.
    S
        Memberships of the N rows.
    groups
        int64[N], equal for rows of equal content, which a cross-fit keeps on one side; by default every row
        is a content of its own.

    Raises
    ------
    DataError
        If they differ in length, or there is no row.
    """

    X: FeatureRows
    y: NDArray[np.int64]
    S: SliceMatrix
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        lengths = {"features": len(self.X), "labels": len(self.y), "slice matrix": len(self.S)}
        if self.groups is not None:
            lengths["groups"] = len(self.groups)
        if len(set(lengths.values())) > 1:
            raise DataError(f"rows must agree, got {', '.join(f'{n} {what}' for what, n in lengths.items())}")
        if not len(self.y):
            raise DataError("there are no rows: check the file and the split")

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, positions: NDArray[np.int64]) -> Split:
        """Return some rows."""
        groups = None if self.groups is None else self.groups[positions]
        return Split(self.X.subset(positions), self.y[positions], self.S.take(positions), groups)


def training_batches(
    rows: Split,
    names: Sequence[str],
    weight: NDArray[np.float64],
    batch_size: int,
    membership_dropout: float,
) -> Callable[[torch.Generator], Iterator[Batch]]:
    """Return what gives an epoch's batches for a generator, which alone decides order and dropout."""
    y = torch.from_numpy(rows.y)
    weights = torch.from_numpy(weight.astype(np.float32))
    S = rows.S.align(names)
    member, known = (
        torch.from_numpy(S.member.copy()),
        torch.from_numpy(~S.unknown),
    )  # bytes: there may be millions
    size = max(batch_size, -(-len(rows) // MAX_STEPS_PER_EPOCH))

    def epoch(generator: torch.Generator) -> Iterator[Batch]:
        for positions in shuffled_batches(len(rows), size, generator):
            at = torch.from_numpy(positions)
            hidden = torch.rand(len(at), generator=generator) < membership_dropout
            slices = Memberships(member[at].float(), known[at])
            yield Batch(rows.X.take(positions), y[at], slices, weights[at], hidden)

    return epoch
