"""Tolerance bands: the range of a rate without drift."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from service.decisions import DriftStatus, ToleranceBand
from service.formatting import percent
from sfs.intervals import Rate

UNCHANGED_MISS = 0.01
"""Probability, over all slices, that an unchanged rate lies above (or below) its band."""

TOLERATED_MISS = 0.05
"""The same for one slice whose rate changed by exactly the tolerance."""

MANY_ERRORS = 0.2
"""Error rate from which the tolerance of accuracy is doubled."""

RECENT = (("hour", timedelta(hours=1)), ("day", timedelta(days=1)), ("week", timedelta(days=7)))
"""Windows in which a rate that is back in its band resolves its alarm, if they began after it; shortest first."""

HIGHEST_TARGET = 0.999
"""Highest accuracy target that is monitored: a single wrong label would refute a target of 1."""


def coverage_band(reference: Rate, tolerance: float, slices: int) -> ToleranceBand:
    """Return the tolerance band of a slice's coverage.

    Each limit is the wider of two: the confidence limit of the reference at ``UNCHANGED_MISS / slices``, so
    that no unchanged slice leaves its band, and the limit at ``TOLERATED_MISS``, widened by the tolerance.
    With a large reference the tolerance alone decides; with a small one only larger changes are detected.

    Parameters
    ----------
    reference
        Members of the rows of known membership; without rows, the band is [0, 1].
    tolerance
        Tolerated relative change, as 0.1.
    slices
        Number of monitored slices.

    Examples
    --------
    >>> band = coverage_band(Rate(4_000, 200_000), 0.1, slices=100)
    >>> round(band.lower, 4), round(band.upper, 4)
    (0.0175, 0.0226)
    >>> band = coverage_band(Rate(40, 2_000), 0.1, slices=100)
    >>> round(band.lower, 4), round(band.upper, 4)
    (0.0104, 0.0343)
    """
    lowest, highest = _limits(reference, UNCHANGED_MISS / slices)
    low, high = _limits(reference, TOLERATED_MISS)
    lower = max(0.0, min(lowest, (1 - tolerance) * low))
    upper = min(1.0, max(highest, (1 + tolerance) * high))
    return ToleranceBand(reference, lower, upper, tolerance)


def accuracy_band(reference: Rate, tolerance: float, slices: int, target: float | None = None) -> ToleranceBand:
    """Return the tolerance band of the accuracy on a slice; a better accuracy is no drift, so it ends at 1.

    The lower limit follows the rule of ``coverage_band``, with the tolerance added to the error rate. A higher
    target takes its place: an accuracy below its target is to be detected, whatever the reference.

    Parameters
    ----------
    reference
        Correct predictions of the labelled rows; without rows, the band is [0, 1].
    tolerance
        Tolerated absolute loss, as 0.01; doubled if a fifth of the reference is wrong already.
    slices
        Number of monitored slices.
    target
        Accuracy that the slice must keep, without tolerance; at most ``HIGHEST_TARGET`` is monitored.

    Examples
    --------
    >>> round(accuracy_band(Rate(950, 1_000), 0.01, slices=100).lower, 4)
    0.9194
    >>> round(accuracy_band(Rate(28, 40), 0.01, slices=200).lower, 2)
    0.38
    >>> accuracy_band(Rate(28, 40), 0.01, slices=200, target=0.75).lower
    0.75
    """
    wrong = Rate(reference.n - reference.count, reference.n, reference.independent)
    if wrong.n and wrong.count >= MANY_ERRORS * wrong.n:
        tolerance *= 2
    _, highest = _limits(wrong, UNCHANGED_MISS / slices)
    _, high = _limits(wrong, TOLERATED_MISS)
    lower = max(0.0, 1 - max(highest, high + tolerance))
    if target is not None and (target := min(target, HIGHEST_TARGET)) > lower:
        return ToleranceBand(reference, target, 1.0, tolerance, target)
    return ToleranceBand(reference, lower, 1.0, tolerance)


def is_back_inside(band: ToleranceBand, rate: Rate) -> bool:
    """Return True if the 95% Clopper-Pearson interval of a recent rate lies inside the band."""
    lower, upper = rate.interval()
    return band.lower <= lower and upper <= band.upper


def is_outside(band: ToleranceBand, rate: Rate) -> bool:
    """Return True if the 95% Clopper-Pearson interval of a recent rate lies outside the band."""
    lower, upper = rate.interval()
    return upper < band.lower or band.upper < lower


def recovery(rate: str, recent: Iterable[tuple[str, ToleranceBand, Rate]]) -> str:
    """Return how a rate came back into its band, in words; empty while it has not.

    For that it has to be demonstrably inside over a window, and demonstrably outside over no shorter one: a small
    slice has few labels an hour.

    Parameters
    ----------
    rate
        Name of the rate.
    recent
        Windows that began after the alarm, the shortest first: name, tolerance band over it, and rate in it.

    Examples
    --------
    >>> band = ToleranceBand(Rate(4_000, 200_000), 0.0175, 0.0226, 0.1)
    >>> recovery("coverage", [("hour", band, Rate(4, 200)), ("day", band, Rate(400, 20_000))])
    'coverage was 0.02 in the last day, back within its tolerance band'
    """
    for name, band, observed in recent:
        if observed.n and is_back_inside(band, observed):
            back = "within its tolerance band" if band.target is None else f"at its target of {percent(band.target)}"
            return f"{rate} was {observed.count / observed.n:.3g} in the last {name}, back {back}"
        if is_outside(band, observed):
            return ""
    return ""


def changed_further(before: DriftStatus, after: DriftStatus) -> bool:
    """Return True if the direction changed, or the rate moved on in it by more than the tolerance; intervals count.

    A rate that comes back part of the way is still the change that is known.
    """
    if before.direction and after.direction and before.direction != after.direction:
        return True
    tolerance = after.zone.tolerance if after.zone is not None else 0.0
    down, up = (1.0, 1.0) if after.is_accuracy else (before.lower, before.upper)
    direction = after.direction or before.direction
    is_lower = after.upper < before.lower - tolerance * down and direction != "up"
    is_higher = after.lower > before.upper + tolerance * up and direction != "down"
    return is_lower or is_higher


def _limits(rate: Rate, miss: float) -> tuple[float, float]:
    """Return the confidence limits, each of which is missed with at most this probability."""
    return rate.interval(1 - 2 * miss)
