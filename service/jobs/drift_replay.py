"""Drift detection on past traffic, with the alarms that it would have raised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from service.decisions import RateKey
from service.jobs.drift_observations import EVERY_ROW, LabelCounter
from service.jobs.past_traffic import PastTraffic, TrafficPart
from service.monitor.accuracy_detector import AccuracyDetector, AccuracyReference, Pairs
from service.monitor.reference_period import ReferencePeriod
from service.monitor.replay import DriftReplay, SpacedRows
from service.monitor.tolerance_band import accuracy_band
from service.monitor.windows import BLOCK_SECONDS, floor_to
from service.settings.schema import DriftSettings
from sfs.intervals import Rate


@dataclass(frozen=True, slots=True)
class Expected:
    """Expectations before the traffic is known.

    Parameters
    ----------
    source
        Where that comes from, in words.
    coverages
        Coverage by slice.
    accuracies
        Accuracy by rate, with its counts by class. First labels set that of the others.
    targets
        Accuracy target by the name of the slice.
    families
        Fingerprint by slice of every family, by its rate.
    """

    source: str = ""
    coverages: Mapping[RateKey, Rate] = field(default_factory=dict)
    accuracies: Mapping[RateKey, tuple[Rate, Pairs]] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    families: Mapping[RateKey, Mapping[str, str]] = field(default_factory=dict)


class PastDetection:
    """Drift detection on past traffic, as `DriftDetection` does it on rows that arrive.

    Attributes
    ----------
    replay
        Detectors, with their alarms.
    sample
        Rows, by which overlapping slices are found; None for counts.
    rows
        Rows, or blocks of counts, that were read.
    first_labels
        Accuracies that first labels set, with the time from which they were expected.
    """

    def __init__(self, traffic: PastTraffic, settings: DriftSettings, expected: Expected) -> None:
        self._traffic, self._settings, self._expected = traffic, settings, expected
        of_slices = [key._replace(kind="accuracy") for key in traffic.slices]
        here = {(key.slice, key.fingerprint) for key in traffic.slices}
        self._families = {key: own for key, own in expected.families.items() if own.items() <= here}
        self._keys = [EVERY_ROW, *of_slices, *self._families] if traffic.has_labels else []
        self.first_labels: dict[RateKey, tuple[Rate, datetime]] = {}
        self.replay = DriftReplay(traffic.slices, settings, expected.coverages)
        self.sample: SpacedRows | None = None
        self.rows = 0
        self._classes: list[str] = []
        self._learned: dict[RateKey, tuple[Rate, Pairs]] = dict(expected.accuracies)
        self._period = ReferencePeriod(settings.reference_labels)
        self._period.begin([key for key in self._keys if key not in expected.accuracies])

    def run(self, progress: Callable[[int], object] = lambda rows: None) -> None:
        """Read all traffic; ``progress`` gets the number of further rows."""
        for part in self._traffic.parts():
            self._add(part)
            progress(part.rows)

    def _add(self, part: TrafficPart) -> None:
        self.rows += part.rows
        if part.member is not None:
            self.sample = self.sample or SpacedRows(self._traffic.slices)
            self.sample.add(part.member)
        for block in part.blocks:
            self.replay.add(block.start, block.end, block.member, block.known, block.unknown)
        new = {name for label in part.labels for name in (label.label, label.predicted)} - {*self._classes}
        if new and part.labels:
            self._classes += sorted(new)
            self._expect(floor_to(part.labels[0].at, BLOCK_SECONDS[0]))
        counter = LabelCounter(self._traffic.sets, self._classes, self._families, self._period)
        for labelled in counter.blocks(part.labels):
            self.replay.accuracy.add(labelled)
            if ended := self._period.end():
                self.first_labels |= {key: (rate, labelled.end) for key, (rate, _) in ended.items()}
                self._learned |= ended
                self._expect(labelled.start)

    def _expect(self, at: datetime) -> None:
        """Compute the expected accuracies again; a rate that nothing is expected of is counted only."""
        settings = self._settings
        slices, references = max(settings.max_slices, len(self._traffic.slices)), {}
        for key in self._keys:
            rate, pairs = self._learned.get(key) or (Rate(0, 0), ())
            target = self._expected.targets.get(key.slice) if key.kind == "accuracy" else None
            band = accuracy_band(rate, settings.accuracy_tolerance, slices, target)
            references[key] = AccuracyReference(band if rate.n or target is not None else None, pairs)
        families = {key: [RateKey(*pair, "accuracy") for pair in own.items()] for key, own in self._families.items()}
        self.replay.accuracy.expect(AccuracyDetector(references, families, self._classes, settings, at))
