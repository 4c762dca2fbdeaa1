"""The page of model versions: which answers, how each did on held-out rows, and every change of the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from models.registry import AliasChange
from service.console.choices import ListChoices
from service.console.render import Frame, page
from service.decisions import Run
from service.events import Estimate, InsufficientData
from service.views.models import ModelView

MOST_CHANGES = 50
"""Changes of the champion that are shown."""


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version.

    Parameters
    ----------
    model
        What the registry says of it.
    since
        Since when it answers; None where it does not.
    accuracy
        How often it was right on its held-out rows.
    run
        The run that made it; None where a person did.
    """

    model: ModelView
    since: datetime | None
    accuracy: Estimate | InsufficientData
    run: Run | None


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One change of the champion, and the version before it."""

    change: AliasChange
    before: int | None


def version_rows(
    views: Sequence[ModelView],
    accuracies: Mapping[int, Estimate | InsufficientData],
    history: Sequence[AliasChange],
    runs: Sequence[Run],
) -> list[VersionRow]:
    """Return versions as they are shown, newest first.

    Parameters
    ----------
    views
        The versions, oldest first.
    accuracies
        By version, those of held-out rows.
    history
        The changes of the champion, oldest first.
    runs
        Runs, newest first.
    """
    made = {run.candidate: run for run in reversed(runs) if run.candidate is not None}
    last = history[-1] if history else None
    return [
        VersionRow(
            each,
            last.at if last is not None and last.version == each.version else None,
            accuracies[each.version],
            made.get(each.version),
        )
        for each in reversed(views)
    ]


def change_rows(history: Sequence[AliasChange]) -> list[ChangeRow]:
    """Return the last changes of the champion, newest first."""
    before = [None, *(each.version for each in history)]
    found = [ChangeRow(each, then) for each, then in zip(history, before, strict=False)]
    return found[::-1][:MOST_CHANGES]


def versions(
    frame: Frame,
    model: str,
    choices: ListChoices,
    rows: Sequence[VersionRow],
    changes: Sequence[ChangeRow],
    older: str,
    served_here: bool,
    now: datetime,
) -> str:
    """Return the page.

    Parameters
    ----------
    frame, model, choices
        What is around it, which model, and what the reader has chosen.
    rows, changes
        The versions, and the changes of the champion, newest first.
    older
        The address of the versions before; empty where there are none.
    served_here
        Whether there is a registry here.
    now
        The time, UTC.
    """
    return page(
        "models.html",
        frame,
        model=model,
        choices=choices,
        rows=rows,
        changes=changes,
        older=older,
        served_here=served_here,
        now=now,
    )
