"""``/v1/models``: the versions in the registry."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter

from models.registry import ModelRegistry
from service.api import document
from service.api.off_loop import Readers
from service.api.pages import Number
from service.api.parts import Parts
from service.api.promotions import registry_of, without_folder
from service.api.wire_functions import ModelsOut, ModelVersionOut, model_out
from service.views.models import ModelView, model_view, models_view


def router(parts: Parts, readers: Readers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/models", tags=["models"])

    @routes.get("", responses=document.refused_by(503, 504))
    async def get_models() -> ModelsOut:
        """Every version, oldest first; none where models are served elsewhere."""
        registry = parts.registry
        views = [] if registry is None else await readers.run(lambda: _versions(registry, parts))
        return ModelsOut(model=parts.current.in_force.model, models=views)

    @routes.get("/{version}", responses=document.refused_by(404, 422, 503, 504))
    async def get_model(version: Number) -> ModelVersionOut:
        """One version."""
        registry = registry_of(parts)
        return await readers.run(lambda: _out(registry, model_view(registry, version, parts.current)))

    return routes


def _versions(registry: ModelRegistry, parts: Parts) -> list[ModelVersionOut]:
    return [_out(registry, each) for each in models_view(registry, parts.current)]


def _out(registry: ModelRegistry, view: ModelView) -> ModelVersionOut:
    """Return a version; where its files are on this machine is nobody's business over HTTP."""
    if view.damaged is None:
        return model_out(view)
    return model_out(replace(view, damaged=without_folder(registry, view.damaged)))
