"""Which slices earn their residual: those whose removal costs more than chance on validation rows."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn import functional

from models.batches import Memberships, Split, memberships
from models.inference import CHUNK_NUMBERS
from models.slice_residual import SliceResidualClassifier

MAX_UNGATED = 20
"""With this many slices or fewer none is dropped: there gating costs more than it saves."""
USELESS_LET_THROUGH = 3


def gate_threshold(n_slices: int) -> float:
    """Return the standard errors that a gain must exceed, so that about three useless slices pass.

    Examples
    --------
    >>> round(gate_threshold(100), 2)
    1.88
    """
    share = 1 - USELESS_LET_THROUGH / n_slices
    return max(0.0, NormalDist().inv_cdf(share)) if share > 0 else 0.0


def kept_slices(model: SliceResidualClassifier, valid: Split) -> tuple[str, ...]:
    """Return the slices without whose residual the validation loss rises by more than chance.

    The loss without the residual less the loss with it is summed over rows; a slice stays if the sum exceeds
    ``gate_threshold(K)`` times the root of the sum of squares.
    """
    slices = memberships(valid.S, model.kept, len(valid))
    y = torch.from_numpy(valid.y)
    K = len(model.kept)
    total, squares = torch.zeros(K, dtype=torch.float64), torch.zeros(K, dtype=torch.float64)
    chunk = max(1, CHUNK_NUMBERS // max(model.backbone.in_features, K * model.num_classes))
    with torch.inference_mode():
        for start in range(0, len(valid), chunk):
            part = slice(start, start + chunk)
            gains = _gains(model, valid.X.take(part), slices.take(part), y[part]).double()  # [B, K]
            total += gains.sum(dim=0)
            squares += gains.square().sum(dim=0)
    passed = total > gate_threshold(K) * squares.sqrt()
    return tuple(name for name, keep in zip(model.kept, passed.tolist(), strict=True) if keep)


def _gains(model: SliceResidualClassifier, X: Tensor, slices: Memberships, y: Tensor) -> Tensor:
    logits = model(X, slices)
    without = logits[:, None, :] - model.slice_residuals(X, slices)  # [B, K, C]
    B, K, _ = without.shape
    losses = functional.cross_entropy(without.flatten(0, 1), y.repeat_interleave(K), reduction="none")
    return losses.view(B, K) - functional.cross_entropy(logits, y, reduction="none")[:, None]
