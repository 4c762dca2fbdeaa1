"""Every rate's n and interval, for all floors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sfs.errors import SliceError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_BISECTIONS = 60
"""Halvings of an interval inside [0, 1] until its ends are neighbouring floats."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share ``count / n``; it is None where there is nothing to divide by.

    Parameters
    ----------
    count
        How many of the n are counted.
    n
        How many there are.

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

    def __add__(self, other: Rate) -> Rate:
        """Return the rate over both, disjoint, sets of rows."""
        return Rate(self.count + other.count, self.n + other.n)


def clopper_pearson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact binomial interval of a share, which covers at least ``confidence`` at any fixed n.

    Parameters
    ----------
    count, n
        ``count`` of ``n`` independent trials succeeded; n may be 0, which gives (0, 1).
    confidence
        In (0, 1).

    Raises
    ------
    SliceError
        If the counts are no counts, or the confidence is out of range.

    References
    ----------
    Clopper and Pearson (1934), Biometrika 26, 404-413.

    Examples
    --------
    >>> lower, upper = clopper_pearson(9, 10)
    >>> round(lower, 3), round(upper, 3)
    (0.555, 0.997)
    """
    lower, upper = clopper_pearson_arrays([count], [n], confidence)
    return float(lower[0]), float(upper[0])


def clopper_pearson_arrays(
    count: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the Clopper-Pearson lower and upper limits of many shares at once; shapes broadcast."""
    successes, failures = _checked(count, n, confidence)
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        lower = special.betaincinv(successes, failures + 1, tail)
        upper = special.betaincinv(successes + 1, failures, 1 - tail)
    return np.where(successes == 0, 0.0, lower), np.where(failures == 0, 1.0, upper)


def anytime(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval of a share that may be looked at after every trial.

    The probability that any of the intervals of a growing sample ever misses is at most 1 - ``confidence``.
    It keeps the shares p against which the mixture of Bernoulli likelihoods under Beta(1/2, 1/2) has gathered
    less than ``1 / (1 - confidence)`` times their own likelihood.

    Parameters
    ----------
    count, n
        ``count`` of the first ``n`` independent trials succeeded; n = 0 gives (0, 1).
    confidence
        In (0, 1).

    Raises
    ------
    SliceError
        If the counts are no counts, or the confidence is out of range.

    References
    ----------
    Robbins (1970), Annals of Mathematical Statistics 41, 1397-1409; Ville's inequality.

    Examples
    --------
    >>> lower, upper = anytime(90, 100)
    >>> round(lower, 3), round(upper, 3)
    (0.772, 0.971)
    """
    lower, upper = anytime_arrays([count], [n], confidence)
    return float(lower[0]), float(upper[0])


def anytime_arrays(count: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Return the lower and upper limits of ``anytime`` for many shares at once; shapes broadcast."""
    k, rest = _checked(count, n, confidence)
    evidence = special.betaln(k + 0.5, rest + 0.5) - special.betaln(0.5, 0.5) + np.log1p(-confidence)

    def kept(p: FloatArray) -> BoolArray:
        return np.asarray(evidence <= special.xlogy(k, p) + special.xlog1py(rest, -p))

    share = np.where(k + rest > 0, k / np.maximum(k + rest, 1), 0.5)  # always kept
    return _edge(kept, share, np.zeros_like(share)), _edge(kept, share, np.ones_like(share))


def _edge(kept: Callable[[FloatArray], BoolArray], inside: FloatArray, end: FloatArray) -> FloatArray:
    """Return where ``kept`` ends between a point that is kept and the end of the scale, to the outside."""
    near, far = inside, end
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        inner = kept(middle)
        near, far = np.where(inner, middle, near), np.where(inner, far, middle)
    return np.where(kept(end), end, far)


def _checked(count: ArrayLike, n: ArrayLike, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Return successes and failures as floats of one shape."""
    if not 0 < confidence < 1:
        raise SliceError(f"a confidence lies between 0 and 1, got {confidence}")
    successes, trials = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(n, np.float64))
    if bool(((successes < 0) | (successes > trials)).any()):
        bad = int(np.argmax((successes < 0) | (successes > trials)))
        raise SliceError(f"a count lies between 0 and n, got {successes.flat[bad]:g} of {trials.flat[bad]:g}")
    return successes, trials - successes


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The difference of two accuracies on the same rows: first minus second.

    Parameters
    ----------
    only_first, only_second
        Rows that only the first, and only the second, got right.
    n
        All rows, those that both or neither got right among them.
    confidence
        Of the interval, in (0, 1).

    Raises
    ------
    SliceError
        If the counts are no counts, or the confidence is out of range.

    Examples
    --------
    >>> difference = paired_difference(12, 4, 200)
    >>> difference.value, round(difference.lower, 3), round(difference.upper, 3)
    (0.04, -0.001, 0.08)
    """

    only_first: int
    only_second: int
    n: int
    confidence: float = 0.95

    def __post_init__(self) -> None:
        _checked([self.only_first, self.only_second], [self.n, self.n], self.confidence)
        _checked(self.only_first + self.only_second, self.n, self.confidence)

    @property
    def value(self) -> float | None:
        """The difference in [-1, 1], or None when n is 0."""
        return (self.only_first - self.only_second) / self.n if self.n else None

    @property
    def lower(self) -> float:
        """The lower limit."""
        return self._limits()[0]

    @property
    def upper(self) -> float:
        """The upper limit."""
        return self._limits()[1]

    @property
    def no_evidence(self) -> bool:
        """True when no row tells the two apart: the interval then speaks of n alone."""
        return self.only_first == self.only_second == 0

    def _limits(self) -> tuple[float, float]:
        if self.n == 0:
            return -1.0, 1.0
        first, second = (self.only_first + 1) / (self.n + 2), (self.only_second + 1) / (self.n + 2)
        centre = first - second
        z = float(special.ndtri((1 + self.confidence) / 2))
        reach = z * max(0.0, (first + second - centre**2) / (self.n + 2)) ** 0.5
        return max(-1.0, centre - reach), min(1.0, centre + reach)

    def __add__(self, other: PairedDifference) -> PairedDifference:
        """Return the difference over both, disjoint, sets of rows."""
        if self.confidence != other.confidence:
            raise SliceError(f"cannot add differences at confidence {self.confidence} and {other.confidence}")
        return PairedDifference(
            self.only_first + other.only_first,
            self.only_second + other.only_second,
            self.n + other.n,
            self.confidence,
        )


def paired_difference(
    only_first: int, only_second: int, n: int, confidence: float = 0.95
) -> PairedDifference:
    """Return the difference of two accuracies on the same n rows, first minus second, with its interval.

    The interval is Bonett and Price's: Wald's with one row added to each of the two disagreeing cells. It
    holds its level at small n, and has a width when no row disagrees.

    References
    ----------
    Bonett and Price (2012), Journal of Educational and Behavioral Statistics 37, 479-488;
    recommended by Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33, 2850-2875.
    """
    return PairedDifference(only_first, only_second, n, confidence)
