"""Snapshots: all windows of one model version, estimated, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from service.decisions import RateKey
from service.events import (
    Estimate,
    Freshness,
    FunctionSetVersion,
    InsufficientData,
    IntervalMethod,
    Performance,
    SliceEstimate,
    Snapshot,
    WindowEstimates,
    WindowName,
    family_name,
)
from service.monitor.block_counts import empty, merge, remap_columns, spanning
from service.monitor.block_index import BlockIndex
from service.monitor.estimates import EstimateConfig, estimates
from service.monitor.windows import windows


@dataclass(frozen=True, slots=True)
class SnapshotScope:
    """Model version of a snapshot, and the current function set, whose slices are shown.

    ``promoted_at`` is None if the version is not the champion; ``families`` has the slices of each, by its rate.
    """

    model: str
    version: int
    functions: FunctionSetVersion
    promoted_at: datetime | None
    last_label_at: datetime | None
    families: Mapping[RateKey, Collection[str]] = field(default_factory=dict)


def take_snapshot(
    at: datetime,
    scope: SnapshotScope,
    indexes: Iterable[BlockIndex],
    sets: Mapping[str, FunctionSetVersion],
    config: EstimateConfig,
    before: Snapshot | None = None,
) -> Snapshot:
    """Return the estimates of all windows at ``at``, for the slices of the current function set.

    Parameters
    ----------
    at
        Time of the snapshot, UTC.
    indexes
        Blocks of any model and version; only those of the scope are used, one index per function set.
    sets
        Function sets of those indexes by hash.
    before
        Latest snapshot; one of another version is ignored.

    Raises
    ------
    ValueError
        If the set of an index is not among ``sets``.
    """
    wanted = scope.functions
    own = [index for index in indexes if index.series[:2] == (scope.model, scope.version)]
    if missing := {index.series[2] for index in own} - sets.keys():
        raise ValueError(f"unknown function set {min(missing)!r}: load it from the store")
    figures: dict[WindowName, WindowEstimates] = {}
    for name, span in windows(at, scope.promoted_at).items():
        for index in own:
            span = index.whole(span)
        parts = [empty(scope.model, scope.version, wanted.hash, len(wanted.names), span.start, 0)]
        parts += [remap_columns(index.total(span), sets[index.series[2]], wanted) for index in own]
        total = spanning(merge(parts), span.start, span.end)
        method: IntervalMethod = "anytime" if name == "since_promotion" else "clopper-pearson"
        figures[name] = WindowEstimates(span.start, span.end, estimates(total, wanted, method, config))
    same = before is not None and (before.model, before.version) == (scope.model, scope.version)
    freshness = before.freshness if before is not None and same else {}
    if "since_promotion" in figures:
        slices = figures["since_promotion"].slices
        freshness = {row.slice: _freshness(row, at, freshness.get(row.slice), scope.last_label_at) for row in slices}
        for key, names in scope.families.items():
            freshness[family_name(key.slice)] = _freshness_of_family(key, [freshness[name] for name in names])
    return Snapshot(at, scope.model, scope.version, wanted.hash, figures, scope.last_label_at, freshness)


def _freshness(row: SliceEstimate, at: datetime, before: Freshness | None, last_label_at: datetime | None) -> Freshness:
    """Return the freshness of a slice: at ``at`` where its counts have grown, else as before.

    Counts are smaller for a while after the clock was set back. Without an earlier snapshot the last label is that
    of the model.
    """
    coverage, accuracy = row.coverage, row.members.accuracy
    known = coverage.rate.n if isinstance(coverage, Estimate) else coverage.n
    labelled, correct = row.members.labelled, accuracy.rate.count if isinstance(accuracy, Estimate) else None
    if before is None or before.fingerprint != row.fingerprint:
        known_at, labelled_at = at if known else None, last_label_at if labelled else None
        return Freshness(row.fingerprint, known, known_at, labelled, correct, labelled_at)
    if known > before.known:
        before = replace(before, known=known, known_at=at)
    corrected = labelled == before.labelled and correct != before.correct
    if labelled > before.labelled or (corrected and None not in (correct, before.correct)):
        before = replace(before, labelled=labelled, correct=correct, labelled_at=at)
    return before


def _freshness_of_family(key: RateKey, slices: Iterable[Freshness]) -> Freshness:
    """Return the freshness of a family: its last label is that of any of its slices."""
    return Freshness(
        key.fingerprint, 0, None, 0, None, max(filter(None, (each.labelled_at for each in slices)), default=None)
    )


_FORMAT = 1
_SLICE_FIELDS = tuple(each.name for each in fields(SliceEstimate))
_PERFORMANCE_FIELDS = tuple(each.name for each in fields(Performance))
_FRESHNESS_FIELDS = tuple(each.name for each in fields(Freshness))
_FRESHNESS = attrgetter(*_FRESHNESS_FIELDS)
# A tuple, because a dataclass takes no configuration from its adapter; inside the tuple it does.
_SNAPSHOT: TypeAdapter[tuple[Snapshot]] = TypeAdapter(tuple[Snapshot], config=ConfigDict(extra="forbid"))


def to_text(snapshot: Snapshot) -> str:
    """Return the snapshot as JSON, with exact floats; slices and performances are lists of their fields."""
    last = snapshot.last_label_at
    content = {
        "format": _FORMAT,
        "at": snapshot.at.isoformat(),
        "model": snapshot.model,
        "version": snapshot.version,
        "set_hash": snapshot.set_hash,
        "windows": {
            name: {
                "start": window.start.isoformat(),
                "end": window.end.isoformat(),
                "slices": [
                    [
                        estimate.slice,
                        estimate.fingerprint,
                        _figure(estimate.coverage),
                        estimate.unknown,
                        estimate.absent,
                        *(
                            [group.labelled, _figure(group.accuracy), _figure(group.f1)]
                            for group in (estimate.members, estimate.complement)
                        ),
                    ]
                    for estimate in window.slices
                ],
            }
            for name, window in snapshot.windows.items()
        },
        "last_label_at": None if last is None else last.isoformat(),
        "freshness": {
            name: [value.isoformat() if isinstance(value, datetime) else value for value in _FRESHNESS(fresh)]
            for name, fresh in snapshot.freshness.items()
        },
    }
    return json.dumps(content, separators=(",", ":"))


def _figure(figure: Estimate | InsufficientData | float) -> float | dict[str, Any]:
    if isinstance(figure, Estimate):
        limits = {"lower": figure.lower, "upper": figure.upper, "method": figure.method}
        return {"count": figure.rate.count, "n": figure.rate.n, **limits}
    if isinstance(figure, InsufficientData):
        return {"n": figure.n, "needed": figure.needed, "reason": figure.reason}
    return figure


def from_text(text: str) -> Snapshot:
    """Return the snapshot written by ``to_text``.

    Raises
    ------
    ValueError
        If the text is damaged, or of an unknown format.
    """
    try:
        content = json.loads(text)
        version = content.pop("format")
        if version == _FORMAT:
            for window in content["windows"].values():
                window["slices"] = tuple(_slice_fields(row) for row in window["slices"])
            freshness = content.get("freshness", {})  # earlier releases wrote none
            content["freshness"] = {
                name: dict(zip(_FRESHNESS_FIELDS, row, strict=True)) for name, row in freshness.items()
            }
            return _SNAPSHOT.validate_python((content,))[0]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError("the last snapshot is damaged: the next snapshot replaces it") from error
    raise ValueError(f"the last snapshot has format {version}, of another release: the next one replaces it")


def _slice_fields(row: list[Any]) -> dict[str, Any]:
    values = dict(zip(_SLICE_FIELDS, row, strict=True))
    for name in ("members", "complement"):
        performance = dict(zip(_PERFORMANCE_FIELDS, values[name], strict=True))
        values[name] = {key: _figure_fields(value) for key, value in performance.items()}
    return values | {"coverage": _figure_fields(values["coverage"])}


def _figure_fields(figure: Any) -> Any:
    """Return the fields of an estimate, whose JSON has the rate unnested; other figures are unchanged."""
    if isinstance(figure, dict) and "count" in figure:
        count, n = figure.pop("count"), figure.pop("n")
        return figure | {"rate": {"count": count, "n": n}}
    return figure
