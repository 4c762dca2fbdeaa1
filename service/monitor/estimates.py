"""Estimates from counts: coverage, accuracy and F1 of every slice, or the reason for a missing figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.events import (
    EXTRA_COLUMNS,
    BlockCounts,
    Counts,
    Estimate,
    FunctionSetVersion,
    InsufficientData,
    IntervalMethod,
    Performance,
    SliceEstimate,
)
from sfs.intervals import Rate, anytime_arrays, clopper_pearson_arrays


@dataclass(frozen=True, slots=True)
class EstimateConfig:
    """Labelled rows that accuracy and F1 need, class of the F1 (None for the mean), and confidence level."""

    minimum_labels: int = 20
    positive: str | None = None
    confidence: float = 0.95


def estimates(
    total: BlockCounts, functions: FunctionSetVersion, method: IntervalMethod, config: EstimateConfig
) -> tuple[SliceEstimate, ...]:
    """Return the estimates of the K slices of a set, then of the extra columns.

    Accuracy is estimated on the labelled rows; its interval covers all rows only if the labelled ones are a
    random sample. Use Clopper-Pearson for sliding windows, and the anytime sequence for growing windows,
    which may be checked after every label. Raises ValueError if the counts are of another function set.
    """
    if total.set_hash != functions.hash:
        raise ValueError(f"the counts are of set {total.set_hash!r}, not {functions.hash!r}: remap them first")
    fingerprints = (*functions.fingerprints, *(None for _ in EXTRA_COLUMNS))
    known = total.n - total.unknown
    outside = total.confusion[..., -1:] - total.confusion - total.confusion_unknown
    columns = zip(
        (*functions.names, *EXTRA_COLUMNS),
        fingerprints,
        _rates(total.member, known, 1, method, config.confidence, "rows of known membership"),
        (total.unknown - total.absent).tolist(),
        total.absent.tolist(),
        _performances(total.confusion, total.classes, method, config),
        _performances(outside, total.classes, method, config),
        strict=True,
    )
    return tuple(SliceEstimate(*column) for column in columns)


def f1(confusion: Counts, classes: tuple[str, ...], positive: str | None = None) -> tuple[float | None, ...]:
    """Return the F1 of each column; None if no row is labelled or predicted as the class.

    Parameters
    ----------
    confusion : int64[C, C, K]
        By true class, then predicted class.
    classes
        The C classes.
    positive
        The class; None for the mean over the classes that occur.

    Examples
    --------
    >>> f1(np.array([[[8], [1]], [[3], [0]]]), ("ham", "spam"), "ham")
    (0.8,)
    """
    hits = np.einsum("cck->ck", confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1)  # [C, K]
    by_class = 2 * hits / np.maximum(either, 1)
    if positive is None:
        occurs = (either > 0).sum(axis=0)
        scores = by_class.sum(axis=0) / np.maximum(occurs, 1)
    elif positive in classes:
        occurs, scores = either[classes.index(positive)], by_class[classes.index(positive)]
    else:
        occurs = scores = np.zeros(confusion.shape[2])
    return tuple(float(score) if n else None for score, n in zip(scores, occurs, strict=True))


def _performances(
    confusion: Counts, classes: tuple[str, ...], method: IntervalMethod, config: EstimateConfig
) -> list[Performance]:
    labelled = np.asarray(confusion.sum(axis=(0, 1)), np.int64)
    correct = np.asarray(np.einsum("cck->k", confusion), np.int64)
    needed = max(config.minimum_labels, 1)
    accuracies = _rates(correct, labelled, needed, method, config.confidence, "labelled rows")
    performances = []
    for n, accuracy, score in zip(labelled.tolist(), accuracies, f1(confusion, classes, config.positive), strict=True):
        figure: float | InsufficientData
        if isinstance(accuracy, InsufficientData):
            figure = accuracy
        elif score is None:
            figure = InsufficientData(n, n, f"no row is labelled or predicted as {config.positive!r}")
        else:
            figure = score
        performances.append(Performance(n, accuracy, figure))
    return performances


def _rates(
    counts: Counts, n: Counts, needed: int, method: IntervalMethod, confidence: float, unit: str
) -> list[Estimate | InsufficientData]:
    limits = clopper_pearson_arrays if method == "clopper-pearson" else anytime_arrays
    lower, upper = limits(counts, n, confidence)
    return [
        Estimate(Rate(count, of), low, high, method)
        if of >= needed
        else InsufficientData(of, needed, f"{of:,} {unit} in this window; at least {needed:,} needed")
        for count, of, low, high in zip(counts.tolist(), n.tolist(), lower.tolist(), upper.tolist(), strict=True)
    ]
