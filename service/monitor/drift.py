"""The watch over the rates of one model version: blocks of counts in, verdicts out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from service.decisions import Direction, Drift, DriftKind, Verdict, Zone
from service.events import Counts
from service.monitor.detector import Alternatives, Keys, Standing
from service.monitor.drift_bytes import Kept, pack, unpack
from sfs.intervals import Rate, anytime_arrays

BLOCKS_A_MONTH = 30 * 86_400 // 10

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


class Key(NamedTuple):
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
class Counted:
    """What one block counted: members of known rows, or right of labelled ones."""

    start: datetime
    end: datetime
    counts: Mapping[Key, Rate]


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
    >>> key = Key("short", "f1", "coverage")
    >>> watch = DriftWatch({key: Zone(Rate(200, 10_000), 0.015, 0.025, 0.1)}, log_threshold(200, 1.0))
    >>> ten = datetime(2026, 1, 1, 10, tzinfo=UTC)
    >>> (verdict,) = watch.advance(Counted(ten, ten + timedelta(seconds=10), {key: Rate(60, 500)}))
    >>> verdict.drift.direction, verdict.drift.observed, verdict.drift.since == ten
    ('up', Rate(count=60, n=500), True)
    """

    def __init__(self, zones: Mapping[Key, Zone], threshold: float) -> None:
        if not threshold > 0:
            raise ValueError(f"the logarithm of a threshold is positive, got {threshold}")
        self.threshold = threshold
        self._watch(zones)

    def advance(self, block: Counted) -> list[Verdict]:
        """Take in a block, and return the verdicts on it, in the order of the zones."""
        standing = self._standing
        standing.advance(self._against, *self._counted(block.counts), (block.start - _EPOCH) // _TICK)
        (alarmed,) = np.nonzero(standing.evidence >= self.threshold)
        if not alarmed.size:
            return []
        verdicts = [Verdict(block.end, drift) for drift in self._drifts(alarmed)]
        standing.reset(alarmed)
        return verdicts

    def drifts(self) -> tuple[Drift, ...]:
        """Return where every rate stands, in the order of the zones."""
        return tuple(self._drifts(np.arange(len(self._keys))))

    def rezone(self, zones: Mapping[Key, Zone]) -> None:
        """Watch these rates from now on; those whose zone is the same go on, others begin anew."""
        kept = Kept(self._keys, self._zones, self._standing)
        self._watch(zones)
        self._go_on(kept)

    def to_bytes(self) -> bytes:
        """Return where every rate stands, as bytes, from which the watch goes on as if nothing had been."""
        return pack(Kept(self._keys, self._zones, self._standing))

    @classmethod
    def from_bytes(cls, state: bytes, zones: Mapping[Key, Zone], threshold: float) -> DriftWatch:
        """Return the watch that goes on where ``state`` was taken; rates with another zone begin anew.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of a format that this release does not know.
        """
        watch = cls(zones, threshold)
        watch._go_on(unpack(state))
        return watch

    def _watch(self, zones: Mapping[Key, Zone]) -> None:
        self._keys, self._zones = tuple(zones), tuple(zones.values())
        self._place = {key: place for place, key in enumerate(self._keys)}
        self._against = Alternatives.of([(key.kind, zone) for key, zone in zones.items()])
        self._standing = Standing.fresh(len(self._keys))

    def _go_on(self, kept: Kept) -> None:
        """Set the rates that have the same zone as before to where they were."""
        pairs = [
            (place, before)
            for before, (key, zone) in enumerate(zip(kept.keys, kept.zones, strict=True))
            if (place := self._place.get(Key(*key))) is not None and self._zones[place] == zone
        ]
        own, theirs = np.array(pairs, np.intp).reshape(-1, 2).T
        self._standing.take(own, kept.standing, theirs)

    def _counted(self, counts: Mapping[Key, Rate]) -> tuple[Counts, Counts]:
        """Return what was counted of every watched rate, 0 of 0 where nothing was."""
        place = self._place
        found = np.array([place.get(key, -1) for key in counts], np.intp)
        both = np.zeros((2, len(place) + 1), np.int64)  # the last is for what is not watched
        both[0, found] = [rate.count for rate in counts.values()]
        both[1, found] = [rate.n for rate in counts.values()]
        count, n = both[:, :-1]
        return count, n

    def _drifts(self, keys: Keys) -> list[Drift]:
        """Return where these rates stand."""
        at = self._standing
        best, moved = at.likeliest(keys)
        count = at.count[keys] - np.where(moved, at.past_count[best, keys], 0)
        n = at.n[keys] - np.where(moved, at.past_n[best, keys], 0)
        lower, upper = anytime_arrays(count, n)
        return [
            Drift(
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
