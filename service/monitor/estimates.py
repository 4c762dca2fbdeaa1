"""From counts to figures: coverage, accuracy and F1 per slice, each with its n, or with why there is none."""

from __future__ import annotations

from collections.abc import Callable
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
    """How figures are made from counts.

    Parameters
    ----------
    minimum_labels
        Labelled rows below which neither accuracy nor F1 is given.
    positive
        The class whose F1 is shown; None for the mean of the F1 of all classes that occur.
    confidence
        Of the intervals, in (0, 1).
    """

    minimum_labels: int = 20
    positive: str | None = None
    confidence: float = 0.95


def estimates(
    total: BlockCounts, functions: FunctionSetVersion, method: IntervalMethod, judging: EstimateConfig
) -> tuple[SliceEstimate, ...]:
    """Return the K slices of a set, then the extra columns, as the counts of a window show them.

    Accuracy is a share of the labelled rows, and its interval speaks of all rows only if the labels were
    drawn at random. The method is Clopper-Pearson for windows that slide and the anytime sequence for those
    that grow, which may be looked at after every label.

    Raises
    ------
    ValueError
        If the counts are of another function set.
    """
    if total.set_hash != functions.hash:
        raise ValueError(
            f"the counts are of set {total.set_hash!r}, not {functions.hash!r}: project them first"
        )
    names = (*functions.names, *EXTRA_COLUMNS)
    prints: tuple[str | None, ...] = (*functions.fingerprints, *(None for _ in EXTRA_COLUMNS))
    known = total.n - total.unknown
    covered = _rates(total.member, known, 1, method, judging.confidence, _no_rows)
    outside = total.confusion[..., -1:] - total.confusion - total.confusion_unknown
    inside = _performances(total.confusion, total.classes, method, judging)
    beside = _performances(outside, total.classes, method, judging)
    return tuple(
        SliceEstimate(name, fingerprint, covered[k], int(failed), int(total.absent[k]), inside[k], beside[k])
        for k, (name, fingerprint, failed) in enumerate(
            zip(names, prints, total.unknown - total.absent, strict=True)
        )
    )


def f1(confusion: Counts, classes: tuple[str, ...], positive: str | None = None) -> tuple[float | None, ...]:
    """Return the F1 of each column; None where no row is, or is called, of the class.

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
    each = 2 * hits / np.maximum(either, 1)
    if positive is None:
        occurs = (either > 0).sum(axis=0)
        scores = each.sum(axis=0) / np.maximum(occurs, 1)
    elif positive in classes:
        occurs, scores = either[classes.index(positive)], each[classes.index(positive)]
    else:
        occurs = scores = np.zeros(confusion.shape[2])
    return tuple(float(score) if n else None for score, n in zip(scores, occurs, strict=True))


def _performances(
    confusion: Counts, classes: tuple[str, ...], method: IntervalMethod, judging: EstimateConfig
) -> list[Performance]:
    """Return how right the model was in each column."""
    labelled = np.asarray(confusion.sum(axis=(0, 1)), np.int64)
    correct = np.asarray(np.einsum("cck->k", confusion), np.int64)
    least = max(judging.minimum_labels, 1)
    accuracy = _rates(correct, labelled, least, method, judging.confidence, _few_labels)
    scores = f1(confusion, classes, judging.positive)
    return [
        Performance(int(n), share, _f1_or_why(score, share, int(n), judging))
        for n, share, score in zip(labelled, accuracy, scores, strict=True)
    ]


def _f1_or_why(
    score: float | None, share: Estimate | InsufficientData, n: int, judging: EstimateConfig
) -> float | InsufficientData:
    """Return the F1, or why there is none: too few labels first."""
    if isinstance(share, InsufficientData):
        return share
    if score is None:
        return InsufficientData(n, n, f"no labelled row is {judging.positive!r}, and none was called so")
    return score


def _rates(
    counts: Counts,
    n: Counts,
    least: int,
    method: IntervalMethod,
    confidence: float,
    why: Callable[[int, int], str],
) -> list[Estimate | InsufficientData]:
    """Return a share per column, or why there is none."""
    limits = clopper_pearson_arrays if method == "clopper-pearson" else anytime_arrays
    lower, upper = limits(counts, n, confidence)
    return [
        Estimate(Rate(int(count), int(of)), float(low), float(high), method)
        if of >= least
        else InsufficientData(int(of), least, why(int(of), least))
        for count, of, low, high in zip(counts, n, lower, upper, strict=True)
    ]


def _no_rows(n: int, least: int) -> str:
    return f"{n} rows of known membership in this window, of at least {least}"


def _few_labels(n: int, least: int) -> str:
    return f"{n} labelled rows in this window, of at least {least}"
