"""The routes of the pages; what goes wrong on them is answered as a page too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from fastapi.routing import APIRoute
from pydantic import BeforeValidator

from service.console.choices import ListChoices, OverviewChoices, Refresh, SliceChoices, Sort, Which
from service.console.parts import ConsoleParts
from service.console.posting import NotOurs, acknowledge, form_of, refuse_others
from service.console.render import message, stylesheet
from service.console.showing import show_overview, show_slice
from service.console.showing_loop import (
    show_alarm,
    show_alarms,
    show_models,
    show_report,
    show_reports,
    show_run,
    show_runs,
)
from service.console.states import State
from service.console.turns import Turns
from service.errors import MisuseError, ServiceError
from service.events import WindowName
from service.store.errors import AlarmResolved, UnknownAlarm, UnknownReport, UnknownRun
from service.views.records import CURSOR, RecordKind
from service.views.slices import UnknownSlice

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without any, browsers say "null" of where our own forms come from
    "Cache-Control": "no-store",
}
"""Of every page: it loads nothing but our style sheet, runs no script, and is shown in no other page."""

_KEPT = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}

Seconds = Annotated[Refresh, BeforeValidator(int)]  # a literal number is not read from text by itself
PAGES = (
    "/",
    "/slices/{name:path}",
    "/alarms",
    "/alarms/{id}",
    "/alarms/{id}/acknowledge",
    "/runs",
    "/runs/{id}",
    "/models",
    "/reports",
    "/reports/{id}",
    "/console/console.css",
)
"""The routes whose requests are counted under a name of their own."""

UNKNOWN: dict[type[ServiceError], str] = {
    UnknownSlice: "No such slice",
    UnknownAlarm: "No such alarm",
    UnknownRun: "No such run",
    UnknownReport: "No such report",
}

Word = Annotated[str, Query(max_length=200)]
Id = Annotated[int, Path(ge=1, lt=2**53)]
Before = Annotated[int | None, Query(ge=1, lt=2**53)]
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
            except NotOurs as problem:
                return _refusal(403, "Nothing was changed", *problem.problems)
            except MisuseError as problem:
                return _refusal(422, "That cannot be done", *problem.problems)
            except tuple(UNKNOWN) as problem:
                return _refusal(404, UNKNOWN[type(problem)], *problem.problems)
            except AlarmResolved as problem:
                return _refusal(409, "It has ended already", *problem.problems)
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
        sort: Sort = "alarms",
        q: Word = "",
        owner: Word = "",
        state: State | Literal[""] = "",
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

    _add_alarms(routes, parts, turns)
    _add_loop(routes, parts, turns)

    @routes.get("/console/console.css")
    async def _style() -> Response:
        return PlainTextResponse(stylesheet(), media_type="text/css", headers=_KEPT)

    return routes


def _add_alarms(routes: APIRouter, parts: ConsoleParts, turns: Turns) -> None:
    @routes.get("/alarms")
    async def _alarms(which: Which = "all", before: Before = None, refresh: Seconds = 0) -> Response:
        choices = ListChoices("/alarms", which, before, refresh)
        return _page(await turns.run(lambda: show_alarms(parts, choices)))

    @routes.get("/alarms/{id}")
    async def _alarm(id: Id) -> Response:
        return _page(await turns.run(lambda: show_alarm(parts, id)))

    @routes.post("/alarms/{id}/acknowledge")
    async def _acknowledge(id: Id, request: Request) -> Response:
        refuse_others(request.headers)
        await acknowledge(parts, turns, id, await form_of(request))
        return RedirectResponse(f"/alarms/{id}", 303, headers=HEADERS)


def _add_loop(routes: APIRouter, parts: ConsoleParts, turns: Turns) -> None:
    @routes.get("/runs")
    async def _runs(before: Before = None, refresh: Seconds = 0) -> Response:
        choices = ListChoices("/runs", before=before, refresh=refresh)
        return _page(await turns.run(lambda: show_runs(parts, choices)))

    @routes.get("/runs/{id}")
    async def _run(id: Id, refresh: Seconds = 0) -> Response:
        choices = ListChoices(f"/runs/{id}", refresh=refresh)
        return _page(await turns.run(lambda: show_run(parts, id, choices)))

    @routes.get("/models")
    async def _models(before: Before = None) -> Response:
        choices = ListChoices("/models", before=before)
        return _page(await turns.run(lambda: show_models(parts, choices)))

    @routes.get("/reports")
    async def _reports(before: Before = None) -> Response:
        choices = ListChoices("/reports", before=before)
        return _page(await turns.run(lambda: show_reports(parts, choices)))

    @routes.get("/reports/{id}")
    async def _report(id: Id) -> Response:
        return _page(await turns.run(lambda: show_report(parts, id)))


def _page(text: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status, headers=HEADERS)


def _refusal(status: int, heading: str, *lines: str) -> HTMLResponse:
    return _page(message(heading, *lines), status)


def _said(problem: RequestValidationError) -> list[str]:
    return [f"{each['loc'][-1]}: {each['msg']}" for each in problem.errors()]
