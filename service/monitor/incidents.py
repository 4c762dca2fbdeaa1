"""Incidents: alarms with one cause, and the slice whose change explains the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import xlogy

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CONTAINED = 0.8
"""Share of an alarm's rows in another slice from which on both are one incident, unless chance puts them there."""

_Z = 1.645  # one-sided 95%
_PAIR_CELLS = 2_000_000_000  # rows times pairs of causes that are compared: a tenth of a second of one core


@dataclass(frozen=True, slots=True)
class RowSample:
    """Rows of the log for m alarms.

    Parameters
    ----------
    member
        Rows in the slice of each alarm, bool[n, m].
    exposed
        Rows in the denominator of its rate: of known membership for coverage, labelled members for accuracy.
    hit
        Rows in the numerator: members for coverage, wrong predictions for accuracy.
    """

    member: Bools
    exposed: Bools
    hit: Bools


@dataclass(frozen=True, slots=True)
class Place:
    """Place of an alarm in its incident.

    Parameters
    ----------
    alarm
        Index of the alarm.
    cause
        Index of the alarm whose slice explains its change; None if none does.
    is_shown
        True if the rows show this at 95%; False if they are too few.
    """

    alarm: int
    cause: int | None
    is_shown: bool


def find_incidents(before: RowSample, since: RowSample, rising: Sequence[bool], wrong: Bools) -> list[list[Place]]:
    """Return the incidents of m alarms, each with its most specific cause first.

    The change of a rate is the difference of its log odds between the samples. If only the weight of the rows of
    one slice has changed, that slice has the largest likelihood ratio of all (data-processing inequality), so it
    comes first. Another alarm moved with it if less than half of its change remains among the rows outside the
    slice; where these are too few to tell, the change inside the slice counts, too. The rows of the slice are then
    left out, and the other alarms are compared with the next one. A change of less than its standard error in the
    samples, as that of a slow slide may be, is not explained by any.

    Parameters
    ----------
    before, since
        Samples of the rows before and since the changes.
    rising
        Whether the rate has risen, for accuracy that of wrong predictions.
    wrong
        Whether the rate is that of wrong predictions.
    """
    sign = np.where(rising, 1.0, -1.0)
    left = [np.ones(len(sample.member), np.bool_) for sample in (before, since)]
    outside = _Counts.of(left, before, since)
    total, strength = outside.change(sign), outside.likelihood_ratio(sign)
    kept, evidence = total, strength
    weight, weighted = np.zeros_like(sign), np.zeros_like(sign)  # of the changes inside the causes so far
    remaining = np.ones(len(sign), np.bool_)
    places: dict[int, list[Place]] = {}
    while remaining.any():
        cause = int(np.argmax(np.where(remaining, evidence, -np.inf)))
        places[cause] = [Place(cause, None, bool(kept.size[cause] > _Z * kept.error[cause]))]
        taken = [rows & sample.member[:, cause] for rows, sample in zip(left, (before, since), strict=True)]
        left = [rows & ~gone for rows, gone in zip(left, taken, strict=True)]
        inside = _Counts.of(taken, before, since)
        outside = outside.without(inside)
        # An accuracy that falls with that of the cause moves inside it, too.
        within, along = inside.change(sign), np.where(wrong & wrong[cause], inside.change(sign).size[cause], 0.0)
        weight += within.error**-2
        weighted += (within.size - along) * within.error**-2
        kept = outside.change(sign)
        is_known = _Z * kept.error < total.size / 2
        pooled = weight + kept.error**-2
        kept = _Change(
            np.where(is_known, kept.size, (weighted + kept.size * kept.error**-2) / pooled),
            np.where(is_known, kept.error, pooled**-0.5),
        )
        by_strata = np.sign(kept.size) * (kept.size / kept.error) ** 2 / 2
        evidence = np.where(is_known, outside.likelihood_ratio(sign), by_strata)
        remaining[cause] = False
        explained = remaining & (total.size > total.error) & (kept.size < total.size / 2)
        is_shown = kept.size + _Z * kept.error < total.size / 2
        places[cause] += [Place(int(alarm), cause, bool(is_shown[alarm])) for alarm in np.flatnonzero(explained)]
        remaining &= ~explained
    return [
        sorted((place for cause in causes for place in places[cause]), key=lambda place: -strength[place.alarm])
        for causes in _together(list(places), before, since, rising)
    ]


@dataclass(frozen=True, slots=True)
class _Change:
    """Differences of log odds in the direction of the alarms, and their standard errors, float[m]."""

    size: Floats
    error: Floats


@dataclass(frozen=True, slots=True)
class _Counts:
    """Hits and exposed rows before and since, int[2, m]."""

    hits: Counts
    exposed: Counts

    @classmethod
    def of(cls, rows: Sequence[Bools], *samples: RowSample) -> _Counts:
        """Count some rows of the samples."""
        chosen = [np.flatnonzero(some) for some in rows]
        hits = np.stack([sample.hit[some].sum(axis=0) for some, sample in zip(chosen, samples, strict=True)])
        exposed = np.stack([sample.exposed[some].sum(axis=0) for some, sample in zip(chosen, samples, strict=True)])
        return cls(hits, exposed)

    def without(self, other: _Counts) -> _Counts:
        """Return the counts of the rows that the other counts lack."""
        return _Counts(self.hits - other.hits, self.exposed - other.exposed)

    def change(self, sign: Floats) -> _Change:
        """Return the changes, 0 without rows on a side (Haldane's and Anscombe's estimate)."""
        hits, rest = self.hits + 0.5, self.exposed - self.hits + 0.5
        size = np.where(self.exposed.min(axis=0) > 0, sign * np.diff(np.log(hits / rest), axis=0)[0], 0.0)
        return _Change(size, np.sqrt((1 / hits + 1 / rest).sum(axis=0)))

    def likelihood_ratio(self, sign: Floats) -> Floats:
        """Return the log-likelihood ratio of two rates to one, negative for a change in the other direction."""

        def log_likelihood(hits: Counts, exposed: Counts) -> Floats:
            rest = exposed - hits
            return np.asarray(xlogy(hits, hits) + xlogy(rest, rest) - xlogy(exposed, exposed), np.float64)

        two = log_likelihood(self.hits, self.exposed).sum(axis=0)
        one = log_likelihood(self.hits.sum(axis=0), self.exposed.sum(axis=0))
        return np.asarray(np.sign(self.change(sign).size) * (two - one), np.float64)


def _together(causes: Sequence[int], before: RowSample, since: RowSample, rising: Sequence[bool]) -> list[list[int]]:
    """Return the causes by incident: those are together of which one's rows are in the other slice."""
    chosen = list(causes)
    up = np.array(rising, np.bool_)[chosen]
    contained = np.where(up[:, None], _contained(since, chosen), _contained(before, chosen))
    _, labels = connected_components(contained, directed=False)
    return [[cause for cause, at in zip(causes, labels, strict=True) if at == label] for label in dict.fromkeys(labels)]


def _contained(sample: RowSample, chosen: list[int]) -> Bools:
    """Return of which of h alarms the rows are in the slices of which others, bool[h, h]."""
    step = 1 + len(sample.member) * len(chosen) ** 2 // _PAIR_CELLS
    hit, member = (rows[::step, chosen].astype(np.float32) for rows in (sample.hit, sample.member))
    inside = (hit.T @ member) / np.maximum(hit.sum(axis=0), 1.0)[:, None]  # [h, h]
    by_chance = member.mean(axis=0) if len(member) else np.ones(len(chosen))
    return np.asarray((inside >= CONTAINED) & (1 - inside <= (1 - by_chance) / 2), np.bool_)
