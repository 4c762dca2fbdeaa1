"""The experts of a slice-aware network: S linear maps of one representation, evaluated together.

Both forms answer two questions in a constant number of kernel calls, whatever S is: what the shared head
makes of every expert, and what representation a weighted mixture of the experts is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LowRankExperts(nn.Module):
    """Experts r_s = z + U_s (V_s z) + b_s, with U_s [H, rank] and V_s [rank, H].

    An expert starts close to the plain network and learns a correction of it, which is what a slice with
    few rows can support: 2 H rank + H parameters a slice instead of H^2 + H. No r_s is ever formed: the
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
        """Return float[B, S * rank], all that the experts read of z float[B, H]."""
        codes: Tensor = nn.functional.linear(z, self.down)
        return codes

    def logits(self, z: Tensor, codes: Tensor, head: nn.Linear) -> Tensor:
        """Return float[B, S, C], the head's answer to every expert.

        Parameters
        ----------
        z
            float[B, H].
        codes
            What ``codes(z)`` returned.
        head
            From H units to C classes.
        """
        C = head.out_features
        folded = (self.up @ head.weight.T).view(1, self.slices, self.rank, C)
        corrections = (codes.view(-1, self.slices, self.rank, 1) * folded).sum(dim=2)  # [B, S, C]
        shared: Tensor = head(z)  # [B, C]
        return corrections + shared.unsqueeze(1) + self.bias @ head.weight.T

    def mixture(self, z: Tensor, codes: Tensor, attention: Tensor) -> Tensor:
        """Return float[B, H], the weighted mean of the experts.

        Parameters
        ----------
        z
            float[B, H].
        codes
            What ``codes(z)`` returned.
        attention
            float[B, S], weights whose rows sum to 1.
        """
        weighted = codes.view(-1, self.slices, self.rank) * attention.unsqueeze(2)  # [B, S, rank]
        mixed: Tensor = z + weighted.view(-1, self.slices * self.rank) @ self.up + attention @ self.bias
        return mixed

    def represent(self, z: Tensor) -> Tensor:
        """Return float[B, S, H], every expert's representation; for inspection, training never forms it."""
        codes = self.codes(z).view(-1, self.slices, self.rank)
        up = self.up.view(self.slices, self.rank, -1)
        return z.unsqueeze(1) + torch.einsum("bsr,srh->bsh", codes, up) + self.bias


class FullExperts(nn.Module):
    """Experts r_s = W_s z + b_s with W_s [H, H], as in Snorkel.

    Parameters
    ----------
    slices
        S.
    width
        H, units of the representation.
    """

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
        """Return float[B, S, C], the head's answer to every expert.

        Parameters
        ----------
        z
            float[B, H].
        codes
            What ``codes(z)`` returned.
        head
            From H units to C classes.
        """
        answers: Tensor = head(codes.view(-1, self.slices, self.width))
        return answers

    def mixture(self, z: Tensor, codes: Tensor, attention: Tensor) -> Tensor:
        """Return float[B, H], the weighted mean of the experts; parameters as in `LowRankExperts`."""
        stacked = codes.view(-1, self.slices, self.width)
        return torch.bmm(attention.unsqueeze(1), stacked).squeeze(1)

    def represent(self, z: Tensor) -> Tensor:
        """Return float[B, S, H], every expert's representation."""
        return self.codes(z).view(-1, self.slices, self.width)
