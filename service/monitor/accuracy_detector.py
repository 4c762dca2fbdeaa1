"""Detector of lower accuracy of slices, families and all rows: limits by class, state, and alarms in words."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.decisions import AccuracyFall, Alarm, DriftDetected, DriftStatus, FallPart, RateKey, ToleranceBand
from service.events import Counts
from service.monitor.label_detector import (
    FACTORS,
    BoolArray,
    Fall,
    FloatArray,
    Indices,
    LabelDetector,
    error_limits,
    log_thresholds,
    target_limits,
)
from service.monitor.tolerance_band import RECENT, recovery
from service.settings.schema import DriftSettings
from sfs.function import ALL_ROWS
from sfs.intervals import Rate, anytime_arrays

Pairs: TypeAlias = tuple[tuple[str, str, int], ...]
"""True class, predicted class and number of rows of every pair that occurs."""

KEPT_SECONDS = 600
"""Length of the intervals in which the labels since an alarm are kept."""

_FORMAT = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS = 20  # of a group, in an alarm


@dataclass(frozen=True, slots=True)
class LabelledBlock:
    """Labels that arrived in ten seconds, by rate: int64[C, C] by true and predicted class."""

    start: datetime
    end: datetime
    counts: Mapping[RateKey, Counts]

    def rates(self, keys: Collection[RateKey]) -> dict[RateKey, Rate]:
        """Return the accuracies of those of the keys that were counted."""
        found = ((key, self.counts[key]) for key in keys if key in self.counts)
        return {key: Rate(int(counts.trace()), int(counts.sum())) for key, counts in found}


@dataclass(frozen=True, slots=True)
class AccuracyReference:
    """Accuracy that is expected of a rate.

    Parameters
    ----------
    band
        Tolerance band; None if nothing is expected.
    pairs
        The rows of its reference by class; empty if they are unknown.
    """

    band: ToleranceBand | None
    pairs: Pairs = ()


def matrix_of(pairs: Pairs, classes: Sequence[str]) -> Counts:
    """Return counts of pairs of classes as int64[C, C]; pairs of other classes are left out.

    Examples
    --------
    >>> matrix_of((("ham", "ham", 8), ("spam", "ham", 2)), ["ham", "spam"]).tolist()
    [[8, 0], [2, 0]]
    """
    position = {name: c for c, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for true, predicted, number in pairs:
        if true in position and predicted in position:
            matrix[position[true], position[predicted]] += number
    return matrix


def pairs_of(matrix: Counts, classes: Sequence[str]) -> Pairs:
    """Return int64[C, C] as pairs of classes."""
    found = zip(*np.nonzero(matrix), strict=True)
    return tuple((classes[true], classes[predicted], int(matrix[true, predicted])) for true, predicted in found)


@lru_cache(maxsize=4096)
def labels_to_alarm(band: ToleranceBand, accuracy: float, threshold: float) -> int | None:
    """Return about how many labels an alarm takes once the accuracy has fallen this low.

    Labels are taken for those of one class, half of whose evidence is kept for single classes; the quickest alternative
    decides. None if it takes no finite number, such as at an accuracy in the band.

    Parameters
    ----------
    band, accuracy
        Tolerance band of the accuracy, and the accuracy after the fall.
    threshold
        Logarithm of the threshold for one label in a block.

    Examples
    --------
    >>> labels_to_alarm(ToleranceBand(Rate(950, 1_000), 0.92, 1.0, 0.01), 0.82, 18.46)
    364
    """
    limit = 1 - band.lower
    if not 0 < limit < 1:
        return None
    grown = limit * np.array(FACTORS) / (1 + limit * (np.array(FACTORS) - 1))
    gain = (1 - accuracy) * np.log(grown / limit) + accuracy * np.log((1 - grown) / (1 - limit))
    gain = gain[gain > 0]
    # n for which exp(g) + ... + exp(g n) is the threshold over the weight
    labels = np.log1p(np.exp(threshold + math.log(2 * len(FACTORS))) * -np.expm1(-gain)) / gain
    return math.ceil(labels.min()) if labels.size else None


class AccuracyDetector:
    """A `LabelDetector` of slices, families and all rows, with their bands, and their alarms in words.

    Parameters
    ----------
    references
        Accuracy that is expected of all rows, of slices, families and votes; rates without one are counted only.
    families
        Slices of the families, by their rates.
    classes
        The C classes.
    settings
        Tolerance, and the false alarms that the rates share.
    start
        Beginning of the labels.

    Attributes
    ----------
    restarted
        Rates whose evidence began again when the references were last replaced, since their limits differ.

    Examples
    --------
    >>> key = RateKey(ALL_ROWS, None, "accuracy")
    >>> expected = AccuracyReference(ToleranceBand(Rate(950, 1_000), 0.92, 1.0, 0.01))
    >>> ten = datetime(2026, 1, 1, 10, tzinfo=UTC)
    >>> detector = AccuracyDetector({key: expected}, {}, ["ham", "spam"], DriftSettings(), ten)
    >>> block = LabelledBlock(ten, ten + timedelta(seconds=10), {key: np.array([[40, 60], [0, 0]])})
    >>> (detection,) = detector.advance(block)
    >>> detection.drift.observed, detection.drift.fall.errors
    (Rate(count=40, n=100), 60)
    """

    def __init__(
        self,
        references: Mapping[RateKey, AccuracyReference],
        families: Mapping[RateKey, Sequence[RateKey]],
        classes: Sequence[str],
        settings: DriftSettings,
        start: datetime,
    ) -> None:
        self.restarted: tuple[RateKey, ...] = ()
        classes = classes or ("",)  # none is known yet
        self.references, self.classes = references, classes
        self._keys, self._index = [*references], {key: k for k, key in enumerate(references)}
        slices = [key for key in references if key.kind == "accuracy" and key.slice != ALL_ROWS]
        self._groups = {self._index[family]: [self._index[key] for key in own] for family, own in families.items()}
        self._of_slice = {key: [family.slice for family, own in families.items() if key in own] for key in slices}
        if (every := self._index.get(RateKey(ALL_ROWS, None, "accuracy"))) is not None:
            self._groups[every] = [self._index[key] for key in slices]
        many = max(settings.max_slices, len(slices) + sum(key.kind == "votes" for key in references))
        self._limits, self._of_all = _limits([*references.values()], classes, settings.accuracy_tolerance, many)
        of_slice, of_family, of_all = log_thresholds(many, len(families), settings.false_alarms_a_month / 2)
        self._thresholds = np.full(len(references), of_slice)
        self._thresholds[[self._index[family] for family in families]] = of_family
        self._thresholds[[] if every is None else every] = of_all
        self._detector = LabelDetector(
            self._limits, self._of_all, self._thresholds, int(start.timestamp()), self._groups
        )
        self._recent: dict[RateKey, dict[int, Counts]] = {}

    @property
    def watches(self) -> bool:
        """Whether anything is expected of any rate."""
        return any(each.band is not None for each in self.references.values())

    @property
    def false_alarms_a_block(self) -> float:
        """Expected number of false alarms in ten seconds, at most."""
        known = np.array([each.band is not None for each in self.references.values()], np.bool_)
        return float(np.exp(-self._thresholds[known]).sum())

    def advance(self, block: LabelledBlock) -> list[DriftDetected]:
        """Add the labels of a block, and return the detections in the order of the rates."""
        counts = {self._index[key]: each for key, each in block.counts.items() if key in self._index}
        if not counts:
            return []
        for key in self._recent.keys() & block.counts.keys():
            self._keep(key, block.end, block.counts[key])
        rates, confusion = np.array([*counts], np.intp), np.stack([*counts.values()])
        falls = self._detector.advance(int(block.end.timestamp()), rates, confusion)
        statuses = self._statuses([(fall.rate, fall.evidence, fall) for fall in falls]) if falls else ()
        return [DriftDetected(block.end, status) for status in statuses]

    def drifts(self) -> tuple[DriftStatus, ...]:
        """Return the state of every rate of which something is expected."""
        evidence = self._detector.log_statistic().tolist()
        return self._statuses(
            [(k, evidence[k], None) for k, each in enumerate(self.references.values()) if each.band is not None]
        )

    def band(self, key: RateKey) -> ToleranceBand | None:
        """Return the tolerance band of a rate; None if it is not monitored."""
        reference = self.references.get(key)
        return None if reference is None else reference.band

    def restart(self, keys: Collection[RateKey]) -> None:
        """Reset the evidence of these rates."""
        self._detector.reset(np.array([self._index[key] for key in keys if key in self._index], np.intp))

    def limit_starts(self, at: datetime) -> None:
        """Move changes that started after a moment to it: the clock was ahead at the time."""
        self._detector.limit_starts(int(at.timestamp()))

    def follow(self, keys: Collection[RateKey]) -> None:
        """Keep the labels of these rates, which have an unresolved alarm, for their recovery; forget all others."""
        self._recent = {key: self._recent.get(key, {}) for key in keys if key in self._index}

    def recovery(self, alarm: Alarm) -> str:
        """Return how the rate of an alarm came back into its band, in words; empty while it has not.

        Windows end with the last label of the rate. The limit of a window is that of its mix of classes; after a fall
        of one class it is that of the class.
        """
        key, fall = RateKey(alarm.drift.slice, alarm.drift.fingerprint, alarm.drift.kind), alarm.drift.fall
        kept, band = self._recent.get(key, {}), self.band(key)
        if not kept or band is None:
            return ""
        k = self._index[key]
        limits = self._limits[k, 0]
        chosen = limits < 1
        name: str | None = None
        if fall is not None and fall.true_class in self.classes:
            name = fall.true_class
            chosen = chosen & (np.array(self.classes) == name)
        last = (max(kept) + 1) * KEPT_SECONDS

        def windows() -> Iterator[tuple[str, ToleranceBand, Rate]]:
            for window, length in RECENT:
                start = last - int(length.total_seconds())
                if start < alarm.at.timestamp():
                    return
                errors, labels = np.sum([counts for at, counts in kept.items() if at * KEPT_SECONDS >= start], axis=0)
                if self._of_all[k]:
                    wrong, n, lower = int(errors.sum()), int(labels.sum()), band.lower
                else:
                    wrong, n = int(errors[chosen].sum()), int(labels[chosen].sum())
                    lower = 1 - float(labels[chosen] @ limits[chosen]) / max(n, 1)
                yield window, ToleranceBand(band.reference, lower, 1.0, band.tolerance, band.target), Rate(n - wrong, n)

        return recovery(alarm.drift.rate if name is None else f"recall of {name}", windows())

    def resume(self, state: bytes | AccuracyDetector, *, evidence: bool = True) -> None:
        """Continue another detector; rates with other limits begin again, and all of them without ``evidence``.

        Parameters
        ----------
        state
            The detector, or what its ``to_bytes`` returned.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of an unknown format.
        """
        header, arrays = _unpack(state) if isinstance(state, bytes) else state._state()
        limits = arrays["limits"]
        if header["classes"] != [*self.classes]:  # counts by class cannot be compared
            self.restarted = tuple(self._keys)
            return
        before = [RateKey(*key) for key in header["keys"]]
        there = {key: k for k, key in enumerate(before)}
        common = [key for key in self._keys if key in there]
        rates = _positions(common, self._index), _positions(common, there)
        exists: BoolArray = np.asarray((limits[rates[1]] < 1).any(axis=2), np.bool_)
        same = (self._limits[rates[0]] == limits[rates[1]]).all(axis=2) & exists & evidence
        mine, theirs = (
            {pair: place for place, pair in enumerate(pairs)}
            for pairs in (
                [(self._keys[group], self._keys[part]) for group, own in self._groups.items() for part in own],
                [(before[group], before[part]) for group, own in header["groups"] for part in own],
            )
        )
        pairs = [pair for pair in mine if pair in theirs]
        self._detector.resume(arrays, rates, (_positions(pairs, mine), _positions(pairs, theirs)), same)
        lost = ~same.any(axis=1) & exists.any(axis=1) & evidence
        self.restarted = tuple(key for key, begins in zip(common, lost.tolist(), strict=True) if begins)
        self._recent = {
            before[k]: {at: np.array(counts, np.int64) for at, counts in kept}
            for k, kept in header["recent"]
            if before[k] in self._index
        }

    def to_bytes(self) -> bytes:
        """Return the state, from which ``resume`` continues exactly."""
        header, arrays = self._state()
        header["arrays"] = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
        body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
        return zlib.compress(json.dumps(header).encode() + b"\n" + body, 1)

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[np.float64 | np.int64]]]:
        """Return the state: a header of JSON values, and arrays by name."""
        recent = [
            (self._index[key], [(at, counts.tolist()) for at, counts in kept.items()])
            for key, kept in self._recent.items()
        ]
        header = {
            "format": _FORMAT,
            "keys": self._keys,
            "classes": [*self.classes],
            "groups": [*self._groups.items()],
            "recent": recent,
        }
        return header, {"limits": self._limits, **self._detector.arrays()}

    def _keep(self, key: RateKey, end: datetime, confusion: Counts) -> None:
        labels = confusion.sum(axis=1)
        at, kept = (int(end.timestamp()) - 1) // KEPT_SECONDS, self._recent[key]
        kept[at] = kept.get(at, 0) + np.stack([labels - np.diagonal(confusion), labels])
        week = RECENT[-1][1].total_seconds() // KEPT_SECONDS
        for old in [each for each in kept if each <= max(kept) - week]:
            del kept[old]

    def _statuses(self, rates: Sequence[tuple[int, float, Fall | None]]) -> tuple[DriftStatus, ...]:
        """Return the states of rates, given with their evidence; both are shown as for one label in a block."""
        shifts, begun = np.log(self._detector.blocks_a_label()).tolist(), self._detector.counted().tolist()
        changes = [
            found or (self._detector.likeliest(k) if evidence > shifts[k] else None) for k, evidence, found in rates
        ]
        counts = [
            begun[k] if change is None else (change.all_errors, change.all_labels)
            for (k, *_), change in zip(rates, changes, strict=True)
        ]
        wrong, n = np.array(counts, np.int64).reshape(-1, 2).T
        lower, upper = (limit.tolist() for limit in anytime_arrays(n - wrong, n))
        labels, statuses = self._detector.labels_a_month().tolist(), []
        for i, ((k, evidence, found), change) in enumerate(zip(rates, changes, strict=True)):
            band, threshold = self.references[self._keys[k]].band, float(self._thresholds[k]) - shifts[k]
            statuses.append(
                DriftStatus(
                    *self._keys[k],
                    band,
                    max(0.0, evidence - shifts[k]),
                    threshold,
                    None if change is None else _EPOCH + timedelta(seconds=change.since),
                    None if change is None else "down",
                    Rate(int(n[i] - wrong[i]), int(n[i])),
                    lower[i],
                    upper[i],
                    None if found is None else self._in_words(found),
                    self._pooled(self._keys[k], band, threshold, labels[k]),
                )
            )
        return tuple(statuses)

    def _in_words(self, fall: Fall) -> AccuracyFall:
        """Return a fall with the names of classes and slices; against a limit of all labels, it is one of all."""
        parts = tuple(FallPart(self._keys[part.rate].slice, part.errors, part.labels) for part in fall.parts[:_PARTS])
        if self._of_all[fall.rate]:
            limit = float(self._limits[fall.rate, 1, 0])
            return AccuracyFall(None, fall.all_errors, fall.all_labels, limit, fall.dispersion, parts)
        if fall.true_class is None:
            return AccuracyFall(None, fall.errors, fall.labels, None, fall.dispersion, parts)
        limit, name = float(self._limits[fall.rate, 0, fall.true_class]), self.classes[fall.true_class]
        return AccuracyFall(name, fall.errors, fall.labels, limit, fall.dispersion, parts)

    def _pooled(self, key: RateKey, band: ToleranceBand | None, threshold: float, labels: float) -> tuple[str, ...]:
        """Return the groups that watch a slice whose labels of a month are too few for an alarm of its own."""
        if band is None or key not in self._of_slice:
            return ()
        needed = labels_to_alarm(band, band.lower / 2, round(threshold, 1))
        if needed is not None and labels >= needed:
            return ()
        whole = self.band(RateKey(ALL_ROWS, None, "accuracy"))
        return (*self._of_slice[key], *([] if whole is None else [ALL_ROWS]))


def _limits(
    references: Sequence[AccuracyReference], classes: Sequence[str], tolerance: float, slices: int
) -> tuple[FloatArray, BoolArray]:
    """Return limits and second views of K rates, as a `LabelDetector` takes them: float64[K, 2, C] and bool[K]."""
    none = np.zeros((0, len(classes), len(classes)), np.int64)
    confusion = np.concatenate([none, *(matrix_of(each.pairs, classes)[None] for each in references)])
    rates = [Rate(0, 0) if each.band is None else each.band.reference for each in references]
    counted = confusion.sum(axis=(1, 2)) == [rate.n for rate in rates]
    effective = np.array([rate.effective_n for rate in rates], np.int64)
    limits, of_all = error_limits(confusion, effective, tolerance, slices), np.zeros(len(rates), np.bool_)
    for k, band in enumerate(each.band for each in references):
        by_class = bool(counted[k]) and rates[k].n > 0
        if band is not None and by_class and band.target is None:
            continue
        limits[k] = 1.0
        if band is not None:
            of_all[k], limits[k, 1, 0] = True, 1 - band.lower
            if by_class and band.target is not None:
                limits[k, 0] = target_limits(confusion[k], band.target)
    return limits, of_all


def _positions(keys: Sequence[Any], places: Mapping[Any, int]) -> Indices:
    return np.array([places[key] for key in keys], np.intp)


def _unpack(state: bytes) -> tuple[dict[str, Any], dict[str, NDArray[np.float64 | np.int64]]]:
    """Return header and arrays, as packed by ``to_bytes``."""
    try:
        head, _, body = zlib.decompress(state).partition(b"\n")
        header: dict[str, Any] = json.loads(head)
        arrays, offset = {}, 0
        for name, dtype, shape in header["arrays"]:
            values = np.frombuffer(body, dtype, math.prod(shape), offset)
            arrays[name], offset = values.reshape(shape), offset + values.nbytes
        if header["format"] == _FORMAT and offset == len(body):
            return header, arrays
    except (zlib.error, KeyError, TypeError, ValueError) as error:
        raise ValueError("the saved state of the accuracy detector is damaged: start a new detector") from error
    raise ValueError("the saved state of the accuracy detector is damaged, or of another release")
