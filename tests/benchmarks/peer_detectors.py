"""Drift detectors of other tools, on the counts of many slices: to compare ours with on the same streams.

Each is the published method with the defaults of the tool named in its docstring, written for all slices at once. Those
that read a stream of values (ADWIN, Page-Hinkley) get the proportion of each block, of ten seconds; those that compare
chunks get hours. The reference of the latter is the learning time. None of them has a budget of false alarms for all
slices, so each of its alarms counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from traffic_streams import HOUR_BLOCKS, FloatArray, IntArray, TrafficStream

ADWIN_DELTA, ADWIN_CLOCK, ADWIN_BUCKETS, ADWIN_SHORTEST, ADWIN_GRACE = 0.002, 32, 5, 5, 10
PAGE_DELTA, PAGE_THRESHOLD, PAGE_MEMORY, PAGE_FIRST = 0.005, 50.0, 1 - 0.0001, 30
FALSE_DISCOVERIES, PSI_LIMIT, DEVIATIONS = 0.05, 0.1, 3.0

_LEVELS = 24  # bucket sizes of ADWIN: 1 to 2 ** 23 values


@dataclass(frozen=True, slots=True)
class Alarms:
    """Alarms in order of time: ``block`` int64[A], at whose end it is raised, and ``slice`` int64[A]."""

    block: IntArray
    slice: IntArray

    @classmethod
    def of(cls, fired: Mapping[int, IntArray]) -> Alarms:
        """Return the alarms of the slices that fired, by block."""
        sizes = [len(slices) for slices in fired.values()]
        slices = np.concatenate([*fired.values(), np.empty(0, np.int64)])
        return cls(np.repeat(np.array(list(fired), np.int64), sizes), slices)

    @classmethod
    def hourly(cls, fired: NDArray[np.bool_], first_hour: int) -> Alarms:
        """Return the alarms at the ends of the hours, from bool[H, S]."""
        hour, slices = np.nonzero(fired)
        return cls((first_hour + hour + 1) * HOUR_BLOCKS - 1, slices)

    def first_after(self, block: IntArray) -> FloatArray:
        """Return float64[S]: the block of the first alarm of each slice from its block on; inf for none."""
        first = np.full(len(block), np.inf)
        counted = self.block >= block[self.slice]
        np.minimum.at(first, self.slice[counted], self.block[counted])
        return first

    def among(self, first: int, end: int) -> Alarms:
        """Return the alarms of the slices from the first until before the end."""
        own = (self.slice >= first) & (self.slice < end)
        return Alarms(self.block[own], self.slice[own])

    def slice_days(self) -> int:
        """Return the number of days with an alarm, summed over the slices."""
        return len(np.unique(np.stack([self.block // (24 * HOUR_BLOCKS), self.slice]), axis=1).T)

    def figures(self) -> dict[str, int]:
        """Return the number of alarms, and of the days with one."""
        return {"alarms": len(self.block), "slice_days": self.slice_days()}


@dataclass(frozen=True, slots=True)
class Recording:
    """Recorded stream: ``n`` int64[B] rows of each block, and ``members`` uint16[B, S]."""

    n: IntArray
    members: NDArray[np.uint16]

    @classmethod
    def of(cls, stream: TrafficStream, hours: int) -> Recording:
        """Record the first hours of a stream, of at most 65,535 rows a block."""
        counts = [(hour.n, hour.members.astype(np.uint16)) for hour in stream.hours(hours)]
        return cls(np.concatenate([n for n, _ in counts]), np.concatenate([members for _, members in counts]))

    def chunks(self, learning_hours: int) -> Chunks:
        """Return the counts by the hour."""
        n = self.n.reshape(-1, HOUR_BLOCKS).sum(axis=1)
        starts = np.arange(0, len(self.n), HOUR_BLOCKS)
        return Chunks(n, np.add.reduceat(self.members, starts, axis=0, dtype=np.int64), learning_hours)


@dataclass(frozen=True, slots=True)
class Chunks:
    """Counts by the hour: ``n`` int64[H] and ``members`` int64[H, S]; the first ``learning`` are the reference."""

    n: IntArray
    members: IntArray
    learning: int

    @property
    def reference(self) -> tuple[int, IntArray]:
        """Rows and members of the learning time."""
        return int(self.n[: self.learning].sum()), self.members[: self.learning].sum(axis=0)

    @property
    def watched(self) -> tuple[IntArray, IntArray]:
        """Rows, int64[H, 1], and members, int64[H, S], of the hours after it; at least one row for a division."""
        return np.maximum(self.n[self.learning :, None], 1), self.members[self.learning :]


Detector = Callable[[Recording, int], Alarms]
"""Detector of the slices of a recording; the hours of the second argument are for learning, and raise nothing."""


def adwin(recording: Recording, learning_hours: int) -> Alarms:
    """ADWIN with the defaults of river: delta .002, a check every 32 values, 5 buckets of a size, 5 values at least.

    A cut is tested at every end of a bucket, as in the paper; river leaves out the last bucket of each size.

    References
    ----------
    Bifet and Gavalda (2007), Learning from time-changing data with adaptive windowing. SDM.
    """
    window = AdaptiveWindow(recording.members.shape[1])
    blocks = np.flatnonzero(recording.n)
    fired: dict[int, IntArray] = {}
    for start in range(0, len(blocks) - ADWIN_CLOCK + 1, ADWIN_CLOCK):
        group = blocks[start : start + ADWIN_CLOCK]
        window.add((recording.members[group] / recording.n[group, None]).T)
        changed = window.shrink()
        if changed.size and group[-1] >= learning_hours * HOUR_BLOCKS:
            fired[int(group[-1])] = changed
    return Alarms.of(fired)


class AdaptiveWindow:
    """Windows of S streams, kept as buckets of 1, 2, 4, ... values, oldest first within a size."""

    def __init__(self, slices: int) -> None:
        self.total, self.scatter = np.zeros((2, _LEVELS, slices, ADWIN_BUCKETS))
        self.count = np.zeros((_LEVELS, slices), np.int64)

    def add(self, values: FloatArray) -> None:
        """Add float64[S, M] values, merging the two oldest buckets of a size whenever there are too many."""
        slices, m = values.shape
        total, scatter, count = values, np.zeros_like(values), np.full(slices, m)
        for level in range(_LEVELS):
            if not count.any():
                return
            total, scatter, count = self._add_buckets(level, total, scatter, count)

    def _add_buckets(
        self, level: int, total: FloatArray, scatter: FloatArray, count: IntArray
    ) -> tuple[FloatArray, FloatArray, IntArray]:
        """Add ``count`` int64[S] buckets of one size; return the merged ones, of the next size."""
        held = self.count[level][:, None]
        place = np.arange(ADWIN_BUCKETS + total.shape[1])
        order = np.where(place < held, place, np.minimum(ADWIN_BUCKETS + place - held, len(place) - 1))
        totals = np.take_along_axis(np.hstack([self.total[level], total]), order, axis=1)
        scatters = np.take_along_axis(np.hstack([self.scatter[level], scatter]), order, axis=1)
        length = held[:, 0] + count
        pairs = np.maximum(length - ADWIN_BUCKETS + 1, 0) // 2
        left, right = slice(0, 2 * pairs.max(), 2), slice(1, 2 * pairs.max(), 2)
        apart = (totals[:, left] - totals[:, right]) ** 2 / 2 ** (level + 1)
        merged = totals[:, left] + totals[:, right], scatters[:, left] + scatters[:, right] + apart, pairs
        kept = 2 * pairs[:, None] + np.arange(ADWIN_BUCKETS)
        there, kept = kept < length[:, None], np.minimum(kept, len(place) - 1)
        self.total[level] = np.where(there, np.take_along_axis(totals, kept, axis=1), 0)
        self.scatter[level] = np.where(there, np.take_along_axis(scatters, kept, axis=1), 0)
        self.count[level] = length - 2 * pairs
        return merged

    def shrink(self) -> IntArray:
        """Drop the oldest buckets of the windows whose parts differ; return these slices."""
        changed = cut = self._differ(np.arange(self.count.shape[1]))
        while cut.size:
            oldest = _LEVELS - 1 - np.argmax(self.count[::-1, cut] > 0, axis=0)
            for array in (self.total, self.scatter):
                array[oldest, cut, :-1] = array[oldest, cut, 1:]
                array[oldest, cut, -1] = 0
            self.count[oldest, cut] -= 1
            cut = self._differ(cut)
        return changed

    def _differ(self, slices: IntArray) -> IntArray:
        """Return those of the slices in whose window the means of two parts differ."""
        levels = int(np.flatnonzero(self.count.any(axis=1)).max(initial=0)) + 1
        held = np.arange(ADWIN_BUCKETS) < self.count[:levels, slices, None]  # [levels, S, buckets]
        size = np.where(held, 2.0 ** np.arange(levels)[:, None, None], 0.0)
        size, total, scatter = (
            array[::-1].transpose(1, 0, 2).reshape(len(slices), -1)
            for array in (size, self.total[:levels, slices], self.scatter[:levels, slices])
        )  # [S, levels * buckets], oldest first
        old, old_total = size.cumsum(axis=1), total.cumsum(axis=1)
        width, mean = old[:, -1:], old_total[:, -1:] / old[:, -1:]
        between = size * (np.divide(total, size, out=np.zeros_like(total), where=size > 0) - mean) ** 2
        variance = (scatter + between).sum(axis=1, keepdims=True) / width
        new = width - old
        tested = (old >= ADWIN_SHORTEST) & (new >= ADWIN_SHORTEST) & (width > ADWIN_GRACE)
        old, new = np.where(tested, old, ADWIN_SHORTEST), np.where(tested, new, ADWIN_SHORTEST)
        difference = np.abs(old_total / old - (old_total[:, -1:] - old_total) / new)
        inverse = 1 / (old - ADWIN_SHORTEST + 1) + 1 / (new - ADWIN_SHORTEST + 1)
        log = np.log(2 * np.log(np.maximum(width, 2)) / ADWIN_DELTA)
        limit = np.sqrt(2 * inverse * variance * log) + 2 / 3 * log * inverse
        return slices[(tested & (difference > limit)).any(axis=1)]


def page_hinkley(recording: Recording, learning_hours: int) -> Alarms:
    """Page-Hinkley, both sides, with the defaults of river: delta .005, threshold 50, memory .9999, 30 values first.

    Threshold and delta are in units of the values, here proportions, whatever the rate of the slice.

    References
    ----------
    Page (1954), Continuous inspection schemes. Biometrika 41.
    """
    slices = recording.members.shape[1]
    seen, mean, rise, fall, least, most = np.zeros((6, slices))
    least[:], most[:] = np.inf, -np.inf
    fired: dict[int, IntArray] = {}
    for block in np.flatnonzero(recording.n).tolist():
        value = recording.members[block] / recording.n[block]
        seen += 1
        mean += (value - mean) / seen
        deviation = value - mean
        rise *= PAGE_MEMORY
        rise += deviation - PAGE_DELTA
        fall *= PAGE_MEMORY
        fall += deviation + PAGE_DELTA
        np.minimum(least, rise, out=least)
        np.maximum(most, fall, out=most)
        over = np.maximum(rise - least, most - fall) > PAGE_THRESHOLD
        if over.any():
            (changed,) = np.nonzero(over & (seen >= PAGE_FIRST))
            for array, start in ((seen, 0), (mean, 0), (rise, 0), (fall, 0), (least, np.inf), (most, -np.inf)):
                array[changed] = start
            if block >= learning_hours * HOUR_BLOCKS:
                fired[block] = changed
    return Alarms.of(fired)


def z_test(recording: Recording, learning_hours: int) -> Alarms:
    """Two-proportion z-test of each hour against the reference, Benjamini-Hochberg over the slices at 5 %.

    References
    ----------
    Benjamini and Hochberg (1995), Controlling the false discovery rate. J. R. Statist. Soc. B 57.
    """
    p = p_values(recording.chunks(learning_hours))
    slices = p.shape[1]
    ordered = np.sort(p, axis=1)
    passes = ordered <= FALSE_DISCOVERIES * np.arange(1, slices + 1) / slices
    last = np.where(passes.any(axis=1), slices - 1 - np.argmax(passes[:, ::-1], axis=1), -1)
    limit = np.where(last >= 0, ordered[np.arange(len(p)), last], -1.0)
    return Alarms.hourly(p <= limit[:, None], learning_hours)


def lone_z_test(slices: int) -> Detector:
    """Return the z-test of a slice that changes alone among so many calm ones: its rank is 1."""
    return lambda recording, learning_hours: Alarms.hourly(
        p_values(recording.chunks(learning_hours)) <= FALSE_DISCOVERIES / slices, learning_hours
    )


def p_values(chunks: Chunks) -> FloatArray:
    """Return float64[H, S]: the two-sided p-values of the hours against the reference, by the pooled z-test."""
    (rows, members), (n, counts) = chunks.reference, chunks.watched
    pooled = (members + counts) / (rows + n)
    error = np.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / n))
    z = np.divide(np.abs(counts / n - members / rows), error, out=np.zeros_like(error), where=error > 0)
    return np.asarray(2 * ndtr(-z))


def psi(recording: Recording, learning_hours: int) -> Alarms:
    """Population stability index of each hour against the reference, at least .1, as Evidently has it.

    A share of 0 counts as .0001.
    """
    chunks = recording.chunks(learning_hours)
    (rows, members), (n, counts) = chunks.reference, chunks.watched
    index = np.zeros(counts.shape)
    for before, after in ((members / rows, counts / n), (1 - members / rows, 1 - counts / n)):
        before, after = (np.where(share > 0, share, 0.0001) for share in (before, after))
        index += (before - after) * np.log(before / after)
    return Alarms.hourly((index >= PSI_LIMIT) & (chunks.n[learning_hours:, None] > 0), learning_hours)


def deviations(recording: Recording, learning_hours: int) -> Alarms:
    """Hours outside the mean +- 3 standard deviations of the hours of the reference, the limits of NannyML."""
    chunks = recording.chunks(learning_hours)
    filled = chunks.n[:learning_hours] > 0
    before = chunks.members[:learning_hours][filled] / chunks.n[:learning_hours][filled, None]
    n, counts = chunks.watched
    outside = np.abs(counts / n - before.mean(axis=0)) > DEVIATIONS * before.std(axis=0)
    return Alarms.hourly(outside & (chunks.n[learning_hours:, None] > 0), learning_hours)


def always(recording: Recording, learning_hours: int) -> Alarms:
    """Every slice, every hour: finds every change at once."""
    hours = len(recording.n) // HOUR_BLOCKS - learning_hours
    return Alarms.hourly(np.ones((hours, recording.members.shape[1]), np.bool_), learning_hours)


PEERS: Mapping[str, Detector] = {
    "ADWIN": adwin,
    "Page-Hinkley": page_hinkley,
    "hourly z-test, BH": z_test,
    "hourly PSI > 0.1": psi,
    "hourly mean ± 3 sd": deviations,
    "always fire": always,
}
