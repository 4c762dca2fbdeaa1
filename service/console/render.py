"""Rendering of pages: templates, page context, and threads."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.console import formatting
from service.console.query_params import Refresh, slice_href
from service.errors import ServiceError
from service.events import InsufficientData
from service.store.alarms import count_unresolved
from service.views.alarms import alarm_sentence

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",  # without it, browsers send "null" as the origin of the console's own forms
    "Cache-Control": "no-store",
}
"""Headers of every page: it loads only the style sheet, runs no script, and cannot be framed.

The request middleware adds ``X-Content-Type-Options``.
"""

PAGE_THREADS = 2
"""Pages share the processor and the store with predictions."""
WAIT_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NavLink:
    """Link with its text."""

    href: str
    text: str


Section: TypeAlias = Literal["", "slices", "alarms", "runs", "models", "reports"]
SECTIONS: dict[Section, NavLink] = {
    "slices": NavLink("/", "Slices"),
    "alarms": NavLink("/alarms", "Alarms"),
    "runs": NavLink("/runs", "Runs"),
    "models": NavLink("/models", "Models"),
    "reports": NavLink("/reports", "Reports"),
}


@dataclass(frozen=True, slots=True)
class PageContext:
    """Navigation and refresh of a page.

    Parameters
    ----------
    section
        The current section; empty for none.
    unresolved
        Number of unresolved alarms; None if unknown.
    refresh
        Seconds until the browser loads the page again; 0 is never.
    fault
        Reason why the champion cannot be loaded; empty if it can.
    external
        Version that is monitored and served elsewhere; None if it is served here, or if there is none.
    has_sessions
        Whether the console has keys, and therefore sessions to leave.
    """

    section: Section = ""
    unresolved: int | None = None
    refresh: Refresh = 0
    fault: str = ""
    external: int | None = None
    has_sessions: bool = False


def page_context(runtime: Runtime, section: Section, refresh: Refresh = 0) -> PageContext:
    """Return the context of a page of a running service."""
    with runtime.store.read() as connection:
        unresolved = count_unresolved(connection, runtime.model.name)
    state = runtime.model.deployment.state
    external = state.version if state.is_external else None
    return PageContext(section, unresolved, refresh, state.fault, external, runtime.access.has_keys)


class TooManyPages(ServiceError):
    """No page thread became free in time."""


class PageExecutor:
    """Renders pages on threads; a page whose reader has gone occupies its thread until it is done.

    Parameters
    ----------
    threads
        Maximum number of pages rendered at once.
    wait_seconds
        Maximum time that a page waits for a thread.
    """

    def __init__(self, threads: ThreadPoolExecutor, wait_seconds: float = WAIT_SECONDS) -> None:
        self._threads, self._wait_seconds = threads, wait_seconds

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of blocking work.

        Raises
        ------
        TooManyPages
            If no thread becomes free in time.
        """
        future = self._threads.submit(work)
        result = asyncio.wrap_future(future)
        try:
            await asyncio.wait([result], timeout=self._wait_seconds)
            if future.cancel():  # impossible once the work has started
                raise TooManyPages(
                    f"too many pages are requested: this one waited {self._wait_seconds:g} s; load it again"
                )
            return await result
        finally:
            result.cancel()

    async def respond(self, render: Callable[[], str]) -> HTMLResponse:
        """Render a page, and return it with the headers of every page."""
        return HTMLResponse(await self.run(render), headers=HEADERS)


def render_page(template: str, context: PageContext, **values: Any) -> str:
    """Render a template of the folder ``templates``; a missing value is an error."""
    return _environment().get_template(template).render(stylesheet=stylesheet_href(), page=context, **values)


def render_message(
    heading: str,
    *lines: str,
    commands: Sequence[str] = (),
    link: NavLink = NavLink("/", "Back to the slices"),
    context: PageContext = PageContext(),
) -> str:
    """Render a page of sentences, with commands to copy and a link."""
    return render_page("message.html", context, heading=heading, lines=lines, commands=commands, link=link)


@cache
def stylesheet() -> str:
    """Return the style sheet of all pages."""
    return Path(__file__).with_name("console.css").read_text(encoding="utf-8")


def stylesheet_href() -> str:
    """Return the address of the style sheet, which changes with its content so that it can be cached."""
    return f"/console/console.css?v={hashlib.sha256(stylesheet().encode()).hexdigest()[:12]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    functions = [value for value in vars(formatting).values() if isfunction(value)]
    environment.filters |= {f.__name__: f for f in functions if f.__module__.endswith("formatting")}
    environment.filters["alarm_sentence"] = alarm_sentence
    environment.tests["missing_figure"] = lambda value: isinstance(value, InsufficientData)
    environment.globals |= {
        "sections": SECTIONS,
        "windows": formatting.WINDOWS,
        "states": formatting.STATES,
        "state_meanings": formatting.STATE_MEANINGS,
        "quiet_states": formatting.QUIET_STATES,
        "drift_kinds": formatting.DRIFT_KINDS,
        "alarm_states": formatting.ALARM_STATES,
        "run_states": formatting.RUN_STATES,
        "run_meanings": formatting.RUN_MEANINGS,
        "triggers": formatting.TRIGGERS,
        "outcomes": formatting.OUTCOMES,
        "slice_title": formatting.slice_title,
        "slice_href": slice_href,
        "max_chips": 12,
    }
    return environment
