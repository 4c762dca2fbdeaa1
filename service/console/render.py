"""Templates and what they can say; everything that is put into a page is escaped."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.console import words
from service.console.choices import KINDS, SORTS, WINDOWS, slice_href
from service.console.records import features_text
from service.console.states import MEANINGS, STATES
from service.events import Estimate, NotEnough, SliceEstimate

MOST_CHIPS = 12
"""Slices that are named beside a record."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where a page leads, and in which words."""

    href: str
    said: str


HOME = Link("/", "Back to the overview")

_FOLDER = Path(__file__).parent


def page(template: str, **values: Any) -> str:
    """Return a page.

    Parameters
    ----------
    template
        The file in ``templates``.
    values
        What it speaks of; one that the template names and that is not given is an error.
    """
    return _environment().get_template(template).render(stylesheet=stylesheet_href(), **values)


def message(
    heading: str, *lines: str, commands: Sequence[str] = (), link: Link = HOME, refresh: int = 0
) -> str:
    """Return a page that only says something, shows commands to copy, and leads elsewhere."""
    return page("message.html", heading=heading, lines=lines, commands=commands, link=link, refresh=refresh)


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
    made.filters |= {
        name: getattr(words, name)
        for name in ("percent", "limits", "count", "out_of", "needed", "utc", "span")
    }
    made.filters |= {"applied": applied, "unknown_share": unknown_share, "features": features_text}
    made.tests["missing_figure"] = lambda value: isinstance(value, NotEnough)
    made.globals |= {
        "states": STATES,
        "meanings": MEANINGS,
        "windows": WINDOWS,
        "sorts": SORTS,
        "kinds": KINDS,
    }
    made.globals |= {"slice_href": slice_href, "most_chips": MOST_CHIPS}
    return made
