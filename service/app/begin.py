"""Begins a training: what it is told, and the labelled traffic that it learns from."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from service.jobs.retraining import attempt_folder
from service.jobs.training import RunningTraining, TrainingResult, read_result
from service.jobs.training import begin as begin_training
from service.jobs.training_spec import TRAFFIC, TrainingSpec, learner_values, write_traffic
from service.store.teaching import labelled_rows

if TYPE_CHECKING:
    from service.app.loop import LoopParts
    from service.decisions import Run
    from service.settings.project import Settings

RUNS = "runs"
"""The folder beside the store where runs keep their files."""


def begin(settings: Settings, parts: LoopParts, run: Run, champion: int) -> RunningTraining:
    """Begin the attempt of a run, compared with a version, on all labelled traffic until its last move."""
    folder = _folder(settings, run)
    folder.mkdir(parents=True, exist_ok=True)
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


def _folder(settings: Settings, run: Run) -> Path:
    return attempt_folder(settings.store.parent / RUNS, run)


def _traffic(settings: Settings, parts: LoopParts, folder: Path, until: datetime) -> Path | None:
    """Write the newest labelled rows of traffic, and return where; None where there are none."""
    path, limit = folder / TRAFFIC, settings.retrain.traffic_rows
    with parts.store.read() as connection:
        rows = labelled_rows(connection, settings.name, limit=limit, until=until)
        written = write_traffic(path, ((each.features, each.label) for each in rows))
    return path if written else None
