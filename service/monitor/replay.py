"""Replay of a history: its alarms, and the live baseline that it teaches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from service.decisions import RATES, Alarm, DriftDetected, RateKey, ToleranceBand
from service.events import Counts
from service.formatting import percent
from service.monitor.accuracy_detector import AccuracyDetector, LabelledBlock
from service.monitor.drift_detector import DriftDetector, log_threshold
from service.monitor.incidents import CONTAINED
from service.monitor.live_baseline import NO_REFERENCE, SETTLED_DAYS, Limits, LiveBaseline, named_zone
from service.monitor.tolerance_band import RECENT, changed_further, coverage_band, recovery
from service.monitor.windows import BLOCK_SECONDS, floor_to
from service.settings.schema import DriftSettings
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

BoolMatrix = NDArray[np.bool_]

CHECK_SECONDS = 600
"""Time between two looks at whether a rate is back in its band."""

_ONSET = timedelta(minutes=1)  # least uncertainty of the start of a change
_SAMPLE_ROWS = 10_000


class AlarmLog:
    """Alarms in order, of which each rate has at most one unresolved one, as in the service."""

    def __init__(self) -> None:
        self.alarms: list[Alarm] = []
        self._unresolved: dict[RateKey, int] = {}

    def unresolved(self, keys: Container[RateKey]) -> list[tuple[RateKey, Alarm]]:
        """Return the unresolved alarms of these rates."""
        return [(key, self.alarms[place]) for key, place in self._unresolved.items() if key in keys]

    def take(self, detection: DriftDetected) -> None:
        """Open an alarm, unless an unresolved one covers the detection."""
        drift = detection.drift
        key = RateKey(drift.slice, drift.fingerprint, drift.kind)
        if key in self._unresolved:
            before = self.alarms[self._unresolved[key]].drift
            if not changed_further(before, drift):
                return
            rates = [percent(each.observed.value or 0.0) for each in (before, drift)]
            self.resolve(key, detection.at, f"superseded: {RATES[drift.kind]} changed from {rates[0]} to {rates[1]}")
        self._unresolved[key] = len(self.alarms)
        self.alarms.append(Alarm(len(self.alarms) + 1, "", 0, detection.at, drift))

    def resolve(self, key: RateKey, at: datetime, reason: str) -> None:
        """Resolve the alarm of a rate."""
        place = self._unresolved.pop(key)
        self.alarms[place] = replace(self.alarms[place], state="resolved", resolved_at=at, resolution=reason)


class ReplayedRates:
    """Coverages: their detector, and their counts since the first unresolved alarm."""

    def __init__(
        self, zones: Mapping[RateKey, ToleranceBand], threshold: float, log: AlarmLog, baseline: LiveBaseline
    ) -> None:
        self.detector, self.observations = DriftDetector(zones, threshold, baseline), 0
        self._log, self._baseline = log, baseline
        self._index = {key: k for k, key in enumerate(zones)}
        self._total = np.zeros((2, len(zones)), np.int64)  # members and known rows
        self._times: list[datetime] = []
        self._totals: list[Counts] = []  # at these times

    def add(self, start: datetime, end: datetime, count: Counts, n: Counts, unknown: Counts) -> None:
        """Add a block: int64[K] in the order of the rates."""
        now = floor_to(start, CHECK_SECONDS)
        if not self._times or self._times[-1] < now:
            self._look_back(now)
        for detection in self.detector.advance_arrays(start, end, count, n, unknown):
            self._log.take(detection)
        self._total += count, n
        self.observations += 1

    def _look_back(self, now: datetime) -> None:
        """Resolve the alarms of rates that are back in their bands, and keep the counts until now."""
        unresolved = self._log.unresolved(self._index)
        if not unresolved:
            self._times, self._totals = [now], [self._total.copy()]
            return
        self._times.append(now)
        self._totals.append(self._total.copy())
        old = bisect_left(self._times, now - RECENT[-1][1])
        del self._times[:old], self._totals[:old]
        first = min(alarm.at for _, alarm in unresolved)
        windows = [
            (name, start, self._totals[bisect_left(self._times, start)], self._baseline.limits_over(start, now))
            for name, start in ((name, now - length) for name, length in RECENT)
            if start >= first
        ]
        for key, alarm in unresolved:
            if reason := recovery(RATES[key.kind], self._recent(key, alarm, windows)):
                self._log.resolve(key, now, reason)

    def _recent(
        self, key: RateKey, alarm: Alarm, windows: Sequence[tuple[str, datetime, Counts, Limits]]
    ) -> Iterator[tuple[str, ToleranceBand, Rate]]:
        """Yield the windows that began after an alarm, the shortest first: name, band over it, and rate."""
        k = self._index[key]
        for name, start, past, limits in windows:
            if start < alarm.at:
                return
            count, n = (self._total[:, k] - past[:, k]).tolist()
            band = self.detector.band(key, limits)
            if n and band is not None:
                yield name, band, Rate(count, n)


class ReplayedLabels:
    """Accuracies: their detector, whose expectations grow with the first labels.

    Attributes
    ----------
    observations
        Blocks with labels.
    false_alarms
        Expected number of false alarms so far, at most; blocks without labels count, too.
    """

    def __init__(self, log: AlarmLog) -> None:
        self.observations, self.false_alarms = 0, 0.0
        self._log, self._detector = log, AccuracyDetector({}, {}, (), DriftSettings(), datetime(1970, 1, 1, tzinfo=UTC))
        self._end: datetime | None = None

    def expect(self, detector: AccuracyDetector) -> None:
        """Continue with a detector of other expectations."""
        detector.resume(self._detector)
        self._detector = detector

    def add(self, block: LabelledBlock) -> None:
        """Add a block of labels."""
        length = timedelta(seconds=BLOCK_SECONDS[0])
        now, before = floor_to(block.start, CHECK_SECONDS), self._end or block.start
        if floor_to(before - length, CHECK_SECONDS) < now:
            for key, alarm in self._log.unresolved(self._detector.references):
                if reason := self._detector.recovery(alarm):
                    self._log.resolve(key, now, reason)
        for detection in self._detector.advance(block):
            self._log.take(detection)
        self._detector.follow([key for key, _ in self._log.unresolved(self._detector.references)])
        self.observations, self._end = self.observations + 1, block.end
        self.false_alarms += (block.end - before) / length * self._detector.false_alarms_a_block


@dataclass(frozen=True, slots=True)
class Learned:
    """Progress of the live baseline of a slice.

    Parameters
    ----------
    since
        Start of the traffic.
    days
        Whole calm days.
    live, season, level
        Time from which live traffic set the expected rate, from which the hours of the week were known, and from
        which the level was fixed.
    missing
        What was still being learned at the end; empty if nothing was.
    """

    slice: str
    since: datetime | None
    days: int
    live: datetime | None
    season: datetime | None
    level: datetime | None
    missing: str


class DriftReplay:
    """Detectors fed with a history in order of time, with alarms and baseline as in the service.

    Parameters
    ----------
    slices
        The K slices.
    settings
        Settings of the detectors.
    references
        Expected coverages; a slice without one has none until its traffic has taught it.

    Attributes
    ----------
    alarms
        All alarms so far.
    start, end
        Time of the blocks so far; None before the first.

    Examples
    --------
    >>> links = RateKey("links", "f1", "coverage")
    >>> replay = DriftReplay([links], DriftSettings(), {links: Rate(100, 5000)})
    >>> noon, ten = datetime(2026, 1, 5, 12, tzinfo=UTC), timedelta(seconds=10)
    >>> none = np.zeros(1, np.int64)
    >>> for k in range(60):
    ...     replay.add(noon + k * ten, noon + (k + 1) * ten, none + 200, none + 1000, none)
    >>> alarm, = replay.alarms
    >>> alarm.drift.direction, alarm.drift.since == noon, alarm.state
    ('up', True, 'open')
    """

    def __init__(
        self,
        slices: Sequence[RateKey],
        settings: DriftSettings,
        references: Mapping[RateKey, Rate],
    ) -> None:
        many = max(settings.max_slices, len(slices))
        bands = [
            coverage_band(references[key], settings.tolerance, many) if key in references else NO_REFERENCE
            for key in slices
        ]
        zone = named_zone(settings.time_zone)
        self.slices, self.threshold = slices, log_threshold(many, settings.false_alarms_a_month)
        self.start: datetime | None = None
        self.end: datetime | None = None
        self._log = AlarmLog()
        self._baseline = LiveBaseline(slices, bands, settings.tolerance, settings.swing, zone)
        zones = dict(zip(slices, bands, strict=True))
        self.coverage = ReplayedRates(zones, self.threshold, self._log, self._baseline)
        self.accuracy = ReplayedLabels(self._log)
        self._day = -1
        self._reached = np.zeros((3, len(slices)))  # live traffic, season and level: seconds since the epoch

    @property
    def alarms(self) -> list[Alarm]:
        """All alarms so far, in order."""
        return self._log.alarms

    @property
    def false_alarms(self) -> float:
        """Expected number of false alarms so far, at most: a rate has one in as many blocks as the threshold."""
        rates = len(self.slices) * self.coverage.observations
        return float(rates * np.exp(-self.threshold)) + self.accuracy.false_alarms

    def add(self, start: datetime, end: datetime, count: Counts, n: Counts, unknown: Counts) -> None:
        """Add a block: int64[K] members, known and unknown rows."""
        self.start, self.end = self.start or start, end
        self.coverage.add(start, end, count, n, unknown)
        if self._baseline.day != self._day:
            self._day, season = self._baseline.day, self._baseline.season
            known = season.days >= 1, season.days >= SETTLED_DAYS, season.anchor > 0
            for reached, is_known in zip(self._reached, known, strict=True):
                np.copyto(reached, start.timestamp(), where=is_known & (reached == 0))

    def learned(self) -> list[Learned]:
        """Return the progress of the live baseline, slice by slice."""
        if self.end is None:
            return []
        limits, out = self._baseline.limits(self.end), []
        for k, key in enumerate(self.slices):
            live = self._baseline.band(k, limits).live
            if live is not None:
                reached = (datetime.fromtimestamp(at, UTC) if at else None for at in self._reached[:, k].tolist())
                known, season, level = reached
                out.append(Learned(key.slice, live.since, live.days, known, season, level, live.missing))
        return out


class SpacedRows:
    """Evenly spaced rows of a history, and how the slices overlap in them."""

    def __init__(self, slices: Sequence[RateKey]) -> None:
        self._column = {key: k for k, key in enumerate(slices)} | {RateKey(ALL_ROWS, None, "coverage"): len(slices)}
        self._rows = np.zeros((0, len(slices)), np.bool_)
        self._step, self._seen = 1, 0

    def add(self, member: BoolMatrix) -> None:
        """Add the next rows, bool[N, K]."""
        chosen = member[-self._seen % self._step :: self._step]
        self._seen += len(member)
        self._rows = np.concatenate([self._rows, chosen])
        while len(self._rows) > _SAMPLE_ROWS:
            self._rows, self._step = self._rows[::2], 2 * self._step

    def contained(self, alarms: Sequence[Alarm]) -> BoolMatrix:
        """Return of which of m alarms the rows are in the slices of which others, bool[m, m]."""
        keys = [RateKey(alarm.drift.slice, alarm.drift.fingerprint, "coverage") for alarm in alarms]
        every = np.ones((len(self._rows), 1), np.bool_)
        member = np.hstack([self._rows, every])[:, [self._column[key] for key in keys]].astype(np.float32)  # [N, m]
        inside = (member.T @ member) / np.maximum(member.sum(axis=0), 1.0)[:, None]
        by_chance = member.mean(axis=0) if len(member) else np.ones(len(keys))
        return np.asarray((inside >= CONTAINED) & (1 - inside <= (1 - by_chance) / 2), np.bool_)


def incidents_of(alarms: Sequence[Alarm], sample: SpacedRows | None) -> list[list[int]]:
    """Return the alarms by incident, as positions: those whose changes may have begun together, in rows in common.

    Without a sample of rows, time alone decides.
    """
    if not alarms:
        return []
    begun = [alarm.drift.since or alarm.at for alarm in alarms]
    earliest = [since - max(alarm.at - since, _ONSET) for alarm, since in zip(alarms, begun, strict=True)]
    first = np.array([at.timestamp() for at in earliest])
    last = np.array([alarm.at.timestamp() for alarm in alarms])
    joined = (first[:, None] <= last) & (first <= last[:, None])
    if sample is not None:
        joined &= sample.contained(alarms)
    _, labels = connected_components(joined, directed=False)
    return [np.flatnonzero(labels == label).tolist() for label in dict.fromkeys(labels.tolist())]
