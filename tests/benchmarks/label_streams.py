"""Simulated labels of many slices: at random, sorted or delayed by class, in clumps, corrected, and after changes.

A stream begins with a version, whose predictions are uniform in time. Every slice has its own share of the second class
(spam) and its own error rate in each class; slices do not overlap, and ten of them are a family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

START = 1_767_571_200
"""Monday, 5 January 2026, 00:00 UTC, in seconds since the epoch: the start of every stream."""
HOUR, DAY, WEEK = 3_600, 86_400, 7 * 86_400
MONTH_DAYS = 30
FAMILY_SLICES = 10
_CLUMP_SECONDS = 600
_SESSION_SECONDS = 4 * HOUR


@dataclass(frozen=True, slots=True)
class Labelling:
    """How predictions are labelled: which labels come first, although nothing has changed.

    Parameters
    ----------
    delay_days
        Mean delay, exponential, by true class.
    sorted_by
        Labels come in a weekly session of four hours, all of one class first: "true" or "predicted" class.
    share
        Labelled share of the predictions by predicted class: a review of predicted spam labels nearly all of it.
    clumps
        Variance of the errors in a clump of ``clump_labels`` over that of independent labels; 1 for none. A clump
        is of one slice and comes within ten minutes.
    working_hours
        Labels come from 9 to 17 o'clock on working days only.
    slips
        Share of first labels that name a wrong class, and are corrected.
    correction_hours
        Mean time from a first label to its correction, exponential.
    """

    delay_days: tuple[float, float] = (0.02, 0.02)
    sorted_by: str | None = None
    share: tuple[float, float] = (1.0, 1.0)
    clumps: float = 1.0
    clump_labels: int = 30
    working_hours: bool = False
    slips: float = 0.0
    correction_hours: float = 6.0


KINDS: Mapping[str, Labelling] = {
    "independent": Labelling(),
    "sorted by true class": Labelling(sorted_by="true"),
    "sorted by prediction": Labelling(sorted_by="predicted"),
    "predicted spam reviewed": Labelling(share=(0.1, 0.8)),
    "delay by true class": Labelling(delay_days=(5.0, 0.01)),
    "clumps x3": Labelling(clumps=3),
    "working hours": Labelling(working_hours=True),
    "corrections": Labelling(slips=0.04),
    "all at once": Labelling(delay_days=(5.0, 0.01), clumps=3, working_hours=True, slips=0.04),
}
"""Calm labelling, on which a month may have one false alarm over all slices."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Change of some slices from a day on.

    Parameters
    ----------
    day
        Day of the predictions from which it is in force.
    slices
        Slices that change.
    odds
        Factors on the odds of an error, by true class.
    spam_odds
        Factor on the odds of the second class.
    """

    day: float
    slices: tuple[int, ...]
    odds: tuple[float, float] = (1.0, 1.0)
    spam_odds: float = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class Labels:
    """N labels in order of arrival; times in seconds since the epoch, classes 0 and 1.

    ``first`` is the class of the first label; it differs from ``true`` until ``corrected_at``.
    """

    predicted_at: IntArray
    arrived_at: IntArray
    slices: IntArray
    predicted: IntArray
    true: IntArray
    first: IntArray
    corrected_at: IntArray

    def __len__(self) -> int:
        return len(self.slices)

    def in_order(self, arrived_at: IntArray, until: float = np.inf) -> Labels:
        """Return the labels with these times of arrival, in their order, of those before ``until``."""
        order = np.argsort(arrived_at, kind="stable")
        order = order[arrived_at[order] < until]
        columns = {name: getattr(self, name)[order] for name in self.__slots__}
        return replace(self, **columns | {"arrived_at": arrived_at[order]})

    def settled(self, seconds: int) -> Labels:
        """Return the labels as they are this long after they came: with the class that is in force by then."""
        now = np.where(self.corrected_at <= self.arrived_at + seconds, self.true, self.first)
        return replace(self, arrived_at=self.arrived_at + seconds, first=now)

    def matured(self, seconds: int) -> Labels:
        """Return the labels by cohort: none is used before its prediction has this age."""
        return self.in_order(np.maximum(self.arrived_at, self.predicted_at + seconds))

    def blocks(self, seconds: int, slices: int) -> Iterator[tuple[int, IntArray, IntArray]]:
        """Yield the end of every block with labels, its slices, and their counts by first and predicted class."""
        block = self.arrived_at // seconds
        cells = self.first * 2 + self.predicted
        bounds = np.flatnonzero(np.diff(block, prepend=-1, append=-1))
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            counts = np.bincount(self.slices[low:high] * 4 + cells[low:high], minlength=4 * slices)
            counts = counts.reshape(slices, 2, 2)
            (own,) = np.nonzero(counts.any(axis=(1, 2)))
            yield int(block[low] + 1) * seconds, own, counts[own]


@dataclass(frozen=True)
class LabelStream:
    """Stream of the labels of S slices over 30 days.

    Parameters
    ----------
    labelling
        Kind of labelling.
    slices
        Number of slices.
    labels_a_month
        Labels of each slice in a month, in the mean.
    seed
        Seed of the generator.
    shifts
        Changes planted into the stream.
    days
        Days of predictions, and of arrivals.
    spam, errors : float64[S], float64[S, 2]
        Share of the second class, and error rate in each true class.

    Examples
    --------
    >>> stream = LabelStream(KINDS["independent"], slices=20, labels_a_month=300, seed=0)
    >>> labels = stream.labels()
    >>> 5_000 < len(labels) < 6_500, bool((np.diff(labels.arrived_at) >= 0).all())
    (True, True)
    >>> stream.reference(1_000).sum(axis=(1, 2)).tolist() == [1_000] * 20
    True
    """

    labelling: Labelling
    slices: int
    labels_a_month: int
    seed: int
    shifts: tuple[Shift, ...] = ()
    days: int = MONTH_DAYS
    rates: tuple[FloatArray, FloatArray] | None = field(default=None, repr=False)

    @cached_property
    def _rates(self) -> tuple[FloatArray, FloatArray]:
        if self.rates is not None:
            return self.rates
        rng = np.random.default_rng([self.seed, 0])
        spam = rng.uniform(0.1, 0.5, self.slices)
        low, high = np.log([[0.01, 0.05], [0.06, 0.25]])
        return spam, np.exp(rng.uniform(low, high, (self.slices, 2)))

    def reference(self, rows: int) -> IntArray:
        """Return counts of held-out rows by true and predicted class: int64[S, 2, 2], ``rows`` of each slice."""
        rng = np.random.default_rng([self.seed, 1])
        spam, errors = self._rates
        n = rng.binomial(rows, spam)
        n = np.stack([rows - n, n], axis=1)
        wrong = rng.binomial(n, errors)
        return np.stack(
            [np.stack([n[:, 0] - wrong[:, 0], wrong[:, 0]], 1), np.stack([wrong[:, 1], n[:, 1] - wrong[:, 1]], 1)], 1
        )

    def labels(self) -> Labels:
        """Return the labels that come within the days, in order of arrival."""
        labelling, rng = self.labelling, np.random.default_rng([self.seed, 2])
        spam, errors = self._rates
        size = labelling.clump_labels if labelling.clumps > 1 else 1
        mean_share = np.mean(labelling.share)
        clumps = rng.poisson(self.slices * self.labels_a_month * self.days / MONTH_DAYS / mean_share / size)
        slices = np.repeat(rng.integers(0, self.slices, clumps), size)
        at = START + np.repeat(rng.uniform(0, self.days * DAY, clumps), size)
        odds, spam_odds = np.ones((len(at), 2)), np.ones(len(at))
        for shift in self.shifts:
            moved = np.isin(slices, shift.slices) & (at >= START + shift.day * DAY)
            odds[moved] *= shift.odds
            spam_odds[moved] *= shift.spam_odds
        true = (rng.random(len(at)) < _times_odds(spam[slices], spam_odds)).astype(np.int64)
        rate = _times_odds(errors[slices], odds)[np.arange(len(at)), true]
        if size > 1:  # beta-binomial: one quantile of the error rate a clump
            total = (size - 1) / (labelling.clumps - 1) - 1
            noise = np.repeat(rng.random(clumps), size)
            rate = _beta_quantile(noise, rate, total)
        predicted = np.where(rng.random(len(at)) < rate, 1 - true, true)
        delay = rng.exponential(np.array(labelling.delay_days)[true]) * DAY
        if size > 1:
            delay = np.repeat(delay[::size], size) + rng.uniform(0, _CLUMP_SECONDS, len(at))
            if len(set(labelling.delay_days)) > 1:  # a clump has both classes: each comes at its own time
                both = rng.exponential(np.array(labelling.delay_days), (clumps, 2)) * DAY
                delay = np.repeat(both, size, axis=0)[np.arange(len(at)), true] + rng.uniform(
                    0, _CLUMP_SECONDS, len(at)
                )
        arrived = at + delay
        if labelling.sorted_by is not None:
            key = true if labelling.sorted_by == "true" else predicted
            session = START + ((at - START) // WEEK + 1) * WEEK - _SESSION_SECONDS
            arrived = session + ((1 - key) + rng.random(len(at))) * _SESSION_SECONDS / 2
        if labelling.working_hours:
            arrived = _next_working_hour(arrived, rng)
        first = np.where(rng.random(len(at)) < labelling.slips, 1 - true, true)
        corrected = arrived + rng.exponential(labelling.correction_hours * HOUR, len(at))
        kept = rng.random(len(at)) < np.array(labelling.share)[predicted]
        labels = Labels(
            *(column[kept].astype(np.int64) for column in (at, arrived, slices, predicted, true, first, corrected))
        )
        return labels.in_order(labels.arrived_at, START + self.days * DAY)


def _times_odds(rate: FloatArray, factor: FloatArray) -> FloatArray:
    return rate * factor / (1 + rate * (factor - 1))


def _beta_quantile(level: FloatArray, mean: FloatArray, total: float) -> FloatArray:
    from scipy.special import betaincinv

    means, place = np.unique(mean, return_inverse=True)
    grid = np.concatenate([np.linspace(0, 0.99, 400), 1 - np.geomspace(0.01, 1e-7, 200)])
    table = betaincinv(means[:, None] * total, (1 - means[:, None]) * total, grid)  # [M, 600]
    at = np.clip(np.searchsorted(grid, level), 1, len(grid) - 1)
    share = (level - grid[at - 1]) / (grid[at] - grid[at - 1])
    return np.asarray(table[place, at - 1] * (1 - share) + table[place, at] * share)


def _next_working_hour(at: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return a time in the first working day's hours from ``at`` on; what waited comes within its first hour."""
    day = np.floor((at - START) / DAY)
    hour = (at - START) / HOUR - 24 * day
    day = np.where(hour >= 17, day + 1, day)
    weekend = day % 7 >= 5
    day = np.where(weekend, day + 7 - day % 7, day)
    waits = (START + day * DAY + 9 * HOUR) > at
    return np.where(waits, START + day * DAY + (9 + rng.random(len(at))) * HOUR, at)
