"""How a slice-aware network divides its attention between the experts of S slices."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Attention: TypeAlias = Literal["symmetric", "snorkel"]


def attend(kind: Attention, membership: Tensor, experts: Tensor, temperature: float) -> Tensor:
    """Return float[B, S], the share of each expert; rows sum to 1.

    ``symmetric`` weighs the membership logit by the expert's confidence, the margin of its likeliest class
    over chance, which no renaming of classes changes. ``snorkel`` weighs P(member) by P(class 1) [1]_: both
    lie in [0, 1], so that no share is more than e times another, and certainty of class 0 counts as doubt.

    Parameters
    ----------
    membership
        Logits float[B, S].
    experts
        Logits float[B, S, C].
    temperature
        Divides the product.

    References
    ----------
    .. [1] Snorkel 0.10, ``SliceCombinerModule``.
    """
    probabilities = torch.softmax(experts, dim=2)  # [B, S, C]
    if kind == "snorkel":
        relevance = torch.sigmoid(membership) * probabilities[..., 1]
    else:
        relevance = membership * margin(probabilities)
    return torch.softmax(relevance / temperature, dim=1)


def margin(probabilities: Tensor) -> Tensor:
    """Return how far the likeliest of C classes is above chance, 0 to 1, for float[..., C]."""
    C = probabilities.shape[-1]
    return (probabilities.amax(dim=-1) * C - 1) / (C - 1)


def default_temperature(kind: Attention, n_slices: int) -> float:
    """Return 1 for ``snorkel``; for ``symmetric`` the t of e^(4 / t) = 9 (K + 1).

    With it a certain expert whose membership logit is 2 (P = .88) keeps nine tenths of the attention against
    K certain others with -2, however large K is.

    Examples
    --------
    >>> t = default_temperature("symmetric", 100)
    >>> winner, loser = math.exp(2 / t), math.exp(-2 / t)
    >>> round(winner / (winner + 100 * loser), 2)
    0.9
    """
    return 4 / math.log(9 * (n_slices + 1)) if kind == "symmetric" else 1.0
