"""The snapshot: every window of one model version, estimated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from service.events import (
    BlockCounts,
    FunctionSetVersion,
    IntervalMethod,
    Snapshot,
    WindowEstimates,
    WindowName,
)
from service.monitor.blocks import empty
from service.monitor.estimates import Judging, estimates
from service.monitor.sums import merge, project, spanning
from service.monitor.timeline import Timeline
from service.monitor.windows import Span, windows


@dataclass(frozen=True, slots=True)
class Watched:
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


def snapshot(
    at: datetime,
    watched: Watched,
    timelines: Iterable[Timeline],
    sets: Mapping[str, FunctionSetVersion],
    judging: Judging,
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
    span: Span, watched: Watched, timelines: Iterable[Timeline], sets: Mapping[str, FunctionSetVersion]
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
        parts.append(project(each.total(span), made, wanted))
    return spanning(merge(parts), span.start, span.end)
