"""``/v1/reports``: live traffic compared with the reference, column by column."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from service.api.openapi import error_responses, openapi_post
from service.api.requests import JSON, Before, Id, Limit, ReadPool, read_body
from service.api.schemas.runs import (
    ReportIn,
    ReportOut,
    ReportRequestedOut,
    ReportsOut,
    report_out,
    reports_out,
)
from service.jobs.column_report.job import ReportPageMissing
from service.views.runs import report_view, reports_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

# The page has inline scripts and shows client data: it runs without an origin, and loads nothing.
_SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; worker-src blob:"
)
_HEADERS = {"content-security-policy": _SANDBOX, "referrer-policy": "no-referrer"}
_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}
}


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/reports", tags=["loop"])
    store, model = runtime.store, runtime.model

    @routes.get("", responses=error_responses(422, 503, 504))
    async def get_reports(before: Before = None, limit: Limit = 50) -> ReportsOut:
        """List reports, newest first."""
        return await readers.run(lambda: reports_out(reports_view(store, model.name, before=before, limit=limit)))

    @routes.post("", **openapi_post(ReportIn, ReportRequestedOut, 409, 429, 503, 504, status=202))
    async def request_report(request: Request) -> Response:
        """Start a report on live traffic; once finished, it is first in the list."""
        await read_body(request, ReportIn, runtime.metrics)
        at = runtime.clock()
        model.reports.request(at)
        return Response(ReportRequestedOut(asked_at=at).model_dump_json(), 202, media_type=JSON)

    @routes.get("/{id}", responses=error_responses(404, 422, 503, 504))
    async def get_report(id: Id) -> ReportOut:
        """Return one report."""
        return await readers.run(lambda: report_out(report_view(store, model.name, id)))

    @routes.get("/{id}/html", response_class=Response, responses={**_PAGE, **error_responses(404, 409, 422, 503, 504)})
    async def get_page(id: Id) -> Response:
        """Return one report as a self-contained page, rendered at the first request."""
        report = await readers.run(lambda: report_view(store, model.name, id))
        if report.error:
            raise ReportPageMissing(f"report {id} failed: {report.error}")
        page = await asyncio.to_thread(model.reports.page, id)
        return FileResponse(page, media_type="text/html", headers=_HEADERS)

    return routes
