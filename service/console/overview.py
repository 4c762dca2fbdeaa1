"""The first page: every slice in one window, what to look at first on top."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from service.console import words
from service.console.choices import OverviewChoices, SliceChoices, Sort
from service.console.examples import Examples
from service.console.figures import accuracy_plot, coverage_plot
from service.console.plots import sparkline
from service.console.render import Frame, page
from service.console.states import STATES, State, shown, title, urgency
from service.decisions import Alarm
from service.events import Estimate
from service.views.slices import SliceKind, SlicesView, SliceView

STALE_SECONDS = 60
"""A snapshot is due every 10 s; one so old is told of."""

Sparks = Mapping[str, Sequence[float | None]]
Alarms = Mapping[str, tuple[Alarm, ...]]
NO_ALARMS: Alarms = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One line of the table."""

    slice: SliceView
    state: State
    alarms: tuple[Alarm, ...]
    title: str
    href: str
    coverage_plot: Markup
    accuracy_plot: Markup
    spark: Markup


def overview(
    view: SlicesView,
    sparks: Sparks,
    choices: OverviewChoices,
    examples: Examples,
    now: datetime,
    alarms: Alarms = NO_ALARMS,
    speed: float = 1.0,
) -> str:
    """Return the page.

    Parameters
    ----------
    view
        Every slice in the chosen window.
    sparks
        Coverage by slice and hour, oldest first.
    choices
        What the reader has chosen.
    examples
        Commands to be shown where something is missing.
    now
        The time, UTC.
    alarms
        Those that stand, by slice.
    speed
        Of the clock.
    """
    watched = _of(view, "slice")
    every = _of(view, "all")[0].estimate

    def rows(of: Iterable[SliceView]) -> list[SliceRow]:
        order = ORDERS[choices.sort]
        chosen = sorted(
            of, key=lambda each: (choices.sort == "alarms" and each.name not in alarms, order(each))
        )
        return [_row(each, sparks.get(each.name, ()), choices, alarms.get(each.name, ())) for each in chosen]

    return page(
        "overview.html",
        Frame("slices", count_of(alarms), choices.refresh),
        view=view,
        choices=choices,
        curl=examples,
        all=every,
        all_alarms=alarms.get(every.slice, ()),
        all_href=SliceChoices(every.slice, choices.window).href(),
        rows_n=every.coverage.rate.n if isinstance(every.coverage, Estimate) else every.coverage.n,
        label_age=None if view.last_label_at is None else words.duration(now - view.last_label_at),
        total=len(watched),
        tally=_tally(watched),
        alarmed=sum(each.name in alarms for each in watched),
        owners=sorted({each.metadata.owner for each in watched if each.metadata.owner}),
        slices=rows(filter(_wanted(choices), watched)),
        labeling=rows(_of(view, "labeling")),
        unsliced=rows(_of(view, "none")),
        sorted=lambda column: _aria_sort(column, choices.sort),
        **age_of(view.at, now, speed),
    )


def count_of(alarms: Alarms) -> int:
    """Return how many alarms there are."""
    return sum(map(len, alarms.values()))


def age_of(at: datetime, now: datetime, speed: float = 1.0) -> dict[str, Any]:
    """Return how old a snapshot is, in words, and whether a newer one should be there on a clock so fast."""
    return {"age": words.duration(now - at), "stale": now - at > timedelta(seconds=STALE_SECONDS * speed)}


def _of(view: SlicesView, kind: SliceKind) -> list[SliceView]:
    return [each for each in view.slices if each.kind == kind]


def _tally(watched: Iterable[SliceView]) -> dict[State, int]:
    counted = Counter(map(shown, watched))
    return {state: counted[state] for state in STATES if counted[state]}


def _row(
    view: SliceView, hours: Sequence[float | None], choices: OverviewChoices, alarms: tuple[Alarm, ...]
) -> SliceRow:
    reference = view.reference.value if isinstance(view.reference, Estimate) else None
    return SliceRow(
        view,
        shown(view),
        alarms,
        title(view),
        SliceChoices(view.name, choices.window).href(),
        coverage_plot(view.estimate.coverage, view.reference),
        accuracy_plot(view.estimate.members.accuracy, view.metadata.target),
        sparkline(hours, "coverage by hour over 24 h", reference),
    )


def _wanted(choices: OverviewChoices) -> Callable[[SliceView], bool]:
    """Return what tells whether a slice passes the reader's filters."""
    part = choices.q.strip().casefold()
    return lambda view: (
        part in view.name.casefold()
        and choices.owner in ("", view.metadata.owner)
        and choices.state in ("", shown(view))
    )


def _by_coverage(view: SliceView) -> tuple[float, str]:
    found = view.estimate.coverage
    return -found.value if isinstance(found, Estimate) else 1.0, view.name


def _by_accuracy(view: SliceView) -> tuple[float, str]:
    found = view.estimate.members.accuracy
    return found.value if isinstance(found, Estimate) else 2.0, view.name


def _by_name(view: SliceView) -> tuple[str, str]:
    return view.name.casefold(), view.name


ORDERS: dict[Sort, Callable[[SliceView], Any]] = {
    "alarms": urgency,
    "worst": urgency,
    "name": _by_name,
    "coverage": _by_coverage,
    "accuracy": _by_accuracy,
}


def _aria_sort(column: Sort, chosen: Sort) -> Markup:
    direction = "descending" if column == "coverage" else "ascending"
    return Markup(' aria-sort="{}"').format(direction) if column == chosen else Markup("")
