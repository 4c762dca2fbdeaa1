"""``/v1/models``: the versions in the registry."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from models.errors import BundleError, RegistryError
from models.registry import CHAMPION, AliasChange, ModelRegistry
from service.api import openapi as document
from service.api.errors import DamagedVersion, NotAvailable, PromotionConflict, UnknownVersion
from service.api.parts import Parts
from service.api.predictions import JSON
from service.api.requests import Number, ReadPool, read_body
from service.api.schemas.functions import ModelsOut, ModelVersionOut, model_out
from service.api.schemas.runs import ActionIn, PromotedOut, PromoteIn, actor_of, promoted_out
from service.views.models import ModelView, model_view, models_view


def router(parts: Parts, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/models", tags=["models"])

    @routes.get("", responses=document.error_responses(503, 504))
    async def get_models() -> ModelsOut:
        """Every version, oldest first; none where models are served elsewhere."""
        registry = parts.registry
        views = [] if registry is None else await readers.run(lambda: _versions(registry, parts))
        return ModelsOut(model=parts.current.in_force.model, models=views)

    @routes.get("/{version}", responses=document.error_responses(404, 422, 503, 504))
    async def get_model(version: Number) -> ModelVersionOut:
        """One version."""
        registry = registry_of(parts)
        return await readers.run(lambda: _out(registry, model_view(registry, version, parts.current)))

    @routes.post("/rollback", **document.openapi_post(ActionIn, PromotedOut, *_REFUSED))
    async def rollback(request: Request) -> Response:
        """Let the champion before this one answer again."""
        body = await read_body(request, ActionIn, parts)
        registry = registry_of(parts)
        if parts.rollback is None:
            raise NotAvailable("no version can be put in force by this process")
        change = await _await_change(registry, parts.rollback(body.reason or _BY_HAND, actor_of(body)))
        return await _changed_response(registry, readers, change)

    @routes.post("/{version}/promote", **document.openapi_post(PromoteIn, PromotedOut, *_REFUSED))
    async def promote(version: Number, request: Request) -> Response:
        """Let a version answer, and approve the run that holds it."""
        body = await read_body(request, PromoteIn, parts)
        registry = registry_of(parts)
        await readers.run(lambda: registry.path(version))
        last = await readers.run(lambda: _last_change(registry))
        if parts.promote is None:
            raise NotAvailable("no version can be put in force by this process")
        asked = parts.promote(version, body.expected, body.reason or _BY_HAND, actor_of(body))
        change = await _await_change(registry, asked)
        return await _changed_response(registry, readers, change, changed=change != last)

    return routes


def _versions(registry: ModelRegistry, parts: Parts) -> list[ModelVersionOut]:
    return [_out(registry, each) for each in models_view(registry, parts.current)]


def _out(registry: ModelRegistry, view: ModelView) -> ModelVersionOut:
    """Return a version; where its files are on this machine is nobody's business over HTTP."""
    if view.damaged is None:
        return model_out(view)
    return model_out(replace(view, damaged=without_folder(registry, view.damaged)))


_BY_HAND = "by hand"
_REFUSED = (404, 409, 429, 503, 504)


def registry_of(parts: Parts) -> ModelRegistry:
    """Return the registry.

    Raises
    ------
    UnknownVersion
        If models are served elsewhere.
    """
    if parts.registry is None:
        raise UnknownVersion("models are served elsewhere: there is no registry here")
    return parts.registry


def without_folder(registry: ModelRegistry, said: str) -> str:
    """Return what is said of a version; where its files are on this machine is nobody's business over HTTP."""
    for root in {each.path.parents[1] for each in registry.list()}:
        said = said.replace(f"{root}/", "")
    return said


async def _await_change(registry: ModelRegistry, asked: Awaitable[AliasChange]) -> AliasChange:
    """Return the change, or refuse it by what the registry says."""
    try:
        return await asked
    except BundleError as error:
        raise DamagedVersion(without_folder(registry, str(error))) from error
    except RegistryError as error:
        raise PromotionConflict(str(error)) from error


async def _changed_response(
    registry: ModelRegistry, readers: ReadPool, change: AliasChange, *, changed: bool = True
) -> Response:
    before = await readers.run(lambda: _previous_version(registry, change))
    return Response(promoted_out(change, before, changed=changed).model_dump_json(), media_type=JSON)


def _last_change(registry: ModelRegistry) -> AliasChange | None:
    history = registry.history(CHAMPION)
    return history[-1] if history else None


def _previous_version(registry: ModelRegistry, change: AliasChange) -> int | None:
    earlier = [each.version for each in registry.history(CHAMPION) if each.sequence < change.sequence]
    return earlier[-1] if earlier else None
