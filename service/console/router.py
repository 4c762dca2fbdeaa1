"""The routes of the pages; what goes wrong on them is answered as a page too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import BeforeValidator

from service.console.choices import OverviewChoices, Refresh, SliceChoices, Sort
from service.console.parts import ConsoleParts
from service.console.render import message, stylesheet
from service.console.showing import show_overview, show_slice
from service.console.turns import Turns
from service.errors import ServiceError
from service.events import WindowName
from service.views.current import UnknownSlice
from service.views.cursor import CURSOR
from service.views.records import RecordKind
from service.views.slices import SliceState

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of every page: it loads nothing but our style sheet, runs no script, and is shown in no other page."""

_KEPT = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}

Seconds = Annotated[Refresh, BeforeValidator(int)]  # a literal number is not read from text by itself
PAGES = ("/", "/slices/{name:path}", "/console/console.css")
"""The routes whose requests are counted under a name of their own."""

Word = Annotated[str, Query(max_length=200)]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route whose refusals are pages."""

    def get_route_handler(self) -> Handler:
        """Return the handler that answers what the plain one raises."""
        plain = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await plain(request)
            except RequestValidationError as problem:
                return _refusal(422, "That address says something that cannot be", *_said(problem))
            except UnknownSlice as problem:
                return _refusal(404, "No such slice", *problem.problems)
            except ServiceError as problem:
                return _refusal(503, "That did not work", *problem.problems)

        return handle


def router(parts: ConsoleParts) -> APIRouter:
    """Return the routes of the pages.

    Parameters
    ----------
    parts
        What they are made from.
    """
    routes = APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)

    turns = Turns()

    @routes.get("/")
    async def _overview(
        request: Request,
        window: WindowName = "1h",
        sort: Sort = "worst",
        q: Word = "",
        owner: Word = "",
        state: SliceState | Literal[""] = "",
        refresh: Seconds = 0,
    ) -> Response:
        choices = OverviewChoices(window, sort, q, owner, state, refresh)
        return _page(await turns.run(lambda: show_overview(parts, choices, str(request.base_url))))

    @routes.get("/slices/{name:path}")
    async def _slice(
        name: str,
        window: WindowName = "1h",
        kind: RecordKind = "errors",
        cursor: Annotated[str, Query(pattern=CURSOR)] = "",
    ) -> Response:
        choices = SliceChoices(name, window, kind, cursor)
        return _page(await turns.run(lambda: show_slice(parts, choices)))

    @routes.get("/console/console.css")
    async def _style() -> Response:
        return PlainTextResponse(stylesheet(), media_type="text/css", headers=_KEPT)

    return routes


def _page(text: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status, headers=HEADERS)


def _refusal(status: int, heading: str, *lines: str) -> HTMLResponse:
    return _page(message(heading, *lines), status)


def _said(problem: RequestValidationError) -> list[str]:
    return [f"{each['loc'][-1]}: {each['msg']}" for each in problem.errors()]
