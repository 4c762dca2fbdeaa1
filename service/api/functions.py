"""``/v1/functions``: the functions in force, and declared ones that come and go while the service runs."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import openapi as document
from service.api.parts import Parts
from service.api.predictions import JSON
from service.api.requests import ReadPool, read_body, require_finite, require_rows, run_off_loop
from service.api.schemas.functions import (
    FunctionIn,
    FunctionOut,
    FunctionsOut,
    PreviewIn,
    PreviewOut,
    function_out,
    preview_out,
)
from service.views.functions import functions_view


def router(parts: Parts, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/functions", tags=["functions"])

    @routes.get("", responses=document.error_responses(503, 504))
    async def get_functions() -> FunctionsOut:
        """The functions that are applied to every record."""
        views = await readers.run(lambda: functions_view(parts.current))
        return FunctionsOut(functions=[function_out(each) for each in views])

    @routes.post("", **document.openapi_post(FunctionIn, FunctionOut, 409, 429, 503, 504, status=201))
    async def add(request: Request) -> Response:
        """Apply one more declared function from now on; code comes from the project's files alone."""
        body = await read_body(request, FunctionIn, parts)
        await run_off_loop(request, lambda: require_finite(body.declaration, ""))
        view = await parts.add_function(body.declaration)
        where = {"location": f"/v1/functions/{quote(view.name, safe='')}"}
        return Response(function_out(view).model_dump_json(), 201, where, JSON)

    @routes.delete(
        "/{name}", status_code=204, responses=document.error_responses(404, 409, 422, 429, 503, 504)
    )
    async def remove(name: str) -> None:
        """Apply a function no more that was added here; what is in the log stays."""
        await parts.remove_function(name)

    @routes.post("/preview", **document.openapi_post(PreviewIn, PreviewOut, 503, 504))
    async def preview(request: Request) -> Response:
        """Try a declared function on records, and register it nowhere."""
        body = await read_body(request, PreviewIn, parts)
        if body.records is not None:
            require_rows(request, body.records, parts.limits.rows, "records")
        await run_off_loop(request, lambda: _require_finite(body))
        view = await parts.preview(body.function.declaration, body.records)
        return Response(preview_out(view).model_dump_json(), media_type=JSON)

    return routes


def _require_finite(body: PreviewIn) -> None:
    require_finite(body.function.declaration, "function")
    require_finite(body.records, "records")
