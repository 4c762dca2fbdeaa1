"""What a retraining speaks to, and how a run is moved on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.registry import ModelRegistry
from service.decisions import ACTIVE, Run, Zone
from service.jobs.training import RunningTraining, TrainingResult
from service.store.engine import Store
from service.store.runs import move_run
from service.store.writer import Writer
from service.views.current import Current

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetrainParts:
    """What the job speaks to.

    Parameters
    ----------
    store, writer
        The log, and the runs in it.
    current
        What is in force.
    registry
        Where versions are, and which is champion.
    begin
        Begins to train for a run, in a folder of the attempt's own; the champion's number goes with it.
    finished
        What an attempt came to that was done before a restart; None where it was not.
    zone
        Where the accuracy of a slice may lie, by name; None without a reference.
    ended
        Told every run that has come to its end.
    """

    store: Store
    writer: Writer
    current: Current
    registry: ModelRegistry
    begin: Callable[[Run, int], RunningTraining]
    finished: Callable[[Run], TrainingResult | None]
    zone: Callable[[str], Zone | None]
    ended: Callable[[Run], object]


@dataclass(frozen=True, slots=True)
class GateRules:
    """What the gate asks of a candidate, and how often training may be begun."""

    margin: float
    minimum_rows: int
    attempts: int


def move(parts: RetrainParts, run: Run, now: datetime, **changes: Any) -> Run:
    """Move a run on from where it stands, as ``move_run``, and say so. Raises as ``move_run``."""
    moved = parts.writer.submit(
        lambda connection: move_run(connection, run.id, run.state, now, **changes)
    ).result()
    if moved.state != run.state or moved.attempts != run.attempts:
        say_moved(parts, moved)
    return moved


def say_moved(parts: RetrainParts, run: Run) -> None:
    """Say where a run stands now, and count it if that is its end."""
    _log.info("run %d is %s: %s", run.id, run.state, run.outcome or run.reason)
    if run.state not in ACTIVE:
        parts.ended(run)
