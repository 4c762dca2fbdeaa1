"""Metrics of predictions by name, with Snorkel's meaning of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.errors import DataError

Labels = NDArray[Any]


class _Metric(NamedTuple):
    function: Callable[..., float | None]
    inputs: tuple[str, ...] = ("golds", "preds")


def metric_score(
    golds: ArrayLike | None = None,
    preds: ArrayLike | None = None,
    probs: ArrayLike | None = None,
    metric: str = "accuracy",
    filter_dict: Mapping[str, Sequence[Any]] | None = None,
    **kwargs: Any,
) -> float | None:
    """Return one metric, or None where no row is left to measure.

    Parameters
    ----------
    golds, preds
        Labels, [N] or [N, 1].
    probs
        float[N, C].
    filter_dict
        For ``golds``, ``preds`` or ``probs``, the values whose rows are left out.
    kwargs
        Options of the metric (``beta`` of fbeta).

    Raises
    ------
    DataError
        If the metric does not exist, or an input that it needs is missing or does not fit.

    Examples
    --------
    >>> metric_score([1, 0, 1], [1, 1, 1], metric="precision")
    0.6666666666666666
    """
    if metric not in METRICS:
        raise DataError(f"there is no metric {metric!r}; the metrics are {', '.join(METRICS)}")
    given = {
        "golds": _labels(golds),
        "preds": _labels(preds),
        "probs": None if probs is None else np.asarray(probs),
    }
    function, inputs = METRICS[metric]
    for name in inputs:
        if given[name] is None:
            raise DataError(f"{metric} is computed from {' and '.join(inputs)}, and {name} were not given")
    kept = filter_labels(given, filter_dict or {})
    arrays = [kept[name] for name in inputs]
    if len({len(array) for array in arrays}) > 1:
        raise DataError(f"{' and '.join(inputs)} differ in length: {[len(array) for array in arrays]}")
    return function(*arrays, **kwargs) if len(arrays[0]) else None


def filter_labels(
    label_dict: Mapping[str, Labels | None], filter_dict: Mapping[str, Sequence[Any]]
) -> dict[str, Labels]:
    """Return the given label sets without the rows where any of them has a filtered value.

    Raises
    ------
    DataError
        If a filter names no label set.
    """
    unknown = set(filter_dict) - set(label_dict)
    if unknown:
        raise DataError(f"filter_dict can filter {', '.join(label_dict)}; it names {sorted(unknown)}")
    given = {name: values for name, values in label_dict.items() if values is not None}
    masks = [
        ~np.isin(given[name], list(values))
        for name, values in filter_dict.items()
        if name in given and values
    ]
    if not masks:
        return given
    keep = np.logical_and.reduce([mask.reshape(len(mask), -1).all(axis=1) for mask in masks])
    return {name: values[keep] for name, values in given.items()}


def label_array(values: ArrayLike) -> Labels:
    """Return labels as a flat array; whole numbers become int64, text stays.

    Raises
    ------
    DataError
        If they are not [N] or [N, 1], or hold fractions.
    """
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"labels must be [N] or [N, 1], got {list(array.shape)}")
    if array.dtype.kind in "OUS":
        return array
    if (array != np.floor(array)).any() if array.dtype.kind == "f" else False:
        raise DataError(f"labels must be whole numbers, got {array[array != np.floor(array)][0]!r}")
    return array.astype(np.int64)


def _labels(values: ArrayLike | None) -> Labels | None:
    return None if values is None else label_array(values)


def f_measure(true_positives: int, predicted: int, actual: int, beta: float = 1.0) -> float:
    """Return F-beta from counts; 0 where nothing is positive on either side."""
    below = predicted + beta**2 * actual
    return float((1 + beta**2) * true_positives / below) if below else 0.0


def _accuracy(golds: Labels, preds: Labels) -> float:
    return float((golds == preds).mean())


def _coverage(preds: Labels) -> float:
    return float((preds != -1).mean())


def _counts(golds: Labels, preds: Labels, positive: Any = 1) -> tuple[int, int, int]:
    """Return true positives, predicted positives and actual positives."""
    hit, asked = preds == positive, golds == positive
    return int((hit & asked).sum()), int(hit.sum()), int(asked.sum())


def _precision(golds: Labels, preds: Labels) -> float:
    true_positives, predicted, _ = _counts(*_two_classes(golds, preds, "precision"))
    return true_positives / predicted if predicted else 0.0


def _recall(golds: Labels, preds: Labels) -> float:
    true_positives, _, actual = _counts(*_two_classes(golds, preds, "recall"))
    return true_positives / actual if actual else 0.0


def _f1(golds: Labels, preds: Labels) -> float:
    return f_measure(*_counts(*_two_classes(golds, preds, "f1")))


def _fbeta(golds: Labels, preds: Labels, beta: float = 1.0) -> float:
    return f_measure(*_counts(*_two_classes(golds, preds, "fbeta")), beta=beta)


def _f1_macro(golds: Labels, preds: Labels) -> float:
    classes = np.union1d(golds, preds)
    return float(np.mean([f_measure(*_counts(golds, preds, positive)) for positive in classes]))


def _two_classes(golds: Labels, preds: Labels, metric: str) -> tuple[Labels, Labels]:
    if golds.dtype.kind in "OUS" or golds.max() > 1:
        raise DataError(
            f"{metric} is of classes 0 and 1, and other labels were given: use f1_macro or f1_micro"
        )
    return golds, preds


def _matthews(golds: Labels, preds: Labels) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(golds, preds))


def _roc_auc(golds: Labels, probs: Labels) -> float | None:
    from sklearn.metrics import roc_auc_score

    if probs.ndim != 2 or probs.shape[1] != 2:
        raise DataError(f"roc_auc is of two classes: probs must be [N, 2], got {list(probs.shape)}")
    return float(roc_auc_score(golds, probs[:, 1])) if len(np.unique(golds)) == 2 else None


METRICS: dict[str, _Metric] = {
    "accuracy": _Metric(_accuracy),
    "coverage": _Metric(_coverage, ("preds",)),
    "precision": _Metric(_precision),
    "recall": _Metric(_recall),
    "f1": _Metric(_f1),
    "f1_micro": _Metric(_accuracy),  # the same where every row has one label
    "f1_macro": _Metric(_f1_macro),
    "fbeta": _Metric(_fbeta),
    "matthews_corrcoef": _Metric(_matthews),
    "roc_auc": _Metric(_roc_auc, ("golds", "probs")),
}
