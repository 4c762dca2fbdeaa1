"""Change detector: Shiryaev-Roberts e-processes against several alternatives, for many rates at once."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.decisions import Direction, DriftDetected, DriftKind, DriftStatus, ToleranceBand
from service.events import Counts
from sfs.intervals import Rate, anytime_arrays

FloatArray = NDArray[np.float64]
Indices = NDArray[np.intp]

COVERAGE_UP = (1.1, 1.25, 1.5, 2.0, 3.0, 6.0)
COVERAGE_DOWN = (0.9, 0.8, 0.65, 0.5, 0.25, 0.05)
ACCURACY_DOWN = (1 / 1.15, 1 / 1.3, 1 / 1.5, 1 / 2, 1 / 3)
TARGET_DOWN = (*ACCURACY_DOWN, 1 / 6, 1 / 12)
"""Alternatives: factors on the odds at a limit of the tolerance band, away from the band.

A target is a higher limit than that of a small reference, so there is more room below it.
"""

ALTERNATIVES = len(COVERAGE_UP) + len(COVERAGE_DOWN)
BLOCKS_A_MONTH = 30 * 86_400 // 10

_FORMAT = 1
"""Version of the saved state; raise it when arrays or alternatives change, which invalidates old evidence."""
_COMPRESSION = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class RateKey(NamedTuple):
    """Monitored rate of a slice under one version of its function (None for the extra columns).

    A tuple, because every block looks up thousands of them.
    """

    slice: str
    fingerprint: str | None
    kind: DriftKind


@dataclass(frozen=True, slots=True)
class Observation:
    """Counts of one block: members of known rows, or correct predictions of labelled rows; and unknown rows."""

    start: datetime
    end: datetime
    counts: Mapping[RateKey, Rate]
    unknown: Mapping[RateKey, int] = field(default_factory=dict)


def log_threshold(max_slices: int, false_alarms_a_month: float) -> float:
    """Return the logarithm of the alarm threshold.

    Half of the false alarms is for coverage, half for accuracy; each half is shared by all slices and by the
    blocks of a month.

    Raises
    ------
    ValueError
        If the false alarms are not positive, or so many that every block may alarm.

    Examples
    --------
    >>> round(log_threshold(200, 1.0), 2)
    18.46
    """
    tests = max_slices * BLOCKS_A_MONTH
    if not 0 < false_alarms_a_month / 2 < tests:
        raise ValueError(
            f"false alarms a month must be above 0 and below {2 * tests} (twice the blocks of a month times the "
            f"slices), got {false_alarms_a_month}"
        )
    return math.log(tests / (false_alarms_a_month / 2))


@dataclass(frozen=True, eq=False, slots=True)
class Alternatives:
    """C alternatives for each of K rates: a limit of the tolerance band against a rate beyond it.

    Alternatives multiply the odds, not the rate: for rare slices that is the same, and for common ones it
    spreads them up to 1, where multiples of the rate would leave the scale.

    Parameters
    ----------
    hit, miss : float64[C, K]
        Log-likelihood ratio of the alternative to the limit, per member and per other row.
    weight : float64[C, K]
        Log weight in the mixture; -inf for a missing alternative.
    """

    hit: FloatArray
    miss: FloatArray
    weight: FloatArray

    @classmethod
    def of(cls, bands: Sequence[tuple[DriftKind, ToleranceBand]]) -> Alternatives:
        """Return the alternatives to these bands; a limit at 0 or 1 has none beyond it."""
        limits, factors = np.zeros((2, ALTERNATIVES, len(bands)))
        for k, (kind, band) in enumerate(bands):
            down, up = _factors(kind, band)
            beyond = [(band.lower, factor) for factor in down] + [(band.upper, factor) for factor in up]
            for c, (limit, factor) in enumerate(pair for pair in beyond if 0 < pair[0] < 1):
                limits[c, k], factors[c, k] = limit, factor
        exists = factors > 0
        factors[~exists] = 1
        # the odds m / (1 - m) times f belong to the rate m f / (1 + m (f - 1))
        miss = -np.log1p(limits * (factors - 1))
        per_rate = np.maximum(exists.sum(axis=0), 1)
        return cls(np.log(factors) + miss, miss, np.where(exists, -np.log(per_rate), -np.inf))


def _factors(kind: DriftKind, band: ToleranceBand) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the factors on the odds at the lower limit of a band, and at its upper one."""
    if kind == "coverage":
        return COVERAGE_DOWN, COVERAGE_UP
    return (ACCURACY_DOWN if band.target is None else TARGET_DOWN), ()


@lru_cache(maxsize=4096)
def labels_to_alarm(band: ToleranceBand, accuracy: float, threshold: float) -> int | None:
    """Return about how many labels, one per block, an alarm takes once the accuracy has fallen this low.

    The quickest alternative decides. None if it takes no finite number, such as at an accuracy in the band.

    Examples
    --------
    >>> labels_to_alarm(ToleranceBand(Rate(950, 1_000), 0.92, 1.0, 0.01), 0.82, log_threshold(200, 1.0))
    346
    >>> labels_to_alarm(ToleranceBand(Rate(28, 40), 0.75, 1.0, 0.01, 0.75), 0.375, log_threshold(200, 1.0))
    62
    """
    alternatives = Alternatives.of([("accuracy", band)])
    per_label = (accuracy * alternatives.hit + (1 - accuracy) * alternatives.miss)[:, 0]  # [C]
    gain, weight = per_label[per_label > 0], alternatives.weight[per_label > 0, 0]
    # n for which exp(g) + ... + exp(g n) is exp(threshold - weight)
    labels = np.log1p(np.exp(threshold - weight) * -np.expm1(-gain)) / gain
    return math.ceil(labels.min()) if labels.size else None


@dataclass(frozen=True, eq=False, slots=True)
class DetectorState:
    """State of the detectors of K rates; ``advance`` and ``reset`` change the arrays in place.

    For each alternative, M is the sum, over all blocks at which the change to it may have started, of the
    likelihood ratio since then. While the rate is in its band, whatever the past and whatever other slices
    do, a block adds at most 1 to the mean of M, and so to that of the mixture over alternatives. Hence a
    detector that is reset whenever the mixture reaches c raises at most N / c false alarms in N blocks, on
    average.

    The largest of those ratios (the cusum) and the block at which it started give the likeliest change.

    Parameters
    ----------
    log_e_process : float64[C, K]
        log(1 + M).
    cusum : float64[C, K]
        Log-likelihood ratio since the likeliest change; 0 if no change is likelier than none.
    since, past_count, past_n : int64[C, K]
        Start of the first block after ``cusum`` was last 0, and the counts before it.
    evidence : float64[K]
        Logarithm of the mixture of M, at least 0.
    count, n : int64[K]
        Counts since the start or the last reset.

    References
    ----------
    Shin, Ramdas and Rinaldo (2022), E-detectors: a nonparametric framework for sequential change detection.
    Roberts (1966), Technometrics 8, 411-430; Page (1954), Biometrika 41, 100-115.
    """

    log_e_process: FloatArray
    cusum: FloatArray
    since: Counts
    past_count: Counts
    past_n: Counts
    evidence: FloatArray
    count: Counts
    n: Counts

    @classmethod
    def zeros(cls, rates: int) -> DetectorState:
        """Return the state of detectors without observations."""
        log_e_process, cusum = np.zeros((2, ALTERNATIVES, rates))
        since, past_count, past_n = np.zeros((3, ALTERNATIVES, rates), np.int64)
        count, n = np.zeros((2, rates), np.int64)
        return cls(log_e_process, cusum, since, past_count, past_n, np.zeros(rates), count, n)

    def advance(self, alternatives: Alternatives, count: Counts, n: Counts, unknown: Counts, start: int) -> None:
        """Add one block.

        An unknown row counts as a member or as no member, whichever is evidence against the alternative. The
        ratio is then at most that of the full counts, so that the bound on false alarms holds whichever rows
        are unknown.

        Parameters
        ----------
        alternatives
            Alternatives of the same K rates.
        count, n, unknown : int64[K]
            Members, known rows, and rows whose membership is unknown; or correct and labelled rows. Rates without
            rows do not change.
        start
            Start of the block.
        """
        hit, miss = alternatives.hit, alternatives.miss
        log_e = count * hit + (n - count) * miss + unknown * np.minimum(hit, miss)  # [C, K]
        log_m = self.log_e_process + log_e
        starts = self.cusum == 0
        np.copyto(self.since, start, where=starts)
        np.copyto(self.past_count, self.count, where=starts)
        np.copyto(self.past_n, self.n, where=starts)
        np.maximum(self.cusum + log_e, 0.0, out=self.cusum)
        np.add(self.count, count, out=self.count)
        np.add(self.n, n, out=self.n)
        # log(1 + exp(log_m)); numpy's logaddexp takes six times as long
        log_e_process = np.maximum(log_m, 0.0) + np.log1p(np.exp(-np.abs(log_m)))
        np.copyto(self.log_e_process, log_e_process, where=n + unknown > 0)
        np.copyto(self.evidence, _log_sum(log_m + alternatives.weight), where=n + unknown > 0)

    def reset(self, rates: Indices) -> None:
        """Restart these detectors."""
        for array in self.arrays():
            array[..., rates] = 0

    def arrays(self) -> tuple[NDArray[np.float64 | np.int64], ...]:
        """Return the arrays in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))


def _log_sum(logs: FloatArray) -> FloatArray:
    """Return log(sum(exp(logs))) over the alternatives, at least 0."""
    largest = logs.max(axis=0, initial=0.0)
    # If no logarithm is positive the sum itself is compared with 1; else it is at least 1.
    return np.asarray(largest + np.log(np.maximum(np.exp(logs - largest).sum(axis=0), 1.0)), np.float64)


class DriftDetector:
    """Detectors of many rates with one threshold; a detector restarts after its detection.

    Blocks come in order of time. A rate without rows in a block does not change, and a rate without a band is
    not monitored.

    Parameters
    ----------
    zones
        Tolerance bands.
    threshold
        Logarithm of the alarm threshold, as returned by ``log_threshold``.

    Attributes
    ----------
    restarted
        Rates whose evidence began again when the bands were last replaced, since their limits differ.

    Raises
    ------
    ValueError
        If the threshold is not positive.

    Examples
    --------
    >>> key = RateKey("short", "f1", "coverage")
    >>> band = ToleranceBand(Rate(200, 10_000), 0.015, 0.025, 0.1)
    >>> detector = DriftDetector({key: band}, log_threshold(200, 1.0))
    >>> ten = datetime(2026, 1, 1, 10, tzinfo=UTC)
    >>> (detection,) = detector.advance(Observation(ten, ten + timedelta(seconds=10), {key: Rate(60, 500)}))
    >>> detection.drift.direction, detection.drift.observed == Rate(60, 500), detection.drift.since == ten
    ('up', True, True)
    """

    def __init__(self, zones: Mapping[RateKey, ToleranceBand], threshold: float) -> None:
        if not threshold > 0:
            raise ValueError(f"the logarithm of the alarm threshold must be positive, got {threshold}")
        self.threshold = threshold
        self.restarted: tuple[RateKey, ...] = ()
        self._start(zones)

    def advance(self, block: Observation) -> list[DriftDetected]:
        """Add a block, and return its detections in the order of the bands."""
        index, state = self._index, self._state
        columns = np.array([index.get(key, -1) for key in block.counts], np.intp)
        counts = np.zeros((3, len(index) + 1), np.int64)  # the last column collects rates without a band
        counts[0, columns] = [rate.count for rate in block.counts.values()]
        counts[1, columns] = [rate.n for rate in block.counts.values()]
        counts[2, columns] = [block.unknown.get(key, 0) for key in block.counts]
        count, n, unknown = counts[:, :-1]
        state.advance(self._alternatives, count, n, unknown, (block.start - _EPOCH) // _MICROSECOND)
        (alarmed,) = np.nonzero(state.evidence >= self.threshold)
        if not alarmed.size:
            return []
        detections = [DriftDetected(block.end, drift) for drift in self._statuses(alarmed)]
        state.reset(alarmed)
        return detections

    def drifts(self) -> tuple[DriftStatus, ...]:
        """Return the state of every rate, in the order of the bands."""
        return tuple(self._statuses(np.arange(len(self._keys))))

    def rezone(self, zones: Mapping[RateKey, ToleranceBand]) -> None:
        """Replace the bands; a rate with the same band continues, any other restarts."""
        previous = self._keys, self._bands, self._state
        self._start(zones)
        self._resume(*previous)

    def limit_starts(self, at: datetime) -> None:
        """Move changes that started after a moment to it: the clock was ahead at the time."""
        np.minimum(self._state.since, (at - _EPOCH) // _MICROSECOND, out=self._state.since)

    def to_bytes(self) -> bytes:
        """Return the state, from which ``from_bytes`` continues exactly."""
        rates = ((b.reference, b) for b in self._bands)
        bands = [(r.count, r.n, b.lower, b.upper, b.tolerance, r.independent, b.target) for r, b in rates]
        header = json.dumps({"format": _FORMAT, "keys": self._keys, "zones": bands})
        arrays = self._state.arrays()
        body = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
        return zlib.compress(header.encode() + b"\n" + body, _COMPRESSION)

    @classmethod
    def from_bytes(cls, state: bytes, zones: Mapping[RateKey, ToleranceBand], threshold: float) -> DriftDetector:
        """Return the detector that continues from ``state``; rates with another band restart.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of an unknown format.
        """
        detector = cls(zones, threshold)
        detector._resume(*_unpack(state))
        return detector

    def _start(self, bands: Mapping[RateKey, ToleranceBand]) -> None:
        self._keys, self._bands = tuple(bands), tuple(bands.values())
        self._index = {key: k for k, key in enumerate(self._keys)}
        self._alternatives = Alternatives.of([(key.kind, band) for key, band in bands.items()])
        self._state = DetectorState.zeros(len(self._keys))

    def _resume(
        self, keys: Sequence[Sequence[Any]], bands: Sequence[ToleranceBand | None], state: DetectorState
    ) -> None:
        """Copy the state of the rates whose limits are the same, or unknown and not those of a target."""
        pairs, restarted = [], []
        for previous, (key, band) in enumerate(zip(keys, bands, strict=True)):
            k = self._index.get(RateKey(*key))
            if k is None:
                continue
            if self._bands[k].target is None if band is None else band.has_limits_of(self._bands[k]):
                pairs.append((k, previous))
            else:
                restarted.append(self._keys[k])
        self.restarted = tuple(restarted)
        columns, previous_columns = np.array(pairs, np.intp).reshape(-1, 2).T
        for array, other in zip(self._state.arrays(), state.arrays(), strict=True):
            array[..., columns] = other[..., previous_columns]

    def _statuses(self, rates: Indices) -> list[DriftStatus]:
        state = self._state
        best = state.cusum[:, rates].argmax(axis=0)
        changed = (state.cusum[best, rates] > 0) & (state.evidence[rates] > 0)
        count = state.count[rates] - np.where(changed, state.past_count[best, rates], 0)
        n = state.n[rates] - np.where(changed, state.past_n[best, rates], 0)
        lower, upper = anytime_arrays(count, n)
        statuses = []
        for i, (c, k) in enumerate(zip(best.tolist(), rates.tolist(), strict=True)):
            key = self._keys[k]
            since: datetime | None = None
            direction: Direction | None = None
            if changed[i]:
                since = _EPOCH + int(state.since[c, k]) * _MICROSECOND
                direction = "up" if self._alternatives.hit[c, k] > 0 else "down"
            statuses.append(
                DriftStatus(
                    key.slice,
                    key.fingerprint,
                    key.kind,
                    self._bands[k],
                    float(state.evidence[k]),
                    self.threshold,
                    since,
                    direction,
                    Rate(int(count[i]), int(n[i])),
                    float(lower[i]),
                    float(upper[i]),
                )
            )
        return statuses


def _unpack(data: bytes) -> tuple[Sequence[Sequence[Any]], Sequence[ToleranceBand | None], DetectorState]:
    """Return keys, bands (of earlier versions None or without targets) and state, as packed by ``to_bytes``."""
    try:
        head, _, body = zlib.decompress(data).partition(b"\n")
        header = json.loads(head)
        if header["format"] == _FORMAT:
            bands = [
                ToleranceBand(Rate(count, n, later[0]), lower, upper, tolerance, *later[1:]) if later else None
                for count, n, lower, upper, tolerance, *later in header["zones"]
            ]
            state, offset = DetectorState.zeros(len(bands)), 0
            for array in state.arrays():
                values = np.frombuffer(body, array.dtype.newbyteorder("<"), array.size, offset)
                array[...] = values.reshape(array.shape)
                offset += array.nbytes
            if offset != len(body):
                raise ValueError(f"expected {offset} bytes, got {len(body)}")
            return header["keys"], bands, state
    except (zlib.error, KeyError, TypeError, ValueError) as error:
        raise ValueError("the saved state of the drift detector is damaged: start a new detector") from error
    raise ValueError(
        f"the saved state of the drift detector has format {header['format']}, this release reads {_FORMAT}: "
        "start a new detector"
    )
