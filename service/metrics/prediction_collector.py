"""Counts of what was predicted, by version, class and slice: a few arrays, read out when Prometheus asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from threading import Lock
from typing import TypeVar

import numpy as np
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from service.events import Counts, FunctionSetVersion, Prediction
from service.metrics.exposition import OTHER, counter, gauge
from service.monitor.block_counts import unpack
from sfs.apply import FunctionStats

T = TypeVar("T")

_KEPT = 4
"""Versions, and function sets, that are known at a time: late rows of the last ones still count."""
_REASONS = 16
"""Reasons told apart; they may be named by users' functions, so there is a limit."""


@dataclass(slots=True)
class _VersionTally:
    """Rows of one version by predicted class, and members by slice of the set in force (K)."""

    labels: dict[str, int]
    slices: Counts


@dataclass(slots=True)
class _State:
    """All counts; K columns are the slices of the set in force."""

    versions: dict[str, _VersionTally] = field(default_factory=dict)
    unknown: dict[str, Counts] = field(default_factory=dict)
    nanoseconds: Counts = field(default_factory=lambda: np.zeros(0, np.int64))


class PredictionCollector(Collector):
    """What was predicted and applied in this process; safe to use from several threads.

    Series exist from the registration on, at 0, and only for what is registered: another class, or version,
    is counted as ``__other__``, another slice not at all. The last four versions and function sets are known.

    Parameters
    ----------
    model
        What the model is called.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = Lock()
        self._sets: dict[str, tuple[str, ...]] = {}
        self._names: tuple[str, ...] = ()
        self._at: dict[str, int] = {}
        self._state = _State()
        self._serving: str | None = None

    def watch(self, functions: FunctionSetVersion) -> None:
        """Count by the slices of a function set from now on; a slice keeps its counts while its name stays."""
        with self._lock:
            old, self._names = self._names, functions.names
            self._at = {name: k for k, name in enumerate(functions.names)}
            _put_last(self._sets, functions.hash, functions.names)
            state = self._state
            for tally in state.versions.values():
                tally.slices = reindex(tally.slices, old, self._names)
            state.unknown = {why: reindex(each, old, self._names) for why, each in state.unknown.items()}
            state.nanoseconds = reindex(state.nanoseconds, old, self._names)

    def serve(self, version: int, classes: Sequence[str]) -> None:
        """Count the version by these classes from now on, and say that it is the one that answers."""
        with self._lock:
            self._serving = str(version)
            tally = self._state.versions.get(self._serving) or self._empty()
            tally.labels = {name: tally.labels.get(name, 0) for name in (*classes, OTHER)}
            _put_last(self._state.versions, self._serving, tally)

    def add(self, predictions: Iterable[Prediction]) -> None:
        """Count answered rows."""
        with self._lock:
            for (version, set_hash), rows in groupby(
                predictions, key=lambda row: (row.version, row.set_hash)
            ):
                self._add(str(version), set_hash, list(rows))

    def add_runs(self, runs: Iterable[FunctionStats]) -> None:
        """Count the time of functions, and their unknown memberships by reason."""
        with self._lock:
            for each in runs:
                k = self._at.get(each.name)
                if k is not None:
                    self._state.nanoseconds[k] += round(each.seconds * 1e9)
                    for reason, rows in each.unknown.items():
                        self._unknown_for(reason)[k] += rows

    def unknown_rows(self, name: str) -> dict[str, int]:
        """Return the rows of which a slice's function could not tell, by reason; none for another slice."""
        with self._lock:
            k = self._at.get(name)
            counts = {} if k is None else {why: int(each[k]) for why, each in self._state.unknown.items()}
        return {reason: rows for reason, rows in counts.items() if rows}

    def collect(self) -> Iterator[Metric]:
        """Yield the families, as the counts are at one moment."""
        with self._lock:
            names, serving = self._names, self._serving
            versions = {
                version: (dict(tally.labels), tally.slices.tolist())
                for version, tally in self._state.versions.items()
            }
            unknown = {reason: each.tolist() for reason, each in self._state.unknown.items()}
            seconds = (self._state.nanoseconds / 1e9).tolist()
        yield from self._of_versions(names, versions, serving)
        yield self._of_unknown(names, unknown)
        took = counter("function_duration_seconds", "Time that each slicing function took.", ["function"])
        for name, each in zip(names, seconds, strict=True):
            took.add_metric([name], each)
        yield took

    def _of_versions(
        self,
        names: Sequence[str],
        versions: Mapping[str, tuple[Mapping[str, int], Sequence[int]]],
        serving: str | None,
    ) -> Iterator[Metric]:
        rows = counter("predictions", "Rows answered, by predicted class.", ["model", "version", "label"])
        members = counter("slice_predictions", "Rows in each slice.", ["model", "version", "slice"])
        for version, (labels, slices) in versions.items():
            for label, count in labels.items():
                rows.add_metric([self._model, version, label], count)
            for name, count in zip(names, slices, strict=True):
                members.add_metric([self._model, version, name], count)
        info = gauge("model_info", "The model version that answers; always 1.", ["model", "version"])
        if serving is not None:
            info.add_metric([self._model, serving], 1)
        yield from (rows, members, info)

    def _of_unknown(self, names: Sequence[str], unknown: Mapping[str, Sequence[int]]) -> Metric:
        family = counter(
            "slice_unknown",
            "Rows whose membership of a slice is unknown, by reason; only reasons that have occurred.",
            ["model", "slice", "reason"],
        )
        for reason, counts in unknown.items():
            for name, count in zip(names, counts, strict=True):
                if count:
                    family.add_metric([self._model, name, reason], count)
        return family

    def _add(self, version: str, set_hash: str, rows: Sequence[Prediction]) -> None:
        if version not in self._state.versions:
            version = OTHER
        tally = self._state.versions.get(version)
        if tally is None:
            tally = self._state.versions[OTHER] = self._empty()
        for label, count in Counter(row.label for row in rows).items():
            tally.labels[label if label in tally.labels else OTHER] += count
        made = self._sets.get(set_hash)
        if made is not None:
            members = unpack([row.member for row in rows], len(made)).sum(axis=0, dtype=np.int64)
            tally.slices += members if made == self._names else reindex(members, made, self._names)

    def _unknown_for(self, reason: str) -> Counts:
        """Return the column of a reason, or of all further ones once there are many."""
        unknown = self._state.unknown
        if reason not in unknown and len(unknown) >= _REASONS:
            reason = OTHER
        return unknown.setdefault(reason, np.zeros(len(self._names), np.int64))

    def _empty(self) -> _VersionTally:
        return _VersionTally({OTHER: 0}, np.zeros(len(self._names), np.int64))


def reindex(counts: Counts, old: Sequence[str], new: Sequence[str]) -> Counts:
    """Return counts by the old names as counts by the new ones: 0 for a name that was not there.

    Examples
    --------
    >>> reindex(np.array([3, 5]), ("a", "b"), ("b", "c")).tolist()
    [5, 0]
    """
    at = dict(zip(old, counts.tolist(), strict=True))
    return np.array([at.get(name, 0) for name in new], np.int64)


def _put_last(kept: dict[str, T], key: str, value: T) -> None:
    """Put an entry last, and let the first ones go that are too many."""
    kept.pop(key, None)
    kept[key] = value
    for old in list(kept)[:-_KEPT]:
        del kept[old]
