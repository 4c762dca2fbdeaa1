"""The shape that a training report's JSON must have, checked before anything is read from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import BundleError

SHARE = (float, type(None))

_RESULT = {
    "slice": str,
    "n": int,
    "accuracy": SHARE,
    "accuracy_lower": SHARE,
    "accuracy_upper": SHARE,
    "f1": SHARE,
    "coverage": SHARE,
    "unknown": int,
}
_COMPARISON = {
    "slice": str,
    "n": int,
    "only_first": int,
    "only_second": int,
    "difference": SHARE,
    "difference_lower": SHARE,
    "difference_upper": SHARE,
}
_SHAPE: dict[str, Any] = {
    "form": str,
    "sentences": [str],
    "warnings": [str],
    "rows": {"train": int, "valid": int, "held_out": int},
    "classes": {...: int},
    "selection": [{"name": str, "score": float, "accuracy": float, "worst": float}],
    "shipped": [_RESULT],
    "peers": {...: [_RESULT]},
    "comparisons": {...: [_COMPARISON]},
    "functions": [{"name": str, "unknown": {...: int}, "first_fault": (str, type(None))}],
}


def check_report(values: Any) -> None:
    """Raise BundleError unless a report has every part, each of its kind, and a row per slice everywhere."""
    if not isinstance(values, Mapping) or set(values) != set(_SHAPE):
        raise BundleError(f"report.json must hold {', '.join(sorted(_SHAPE))}: train the model anew")
    _check(values, _SHAPE, "report.json")
    slices = [row["slice"] for row in values["shipped"]]
    if set(values["peers"]) != set(values["comparisons"]):
        raise BundleError("report.json must compare exactly the peers: train the model anew")
    for part in ("peers", "comparisons"):
        for peer, rows in values[part].items():
            if [row["slice"] for row in rows] != slices:
                raise BundleError(f"report.json, {part}, {peer}: must have the slices of the shipped model")
    for row in values["shipped"]:
        if row["n"] and None in (row["accuracy_lower"], row["accuracy_upper"]):
            raise BundleError(f"report.json, shipped, {row['slice']}: has rows, but no interval")
    for peer, rows in values["comparisons"].items():
        for row in rows:
            ends = (row["difference_lower"], row["difference_upper"])
            if row["difference"] is not None and None in ends:
                raise BundleError(f"report.json, comparisons, {peer}, {row['slice']}: has no interval")


def _check(value: Any, shape: Any, where: str) -> None:
    """Check a value: a type or several; a list of one shape; a mapping, ``...`` standing for any key."""
    if isinstance(shape, list):
        _check_kind(value, list, where)
        for k, item in enumerate(value):
            _check(item, shape[0], f"{where}, {k}")
    elif isinstance(shape, dict):
        _check_kind(value, Mapping, where)
        if ... not in shape and set(value) != set(shape):
            raise BundleError(f"{where}: must hold {', '.join(shape)}, got {', '.join(map(str, value))}")
        for key, item in value.items():
            _check(item, shape[key] if key in shape else shape[...], f"{where}, {key}")
    else:
        _check_kind(value, shape, where)


def _check_kind(value: Any, kind: Any, where: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"{where}: cannot be {value!r:.80}: train the model anew, or copy the bundle anew")
