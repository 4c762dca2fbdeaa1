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
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from models.registry import ModelRegistry
from service.decisions import Pairs
from service.errors import ServiceError
from service.jobs.training_spec import BEAT, CANDIDATE, REASON, RESULT, WORDS, TrainingSpec

TIMEOUT_SECONDS = 7200.0
SILENCE_SECONDS = 120.0

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_QUOTED_LINES, _QUOTED_CHARS = 3, 600


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
        Champion and candidate on the held-out rows, of all rows first, then of every slice; none without a
        champion.
    data
        What it was trained and compared on: ``base_rows``, ``traffic_rows``, ``traffic_left_out``, ``contents``
        (different ones, of all rows), ``held_out_rows`` (compared), ``held_out_traffic_rows`` (among these),
        ``held_out_contents``, ``functions_set_aside`` (names of added functions that read what no row has), and
        ``seconds``.
    contents
        Different contents among the rows of each of the pairs, by slice.
    """

    candidate: Path
    hash: str
    pairs: tuple[Pairs, ...]
    data: Mapping[str, Any]
    contents: Mapping[str, int]


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
        self._beat: int | None = None
        self._ended: TrainingResult | TrainingFailed | None = None
        self._end = weakref.finalize(self, _kill, process)

    @property
    def pid(self) -> int:
        """Of the process, which leads a group of its own."""
        return self._process.pid

    def poll(self) -> TrainingResult | TrainingFailed | None:
        """Return how it ended, or None while it goes on; kill it if that has been for too long, or silently."""
        if self._ended is None:
            code = self._process.poll()
            if code is not None:
                self._end()
                self._ended = read_result(self.folder) or _failed(self.folder, code)
            elif overdue := self._overdue():
                self._end()
                self._ended = TrainingFailed(overdue)
        return self._ended

    def progress(self) -> Progress:
        """Return where it stands; that is at most seconds old."""
        said = _beat(self.folder)
        return Progress("starting", 0.0) if said is None else Progress(said["stage"], said["share"])

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._end()
        self._ended = self._ended or TrainingFailed("the training was ended before it was done")

    def _overdue(self) -> str:
        now, said = self._clock(), _beat(self.folder)
        if said is not None and said["beat"] != self._beat:
            self._beat, self._heard = said["beat"], now
        stage, share = self.progress()
        where = f"it was at {share:.0%}: {stage}"
        if now - self._begun > self._timeout:
            return f"the training took longer than {self._timeout:g} s; {where}"
        if now - self._heard > self._silence:
            return f"the training gave no sign of life for {self._silence:g} s; {where}"
        return ""


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
        The training's own; made if need be, and cleared of what an earlier attempt left.
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

    After a restart it tells whether the training was done before.
    """
    try:
        said = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    contents = {each["slice"]: each.pop("contents") for each in said["cells"]}
    pairs = tuple(Pairs(**each) for each in said["cells"])
    return TrainingResult(folder / CANDIDATE, said["hash"], pairs, said["data"], contents)


def register(registry: ModelRegistry, folder: Path) -> int:
    """Put a candidate into the registry and return its version; once more it has the same.

    Raises
    ------
    BundleError
        If the bundle in the folder is not as it was written.
    """
    from models.bundle import ModelBundle  # brings torch

    return registry.put(ModelBundle.load(folder))


def _started(folder: Path, timeout_seconds: float) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, sys.path))  # so that modules are found where they are found here
    command = [sys.executable, "-P", "-m", "service.jobs.training_child", str(folder), str(timeout_seconds)]
    with (folder / WORDS).open("wb") as words:
        return subprocess.Popen(  # noqa: S603  # our own module
            command,
            stdin=subprocess.PIPE,  # never written to: it ends when this process does
            stdout=words,
            stderr=words,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
            start_new_session=True,  # or Ctrl-C would reach it
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what functions have started
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _beat(folder: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        said: dict[str, Any] = json.loads((folder / BEAT).read_text(encoding="utf-8"))
        return said
    return None


def _failed(folder: Path, code: int) -> TrainingFailed:
    """Return the reason that the process left, or how it ended and what it said last."""
    with suppress(OSError):
        return TrainingFailed((folder / REASON).read_text(encoding="utf-8"))
    how = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with code {code}"
    lines = (folder / WORDS).read_text(encoding="utf-8", errors="replace").split("\n")
    last = " / ".join([line.strip() for line in lines if line.strip()][-_QUOTED_LINES:])[-_QUOTED_CHARS:]
    said = f"; it said last: {last}" if last else ""
    return TrainingFailed(f"the process of the training ended {how}{said}")
