"""Page of model versions: held-out accuracy, origin, and every change of the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from models.errors import ModelError
from models.registry import CHAMPION, AliasChange
from service.console.query_params import BeforeQuery, ListParams
from service.console.render import PageContext, PageExecutor, page_context, render_page
from service.decisions import Run
from service.errors import ServiceError
from service.events import Estimate, InsufficientData
from service.views.models import ModelView, held_out_accuracy, models_view
from service.views.runs import runs_view

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

VERSION_ROWS, CHANGE_ROWS = 30, 50
SEARCHED_RUNS = 200
"""Number of latest runs searched for the run that trained a version."""


def add_routes(routes: APIRouter, runtime: Runtime, executor: PageExecutor) -> None:
    """Add the route of the model versions."""

    @routes.get("/models")
    async def list_models(before: BeforeQuery = None) -> Response:
        return await executor.respond(lambda: models_page(runtime, ListParams("/models", before=before)))


def models_page(runtime: Runtime, params: ListParams) -> str:
    """Return the page of the versions.

    Raises
    ------
    ServiceError
        If the registry cannot be read.
    """
    registry = runtime.model.registry
    try:
        versions = models_view(registry, runtime.model.deployment)
        history = registry.readable_history(CHAMPION)
    except (ModelError, OSError) as error:
        raise ServiceError(f"the registry cannot be read: {error}") from error
    versions = tuple(v for v in versions if params.before is None or v.version < params.before)
    shown, accuracies = [], {}
    for version in versions[-VERSION_ROWS:]:
        if version.damaged is None:
            accuracies[version.version] = held_out_accuracy(registry, version.version)
        else:  # pages do not show paths of the server
            version = replace(version, damaged=registry.relative(version.damaged))
        shown.append(version)
    return render_models(
        page_context(runtime, "models"),
        runtime.model.name,
        params,
        version_rows(
            shown,
            accuracies,
            history,
            runs_view(runtime.store, runtime.model.name, limit=SEARCHED_RUNS).items,
        ),
        change_rows(history),
        params.href(before=shown[0].version) if len(versions) > len(shown) else "",
        runtime.clock(),
    )


@dataclass(frozen=True, slots=True)
class VersionRow:
    """Version of a model.

    Parameters
    ----------
    model
        The stored version.
    since
        Time of its promotion; None if it is not the champion.
    accuracy
        Accuracy on its held-out rows; None if it is damaged.
    run
        The run that trained it; None if it was trained by hand.
    """

    model: ModelView
    since: datetime | None
    accuracy: Estimate | InsufficientData | None
    run: Run | None


def version_rows(
    versions: Sequence[ModelView],
    accuracies: Mapping[int, Estimate | InsufficientData],
    history: Sequence[AliasChange],
    runs: Sequence[Run],
) -> list[VersionRow]:
    """Return versions as table rows, newest first; ``versions`` and ``history`` are oldest first."""
    trained_by = {run.candidate: run for run in reversed(runs) if run.candidate is not None}
    champion = history[-1] if history else None
    return [
        VersionRow(
            version,
            champion.at if champion is not None and champion.version == version.version else None,
            accuracies.get(version.version),
            trained_by.get(version.version),
        )
        for version in reversed(versions)
    ]


def change_rows(history: Sequence[AliasChange]) -> list[tuple[AliasChange, int | None]]:
    """Return the latest changes of the champion with the version before, newest first."""
    before = [None, *(change.version for change in history)]
    return list(zip(history, before, strict=False))[::-1][:CHANGE_ROWS]


def render_models(
    context: PageContext,
    model: str,
    params: ListParams,
    versions: Sequence[VersionRow],
    changes: Sequence[tuple[AliasChange, int | None]],
    older: str,
    now: datetime,
) -> str:
    """Render the page; ``older`` is the address of the next page of versions."""
    return render_page(
        "models.html",
        context,
        model=model,
        params=params,
        versions=versions,
        changes=changes,
        older=older,
        now=now,
    )
