"""Alternatives of the change detector: rates beyond the limits of a tolerance band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

COVERAGE_UP = (1.1, 1.25, 1.5, 2.0, 3.0, 6.0)
COVERAGE_DOWN = (0.9, 0.8, 0.65, 0.5, 0.25, 0.05)
"""Alternatives: factors on the odds at a limit of the tolerance band, away from the band."""

COVERAGE_WEIGHTS = (1, 2, 3, 2, 1, 1)
"""Weights of the alternatives on one side of the band, in the order of the distance from it."""

ALTERNATIVES = len(COVERAGE_UP) + len(COVERAGE_DOWN)

_FACTORS = np.array([*COVERAGE_DOWN, *COVERAGE_UP])[:, None]
_WEIGHTS = np.array([*COVERAGE_WEIGHTS, *COVERAGE_WEIGHTS], np.float64)[:, None]


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
    def of(cls, lower: FloatArray, upper: FloatArray) -> Alternatives:
        """Return the alternatives to the limits of bands, float64[K]; a limit at 0 or 1 has none beyond it."""
        limits = np.where(_FACTORS > 1, upper, lower)
        exists = (limits > 0) & (limits < 1)
        # the odds m / (1 - m) times f belong to the rate m f / (1 + m (f - 1))
        miss = -np.log1p(np.where(exists, limits, 0.0) * (_FACTORS - 1))
        weights = exists * _WEIGHTS
        weight = weights / np.maximum(weights.sum(axis=0), 1.0)
        return cls(exists * np.log(_FACTORS) + miss, miss, weight)

    def divided(self, divisor: FloatArray) -> Alternatives:
        """Return the alternatives with their log-likelihood ratios divided, by float64[C, K]."""
        return Alternatives(self.hit / divisor, self.miss / divisor, self.weight)
