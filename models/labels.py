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
        lengths = [len(column) for column in columns]
        raise DataError(f"label sets must be one or more of one length, got lengths {lengths}")
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
        raise DataError(f"bucket {bucket} names {len(bucket)} labels, but {len(y)} label sets were given")
    if len(x) != len(np.asarray(y[0])):
        raise DataError(f"x has {len(x)} rows and the first label set {len(np.asarray(y[0]))}: give as many")
    buckets = get_label_buckets(*y)
    if bucket not in buckets:
        _log.warning("no row has the labels %s", bucket)
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
        raise DataError(f"probs must be [N, C] with two classes or more, got {list(probs.shape)}")
    if tie_break_policy not in ("random", "true-random", "abstain"):
        raise DataError(f"tie_break_policy must be random, true-random or abstain, got {tie_break_policy!r}")
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
            f"prediction {bad} is none of the classes 0 to {num_classes - 1}: leave abstained rows (-1) out first"
        )
    out: NDArray[np.float64] = np.eye(num_classes)[classes]
    return out
