"""Begins a training: what it is told, and the labelled traffic that it learns from."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from service.jobs.retraining import attempt_folder
from service.jobs.training.process import RunningTraining, TrainingResult, read_result
from service.jobs.training.process import begin as begin_training
from service.jobs.training.spec import TRAFFIC, TrainingSpec, learner_values, write_traffic
from service.store.runs import active_run
from service.store.training_rows import labelled_rows

if TYPE_CHECKING:
    from service.app.loop import LoopParts
    from service.decisions import Run
    from service.settings.project import Settings
    from service.store.engine import Store

RUNS = "runs"
"""The folder beside the store where runs keep their files."""


def begin(settings: Settings, parts: LoopParts, run: Run, champion: int) -> RunningTraining:
    """Begin the attempt of a run, compared with a version, on all labelled traffic until its last move."""
    folder = _folder(settings, run)
    for each in (*reversed(folder.parents[:2]), folder):  # what customers wrote is for nobody else
        each.mkdir(mode=0o700, exist_ok=True)
    traffic = _traffic(settings, parts, folder, run.updated_at)
    spec = TrainingSpec(
        name=settings.name,
        label=settings.label,
        features=settings.features,
        data=str(settings.data),
        format=settings.format,
        functions=settings.functions,
        added=parts.declarations(),
        learner=learner_values(**asdict(settings.learner)),
        traffic=None if traffic is None else str(traffic),
        champion=str(parts.registry.path(champion)),
    )
    return begin_training(folder, spec, timeout_seconds=settings.retrain.timeout_minutes * 60)


def finished(settings: Settings, run: Run) -> TrainingResult | None:
    """Return what the last attempt of a run came to; None where it did not come to its end."""
    return read_result(_folder(settings, run))


def forget(settings: Settings, run: Run) -> None:
    """Remove the files of a run."""
    shutil.rmtree(_folder(settings, run).parent, ignore_errors=True)


def sweep(settings: Settings, store: Store) -> None:
    """Remove the files of every run that has ended: a service that is killed may not come to it.

    Only for when a service starts, as no run may begin meanwhile.
    """
    with store.read() as connection:
        run = active_run(connection, settings.name)
    kept = None if run is None else _folder(settings, run).parent
    with suppress(FileNotFoundError):
        for each in (settings.store.parent / RUNS).iterdir():
            if each.name.isdecimal() and each != kept:
                shutil.rmtree(each, ignore_errors=True)


def _folder(settings: Settings, run: Run) -> Path:
    return attempt_folder(settings.store.parent / RUNS, run)


def _traffic(settings: Settings, parts: LoopParts, folder: Path, until: datetime) -> Path | None:
    """Write the newest labelled rows of traffic, and return where; None where there are none."""
    path, limit = folder / TRAFFIC, settings.retrain.traffic_rows
    with parts.store.read() as connection:
        rows = labelled_rows(connection, settings.name, limit=limit, until=until)
        written = write_traffic(path, ((each.features, each.label) for each in rows))
    return path if written else None
