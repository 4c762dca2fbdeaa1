"""From logits to probabilities, a chunk of rows at a time; nothing here changes a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import DataError, ModelError
from models.rows import FeatureRows

CHUNK_NUMBERS = 4_000_000
"""Numbers of a layer, or dense features, held at a time (16 MB)."""


def predicted(
    rows: FeatureRows,
    in_features: int,
    num_classes: int,
    logits: Callable[[Tensor, slice], Tensor],
    *,
    widest: int = 0,
) -> NDArray[np.float64]:
    """Return probabilities float64[N, C] of what maps features float[B, D] and their place to logits.

    ``widest`` is the most numbers that the network makes of a row, where that is more than D.

    Raises
    ------
    DataError
        If the rows have another number of features.
    ModelError
        If a logit is not a finite number.
    """
    if rows.shape[1] != in_features:
        raise DataError(f"the model reads {in_features} features, these rows have {rows.shape[1]}")
    out = np.empty((len(rows), num_classes))
    chunk = max(1, CHUNK_NUMBERS // max(1, in_features, widest))
    with torch.inference_mode():
        for start in range(0, len(rows), chunk):
            part = slice(start, min(start + chunk, len(rows)))
            out[part] = probabilities(logits(rows.take(part), part), start)
    return out


def probabilities(logits: Tensor, start: int) -> NDArray[np.float64]:
    """Return float64[B, C] of the logits of rows ``start`` onwards; ModelError if one is not finite."""
    finite = torch.isfinite(logits).all(dim=1)
    if not bool(finite.all()):
        row = start + int((~finite).nonzero()[0])
        raise ModelError(
            f"the network gave no finite number for row {row}: look for NaN or infinite features there"
        )
    out: NDArray[np.float64] = logits.double().softmax(dim=1).numpy(force=True)
    return out
