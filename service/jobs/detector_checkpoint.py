"""Detectors of one version, and their read position, as the store keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

import numpy as np
from pydantic import Base64Bytes, TypeAdapter

from service.decisions import Alarm, DriftDetected, DriftStatus, RateKey, ToleranceBand
from service.monitor.accuracy_detector import AccuracyDetector, LabelledBlock, Pairs
from service.monitor.drift_detector import DriftDetector, Observation
from service.monitor.live_baseline import Limits, LiveBaseline
from service.monitor.reference_period import ReferencePeriod
from service.monitor.tolerance_band import changed_further
from sfs.intervals import Rate, anytime_arrays

_VERSIONS = 10  # whose accuracy on first labels is kept


@dataclass(slots=True)
class DetectorCheckpoint:
    """Detectors of one version since its promotion, and their read position.

    ``at`` is the time of the last run; ``until`` and ``seq`` are the end of the last block, and the number of the last
    first label, that were read; ``bands`` were computed from ``band_inputs``; ``baseline`` is what live traffic taught.
    ``accuracy`` has the detectors of accuracies. ``standing`` has the counts of rates with
    an unresolved alarm since the start of its change; their detectors have restarted. ``period`` and ``learned`` have
    the first labels of rates of an external version, and the accuracy on them by version; ``accepted`` rates are
    expected in place of the reference. Accuracies come with their counts by class.

    ``row`` is the number of the last row in the log at that moment. After the clock was set back behind ``until``,
    the checkpoint ``is_behind`` until the clock has caught up: of rows before ``until``, those up to ``row`` were
    read, and the others are read in order of arrival, at most once per final block (``arrived_until``).
    """

    version: int
    promoted_at: datetime | None
    at: datetime
    until: datetime
    seq: int
    row: int
    bands: Mapping[RateKey, ToleranceBand]
    watch: DriftDetector
    accuracy: AccuracyDetector
    baseline: LiveBaseline
    band_inputs: tuple[object, ...]
    standing: dict[RateKey, Rate] = field(default_factory=dict)
    alarmed: dict[RateKey, DriftStatus] = field(default_factory=dict)  # at their unresolved alarms
    is_behind: bool = False
    arrived_until: datetime | None = None
    period: ReferencePeriod = field(default_factory=lambda: ReferencePeriod(0))
    learned: dict[int, dict[RateKey, tuple[Rate, Pairs]]] = field(default_factory=dict)
    accepted: dict[RateKey, tuple[Rate, Pairs]] = field(default_factory=dict)

    @property
    def first_labels(self) -> Mapping[RateKey, tuple[Rate, Pairs]]:
        """Accuracy of the version on the first labels."""
        return self.learned.get(self.version, {})

    def band(self, key: RateKey, limits: Limits | None = None) -> ToleranceBand | None:
        """Return the tolerance band of a rate, as of now or within other limits; None if it is not monitored."""
        return self.accuracy.band(key) or self.watch.band(key, limits)

    def advance(self, block: Observation | LabelledBlock) -> list[DriftDetected]:
        """Feed the detectors, and return the detections."""
        for key, rate in block.rates(self.standing).items():
            self.standing[key] += rate
        detections = self.accuracy.advance(block) if isinstance(block, LabelledBlock) else self.watch.advance(block)
        for drift in (detection.drift for detection in detections):
            key = rate_key(drift)
            if key not in self.alarmed or changed_further(self.alarmed[key], drift):  # a new alarm
                self.standing[key], self.alarmed[key] = drift.observed, drift
                self.accuracy.follow(self.alarmed)
        return detections

    def follow(self, stored: StoredDetectors, at: datetime) -> None:
        """Begin after the rows and labels that the detectors of another version have read, at their last run."""
        self.at, self.until, self.seq = at, max(self.until, stored.until), max(self.seq, stored.seq)
        self.is_behind = stored.is_behind
        if stored.row is not None:
            self.row = stored.row

    def set_alarms(self, unresolved: Iterable[Alarm]) -> None:
        """Set the unresolved alarms, and forget the counts of all others."""
        of_version = (alarm.drift for alarm in unresolved if alarm.version == self.version)
        self.alarmed = {rate_key(drift): drift for drift in of_version}
        for key in self.standing.keys() - self.alarmed.keys():
            del self.standing[key]
        self.accuracy.follow(self.alarmed)

    def statuses(self) -> tuple[DriftStatus, ...]:
        """Return the state of every rate; one with an unresolved alarm has its rate since the change of the alarm."""

        def status(drift: DriftStatus) -> DriftStatus:
            key = rate_key(drift)
            if key not in self.standing:
                return drift
            alarm, observed = self.alarmed[key], self.standing[key]
            lower, upper = anytime_arrays(np.array([observed.count]), np.array([observed.n]))
            return replace(
                drift,
                evidence=max(alarm.evidence, drift.evidence),
                since=alarm.since,
                direction=alarm.direction,
                observed=observed,
                lower=float(lower[0]),
                upper=float(upper[0]),
            )

        return tuple(map(status, (*self.watch.drifts(), *self.accuracy.drifts())))

    def to_bytes(self) -> bytes:
        """Return the state for the store."""
        standing = list(self.standing.items())
        stored = StoredDetectors(
            self.version,
            self.promoted_at,
            self.until,
            self.seq,
            self.watch.to_bytes(),
            standing,
            [
                (key, [(*pair, n) for pair, n in self.period.confusion[key].items()], np.array(rows, "<i8").tobytes())
                for key, rows in self.period.contents.items()
                if rows
            ],
            [
                (version, [(key, *expected) for key, expected in rates.items()])
                for version, rates in self.learned.items()
            ][-_VERSIONS:],
            row=self.row,
            is_behind=self.is_behind,
            baseline=self.baseline.to_bytes(),
            accepted=[(key, *expected) for key, expected in self.accepted.items()],
            accuracy=self.accuracy.to_bytes(),
        )
        return STORED.dump_json(stored)


StoredRate: TypeAlias = tuple[RateKey, Rate, Pairs] | tuple[RateKey, Rate]
"""A rate with its counts by class, which earlier releases did not store."""


@dataclass(frozen=True, slots=True)
class StoredDetectors:
    """The checkpoint as stored, with the fields of `DetectorCheckpoint`; earlier releases lack the last of them.

    They counted accuracies without classes: labels of an unfinished ``period`` are gathered again.
    """

    version: int
    promoted_at: datetime | None
    until: datetime
    seq: int
    state: Base64Bytes
    standing: list[tuple[RateKey, Rate]] = field(default_factory=list)
    period: list[tuple[RateKey, int | list[tuple[str, str, int]], Base64Bytes]] = field(default_factory=list)
    learned: Sequence[tuple[int, Sequence[StoredRate]]] = field(default_factory=list)
    row: int | None = None
    is_behind: bool = False
    baseline: Base64Bytes | None = None
    accepted: Sequence[StoredRate] = field(default_factory=list)
    accuracy: Base64Bytes | None = None

    def gathered(self, labels: int) -> ReferencePeriod:
        """Return the first labels so far, of which each rate needs this number."""
        period = ReferencePeriod(labels)
        for key, confusion, contents in self.period:
            if not isinstance(confusion, int):
                period.confusion[key] = Counter({(true, predicted): n for true, predicted, n in confusion})
                period.contents[key] = np.frombuffer(contents, "<i8").tolist()
        return period


def expected_rates(stored: Iterable[StoredRate]) -> dict[RateKey, tuple[Rate, Pairs]]:
    """Return stored rates with their counts by class."""
    return {key: (rate, pairs[0] if pairs else ()) for key, rate, *pairs in stored}


def rate_key(drift: DriftStatus) -> RateKey:
    """Return the rate of a status."""
    return RateKey(drift.slice, drift.fingerprint, drift.kind)


STORED = TypeAdapter(StoredDetectors)
"""JSON of the stored form."""
