"""Inference by NumPy: a fitted network as arrays, several times faster than torch for the few rows of a request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import singledispatch
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn

from models.baselines import MLP, PlainClassifier
from models.batches import CHUNK_NUMBERS, FeatureRows, check_same_rows, require_finite
from models.errors import DataError
from models.slice_residual import SliceResidualClassifier
from sfs.matrix import SliceMatrix

Floats = NDArray[np.float32]
BoolMatrix = NDArray[np.bool_]


class Inference(Protocol):
    """Probabilities of rows by a network whose weights do not change.

    ``indicated`` names the slices of which the network has an indicator.
    """

    indicated: tuple[str, ...]

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return float64[N, C]; raise DataError or ModelError as the network."""
        ...

    def predict_indicated(self, X: FeatureRows, S: SliceMatrix) -> tuple[NDArray[np.float64], BoolMatrix]:
        """Return the same, and the memberships by the indicators, bool[N, len(indicated)]."""
        ...


@singledispatch
def inference(network: Any) -> Inference:
    """Return the fast form of a fitted network; a network without one is returned itself.

    The weights are read once: later changes of the network have no effect.
    """
    return cast(Inference, network)


class _Linear:
    """Linear layer: weight float32[D, H], so that a feature is a row in memory, and bias float32[H]."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight: Floats = layer.weight.detach().numpy().T.copy()
        self.bias: Floats = layer.bias.detach().numpy().copy()

    def __call__(self, X: Floats) -> Floats:
        return self.after(X @ self.weight)

    def after(self, product: Floats) -> Floats:
        product += self.bias
        return product


class _Layers:
    """Layers of a backbone, each with ReLU."""

    def __init__(self, backbone: MLP) -> None:
        self.first = _Linear(backbone.first)
        self.rest = [_Linear(layer) for layer in backbone.rest if isinstance(layer, nn.Linear)]

    def __call__(self, X: FeatureRows, rows: slice, shift: Floats | None = None) -> Floats:
        """Return float32[B, H] of some rows; ``shift`` is added before the first ReLU."""
        hidden = self.first.after(X.product(rows, self.first.weight))
        if shift is not None:
            hidden += shift
        np.maximum(hidden, 0, out=hidden)
        for layer in self.rest:
            hidden = layer(hidden)
            np.maximum(hidden, 0, out=hidden)
        return hidden


class ChunkedInference(ABC):
    """Prediction in chunks of rows, none of which has too many numbers."""

    indicated: tuple[str, ...] = ()

    def __init__(self, in_features: int, num_classes: int, widest: int) -> None:
        self._in_features, self._num_classes = in_features, num_classes
        self._chunk = max(1, CHUNK_NUMBERS // max(1, widest))

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return float64[N, C]."""
        return self._predict(X, S, None)

    def predict_indicated(self, X: FeatureRows, S: SliceMatrix) -> tuple[NDArray[np.float64], BoolMatrix]:
        """Return float64[N, C], and the memberships by the indicators, bool[N, len(indicated)]."""
        inside = np.zeros((len(X), len(self.indicated)), np.bool_)
        return self._predict(X, S, inside), inside

    def _predict(self, X: FeatureRows, S: SliceMatrix | None, inside: BoolMatrix | None) -> NDArray[np.float64]:
        if X.shape[1] != self._in_features:
            raise DataError(f"the model reads {self._in_features} features, these rows have {X.shape[1]}")
        check_same_rows(S, len(X))
        with np.errstate(over="ignore", invalid="ignore"):  # an output that is not finite is an error
            if 0 < len(X) <= self._chunk:
                return _softmax(self.logits(X, slice(0, len(X)), S, inside), 0)
            out = np.empty((len(X), self._num_classes))
            for start in range(0, len(X), self._chunk):
                rows = slice(start, min(start + self._chunk, len(X)))
                part = None if S is None else S.take(rows)
                out[rows] = _softmax(self.logits(X, rows, part, None if inside is None else inside[rows]), start)
            return out

    @abstractmethod
    def logits(self, X: FeatureRows, rows: slice, S: SliceMatrix | None, inside: BoolMatrix | None) -> Floats:
        """Return float32[B, C] of some rows, by the memberships of these rows; fill those by the indicators."""


class _Plain(ChunkedInference):
    """A plain network."""

    def __init__(self, network: PlainClassifier) -> None:
        super().__init__(network.backbone.in_features, network.num_classes, max(network.backbone.widths))
        self._layers, self._head = _Layers(network.backbone), _Linear(network.head)

    def logits(
        self, X: FeatureRows, rows: slice, S: SliceMatrix | None = None, inside: BoolMatrix | None = None
    ) -> Floats:
        return self._head(self._layers(X, rows))


class _Residual(ChunkedInference):
    """Residuals of slices; the formulas are those of `SliceResidualClassifier.terms`."""

    def __init__(self, network: SliceResidualClassifier) -> None:
        widest = max(*network.backbone.widths, network.heads.out_features)
        super().__init__(network.backbone.in_features, network.num_classes, widest)
        self._layers, self._heads = _Layers(network.backbone), _Linear(network.heads)
        self._kept, self._reads = network.kept, network.reads_memberships
        self.indicated = () if network.mode == "emb" else network.kept
        weights = {name: weight.detach().numpy().copy() for name, weight in network.state_dict().items()}
        self._coverage: Floats = weights["coverage"]
        self._embedding: Floats | None = weights.get("embedding")
        self._slope: Floats | None = weights.get("slope")
        self._trust: Floats | None = expit(weights["mix"]) if "mix" in weights else None
        self._refit = None if network.refit is None else _Linear(network.refit)
        self._companion: _Plain | None = None
        if network.companion is not None and self._reads and network.unknown_rows == "companion":
            self._companion = _Plain(network.companion)

    def logits(self, X: FeatureRows, rows: slice, S: SliceMatrix | None, inside: BoolMatrix | None) -> Floats:
        if S is None or not self._reads:
            if self._companion is not None:
                return self._companion.logits(X, rows)
            return self._logits(X, rows, None, None, inside)
        if S.names != self._kept:
            S = S.align(self._kept)
        if not S.unknown.any():  # as usual
            return self._logits(X, rows, S.member, None, inside)
        out = self._logits(X, rows, S.member, S.unknown, inside)
        if self._companion is not None:
            lacking = S.unknown.any(axis=1)
            out[lacking] = self._companion.logits(X, rows)[lacking]
        return out

    def _logits(
        self,
        X: FeatureRows,
        rows: slice,
        member: BoolMatrix | None,
        unknown: BoolMatrix | None,
        inside: BoolMatrix | None,
    ) -> Floats:
        """Return float32[B, C] by bool[B, K]; all memberships are known without ``unknown``, none without both."""
        C, K = self._num_classes, len(self._kept)
        if self._embedding is not None:
            values = np.tile(self._coverage, (rows.stop - rows.start, 1)) if member is None else member
            if unknown is not None:
                values = np.where(unknown, self._coverage, values)
            hidden = self._layers(X, rows, values @ self._embedding if K else None)
            base = self._heads(hidden)
            return base if self._refit is None else self._refit(_joined(hidden, base))
        hidden = self._layers(X, rows)
        out = self._heads(hidden)  # [B, C + K*C + K]
        base, gates = out[:, :C], expit(out[:, C + K * C :])
        if inside is not None:
            np.greater(out[:, C + K * C :], 0, out=inside)
        if self._trust is not None and member is not None:
            observed = gates * (1 - self._trust) + self._trust * member
            gates = observed if unknown is None else np.where(unknown, gates, observed)
        heads = out[:, C : C + K * C].reshape(len(out), K, C)
        residual = (gates[:, None, :] @ heads)[:, 0]  # [B, C]
        if self._slope is not None:
            residual += base * (gates @ self._slope)[:, None]
        logits = base + residual
        return logits if self._refit is None else self._refit(_joined(hidden, residual, logits))


def _joined(hidden: Floats, *logits: Floats) -> Floats:
    """Return the features of the refitted last layer, as `SliceResidualClassifier.refit_features`."""
    return np.concatenate([hidden, *(each[:, 1:] - each[:, :1] for each in logits)], axis=1)


def _softmax(logits: Floats, start: int) -> NDArray[np.float64]:
    """Return float64[B, C] of the logits of rows ``start`` onwards; ModelError if one is not finite."""
    require_finite(logits, start)
    exponents = logits.astype(np.float64)
    exponents -= exponents.max(axis=1, keepdims=True)
    np.exp(exponents, out=exponents)
    exponents /= exponents.sum(axis=1, keepdims=True)
    return exponents


inference.register(PlainClassifier, _Plain)
inference.register(SliceResidualClassifier, _Residual)
