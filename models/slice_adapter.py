"""Slice adapter: a slope and an offset of each slice, on the logits of a model that does not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import nn

from models.batches import FeatureRows
from models.errors import ConfigError
from models.inference import ChunkedInference, Floats, inference
from sfs.matrix import SliceMatrix

PENALTIES = (1.0, 3.0, 10.0, 30.0)
"""L2 penalties of the slopes, in deviations of the base logits, and of the offsets."""

_ITERATIONS, _TOLERANCE = 200, 1e-7


class SliceAdapter(nn.Module):
    """Logits a of a base model, changed in the slices of a row: a (1 + sum of slopes) + sum of offsets.

    Base logits are centred, so that they sum to 0 over the classes. A row with an unknown membership in one of the
    slices has the base logits.

    Parameters
    ----------
    base
        The base model.
    slice_names
        The K slices of the training.
    kept
        The J of them that change logits.

    Attributes
    ----------
    slope : float32[J]
    offset : float32[J, C]
    """

    slope: torch.Tensor
    offset: torch.Tensor

    def __init__(self, base: Any, slice_names: Sequence[str], kept: Sequence[str]) -> None:
        super().__init__()
        self.slice_names, self.kept = tuple(slice_names), tuple(kept)
        if unknown := set(self.kept) - set(self.slice_names):
            raise ConfigError(f"the adapter keeps slices that it does not have: {', '.join(sorted(unknown))}")
        if len({*self.kept}) < len(self.kept):
            raise ConfigError(f"kept slices must be distinct, got {', '.join(self.kept)}")
        self.base: Any = base
        self.in_features, self.num_classes = int(base.in_features), int(base.num_classes)
        self.register_buffer("slope", torch.zeros(len(self.kept)))
        self.register_buffer("offset", torch.zeros(len(self.kept), self.num_classes))

    def set_terms(self, slope: NDArray[np.float64], offset: NDArray[np.float64]) -> None:
        """Set slopes float[J] and offsets float[J, C]."""
        self.slope[:] = torch.from_numpy(slope.astype(np.float32))
        self.offset[:] = torch.from_numpy(offset.astype(np.float32))

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return float64[N, C]. DataError if the rows have other features, or S another number of rows."""
        return inference(self).predict_proba(X, S)

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config`` as JSON values."""
        names = {"slices": list(self.slice_names), "kept": list(self.kept)}
        return {"kind": "slice_adapter", "base": self.base.config(), **names}


class _AdapterInference(ChunkedInference):
    """The same by NumPy."""

    def __init__(self, model: SliceAdapter) -> None:
        super().__init__(model.in_features, model.num_classes, model.num_classes)
        self._base: Any = inference(model.base)
        self._kept = model.kept
        self._slope, self._offset = model.slope.numpy(), model.offset.numpy()

    def logits(
        self, X: FeatureRows, rows: slice, S: SliceMatrix | None = None, inside: NDArray[np.bool_] | None = None
    ) -> Floats:
        base: Floats = self._base.logits(X, rows)
        if S is None or not self._kept:
            return base
        if S.names != self._kept:
            S = S.align(self._kept)
        base -= base.mean(axis=1, keepdims=True)
        member = S.member.astype(np.float32)
        if S.unknown.any():
            member[S.unknown.any(axis=1)] = 0
        return np.asarray(base * (1 + member @ self._slope)[:, None] + member @ self._offset)


class AdapterTerms:
    """Slopes and offsets of K slices, fitted by penalised likelihood to base logits of rows the base has not seen.

    Parameters
    ----------
    base : float64[N, C]
        Centred base logits.
    member : bool[N, K]
        Members; False where unknown.
    y : int64[N]
        Classes.
    penalty
        One of `PENALTIES`.
    """

    def __init__(
        self, base: NDArray[np.float64], member: NDArray[np.bool_], y: NDArray[np.int64], penalty: float
    ) -> None:
        (_, C), K = base.shape, member.shape[1]
        members = scipy.sparse.csr_matrix(member.astype(np.float64))
        rows = np.arange(len(y))
        deviation = max(float(base.std()), 1e-9)

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            slope, offset = flat[:K], flat[K:].reshape(K, C)
            logits = base * (1 + members @ slope)[:, None] + members @ offset
            logits -= logits.max(axis=1, keepdims=True)
            error = np.exp(logits)
            total = error.sum(axis=1, keepdims=True)
            of_classes = logits[rows, y] - np.log(total[:, 0])
            error /= total
            error[rows, y] -= 1
            steep = members.T @ (error * base).sum(axis=1) + penalty * deviation**2 * slope
            high = members.T @ error + penalty * offset
            value = -of_classes.sum()
            value += 0.5 * penalty * (deviation**2 * (slope**2).sum() + (offset**2).sum())
            return float(value), np.concatenate([steep, high.ravel()])

        start, options = np.zeros(K + K * C), {"maxiter": _ITERATIONS, "ftol": _TOLERANCE}
        found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        self.slope: NDArray[np.float64] = found.x[:K]
        self.offset: NDArray[np.float64] = found.x[K:].reshape(K, C)

    def logits(self, base: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return float64[N, C] of centred base logits and members."""
        inside = scipy.sparse.csr_matrix(member.astype(np.float64))
        return np.asarray(base * (1 + inside @ self.slope)[:, None] + inside @ self.offset)

    def gains(
        self, base: NDArray[np.float64], member: NDArray[np.bool_], y: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return by how much each slice lowers the log loss of N rows in all, float64[K], and the standard errors."""
        logits = self.logits(base, member)
        rows = np.arange(len(y))
        loss = -scipy.special.log_softmax(logits, axis=1)[rows, y]
        gains, squares = np.zeros((2, member.shape[1]))
        for k in range(member.shape[1]):
            inside = np.flatnonzero(member[:, k])
            without = logits[inside] - base[inside] * self.slope[k] - self.offset[k]
            gain = -scipy.special.log_softmax(without, axis=1)[np.arange(len(inside)), y[inside]] - loss[inside]
            gains[k], squares[k] = gain.sum(), (gain**2).sum()
        return gains, np.sqrt(squares)


inference.register(SliceAdapter, _AdapterInference)
