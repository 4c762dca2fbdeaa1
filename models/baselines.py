"""Backbone shared by all learners, and the plain baseline, which reads no memberships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.batches import Batch, FeatureRows, as_rows, predict_in_chunks
from models.errors import ConfigError
from models.objectives import weighted_cross_entropy
from sfs.matrix import SliceMatrix


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
            raise ConfigError(f"an MLP needs at least one layer of at least one unit, got {in_features} to {widths}")
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

    def widen(self, columns: NDArray[np.int64], in_features: int) -> None:
        """Read ``in_features`` features from now on: those trained are at these columns, others have weights of 0."""
        narrow, self.in_features = self.first, in_features
        self.first = nn.Linear(in_features, self.widths[0], device="meta")  # draws no numbers
        weight = torch.zeros(self.widths[0], in_features)
        weight[:, columns] = narrow.weight.detach()
        self.first.weight, self.first.bias = nn.Parameter(weight), narrow.bias

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config`` as JSON values."""
        return {"in_features": self.in_features, "widths": list(self.widths)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MLP:
        """Return an untrained network built from the output of ``config()``."""
        return cls(config["in_features"], config["widths"])


class PlainClassifier(nn.Module):
    """Backbone and one linear layer; trained with equal weights this is ERM, else weighted ERM.

    Parameters
    ----------
    backbone
        From D features to H hidden units.
    num_classes
        C.
    """

    def __init__(self, backbone: MLP, num_classes: int = 2) -> None:
        super().__init__()
        self.backbone, self.num_classes = backbone, num_classes
        self.head = nn.Linear(backbone.out_features, num_classes)

    def forward(self, X: Tensor) -> Tensor:
        """Return logits float[B, C]."""
        logits: Tensor = self.head(self.backbone(X))
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Return the weighted mean cross entropy of a batch."""
        return weighted_cross_entropy(self(batch.X), batch.y, weights=batch.weight)

    def predict_proba(
        self, X: FeatureRows | Tensor | NDArray[np.float32], S: SliceMatrix | None = None
    ) -> NDArray[np.float64]:
        """Return float[N, C]; memberships are ignored. Raises as `models.batches.predict_in_chunks`."""
        return predict_in_chunks(as_rows(X), self.backbone.in_features, self.num_classes, lambda x, _: self(x))

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config`` as JSON values."""
        return {"kind": "plain", "backbone": self.backbone.config(), "num_classes": self.num_classes}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PlainClassifier:
        """Return an untrained network built from the output of ``config()``."""
        return cls(MLP.from_config(config["backbone"]), config["num_classes"])
