"""Simulated traffic of many slices, block by block: calm, seasonal, clumped, wandering, bursty, and changed.

A stream is generated hour by hour from one seed; the same seed gives the same stream whichever part of it is read
first, but for wander and bursts, which begin with the first hour that is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BLOCK_SECONDS = 10
HOUR_BLOCKS = 360
DAY_HOURS, WEEK_HOURS = 24, 168
START = 1_767_571_200
"""Monday, 5 January 2026, 00:00 UTC, in seconds since the epoch: the start of every stream."""

_BURST_BLOCKS = 60  # ten minutes
_WANDER_STEP = np.exp(-1 / HOUR_BLOCKS)  # correlation of neighbouring blocks: a memory of one hour


@dataclass(frozen=True, slots=True)
class Traffic:
    """Kind of traffic: what moves the slices although nothing has changed.

    Parameters
    ----------
    rows
        Mean rows a block.
    clumps
        Variance of a block's members over that of a binomial with as many rows; 1 for independent rows.
    daily, weekly
        Relative swing of a slice's rate over the day (a sine of its own phase), and fall of its rate at the weekend.
    wander
        Standard deviation of a slow relative wander of each slice, with a memory of one hour.
    bursts_a_day
        Bursts of one client, each of ten minutes at a random time, which double the rate of a fifth of the slices.
    night_rows
        Rows a block from midnight to six; None for as many as by day.
    halved_after_hours
        Hour from which a block has half the rows; None for never.
    """

    rows: int = 1_000
    clumps: float = 1.0
    daily: float = 0.0
    weekly: float = 0.0
    wander: float = 0.0
    bursts_a_day: int = 0
    night_rows: int | None = None
    halved_after_hours: int | None = None


LEARNING_HOURS = 4 * WEEK_HOURS
KINDS: Mapping[str, Traffic] = {
    "independent": Traffic(),
    "clumps x3": Traffic(clumps=3),
    "clumps x10": Traffic(clumps=10),
    "daily swing 15 %": Traffic(daily=0.15),
    "daily swing 40 %": Traffic(daily=0.4),
    "day and week": Traffic(daily=0.3, weekly=0.25),
    "hourly wander 4 %": Traffic(wander=0.04),
    "bursts": Traffic(bursts_a_day=6),
    "half the volume": Traffic(halved_after_hours=LEARNING_HOURS + 10 * DAY_HOURS),
    "sparse nights": Traffic(night_rows=5),
    "all at once": Traffic(
        clumps=3,
        daily=0.3,
        weekly=0.25,
        wander=0.04,
        bursts_a_day=6,
        night_rows=5,
        halved_after_hours=LEARNING_HOURS + 10 * DAY_HOURS,
    ),
}
"""Calm traffic, on which a month may have one false alarm over all slices."""


@dataclass(frozen=True, slots=True)
class Change:
    """Change of some slices' rates by a factor, from a block on; over ``ramp_blocks`` in equal relative steps."""

    block: int
    slices: tuple[int, ...]
    factor: float
    ramp_blocks: int = 0


@dataclass(frozen=True, slots=True)
class Hour:
    """Counts of one hour: ``n`` int64[360] rows and ``members`` int64[360, S], from block ``first`` on."""

    first: int
    n: IntArray
    members: IntArray


@dataclass(frozen=True, slots=True)
class TrafficStream:
    """Stream of blocks of S slices.

    Parameters
    ----------
    traffic
        Kind of traffic.
    rates : float64[S]
        Mean rate of every slice.
    seed
        Seed of the generator.
    changes
        Changes planted into the stream.

    Examples
    --------
    >>> stream = TrafficStream(KINDS["independent"], np.array([0.01, 0.2]), seed=0)
    >>> hour = next(stream.hours(1))
    >>> hour.n.shape, hour.members.shape
    ((360,), (360, 2))
    """

    traffic: Traffic
    rates: FloatArray
    seed: int
    changes: tuple[Change, ...] = field(default=())

    def season(self, block: IntArray) -> FloatArray:
        """Return the rates at blocks over their mean by the season alone, float64[len(block), S]."""
        slices = len(self.rates)
        phase, weekend = self._swings(np.random.default_rng([self.seed, 0]))
        relative = np.ones((len(block), slices))
        if self.traffic.daily:
            angle = 2 * np.pi * (block / (DAY_HOURS * HOUR_BLOCKS))
            relative += self.traffic.daily * np.sin(angle[:, None] + phase)
        if self.traffic.weekly:
            relative *= 1 - weekend * (block[:, None] // HOUR_BLOCKS % WEEK_HOURS >= 5 * DAY_HOURS)
        return relative

    def hours(self, count: int, first: int = 0) -> Iterator[Hour]:
        """Yield the counts of the first hours, from ``first`` on."""
        traffic, slices = self.traffic, len(self.rates)
        fixed = np.random.default_rng([self.seed, 0])
        self._swings(fixed)
        bursting = fixed.random(slices) < 0.2
        wander = fixed.normal(0, 1, slices)
        until = -1  # last block of the burst that is going on
        for hour in range(first, count):
            rng = np.random.default_rng([self.seed, 1, hour])
            block = hour * HOUR_BLOCKS + np.arange(HOUR_BLOCKS)
            relative = self.season(block)
            if traffic.wander:
                steps = rng.normal(0, np.sqrt(1 - _WANDER_STEP**2), (HOUR_BLOCKS, slices))
                path = np.empty((HOUR_BLOCKS, slices))
                for k in range(HOUR_BLOCKS):
                    wander = path[k] = _WANDER_STEP * wander + steps[k]
                relative *= 1 + traffic.wander * path
            if traffic.bursts_a_day:
                starts = block[rng.random(HOUR_BLOCKS) < traffic.bursts_a_day / (DAY_HOURS * HOUR_BLOCKS)]
                doubled = block < until
                for start in starts.tolist():
                    doubled |= (start <= block) & (block < start + _BURST_BLOCKS)
                    until = start + _BURST_BLOCKS
                relative *= np.where(doubled[:, None] & bursting, 2.0, 1.0)
            for change in self.changes:
                share = np.clip((block - change.block + 1) / max(1, change.ramp_blocks), 0, 1)
                relative[:, list(change.slices)] *= change.factor ** share[:, None]
            yield self._counts(hour, relative, rng)

    def _swings(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw the phase of every slice's day, and the fall of its rate at the weekend."""
        slices = len(self.rates)
        return rng.uniform(0, 2 * np.pi, slices), rng.choice([-1.0, 1.0], slices) * self.traffic.weekly

    def _counts(self, hour: int, relative: FloatArray, rng: np.random.Generator) -> Hour:
        """Return the counts of an hour whose rates are these multiples of the mean."""
        traffic = self.traffic
        rows = float(traffic.rows)
        if traffic.halved_after_hours is not None and hour >= traffic.halved_after_hours:
            rows /= 2
        if traffic.night_rows is not None and hour % DAY_HOURS < 6:
            rows = traffic.night_rows
        n = rng.poisson(rows, HOUR_BLOCKS)
        p = np.clip(self.rates * relative, 0, 0.98)
        if traffic.clumps > 1:
            # beta-binomial: the variance is 1 + (n - 1) rho times the binomial one
            rho = np.clip((traffic.clumps - 1) / np.maximum(n - 1, 1), 1e-9, 0.95)[:, None]
            total = 1 / rho - 1
            p = np.where(p > 0, rng.beta(np.maximum(p * total, 1e-9), (1 - p) * total), 0.0)
        return Hour(hour * HOUR_BLOCKS, n, rng.binomial(n[:, None], p))


def spread_rates(slices: int, seed: int = 0) -> FloatArray:
    """Return mean rates between 0.2 % and 30 %, uniform in their logarithm."""
    rng = np.random.default_rng([seed, 2])
    return np.exp(rng.uniform(np.log(0.002), np.log(0.3), slices))
