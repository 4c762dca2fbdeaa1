"""Simulated rows of latent tags, with slices that overlap, contain and divide each other, and one planted cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.monitor.incidents import RowSample

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Packed = NDArray[np.uint8]
Change = Literal["rise", "fall", "accuracy"]

TAGS, CHUNK_ROWS, CALM_CHUNKS = 200, 20_000, 5
RAREST, MOST = 0.002, 0.3
TOLERANCE, ACCURACY_TOLERANCE, LOG_THRESHOLD = 0.1, 0.02, 19.4
WRONG = 0.1
"""Share of wrong predictions while nothing has changed."""


@dataclass(frozen=True, slots=True)
class TagSlice:
    """Rows with all, or with any, of some tags."""

    tags: tuple[int, ...]
    is_all: bool

    def packed(self, tags: Packed) -> Packed:
        """Return the membership as bits, for the bits of every tag."""
        chosen = tags[list(self.tags)]
        return np.bitwise_and.reduce(chosen) if self.is_all else np.bitwise_or.reduce(chosen)


def unpacked(bits: Packed, rows: int) -> Bools:
    """Return bits of rows as flags, bool[..., n]."""
    return np.unpackbits(bits, axis=-1, count=rows).view(np.bool_)


@dataclass(frozen=True, slots=True)
class Planted:
    """Index of the slice that is the cause, kind of its change, and its factor on the odds of its rate."""

    cause: int
    change: Change
    factor: float


class World:
    """Rows with random tags, a third of which come in pairs, and slices of them from 0.2% to 30% of the rows."""

    def __init__(self, slices: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._tag_rates = 2**16 * np.exp(rng.uniform(np.log(0.001), np.log(0.25), (TAGS, 1)))
        self._partner = np.where(rng.random(TAGS) < 1 / 3, rng.integers(0, TAGS, TAGS), np.arange(TAGS))
        tags, self.slices = np.packbits(self.tags(CHUNK_ROWS), axis=1), list[TagSlice]()
        known = set[tuple[tuple[int, ...], bool]]()
        while len(self.slices) < slices:
            candidate = self._any_slice()
            key = tuple(sorted(candidate.tags)), candidate.is_all
            if key not in known and RAREST <= np.bitwise_count(candidate.packed(tags)).sum() / CHUNK_ROWS <= MOST:
                known.add(key)
                self.slices.append(candidate)
        calm = (self.members(self.tags(CHUNK_ROWS)).mean(axis=0) for _ in range(CALM_CHUNKS))
        self.coverage: Floats = np.mean(list(calm), axis=0)
        """Share of the rows in each slice while nothing has changed, float[slices]."""

    def _any_slice(self) -> TagSlice:
        """Return one tag, both of two, any of several, or an earlier slice with one more tag."""
        kind, rng = self._rng.integers(0, 4), self._rng
        if kind == 3 and self.slices:
            earlier = self.slices[rng.integers(0, len(self.slices))]
            more = int(rng.integers(0, TAGS))
            is_all = earlier.is_all and len(earlier.tags) > 1
            return TagSlice((*earlier.tags, more), is_all) if more not in earlier.tags else earlier
        size = (1, 2, int(rng.integers(2, 6)), 1)[kind]
        return TagSlice(tuple(map(int, rng.choice(TAGS, size, replace=False))), bool(kind == 1))

    def tags(self, rows: int) -> Bools:
        """Return the tags of new rows, bool[TAGS, n]."""
        tagged = self._draws(rows) < self._tag_rates
        return tagged | (tagged[self._partner] & (self._draws(rows) < 0.4 * 2**16))

    def _draws(self, rows: int) -> NDArray[np.uint16]:
        return np.frombuffer(self._rng.bytes(2 * TAGS * rows), np.uint16).reshape(TAGS, rows)

    def members(self, tagged: Bools) -> Bools:
        """Return the membership of rows in all slices, bool[n, slices]."""
        tags = np.packbits(tagged, axis=1)
        return unpacked(np.stack([each.packed(tags) for each in self.slices]), tagged.shape[1]).T

    def changed_tags(self, planted: Planted, rows: int) -> Bools:
        """Return the tags of rows in which the odds of the cause's coverage are multiplied, bool[TAGS, n]."""
        parts, missing, factor = list[Bools](), rows, planted.factor
        while missing > 0:
            tagged = self.tags(CHUNK_ROWS)
            is_member = unpacked(self.slices[planted.cause].packed(np.packbits(tagged, axis=1)), CHUNK_ROWS)
            weight = np.where(is_member, factor, 1.0) / max(factor, 1.0)
            parts.append(tagged[:, self._rng.random(CHUNK_ROWS) < weight])
            missing -= parts[-1].shape[1]
        return np.concatenate(parts, axis=1)[:, :rows]

    def wrong(self, member: Bools, planted: Planted | None = None) -> Bools:
        """Return the rows that are predicted wrongly, bool[n]."""
        rate = np.full(len(member), WRONG)
        if planted is not None:
            odds = planted.factor * WRONG / (1 - WRONG)
            rate[member[:, planted.cause]] = odds / (1 + odds)
        return np.asarray(self._rng.random(len(member)) < rate, np.bool_)

    def sample(self, rows: int, planted: Planted | None, change: Change) -> RowSample:
        """Return rows for the rates of all slices."""
        if change != "accuracy":
            tagged = self.tags(rows) if planted is None else self.changed_tags(planted, rows)
            member = self.members(tagged)
            return RowSample(member, np.broadcast_to(True, member.shape), member)
        member = self.members(self.tags(rows))
        return RowSample(member, member, member & self.wrong(member, planted)[:, None])


def alarmed(expected: Floats, hits: Floats, exposed: Floats, change: Change) -> tuple[Bools, Bools]:
    """Return which rates have left their tolerance band, at the threshold of the detector, and which have risen."""
    rate = hits / np.maximum(exposed, 1)
    tolerance = ACCURACY_TOLERANCE if change == "accuracy" else TOLERANCE * expected
    low, high = (np.clip(expected + step * tolerance, 1e-9, 1 - 1e-9) for step in (-1, 1))
    limit = np.clip(rate, low, high)
    rate = np.clip(rate, 1e-9, 1 - 1e-9)
    evidence = exposed * (rate * np.log(rate / limit) + (1 - rate) * np.log((1 - rate) / (1 - limit)))
    return evidence >= LOG_THRESHOLD, rate > limit
