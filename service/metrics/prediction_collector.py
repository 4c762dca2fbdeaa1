"""Counters of predictions by version, class and slice, kept in arrays that are read at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from threading import Lock
from typing import TypeVar

import numpy as np
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from service.events import SERVICE_REASONS, Counts, FunctionSetVersion, Prediction
from service.formatting import truncated
from service.metrics.exposition import OTHER, counter, gauge
from service.monitor.block_counts import unpack_bitmaps
from sfs.apply import ABSTAINED, INVALID_RETURN_VALUE, FunctionStats
from sfs.metering import OUT_OF_TIME, OVER_BUDGET
from sfs.template_plan import ABSENT_FIELD, WRONG_TYPE

T = TypeVar("T")

_MAX_VERSIONS = 4
"""Number of latest versions and function sets to keep, so that late rows of earlier ones still count."""
_MAX_REASONS, _MAX_REASON_CHARS = 16, 60
"""Maximum number and length of reasons that functions choose: the names of their exceptions."""
_OWN_REASONS = frozenset(
    {*(ABSTAINED, INVALID_RETURN_VALUE), *(ABSENT_FIELD, WRONG_TYPE), *(OVER_BUDGET, OUT_OF_TIME), OTHER}
    | SERVICE_REASONS
)
"""Reasons of the service itself, which always have a series of their own."""


@dataclass(slots=True)
class _VersionCounts:
    """Rows of one version by predicted class, and members by slice of the current set: int64[K]."""

    labels: dict[str, int]
    slices: Counts


class PredictionCollector(Collector):
    """Counters of predictions and function runs in this process; thread-safe.

    Series start at 0 and exist only for registered names: another class or version is counted as
    ``__other__``, another slice is not counted. The last four versions and function sets are known.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = Lock()
        self._sets: dict[str, tuple[str, ...]] = {}
        self._names: tuple[str, ...] = ()
        self._column: dict[str, int] = {}
        self._versions: dict[str, _VersionCounts] = {}
        self._unknown: dict[str, Counts] = {}
        self._nanoseconds: Counts = np.zeros(0, np.int64)
        self._serving: str | None = None

    def set_functions(self, functions: FunctionSetVersion) -> None:
        """Count by the slices of this function set; a slice keeps its counts while its name stays."""
        with self._lock:
            old, new = self._names, functions.names
            self._names = new
            self._column = {name: k for k, name in enumerate(new)}
            _put_last(self._sets, functions.hash, new)
            for counts in self._versions.values():
                counts.slices = reindex(counts.slices, old, new)
            self._unknown = {reason: reindex(rows, old, new) for reason, rows in self._unknown.items()}
            self._nanoseconds = reindex(self._nanoseconds, old, new)

    def set_version(self, version: int, classes: Sequence[str]) -> None:
        """Report this version as the active one, and count its rows by these classes."""
        with self._lock:
            self._serving = str(version)
            counts = self._versions.get(self._serving) or self._empty()
            counts.labels = {name: counts.labels.get(name, 0) for name in (*classes, OTHER)}
            _put_last(self._versions, self._serving, counts)

    def count_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Count answered rows."""
        with self._lock:
            for (number, set_hash), group in groupby(predictions, key=lambda row: (row.version, row.set_hash)):
                rows = list(group)
                version = str(number) if str(number) in self._versions else OTHER
                if version not in self._versions:
                    self._versions[OTHER] = self._empty()
                counts = self._versions[version]
                for label, n in Counter(row.label for row in rows).items():
                    counts.labels[label if label in counts.labels else OTHER] += n
                names = self._sets.get(set_hash)
                if names is not None:
                    members = unpack_bitmaps([row.member for row in rows], len(names)).sum(axis=0, dtype=np.int64)
                    counts.slices += members if names == self._names else reindex(members, names, self._names)

    def count_function_runs(self, runs: Iterable[FunctionStats]) -> None:
        """Count the time of functions, and unknown memberships by reason."""
        runs = list(runs)
        with self._lock:
            if [run.name for run in runs] == list(self._names):  # as in every request
                self._nanoseconds += np.rint([run.seconds * 1e9 for run in runs]).astype(np.int64)
            else:
                for run in runs:
                    if (k := self._column.get(run.name)) is not None:
                        self._nanoseconds[k] += round(run.seconds * 1e9)
            for run in runs:
                if not run.unknown or (k := self._column.get(run.name)) is None:
                    continue
                for reason, rows in run.unknown.items():
                    reason = self._series_of(reason)
                    self._unknown.setdefault(reason, np.zeros(len(self._names), np.int64))[k] += rows

    def _series_of(self, reason: str) -> str:
        """Return the label value of a reason."""
        if reason in self._unknown or reason in _OWN_REASONS:
            return reason
        reason = truncated(reason, _MAX_REASON_CHARS)
        is_known = reason in self._unknown or len(self._unknown.keys() - _OWN_REASONS) < _MAX_REASONS
        return reason if is_known and reason.isprintable() else OTHER

    def unknown_rows(self, name: str) -> dict[str, int]:
        """Return the rows of unknown membership in a slice, by reason."""
        with self._lock:
            k = self._column.get(name)
            counts = {} if k is None else {reason: int(rows[k]) for reason, rows in self._unknown.items()}
        return {reason: rows for reason, rows in counts.items() if rows}

    def collect(self) -> Iterator[Metric]:
        """Yield the families, all as of one moment."""
        with self._lock:
            names, serving = self._names, self._serving
            versions = [
                (version, dict(counts.labels), counts.slices.tolist()) for version, counts in self._versions.items()
            ]
            unknown = {reason: rows.tolist() for reason, rows in self._unknown.items()}
            seconds = (self._nanoseconds / 1e9).tolist()

        predictions = counter("predictions", "Predictions by class.", ["model", "version", "label"])
        members = counter("slice_predictions", "Predictions in each slice.", ["model", "version", "slice"])
        for version, labels, slices in versions:
            for label, count in labels.items():
                predictions.add_metric([self._model, version, label], count)
            for name, count in zip(names, slices, strict=True):
                members.add_metric([self._model, version, name], count)
        info = gauge("model_info", "Active model version; always 1.", ["model", "version"])
        if serving is not None:
            info.add_metric([self._model, serving], 1)
        yield from (predictions, members, info)

        failures = counter(
            "slice_unknown",
            "Predictions with unknown membership of a slice, by reason; only reasons that occurred.",
            ["model", "slice", "reason"],
        )
        for reason, counts_by_slice in unknown.items():
            for name, count in zip(names, counts_by_slice, strict=True):
                if count:
                    failures.add_metric([self._model, name, reason], count)
        yield failures

        duration = counter("function_duration_seconds", "Time spent in each slicing function.", ["function"])
        for name, value in zip(names, seconds, strict=True):
            duration.add_metric([name], value)
        yield duration

    def _empty(self) -> _VersionCounts:
        return _VersionCounts({OTHER: 0}, np.zeros(len(self._names), np.int64))


def reindex(counts: Counts, old: Sequence[str], new: Sequence[str]) -> Counts:
    """Return counts by old names as counts by new names; 0 for a new name.

    Examples
    --------
    >>> reindex(np.array([3, 5]), ("a", "b"), ("b", "c")).tolist()
    [5, 0]
    """
    by_name = dict(zip(old, counts.tolist(), strict=True))
    return np.array([by_name.get(name, 0) for name in new], np.int64)


def _put_last(entries: dict[str, T], key: str, value: T) -> None:
    """Append an entry, and drop the oldest beyond the limit."""
    entries.pop(key, None)
    entries[key] = value
    for oldest in list(entries)[:-_MAX_VERSIONS]:
        del entries[oldest]
