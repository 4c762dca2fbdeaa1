"""Change detector: Shiryaev-Roberts e-processes against several alternatives, for many rates at once."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.decisions import Direction, DriftDetected, DriftStatus, RateKey, ToleranceBand
from service.events import Counts
from service.monitor.alternatives import ALTERNATIVES, Alternatives
from service.monitor.live_baseline import NO_REFERENCE, Limits, LiveBaseline
from sfs.intervals import Rate, anytime_arrays

FloatArray = NDArray[np.float64]
Indices = NDArray[np.intp]

BLOCKS_A_MONTH = 30 * 86_400 // 10

_FORMAT = 2
"""Version of the saved state; raise it when arrays or alternatives change, which invalidates old evidence."""

MOST_EVIDENCE = 300.0
"""Nats of a block, and of evidence, that are counted: M stays finite, and an alarm needs far less."""

_MOST = math.exp(MOST_EVIDENCE)
_CALM_EVIDENCE = 3.0  # nats from which the traffic of a slice is not learned
_REFRESH_SECONDS = 60  # after which the limits follow the season
_COMPRESSION = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, eq=False, slots=True)
class Observation:
    """Counts of one block.

    Parameters
    ----------
    keys
        M rates, each once. Blocks with the same tuple are read fastest.
    counts : int64[3, M]
        Members, known rows, and rows whose membership is unknown.
    """

    start: datetime
    end: datetime
    keys: tuple[RateKey, ...]
    counts: Counts

    @classmethod
    def of(
        cls, start: datetime, end: datetime, rates: Mapping[RateKey, Rate], unknown: Mapping[RateKey, int] | None = None
    ) -> Observation:
        """Return the observation of rates, and of unknown rows of some of them."""
        rows = [(rate.count, rate.n, (unknown or {}).get(key, 0)) for key, rate in rates.items()]
        return cls(start, end, tuple(rates), np.array(rows, np.int64).reshape(-1, 3).T)

    def rates(self, keys: Collection[RateKey]) -> dict[RateKey, Rate]:
        """Return the rates of those of the keys that were counted."""
        found = ((key, k) for k, key in enumerate(self.keys) if key in keys) if keys else ()
        return {key: Rate(int(self.counts[0, k]), int(self.counts[1, k])) for key, k in found}


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
    e_process : float64[C, K]
        1 + M.
    cusum : float64[C, K]
        Log-likelihood ratio since the likeliest change; 0 if no change is likelier than none.
    since, past_count, past_n : int64[C, K]
        Start of the first block after ``cusum`` was last 0, and the counts before it; while it is 0 of no meaning.
    evidence : float64[K]
        Logarithm of the mixture of M, from 0 to ``MOST_EVIDENCE``.
    count, n : int64[K]
        Counts since the start or the last reset.
    divisor : float64[C, K]
        Divisor of the log-likelihood ratios, for the dispersion of calm traffic.

    References
    ----------
    Shin, Ramdas and Rinaldo (2022), E-detectors: a nonparametric framework for sequential change detection.
    Roberts (1966), Technometrics 8, 411-430; Page (1954), Biometrika 41, 100-115.
    """

    e_process: FloatArray
    cusum: FloatArray
    since: Counts
    past_count: Counts
    past_n: Counts
    evidence: FloatArray
    count: Counts
    n: Counts
    divisor: FloatArray

    @classmethod
    def zeros(cls, rates: int) -> DetectorState:
        """Return the state of detectors without observations."""
        cusum = np.zeros((ALTERNATIVES, rates))
        since, past_count, past_n = np.zeros((3, ALTERNATIVES, rates), np.int64)
        count, n = np.zeros((2, rates), np.int64)
        e_process, divisor = np.ones((2, ALTERNATIVES, rates))
        return cls(e_process, cusum, since, past_count, past_n, np.zeros(rates), count, n, divisor)

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
            Members, known rows, and rows whose membership is unknown. Rates without rows do not change.
        start
            Start of the block.
        """
        hit, miss = alternatives.hit, alternatives.miss
        log_e = count.astype(np.float64) * hit + (n - count).astype(np.float64) * miss  # [C, K]
        if unknown.any():
            log_e += unknown * np.minimum(hit, miss)
        cusum = np.maximum(self.cusum + log_e, 0.0)
        begun = np.flatnonzero((self.cusum == 0) & (cusum > 0))
        rates = begun % len(count)
        self.since.put(begun, start)
        self.past_count.put(begun, self.count[rates])
        self.past_n.put(begun, self.n[rates])
        self.cusum[...] = cusum
        np.add(self.count, count, out=self.count)
        np.add(self.n, n, out=self.n)
        m = np.minimum(self.e_process * np.exp(np.minimum(log_e, MOST_EVIDENCE)), _MOST)
        mixture = np.einsum("ck,ck->k", m, alternatives.weight)
        observed = n + unknown > 0
        np.copyto(self.e_process, m + 1, where=observed)
        np.copyto(self.evidence, np.log(np.maximum(mixture, 1.0)), where=observed)

    def divide(self, divisor: FloatArray) -> None:
        """Set the divisor; where it grows, the evidence so far is divided by it, too."""
        kept = np.minimum(self.divisor / divisor, 1.0)
        np.power(self.e_process, kept, out=self.e_process, where=kept < 1)
        np.multiply(self.cusum, kept, out=self.cusum)
        self.divisor[...] = divisor

    def reset(self, rates: Indices) -> None:
        """Restart these detectors."""
        for array in self.arrays()[1:-1]:
            array[..., rates] = 0
        self.e_process[:, rates] = 1

    def arrays(self) -> tuple[NDArray[np.float64 | np.int64], ...]:
        """Return the arrays in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))


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
    >>> (detection,) = detector.advance(Observation.of(ten, ten + timedelta(seconds=10), {key: Rate(60, 500)}))
    >>> detection.drift.direction, detection.drift.observed == Rate(60, 500), detection.drift.since == ten
    ('up', True, True)
    """

    def __init__(
        self, zones: Mapping[RateKey, ToleranceBand], threshold: float, baseline: LiveBaseline | None = None
    ) -> None:
        if not threshold > 0:
            raise ValueError(f"the logarithm of the alarm threshold must be positive, got {threshold}")
        self.threshold = threshold
        self.restarted: tuple[RateKey, ...] = ()
        self._block_keys: tuple[RateKey, ...] = ()
        self._block_columns: Indices = np.zeros(0, np.intp)
        self._minute: int = -1
        self._start(zones, baseline)

    def advance(self, block: Observation) -> list[DriftDetected]:
        """Add a block, and return its detections in the order of the bands."""
        counts = np.zeros((3, len(self._keys) + 1), np.int64)  # the last column collects rates without a band
        counts[:, self._columns_of(block.keys)] = block.counts
        return self.advance_arrays(block.start, block.end, *counts[:, :-1])

    def advance_arrays(
        self, start: datetime, end: datetime, count: Counts, n: Counts, unknown: Counts
    ) -> list[DriftDetected]:
        """Add a block as int64[K] in the order of the bands: members, known rows, unknown rows."""
        state, baseline, live = self._state, self._baseline, self._columns
        at = (start - _EPOCH) // _MICROSECOND
        seconds = at // 1_000_000
        if baseline is not None:
            if baseline.starts_day(seconds):
                baseline.end_day(seconds, state.cusum[:, live].max(axis=0, initial=0.0) < _CALM_EVIDENCE)
            if seconds // _REFRESH_SECONDS != self._minute:
                self._minute = seconds // _REFRESH_SECONDS
                self._refresh(float(n.max(initial=0)) / max(1.0, (end - start).total_seconds()))
        state.advance(self._alternatives, count, n, unknown, at)
        (alarmed,) = np.nonzero(state.evidence >= self.threshold)
        detections = []
        if alarmed.size:
            detections = [DriftDetected(end, drift) for drift in self._statuses(alarmed)]
            state.reset(alarmed)
        if baseline is not None:
            if alarmed.size:
                baseline.alarmed |= np.isin(self._live, alarmed)
            baseline.peaks.add(state.cusum[:, live], state.divisor[:, live], baseline.alarmed)
            length = round((end - start).total_seconds())
            baseline.add(seconds, length, count[live], n[live])
        return detections

    def drifts(self) -> tuple[DriftStatus, ...]:
        """Return the state of every rate of which something is expected, in the order of the bands."""
        live = [] if self._baseline is None else self._live[self._baseline.is_live()].tolist()
        known = [k for k, band in enumerate(self._bands) if band is not NO_REFERENCE or k in live]
        return tuple(self._statuses(np.array(known, np.intp)))

    def band(self, key: RateKey, limits: Limits | None = None) -> ToleranceBand | None:
        """Return the tolerance band of a rate, within limits of the live baseline, by default those of now.

        None if the rate is not monitored.
        """
        k = self._index.get(key)
        return None if k is None else self._live_bands(np.array([k]), limits).get(k, self._bands[k])

    def rezone(self, zones: Mapping[RateKey, ToleranceBand], baseline: LiveBaseline | None = None) -> None:
        """Replace bands and baseline; a rate with the same band, or with a live one, continues, any other restarts."""
        previous = self._keys, self._bands, self._state
        self._start(zones, baseline)
        self._resume(*previous)

    def restart(self, keys: Collection[RateKey]) -> None:
        """Reset the evidence of these rates."""
        self._state.reset(np.array([self._index[key] for key in keys if key in self._index], np.intp))

    def limit_starts(self, at: datetime) -> None:
        """Move changes that started after a moment to it: the clock was ahead at the time."""
        np.minimum(self._state.since, (at - _EPOCH) // _MICROSECOND, out=self._state.since)

    def to_bytes(self) -> bytes:
        """Return the state, from which ``from_bytes`` continues exactly."""
        rates = ((b.reference, b) for b in self._bands)
        bands = [(r.count, r.n, b.lower, b.upper, b.tolerance, r.independent, b.target) for r, b in rates]
        header = json.dumps({"format": _FORMAT, "keys": self._keys, "zones": bands, "minute": self._minute})
        arrays = self._state.arrays()
        body = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
        return zlib.compress(header.encode() + b"\n" + body, _COMPRESSION)

    @classmethod
    def from_bytes(
        cls,
        state: bytes,
        zones: Mapping[RateKey, ToleranceBand],
        threshold: float,
        baseline: LiveBaseline | None = None,
    ) -> DriftDetector:
        """Return the detector that continues from ``state``; rates with another band restart.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of an unknown format.
        """
        detector = cls(zones, threshold, baseline)
        keys, bands, minute, arrays = _unpack(state)
        if minute < 0 and baseline is not None and baseline.swing:  # of an earlier release, whose bands were narrower
            keys = [key if key[2] != "coverage" else ("", None, "coverage") for key in keys]
        detector._resume(keys, bands, arrays)
        detector._minute = minute
        detector._refresh(None)
        return detector

    def _columns_of(self, keys: tuple[RateKey, ...]) -> Indices:
        """Return the columns of the rates of a block, -1 without a band; most blocks have those of the last one."""
        if keys is not self._block_keys:
            self._block_keys = keys
            self._block_columns = np.array([self._index.get(key, -1) for key in keys], np.intp)
        return self._block_columns

    def _start(self, bands: Mapping[RateKey, ToleranceBand], baseline: LiveBaseline | None) -> None:
        self._keys, self._bands = tuple(bands), tuple(bands.values())
        self._index = {key: k for k, key in enumerate(self._keys)}
        self._block_keys, self._block_columns = (), self._block_columns[:0]
        limits = np.array([(band.lower, band.upper) for band in self._bands]).reshape(-1, 2).T
        self._alternatives = Alternatives.of(*limits)
        self._state = DetectorState.zeros(len(self._keys))
        self._baseline = baseline
        self._limits: Limits | None = None
        self._minute = -1
        live = () if baseline is None else baseline.keys
        self._live: Indices = np.array([self._index[key] for key in live], np.intp)
        self._columns: Indices | slice = self._live
        if np.array_equal(self._live, np.arange(len(self._live))):
            self._columns = slice(len(self._live))  # views, not copies

    def _refresh(self, pace: float | None) -> None:
        """Set the limits of the minute, and, with a pace in rows a second, the divisors, too."""
        baseline, live = self._baseline, self._columns
        if baseline is None or self._minute < 0:
            return
        limits = self._limits = baseline.limits(self._minute * _REFRESH_SECONDS)
        alternatives = Alternatives.of(limits.lower, limits.upper)
        if pace is not None:
            divisor = self._state.divisor.copy()
            divisor[:, live] = baseline.divisor(alternatives, limits, pace)
            self._state.divide(divisor)
        divided = alternatives.divided(self._state.divisor[:, live])
        for name in ("hit", "miss", "weight"):
            getattr(self._alternatives, name)[:, live] = getattr(divided, name)

    def _resume(
        self, keys: Sequence[Sequence[Any]], bands: Sequence[ToleranceBand | None], state: DetectorState
    ) -> None:
        """Copy the state of the rates whose limits are the same, or unknown."""
        pairs, restarted = [], []
        live = set() if self._baseline is None else set(self._live[self._baseline.is_live()].tolist())
        for previous, (key, band) in enumerate(zip(keys, bands, strict=True)):
            k = self._index.get(RateKey(*key))
            if k is None:
                continue
            if band is None or band.has_limits_of(self._bands[k]) or k in live:
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
        bands = self._live_bands(rates)
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
                    bands.get(k, self._bands[k]),
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

    def _live_bands(self, rates: Indices, limits: Limits | None = None) -> dict[int, ToleranceBand]:
        """Return the bands of those of the rates that have a live baseline, as of the minute."""
        baseline, limits = self._baseline, limits or self._limits
        if baseline is None or limits is None:
            return {}
        columns = {k: i for i, k in enumerate(self._live.tolist())}
        return {k: baseline.band(columns[k], limits) for k in rates.tolist() if k in columns}


def _unpack(data: bytes) -> tuple[Sequence[Sequence[Any]], Sequence[ToleranceBand | None], int, DetectorState]:
    """Return keys, bands, the minute of the limits, and the state, as packed by ``to_bytes``."""
    try:
        head, _, body = zlib.decompress(data).partition(b"\n")
        header = json.loads(head)
        if header["format"] in (1, _FORMAT):
            bands = [
                ToleranceBand(Rate(count, n, later[0]), lower, upper, tolerance, *later[1:]) if later else None
                for count, n, lower, upper, tolerance, *later in header["zones"]
            ]
            state, offset = DetectorState.zeros(len(bands)), 0
            for array in state.arrays()[: -1 if header["format"] == 1 else None]:  # which had no divisor
                values = np.frombuffer(body, array.dtype.newbyteorder("<"), array.size, offset)
                array[...] = values.reshape(array.shape)
                offset += array.nbytes
            if offset != len(body):
                raise ValueError(f"expected {offset} bytes, got {len(body)}")
            if header["format"] == 1:  # which stored logarithms
                np.exp(np.minimum(state.e_process, MOST_EVIDENCE), out=state.e_process)
            return header["keys"], bands, header.get("minute", -1), state
    except (zlib.error, KeyError, TypeError, ValueError) as error:
        raise ValueError("the saved state of the drift detector is damaged: start a new detector") from error
    raise ValueError(
        f"the saved state of the drift detector has format {header['format']}, this release reads {_FORMAT}: "
        "start a new detector"
    )
