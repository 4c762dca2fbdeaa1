"""``/v1/functions``: the live functions; declared ones can be added and removed while the service runs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.openapi import error_responses, openapi_post
from service.api.requests import JSON, ReadPool, actor_of, read_body, require_finite, require_rows, run_off_loop
from service.api.schemas.functions import (
    FunctionIn,
    FunctionOut,
    FunctionsOut,
    PreviewIn,
    PreviewOut,
)
from service.views.slices import functions_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/functions", tags=["functions"])
    model = runtime.model

    @routes.get("", responses=error_responses(503, 504))
    async def get_functions() -> FunctionsOut:
        """List the functions that are applied to every record."""
        views = await readers.run(lambda: functions_view(model.deployment))
        return FunctionsOut(functions=[FunctionOut.model_validate(view) for view in views])

    @routes.post("", **openapi_post(FunctionIn, FunctionOut, 409, 429, 503, 504, status=201))
    async def add(request: Request) -> Response:
        """Add a declared function; Python functions come from the project's files only."""
        body = await read_body(request, FunctionIn, runtime.metrics)
        await run_off_loop(request, lambda: require_finite(body.declaration, ""))
        view = await model.functions.add(body.declaration, actor_of(request, ""))
        headers = {"location": f"/v1/functions/{quote(view.name, safe='')}"}
        return Response(FunctionOut.model_validate(view).model_dump_json(), 201, headers, JSON)

    @routes.delete("/{name}", status_code=204, responses=error_responses(404, 409, 422, 429, 503, 504))
    async def remove(name: str, request: Request) -> None:
        """Remove a function added over HTTP; its logged memberships are kept."""
        await model.functions.remove(name, actor_of(request, ""))

    @routes.post("/preview", **openapi_post(PreviewIn, PreviewOut, 503, 504))
    async def preview(request: Request) -> Response:
        """Apply a declared function to records without adding it."""
        body = await read_body(request, PreviewIn, runtime.metrics)
        if body.records is not None:
            require_rows(request, body.records, runtime.settings.serve.request_rows, "records")

        def check() -> None:
            require_finite(body.function.declaration, "function")
            require_finite(body.records, "records")

        await run_off_loop(request, check)
        result = await model.functions.preview(body.function.declaration, body.records)
        return Response(PreviewOut.model_validate(result).model_dump_json(), media_type=JSON)

    return routes
