"""``/v1/models``: the versions in the registry, their promotion and rollback."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from models.registry import CHAMPION, AliasChange
from service.api.openapi import error_responses, openapi_post
from service.api.requests import JSON, ReadPool, VersionNumber, actor_of, read_body
from service.api.schemas.functions import ModelsOut, ModelVersionOut
from service.api.schemas.runs import ActionIn, PromotedOut, PromoteIn, promoted_out
from service.views.models import ModelView, model_view, models_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

_DEFAULT_REASON = "by hand"
_ERRORS = (404, 409, 429, 503, 504)


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/models", tags=["models"])
    model = runtime.model
    registry, deployment = model.registry, model.deployment

    def out(view: ModelView) -> ModelVersionOut:
        """Return a version without the path of its folder, which is not disclosed over HTTP."""
        if view.damaged is None:
            return ModelVersionOut.model_validate(view)
        return ModelVersionOut.model_validate(replace(view, damaged=registry.relative(view.damaged)))

    async def changed(change: AliasChange, *, changed: bool = True) -> Response:
        history = await readers.run(lambda: registry.readable_history(CHAMPION))
        earlier = [entry.version for entry in history if entry.sequence < change.sequence]
        body = promoted_out(change, earlier[-1] if earlier else None, changed=changed)
        return Response(body.model_dump_json(), media_type=JSON)

    @routes.get("", responses=error_responses(503, 504))
    async def get_models() -> ModelsOut:
        """List every version, oldest first."""
        versions = await readers.run(lambda: [out(view) for view in models_view(registry, deployment)])
        return ModelsOut(model=model.name, models=versions)

    @routes.get("/{version}", responses=error_responses(404, 422, 503, 504))
    async def get_model(version: VersionNumber) -> ModelVersionOut:
        """Return one version."""
        return await readers.run(lambda: out(model_view(registry, version, deployment)))

    @routes.post("/rollback", **openapi_post(ActionIn, PromotedOut, *_ERRORS))
    async def rollback(request: Request) -> Response:
        """Promote the previous champion again."""
        body = await read_body(request, ActionIn, runtime.metrics)
        reason = body.reason or _DEFAULT_REASON
        change = await asyncio.to_thread(model.promotions.rollback, reason, actor_of(request, body.by))
        return await changed(change)

    @routes.post("/{version}/promote", **openapi_post(PromoteIn, PromotedOut, *_ERRORS))
    async def promote(version: VersionNumber, request: Request) -> Response:
        """Promote a version to champion, and approve the run that holds it."""
        body = await read_body(request, PromoteIn, runtime.metrics)
        await readers.run(lambda: registry.path(version))
        last = await readers.run(lambda: registry.change(CHAMPION))
        reason = body.reason or _DEFAULT_REASON
        change = await asyncio.to_thread(
            model.promotions.promote, version, body.expected, reason, actor_of(request, body.by)
        )
        return await changed(change, changed=change != last)

    return routes
