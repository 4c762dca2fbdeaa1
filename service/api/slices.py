"""``/v1/slices``: every slice in one window, one slice over time, and its records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from fastapi import APIRouter, Query
from starlette.responses import Response

from service.api.errors import FieldError, InvalidRequest
from service.api.openapi import error_responses
from service.api.requests import JSON, ReadPool
from service.api.schemas.fields import Time
from service.api.schemas.slices import (
    RecordsOut,
    SeriesOut,
    SlicesOut,
    records_out,
    series_out,
    slices_out,
)
from service.events import WindowName
from service.views.alarms import unresolved_by_slice
from service.views.records import CURSOR, RecordKind, records
from service.views.series import series
from service.views.slices import slices_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

Window: TypeAlias = Annotated[WindowName, Query(description="Time window of the figures.")]


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/slices", tags=["slices"])
    store, deployment = runtime.store, runtime.model.deployment

    @routes.get("", responses=error_responses(422, 503, 504))
    async def get_slices(window: Window = "1h") -> SlicesOut:
        """List every slice in one window, as of the latest snapshot."""

        def slices() -> SlicesOut:
            view = slices_view(deployment, window)
            return slices_out(view, unresolved_by_slice(store, view.model))

        return await readers.run(slices)

    @routes.get("/{name}", responses=error_responses(404, 422, 503, 504))
    async def get_series(
        name: str,
        window: Window = "1d",
        since: Annotated[Time | None, Query(alias="from", description="Start; default: start of the window.")] = None,
        until: Annotated[Time | None, Query(alias="to", description="End; default: now.")] = None,
        points: Annotated[int, Query(ge=1, le=500)] = 60,
    ) -> SeriesOut:
        """Return one slice over time, with the events of its model and function."""
        if since is not None and until is not None and since >= until:
            message = f"{until.isoformat()} is not after 'from', {since.isoformat()}"
            raise InvalidRequest([FieldError("to", message)])
        now = runtime.clock()
        return await readers.run(
            lambda: series_out(
                series(store, deployment, name, window=window, since=since, until=until, points=points, now=now)
            )
        )

    @routes.get("/{name}/records", response_model=RecordsOut, responses=error_responses(404, 422, 503, 504))
    async def get_records(
        name: str,
        kind: Annotated[RecordKind, Query(description="Filter by label.")] = "all",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        complement: Annotated[bool, Query(description="List the records outside the slice instead.")] = False,
        before: Annotated[Time | None, Query(description="Only records before this time.")] = None,
        cursor: Annotated[
            str | None,
            Query(pattern=CURSOR, description="`next` of the previous page, in place of `before`."),
        ] = None,
    ) -> Response:
        """List the latest records of a slice, and the confusion of its labelled ones.

        Long values are cut. A page ends early if its records are long; `next` continues it.
        """

        def page() -> bytes:
            view = records(
                store, deployment, name, kind=kind, limit=limit, before=before, cursor=cursor, complement=complement
            )
            return records_out(view).model_dump_json().encode()

        return Response(await readers.run(page), media_type=JSON)

    return routes
