"""Metrics, scorers and label buckets, after Snorkel: ``Scorer``, ``SliceScorer``, ``get_label_buckets``.

An undefined metric (no rows, or the area under a curve with one class) is None.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from models.errors import DataError
from sfs.matrix import SliceMatrix

Labels = NDArray[Any]
Metric: TypeAlias = Callable[[Any, Any, Any], Any]
Scores: TypeAlias = dict[str, Any]
Slices: TypeAlias = "SliceMatrix | np.recarray[Any, Any]"
TieBreak: TypeAlias = Literal["random", "true-random", "abstain"]

OVERALL = "overall"
SCORE_COLUMNS = ["label", "dataset", "split", "metric", "score"]

_log = logging.getLogger(__name__)


class Scorer:
    """Collection of metrics, computed together.

    Parameters
    ----------
    metrics
        Names of ``models.scoring.METRICS``.
    custom_metric_funcs
        Functions of (golds, preds, probs), unfiltered, by name; a function that returns a dictionary adds all
        its entries.
    abstain_label
        Rows with this gold or predicted label are left out of every metric but ``coverage``; None keeps all.

    Raises
    ------
    DataError
        If a metric does not exist.
    """

    def __init__(
        self,
        metrics: Sequence[str] | None = None,
        custom_metric_funcs: Mapping[str, Metric] | None = None,
        abstain_label: int | None = -1,
    ) -> None:
        self.abstain_label = abstain_label
        if isinstance(metrics, str):
            raise DataError(f"metrics must be a list of names: [{metrics!r}]")
        self.metrics: dict[str, Metric] = {name: self._metric(name) for name in metrics or ()}
        self.metrics.update(custom_metric_funcs or {})

    def _metric(self, name: str) -> Metric:
        _check_metric(name, f"Unrecognized metric: {name}")
        abstained = [] if self.abstain_label is None else [self.abstain_label]
        left_out = {} if name == "coverage" else {"golds": abstained, "preds": abstained}
        return partial(metric_score, metric=name, filter_dict=left_out)

    def score(self, golds: ArrayLike, preds: ArrayLike | None = None, probs: ArrayLike | None = None) -> Scores:
        """Return each metric by name, of labels [N] or [N, 1] and probabilities float[N, C].

        Raises
        ------
        DataError
            If there are no labels, or an input of a metric is missing.
        """
        if len(np.asarray(golds)) == 0:
            raise DataError("Cannot score empty labels: golds has no rows")
        return self.score_known(golds, preds, probs)

    def score_known(self, golds: ArrayLike, preds: ArrayLike | None = None, probs: ArrayLike | None = None) -> Scores:
        """Return each metric by name, all None where there are no labels."""
        if len(np.asarray(golds)) == 0:
            return dict.fromkeys(self.metrics)
        scores: Scores = {}
        for name, metric in self.metrics.items():
            value = metric(golds, preds, probs)
            scores.update(value if isinstance(value, dict) else {name: value})
        return scores

    def score_slices(
        self, S: Slices, golds: ArrayLike, preds: ArrayLike, probs: ArrayLike, as_dataframe: bool = False
    ) -> dict[str, Scores] | pd.DataFrame:
        """Return the metrics overall and on the known members of every slice.

        A slice without members has None (NaN in the frame) for each; rows with unknown membership are in no
        slice.

        Raises
        ------
        DataError
            If the inputs differ in length, or a slice is named ``overall``.
        """
        matrix = S if isinstance(S, SliceMatrix) else SliceMatrix.from_recarray(S)
        arrays = [np.asarray(values) for values in (golds, preds, probs)]
        lengths = [len(matrix), *map(len, arrays)]
        if len(set(lengths)) > 1:
            raise DataError(f"S, golds, preds, and probs must have the same number of elements, got {lengths}")
        if OVERALL in matrix.names:
            raise DataError(f"the slice name {OVERALL!r} is reserved for all rows: rename the slice")
        scores = {OVERALL: self.score(*arrays)}
        for name in matrix.names:
            members = matrix.column(name)
            scores[name] = self.score_known(*(values[members] for values in arrays))
        return pd.DataFrame.from_dict(scores, orient="index") if as_dataframe else scores


class SliceScorer:
    """Scorer for selected slices.

    Parameters
    ----------
    scorer
        The metrics; accuracy and F1 by default. Slice names are accepted here too, in place of a scorer.
    slice_names
        The slices, in this order; all by default.
    """

    def __init__(self, scorer: Scorer | Iterable[str] | None = None, slice_names: Iterable[str] | None = None) -> None:
        names = slice_names if scorer is None or isinstance(scorer, Scorer) else scorer
        self.scorer = scorer if isinstance(scorer, Scorer) else Scorer(metrics=["accuracy", "f1"])
        self.slice_names = None if names is None else tuple(names)

    def score_slices(
        self, S: Slices, golds: ArrayLike, preds: ArrayLike, probs: ArrayLike, as_dataframe: bool = False
    ) -> dict[str, Scores] | pd.DataFrame:
        """Return the metrics overall and on the known members of the chosen slices; see `Scorer.score_slices`.

        Raises
        ------
        DataError
            If S lacks a chosen slice.
        """
        matrix = S if isinstance(S, SliceMatrix) else SliceMatrix.from_recarray(S)
        names = matrix.names if self.slice_names is None else self.slice_names
        absent = [name for name in names if name not in matrix.names]
        if absent:
            raise DataError(f"the slice matrix lacks slices {absent}; it has {list(matrix.names)}")
        return self.scorer.score_slices(matrix.align(names), golds, preds, probs, as_dataframe)


def metric_score(
    golds: ArrayLike | None = None,
    preds: ArrayLike | None = None,
    probs: ArrayLike | None = None,
    metric: str = "accuracy",
    filter_dict: Mapping[str, Sequence[Any]] | None = None,
    **kwargs: Any,
) -> Any:
    """Return a metric, or None if no rows remain after filtering.

    Parameters
    ----------
    golds, preds
        Labels, [N] or [N, 1].
    probs
        float[N, C].
    filter_dict
        Values of ``golds``, ``preds`` or ``probs`` whose rows are left out.
    kwargs
        Options of scikit-learn's function of the metric, such as ``pos_label``, ``normalize``, ``average``,
        ``sample_weight`` (of the rows before filtering) or ``beta``.

    Raises
    ------
    DataError
        If the metric does not exist or takes no options, or an input is missing or does not fit.

    Examples
    --------
    >>> metric_score([1, 0, 1], [1, 1, 1], metric="precision")
    0.6666666666666666
    """
    _check_metric(metric, f"The metric you provided ({metric}) is not currently implemented")
    given = {
        "golds": None if golds is None else label_array(golds),
        "preds": None if preds is None else label_array(preds),
        "probs": None if probs is None else np.asarray(probs),
    }
    if kwargs.get("sample_weight") is not None:
        given["sample_weight"] = np.asarray(kwargs["sample_weight"])
    function, inputs, _ = METRICS[metric]
    for name in inputs:
        if given[name] is None:
            raise DataError(f"Metric {metric} requires access to {name}: pass {' and '.join(inputs)}")
    kept = filter_labels(given, filter_dict or {})
    arrays = [kept[name] for name in inputs]
    if len({len(array) for array in arrays}) > 1:
        raise DataError(f"{' and '.join(inputs)} differ in length: {[len(array) for array in arrays]}")
    if not len(arrays[0]):
        return None
    if "sample_weight" in kept:
        kwargs["sample_weight"] = kept["sample_weight"]
    return _score_with_options(metric, *arrays, **kwargs) if kwargs else function(*arrays)


def _score_with_options(metric: str, golds: Labels, given: Any = None, **options: Any) -> Any:
    """Return scikit-learn's value of a metric; 0 for a precision or recall without rows, unless ``zero_division``."""
    name = METRICS[metric].scikit
    if name is None:
        raise DataError(f"Metric {metric} takes no options, got {', '.join(options)}")
    from sklearn import metrics

    defaults = {"zero_division": 0} if metric in ("precision", "recall", "f1", "fbeta") else {}
    if metric == "fbeta":
        defaults["beta"] = 1
    if metric == "roc_auc":
        given = _positive(given)
        if len(np.unique(golds)) != 2:
            return None
    try:
        value = getattr(metrics, name)(golds, given, **defaults | options)
    except (TypeError, ValueError) as error:
        raise DataError(f"Metric {metric} with the options {', '.join(options)}: {error}") from error
    return float(value) if np.ndim(value) == 0 else value


def _check_metric(name: str, complaint: str) -> None:
    if name not in METRICS:
        raise DataError(f"{complaint}; known are {', '.join(METRICS)}")


def filter_labels(label_dict: Mapping[str, Labels | None], filter_dict: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return the given label sets, or None, without the rows where any of them has a filtered value.

    Raises
    ------
    DataError
        If a filter names no label set.
    """
    unknown = set(filter_dict) - set(label_dict)
    if unknown:
        raise DataError(f"filter_dict must only include keys in {list(label_dict)}; it names {sorted(unknown)}")
    given = {name: values for name, values in label_dict.items() if values is not None}
    masks = [~np.isin(given[name], list(values)) for name, values in filter_dict.items() if name in given and values]
    if not masks:
        return dict(label_dict)
    keep = np.logical_and.reduce([mask.reshape(len(mask), -1).all(axis=1) for mask in masks])
    return {name: None if values is None else values[keep] for name, values in label_dict.items()}


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
        shape = list(array.shape)
        raise DataError(f"Input could not be converted to 1d np.array: labels must be [N] or [N, 1], got {shape}")
    if array.dtype.kind in "OUS":
        return array
    if array.dtype.kind == "f" and (array != np.floor(array)).any():
        raise DataError(
            f"Input contains at least one non-integer value, {array[array != np.floor(array)][0]!r}: use whole numbers"
        )
    return array.astype(np.int64)


def to_int_label_array(X: ArrayLike, flatten_vector: bool = True) -> Labels:
    """Return labels as `label_array`, of at most one axis longer than 1; unflattened, in their own shape."""
    array = np.asarray(X)
    labels = label_array(np.atleast_1d(array.squeeze()) if flatten_vector else array.reshape(-1))
    return labels if flatten_vector else labels.reshape(array.shape)


def metrics_dict_to_dataframe(metrics_dict: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row for each score, by the label, dataset, split and metric in its key; a label may have slashes."""
    rows = [(*key.rsplit("/", 3), score) for key, score in metrics_dict.items()]
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def f_measure(true_positives: int, predicted: int, actual: int) -> float:
    """Return F1 from counts; 0 where nothing is positive on either side."""
    below = predicted + actual
    return 2 * true_positives / below if below else 0.0


def _counts(golds: Labels, preds: Labels, positive: Any) -> tuple[int, int, int]:
    """Return true positives, predicted positives and actual positives."""
    predicted, actual = preds == positive, golds == positive
    return int((predicted & actual).sum()), int(predicted.sum()), int(actual.sum())


def _binary_counts(golds: Labels, preds: Labels, metric: str) -> tuple[int, int, int]:
    if golds.dtype.kind in "OUS" or golds.max() > 1:
        raise DataError(
            f"{metric} not supported for multiclass. Try f1_micro or f1_macro instead: it counts the classes 0 and 1"
        )
    return _counts(golds, preds, 1)


def _precision(golds: Labels, preds: Labels) -> float:
    true_positives, predicted, _ = _binary_counts(golds, preds, "precision")
    return true_positives / predicted if predicted else 0.0


def _recall(golds: Labels, preds: Labels) -> float:
    true_positives, _, actual = _binary_counts(golds, preds, "recall")
    return true_positives / actual if actual else 0.0


def _f1(golds: Labels, preds: Labels, metric: str) -> float:
    return f_measure(*_binary_counts(golds, preds, metric))


def _f1_macro(golds: Labels, preds: Labels) -> float:
    classes = np.union1d(golds, preds)
    return float(np.mean([f_measure(*_counts(golds, preds, positive)) for positive in classes]))


def _matthews(golds: Labels, preds: Labels) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(golds, preds))


def _roc_auc(golds: Labels, probs: Labels) -> float | None:
    from sklearn.metrics import roc_auc_score

    positive = _positive(probs)
    return float(roc_auc_score(golds, positive)) if len(np.unique(golds)) == 2 else None


def _positive(probs: Labels) -> Labels:
    if probs.ndim != 2 or probs.shape[1] != 2:
        defined = "Metric roc_auc is currently only defined for binary problems"
        raise DataError(f"{defined}: probs must be [N, 2], got {list(probs.shape)}")
    return probs[:, 1]


def _accuracy(golds: Labels, preds: Labels) -> float:
    return float((golds == preds).mean())


class _Metric(NamedTuple):
    function: Callable[..., float | None]
    inputs: tuple[str, ...] = ("golds", "preds")
    scikit: str | None = None  # its function that takes options


METRICS: dict[str, _Metric] = {
    "accuracy": _Metric(_accuracy, scikit="accuracy_score"),
    "coverage": _Metric(lambda preds: float((preds != -1).mean()), ("preds",)),
    "precision": _Metric(_precision, scikit="precision_score"),
    "recall": _Metric(_recall, scikit="recall_score"),
    "f1": _Metric(partial(_f1, metric="f1"), scikit="f1_score"),
    "f1_micro": _Metric(_accuracy),  # the same where every row has one label
    "f1_macro": _Metric(_f1_macro),
    "fbeta": _Metric(partial(_f1, metric="fbeta"), scikit="fbeta_score"),
    "matthews_corrcoef": _Metric(_matthews, scikit="matthews_corrcoef"),
    "roc_auc": _Metric(_roc_auc, ("golds", "probs"), scikit="roc_auc_score"),
}


def get_label_buckets(*y: ArrayLike) -> dict[tuple[Any, ...], NDArray[np.int64]]:
    """Return the positions of the rows of each combination of labels, in order of first occurrence.

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
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise DataError(f"Arrays must all have the same number of elements, and be one or more, got lengths {lengths}")
    rows: dict[tuple[Any, ...], list[int]] = {}
    for row, bucket in enumerate(zip(*columns, strict=True)):
        rows.setdefault(bucket, []).append(row)
    return {bucket: np.array(positions) for bucket, positions in rows.items()}


def get_label_instances(bucket: tuple[Any, ...], x: NDArray[Any], *y: ArrayLike) -> NDArray[Any]:
    """Return the rows of x with one combination of labels; none, with a warning, where it does not occur.

    Raises
    ------
    DataError
        If the bucket's length is not the number of label sets, or x and the label sets differ in length.
    """
    if len(y) != len(bucket):
        raise DataError(
            f"Number of lists must match the amount of labels in bucket {bucket}: {len(bucket)}, there are {len(y)}"
        )
    if len(x) != len(np.asarray(y[0])):
        raise DataError(
            "Number of rows in x does not match number of elements in at least one label list: "
            f"x has {len(x)}, the first list {len(np.asarray(y[0]))}"
        )
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
        If there are fewer than two classes, or the policy is unknown.
    """
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise DataError(f"probs must have probabilities for at least 2 classes, [N, C], got {list(probs.shape)}")
    if tie_break_policy not in ("random", "true-random", "abstain"):
        raise DataError(
            f"tie_break_policy={tie_break_policy} policy not recognized: use random, true-random or abstain"
        )
    preds: NDArray[np.int64] = probs.argmax(axis=1).astype(np.int64)
    tied = np.abs(probs - probs.max(axis=1, keepdims=True)) < tol  # [N, C]
    for row in np.flatnonzero(tied.sum(axis=1) > 1).tolist():
        classes = np.flatnonzero(tied[row])
        if tie_break_policy == "abstain":
            preds[row] = -1
        elif tie_break_policy == "true-random":
            preds[row] = np.random.default_rng().choice(classes)
        else:
            digest = hashlib.sha1(str(row).encode(), usedforsecurity=False).hexdigest()
            preds[row] = classes[int(digest, 16) % len(classes)]
    return preds


def preds_to_probs(preds: ArrayLike, num_classes: int) -> NDArray[np.float64]:
    """Return float[N, C], 1 at the predicted class.

    Raises
    ------
    DataError
        If a prediction is not a class, such as an abstained -1.
    """
    classes = label_array(preds)
    invalid = classes[(classes < 0) | (classes >= num_classes)]
    if len(invalid):
        vote = "abstained vote" if invalid[0] == -1 else f"vote {invalid[0]}"
        classes_are = f"the classes are 0 to {num_classes - 1}, drop abstained rows first"
        raise DataError(f"Could not convert {vote} to probability: {classes_are}")
    out: NDArray[np.float64] = np.eye(num_classes)[classes]
    return out
