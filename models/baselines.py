"""The honest peers of a slice-aware model: networks that read no memberships, behind the same interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from models.backbone import MLP
from models.batches import Batch
from models.inference import predicted
from models.objectives import weighted_cross_entropy
from models.rows import FeatureRows, as_rows
from sfs.matrix import SliceMatrix


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
        """Return float[N, C]; memberships are ignored.

        Raises
        ------
        DataError
            If the number of features is not D.
        ModelError
            If a feature or a weight is not a finite number.
        """
        return predicted(as_rows(X), self.backbone.in_features, self.num_classes, lambda x, _: self(x))

    def config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs, as JSON."""
        return {"kind": "plain", "backbone": backbone_config(self.backbone), "num_classes": self.num_classes}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PlainClassifier:
        """Return a network of that shape; its weights come from ``load_state_dict``."""
        return cls(backbone_from(config["backbone"]), config["num_classes"])


def backbone_config(backbone: MLP) -> dict[str, Any]:
    """Return a backbone's shape as JSON."""
    return {"in_features": backbone.in_features, "widths": list(backbone.widths)}


def backbone_from(config: Mapping[str, Any]) -> MLP:
    """Return a backbone of a shape that ``backbone_config`` gave."""
    return MLP(config["in_features"], config["widths"])
