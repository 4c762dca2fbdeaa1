"""Where slices stand with the detectors, as lines of a table."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from service.console import words
from service.console.spans import meter, zone_plot
from service.console.states import slice_title
from service.decisions import DriftStatus


@dataclass(frozen=True, slots=True)
class WatchRow:
    """One slice with one detector.

    Parameters
    ----------
    drift
        The values.
    title
        What the slice is called.
    plot, meter
        The rate in its zone, and how far the evidence has come.
    expected, beside
        The zone in words, and the rate beside its reference; empty where there is nothing to say.
    """

    drift: DriftStatus
    title: str
    plot: Markup
    meter: Markup
    expected: str
    beside: str


def watch_row(drift: DriftStatus) -> WatchRow:
    """Return one line."""
    return WatchRow(
        drift, slice_title(drift.slice), zone_plot(drift), meter(drift.share), expected(drift), beside(drift)
    )


def expected(drift: DriftStatus) -> str:
    """Return where a rate may lie; accuracy has no upper limit."""
    zone = drift.zone
    if zone is None:
        return "no reference yet"
    if drift.kind == "accuracy":
        return f"at least {words.percent(zone.lower)}"
    return f"{words.percent(zone.lower).removesuffix('%')}–{words.percent(zone.upper)}"


def beside(drift: DriftStatus) -> str:
    """Return a rate beside its reference: coverage as a ratio, accuracy as a difference."""
    value = drift.observed.value
    reference = None if drift.zone is None else drift.zone.reference.value
    if value is None or reference is None:
        return ""
    if drift.kind == "coverage":
        return words.times(value, reference)
    return f"{words.points(value - reference)} points beside the reference"
