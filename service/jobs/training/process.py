"""Training in a child process, seen from the service: begun, looked at, and ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from models.registry import ModelRegistry
from service.decisions import PairedCounts, Run
from service.errors import ServiceError
from service.jobs.training.spec import (
    BEAT,
    CANDIDATE,
    REASON,
    RESULT,
    TRAFFIC,
    WORDS,
    TrainingSpec,
    learner_values,
    open_private,
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

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_QUOTED_LINES, _QUOTED_CHARS = 3, 600
_COUNTS = ("n", "both", "only_champion", "only_candidate")


class Progress(NamedTuple):
    """What a training is doing, and the share of the whole that is done."""

    stage: str
    share: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training came to.

    Parameters
    ----------
    candidate, hash
        The folder of the candidate's bundle, and its hash.
    pairs
        Champion and candidate on the contents of held-out rows, of all rows first, then of every slice; none
        without a champion.
    data
        What it was trained and compared on: ``base_rows``, ``traffic_rows``, ``traffic_left_out``, ``contents``
        (different ones, of all rows), ``held_out_rows`` (compared), ``held_out_traffic_rows`` (among these),
        ``held_out_contents``, ``held_out_rows_of_slices`` (where these are more than a slice's contents),
        ``functions_set_aside`` (names of added functions that read what no row has), and
        ``seconds``.
    """

    candidate: Path
    hash: str
    pairs: tuple[PairedCounts, ...]
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """Why there is no candidate, in a sentence or two."""

    reason: str


class RunningTraining:
    """A training that was begun. Not to be called from two threads at once.

    Parameters
    ----------
    folder
        Its own.
    process
        That trains.
    timeout_seconds
        When it is killed.
    silence_seconds
        How long it may be without a sign of life until it is killed.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        process: subprocess.Popen[bytes],
        timeout_seconds: float,
        silence_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.folder = folder
        self._process, self._clock = process, clock
        self._timeout, self._silence = timeout_seconds, silence_seconds
        self._begun = self._heard = clock()
        self._beat = 0
        self._ended: TrainingResult | TrainingFailed | None = None
        self._end = weakref.finalize(self, _kill, process)

    @property
    def pid(self) -> int:
        """Of the process, which leads a group of its own."""
        return self._process.pid

    def poll(self) -> TrainingResult | TrainingFailed | None:
        """Return how it ended, or None while it goes on; kill it if that has been for too long, or silently."""
        if self._ended is None:
            if _has_ended(self._process):
                self._end()
                self._ended = read_result(self.folder) or _failed(self.folder, self._process.returncode)
            elif overdue := self._overdue():
                self._end()
                self._ended = TrainingFailed(overdue)
        return self._ended

    def progress(self) -> Progress:
        """Return where it stands; that is at most seconds old."""
        return _beat(self.folder)[1]

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._end()
        self._ended = self._ended or TrainingFailed("the training was ended before it was done")

    def _overdue(self) -> str:
        now, (beat, (stage, share)) = self._clock(), _beat(self.folder)
        if beat != self._beat:
            self._beat, self._heard = beat, now
        where = f"it was at {share:.0%}: {stage}"
        if now - self._begun > self._timeout:
            return f"the training took longer than {self._timeout:g} s; {where}"
        if now - self._heard > self._silence:
            return f"the training gave no sign of life for {self._silence:g} s; {where}"
        return ""


class TrainingLauncher:
    """Starts the trainings of runs in child processes, each in a folder of its own beside the store.

    Parameters
    ----------
    settings
        Settings of the project.
    deployment
        Knows the functions added over HTTP.
    store
        Labelled traffic.
    registry
        Holds the champion.
    """

    def __init__(
        self, settings: Settings, deployment: Deployment, store: Store, registry: ModelRegistry
    ) -> None:
        self._settings, self._deployment = settings, deployment
        self._store, self._registry = store, registry
        self._root = settings.store.parent / RUNS

    def begin(self, run: Run, champion: int) -> RunningTraining:
        """Start an attempt of a run, to be compared with a version, on all traffic labelled until its last update.

        Raises
        ------
        ServiceError, OSError
            If its files cannot be written, or no process can be started.
        """
        settings, folder = self._settings, self._folder(run)
        for each in (*reversed(folder.parents[:2]), folder):  # private: they hold what customers wrote
            each.mkdir(mode=0o700, exist_ok=True)
        traffic = folder / TRAFFIC
        with self._store.read() as connection:
            rows = labelled_rows(
                connection, settings.name, limit=settings.retrain.traffic_rows, until=run.updated_at
            )
            written = write_traffic(traffic, ((each.features, each.label) for each in rows))
        spec = TrainingSpec(
            name=settings.name,
            label=settings.label,
            features=settings.features,
            data=str(settings.data),
            format=settings.format,
            functions=settings.functions,
            added=self._deployment.state.declarations,
            learner=learner_values(**asdict(settings.learner)),
            traffic=str(traffic) if written else None,
            champion=str(self._registry.path(champion)),
        )
        return begin(folder, spec, timeout_seconds=settings.retrain.timeout_minutes * 60)

    def result(self, run: Run) -> TrainingResult | None:
        """Return the result of the last attempt of a run; None if it did not finish."""
        return read_result(self._folder(run))

    def delete(self, run: Run) -> None:
        """Delete the files of a run."""
        shutil.rmtree(self._folder(run).parent, ignore_errors=True)

    def delete_orphaned_runs(self) -> None:
        """Delete the files of every run that has ended: a killed service leaves some. Call before any run begins."""
        with self._store.read() as connection:
            run = active_run(connection, self._settings.name)
        active = None if run is None else self._folder(run).parent
        with suppress(FileNotFoundError):
            for each in self._root.iterdir():
                if each.name.isdecimal() and each != active:
                    shutil.rmtree(each, ignore_errors=True)

    def _folder(self, run: Run) -> Path:
        return self._root / f"{run.id:06d}" / f"attempt-{run.attempts}"


def begin(
    folder: Path,
    spec: TrainingSpec,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    silence_seconds: float = SILENCE_SECONDS,
    clock: Callable[[], float] = monotonic,
) -> RunningTraining:
    """Begin to train in a process of its own, which ends with this one.

    Parameters
    ----------
    folder
        The training's own; made if need be, cleared of what an earlier attempt left, and closed to other users:
        it holds what customers wrote.
    spec
        What to train; its paths are absolute, or relative to where this process works.
    timeout_seconds, silence_seconds, clock
        As for `RunningTraining`.

    Raises
    ------
    ServiceError
        If the folder cannot be written, or there can be no more processes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        shutil.rmtree(folder / CANDIDATE, ignore_errors=True)
        for name in (RESULT, REASON, BEAT):
            (folder / name).unlink(missing_ok=True)
        spec.write(folder)
        process = _started(folder, timeout_seconds)
    except OSError as error:
        raise ServiceError(f"the training in {folder} cannot begin: {error}") from error
    return RunningTraining(folder, process, timeout_seconds, silence_seconds, clock)


def read_result(folder: Path) -> TrainingResult | None:
    """Return what the training in a folder came to, or None where it did not come to its end.

    After a restart it tells whether the training was done before; one that another version of the service left,
    and that cannot be understood, was not.
    """
    with suppress(OSError, ValueError, LookupError, TypeError):
        said = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        if isinstance(said["hash"], str) and isinstance(said["data"], dict):
            pairs = tuple(map(_pairs, said["cells"]))
            return TrainingResult(folder / CANDIDATE, said["hash"], pairs, said["data"])
    return None


def register(registry: ModelRegistry, folder: Path) -> int:
    """Put a candidate into the registry and return its version; once more it has the same.

    Raises
    ------
    BundleError
        If the bundle in the folder is not as it was written.
    """
    from models.bundle.model_bundle import ModelBundle  # brings torch

    return registry.put(ModelBundle.load(folder))


def _started(folder: Path, timeout_seconds: float) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, sys.path))  # so that modules are found where they are found here
    command = [sys.executable, "-P", "-m", "service.jobs.training.worker", str(folder), str(timeout_seconds)]
    with open_private(folder / WORDS) as words:
        return subprocess.Popen(  # noqa: S603  # our own module
            command,
            stdin=subprocess.PIPE,  # never written to: it ends when this process does
            stdout=words,
            stderr=words,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
            start_new_session=True,  # or Ctrl-C would reach it
            umask=0o077,  # what it writes is for nobody else
        )


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process has ended, and leave its number its own: the group has yet to be killed."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that nobody has waited for, and what its functions have started, which may outlive it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _beat(folder: Path) -> tuple[int, Progress]:
    """Return the number of the last sign of life, 0 before the first, and what it said."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        said = json.loads((folder / BEAT).read_text(encoding="utf-8"))
        return int(said["beat"]), Progress(str(said["stage"]), float(said["share"]))
    return 0, Progress("starting", 0.0)


def _pairs(cells: Mapping[str, Any]) -> PairedCounts:
    """Return what was counted on one slice, if such counts can be."""
    n, *right = (cells[each] for each in _COUNTS)
    if not all(type(each) is int and each >= 0 for each in (n, *right)) or sum(right) > n:
        raise ValueError(f"no counts of a slice: {cells}")
    return PairedCounts(str(cells["slice"]), n, *right)


def _failed(folder: Path, code: int) -> TrainingFailed:
    """Return the reason that the process left, or how it ended and what it said last."""
    with suppress(OSError):
        return TrainingFailed((folder / REASON).read_text(encoding="utf-8", errors="replace"))
    if code == 0:
        return TrainingFailed("the training ended, and what it left as its result cannot be read")
    how = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with code {code}"
    last = _last_words(folder)
    said = f"; it said last: {last}" if last else ""
    return TrainingFailed(f"the process of the training ended {how}{said}")


def _last_words(folder: Path) -> str:
    with suppress(OSError):
        lines = (folder / WORDS).read_text(encoding="utf-8", errors="replace").split("\n")
        return " / ".join([line.strip() for line in lines if line.strip()][-_QUOTED_LINES:])[-_QUOTED_CHARS:]
    return ""
