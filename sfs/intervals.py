"""Rates with their counts and confidence intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from sfs.errors import SliceError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_BISECTIONS = 60
"""Number of bisections that reduce an interval in [0, 1] to adjacent floats."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Rate ``count / n``.

    Parameters
    ----------
    count
        Number of successes.
    n
        Number of trials.
    independent
        Number of independent trials, where trials repeat each other; None if all are independent.

    Examples
    --------
    >>> Rate(9, 10).value, Rate(0, 0).value, Rate(90, 100, 10).interval() == Rate(9, 10).interval()
    (0.9, None, True)
    """

    count: int
    n: int
    independent: int | None = None

    def __post_init__(self) -> None:
        if self.independent is not None and self.independent >= self.n:
            object.__setattr__(self, "independent", None)

    def __repr__(self) -> str:
        repeats = "" if self.independent is None else f", independent={self.independent}"
        return f"Rate(count={self.count}, n={self.n}{repeats})"

    @property
    def value(self) -> float | None:
        """Rate in [0, 1], or None if n is 0."""
        return self.count / self.n if self.n else None

    @property
    def effective_n(self) -> int:
        """Number of independent trials, at most n."""
        return self.n if self.independent is None else self.independent

    @property
    def is_informative(self) -> bool:
        """Whether there are two independent trials: repeats of one say nothing about others."""
        return self.effective_n > 1

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the Clopper-Pearson interval at the effective n (Korn and Graubard, 1998); (0, 1) if n is 0."""
        n = self.effective_n
        return clopper_pearson(self.count * n / max(self.n, 1), n, confidence)

    def __add__(self, other: Rate) -> Rate:
        """Return the rate over both (disjoint) sets of rows."""
        return Rate(self.count + other.count, self.n + other.n, self.effective_n + other.effective_n)


def effective_n(contents: ArrayLike, member: ArrayLike | None = None) -> int:
    """Return the effective n of rows that are drawn by content, all rows of one content together (Kish, 1965).

    With c rows of each content it is sum(c)^2 / sum(c^2), rounded, at most the number of contents. With ``member``
    it is that of the members' share p alone, with m members of each content: p (1 - p) sum(c)^2 / sum((m - p c)^2),
    at most the number of contents.

    Examples
    --------
    >>> effective_n([7, 7, 8, 8]), effective_n([7] * 9 + [8]), effective_n([7] * 229), effective_n([])
    (2, 1, 1, 0)
    >>> rows = [0] * 30 + [*range(1, 271)]  # one content in ten rows, the others once
    >>> effective_n(rows), effective_n(rows, [row == 0 for row in rows]), effective_n(rows, [row > 240 for row in rows])
    (77, 11, 227)
    """
    _, codes, rows = np.unique(np.asarray(contents), return_inverse=True, return_counts=True)
    if member is None:
        return round(int(rows.sum()) ** 2 / max(1, int((rows.astype(np.int64) ** 2).sum())))
    members = np.bincount(codes, weights=np.asarray(member, np.float64), minlength=len(rows))
    share = members.sum() / max(1, rows.sum())
    spread = float(((members - share * rows) ** 2).sum())
    drawn = share * (1 - share) * float(rows.sum()) ** 2
    return round(min(float(len(rows)), drawn / spread)) if spread else len(rows)


def clopper_pearson(count: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Clopper-Pearson (exact binomial) interval of a rate: coverage >= ``confidence`` at any fixed n.

    Parameters
    ----------
    count, n
        Number of successes, and of independent trials; the interval is (0, 1) if n is 0. A count reduced to an
        effective n may be a fraction.
    confidence
        Confidence level in (0, 1).

    Raises
    ------
    SliceError
        If the counts or the confidence are out of range.

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


def clopper_pearson_arrays(count: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Return the lower and upper Clopper-Pearson limits for arrays of counts; shapes broadcast."""
    successes, failures = _validate(count, n, confidence)
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        lower = scipy.special.betaincinv(successes, failures + 1, tail)
        upper = scipy.special.betaincinv(successes + 1, failures, 1 - tail)
    return np.where(successes == 0, 0.0, lower), np.where(failures == 0, 1.0, upper)


def anytime_arrays(count: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Return the limits of anytime-valid intervals, for arrays of counts: valid even if inspected after every trial.

    As a sample grows, the probability that any of its intervals misses the rate is at most 1 - ``confidence``.
    An interval contains the rates p with a likelihood of at least ``1 - confidence`` times the mixture of Bernoulli
    likelihoods under Beta(1/2, 1/2). Parameters and errors are those of ``clopper_pearson``; shapes broadcast.

    References
    ----------
    Robbins (1970), Annals of Mathematical Statistics 41, 1397-1409; Ville's inequality.
    """
    k, rest = _validate(count, n, confidence)
    evidence = scipy.special.betaln(k + 0.5, rest + 0.5) - scipy.special.betaln(0.5, 0.5) + np.log1p(-confidence)

    def inside(p: FloatArray) -> BoolArray:
        return np.asarray(evidence <= scipy.special.xlogy(k, p) + scipy.special.xlog1py(rest, -p))

    rate = np.where(k + rest > 0, k / np.maximum(k + rest, 1), 0.5)  # always inside
    return _limit(inside, rate, np.zeros_like(rate)), _limit(inside, rate, np.ones_like(rate))


def _limit(inside: Callable[[FloatArray], BoolArray], start: FloatArray, end: FloatArray) -> FloatArray:
    """Return the limit of an interval between an inner point and 0 or 1, by bisection, rounded outwards."""
    near, far = start, end
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        inner = inside(middle)
        near, far = np.where(inner, middle, near), np.where(inner, far, middle)
    return np.where(inside(end), end, far)


def _validate(count: ArrayLike, n: ArrayLike, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Return successes and failures as floats of one shape; raise SliceError for invalid counts."""
    if not 0 < confidence < 1:
        raise SliceError(f"confidence must be between 0 and 1, got {confidence}")
    successes, trials = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(n, np.float64))
    if bool(((successes < 0) | (successes > trials)).any()):
        bad = int(np.argmax((successes < 0) | (successes > trials)))
        raise SliceError(f"count must be between 0 and n, got {successes.flat[bad]:g} of {trials.flat[bad]:g}")
    return successes, trials - successes


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Paired difference of two accuracies on the same rows, first minus second, with its confidence interval.

    The interval is the adjusted Wald interval of Bonett and Price, with one row added to both discordant cells.
    It keeps its level at small n, and has a positive width without discordant rows.

    Parameters
    ----------
    only_first, only_second
        Number of rows predicted correctly only by the first model, and only by the second; fractions where
        they are reduced to an effective n.
    n
        Total number of rows.
    confidence
        Confidence level of the interval, in (0, 1).

    Raises
    ------
    SliceError
        If the counts or the confidence are out of range.

    References
    ----------
    Bonett and Price (2012), Journal of Educational and Behavioral Statistics 37, 479-488;
    recommended by Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33, 2850-2875.

    Examples
    --------
    >>> difference = PairedDifference(12, 4, 200)
    >>> difference.value, round(difference.lower, 3), round(difference.upper, 3)
    (0.04, -0.001, 0.08)
    """

    only_first: float
    only_second: float
    n: int
    confidence: float = 0.95

    def __post_init__(self) -> None:
        counts = [self.only_first, self.only_second, self.only_first + self.only_second]
        _validate(counts, self.n, self.confidence)

    @property
    def value(self) -> float | None:
        """Difference in [-1, 1], or None if n is 0."""
        return (self.only_first - self.only_second) / self.n if self.n else None

    @property
    def lower(self) -> float:
        """Lower limit of the interval, at least -1."""
        return self.limits[0]

    @property
    def upper(self) -> float:
        """Upper limit of the interval, at most 1."""
        return self.limits[1]

    @property
    def limits(self) -> tuple[float, float]:
        """Lower and upper limit of the interval; (-1, 1) if n is 0."""
        if self.n == 0:
            return -1.0, 1.0
        first, second = (self.only_first + 1) / (self.n + 2), (self.only_second + 1) / (self.n + 2)
        centre = first - second
        z = float(scipy.special.ndtri((1 + self.confidence) / 2))
        reach = z * max(0.0, (first + second - centre**2) / (self.n + 2)) ** 0.5
        return max(-1.0, centre - reach), min(1.0, centre + reach)
