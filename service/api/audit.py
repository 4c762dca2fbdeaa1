"""``/v1/audit``: who did what when."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter

from service.api import openapi as document
from service.api.parts import Parts
from service.api.requests import Before, Limit, ReadPool
from service.api.schemas.reports import AuditOut, audit_out
from service.views.runs import audit_view


def router(parts: Parts, readers: ReadPool) -> APIRouter:
    """Return the route."""
    routes = APIRouter(prefix="/v1", tags=["loop"])

    @routes.get("/audit", responses=document.error_responses(422, 503, 504))
    async def get_audit(before: Before = None, limit: Limit = 100) -> AuditOut:
        """Every decision and change, newest first."""
        view = partial(audit_view, before=before, limit=limit)
        return await readers.run(lambda: audit_out(view(parts.store)))

    return routes
