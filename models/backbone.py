"""The plain network under every learner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.errors import ConfigError


class MLP(nn.Module):
    """Linear + ReLU layers from D features to H hidden units.

    Parameters
    ----------
    in_features
        D.
    widths
        Units of each layer, at least one; the last is H (``out_features``).

    Raises
    ------
    ConfigError
        If there is no layer, or a number of units is below 1.
    """

    def __init__(self, in_features: int, widths: Sequence[int]) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or in_features < 0:
            raise ConfigError(
                f"an MLP needs one layer or more of 1 unit or more, got {in_features} to {widths}"
            )
        self.in_features, self.widths = in_features, tuple(widths)
        self.out_features = self.widths[-1]
        self.first = nn.Linear(in_features, self.widths[0])
        pairs = zip(self.widths[:-1], self.widths[1:], strict=True)
        self.rest = nn.Sequential(*(layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())))

    def forward(self, X: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return float[B, H].

        Parameters
        ----------
        X
            float[B, D].
        shift
            float[B, widths[0]], added before the first ReLU.
        """
        before = self.first(X)
        hidden: Tensor = self.rest(torch.relu(before if shift is None else before + shift))
        return hidden
