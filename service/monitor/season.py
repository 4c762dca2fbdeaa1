"""Season of many rates: their level, hour of day, day of week and hour of week, as learned from whole days."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Indices = NDArray[np.intp]

DAY_HOURS, WEEK_DAYS = 24, 7
WEEK_HOURS = DAY_HOURS * WEEK_DAYS
LEVEL_DAYS = 28
"""Days from which a level is learned; it stays as it is afterwards, and the season alone is learned on."""

_LEAST = 1e-9
_AMPLITUDES = (0.5, 1.5)  # powers of a factor of a table: its season may be weaker or stronger in live traffic
_TABLE_DEVIATIONS = 3.5


@dataclass(frozen=True, eq=False, slots=True)
class SeasonProfile:
    """Expected rates of K slices by hour of week.

    Parameters
    ----------
    rate, error, bend : float64[168, K]
        Expected rate in an hour; its relative standard error; and half of the step at its begin or end, relative to
        it: by how much the slope there exceeds that of the hours around.
    level : float64[K]
        Rate over all rows.
    scale : float64[K]
        Factor by which the counts were scaled to the anchor.
    """

    rate: FloatArray
    error: FloatArray
    bend: FloatArray
    level: FloatArray
    scale: FloatArray

    def at(self, hours: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return expected rate, its lowest and highest value, and its relative standard error; float64[H, K] each.

        Between the centres of two hours the rate is interpolated. Where it makes a step, it may also be that of
        the hour itself.

        Parameters
        ----------
        hours : float64[H]
            Hours since Monday, 00:00, below 168.
        """
        before = np.floor(hours - 0.5).astype(np.intp) % WEEK_HOURS
        after, share = (before + 1) % WEEK_HOURS, ((hours - 0.5) % 1)[:, None]
        expected = (1 - share) * self.rate[before] + share * self.rate[after]
        own, bend = self.rate[hours.astype(np.intp)], self.bend[hours.astype(np.intp)]
        step = np.clip(own - expected, -bend * own, bend * own)
        error = np.maximum(self.error[before], self.error[after])
        return expected, expected + np.minimum(step, 0), expected + np.maximum(step, 0), error

    def expected(self, hour: float) -> FloatArray:
        """Return the expected rate alone, float64[K]; far cheaper."""
        before, share = int((hour - 0.5) // 1) % WEEK_HOURS, (hour - 0.5) % 1
        return np.asarray((1 - share) * self.rate[before] + share * self.rate[(before + 1) % WEEK_HOURS])


@dataclass(eq=False, slots=True)
class Season:
    """Members and rows of K rates by hour of week; a day is added as a whole.

    Hour of day, day of week and hour of week are three layers, each a factor on the one before. Every factor is shrunk
    towards 1 by the share of its variance that chance explains, so that a slice without a season has none, and one
    with few members borrows from its coarser layers. After ``LEVEL_DAYS`` days an hour of week counts with a memory of
    four weeks, and the profile is scaled to the level of the time before: a slide does not become normal by lasting.

    Parameters
    ----------
    members, rows : float32[168, K]
        Counts by hour of week.
    days : float64[K]
        Whole days that were added.
    anchor : float64[K]
        Mean rate over the hours of a week at ``LEVEL_DAYS``; 0 before.
    level_rows : float64[K]
        Rows behind the level.

    References
    ----------
    Efron and Morris (1973), Stein's estimation rule and its competitors, JASA 68, 117-130.
    """

    members: NDArray[np.float32]
    rows: NDArray[np.float32]
    days: FloatArray
    anchor: FloatArray
    level_rows: FloatArray
    _profile: SeasonProfile | None = field(default=None, init=False)

    @classmethod
    def empty(cls, rates: int) -> Season:
        """Return a season of K rates without days."""
        members, rows = np.zeros((2, WEEK_HOURS, rates), np.float32)
        days, anchor, level_rows = np.zeros((3, rates))
        return cls(members, rows, days, anchor, level_rows)

    def add_day(self, weekday: int, members: NDArray[np.float32], rows: NDArray[np.float32], whole: BoolArray) -> None:
        """Add a day: its counts float32[24, K] by hour, and bool[K] whether all of the day was observed."""
        hours = slice(weekday * DAY_HOURS, (weekday + 1) * DAY_HOURS)
        settled = self.anchor > 0
        kept = np.where(settled & (rows.sum(axis=0) > 0), np.float32(0.75), np.float32(1))
        self.members[hours] = kept * self.members[hours] + members
        self.rows[hours] = kept * self.rows[hours] + rows
        self.level_rows += np.where(settled, 0.0, rows.sum(axis=0))
        self.days += whole
        self._profile = None

    def settle(self, dispersion: FloatArray) -> None:
        """Fix the level of the rates that have been observed for ``LEVEL_DAYS`` days."""
        new = (self.days >= LEVEL_DAYS) & (self.anchor == 0)
        if new.any():
            self.anchor = np.where(new, self.profile(dispersion).rate.mean(axis=0), self.anchor)
            self._profile = None

    def replace_day(
        self, weekday: int, members: NDArray[np.float32], rows: NDArray[np.float32], dispersion: FloatArray
    ) -> None:
        """Let a day, as that of ``add_day``, take the place of its weekday, where it has rows; other days stay."""
        rates, scale = rows.sum(axis=0) > 0, self.profile(dispersion).scale
        hours = slice(weekday * DAY_HOURS, (weekday + 1) * DAY_HOURS)
        self.members[hours] = np.where(rates, members, self.members[hours])
        self.rows[hours] = np.where(rates, rows, self.rows[hours])
        self._profile = None
        self.anchor = np.where(rates, self.anchor * scale / self.profile(dispersion).scale, self.anchor)
        self._profile = None

    def rebase(self, rates: Indices, level: FloatArray, rows: FloatArray) -> None:
        """Give rates another level, float64[K] with its rows; their season stays, their level is learned on.

        A rate with fewer members than a week has hours, such as one of 0, has no season that could be scaled.
        """
        now = self.members[:, rates].sum(axis=0) / np.maximum(self.rows[:, rates].sum(axis=0), _LEAST)
        learned = self.rows[:, rates].sum(axis=0)
        weight = np.minimum(1.0, rows / np.maximum(learned, _LEAST))
        few = self.members[:, rates].sum(axis=0) < WEEK_HOURS
        scaled = self.members[:, rates] * (weight * level / np.maximum(now, _LEAST))
        self.rows[:, rates] *= weight
        self.members[:, rates] = np.where(few, self.rows[:, rates] * level, scaled)
        self.anchor[rates] = 0.0
        self.level_rows[rates] = self.rows[:, rates].sum(axis=0)
        self.days[rates] = np.minimum(self.days[rates], LEVEL_DAYS - WEEK_DAYS)
        self._profile = None

    def touch(self) -> None:
        """Estimate the profile again: the arrays were changed from outside."""
        self._profile = None

    def arrays(self) -> tuple[NDArray[np.float32 | np.float64], ...]:
        """Return the arrays in the order of the fields."""
        return self.members, self.rows, self.days, self.anchor, self.level_rows

    def profile(self, dispersion: FloatArray) -> SeasonProfile:
        """Return the expected rates; the same until a day is added.

        Parameters
        ----------
        dispersion : float64[K]
            Variance of the members of an hour over that of a binomial with as many rows.
        """
        if self._profile is None:
            self._profile = self._estimate(dispersion)
        return self._profile

    def _estimate(self, dispersion: FloatArray) -> SeasonProfile:
        members = self.members.reshape(WEEK_DAYS, DAY_HOURS, -1).astype(np.float64)
        rows = self.rows.reshape(WEEK_DAYS, DAY_HOURS, -1).astype(np.float64)
        all_rows = np.maximum(rows.sum(axis=(0, 1)), _LEAST)
        level = np.clip(members.sum(axis=(0, 1)) / all_rows, 1e-6, 1 - 1e-6)
        noise = dispersion * (1 - level) / level  # relative variance of the rate of one row
        factor = np.ones_like(members)
        variance = np.zeros_like(members)
        week = self.days >= WEEK_DAYS
        for axis, known in ((0, self.days >= 1), (1, week), (None, week)):
            seen = rows if axis is None else rows.sum(axis=axis, keepdims=True)
            counted = members if axis is None else members.sum(axis=axis, keepdims=True)
            expected = level * factor * rows
            expected = expected if axis is None else expected.sum(axis=axis, keepdims=True)
            deviation = np.where(seen > 0, counted / np.maximum(expected, _LEAST) - 1, 0.0)
            shrunk, remaining = _shrink(deviation, seen, noise)
            factor = factor * (1 + known * shrunk)
            variance = variance + known * remaining
        rate = (level * factor).reshape(WEEK_HOURS, -1)
        scale = np.where(self.anchor > 0, self.anchor / np.maximum(rate.mean(axis=0), _LEAST), 1.0)
        rate = np.minimum(scale * rate, 1 - 1e-6)
        slope = rate - np.roll(rate, 1, axis=0)
        jump = np.abs(slope - (np.roll(slope, 1, axis=0) + np.roll(slope, -1, axis=0)) / 2)
        bend = np.maximum(jump, np.roll(jump, -1, axis=0)) / (2 * rate)
        variance = variance.reshape(WEEK_HOURS, -1) + noise / np.maximum(self.level_rows, 1.0)
        return SeasonProfile(rate, np.sqrt(variance), bend, scale * level, scale)


@dataclass(frozen=True, eq=False, slots=True)
class TableProfile:
    """Season of a training table.

    Parameters
    ----------
    profile
        Rates in the table.
    spread : float64[K]
        Relative uncertainty of the factors, 3.5 standard errors; infinite for slices of which the table has none.
    """

    profile: SeasonProfile
    spread: FloatArray

    @classmethod
    def of(cls, members: NDArray[np.float32], rows: NDArray[np.float32], dispersion: FloatArray) -> TableProfile:
        """Return the season by counts float32[168, K]; slices without rows have none."""
        season = Season.empty(len(dispersion))
        season.members, season.rows = members, rows
        season.days[:], season.level_rows = WEEK_DAYS, rows.sum(axis=0, dtype=np.float64)
        profile = season.profile(dispersion)
        spread = np.where(season.level_rows > 0, _TABLE_DEVIATIONS * profile.error.max(axis=0), np.inf)
        return cls(profile, spread)

    def at(self, hours: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the factor on the level, and the lowest and highest that live traffic may have; float64[H, K] each.

        A table is older than the traffic: of the factors of the hour and of its neighbours, half and one and a half
        times the swing, on the logarithmic scale, are allowed for, and 3.5 standard errors.
        """
        factors, lowest, highest = [], [], []
        for shift in (0, -1, 1):
            *rates, error = self.profile.at((hours + shift) % WEEK_HOURS)
            factors.append(rates[0] / self.profile.level)
            swings = [(rate / self.profile.level) ** power for rate in rates for power in _AMPLITUDES]
            lowest.append(np.minimum.reduce(swings) / (1 + _TABLE_DEVIATIONS * error))
            highest.append(np.maximum.reduce(swings) * (1 + _TABLE_DEVIATIONS * error))
        return factors[0], np.minimum.reduce(lowest), np.maximum.reduce(highest)

    def level(self, season: Season, dispersion: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the level of live traffic with the season of the table, and its relative standard error."""
        due = (season.rows * (self.profile.rate / self.profile.level)).sum(axis=0)
        level = np.clip(season.members.sum(axis=0) / np.maximum(due, 1.0), 1e-6, 1 - 1e-6)
        return level, np.sqrt(dispersion * (1 - level) / level / np.maximum(due, 1.0))


def _shrink(deviation: FloatArray, rows: FloatArray, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return deviations shrunk by the share of their variance that is chance, and the variance that remains.

    The variance between cells is estimated by moments, with its own standard error on top.
    """
    chance = np.where(rows > 0, noise / np.maximum(rows, _LEAST), 0.0)
    weight = rows / np.maximum(rows.sum(axis=(0, 1)), _LEAST)
    mean_chance = (weight * chance).sum(axis=(0, 1))
    cells = np.maximum((rows > 0).sum(axis=(0, 1)), 1)
    excess = np.maximum((weight * deviation**2).sum(axis=(0, 1)) - mean_chance, 0.0)
    between = excess + mean_chance * np.sqrt(2 / cells)
    share = np.where(rows > 0, between / np.maximum(between + chance, _LEAST), 0.0)
    return share * deviation, share * chance
