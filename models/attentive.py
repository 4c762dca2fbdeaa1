"""The slice-aware classifier over a plain backbone, behind the interface of the other learners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.backbone import MLP
from models.baselines import backbone_config, backbone_from
from models.batches import Batch
from models.inference import predicted
from models.rows import FeatureRows, as_rows
from models.slice_aware import SliceAwareClassifier
from models.snorkel_labels import SliceTargets
from sfs.matrix import SliceMatrix


class AttentiveClassifier(nn.Module):
    """A ``SliceAwareClassifier`` over an MLP; memberships are read in training only.

    Parameters
    ----------
    backbone
        From D features to H hidden units.
    slice_names
        K distinct names.
    num_classes
        C.
    options
        Further settings of ``SliceAwareClassifier``, as its ``config()`` names them.
    """

    def __init__(
        self,
        backbone: MLP,
        slice_names: Sequence[str],
        num_classes: int = 2,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.num_classes = backbone.in_features, num_classes
        self.slice_names = tuple(slice_names)
        self._backbone_config = backbone_config(backbone)
        required = {"head_dim": backbone.out_features, "slice_names": slice_names, "num_classes": num_classes}
        self.network = SliceAwareClassifier(backbone, **{**(options or {}), **required})

    def forward(self, X: Tensor) -> Tensor:
        """Return logits float[B, C]."""
        return self.network.forward(X)

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of the three losses of slice-based learning; row weights count in the first."""
        labelled = torch.ones(len(batch.y), dtype=torch.bool)
        targets = SliceTargets(batch.slices.member.bool(), batch.slices.known, labelled)
        losses = self.network.losses(batch.X, batch.y, targets, batch.weight)
        return torch.stack(list(losses.values())).sum()

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
        return predicted(as_rows(X), self.in_features, self.num_classes, lambda x, _: self.forward(x))

    def config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs, as JSON."""
        shape = {"kind": "slice_aware", "backbone": self._backbone_config}
        return {**shape, "options": self.network.config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AttentiveClassifier:
        """Return a network of that shape; its weights come from ``load_state_dict``."""
        options = config["options"]
        return cls(backbone_from(config["backbone"]), options["slice_names"], options["num_classes"], options)
