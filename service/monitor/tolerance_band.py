"""Where a rate may lie while nothing is wrong: a tolerance, and what the reference itself leaves open."""

from __future__ import annotations

from service.decisions import ToleranceBand
from sfs.intervals import Rate, clopper_pearson

UNCHANGED_MISS = 0.01
"""How probable it may be, over all slices, that a rate that has not changed at all lies above (or below) its zone."""

TOLERATED_MISS = 0.05
"""How probable that may be, of one slice, for a rate that has changed by just the tolerance."""

MANY_ERRORS = 0.2
"""The error rate from which the tolerance of accuracy is doubled."""


def coverage_band(reference: Rate, tolerance: float, slices: int) -> ToleranceBand:
    """Return where the coverage of a slice may lie.

    Each limit is the wider of two: the reference's own confidence limit at ``UNCHANGED_MISS / slices``, so
    that no slice that stays as it is leaves its zone; and the limit at ``TOLERATED_MISS``, widened by the
    tolerance. A large reference leaves the tolerance alone, a small one needs larger changes to be told.

    Parameters
    ----------
    reference
        Members of rows of known membership; of no rows, the zone is all of [0, 1].
    tolerance
        The relative change that is let pass, as 0.1.
    slices
        How many are watched with it.

    Examples
    --------
    >>> zone = coverage_band(Rate(4_000, 200_000), 0.1, slices=100)
    >>> round(zone.lower, 4), round(zone.upper, 4)
    (0.0175, 0.0226)
    >>> zone = coverage_band(Rate(40, 2_000), 0.1, slices=100)
    >>> round(zone.lower, 4), round(zone.upper, 4)
    (0.0104, 0.0343)
    """
    least, most = _limits(reference, UNCHANGED_MISS / slices)
    low, high = _limits(reference, TOLERATED_MISS)
    return ToleranceBand(
        reference,
        max(0.0, min(least, (1 - tolerance) * low)),
        min(1.0, max(most, (1 + tolerance) * high)),
        tolerance,
    )


def accuracy_band(reference: Rate, tolerance: float, slices: int) -> ToleranceBand:
    """Return where the accuracy on a slice may lie: nothing is wrong with a better one, so up to 1.

    The lower limit is made as those of ``coverage_band`` are, with a tolerance that is added to the error rate.

    Parameters
    ----------
    reference
        Right of labelled; of no rows, the zone is all of [0, 1].
    tolerance
        The loss that is let pass, as 0.01; twice that where a fifth of the reference is wrong already.
    slices
        How many are watched with it.

    Examples
    --------
    >>> round(accuracy_band(Rate(950, 1_000), 0.01, slices=100).lower, 4)
    0.9194
    """
    wrong = Rate(reference.n - reference.count, reference.n)
    if wrong.n and wrong.count >= MANY_ERRORS * wrong.n:
        tolerance *= 2
    _, most = _limits(wrong, UNCHANGED_MISS / slices)
    _, high = _limits(wrong, TOLERATED_MISS)
    return ToleranceBand(reference, max(0.0, 1 - max(most, high + tolerance)), 1.0, tolerance)


def is_back_inside(zone: ToleranceBand, rate: Rate) -> bool:
    """Tell whether a recent rate is shown to lie in the zone: its 95 % Clopper-Pearson interval is inside."""
    lower, upper = rate.interval()
    return zone.lower <= lower and upper <= zone.upper


def _limits(rate: Rate, miss: float) -> tuple[float, float]:
    """Return the lower and the upper confidence limit, each of which misses with this probability at most."""
    return clopper_pearson(rate.count, rate.n, 1 - 2 * miss)
