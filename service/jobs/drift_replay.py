"""Drift detection on past traffic, with the alarms that it would have raised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from service.decisions import RateKey, ToleranceBand
from service.jobs.drift_observations import EVERY_ROW, accuracies
from service.jobs.past_traffic import PastTraffic, TrafficPart
from service.monitor.live_baseline import NO_REFERENCE
from service.monitor.reference_period import ReferencePeriod
from service.monitor.replay import DriftReplay, SpacedRows
from service.monitor.tolerance_band import accuracy_band
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
        Accuracy by rate. First labels set that of the others.
    targets
        Accuracy target by the name of the slice.
    """

    source: str = ""
    coverages: Mapping[RateKey, Rate] = field(default_factory=dict)
    accuracies: Mapping[RateKey, Rate] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)


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
        self._keys = [EVERY_ROW, *of_slices] if traffic.has_labels else []
        self.first_labels: dict[RateKey, tuple[Rate, datetime]] = {}
        self.replay = DriftReplay(traffic.slices, settings, expected.coverages, self._bands())
        self.sample: SpacedRows | None = None
        self.rows = 0
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
        for observation in accuracies(part.labels, self._traffic.sets, self._keys, self._period):
            self.replay.accuracy.add_observation(observation)
            if ended := self._period.end():
                self.first_labels |= {key: (rate, observation.end) for key, rate in ended.items()}
                self.replay.accuracy.rezone(self._bands())

    def _bands(self) -> dict[RateKey, ToleranceBand]:
        """Return the tolerance bands of the accuracies; one that nothing is expected of has none."""
        expected, settings = self._expected, self._settings
        slices, bands = max(settings.max_slices, len(self._traffic.slices)), {}
        for key in self._keys:
            rate = expected.accuracies.get(key) or self.first_labels.get(key, (None,))[0]
            target = expected.targets.get(key.slice)
            band = accuracy_band(rate or Rate(0, 0), settings.accuracy_tolerance, slices, target)
            bands[key] = band if rate or target is not None else NO_REFERENCE
        return bands
