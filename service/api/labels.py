"""``POST /v1/labels``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.api import openapi as document
from service.api.errors import MESSAGE_CHARS, truncated
from service.api.parts import Parts
from service.api.predictions import JSON
from service.api.requests import read_body, require_classes, require_rows
from service.api.schemas.predictions import LabelIn, LabelsIn, LabelsOut
from service.events import Label
from service.store.labels import LabelResult


def router(parts: Parts) -> APIRouter:
    """Return the route."""
    routes = APIRouter(prefix="/v1", tags=["labels"])

    @routes.post("/labels", **document.openapi_post(LabelsIn, LabelsOut, 429, 503, 504))
    async def label(request: Request) -> Response:
        """Take labels for predictions, whenever they come; each item has an outcome of its own."""
        classes = require_classes(parts)
        body = await read_body(request, LabelsIn, parts)
        require_rows(request, body.labels, parts.limits.labels, "labels")
        results = await _results(parts, body.labels, classes)
        answered = [
            {"id": each.id, "outcome": result.outcome, "reason": result.reason}
            for each, result in zip(body.labels, results, strict=True)
        ]
        return Response(to_json({"labels": answered}), media_type=JSON)

    return routes


async def _results(parts: Parts, given: Sequence[LabelIn], classes: tuple[str, ...]) -> list[LabelResult]:
    """Return what became of each label: those of no class are rejected, the others are the store's to judge."""
    now = parts.clock()
    taken = [each for each in given if each.label in classes]
    reason = truncated(
        f"this is no class; the classes are {', '.join(map(repr, classes[:20]))}", MESSAGE_CHARS
    )
    rejected = LabelResult("rejected", reason)
    stored = iter(await _stored(parts, [_label(each, now) for each in taken]) if taken else ())
    parts.metrics.labelled("rejected", len(given) - len(taken))
    return [next(stored) if each.label in classes else rejected for each in given]


async def _stored(parts: Parts, labels: Sequence[Label]) -> list[LabelResult]:
    future = parts.writer.label(parts.current.in_force.model, labels)
    future.add_done_callback(lambda done: _count(parts, done))  # also where nobody waits for it any more
    return await asyncio.wrap_future(future)


def _count(parts: Parts, done: Future[list[LabelResult]]) -> None:
    if not done.cancelled() and done.exception() is None:
        for outcome, count in Counter(each.outcome for each in done.result()).items():
            parts.metrics.labelled(outcome, count)


def _label(given: LabelIn, now: datetime) -> Label:
    return Label(given.id, given.label, given.observed_at or now, now, given.labeller, given.idempotency_key)
