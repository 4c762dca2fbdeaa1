"""``POST /v1/labels``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.api import openapi
from service.api.errors import MESSAGE_CHARS
from service.api.requests import ReadPool, read_body, require_rows
from service.api.schemas.predictions import LabelsIn, LabelsOut
from service.api.short_path import JsonResponse
from service.events import Label
from service.formatting import truncated

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the route."""
    routes = APIRouter(prefix="/v1", tags=["labels"])
    model = runtime.model

    @routes.post("/labels", **openapi.openapi_post(LabelsIn, LabelsOut, 429, 503, 504))
    async def label(request: Request) -> Response:
        """Add labels for predictions: late, early, repeated or corrected. Every item has its own outcome."""
        model.deployment.require_classes()
        body = await read_body(request, LabelsIn, runtime.metrics)
        require_rows(request, body.labels, runtime.settings.serve.request_labels, "labels")
        now = runtime.clock()
        labels = [
            Label(item.id, item.label, item.observed_at or now, now, item.labeller, item.idempotency_key)
            for item in body.labels
        ]
        results = await model.labels.add(labels)
        answers = [
            {
                "id": item.id,
                "outcome": result.outcome,
                "reason": result.reason and truncated(result.reason, MESSAGE_CHARS),
            }
            for item, result in zip(body.labels, results, strict=True)
        ]
        return JsonResponse(to_json({"labels": answers}))

    return routes
