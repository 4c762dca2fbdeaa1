"""Soft voting: the mean of the probabilities of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from models.batches import FeatureRows
from models.errors import ConfigError
from models.inference import ChunkedInference, Floats, inference
from models.linear_classifier import LinearClassifier
from models.tree_classifier import TreeClassifier
from sfs.matrix import SliceMatrix

_MEMBERS: Mapping[str, Any] = {"linear": LinearClassifier, "trees": TreeClassifier}
_LEAST = np.float32(1e-12)


class SoftVotingClassifier(nn.Module):
    """Mean of the probabilities of linear models and trees on the same features.

    Parameters
    ----------
    members
        At least one model; all of the same D features and C classes.

    Raises
    ------
    ConfigError
        If there is no member, or their shapes differ.
    """

    def __init__(self, members: Sequence[LinearClassifier | TreeClassifier]) -> None:
        super().__init__()
        shapes = {(member.in_features, member.num_classes) for member in members}
        if len(shapes) != 1:
            raise ConfigError("soft voting needs models of the same numbers of features and of classes")
        self.members: Any = nn.ModuleList(members)
        ((self.in_features, self.num_classes),) = shapes

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return float64[N, C]; memberships are ignored. DataError if the rows have other features."""
        return inference(self).predict_proba(X, S)

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config`` as JSON values."""
        return {"kind": "soft_voting", "members": [member.config() for member in self.members]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SoftVotingClassifier:
        """Return untrained members built from the output of ``config()``; ConfigError if one has another kind."""
        members = config["members"]
        if unknown := [shape.get("kind") for shape in members if shape.get("kind") not in _MEMBERS]:
            raise ConfigError(f"soft voting has no member of kind {unknown[0]!r}; known are {', '.join(_MEMBERS)}")
        return cls([_MEMBERS[shape["kind"]].from_config(shape) for shape in members])


class _VotingInference(ChunkedInference):
    """The same by NumPy."""

    def __init__(self, model: SoftVotingClassifier) -> None:
        self._members: list[Any] = [inference(member) for member in model.members]
        widest = max([model.num_classes, *(getattr(member, "n_trees", 0) for member in model.members)])
        super().__init__(model.in_features, model.num_classes, max(widest, model.in_features))

    def logits(
        self, X: FeatureRows, rows: slice, S: SliceMatrix | None = None, inside: NDArray[np.bool_] | None = None
    ) -> Floats:
        total = np.zeros((rows.stop - rows.start, self._num_classes), np.float32)
        for member in self._members:
            logits = member.logits(X, rows)
            logits -= logits.max(axis=1, keepdims=True)
            np.exp(logits, out=logits)
            total += logits / logits.sum(axis=1, keepdims=True)
        return np.log(np.maximum(total / len(self._members), _LEAST))


inference.register(SoftVotingClassifier, _VotingInference)
