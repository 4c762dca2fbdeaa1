"""Shares with their intervals, for values that the monitor does not count."""

from __future__ import annotations

from service.events import Estimate, InsufficientData
from sfs.intervals import Rate


def estimate_of(
    count: int, n: int, reason: str = "no rows of known membership"
) -> Estimate | InsufficientData:
    """Return a share with its Clopper-Pearson interval, or the reason where there is nothing to divide by.

    Examples
    --------
    >>> found = estimate_of(9, 10)
    >>> found.value, round(found.lower, 3)
    (0.9, 0.555)
    """
    rate = Rate(count, n)
    if not n:
        return InsufficientData(0, 1, reason)
    lower, upper = rate.interval()
    return Estimate(rate, lower, upper, "clopper-pearson")
