"""Sign-in with a key, and the end of a session."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from service.console.csrf import read_form, reject_cross_site
from service.console.render import HEADERS, PageContext, render_page
from service.runtime.access import COOKIE, SESSION_SECONDS, Forbidden, TooManyRequests, Unauthorized

if TYPE_CHECKING:
    from service.console.render import PageExecutor
    from service.runtime.runtime import Runtime


def add_routes(routes: APIRouter, runtime: Runtime, executor: PageExecutor) -> None:
    """Add the page with the form, its answer, and the way out."""
    access = runtime.access

    @routes.get("/login")
    async def show_form(request: Request) -> Response:
        target = local_path(request.query_params.get("next", ""))
        if not access.is_on(perf_counter()):
            return RedirectResponse(target, 303, headers=HEADERS)
        return _form(target)

    @routes.post("/login")
    async def sign_in(request: Request) -> Response:
        reject_cross_site(request.headers)
        form = await read_form(request)
        target = local_path(form.get("next", ""))
        host = request.client.host if request.client else ""
        try:
            cookie = access.sign_in(form.get("key", ""), host, perf_counter())
        except (Unauthorized, Forbidden, TooManyRequests) as error:
            status = {Unauthorized: 401, Forbidden: 403}.get(type(error), 429)
            message = "the key is not valid" if status == 401 else str(error)
            response = _form(target, message, status)
            if isinstance(error, TooManyRequests):
                response.headers["retry-after"] = str(error.retry_seconds)
            return response
        _end_session(runtime, request)
        answer = RedirectResponse(target, 303, headers=HEADERS)
        forwarded = request.headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
        origin = request.headers.get("origin", "").partition(":")[0]  # also behind a proxy that says nothing
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=SESSION_SECONDS,
            secure="https" in (request.scope["scheme"], forwarded, origin),
            httponly=True,
            samesite="lax",  # a link in a message leads to its page
        )
        return answer

    @routes.post("/logout")
    async def sign_out(request: Request) -> Response:
        reject_cross_site(request.headers)
        _end_session(runtime, request)
        answer = RedirectResponse("/login", 303, headers=HEADERS)
        answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return answer


def local_path(target: str) -> str:
    r"""Return a path of this service, or ``/`` for an address elsewhere.

    Examples
    --------
    >>> local_path("/alarms?which=all"), local_path("//evil.example"), local_path("/\\evil.example")
    ('/alarms?which=all', '/', '/')
    """
    is_local = target.startswith("/") and not target.startswith("//") and "\\" not in target and target.isprintable()
    return quote(target, safe="/?&=%:@!$'()*+,;~") if is_local else "/"


def _form(target: str, problem: str = "", status: int = 200) -> HTMLResponse:
    page = render_page("sign_in.html", PageContext(), target=target, problem=problem)
    return HTMLResponse(page, status, headers=HEADERS)


def _end_session(runtime: Runtime, request: Request) -> None:
    runtime.access.sign_out({name: value for name, value in request.scope["headers"] if name == b"cookie"})
