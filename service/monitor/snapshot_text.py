"""A snapshot as text, for the store to commit and for other processes to read."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from service.events import Estimate, NotEnough, Performance, SliceEstimate, Snapshot, WindowEstimates
from sfs.intervals import Rate

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
    score = NotEnough(**f1) if isinstance(f1, dict) else f1
    return Performance(labelled, _read_share(accuracy), score)


def _figure(figure: Estimate | NotEnough | float) -> float | dict[str, Any]:
    """Return a figure as JSON: a share and a reason are told apart by their keys."""
    if isinstance(figure, Estimate):
        rate = figure.rate
        limits = {"lower": figure.lower, "upper": figure.upper, "method": figure.method}
        return {"count": rate.count, "n": rate.n, **limits}
    if isinstance(figure, NotEnough):
        return {"n": figure.n, "needed": figure.needed, "reason": figure.reason}
    return figure


def _read_share(content: dict[str, Any]) -> Estimate | NotEnough:
    if "reason" in content:
        return NotEnough(**content)
    rate = Rate(content["count"], content["n"])
    return Estimate(rate, content["lower"], content["upper"], content["method"])
