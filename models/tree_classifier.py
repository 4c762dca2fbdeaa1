"""Gradient-boosted trees of scikit-learn, kept and served as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn

from models.batches import FeatureRows
from models.errors import ModelError
from models.inference import ChunkedInference, Floats, inference
from sfs.matrix import SliceMatrix


class TreeSettings(NamedTuple):
    """Settings of ``HistGradientBoostingClassifier``: trees a class, leaves a tree, and learning rate."""

    trees: int
    leaves: int
    rate: float

    @property
    def draft(self) -> TreeSettings:
        """About the same accuracy and confidence at half the cost."""
        return TreeSettings(max(1, self.trees // 2), self.leaves, min(1.0, 2 * self.rate))


TREES, LARGER_TREES = TreeSettings(100, 31, 0.1), TreeSettings(200, 63, 0.1)

_MOST_DEPTH = 64
_ABSENT = -10.0  # logit of a class without a row


class BoostedDraft:
    """Trees as scikit-learn fits them to N labelled rows with weights, of at least two classes.

    Missing values have indicators among the features. No rows are held back to stop the boosting.

    Attributes
    ----------
    boosting
        The classifier.
    read : int64[R]
        The features that vary, which it reads: others tell nothing, at equal cost. A category is read as the place of
        its one.
    """

    def __init__(
        self,
        X: FeatureRows,
        y: NDArray[np.int64],
        num_classes: int,
        settings: TreeSettings,
        seed: int,
        weight: NDArray[np.float64] | None = None,
    ) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import, and not needed at serving

        self.num_classes = num_classes
        self.boosting = HistGradientBoostingClassifier(
            learning_rate=settings.rate,
            max_iter=settings.trees,
            max_leaf_nodes=settings.leaves,
            early_stopping=False,
            random_state=seed,
        )
        values = X.coded(slice(0, len(X)), X.one_hot)
        varies = np.ptp(values, axis=0) > 0
        for start, stop in X.one_hot:
            varies[start:stop] = False
        varying = np.flatnonzero(varies)
        self.read = varying if len(varying) else np.zeros(1, np.int64)
        with threadpool_limits(1, user_api="openmp"):  # sums of several threads differ in their last digits
            self.boosting.fit(values[:, self.read], y, sample_weight=weight)

    def predict_proba(self, X: FeatureRows) -> NDArray[np.float64]:
        """Return float64[N, C]; several times faster than `TreeClassifier` for many rows."""
        P = np.full((len(X), self.num_classes), np.exp(_ABSENT))
        with threadpool_limits(1, user_api="openmp"):
            P[:, self.boosting.classes_] = self.boosting.predict_proba(
                X.coded(slice(0, len(X)), X.one_hot)[:, self.read]
            )
        return P


class TreeClassifier(nn.Module):
    """Sums of the leaves that a row reaches, one tree after another.

    Parameters
    ----------
    in_features
        D.
    num_classes
        C.
    n_trees
        T, of all classes.
    n_nodes
        M, of all trees.
    one_hot
        Columns of the G categories, as `FeatureRows.one_hot`.

    Attributes
    ----------
    feature : int32[M]
        Feature that a node compares, from D on the place of a category; -1 for a leaf.
    threshold : float64[M]
        Largest value that goes to the left.
    branches : int32[M, 2]
        Nodes to the left and to the right; of a leaf, itself.
    value : float32[M]
        Value of a leaf.
    root, of_class : int32[T]
        First node of each tree, and the class to whose logit it adds.
    baseline : float32[C]
        Logits without trees.
    """

    feature: torch.Tensor
    threshold: torch.Tensor
    branches: torch.Tensor
    value: torch.Tensor
    root: torch.Tensor
    of_class: torch.Tensor
    baseline: torch.Tensor

    def __init__(
        self, in_features: int, num_classes: int, n_trees: int, n_nodes: int, one_hot: Sequence[tuple[int, int]] = ()
    ) -> None:
        super().__init__()
        self.one_hot = tuple(one_hot)
        self.in_features, self.num_classes, self.n_trees, self.n_nodes = in_features, num_classes, n_trees, n_nodes
        self.register_buffer("feature", torch.full((n_nodes,), -1, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(n_nodes, dtype=torch.float64))
        self.register_buffer("branches", torch.zeros((n_nodes, 2), dtype=torch.int32))
        self.register_buffer("value", torch.zeros(n_nodes))
        self.register_buffer("root", torch.zeros(n_trees, dtype=torch.int32))
        self.register_buffer("of_class", torch.zeros(n_trees, dtype=torch.int32))
        self.register_buffer("baseline", torch.zeros(num_classes))

    @classmethod
    def fit(
        cls,
        X: FeatureRows,
        y: NDArray[np.int64],
        num_classes: int,
        settings: TreeSettings,
        seed: int,
        weight: NDArray[np.float64] | None = None,
    ) -> TreeClassifier:
        """Return the trees of N labelled rows with weights, of at least two classes.

        Missing values have indicators in X.
        """
        draft = BoostedDraft(X, y, num_classes, settings, seed, weight)
        boosting, read = draft.boosting, draft.read
        classes, rounds = boosting.classes_, boosting._predictors  # there is no public form
        trees = [(tree.nodes, k) for each in rounds for k, tree in enumerate(each)]
        sizes = [len(nodes) for nodes, _ in trees]
        model = cls(X.shape[1], num_classes, len(trees), sum(sizes), X.one_hot)
        starts = np.cumsum([0, *sizes[:-1]])
        joined = np.concatenate([nodes for nodes, _ in trees])
        of_tree = np.repeat(starts, sizes)
        leaf = joined["is_leaf"].astype(bool)
        itself = np.arange(len(joined))
        children = np.stack([np.where(leaf, itself, of_tree + joined[side]) for side in ("left", "right")], axis=1)
        model.feature[:] = torch.from_numpy(
            np.where(leaf, -1, read[np.where(leaf, 0, joined["feature_idx"])]).astype(np.int32)
        )
        model.threshold[:] = torch.from_numpy(np.where(leaf, 0.0, joined["num_threshold"]))
        model.branches[:] = torch.from_numpy(children.astype(np.int32))
        model.value[:] = torch.from_numpy(np.where(leaf, joined["value"], 0.0).astype(np.float32))
        model.root[:] = torch.from_numpy(starts.astype(np.int32))
        baseline = boosting._baseline_prediction.reshape(-1)
        one = len(classes) == 2  # logits of the second class against the first
        model.of_class[:] = torch.tensor([int(classes[1 if one else k]) for _, k in trees], dtype=torch.int32)
        model.baseline[:] = _ABSENT
        model.baseline[classes] = torch.from_numpy(np.array([0.0, baseline[0]] if one else baseline, np.float32))
        return model

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return float64[N, C]; memberships are ignored. DataError if the rows have other features."""
        return inference(self).predict_proba(X, S)

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config`` as JSON values."""
        shape = {
            "n_trees": self.n_trees,
            "n_nodes": self.n_nodes,
            "one_hot": [list(columns) for columns in self.one_hot],
        }
        return {"kind": "trees", "in_features": self.in_features, "num_classes": self.num_classes, **shape}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TreeClassifier:
        """Return trees of one leaf each, built from the output of ``config()``."""
        one_hot = [(start, stop) for start, stop in config.get("one_hot", ())]
        return cls(config["in_features"], config["num_classes"], config["n_trees"], config["n_nodes"], one_hot)


class _TreeInference(ChunkedInference):
    """All trees of some rows at once, level by level.

    Raises
    ------
    ModelError
        If nodes, features or classes are out of range.
    """

    def __init__(self, model: TreeClassifier) -> None:
        super().__init__(model.in_features, model.num_classes, max(model.n_trees, model.in_features))
        self._one_hot = model.one_hot
        self._threshold, self._value = model.threshold.numpy(), model.value.numpy()
        feature, self._branches = model.feature.numpy(), model.branches.numpy().astype(np.int64)
        self._root, self._baseline = model.root.numpy().astype(np.int64), model.baseline.numpy()
        self._leaf, self._feature = feature < 0, np.maximum(feature, 0)
        below = self._branches > np.arange(model.n_nodes)[:, None]  # so that every path ends
        if not (
            np.where(self._leaf[:, None], True, below & (self._branches < model.n_nodes)).all()
            and self._feature.max() < model.in_features + len(model.one_hot)
            and all(0 <= start < stop <= model.in_features for start, stop in model.one_hot)
            and _within(self._root, model.n_nodes)
            and _within(model.of_class.numpy(), model.num_classes)
        ):
            raise ModelError("the trees refer to nodes, features or classes that they do not have")
        nodes = np.unique(self._root)
        for _ in range(_MOST_DEPTH):
            nodes = np.unique(self._branches[nodes[~self._leaf[nodes]]])
        if len(nodes):
            raise ModelError(f"a tree is deeper than {_MOST_DEPTH} nodes")
        self._of_class = np.zeros((model.n_trees, model.num_classes), np.float32)
        self._of_class[np.arange(model.n_trees), model.of_class.numpy()] = 1

    def logits(
        self, X: FeatureRows, rows: slice, S: SliceMatrix | None = None, inside: NDArray[np.bool_] | None = None
    ) -> Floats:
        values = X.coded(rows, self._one_hot)
        nodes = np.broadcast_to(self._root, (len(values), len(self._root)))
        row = np.arange(len(values))[:, None]
        while not self._leaf[nodes].all():
            right = values[row, self._feature[nodes]] > self._threshold[nodes]
            nodes = self._branches[nodes, right.astype(np.int64)]
        return np.asarray(self._value[nodes] @ self._of_class + self._baseline, np.float32)


def _within(numbers: NDArray[np.int64], limit: int) -> bool:
    return bool(((numbers >= 0) & (numbers < limit)).all())


inference.register(TreeClassifier, _TreeInference)
