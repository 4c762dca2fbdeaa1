"""``GET /v1/slices``, a slice over time, and its records."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query

from service.api import openapi as document
from service.api.errors import FieldError, InvalidRequest
from service.api.parts import Parts
from service.api.requests import ReadPool
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

Window: TypeAlias = Annotated[WindowName, Query(description="The rows that figures are made of.")]


def router(parts: Parts, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/slices", tags=["slices"])

    @routes.get("", responses=document.error_responses(422, 503, 504))
    async def get_slices(window: Window = "1h") -> SlicesOut:
        """Every slice in one window, as the monitor last counted it."""

        def told() -> SlicesOut:
            view = slices_view(parts.current, window)
            return slices_out(view, unresolved_by_slice(parts.store, view.model))

        return await readers.run(told)

    _add_series(routes, parts, readers)
    _add_records(routes, parts, readers)
    return routes


def _add_series(routes: APIRouter, parts: Parts, readers: ReadPool) -> None:
    @routes.get("/{name}", responses=document.error_responses(404, 422, 503, 504))
    async def get_series(
        name: str,
        window: Window = "1d",
        since: Annotated[
            Time | None, Query(alias="from", description="In place of the window's start.")
        ] = None,
        until: Annotated[Time | None, Query(alias="to", description="In place of now.")] = None,
        points: Annotated[int, Query(ge=1, le=500)] = 60,
    ) -> SeriesOut:
        """One slice over time, with what happened to its model and function."""
        _require_order(since, until)
        now = parts.clock()
        return await readers.run(
            lambda: series_out(
                series(
                    parts.store, parts.current, name,
                    window=window, since=since, until=until, points=points, now=now,
                )
            )
        )  # fmt: skip


def _add_records(routes: APIRouter, parts: Parts, readers: ReadPool) -> None:
    @routes.get("/{name}/records", responses=document.error_responses(404, 422, 503, 504))
    async def get_records(
        name: str,
        kind: Annotated[RecordKind, Query(description="By what is known of their label.")] = "all",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        complement: Annotated[bool, Query(description="The rows known to be outside, in its place.")] = False,
        before: Annotated[Time | None, Query(description="Only those before this time.")] = None,
        cursor: Annotated[
            str | None,
            Query(
                pattern=CURSOR, description="The ``next`` of a page, to go on there, in place of ``before``."
            ),
        ] = None,
    ) -> RecordsOut:
        """The last records of a slice, and how its labelled ones were predicted."""
        return await readers.run(
            lambda: records_out(
                records(
                    parts.store,
                    parts.current,
                    name,
                    kind=kind,
                    limit=limit,
                    before=before,
                    cursor=cursor,
                    complement=complement,
                )
            )
        )


def _require_order(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and since >= until:
        raise InvalidRequest(
            [FieldError("to", f"{until.isoformat()} is not after 'from', {since.isoformat()}")]
        )
