"""Last-layer refit on validation rows: cross-fitted, weighted L2 logistic regression.

After deep feature reweighting (Kirichenko, Izmailov and Wilson, 2023), with residuals and logits among the
features.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from models.batches import CHUNK_NUMBERS, Split, memberships
from models.model_selection import SelectionScore, selection_score
from models.objectives import cell_rarity
from models.slice_residual import SliceResidualClassifier
from sfs.matrix import SliceMatrix

Floats: TypeAlias = NDArray[np.float64]

STRENGTHS = (0.01, 0.1, 1.0)
POWERS = (0.0, 0.5, 1.0)
MAX_WEIGHT_RATIO = 50.0
_ITERATIONS = 500
_TOLERANCE, _ROUGH = 1e-4, 1e-3  # of the layer that is shipped, and of those that are compared


@dataclass(frozen=True, slots=True)
class LastLayer:
    """A linear layer on F features: weight float[C, F] and bias float[C]."""

    weight: Floats
    bias: Floats

    def probabilities(self, features: Floats) -> Floats:
        """Return float[N, C] for float[N, F]."""
        out: Floats = scipy.special.softmax(features @ self.weight.T + self.bias, axis=1)
        return out


@dataclass(frozen=True, slots=True)
class Refit:
    """Refitted last layer with its cross-fitted scores, with and without known memberships."""

    layer: LastLayer
    strength: float
    power: float
    score: SelectionScore
    score_unknown: SelectionScore


def refit_last_layer(model: SliceResidualClassifier, valid: Split, seed: int) -> Refit | None:
    """Fit the last layer on validation rows; None where they have no two halves with every class in both.

    Both scores are cross-fitted: a row is predicted by a layer that was fitted neither on it nor on a copy of
    it (``valid.groups``).
    """
    y, member = valid.y, valid.S.member
    halves = two_halves(y, np.random.default_rng(seed), valid.groups)
    if any(np.bincount(y[half], minlength=model.num_classes).min() < 1 for half in (halves, ~halves)):
        return None
    features = last_layer_features(model, valid, valid.S)
    unknown = last_layer_features(model, valid, None) if model.reads_memberships else features

    def cross_fitted(layers: list[LastLayer], features: Floats) -> SelectionScore:
        first, second = (layer.probabilities(features) for layer in layers)
        return selection_score(np.where(halves[:, None], first, second), y, member)

    trials = []
    for power in POWERS:
        weight = refit_weights(y, member, power)
        paths = [_path(features[~half], y[~half], weight[~half], STRENGTHS, _ROUGH) for half in (halves, ~halves)]
        for strength, *layers in zip(STRENGTHS, *paths, strict=True):
            trials.append((cross_fitted(layers, features), strength, power, layers))
    score, strength, power, layers = max(trials, key=lambda trial: trial[0].value)
    (layer,) = _path(features, y, refit_weights(y, member, power), [strength], _TOLERANCE)
    return Refit(layer, strength, power, score, cross_fitted(layers, unknown))


def last_layer_features(model: SliceResidualClassifier, rows: Split, S: SliceMatrix | None) -> Floats:
    """Return float[N, F], the features of the refitted layer; S None makes every membership unknown."""
    slices = memberships(S, model.kept, len(rows))
    chunk = max(1, CHUNK_NUMBERS // model.backbone.in_features)
    out = []
    with torch.inference_mode():
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            terms = model.terms(rows.X.take(part), slices.take(part))
            out.append(model.refit_features(terms).double().numpy())
    return np.concatenate(out)


def refit_weights(y: NDArray[np.int64], member: NDArray[np.bool_], power: float) -> Floats:
    """Return float[N]: (n / n_cell) ** power of the rarest of a row's cells, at most 50 times the smallest.

    The cells are the classes, and the slices crossed with the classes.
    """
    sizes = np.bincount(y)
    rarity = np.maximum(cell_rarity(y, member), len(y) / sizes[y]) ** power
    capped: Floats = np.minimum(rarity, MAX_WEIGHT_RATIO * rarity.min())
    weights: Floats = capped / capped.mean()
    return weights


def two_halves(
    y: NDArray[np.int64], generator: np.random.Generator, groups: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Return bool[N] that marks half of every class at random.

    Rows of one group (int64[N]) stay together, under the class of its first row; without groups every row is
    one. Larger groups are placed first, each in the first half if it fits there, so that the halves of a class
    differ by less than its largest group.
    """
    keys = np.arange(len(y)) if groups is None else groups
    _, leaders, group_of, sizes = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    first = np.zeros(len(leaders), dtype=bool)  # [groups]
    for c in np.unique(y[leaders]):
        members = np.flatnonzero(y[leaders] == c)
        shuffled = generator.permutation(members[np.argsort(leaders[members])])
        room = int(sizes[members].sum()) // 2
        for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            if sizes[group] <= room:
                first[group] = True
                room -= int(sizes[group])
    return first[group_of.reshape(-1)]


def _path(
    features: Floats, y: NDArray[np.int64], weight: Floats, strengths: Sequence[float], tolerance: float
) -> Iterator[LastLayer]:
    """Yield layers on the raw features, fitted on standardised ones, each from the one before."""
    from sklearn.exceptions import ConvergenceWarning  # slow to import, and not needed at serving
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-9] = 1.0
    standardised = (features - mean) / scale
    regression = LogisticRegression(max_iter=_ITERATIONS, tol=tolerance, warm_start=True)
    for strength in strengths:
        regression.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # sufficient: selection depends on the score
            regression.fit(standardised, y, sample_weight=weight)
        coefficients: Floats = regression.coef_ / scale
        intercepts: Floats = regression.intercept_ - coefficients @ mean
        if len(coefficients) == 1:  # two classes: logits of the second against the first
            coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
            intercepts = np.array([0.0, intercepts[0]])
        yield LastLayer(coefficients, intercepts)
