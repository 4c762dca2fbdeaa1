"""The detector of changes: Shiryaev-Roberts e-processes against several alternatives, for many rates at once."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.decisions import Direction, DriftDetected, DriftKind, DriftStatus, ToleranceBand
from service.events import Counts
from sfs.intervals import Rate, anytime_arrays

FloatArray = NDArray[np.float64]
Keys = NDArray[np.intp]

COVERAGE_UP = (1.1, 1.25, 1.5, 2.0, 3.0, 6.0)
COVERAGE_DOWN = (0.9, 0.8, 0.65, 0.5, 0.25, 0.05)
ACCURACY_DOWN = (1 / 1.15, 1 / 1.3, 1 / 1.5, 1 / 2, 1 / 3)
"""The alternatives: what the odds at a limit of the zone are multiplied with, outwards."""

ALTERNATIVES = len(COVERAGE_UP) + len(COVERAGE_DOWN)


@dataclass(frozen=True, eq=False, slots=True)
class Alternatives:
    """What is looked for in K rates: C alternatives each, one limit of the zone against a rate beyond it.

    Alternatives are multiples of odds, not of rates: of rare slices that is the same, and of common ones it
    spreads them up to 1 where multiples of the rate would leave the scale.

    Parameters
    ----------
    hit, miss : float64[C, K]
        Log-likelihood ratio of the alternative to the limit, per member and per other row.
    weight : float64[C, K]
        Logarithm of the share in the mixture; -inf where there is no such alternative.
    """

    hit: FloatArray
    miss: FloatArray
    weight: FloatArray

    @classmethod
    def of(cls, zones: Sequence[tuple[DriftKind, ToleranceBand]]) -> Alternatives:
        """Return the alternatives to these zones; a limit at the end of the scale has none beyond it."""
        limits, factors = np.zeros((2, ALTERNATIVES, len(zones)))
        for k, (kind, zone) in enumerate(zones):
            down, up = (COVERAGE_DOWN, COVERAGE_UP) if kind == "coverage" else (ACCURACY_DOWN, ())
            beyond = [(zone.lower, f) for f in down] + [(zone.upper, f) for f in up]
            for c, (limit, factor) in enumerate(pair for pair in beyond if 0 < pair[0] < 1):
                limits[c, k], factors[c, k] = limit, factor
        there = factors > 0
        factors[~there] = 1
        # the odds m / (1 - m) times f belong to the rate m f / (1 + m (f - 1))
        miss = -np.log1p(limits * (factors - 1))
        share = np.maximum(there.sum(axis=0), 1)
        return cls(np.log(factors) + miss, miss, np.where(there, -np.log(share), -np.inf))


@dataclass(frozen=True, eq=False, slots=True)
class DetectorState:
    """Where the detectors of K rates stand; ``advance``, ``reset`` and ``take`` change the arrays in place.

    For each alternative, M is the sum, over all blocks at which the change to it may have begun, of the
    likelihood ratio since then. While the rate is in its zone, whatever the past and whatever other slices
    do, a block adds 1 to the mean of M at most, and so to that of the mixture over alternatives. Hence a
    detector that is reset whenever the mixture reaches c has N / c false alarms in N blocks at most, on average.

    Beside it runs the largest of those ratios (the cusum) with the block at which it began: the likeliest change.

    Parameters
    ----------
    grown : float64[C, K]
        log(1 + M).
    cusum : float64[C, K]
        Log-likelihood ratio since the likeliest change; 0 where none is likelier than no change.
    since, past_count, past_n : int64[C, K]
        The start of the first block after ``cusum`` was last 0, and what had been counted before it.
    evidence : float64[K]
        Logarithm of the mixture of M, 0 at least.
    count, n : int64[K]
        What was counted since the start, or since the last reset.

    References
    ----------
    Shin, Ramdas and Rinaldo (2022), E-detectors: a nonparametric framework for sequential change detection.
    Roberts (1966), Technometrics 8, 411-430; Page (1954), Biometrika 41, 100-115.
    """

    grown: FloatArray
    cusum: FloatArray
    since: Counts
    past_count: Counts
    past_n: Counts
    evidence: FloatArray
    count: Counts
    n: Counts

    @classmethod
    def fresh(cls, keys: int) -> DetectorState:
        """Return the standing of detectors that have seen nothing."""
        grown, cusum = np.zeros((2, ALTERNATIVES, keys))
        since, past_count, past_n = np.zeros((3, ALTERNATIVES, keys), np.int64)
        return cls(grown, cusum, since, past_count, past_n, np.zeros(keys), *np.zeros((2, keys), np.int64))

    def advance(self, against: Alternatives, count: Counts, n: Counts, start: int) -> None:
        """Take in one block.

        Parameters
        ----------
        against
            What is looked for.
        count, n : int64[K]
            Members and known rows, or right and labelled ones. Where n is 0 nothing changes.
        start
            When the block began.
        """
        log_e = count * against.hit + (n - count) * against.miss  # [C, K]
        log_m = self.grown + log_e
        begins = self.cusum == 0
        np.copyto(self.since, start, where=begins)
        np.copyto(self.past_count, self.count, where=begins)
        np.copyto(self.past_n, self.n, where=begins)
        np.maximum(self.cusum + log_e, 0.0, out=self.cusum)
        np.add(self.count, count, out=self.count)
        np.add(self.n, n, out=self.n)
        # log(1 + exp(log_m)), which numpy's logaddexp gives at six times the cost
        grown = np.maximum(log_m, 0.0) + np.log1p(np.exp(-np.abs(log_m)))
        np.copyto(self.grown, grown, where=n > 0)
        np.copyto(self.evidence, _log_sum(log_m + against.weight), where=n > 0)

    def reset(self, keys: Keys) -> None:
        """Let these detectors begin anew."""
        for array in self.arrays():
            array[..., keys] = 0

    def likeliest(self, keys: Keys) -> tuple[Keys, NDArray[np.bool_]]:
        """Return which alternative has the largest cusum, and whether that and the evidence point to a change."""
        best = self.cusum[:, keys].argmax(axis=0)
        return best, (self.cusum[best, keys] > 0) & (self.evidence[keys] > 0)

    def take(self, keys: Keys, other: DetectorState, others: Keys) -> None:
        """Set these detectors to where those of another standing are."""
        for own, theirs in zip(self.arrays(), other.arrays(), strict=True):
            own[..., keys] = theirs[..., others]

    def arrays(self) -> tuple[NDArray[np.float64 | np.int64], ...]:
        """Return the arrays in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))


def _log_sum(logs: FloatArray) -> FloatArray:
    """Return log(sum(exp(logs))) over the alternatives, or 0 where that is negative."""
    largest = logs.max(axis=0, initial=0.0)
    # where no logarithm is positive the sum itself is compared with 1; elsewhere it is 1 at least
    return np.asarray(largest + np.log(np.maximum(np.exp(logs - largest).sum(axis=0), 1.0)), np.float64)


_CHECKPOINT_FORMAT = 1
"""To be raised whenever arrays or alternatives change: evidence against others is worth nothing."""
_CHECKPOINT_COMPRESSION = 1


class DriftCheckpoint(NamedTuple):
    """The K rates that are watched, their zones, and where their detectors stand."""

    keys: Sequence[Sequence[Any]]
    zones: Sequence[ToleranceBand]
    standing: DetectorState


def pack_checkpoint(kept: DriftCheckpoint) -> bytes:
    """Return bytes of which ``unpack_checkpoint`` makes the same, to the last bit."""
    zones = [(z.reference.count, z.reference.n, z.lower, z.upper, z.tolerance) for z in kept.zones]
    header = {"format": _CHECKPOINT_FORMAT, "keys": kept.keys, "zones": zones}
    body = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in kept.standing.arrays())
    return zlib.compress(json.dumps(header).encode() + b"\n" + body, _CHECKPOINT_COMPRESSION)


def unpack_checkpoint(data: bytes) -> DriftCheckpoint:
    """Return what was packed.

    Raises
    ------
    ValueError
        If the bytes are damaged, or of a format that this release does not know.
    """
    try:
        head, _, body = zlib.decompress(data).partition(b"\n")
        header = json.loads(head)
        form = header["format"]
        if form == _CHECKPOINT_FORMAT:
            zones = tuple(ToleranceBand(Rate(count, n), *limits) for count, n, *limits in header["zones"])
            return DriftCheckpoint(header["keys"], zones, _standing(body, len(zones)))
    except (zlib.error, KeyError, TypeError, ValueError) as problem:
        raise ValueError("the state of the drift watch is damaged: begin a new watch") from problem
    raise ValueError(
        f"the state of the drift watch has format {form}, not {_CHECKPOINT_FORMAT}: begin a new watch"
    )


def _standing(body: bytes, keys: int) -> DetectorState:
    """Return the arrays; ValueError if the bytes are fewer or more than theirs."""
    standing = DetectorState.fresh(keys)
    place = 0
    for array in standing.arrays():
        flat = np.frombuffer(body, array.dtype.newbyteorder("<"), array.size, place)
        array[...] = flat.reshape(array.shape)
        place += array.nbytes
    if place != len(body):
        raise ValueError(f"{place} bytes are due, and {len(body)} are there")
    return standing


BLOCKS_A_MONTH = 30 * 86_400 // 10

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


class RateKey(NamedTuple):
    """Which rate is watched; a tuple, because every block looks thousands of them up.

    Parameters
    ----------
    slice, fingerprint
        The slice and the version of its function; None for the extra columns.
    kind
        Which of its rates.
    """

    slice: str
    fingerprint: str | None
    kind: DriftKind


@dataclass(frozen=True, slots=True)
class Observation:
    """What one block counted: members of known rows, or right of labelled ones."""

    start: datetime
    end: datetime
    counts: Mapping[RateKey, Rate]


def log_threshold(max_slices: int, false_alarms_a_month: float) -> float:
    """Return the logarithm of the value at which a detector alarms.

    Half of the false alarms is for coverage, half for accuracy; each is shared by all slices and by the
    blocks of a month.

    Raises
    ------
    ValueError
        If the false alarms are not positive, or are so many that every block may alarm.

    Examples
    --------
    >>> round(log_threshold(200, 1.0), 2)
    18.46
    """
    chances = max_slices * BLOCKS_A_MONTH
    if not 0 < false_alarms_a_month / 2 < chances:
        raise ValueError(
            f"false alarms a month lie between 0 and {2 * chances}, twice the blocks of a month times the slices, "
            f"got {false_alarms_a_month}"
        )
    return math.log(chances / (false_alarms_a_month / 2))


class DriftWatch:
    """A detector for each of many rates, all with the same threshold; it begins anew after a verdict.

    Blocks come in order of time. A rate that a block does not count, or counts 0 rows of, stays where it is,
    and a rate without a zone is not watched.

    Parameters
    ----------
    zones
        Where each rate may lie.
    threshold
        Logarithm of the value at which to alarm, as ``log_threshold`` gives it.

    Raises
    ------
    ValueError
        If the threshold is not positive.

    Examples
    --------
    >>> key = RateKey("short", "f1", "coverage")
    >>> watch = DriftWatch({key: ToleranceBand(Rate(200, 10_000), 0.015, 0.025, 0.1)}, log_threshold(200, 1.0))
    >>> ten = datetime(2026, 1, 1, 10, tzinfo=UTC)
    >>> (verdict,) = watch.advance(Observation(ten, ten + timedelta(seconds=10), {key: Rate(60, 500)}))
    >>> verdict.drift.direction, verdict.drift.observed, verdict.drift.since == ten
    ('up', Rate(count=60, n=500), True)
    """

    def __init__(self, zones: Mapping[RateKey, ToleranceBand], threshold: float) -> None:
        if not threshold > 0:
            raise ValueError(f"the logarithm of a threshold is positive, got {threshold}")
        self.threshold = threshold
        self._watch(zones)

    def advance(self, block: Observation) -> list[DriftDetected]:
        """Take in a block, and return the verdicts on it, in the order of the zones."""
        standing = self._standing
        standing.advance(self._against, *self._counted(block.counts), (block.start - _EPOCH) // _TICK)
        (alarmed,) = np.nonzero(standing.evidence >= self.threshold)
        if not alarmed.size:
            return []
        verdicts = [DriftDetected(block.end, drift) for drift in self._drifts(alarmed)]
        standing.reset(alarmed)
        return verdicts

    def drifts(self) -> tuple[DriftStatus, ...]:
        """Return where every rate stands, in the order of the zones."""
        return tuple(self._drifts(np.arange(len(self._keys))))

    def rezone(self, zones: Mapping[RateKey, ToleranceBand]) -> None:
        """Watch these rates from now on; those whose zone is the same go on, others begin anew."""
        kept = DriftCheckpoint(self._keys, self._zones, self._standing)
        self._watch(zones)
        self._go_on(kept)

    def to_bytes(self) -> bytes:
        """Return where every rate stands, as bytes, from which the watch goes on as if nothing had been."""
        return pack_checkpoint(DriftCheckpoint(self._keys, self._zones, self._standing))

    @classmethod
    def from_bytes(cls, state: bytes, zones: Mapping[RateKey, ToleranceBand], threshold: float) -> DriftWatch:
        """Return the watch that goes on where ``state`` was taken; rates with another zone begin anew.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of a format that this release does not know.
        """
        watch = cls(zones, threshold)
        watch._go_on(unpack_checkpoint(state))
        return watch

    def _watch(self, zones: Mapping[RateKey, ToleranceBand]) -> None:
        self._keys, self._zones = tuple(zones), tuple(zones.values())
        self._place = {key: place for place, key in enumerate(self._keys)}
        self._against = Alternatives.of([(key.kind, zone) for key, zone in zones.items()])
        self._standing = DetectorState.fresh(len(self._keys))

    def _go_on(self, kept: DriftCheckpoint) -> None:
        """Set the rates that have the same zone as before to where they were."""
        pairs = [
            (place, before)
            for before, (key, zone) in enumerate(zip(kept.keys, kept.zones, strict=True))
            if (place := self._place.get(RateKey(*key))) is not None and self._zones[place] == zone
        ]
        own, theirs = np.array(pairs, np.intp).reshape(-1, 2).T
        self._standing.take(own, kept.standing, theirs)

    def _counted(self, counts: Mapping[RateKey, Rate]) -> tuple[Counts, Counts]:
        """Return what was counted of every watched rate, 0 of 0 where nothing was."""
        place = self._place
        found = np.array([place.get(key, -1) for key in counts], np.intp)
        both = np.zeros((2, len(place) + 1), np.int64)  # the last is for what is not watched
        both[0, found] = [rate.count for rate in counts.values()]
        both[1, found] = [rate.n for rate in counts.values()]
        count, n = both[:, :-1]
        return count, n

    def _drifts(self, keys: Keys) -> list[DriftStatus]:
        """Return where these rates stand."""
        at = self._standing
        best, moved = at.likeliest(keys)
        count = at.count[keys] - np.where(moved, at.past_count[best, keys], 0)
        n = at.n[keys] - np.where(moved, at.past_n[best, keys], 0)
        lower, upper = anytime_arrays(count, n)
        return [
            DriftStatus(
                key.slice,
                key.fingerprint,
                key.kind,
                self._zones[k],
                float(at.evidence[k]),
                self.threshold,
                _EPOCH + int(at.since[c, k]) * _TICK if moved[i] else None,
                self._direction(c, k) if moved[i] else None,
                Rate(int(count[i]), int(n[i])),
                float(lower[i]),
                float(upper[i]),
            )
            for i, (c, k) in enumerate(zip(best.tolist(), keys.tolist(), strict=True))
            for key in (self._keys[k],)
        ]

    def _direction(self, alternative: int, key: int) -> Direction:
        return "up" if self._against.hit[alternative, key] > 0 else "down"
