"""``POST /v1/models/…``: which version answers, changed by people."""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from models.errors import BundleError, RegistryError
from models.registry import CHAMPION, AliasChange, ModelRegistry
from service.api import document
from service.api.answering import JSON
from service.api.off_loop import Readers
from service.api.pages import Number
from service.api.parts import Parts
from service.api.reading import read
from service.api.refusals import DamagedVersion, NotHere, PromotionConflict, UnknownVersion
from service.api.wire_loop import AskedIn, PromotedOut, PromoteIn, actor_of, promoted_out

_BY_HAND = "by hand"
_REFUSED = (404, 409, 429, 503, 504)


def router(parts: Parts, readers: Readers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/models", tags=["models"])

    @routes.post("/rollback", **document.posted(AskedIn, PromotedOut, *_REFUSED))
    async def rollback(request: Request) -> Response:
        """Let the champion before this one answer again."""
        body = await read(request, AskedIn, parts)
        registry = registry_of(parts)
        if parts.rollback is None:
            raise NotHere("no version can be put in force by this process")
        change = await _made(registry, parts.rollback(body.reason or _BY_HAND, actor_of(body)))
        return await _told(registry, readers, change)

    @routes.post("/{version}/promote", **document.posted(PromoteIn, PromotedOut, *_REFUSED))
    async def promote(version: Number, request: Request) -> Response:
        """Let a version answer, and approve the run that holds it."""
        body = await read(request, PromoteIn, parts)
        registry = registry_of(parts)
        await readers.run(lambda: registry.path(version))
        last = await readers.run(lambda: _last(registry))
        if parts.promote is None:
            raise NotHere("no version can be put in force by this process")
        asked = parts.promote(version, body.expected, body.reason or _BY_HAND, actor_of(body))
        change = await _made(registry, asked)
        return await _told(registry, readers, change, changed=change != last)

    return routes


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


async def _made(registry: ModelRegistry, asked: Awaitable[AliasChange]) -> AliasChange:
    """Return the change, or refuse it by what the registry says."""
    try:
        return await asked
    except BundleError as error:
        raise DamagedVersion(without_folder(registry, str(error))) from error
    except RegistryError as error:
        raise PromotionConflict(str(error)) from error


async def _told(
    registry: ModelRegistry, readers: Readers, change: AliasChange, *, changed: bool = True
) -> Response:
    before = await readers.run(lambda: _before(registry, change))
    return Response(promoted_out(change, before, changed=changed).model_dump_json(), media_type=JSON)


def _last(registry: ModelRegistry) -> AliasChange | None:
    history = registry.history(CHAMPION)
    return history[-1] if history else None


def _before(registry: ModelRegistry, change: AliasChange) -> int | None:
    earlier = [each.version for each in registry.history(CHAMPION) if each.sequence < change.sequence]
    return earlier[-1] if earlier else None
