"""The rule by which checkpoints and forms are chosen: accuracy, the shrunken worst slice, and log loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rows import FeatureRows
from sfs.matrix import SliceMatrix

SHRINKAGE_ROWS = 25


@dataclass(frozen=True, slots=True)
class Score:
    """What a model is worth on validation rows: half accuracy, half worst slice, less .001 of the log loss.

    ``worst`` is the lowest slice accuracy, each as if 25 more members had the overall accuracy.
    """

    value: float
    accuracy: float
    worst: float


def selection_score(
    probabilities: NDArray[np.float64], y: NDArray[np.int64], member: NDArray[np.bool_]
) -> Score:
    """Return the score of probabilities float[N, C] for classes int[N] and known members bool[N, K].

    Examples
    --------
    >>> right = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> selection_score(right, np.array([0, 1]), np.ones((2, 1), dtype=bool)).value
    1.0
    """
    correct = (probabilities.argmax(axis=1) == y).astype(np.float64)
    accuracy = float(correct.mean())
    sizes = member.sum(axis=0)
    shrunk = (correct @ member + SHRINKAGE_ROWS * accuracy) / (sizes + SHRINKAGE_ROWS)  # [K]
    worst = float(shrunk.min(initial=np.inf)) if len(shrunk) else accuracy
    chosen = probabilities[np.arange(len(y)), y]
    log_loss = float(-np.log(np.maximum(chosen, 1e-300)).mean())
    return Score(0.5 * accuracy + 0.5 * worst - 0.001 * min(log_loss, 10.0), accuracy, worst)


def model_score(
    predict: Callable[[FeatureRows, SliceMatrix | None], NDArray[np.float64]],
    X: FeatureRows,
    y: NDArray[np.int64],
    S: SliceMatrix,
) -> Score:
    """Return the score of a model's ``predict_proba`` on labelled rows."""
    return selection_score(predict(X, S), y, S.member)
