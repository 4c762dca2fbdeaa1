"""Training in a child process, seen from the service: started, polled and killed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from models.registry import ModelRegistry
from service.decisions import Run
from service.errors import ServiceError
from service.jobs.child_process import ChildProcess
from service.jobs.training.spec import (
    CANDIDATE,
    HEARTBEAT,
    REASON,
    RESULT,
    TRAFFIC,
    TrainingResult,
    TrainingSpec,
    learner_values,
    read_result,
    write_spec,
    write_traffic,
)
from service.serving.deployment import Deployment
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.runs import active_run
from service.store.training_rows import labelled_rows

RUNS = "runs"
"""Folder beside the store with the files of runs."""

TIMEOUT_SECONDS = 7200.0
SILENCE_SECONDS = 120.0

_log = logging.getLogger(__name__)

_QUOTED_LINES, _QUOTED_CHARACTERS = 3, 600


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """Reason why there is no candidate, in a sentence or two."""

    reason: str


class RunningTraining:
    """A started training, killed after its timeout or a silence without heartbeats. For one thread at a time."""

    def __init__(
        self,
        folder: Path,
        process: ChildProcess,
        timeout_seconds: float,
        silence_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.folder, self.pid = folder, process.pid
        self._process, self._clock = process, clock
        self._timeout, self._silence = timeout_seconds, silence_seconds
        self._started = self._last_beat_at = clock()
        self._beat = 0
        self._result: TrainingResult | TrainingFailed | None = None

    def poll(self) -> TrainingResult | TrainingFailed | None:
        """Return the result, or None while the training continues; kill it after its timeout or silence."""
        if self._result is None:
            if self._process.wait():
                self._process.kill()
                if self._process.output:
                    _log.debug("output of the training process: %s", self._process.output)  # may quote rows
                self._result = read_result(self.folder) or TrainingFailed(self._failure())
            elif overdue := self._overdue():
                self._process.kill()
                self._result = TrainingFailed(overdue)
        return self._result

    def kill(self) -> None:
        """Kill the training, unless it has finished."""
        self._process.kill()
        self._result = self._result or TrainingFailed("the training was stopped")

    def _overdue(self) -> str:
        now, beat, progress = self._clock(), 0, "starting"
        with suppress(OSError, ValueError, LookupError, TypeError):
            heartbeat = json.loads((self.folder / HEARTBEAT).read_text(encoding="utf-8"))
            beat, progress = heartbeat["beat"], f"{heartbeat['stage']} ({heartbeat['share']:.0%})"
        if beat != self._beat:
            self._beat, self._last_beat_at = beat, now
        if now - self._started > self._timeout:
            return f"the training took longer than {self._timeout:g} s; last progress: {progress}"
        if now - self._last_beat_at > self._silence:
            return f"the training sent no heartbeat for {self._silence:g} s; last progress: {progress}"
        return ""

    def _failure(self) -> str:
        with suppress(OSError):
            return (self.folder / REASON).read_text(encoding="utf-8", errors="replace")
        if self._process.exit_code == 0:
            return "the training process exited, but its result cannot be read"
        lines = [line.strip() for line in self._process.output.split("\n")]
        output = " / ".join([line for line in lines if line][-_QUOTED_LINES:])[-_QUOTED_CHARACTERS:]
        quoted = f"; its last output: {output}" if output else ""
        return f"the training process {self._process.describe_exit()}{quoted}"


class TrainingLauncher:
    """Starts the trainings of runs, one folder per attempt beside the store."""

    def __init__(self, settings: Settings, deployment: Deployment, store: Store, registry: ModelRegistry) -> None:
        self._settings, self._deployment = settings, deployment
        self._store, self._registry = store, registry
        self._root = settings.store.parent / RUNS

    def begin(self, run: Run, champion: int) -> RunningTraining:
        """Start an attempt on the traffic labelled up to the run's last update, to be compared with a version.

        Raises
        ------
        ServiceError, OSError
            If its files cannot be written, or no process can be started.
        """
        settings, folder = self._settings, self._folder(run)
        for directory in (*reversed(folder.parents[:2]), folder):
            directory.mkdir(mode=0o700, exist_ok=True)  # private: they hold customer data
        traffic = folder / TRAFFIC
        with self._store.read() as connection:
            rows = labelled_rows(connection, settings.name, limit=settings.retrain.traffic_rows, until=run.updated_at)
            written = write_traffic(traffic, ((row.features, row.label) for row in rows))
        spec = TrainingSpec(
            name=settings.name,
            label=settings.label,
            features=settings.features,
            data=str(settings.data),
            format=settings.format,
            functions=settings.functions,
            added=tuple(self._deployment.state.declarations),
            learner=learner_values(settings.learner),
            traffic=str(traffic) if written else None,
            champion=str(self._registry.path(champion)),
            schema=settings.table_schema.to_json(),
            time=settings.time,
            time_zone=settings.drift.time_zone,
            labels_from_functions=settings.labels_from_functions,
        )
        return start_training(folder, spec, timeout_seconds=settings.retrain.timeout_minutes * 60)

    def result(self, run: Run) -> TrainingResult | None:
        """Return the result of the last attempt of a run; None if it did not finish."""
        return read_result(self._folder(run))

    def delete(self, run: Run) -> None:
        """Delete the files of a run."""
        shutil.rmtree(self._folder(run).parent, ignore_errors=True)

    def delete_orphaned_runs(self) -> None:
        """Delete the files of ended runs, which a killed service leaves behind. Call before a run starts."""
        with self._store.read() as connection:
            run = active_run(connection, self._settings.name)
        active = None if run is None else self._folder(run).parent
        with suppress(FileNotFoundError):
            for path in self._root.iterdir():
                if path.name.isdecimal() and path != active:
                    shutil.rmtree(path, ignore_errors=True)

    def _folder(self, run: Run) -> Path:
        return self._root / f"{run.id:06d}" / f"attempt-{run.attempts}"


def start_training(
    folder: Path,
    spec: TrainingSpec,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    silence_seconds: float = SILENCE_SECONDS,
    clock: Callable[[], float] = monotonic,
) -> RunningTraining:
    """Start a training process that ends with this process.

    Parameters
    ----------
    folder
        Folder of the attempt; created if missing, cleared of earlier results, and closed to other users.
    spec
        Its paths are absolute, or relative to the working directory.
    clock
        Monotonic seconds, for the timeout and the silence.

    Raises
    ------
    ServiceError
        If the folder cannot be written, or the process cannot be started.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        shutil.rmtree(folder / CANDIDATE, ignore_errors=True)
        for name in (RESULT, REASON, HEARTBEAT):
            (folder / name).unlink(missing_ok=True)
        write_spec(folder, spec)
        process = ChildProcess("service.jobs.training.worker", folder, timeout_seconds, folder=folder)
    except OSError as error:
        raise ServiceError(f"the training in {folder} cannot start: {error}") from error
    return RunningTraining(folder, process, timeout_seconds, silence_seconds, clock)
