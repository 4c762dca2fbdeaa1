"""Peers of the learner that keep the hidden layers of an ERM network and refit its last layer.

N rows, H hidden units, C classes. Settings are chosen on validation rows: where these are what the layer is fitted on,
by halves, each predicted by a layer of the other; the layer is then fitted on all of them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
import scipy
import torch
from learner_peers import ErmGrid, LastTraining
from network_stack import Checkpoints, RowWeights, StackTraining, WorstSlice
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from models.baselines import PlainClassifier
from models.batches import FeatureRows, Split
from models.config import LearnerConfig
from models.objectives import cell_rarity
from models.refit import two_halves

Floats = NDArray[np.float64]

LAYERS = 15
"""Last layers in a search."""


class Layer(NamedTuple):
    """A last layer: weight float[C, H] and bias float[C]."""

    weight: Floats
    bias: Floats

    @classmethod
    def of(cls, network: PlainClassifier) -> Layer:
        """Return that of a network."""
        weight, bias = (each.detach().double().numpy() for each in (network.head.weight, network.head.bias))
        return cls(weight, bias)

    def probabilities(self, Z: Floats) -> Floats:
        """Return float[N, C] of hidden units float[N, H]."""
        return np.asarray(scipy.special.softmax(Z @ self.weight.T + self.bias, axis=1))

    def put_on(self, network: PlainClassifier) -> PlainClassifier:
        """Return a copy of a network with this last layer."""
        out = copy.deepcopy(network)
        with torch.no_grad():
            out.head.weight[:] = torch.from_numpy(self.weight)
            out.head.bias[:] = torch.from_numpy(self.bias)
        return out


def hidden(network: PlainClassifier, X: FeatureRows) -> Floats:
    """Return the hidden units of N rows, float[N, H]."""
    with torch.inference_mode():
        parts = [network.backbone(X.take(slice(at, at + 2_000))).numpy() for at in range(0, len(X), 2_000)]
    return np.concatenate(parts).astype(np.float64)


def logistic_layer(Z: Floats, y: NDArray[np.int64], weights: Floats, strength: float) -> Layer:
    """Return the weighted logistic regression on standardised hidden units; every class has rows."""
    mean, scale = Z.mean(axis=0), Z.std(axis=0)
    scale[scale < 1e-9] = 1.0
    regression = LogisticRegression(C=strength, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the score decides
        regression.fit((Z - mean) / scale, y, sample_weight=weights)
    weight, bias = regression.coef_ / scale, regression.intercept_
    bias = bias - weight @ mean
    if len(weight) == 1:  # two classes
        weight, bias = np.concatenate([0 * weight, weight]), np.array([0.0, bias[0]])
    return Layer(weight, bias)


def moved_layer(Z: Floats, y: NDArray[np.int64], weights: Floats, start: Layer, penalty: float) -> Layer:
    """Return the layer with the least loss: the sum of weights times cross entropies, plus penalty |w - start|^2."""
    C, H = start.weight.shape
    origin = np.column_stack([start.weight, start.bias]).ravel()
    units = np.column_stack([Z, np.ones(len(Z))])
    truth = np.eye(C)[y]

    def loss(flat: Floats) -> tuple[float, Floats]:
        logits = units @ flat.reshape(C, H + 1).T
        of_classes = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
        error = weights[:, None] * (np.exp(of_classes) - truth)
        away = flat - origin
        value = -(weights * of_classes[np.arange(len(y)), y]).sum() + penalty * (away @ away)
        return float(value), (error.T @ units).ravel() + 2 * penalty * away

    found = scipy.optimize.minimize(loss, origin, jac=True, method="L-BFGS-B", options={"maxiter": 100})
    fitted = found.x.reshape(C, H + 1)
    return Layer(fitted[:, :H], fitted[:, H])


def class_weights(y: NDArray[np.int64]) -> Floats:
    """Return float[N] with mean 1, under which classes have equal weight."""
    weights = 1.0 / np.bincount(y)[y]
    return np.asarray(weights / weights.mean())


def cell_weights(y: NDArray[np.int64], member: NDArray[np.bool_], power: float) -> Floats:
    """Return float[N] with mean 1: (n / n_cell) ** power of a row's rarest cell, a class or a slice and class."""
    rarity = np.maximum(cell_rarity(y, member), len(y) / np.bincount(y)[y]) ** power
    return np.asarray(rarity / rarity.mean())


def afr_weights(P: Floats, y: NDArray[np.int64], gamma: float) -> Floats:
    """Return float[N] with sum 1, in proportion to exp(-gamma p) / n_class, where p is that of the right class."""
    raw = np.exp(-gamma * P[np.arange(len(y)), y]) / np.bincount(y)[y]
    return np.asarray(raw / raw.sum())


def disagreements(early: Floats, late: Floats, n: int) -> NDArray[np.int64]:
    """Return the n rows on which two models disagree most, by the divergence KL(early || late)."""
    divergence = scipy.special.rel_entr(early, np.maximum(late, 1e-300)).sum(axis=1)
    return np.asarray(np.sort(np.argsort(-divergence, kind="stable")[:n]))


class LastLayer(Protocol):
    """A way to fit a last layer on some rows."""

    def settings(self) -> Sequence[tuple[float, ...]]:
        """Return 15 settings."""
        ...

    def layer(self, rows: NDArray[np.int64], *setting: float) -> Layer:
        """Return the layer fitted on these validation rows."""
        ...


def search(method: LastLayer, Z: Floats, valid: Split, seed: int) -> Layer:
    """Return the layer of all validation rows with the setting that is best across halves."""
    halves, criterion = two_halves(valid.y, np.random.default_rng(seed), valid.groups), WorstSlice(valid)
    every = np.arange(len(valid))

    def score(setting: tuple[float, ...]) -> float:
        P = np.empty((len(valid), int(valid.y.max()) + 1))
        for half in (halves, ~halves):
            P[half] = method.layer(every[~half], *setting).probabilities(Z[half])
        return criterion.score(P)

    return method.layer(every, *max(method.settings(), key=score))


class GroupBalanced:
    """Layers on rows weighted by their cells."""

    def __init__(self, Z: Floats, valid: Split) -> None:
        self.Z, self.valid = Z, valid

    def settings(self) -> Sequence[tuple[float, ...]]:
        """Return inverse strengths and powers."""
        return [*product((0.003, 0.01, 0.1, 1.0, 10.0), (0.0, 0.5, 1.0))]

    def layer(self, rows: NDArray[np.int64], *setting: float) -> Layer:
        """Return the logistic regression."""
        strength, power = setting
        y, member = self.valid.y[rows], self.valid.S.member[rows]
        return logistic_layer(self.Z[rows], y, cell_weights(y, member, power), strength)


class ClassBalanced:
    """Layers on rows weighted by their class."""

    def __init__(self, Z: Floats, valid: Split) -> None:
        self.Z, self.valid = Z, valid

    def settings(self) -> Sequence[tuple[float, ...]]:
        """Return inverse strengths."""
        return [(float(strength),) for strength in np.logspace(-3, 2, LAYERS)]

    def layer(self, rows: NDArray[np.int64], *setting: float) -> Layer:
        """Return the logistic regression."""
        y = self.valid.y[rows]
        return logistic_layer(self.Z[rows], y, class_weights(y), *setting)


class Disagreeing:
    """Layers moved from that of ERM on the rows where an early network disagrees with it, classes balanced."""

    penalty = 0.01

    def __init__(self, network: PlainClassifier, early: Sequence[PlainClassifier], Z: Floats, valid: Split) -> None:
        self.start, self.Z, self.y = Layer.of(network), Z, valid.y
        self.late = network.predict_proba(valid.X)
        self.early = [each.predict_proba(valid.X) for each in early]

    def settings(self) -> Sequence[tuple[float, ...]]:
        """Return the positions of early networks, and shares of the rows."""
        return [*product(range(len(self.early)), (0.02, 0.05, 0.1, 0.25, 0.5))]

    def layer(self, rows: NDArray[np.int64], *setting: float) -> Layer:
        """Return the moved layer."""
        which, share = setting
        n = max(20, round(share * len(rows)))
        chosen = rows[disagreements(self.early[int(which)][rows], self.late[rows], n)]
        weights = class_weights(self.y[chosen]) / len(chosen)
        return moved_layer(self.Z[chosen], self.y[chosen], weights, self.start, self.penalty)


class DeepFeatureReweighting:
    """Logistic regression on the hidden units of validation rows, weighted by the rarity of their slice and class.

    The paper draws equally many rows of each group; slices overlap, so that rows are weighted here.

    References
    ----------
    Kirichenko, Izmailov and Wilson. Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations.
    ICLR 2023.
    """

    name = "last-layer retraining (DFR)"

    def __init__(self, grid: ErmGrid) -> None:
        self.grid = grid

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the best ERM network with a new last layer."""
        network = self.grid.trained(train, valid, num_classes, seed).best(WorstSlice(valid)).network
        Z = hidden(network, valid.X)
        return search(GroupBalanced(Z, valid), Z, valid, seed).put_on(network)


class ClassBalancedLastLayer:
    """The same with classes in place of slices.

    References
    ----------
    LaBonte, Muthukumar and Kumar. Towards Last-layer Retraining for Group Robustness with Fewer Annotations.
    NeurIPS 2023.
    """

    name = "class-balanced last layer"

    def __init__(self, grid: ErmGrid) -> None:
        self.grid = grid

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the best ERM network with a new last layer."""
        network = self.grid.trained(train, valid, num_classes, seed).best(WorstSlice(valid)).network
        Z = hidden(network, valid.X)
        return search(ClassBalanced(Z, valid), Z, valid, seed).put_on(network)


class SelectiveFinetuning:
    """SELF: the last layer of ERM, tuned on the validation rows where an early network disagrees with it.

    The paper stops the tuning early; an L2 penalty on the distance from ERM's layer takes that place here.

    References
    ----------
    LaBonte, Muthukumar and Kumar. Towards Last-layer Retraining for Group Robustness with Fewer Annotations.
    NeurIPS 2023.
    """

    name = "SELF"

    def __init__(self, grid: ErmGrid) -> None:
        self.grid = grid

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the best ERM network with a tuned last layer."""
        trained = self.grid.trained(train, valid, num_classes, seed)
        network = trained.best(WorstSlice(valid)).network
        early = [trained.network(epoch) for epoch in self.grid.early_epochs()]
        Z = hidden(network, valid.X)
        return search(Disagreeing(network, early, Z, valid), Z, valid, seed).put_on(network)


class AutomaticFeatureReweighting:
    """AFR: ERM on four fifths of the training rows, its last layer refitted on the rest with a weight on errors.

    References
    ----------
    Qiu, Potapczynski, Izmailov and Wilson. Simple and Fast Group Robustness by Automatic Feature Reweighting.
    ICML 2023.
    """

    name = "AFR"
    gammas = (1.0, 4.0, 8.0, 12.0, 20.0)
    penalties = (0.0, 0.1, 0.3)
    held_share = 0.2

    def __init__(self, recipe: LearnerConfig) -> None:
        self.recipe = recipe
        self._last: LastTraining[tuple[Split, Checkpoints]] = LastTraining()

    def trained(self, train: Split, valid: Split, num_classes: int, seed: int) -> tuple[Split, Checkpoints]:
        """Return the held training rows, and the checkpoints of the recipe on the others."""
        if (found := self._last.get(train, valid, seed)) is not None:
            return found
        held = np.random.default_rng(seed).random(len(train)) < self.held_share
        rest, kept = train.subset(np.flatnonzero(~held)), train.subset(np.flatnonzero(held))
        checkpoints = StackTraining(self.recipe, num_classes, [1.0], [0.0], seed).run(
            rest, valid, RowWeights(np.ones((1, len(rest))))
        )
        return self._last.put(train, valid, seed, (kept, checkpoints))

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the network with the best last layer on validation rows."""
        kept, checkpoints = self.trained(train, valid, num_classes, seed)
        criterion = WorstSlice(valid)
        network = checkpoints.best(criterion).network
        start, Z, of_valid = Layer.of(network), hidden(network, kept.X), hidden(network, valid.X)
        P = start.probabilities(Z)
        layers = [
            moved_layer(Z, kept.y, afr_weights(P, kept.y, gamma), start, penalty)
            for gamma, penalty in product(self.gammas, self.penalties)
        ]
        found = max(layers, key=lambda layer: criterion.score(layer.probabilities(of_valid)))
        return found.put_on(network)
