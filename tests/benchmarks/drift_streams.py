"""What the benchmarks of coverage drift share: detectors as the service makes them, streams fed to them, and alarms."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from traffic_streams import BLOCK_SECONDS, DAY_HOURS, HOUR_BLOCKS, START, WEEK_HOURS, Hour, TrafficStream

from service.decisions import DriftDetected, RateKey, ToleranceBand
from service.monitor import alternatives, dispersion, drift_detector, live_baseline, season, tolerance_band
from service.monitor.alternatives import Alternatives
from service.monitor.drift_detector import DriftDetector, log_threshold
from service.monitor.live_baseline import Limits, LiveBaseline
from service.monitor.season import Season, SeasonProfile
from service.monitor.tolerance_band import coverage_band
from sfs.intervals import Rate

FloatArray, IntArray = NDArray[np.float64], NDArray[np.int64]

SLICES, FALSE_ALARMS_A_MONTH = 1_000, 1.0
THRESHOLD = log_threshold(SLICES, FALSE_ALARMS_A_MONTH)
"""That of a thousand slices, also where fewer are simulated."""

REFERENCE_ROWS, TOLERANCE, SWING = 200_000, 0.1, 0.4
DAY_BLOCKS = DAY_HOURS * HOUR_BLOCKS
LEARNING_DAYS, MONTH_DAYS = 28, 30
BLOCK = timedelta(seconds=BLOCK_SECONDS)
_MONITOR = alternatives, dispersion, drift_detector, live_baseline, season, tolerance_band


def start_of(block: int) -> datetime:
    """Return the start of a block of a stream."""
    return datetime.fromtimestamp(START + block * BLOCK_SECONDS, UTC)


class FlatSeason(Season):
    """Season that expects the same rate at every hour."""

    flat: tuple[SeasonProfile, SeasonProfile] | None = None

    def profile(self, dispersion: FloatArray) -> SeasonProfile:
        """Return the level in every hour."""
        seasonal = super().profile(dispersion)
        if self.flat is None or self.flat[0] is not seasonal:
            level = seasonal.level
            error = np.sqrt(dispersion * (1 - level) / level / np.maximum(self.level_rows, 1.0))
            rate, errors = (np.tile(each, (len(seasonal.rate), 1)) for each in (level, error))
            self.flat = seasonal, SeasonProfile(rate, errors, np.zeros_like(rate), level, np.ones_like(level))
        return self.flat[1]


class WithoutSeason(LiveBaseline):
    """Ablation: the hour does not matter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.season = FlatSeason.empty(len(self.keys))


class WithoutDispersion(LiveBaseline):
    """Ablation: calm rows are independent."""

    def divisor(self, alternatives: Alternatives, limits: Limits, pace: float) -> FloatArray:
        """Return 1."""
        return np.ones_like(alternatives.hit)


ABLATIONS: dict[str, tuple[type[LiveBaseline], float]] = {
    "": (LiveBaseline, TOLERANCE),
    "no season": (WithoutSeason, TOLERANCE),
    "no dispersion": (WithoutDispersion, TOLERANCE),
    "no tolerance": (LiveBaseline, 0.0),
}
"""Class of the baseline, and tolerance; "" for those of the service."""


@dataclass
class Watch:
    """Detector and live baseline of slices, with a reference of 200,000 independent rows.

    Parameters
    ----------
    rates : float64[S]
        Mean rates, from which the reference is drawn.
    ablation
        What is left out.
    seed
        Of the reference.
    merged
        Blocks that are fed as one.
    """

    rates: FloatArray
    ablation: str = ""
    seed: int = 0
    merged: int = 1
    keys: list[RateKey] = field(init=False)
    zones: dict[RateKey, ToleranceBand] = field(init=False)
    baseline: LiveBaseline = field(init=False)
    detector: DriftDetector = field(init=False)

    def __post_init__(self) -> None:
        members = np.random.default_rng([self.seed, 3]).binomial(REFERENCE_ROWS, self.rates).tolist()
        tolerance = ABLATIONS[self.ablation][1]
        bands = [coverage_band(Rate(count, REFERENCE_ROWS), tolerance, SLICES) for count in members]
        self.keys = [RateKey(str(k), "f", "coverage") for k in range(len(bands))]
        self.zones = dict(zip(self.keys, bands, strict=True))
        self.baseline = self.empty_baseline()
        self.detector = DriftDetector(self.zones, THRESHOLD, self.baseline)

    def empty_baseline(self) -> LiveBaseline:
        """Return a baseline that has learned nothing."""
        kind, tolerance = ABLATIONS[self.ablation]
        return kind(self.keys, list(self.zones.values()), tolerance, SWING)

    def restart(self) -> None:
        """Continue from the stored state, as a service that was restarted."""
        states = self.detector.to_bytes(), self.baseline.to_bytes()
        self.baseline = self.empty_baseline()
        self.baseline.resume(LiveBaseline.from_bytes(states[1]))
        self.detector = DriftDetector.from_bytes(states[0], self.zones, THRESHOLD, self.baseline)

    def without(self, ablation: str) -> Watch:
        """Return a watch that has learned the same and lacks a part of the method from now on."""
        other = Watch(self.rates, ablation, self.seed, self.merged)
        other.baseline.resume(self.baseline)
        other.detector = DriftDetector.from_bytes(self.detector.to_bytes(), other.zones, THRESHOLD, other.baseline)
        return other

    def blocks(self, hour: Hour) -> Iterator[tuple[int, list[DriftDetected]]]:
        """Feed an hour; yield each block, or the first of those that are merged, with its detections."""
        merged, counts = self.merged, (hour.n, hour.members)
        rows, members = (each.reshape(-1, merged, *each.shape[1:]).sum(axis=1) for each in counts)
        for i, (n, count) in enumerate(zip(rows, members, strict=True)):
            block = hour.first + i * merged
            yield block, self.feed(block, count, n, merged)

    def feed(self, block: int, members: IntArray, n: IntArray, blocks: int = 1) -> list[DriftDetected]:
        """Feed members int64[S] of n rows of each slice, which are those of so many blocks; return the detections."""
        rows = np.full(len(members), n)
        at = start_of(block)
        return self.detector.advance_arrays(at, at + blocks * BLOCK, members, rows, np.zeros_like(rows))


@dataclass(frozen=True, slots=True)
class Alarm:
    """Block and slice of an alarm, and what it says."""

    block: int
    slice: int
    direction: str
    observed: float
    lower: float
    upper: float


def alarms(watch: Watch, hours: Iterable[Hour]) -> Iterator[Alarm]:
    """Feed hours; yield the alarms: detections of a slice within a day of its last one are none of their own."""
    last: dict[int, int] = {}
    for hour in hours:
        for block, detections in watch.blocks(hour):
            for drift in (each.drift for each in detections):
                k = int(drift.slice)
                if block - last.get(k, -DAY_BLOCKS) >= DAY_BLOCKS:
                    observed, zone = drift.observed.count / drift.observed.n, drift.zone
                    yield Alarm(block, k, str(drift.direction), observed, zone.lower, zone.upper)
                last[k] = block


def side_by_side(streams: Sequence[TrafficStream], count: int, first: int = 0) -> Iterator[Hour]:
    """Yield the hours of several streams as of one, whose slices each have rows of their own, int64[360, S]."""
    for parts in zip(*(stream.hours(count, first) for stream in streams), strict=True):
        rows = [np.repeat(part.n[:, None], part.members.shape[1], axis=1) for part in parts]
        yield Hour(parts[0].first, np.concatenate(rows, axis=1), np.concatenate([p.members for p in parts], axis=1))


def shown(name: str, hours: Iterable[Hour]) -> Iterator[Hour]:
    """Yield hours, and write the weeks that have passed to stderr."""
    for hour in hours:
        week, rest = divmod(hour.first, WEEK_HOURS * HOUR_BLOCKS)
        if week and not rest:
            print(f"{name}: {week} weeks, {time.process_time():.0f} s", file=sys.stderr, flush=True)
        yield hour


def cached(folder: Path | None, name: str, measure: Callable[[], Any], **what: Any) -> Any:
    """Return what a run measured; from a file of the folder, if the same was measured before of the same monitor."""
    if folder is None:
        return measure()
    code = [Path(each.__file__).read_text(encoding="utf-8") for each in _MONITOR]
    key = json.dumps([name, what, code], sort_keys=True)
    path = folder / f"{name.replace(' ', '-')}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))["measured"]
    measured = measure()
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**what, "measured": measured}), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))["measured"]


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """Return the options that every one of these benchmarks has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    parser.add_argument("--cache", type=Path, help="folder of finished runs, so that a broken-off command goes on")
    return parser


def table(said: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Return a table of the results, with what it shows."""
    return {"said": said, "head": list(head), "rows": [[str(cell) for cell in row] for row in rows]}


def write(path: Path, tables: Sequence[dict[str, Any]], **figures: Any) -> None:
    """Print the tables, and write them with their figures."""
    for each in tables:
        print(f"\n{each['said']}\n")
        for row in [each["head"], *each["rows"]]:
            print(" | ".join(row))
    path.write_text(json.dumps({**figures, "tables": tables}, indent=1) + "\n", encoding="utf-8")
