"""The snapshot: every window of one model version, estimated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.events import (
    BlockCounts,
    Estimate,
    FunctionSetVersion,
    InsufficientData,
    IntervalMethod,
    Performance,
    SliceEstimate,
    Snapshot,
    WindowEstimates,
    WindowName,
)
from service.monitor.block_counts import empty, merge, remap_columns, spanning
from service.monitor.block_index import BlockIndex
from service.monitor.estimates import EstimateConfig, estimates
from service.monitor.windows import Span, windows
from sfs.intervals import Rate


@dataclass(frozen=True, slots=True)
class SnapshotScope:
    """One model version, as the monitor sees it at a tick.

    Parameters
    ----------
    model, version
        Whose predictions are counted.
    functions
        The function set in force, whose slices are shown.
    promoted_at
        When the version became the champion; None if it is not.
    last_label_at
        When the last label of the model arrived; None before the first.
    """

    model: str
    version: int
    functions: FunctionSetVersion
    promoted_at: datetime | None
    last_label_at: datetime | None


def take_snapshot(
    at: datetime,
    watched: SnapshotScope,
    timelines: Iterable[BlockIndex],
    sets: Mapping[str, FunctionSetVersion],
    judging: EstimateConfig,
) -> Snapshot:
    """Return every window of the watched version at ``at``, as the function set in force names the slices.

    Parameters
    ----------
    at
        The tick, UTC.
    timelines
        Those of any model and version; only the watched version's are read, one for each set that it met.
    sets
        Set hash to what it stands for, for each of those timelines.

    Raises
    ------
    ValueError
        If a timeline's set is not among ``sets``.
    """
    mine = [each for each in timelines if each.series[:2] == (watched.model, watched.version)]
    shown: dict[WindowName, WindowEstimates] = {}
    for name, span in windows(at, watched.promoted_at).items():
        total = window_total(span, watched, mine, sets)
        method: IntervalMethod = "anytime" if name == "since_promotion" else "clopper-pearson"
        figures = estimates(total, watched.functions, method, judging)
        shown[name] = WindowEstimates(span.start, span.end, figures)
    hash_in_force = watched.functions.hash
    return Snapshot(at, watched.model, watched.version, hash_in_force, shown, watched.last_label_at)


def window_total(
    span: Span,
    watched: SnapshotScope,
    timelines: Iterable[BlockIndex],
    sets: Mapping[str, FunctionSetVersion],
) -> BlockCounts:
    """Return the counts of the watched version in a span, over all the sets that it met.

    Raises
    ------
    ValueError
        If a timeline's set is not among ``sets``, or the span cuts a block.
    """
    wanted = watched.functions
    total = empty(watched.model, watched.version, wanted.hash, len(wanted.names), span.start, 0)
    parts = [total]
    for each in timelines:
        made = sets.get(each.series[2])
        if made is None:
            raise ValueError(
                f"function set {each.series[2]!r} is not among those known: load it from the store"
            )
        parts.append(remap_columns(each.total(span), made, wanted))
    return spanning(merge(parts), span.start, span.end)


_FORMAT = 1


def to_text(snapshot: Snapshot) -> str:
    """Return the snapshot as JSON, every float as it is."""
    last = snapshot.last_label_at
    return json.dumps(
        {
            "format": _FORMAT,
            "at": snapshot.at.isoformat(),
            "model": snapshot.model,
            "version": snapshot.version,
            "set_hash": snapshot.set_hash,
            "windows": {name: _window(window) for name, window in snapshot.windows.items()},
            "last_label_at": None if last is None else last.isoformat(),
        },
        separators=(",", ":"),
    )


def from_text(text: str) -> Snapshot:
    """Return the snapshot that ``to_text`` wrote.

    Raises
    ------
    ValueError
        If the text is damaged, or of a format that this release does not know.
    """
    try:
        content = json.loads(text)
        form = content["format"]
        snapshot = _snapshot(content) if form == _FORMAT else None
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise ValueError(
            "the last snapshot is damaged: the next tick of the monitor replaces it"
        ) from problem
    if snapshot is None:
        raise ValueError(f"a snapshot of format {form} is of another release: the next tick replaces it")
    return snapshot


def _snapshot(content: dict[str, Any]) -> Snapshot:
    last = content["last_label_at"]
    return Snapshot(
        datetime.fromisoformat(content["at"]),
        content["model"],
        content["version"],
        content["set_hash"],
        {name: _read_window(window) for name, window in content["windows"].items()},
        None if last is None else datetime.fromisoformat(last),
    )


def _window(window: WindowEstimates) -> dict[str, Any]:
    slices = [
        [
            each.slice,
            each.fingerprint,
            _figure(each.coverage),
            each.unknown,
            each.absent,
            _performance(each.members),
            _performance(each.complement),
        ]
        for each in window.slices
    ]
    return {"start": window.start.isoformat(), "end": window.end.isoformat(), "slices": slices}


def _read_window(content: dict[str, Any]) -> WindowEstimates:
    slices = tuple(
        SliceEstimate(
            name,
            fingerprint,
            _read_share(coverage),
            unknown,
            absent,
            _read_performance(*members),
            _read_performance(*complement),
        )
        for name, fingerprint, coverage, unknown, absent, members, complement in content["slices"]
    )
    start, end = (datetime.fromisoformat(content[edge]) for edge in ("start", "end"))
    return WindowEstimates(start, end, slices)


def _performance(performance: Performance) -> list[Any]:
    return [performance.labelled, _figure(performance.accuracy), _figure(performance.f1)]


def _read_performance(labelled: int, accuracy: dict[str, Any], f1: float | dict[str, Any]) -> Performance:
    score = InsufficientData(**f1) if isinstance(f1, dict) else f1
    return Performance(labelled, _read_share(accuracy), score)


def _figure(figure: Estimate | InsufficientData | float) -> float | dict[str, Any]:
    """Return a figure as JSON: a share and a reason are told apart by their keys."""
    if isinstance(figure, Estimate):
        rate = figure.rate
        limits = {"lower": figure.lower, "upper": figure.upper, "method": figure.method}
        return {"count": rate.count, "n": rate.n, **limits}
    if isinstance(figure, InsufficientData):
        return {"n": figure.n, "needed": figure.needed, "reason": figure.reason}
    return figure


def _read_share(content: dict[str, Any]) -> Estimate | InsufficientData:
    if "reason" in content:
        return InsufficientData(**content)
    rate = Rate(content["count"], content["n"])
    return Estimate(rate, content["lower"], content["upper"], content["method"])
