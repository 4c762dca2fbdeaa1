"""Alternatives of the change detector: rates beyond the limits of a tolerance band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decisions import DriftKind, ToleranceBand

FloatArray = NDArray[np.float64]

COVERAGE_UP = (1.1, 1.25, 1.5, 2.0, 3.0, 6.0)
COVERAGE_DOWN = (0.9, 0.8, 0.65, 0.5, 0.25, 0.05)
ACCURACY_DOWN = (1 / 1.15, 1 / 1.3, 1 / 1.5, 1 / 2, 1 / 3)
TARGET_DOWN = (*ACCURACY_DOWN, 1 / 6, 1 / 12)
"""Alternatives: factors on the odds at a limit of the tolerance band, away from the band.

A target is a higher limit than that of a small reference, so there is more room below it.
"""

COVERAGE_WEIGHTS = (1, 2, 3, 2, 1, 1)
"""Weights of the alternatives on one side of the band of a coverage, in the order of the distance from it."""

ALTERNATIVES = len(COVERAGE_UP) + len(COVERAGE_DOWN)


@dataclass(frozen=True, eq=False, slots=True)
class Alternatives:
    """C alternatives for each of K rates: a limit of the tolerance band against a rate beyond it.

    Alternatives multiply the odds, not the rate: for rare slices that is the same, and for common ones it
    spreads them up to 1, where multiples of the rate would leave the scale.

    Parameters
    ----------
    hit, miss : float64[C, K]
        Log-likelihood ratio of the alternative to the limit, per member and per other row.
    weight : float64[C, K]
        Weight in the mixture; 0 for a missing alternative.
    """

    hit: FloatArray
    miss: FloatArray
    weight: FloatArray

    @classmethod
    def of(cls, bands: Sequence[tuple[DriftKind, ToleranceBand]]) -> Alternatives:
        """Return the alternatives to these bands; a limit at 0 or 1 has none beyond it."""
        each = np.array([_factors(kind, band) for kind, band in bands]).reshape(-1, 2, ALTERNATIVES)
        limits = np.array([(band.lower, band.upper) for _, band in bands]).reshape(-1, 2)
        return cls._beyond(limits[:, 0], limits[:, 1], each[:, 0].T, each[:, 1].T)

    @classmethod
    def of_coverage(cls, lower: FloatArray, upper: FloatArray) -> Alternatives:
        """Return the alternatives to the limits of coverages, float64[K]."""
        factors = np.array([(*COVERAGE_DOWN, *COVERAGE_UP)]).T
        weights = np.array([(*COVERAGE_WEIGHTS, *COVERAGE_WEIGHTS)], np.float64).T
        return cls._beyond(lower, upper, np.repeat(factors, len(lower), 1), np.repeat(weights, len(lower), 1))

    @classmethod
    def _beyond(cls, lower: FloatArray, upper: FloatArray, factors: FloatArray, weights: FloatArray) -> Alternatives:
        """Return the alternatives beyond limits, float64[K], by factors on the odds, float64[C, K]; 0 for none."""
        limits = np.where(factors > 1, upper, lower)
        exists = (factors > 0) & (limits > 0) & (limits < 1)
        limits, factors = np.where(exists, limits, 0.0), np.where(exists, factors, 1.0)
        # the odds m / (1 - m) times f belong to the rate m f / (1 + m (f - 1))
        miss = -np.log1p(limits * (factors - 1))
        weights = np.where(exists, weights, 0.0)
        weight = weights / np.maximum(weights.sum(axis=0), 1.0)
        return cls(np.log(factors) + miss, miss, weight)

    def divided(self, divisor: FloatArray) -> Alternatives:
        """Return the alternatives with their log-likelihood ratios divided, by float64[C, K]."""
        return Alternatives(self.hit / divisor, self.miss / divisor, self.weight)


def _factors(kind: DriftKind, band: ToleranceBand) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the factors on the odds at the limits of a band, 0 for none, and the weights of the alternatives."""
    if kind != "accuracy":
        return (*COVERAGE_DOWN, *COVERAGE_UP), (*COVERAGE_WEIGHTS, *COVERAGE_WEIGHTS)
    down = ACCURACY_DOWN if band.target is None else TARGET_DOWN
    none = (0.0,) * (ALTERNATIVES - len(down))
    return (*down, *none), (*(1.0,) * len(down), *none)
