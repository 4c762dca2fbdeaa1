"""``/v1/reports``: live traffic against the reference, column by column."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from service.api import openapi as document
from service.api.errors import NoPage, NotAvailable
from service.api.parts import Parts
from service.api.predictions import JSON
from service.api.requests import Before, Id, Limit, ReadPool, read_body
from service.api.schemas.reports import (
    ReportIn,
    ReportOut,
    ReportRequestedOut,
    ReportsOut,
    report_out,
    reports_out,
)
from service.serving.errors import NoModel
from service.views.runs import report_view, reports_view

# The page brings its own scripts and shows what clients have sent: it runs as of no origin, and fetches nothing.
_ALONE = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; worker-src blob:"
)
_HEADERS = {"content-security-policy": _ALONE, "referrer-policy": "no-referrer"}


def router(parts: Parts, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/reports", tags=["loop"])

    @routes.get("", responses=document.error_responses(422, 503, 504))
    async def get_reports(before: Before = None, limit: Limit = 50) -> ReportsOut:
        """Reports, newest first."""
        view = partial(reports_view, before=before, limit=limit)
        return await readers.run(lambda: reports_out(view(parts.store, parts.current.in_force.model)))

    @routes.post("", **document.openapi_post(ReportIn, ReportRequestedOut, 409, 429, 503, 504, status=202))
    async def ask_report(request: Request) -> Response:
        """Make a report of live traffic now; it is the newest of the list once it is done."""
        await read_body(request, ReportIn, parts)
        if parts.report is None:
            raise NotAvailable("no reports are made by this process: ask the one that watches")
        if parts.current.in_force.version is None:
            raise NoModel("no version is in force: there is no traffic to compare with its reference")
        at = parts.clock()
        await parts.report()
        return Response(ReportRequestedOut(asked_at=at).model_dump_json(), 202, media_type=JSON)

    @routes.get("/{id}", responses=document.error_responses(404, 422, 503, 504))
    async def get_report(id: Id) -> ReportOut:
        """One report."""
        model = parts.current.in_force.model
        return await readers.run(lambda: report_out(report_view(parts.store, model, id)))

    _add_page(routes, parts, readers)
    return routes


def _add_page(routes: APIRouter, parts: Parts, readers: ReadPool) -> None:
    page: dict[int | str, dict[str, Any]] = {
        200: {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}
    }

    @routes.get(
        "/{id}/html",
        response_class=Response,
        responses={**page, **document.error_responses(404, 409, 422, 503, 504)},
    )
    async def get_page(id: Id) -> Response:
        """One report as a page that stands alone."""
        model = parts.current.in_force.model
        report = await readers.run(lambda: report_view(parts.store, model, id))
        if report.error:
            raise NoPage(f"report {id} could not be made: {report.error}")
        if parts.report_html is None:
            raise NotAvailable("no pages of reports are made by this process: ask the one that watches")
        return FileResponse(await parts.report_html(id), media_type="text/html", headers=_HEADERS)
