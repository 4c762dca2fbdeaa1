"""Losses, row weights, and the weight of slices in them.

Every loss is a mean, independent of the number of rows, slices and classes. Unknown labels and
memberships are left out of numerator and denominator alike; an empty mean is zero and has no gradient.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from models.errors import ConfigError, DataError

WEIGHTINGS = ("equal", "x3", "x10", "root of rarity", "rarity")


def cross_entropy(logits: Tensor, y: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the cross entropy of each row, not reduced.

    Parameters
    ----------
    logits
        float[..., C].
    y
        Classes int64[...], or probabilities float[..., C].
    class_weights
        float[C], a factor for each class.
    """
    flat = logits.reshape(-1, logits.shape[-1])  # [rows, C]
    targets = y.reshape(-1) if y.dim() < logits.dim() else y.reshape(flat.shape).to(logits.dtype)
    return F.cross_entropy(flat, targets, class_weights, reduction="none").reshape(logits.shape[:-1])


def weighted_cross_entropy(
    logits: Tensor,
    y: Tensor,
    labelled: Tensor | None = None,
    class_weights: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean over labelled rows (bool[B], by default all) of cross entropy times weight.

    Weights are float[B], 1 on average. The mean is not divided by their sum: a batch of heavy rows is a
    heavy batch.
    """
    losses = cross_entropy(logits, y, class_weights)
    weighted = losses if weights is None else losses * weights
    return weighted.mean() if labelled is None else _mean(weighted, labelled.to(logits.dtype))


def expert_loss(
    logits: Tensor, y: Tensor, counts: Tensor, class_weights: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return the expert loss: the mean over the members of a slice, then over non-empty slices.

    A small slice thus weighs as much as a large one, a slice without a member in the batch nothing, and all
    slices together as much as one task.

    Parameters
    ----------
    logits
        float[B, S, C], the prediction of each slice's expert.
    y
        int64[B] or float[B, C].
    counts
        bool[B, S], true where the row is a known member with a known label.
    weights
        float[B], the weight of each row in these means; by default 1.
    """
    repeated = y.unsqueeze(1).expand(y.shape[0], logits.shape[1], *y.shape[1:])  # [B, S] or [B, S, C]
    losses = cross_entropy(logits, repeated, class_weights)  # [B, S]
    mask = counts.to(logits.dtype) if weights is None else counts * weights[:, None]
    members = mask.sum(dim=0)  # [S]
    per_slice = (losses * mask).sum(dim=0) / torch.where(members > 0, members, 1)
    return _mean(per_slice, (members > 0).to(logits.dtype))


def indicator_loss(logits: Tensor, member: Tensor, known: Tensor) -> Tensor:
    """Return the binary cross entropy of membership logits [B, K], a mean over the known (bool[B, K])."""
    losses = F.binary_cross_entropy_with_logits(logits, member.to(logits.dtype), reduction="none")
    return _mean(losses, known.to(logits.dtype))


def cross_entropy_with_probs(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Return the cross entropy of logits float[N, C] against probabilities float[N, C].

    Parameters
    ----------
    weight
        float[C], a factor for each class.
    reduction
        ``none``, ``mean`` (over the N rows) or ``sum``.

    Raises
    ------
    DataError
        If the reduction is unknown.
    """
    if reduction not in ("none", "mean", "sum"):
        raise DataError(f"Keyword 'reduction' must be one of ['none', 'mean', 'sum'], got {reduction!r}")
    losses = cross_entropy(input, target, weight)
    return {"none": losses, "mean": losses.mean(), "sum": losses.sum()}[reduction]


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)


def row_weights(weighting: str, y: NDArray[np.int64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the weights of training rows, float[N] with mean 1.

    Parameters
    ----------
    weighting
        ``equal``; ``x3`` and ``x10`` for rows in any slice; ``rarity``, the largest n / n_cell over the row's
        cells of slice and class, from 1 to 20; ``root of rarity``, its square root, from 1 to 10.
    y
        int[N], classes.
    member
        bool[N, K], known members of the slices in use.

    Raises
    ------
    ConfigError
        If the weighting is unknown.

    Examples
    --------
    >>> row_weights("x3", np.array([0, 1]), np.array([[True], [False]])).tolist()
    [1.5, 0.5]
    """
    if weighting not in WEIGHTINGS:
        raise ConfigError(f"unknown weighting {weighting!r}; known are {', '.join(WEIGHTINGS)}")
    raw = np.ones(len(y))
    if weighting in ("x3", "x10"):
        raw[member.any(axis=1)] = int(weighting[1:])
    elif weighting == "rarity":
        raw = np.clip(cell_rarity(y, member), 1, 20)
    elif weighting == "root of rarity":
        raw = np.clip(np.sqrt(cell_rarity(y, member)), 1, 10)
    weights: NDArray[np.float64] = raw / raw.mean()
    return weights


def cell_rarity(y: NDArray[np.int64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return per row the largest n / n_cell over its cells of slice and class; 1 for a row in no slice."""
    rarity = np.ones(len(y))
    for k in range(member.shape[1]):
        rows = np.flatnonzero(member[:, k])
        sizes = np.bincount(y[rows])
        rarity[rows] = np.maximum(rarity[rows], len(y) / sizes[y[rows]])
    return rarity
