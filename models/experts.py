"""Experts of a slice-aware network, S linear maps of one representation, and the attention among them.

Both kinds of experts compute in a constant number of kernel calls, whatever S is, the logits of the shared head
for every expert, and the representation of a weighted mixture of the experts.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Attention: TypeAlias = Literal["symmetric", "snorkel"]


class LowRankExperts(nn.Module):
    """Experts r_s = z + U_s (V_s z) + b_s, with U_s [H, rank] and V_s [rank, H].

    An expert starts close to the plain network and learns a low-rank correction, which needs few rows
    per slice: 2 H rank + H parameters a slice instead of H^2 + H. No r_s is ever formed: the
    shared head is folded into U_s, and a mixture of experts is one matrix product over all codes V_s z.

    Parameters
    ----------
    slices
        S.
    width
        H, units of the representation.
    rank
        Rank of each correction.
    """

    def __init__(self, slices: int, width: int, rank: int) -> None:
        super().__init__()
        self.slices, self.rank = slices, rank
        self.down = nn.Parameter(torch.empty(slices * rank, width))
        self.up = nn.Parameter(torch.empty(slices * rank, width))
        self.bias = nn.Parameter(torch.zeros(slices, width))
        bound = 1 / math.sqrt(width)
        nn.init.uniform_(self.down, -bound, bound)
        nn.init.uniform_(self.up, -0.1 * bound, 0.1 * bound)  # not zero: the codes would have no gradient

    def codes(self, z: Tensor) -> Tensor:
        """Return float[B, S * rank], the low-rank codes of z float[B, H]."""
        codes: Tensor = nn.functional.linear(z, self.down)
        return codes

    def logits(self, z: Tensor, codes: Tensor, head: nn.Linear) -> Tensor:
        """Return float[B, S, C], the logits of every expert by a shared head from H units to C classes."""
        C = head.out_features
        folded = (self.up @ head.weight.T).view(1, self.slices, self.rank, C)
        corrections = (codes.view(-1, self.slices, self.rank, 1) * folded).sum(dim=2)  # [B, S, C]
        shared: Tensor = head(z)  # [B, C]
        return corrections + shared.unsqueeze(1) + self.bias @ head.weight.T

    def mixture(self, z: Tensor, codes: Tensor, attention: Tensor) -> Tensor:
        """Return float[B, H], the mean of the experts weighted by attention float[B, S]."""
        weighted = codes.view(-1, self.slices, self.rank) * attention.unsqueeze(2)  # [B, S, rank]
        mixed: Tensor = z + weighted.view(-1, self.slices * self.rank) @ self.up + attention @ self.bias
        return mixed

    def represent(self, z: Tensor) -> Tensor:
        """Return float[B, S, H], every expert's representation; for inspection only, not used in training."""
        codes = self.codes(z).view(-1, self.slices, self.rank)
        up = self.up.view(self.slices, self.rank, -1)
        return z.unsqueeze(1) + torch.einsum("bsr,srh->bsh", codes, up) + self.bias

    def linear(self, k: int) -> tuple[Tensor, Tensor]:
        """Return weight float[H, H] and bias float[H] of an expert; for inspection only."""
        rows = slice(k * self.rank, (k + 1) * self.rank)
        identity = torch.eye(self.up.shape[1], dtype=self.up.dtype, device=self.up.device)
        return identity + self.up[rows].T @ self.down[rows], self.bias[k]


class FullExperts(nn.Module):
    """Experts r_s = W_s z + b_s with W_s [H, H], as in Snorkel; methods as of `LowRankExperts`."""

    def __init__(self, slices: int, width: int) -> None:
        super().__init__()
        self.slices, self.width = slices, width
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(slices * width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(slices * width).uniform_(-bound, bound))

    def codes(self, z: Tensor) -> Tensor:
        """Return float[B, S * H], every expert's representation of z float[B, H]."""
        return nn.functional.linear(z, self.weight, self.bias)

    def logits(self, z: Tensor, codes: Tensor, head: nn.Linear) -> Tensor:
        """Return float[B, S, C], the logits of every expert by a shared head."""
        logits: Tensor = head(codes.view(-1, self.slices, self.width))
        return logits

    def mixture(self, z: Tensor, codes: Tensor, attention: Tensor) -> Tensor:
        """Return float[B, H], the mean of the experts weighted by attention float[B, S]."""
        stacked = codes.view(-1, self.slices, self.width)
        return torch.bmm(attention.unsqueeze(1), stacked).squeeze(1)

    def represent(self, z: Tensor) -> Tensor:
        """Return float[B, S, H], every expert's representation."""
        return self.codes(z).view(-1, self.slices, self.width)

    def linear(self, k: int) -> tuple[Tensor, Tensor]:
        """Return weight float[H, H] and bias float[H] of an expert."""
        rows = slice(k * self.width, (k + 1) * self.width)
        return self.weight[rows], self.bias[rows]


def attend(kind: Attention, membership: Tensor, experts: Tensor, temperature: float) -> Tensor:
    """Return float[B, S], the attention weight of each expert; rows sum to 1.

    ``symmetric`` weights the membership logit by the expert's confidence, the margin of its likeliest class
    over chance, which is invariant to renamed classes. ``snorkel`` weights P(member) by P(class 1) [1]_: both
    lie in [0, 1], so that no weight is more than e times another, and certainty of class 0 counts as doubt. Of more
    than two classes, which Snorkel does not combine, it takes the margin of the likeliest.

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
        binary = experts.shape[2] == 2
        relevance = torch.sigmoid(membership) * (probabilities[..., 1] if binary else margin(probabilities))
    else:
        relevance = membership * margin(probabilities)
    return torch.softmax(relevance / temperature, dim=1)


def margin(probabilities: Tensor) -> Tensor:
    """Return the margin of the likeliest of C classes over chance, 0 to 1, for float[..., C]."""
    C = probabilities.shape[-1]
    return (probabilities.amax(dim=-1) * C - 1) / (C - 1)


def default_temperature(kind: Attention, n_slices: int) -> float:
    """Return 1 for ``snorkel``; for ``symmetric`` the t of e^(4 / t) = 9 (K + 1).

    With it a certain expert whose membership logit is 2 (P = .88) keeps nine tenths of the attention against
    K certain others with -2, for every K.

    Examples
    --------
    >>> t = default_temperature("symmetric", 100)
    >>> winner, loser = math.exp(2 / t), math.exp(-2 / t)
    >>> round(winner / (winner + 100 * loser), 2)
    0.9
    """
    return 4 / math.log(9 * (n_slices + 1)) if kind == "symmetric" else 1.0
