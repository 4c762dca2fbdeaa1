"""Dispersion of many rates: how far calm traffic strays from independent rows, at scales from seconds to hours."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

DIFFERENCE_SECONDS = (10, 60, 600)
"""Lengths of the chunks whose rates are compared with that of the chunk before."""

RESIDUAL_SECONDS = (600, 3_600, 21_600)
"""Lengths of the chunks whose members are compared with the expected ones."""

WANDER_DEVIATIONS = 5.5
"""Standard deviations of a wander within which a rate may be found in a month, over thousands of slices."""

_QUARTERS = 4  # of a day, as long as the longest residuals
_EXCURSIONS = 2  # scales of RESIDUAL_SECONDS at which the largest excursions are kept
_EXCURSION_MARGIN = 1.5  # by which a later excursion may exceed the largest so far
_EXCURSION_EVIDENCE = 3.0  # nats that an excursion may contribute
_SIGNIFICANT = 5.0  # standard deviations from which a chunk is an excursion
_UPPER = 1.25  # upper confidence factor of the standard deviation of a wander
_PAIRS = 20.0  # of chunks that are assumed, as of independent rows
_CHUNKS = 20  # from which residuals are used
_ASSUMED = 20.0  # heights that are assumed, as of rates that are calm but for the dispersion of their blocks
_PEAK_MARGIN = 1.25
_MEMORY = 0.95  # of a day
_LEAST = 1e-12


@dataclass(eq=False, slots=True)
class Dispersion:
    """Variances of K rates at several scales, over those of independent rows with the same expectation.

    Up to ten minutes, neighbouring chunks are compared, so that neither level nor season matter. Residuals from the
    expected members show what is slower. They are collected for a day, and are kept only for rates that were calm
    all day: a change must not teach that it is normal.

    Parameters
    ----------
    chunk, chunk_before : float64[3, 2, K]
        Members and rows of the current and the previous chunk, by ``DIFFERENCE_SECONDS``.
    differences : float64[3, 3, K]
        Sums over pairs of chunks: squared difference of the rates, weighted by rows, its mean for independent rows,
        and 1.
    residual : float64[3, 3, K]
        Residual, binomial variance and expected members of the current chunk, by ``RESIDUAL_SECONDS``.
    day, kept : float64[3, 3, K]
        Sums over chunks of this day, and of the days before: squared residual, variance, and number of chunks.
    day_excursion, excursion : float64[2, 2, K]
        Largest relative excursion up and down of a chunk of this day, and of the days before.
    sizes : float64[3, 2]
        Sums over chunks of their rows, and of the squares, by ``RESIDUAL_SECONDS``; rates share them.
    index : int64[6]
        Number of the current chunk since the epoch, by ``DIFFERENCE_SECONDS`` and ``RESIDUAL_SECONDS``.
    rows : float64[3]
        Rows of the current chunk, by ``RESIDUAL_SECONDS``.

    References
    ----------
    von Neumann (1941), Distribution of the ratio of the mean square successive difference to the variance,
    Annals of Mathematical Statistics 12, 367-395.
    """

    chunk: FloatArray
    chunk_before: FloatArray
    differences: FloatArray
    residual: FloatArray
    day: FloatArray
    kept: FloatArray
    day_excursion: FloatArray
    excursion: FloatArray
    sizes: FloatArray
    index: NDArray[np.int64]
    rows: FloatArray

    @classmethod
    def empty(cls, rates: int) -> Dispersion:
        """Return the dispersion of K rates without observations."""
        scales, residuals = len(DIFFERENCE_SECONDS), len(RESIDUAL_SECONDS)
        chunk, before = np.zeros((2, scales, 2, rates))
        differences = np.zeros((scales, 3, rates))
        residual, day, kept = np.zeros((3, residuals, 3, rates))
        day_excursion, excursion = np.zeros((2, _EXCURSIONS, 2, rates))
        index = np.zeros(scales + residuals, np.int64)
        sizes, rows = np.zeros((residuals, 2)), np.zeros(residuals)
        return cls(chunk, before, differences, residual, day, kept, day_excursion, excursion, sizes, index, rows)

    def add(self, start: int, seconds: int, count: FloatArray, n: FloatArray, expected: FloatArray | None) -> None:
        """Add an observation.

        Parameters
        ----------
        start, seconds
            Start in seconds since the epoch, and length. Chunks shorter than the observation are left out.
        count, n : float64[K]
            Members and known rows.
        expected : float64[K] or None
            Expected rate; 0 for rates, and None for all, of which nothing is expected yet.
        """
        for i, length in enumerate(DIFFERENCE_SECONDS):
            if seconds > length:
                continue
            if start // length != self.index[i]:
                self._compare(i, adjacent=start // length == self.index[i] + 1)
                self.index[i] = start // length
            self.chunk[i, 0] += count
            self.chunk[i, 1] += n
        due = n * (0.0 if expected is None else expected)
        parts = (due > 0) * (count - due), due * (1 - due / np.maximum(n, 1.0)), due
        largest = n.max(initial=0.0)
        for i, length in enumerate(RESIDUAL_SECONDS):
            k = len(DIFFERENCE_SECONDS) + i
            if seconds > length:
                continue
            if start // length != self.index[k]:
                self._take_residual(i)
                self.index[k] = start // length
            if expected is not None:
                for target, part in zip(self.residual[i], parts, strict=True):
                    target += part
            self.rows[i] += largest

    def end_day(self, calm: BoolArray, members: FloatArray, due: FloatArray) -> None:
        """Keep the residuals of this day for the rates that were calm, and let those of earlier days fade.

        They are taken from the level of the day itself: a slide, which moves all chunks of a day alike, is no wander.

        Parameters
        ----------
        calm : bool[K]
        members, due : float64[24, K]
            Members and expected members by hour; 0 of the latter where nothing was expected.
        """
        self._centre_day(members, due)
        self.kept += np.where(calm, self.day, 0.0)
        np.maximum(self.excursion, np.where(calm, self.day_excursion, 0.0), out=self.excursion)
        self.day[:] = 0
        self.day_excursion[:] = 0
        for array in (self.differences, self.kept, self.excursion, self.sizes):
            array *= _MEMORY

    def forget_residuals(self, rates: BoolArray) -> None:
        """Forget the residuals of these rates, whose season was incomplete."""
        self.kept[..., rates] = 0
        self.residual[..., rates] = 0

    def by_rate(self) -> tuple[FloatArray, ...]:
        """Return the arrays whose last axis are the rates."""
        arrays = (getattr(self, each.name) for each in fields(self))
        return tuple(each for each in arrays if each.ndim > 2)

    def shared(self) -> tuple[NDArray[np.float64 | np.int64], ...]:
        """Return the arrays that the rates share."""
        return self.sizes, self.index, self.rows

    def ratios(self) -> FloatArray:
        """Return the variance over that of independent rows at 10 s, 1 and 10 minutes, 1 and 6 hours, float64[5, K]."""
        squares, due, pairs = self.differences[:, 0], self.differences[:, 1], self.differences[:, 2]
        short = (np.divide(squares, due, out=np.ones_like(due), where=due > 0) * pairs + _PAIRS) / (pairs + _PAIRS)
        squares, due, chunks = self.kept[1:, 0], self.kept[1:, 1], self.kept[1:, 2]
        slow = np.where((chunks >= _CHUNKS) & (due > _LEAST), squares / np.maximum(due, _LEAST), short[2])
        return np.concatenate([short, slow])

    def wander(self, ratios: FloatArray, level: FloatArray) -> FloatArray:
        """Return the upper limit of the relative standard deviation of the rate itself, float64[K].

        It is the excess of the variance at ten minutes, an hour and six hours over that of single blocks.
        """
        largest = np.zeros_like(level)
        for i, ratio in enumerate(ratios[2:]):
            rows = self.sizes[i, 1] / max(self.sizes[i, 0], _LEAST)
            if rows > 0:
                excess = np.maximum(ratio - ratios[0], 0.0)
                largest = np.maximum(largest, excess * (1 - level) / np.maximum(level * rows, _LEAST))
        return _UPPER * np.sqrt(largest)

    def excursion_evidence(
        self, hit: FloatArray, miss: FloatArray, expected: FloatArray, assumed: FloatArray, pace: float
    ) -> FloatArray:
        """Return the divisor by which the largest excursion so far is no evidence to speak of, float64[C, K].

        Parameters
        ----------
        hit, miss : float64[C, K]
            Log-likelihood ratio per member and per other row.
        expected, assumed : float64[K]
            Expected rate, and relative excursion upwards that is assumed at least.
        pace
            Rows a second, for the size of chunks of which none is complete.
        """
        divisor = np.ones_like(hit)
        for i in range(_EXCURSIONS):
            whole = self.sizes[i, 0] > 0
            rows = self.sizes[i, 1] / self.sizes[i, 0] if whole else pace * RESIDUAL_SECONDS[i]
            up = expected * (1 + np.maximum(_EXCURSION_MARGIN * self.excursion[i, 0], assumed))
            down = expected * np.maximum(1 - _EXCURSION_MARGIN * self.excursion[i, 1], 0.0)
            rate = np.where(hit > 0, np.minimum(up, 1.0), down)
            np.maximum(divisor, rows * (rate * (hit - miss) + miss) / _EXCURSION_EVIDENCE, out=divisor)
        return divisor

    def _compare(self, i: int, *, adjacent: bool) -> None:
        """End a chunk, and compare it with the one before."""
        (count, n), (before, n_before) = self.chunk[i], self.chunk_before[i]
        rows = n + n_before
        weight = adjacent * n * n_before / np.maximum(rows, 1.0)
        difference = count / np.maximum(n, 1.0) - before / np.maximum(n_before, 1.0)
        pooled = (count + before) / np.maximum(rows, 1.0)
        self.differences[i, 0] += (weight * difference) ** 2
        self.differences[i, 1] += weight * pooled * (1 - pooled) * rows / np.maximum(rows - 1, 1.0)
        self.differences[i, 2] += weight > 0
        self.chunk_before[i] = self.chunk[i]
        self.chunk[i] = 0

    def _centre_day(self, members: FloatArray, due: FloatArray) -> None:
        """Take the part of the level of the day from its residuals, and from its excursions."""
        total = due.sum(axis=0)
        level = np.divide(members.sum(axis=0), total, out=np.ones_like(total), where=total > 0)
        hours = (due**2).sum(axis=0)
        quarters = (due.reshape(_QUARTERS, -1, len(total)).sum(axis=1) ** 2).sum(axis=0)  # [4, 6, K] -> [K]
        for i, squares in enumerate((hours * RESIDUAL_SECONDS[0] / RESIDUAL_SECONDS[1], hours, quarters)):
            share = np.divide(squares, total**2, out=np.zeros_like(total), where=total > 0)
            self.day[i, 0] = np.maximum(self.day[i, 0] - (level - 1) ** 2 * squares, 0.0)
            self.day[i, 1] *= 1 - share
        relative = np.maximum(level, _LEAST)
        up, down = (1 + self.day_excursion[:, 0]) / relative - 1, 1 - (1 - self.day_excursion[:, 1]) / relative
        self.day_excursion[:] = np.maximum(np.where(self.day_excursion > 0, np.stack([up, down], axis=1), 0.0), 0.0)

    def _take_residual(self, i: int) -> None:
        """End a chunk, and add its residual to those of the day."""
        residual, variance, due = self.residual[i]
        self.day[i, 0] += residual**2
        self.day[i, 1] += variance
        self.day[i, 2] += due > 0
        if i < _EXCURSIONS:
            block = np.maximum(self.ratios()[0], 1.0)
            significant = np.abs(residual) > _SIGNIFICANT * np.sqrt(block * variance)
            relative = np.where(significant, residual / np.maximum(due, _LEAST), 0.0)
            np.maximum(self.day_excursion[i, 0], relative, out=self.day_excursion[i, 0])
            np.maximum(self.day_excursion[i, 1], -relative, out=self.day_excursion[i, 1])
        self.sizes[i] += self.rows[i], self.rows[i] ** 2
        self.residual[i] = 0
        self.rows[i] = 0


@dataclass(eq=False, slots=True)
class Peaks:
    """Heights that log-likelihood ratios reached in calm traffic before they fell to 0: C alternatives, K rates.

    Of a divisor that makes a log-likelihood ratio fair, heights are exponential with the divisor as their mean,
    whatever it is that moves the rates: clumps, bursts, or a season that is known badly. It is estimated by the third
    moment over three times the second, since the largest heights matter.

    Parameters
    ----------
    height : float64[C, K]
        Highest value since the ratio was 0.
    squares, cubes : float64[C, K]
        Sums over the heights of the past.

    References
    ----------
    Asmussen (2003), Applied probability and queues, XIII.5: the exponential tail of a random walk's maximum.
    """

    height: FloatArray
    squares: FloatArray
    cubes: FloatArray

    @classmethod
    def empty(cls, alternatives: int, rates: int) -> Peaks:
        """Return no heights."""
        return cls(*np.zeros((3, alternatives, rates)))

    def add(self, cusum: FloatArray, divisor: FloatArray, alarmed: BoolArray) -> None:
        """Add log-likelihood ratios, float64[C, K], that were divided by their divisor.

        The heights of rates that alarmed, bool[K], are not those of calm traffic.
        """
        if alarmed.any():
            self.height[:, alarmed] = 0
            cusum = np.where(alarmed, 0.0, cusum)
        ended = (cusum == 0) & (self.height > 0)
        height = self.height * divisor * ended  # far cheaper than to select
        squares = height * height
        self.squares += squares
        self.cubes += squares * height
        self.height *= ~ended
        np.maximum(self.height, cusum, out=self.height)

    def divisor(self, block: FloatArray) -> FloatArray:
        """Return the divisor that the heights ask for, float64[C, K]; without heights that of blocks, float64[K]."""
        squares = 3 * self.squares + 6 * _ASSUMED * block**2
        return _PEAK_MARGIN * (self.cubes + 6 * _ASSUMED * block**3) / squares

    def fade(self) -> None:
        """Let the heights of earlier days fade."""
        self.squares *= _MEMORY
        self.cubes *= _MEMORY

    def arrays(self) -> tuple[FloatArray, ...]:
        """Return the arrays in the order of the fields."""
        return self.height, self.squares, self.cubes
