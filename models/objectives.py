"""The losses, and how slices weigh in them.

Every term is a mean, so that none grows with the number of rows, slices or classes. What is not known (a
row's label, a membership) is left out of numerator and denominator alike; a mean over nothing is zero and
has no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from models.errors import DataError


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
    each = cross_entropy(logits, y, class_weights)
    weighted = each if weights is None else each * weights
    return weighted.mean() if labelled is None else _mean(weighted, labelled.to(logits.dtype))


def expert_loss(logits: Tensor, y: Tensor, counts: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the loss of the experts on their members: a mean over members, then over slices that have any.

    A small slice thus weighs as much as a large one, a slice without a member in the batch nothing, and all
    slices together as much as one task, however many they are.

    Parameters
    ----------
    logits
        float[B, S, C], the prediction of each slice's expert.
    y
        int64[B] or float[B, C].
    counts
        bool[B, S], true where the row is a known member with a known label.
    """
    each = cross_entropy(logits, _per_slice(y, logits.shape[1]), class_weights)  # [B, S]
    mask = counts.to(logits.dtype)
    members = mask.sum(dim=0)  # [S]
    per_slice = (each * mask).sum(dim=0) / members.clamp(min=1)
    return _mean(per_slice, (members > 0).to(logits.dtype))


def indicator_loss(logits: Tensor, member: Tensor, known: Tensor) -> Tensor:
    """Return the binary cross entropy of membership logits [B, K], a mean over the known (bool[B, K])."""
    each = F.binary_cross_entropy_with_logits(logits, member.to(logits.dtype), reduction="none")
    return _mean(each, known.to(logits.dtype))


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
        If the reduction is none of these.
    """
    if reduction not in ("none", "mean", "sum"):
        raise DataError(f"reduction can be none, mean or sum, not {reduction!r}")
    each = cross_entropy(input, target, weight)
    return {"none": each, "mean": each.mean(), "sum": each.sum()}[reduction]


def _per_slice(y: Tensor, n_slices: int) -> Tensor:
    """Repeat labels [B] or [B, C] for every slice."""
    return y.unsqueeze(1).expand(y.shape[0], n_slices, *y.shape[1:])


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)
