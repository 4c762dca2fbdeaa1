"""Routes of the console; errors are answered with pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.routing import APIRoute

from service.console.csrf import CrossSiteRequest
from service.console.pages import alarms, models, reports, runs, sign_in, slices
from service.console.render import HEADERS, PAGE_THREADS, PageExecutor, render_message, stylesheet
from service.errors import MisuseError, ServiceError
from service.store.errors import (
    AlarmOfTarget,
    AlarmResolved,
    UnknownAlarm,
    UnknownIncident,
    UnknownReport,
    UnknownRun,
)
from service.views.slices import UnknownSlice

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

PAGES = (
    "/",
    "/slices/{name:path}",
    "/alarms",
    "/alarms/{id}",
    "/alarms/{id}/acknowledge",
    "/alarms/{id}/accept",
    "/runs",
    "/runs/{id}",
    "/models",
    "/reports",
    "/reports/{id}",
    "/login",
    "/logout",
    "/console/console.css",
)
"""Routes whose requests are counted under their own name."""
ERRORS: dict[type[ServiceError], tuple[int, str]] = {
    CrossSiteRequest: (403, "Nothing was changed"),
    UnknownSlice: (404, "No such slice"),
    UnknownAlarm: (404, "No such alarm"),
    UnknownIncident: (404, "No such incident"),
    UnknownRun: (404, "No such run"),
    UnknownReport: (404, "No such report"),
    AlarmResolved: (409, "The alarm is already resolved"),
    AlarmOfTarget: (409, "The slice has a target"),
    MisuseError: (422, "Invalid request"),
}
"""Status and heading by error; others are answered with 503."""
STYLESHEET_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}


class PageRoute(APIRoute):
    """Route that answers errors with pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that renders errors as pages."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                status, heading = 422, "Invalid query parameters"
                lines = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
            except ServiceError as error:
                known = (answer for kind, answer in ERRORS.items() if isinstance(error, kind))
                status, heading = next(known, (503, "The page is not available"))
                lines = list(error.problems)
            return HTMLResponse(render_message(heading, *lines), status, headers=HEADERS)

        return handle


def router(runtime: Runtime) -> APIRouter:
    """Return the routes of all pages and their style sheet."""
    routes = APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)
    executor = PageExecutor(runtime.executor("page", PAGE_THREADS))
    for page in (slices, alarms, runs, models, reports, sign_in):
        page.add_routes(routes, runtime, executor)

    @routes.get("/console/console.css")
    async def show_stylesheet() -> Response:
        return PlainTextResponse(stylesheet(), media_type="text/css", headers=STYLESHEET_HEADERS)

    return routes
