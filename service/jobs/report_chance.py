"""The two distances of a report, and how far apart chance alone brings two samples of one distribution.

A distance between samples is never 0, and the fewer rows there are, the greater it is: two samples of 100 rows
of one normal distribution are more than 0.1 standard deviations apart nearly always. Both are therefore compared
with what rows that change sides at random would give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SHUFFLES = 1000
QUANTILE = 0.999
_LEAST_DEVIATION = 0.001
"""Evidently divides by no less; see `in_deviations`."""


def in_deviations(reference: FloatArray, live: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return both sides divided by the standard deviation of the reference, if it is so small that it is not used."""
    deviation = float(np.std(reference))
    if deviation >= _LEAST_DEVIATION or deviation == 0:
        return reference, live
    return reference / deviation, live / deviation


def distance_of_numbers(reference: FloatArray, live: FloatArray) -> float:
    """Return the Wasserstein distance in standard deviations of the reference.

    >>> distance_of_numbers(np.array([-1.0, 1.0]), np.array([-0.5, 1.5]))
    0.5
    """
    return float(wasserstein_distance(reference, live)) / max(float(np.std(reference)), _LEAST_DEVIATION)


def distance_of_shares(reference: ArrayLike, live: ArrayLike) -> float:
    """Return the Jensen-Shannon distance (natural logarithm) of two counts int[K] of the same names.

    >>> round(distance_of_shares([50, 50], [57, 43]), 3)
    0.05
    """
    return float(jensenshannon(np.asarray(reference, np.float64), np.asarray(live, np.float64)))


def chance_of_numbers(reference: FloatArray, live: FloatArray) -> float:
    """Return the distance that 999 of 1,000 random exchanges of rows stay below; the same for the same rows."""
    pool = np.sort(np.concatenate([reference, live]))
    gaps, below = np.diff(pool), np.arange(1, len(pool))
    side = np.arange(len(pool)) < len(reference)
    random = np.random.default_rng(0)
    distances = []
    for _ in range(SHUFFLES):
        first = np.cumsum(random.permutation(side))[:-1]
        apart = np.abs(first / len(reference) - (below - first) / len(live))
        distances.append(float(apart @ gaps))
    return float(np.quantile(distances, QUANTILE)) / max(float(np.std(reference)), _LEAST_DEVIATION)


def chance_of_shares(reference: IntArray, live: IntArray) -> float:
    """Return the distance that 999 of 1,000 random exchanges of rows stay below, for counts int[K]."""
    both = reference + live
    random = np.random.default_rng(0)
    first = random.multivariate_hypergeometric(both, int(reference.sum()), size=SHUFFLES)  # int[SHUFFLES, K]
    return float(np.quantile(jensenshannon(first, both - first, axis=1), QUANTILE))


def counts_of(reference: Sequence[str], live: Sequence[str]) -> tuple[list[str], IntArray, IntArray]:
    """Return the K names of both sides together, and how often each side has them, int[K].

    >>> counts_of(["a", "b", "a"], ["c"])
    (['a', 'b', 'c'], array([2, 1, 0]), array([0, 0, 1]))
    """
    names, places = np.unique([*reference, *live], return_inverse=True)
    first, second = (np.bincount(part, minlength=len(names)) for part in np.split(places, [len(reference)]))
    return names.tolist(), first, second
