"""The plain network under every learner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear + ReLU layers from D features to H hidden units.

    Parameters
    ----------
    in_features
        D.
    widths
        Units of each layer, at least one; the last is H (``out_features``).
    """

    def __init__(self, in_features: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.in_features, self.widths = in_features, tuple(widths)
        self.out_features = self.widths[-1]
        self.first = nn.Linear(in_features, self.widths[0])
        pairs = zip(self.widths[:-1], self.widths[1:], strict=True)
        self.rest = nn.Sequential(*(layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())))

    def forward(self, X: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return float[B, H] for float[B, D]; ``shift`` float[B, widths[0]] is added before the first ReLU."""
        before = self.first(X)
        hidden: Tensor = self.rest(torch.relu(before if shift is None else before + shift))
        return hidden
