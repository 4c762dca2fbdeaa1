"""Labels and probabilities: from one to the other, and rows by their combination of labels."""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.errors import DataError
from models.metrics import label_array

TieBreak: TypeAlias = Literal["random", "true-random", "abstain"]

_log = logging.getLogger(__name__)


def get_label_buckets(*y: ArrayLike) -> dict[tuple[Any, ...], NDArray[np.int64]]:
    """Return the positions of the rows that have each combination of labels, in order of first occurrence.

    Raises
    ------
    DataError
        If the label sets differ in length, or there are none.

    Examples
    --------
    >>> buckets = get_label_buckets(["spam", "ham", "spam"], ["spam", "spam", "spam"])
    >>> buckets["spam", "spam"], ("ham", "ham") in buckets
    (array([0, 2]), False)
    """
    columns = [label_array(labels).tolist() for labels in y]
    if len({len(column) for column in columns}) != 1:
        raise DataError("Arrays must all have the same number of elements")
    rows: dict[tuple[Any, ...], list[int]] = {}
    for row, bucket in enumerate(zip(*columns, strict=True)):
        rows.setdefault(bucket, []).append(row)
    return {bucket: np.array(positions) for bucket, positions in rows.items()}


def get_label_instances(bucket: tuple[Any, ...], x: NDArray[Any], *y: ArrayLike) -> NDArray[Any]:
    """Return the rows of x that have one combination of labels; none, and a warning, where no row has it.

    Raises
    ------
    DataError
        If the bucket's length is not the number of label sets, or x has another number of rows than they.
    """
    if len(y) != len(bucket):
        raise DataError("Number of lists must match the amount of labels in bucket")
    if len(x) != len(np.asarray(y[0])):
        raise DataError("Number of rows in x does not match number of elements in at least one label list")
    buckets = get_label_buckets(*y)
    if bucket not in buckets:
        _log.warning("Bucket %s does not exist.", bucket)
        return np.array([])
    return x[buckets[bucket]]


def probs_to_preds(
    probs: NDArray[np.floating[Any]], tie_break_policy: TieBreak = "random", tol: float = 1e-5
) -> NDArray[np.int64]:
    """Return the likeliest class of each row.

    Parameters
    ----------
    probs
        float[N, C].
    tie_break_policy
        Among classes within ``tol`` of the largest: ``random`` takes one by a hash of the row's position,
        ``true-random`` by chance, ``abstain`` none (-1).

    Raises
    ------
    DataError
        If there are fewer than two classes, or no such policy.
    """
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise DataError(
            f"probs must have probabilities for at least 2 classes, got shape {list(probs.shape)}"
        )
    if tie_break_policy not in ("random", "true-random", "abstain"):
        raise DataError(f"tie_break_policy={tie_break_policy} policy not recognized.")
    preds: NDArray[np.int64] = probs.argmax(axis=1).astype(np.int64)
    tied = np.abs(probs - probs.max(axis=1, keepdims=True)) < tol  # [N, C]
    for row in np.flatnonzero(tied.sum(axis=1) > 1):
        preds[row] = _break_tie(np.flatnonzero(tied[row]), int(row), tie_break_policy)
    return preds


def _break_tie(classes: NDArray[np.int64], row: int, policy: TieBreak) -> int:
    if policy == "abstain":
        return -1
    if policy == "true-random":
        return int(np.random.default_rng().choice(classes))
    digest = hashlib.sha1(str(row).encode(), usedforsecurity=False).hexdigest()
    return int(classes[int(digest, 16) % len(classes)])


def preds_to_probs(preds: ArrayLike, num_classes: int) -> NDArray[np.float64]:
    """Return float[N, C], 1 at the predicted class.

    Raises
    ------
    DataError
        If a prediction is no class (an abstained -1, for one).
    """
    classes = label_array(preds)
    if ((classes < 0) | (classes >= num_classes)).any():
        bad = classes[(classes < 0) | (classes >= num_classes)][0]
        raise DataError(
            f"Could not convert abstained vote to probability: {bad} is none of {num_classes} classes"
        )
    out: NDArray[np.float64] = np.eye(num_classes)[classes]
    return out
