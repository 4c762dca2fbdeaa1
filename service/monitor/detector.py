"""The detector of changes: Shiryaev-Roberts e-processes against several alternatives, for many rates at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from service.decisions import DriftKind, Zone
from service.events import Counts

FloatArray = NDArray[np.float64]
Keys = NDArray[np.intp]

COVERAGE_UP = (1.1, 1.25, 1.5, 2.0, 3.0, 6.0)
COVERAGE_DOWN = (0.9, 0.8, 0.65, 0.5, 0.25, 0.05)
ACCURACY_DOWN = (1 / 1.15, 1 / 1.3, 1 / 1.5, 1 / 2, 1 / 3)
"""The alternatives: what the odds at a limit of the zone are multiplied with, outwards."""

ALTERNATIVES = len(COVERAGE_UP) + len(COVERAGE_DOWN)


@dataclass(frozen=True, eq=False, slots=True)
class Alternatives:
    """What is looked for in K rates: C alternatives each, one limit of the zone against a rate beyond it.

    Alternatives are multiples of odds, not of rates: of rare slices that is the same, and of common ones it
    spreads them up to 1 where multiples of the rate would leave the scale.

    Parameters
    ----------
    hit, miss : float64[C, K]
        Log-likelihood ratio of the alternative to the limit, per member and per other row.
    weight : float64[C, K]
        Logarithm of the share in the mixture; -inf where there is no such alternative.
    """

    hit: FloatArray
    miss: FloatArray
    weight: FloatArray

    @classmethod
    def of(cls, zones: Sequence[tuple[DriftKind, Zone]]) -> Alternatives:
        """Return the alternatives to these zones; a limit at the end of the scale has none beyond it."""
        limits, factors = np.zeros((2, ALTERNATIVES, len(zones)))
        for k, (kind, zone) in enumerate(zones):
            down, up = (COVERAGE_DOWN, COVERAGE_UP) if kind == "coverage" else (ACCURACY_DOWN, ())
            beyond = [(zone.lower, f) for f in down] + [(zone.upper, f) for f in up]
            for c, (limit, factor) in enumerate(pair for pair in beyond if 0 < pair[0] < 1):
                limits[c, k], factors[c, k] = limit, factor
        there = factors > 0
        factors[~there] = 1
        # the odds m / (1 - m) times f belong to the rate m f / (1 + m (f - 1))
        miss = -np.log1p(limits * (factors - 1))
        share = np.maximum(there.sum(axis=0), 1)
        return cls(np.log(factors) + miss, miss, np.where(there, -np.log(share), -np.inf))


@dataclass(frozen=True, eq=False, slots=True)
class Standing:
    """Where the detectors of K rates stand; ``advance``, ``reset`` and ``take`` change the arrays in place.

    For each alternative, M is the sum, over all blocks at which the change to it may have begun, of the
    likelihood ratio since then. While the rate is in its zone, whatever the past and whatever other slices
    do, a block adds 1 to the mean of M at most, and so to that of the mixture over alternatives. Hence a
    detector that is reset whenever the mixture reaches c has N / c false alarms in N blocks at most, on average.

    Beside it runs the largest of those ratios (the cusum) with the block at which it began: the likeliest change.

    Parameters
    ----------
    grown : float64[C, K]
        log(1 + M).
    cusum : float64[C, K]
        Log-likelihood ratio since the likeliest change; 0 where none is likelier than no change.
    since, past_count, past_n : int64[C, K]
        The start of the first block after ``cusum`` was last 0, and what had been counted before it.
    evidence : float64[K]
        Logarithm of the mixture of M, 0 at least.
    count, n : int64[K]
        What was counted since the start, or since the last reset.

    References
    ----------
    Shin, Ramdas and Rinaldo (2022), E-detectors: a nonparametric framework for sequential change detection.
    Roberts (1966), Technometrics 8, 411-430; Page (1954), Biometrika 41, 100-115.
    """

    grown: FloatArray
    cusum: FloatArray
    since: Counts
    past_count: Counts
    past_n: Counts
    evidence: FloatArray
    count: Counts
    n: Counts

    @classmethod
    def fresh(cls, keys: int) -> Standing:
        """Return the standing of detectors that have seen nothing."""
        grown, cusum = np.zeros((2, ALTERNATIVES, keys))
        since, past_count, past_n = np.zeros((3, ALTERNATIVES, keys), np.int64)
        return cls(grown, cusum, since, past_count, past_n, np.zeros(keys), *np.zeros((2, keys), np.int64))

    def advance(self, against: Alternatives, count: Counts, n: Counts, start: int) -> None:
        """Take in one block.

        Parameters
        ----------
        against
            What is looked for.
        count, n : int64[K]
            Members and known rows, or right and labelled ones. Where n is 0 nothing changes.
        start
            When the block began.
        """
        log_e = count * against.hit + (n - count) * against.miss  # [C, K]
        log_m = self.grown + log_e
        begins = self.cusum == 0
        np.copyto(self.since, start, where=begins)
        np.copyto(self.past_count, self.count, where=begins)
        np.copyto(self.past_n, self.n, where=begins)
        np.maximum(self.cusum + log_e, 0.0, out=self.cusum)
        np.add(self.count, count, out=self.count)
        np.add(self.n, n, out=self.n)
        # log(1 + exp(log_m)), which numpy's logaddexp gives at six times the cost
        grown = np.maximum(log_m, 0.0) + np.log1p(np.exp(-np.abs(log_m)))
        np.copyto(self.grown, grown, where=n > 0)
        np.copyto(self.evidence, _log_sum(log_m + against.weight), where=n > 0)

    def reset(self, keys: Keys) -> None:
        """Let these detectors begin anew."""
        for array in self.arrays():
            array[..., keys] = 0

    def likeliest(self, keys: Keys) -> tuple[Keys, NDArray[np.bool_]]:
        """Return which alternative has the largest cusum, and whether that and the evidence point to a change."""
        best = self.cusum[:, keys].argmax(axis=0)
        return best, (self.cusum[best, keys] > 0) & (self.evidence[keys] > 0)

    def take(self, keys: Keys, other: Standing, others: Keys) -> None:
        """Set these detectors to where those of another standing are."""
        for own, theirs in zip(self.arrays(), other.arrays(), strict=True):
            own[..., keys] = theirs[..., others]

    def arrays(self) -> tuple[NDArray[np.float64 | np.int64], ...]:
        """Return the arrays in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))


def _log_sum(logs: FloatArray) -> FloatArray:
    """Return log(sum(exp(logs))) over the alternatives, or 0 where that is negative."""
    largest = logs.max(axis=0, initial=0.0)
    # where no logarithm is positive the sum itself is compared with 1; elsewhere it is 1 at least
    return np.asarray(largest + np.log(np.maximum(np.exp(logs - largest).sum(axis=0), 1.0)), np.float64)
