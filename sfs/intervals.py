"""Every rate's n and interval, for all floors."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import special


@dataclass(frozen=True, slots=True)
class Rate:
    """A share ``count / n``; it is None where there is nothing to divide by.

    Examples
    --------
    >>> Rate(9, 10).value, Rate(0, 0).value
    (0.9, None)
    """

    count: int
    n: int

    @property
    def value(self) -> float | None:
        """The share in [0, 1], or None when n is 0."""
        return self.count / self.n if self.n else None

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the Clopper-Pearson interval; (0, 1) when n is 0."""
        return clopper_pearson(self.count, self.n, confidence)


def clopper_pearson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact binomial interval of a share, which covers at least ``confidence`` at any n."""
    tail = (1 - confidence) / 2
    lower = float(special.betaincinv(count, n - count + 1, tail)) if count else 0.0
    upper = float(special.betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return lower, upper
