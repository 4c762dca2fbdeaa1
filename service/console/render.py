"""Templates and what they can say; everything that is put into a page is escaped."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.console import states, words
from service.console.choices import KINDS, SORTS, WINDOWS, Refresh, slice_href
from service.console.records import features_text
from service.events import Estimate, InsufficientData, SliceEstimate
from service.views.alarms import alarm_sentence

MOST_CHIPS = 12
"""Slices that are named beside a record."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where a page leads, and in which words."""

    href: str
    said: str


HOME = Link("/", "Back to the slices")

Section: TypeAlias = Literal["", "slices", "alarms", "runs", "models", "reports"]

SECTIONS: dict[Section, Link] = {
    "slices": Link("/", "Slices"),
    "alarms": Link("/alarms", "Alarms"),
    "runs": Link("/runs", "Runs"),
    "models": Link("/models", "Models"),
    "reports": Link("/reports", "Reports"),
}
"""Where every page leads."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What is around a page.

    Parameters
    ----------
    here
        The section that it is in; empty for none.
    unresolved
        How many alarms stand; None where that is not known.
    refresh
        After how many seconds the page is to be asked for again; 0 is never.
    """

    here: Section = ""
    unresolved: int | None = None
    refresh: Refresh = 0


PLAIN = Frame()

_FOLDER = Path(__file__).parent
_SAID = (
    *("percent", "limits", "count", "out_of", "needed", "utc", "when", "span", "ago", "points", "times"),
    *("duration", "listed", "of_many"),
)


def page(template: str, frame: Frame, **values: Any) -> str:
    """Return a page.

    Parameters
    ----------
    template
        The file in ``templates``.
    frame
        What is around it.
    values
        What it speaks of; one that the template names and that is not given is an error.
    """
    return _environment().get_template(template).render(stylesheet=stylesheet_href(), frame=frame, **values)


def message(
    heading: str, *lines: str, commands: Sequence[str] = (), link: Link = HOME, frame: Frame = PLAIN
) -> str:
    """Return a page that only says something, shows commands to copy, and leads elsewhere."""
    return page("message.html", frame, heading=heading, lines=lines, commands=commands, link=link)


@cache
def stylesheet() -> str:
    """Return the style sheet of all pages."""
    return (_FOLDER / "console.css").read_text(encoding="utf-8")


def stylesheet_href() -> str:
    """Return an address of the style sheet that changes when it does, so that it may be kept for ever."""
    return f"/console/console.css?v={hashlib.sha256(stylesheet().encode()).hexdigest()[:12]}"


def applied(estimate: SliceEstimate) -> int:
    """Return to how many rows the slice's function, as it is now, was applied."""
    coverage = estimate.coverage
    return estimate.unknown + (coverage.rate.n if isinstance(coverage, Estimate) else coverage.n)


def unknown_share(estimate: SliceEstimate) -> float:
    """Return the share of those rows for which the function gave no answer; 0 where there are none."""
    return estimate.unknown / max(applied(estimate), 1)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {name: getattr(words, name) for name in _SAID}
    made.filters |= {"applied": applied, "unknown_share": unknown_share, "features": features_text}
    made.filters["alarm_sentence"] = alarm_sentence
    made.tests["missing_figure"] = lambda value: isinstance(value, InsufficientData)
    made.globals |= {
        "sections": SECTIONS,
        "windows": WINDOWS,
        "sorts": SORTS,
        "kinds": KINDS,
        "states": states.STATES,
        "meanings": states.MEANINGS,
        "unjudged": states.UNJUDGED,
        "drift_kinds": states.DRIFT_KINDS,
        "alarm_states": states.ALARM_STATES,
        "run_states": states.RUN_STATES,
        "run_meanings": states.RUN_MEANINGS,
        "triggers": states.TRIGGERS,
        "outcomes": states.OUTCOMES,
        "slice_title": states.slice_title,
        "slice_href": slice_href,
        "most_chips": MOST_CHIPS,
    }
    return made
