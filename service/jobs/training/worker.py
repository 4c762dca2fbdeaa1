"""The process that trains: it reads files, and writes files; it knows no store, and promotes nothing.

It is run as a module with a folder and how long it may take. It ends when its standard input does, which nobody
writes to: its parent has gone then. A sign of life comes from the first line on, so that what is slow to load is
loaded later.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, TypeAlias, cast

import numpy as np

from models.bundle.model_bundle import ModelBundle
from models.config import LearnerConfig, TrainConfig
from models.features import FeatureKind, FeatureSpec
from models.paired_comparison import PairedCells, compare_paired, held_out_for
from models.splits import content_hashes
from models.training import train
from models.training_rows import DataSource, TrainingRows, with_traffic
from service.errors import ServiceError
from service.jobs.training.spec import BEAT, CANDIDATE, REASON, RESULT, TrainingSpec, read_traffic
from sfs.declarations import from_declaration
from sfs.function import LabelingFunctionSlice
from sfs.registry import FunctionSet

BEAT_SECONDS = 1.0
_NICER = 10
_GRACE_SECONDS = 60.0


class Heartbeat:
    """Writes where the training stands, again and again, from a thread of its own.

    Parameters
    ----------
    file
        Replaced at every beat.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._beats = file, 0
        self._at = ("starting", 0.0)
        self._stop = Event()
        self._thread = Thread(target=self._beat, daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """End with a last beat."""
        self._stop.set()
        self._thread.join()

    def tell(self, stage: str, share: float) -> None:
        """Say what is being done, and the share of the whole that is done."""
        self._at = (stage, share)

    def _beat(self) -> None:
        more = True
        while more:
            more = not self._stop.wait(BEAT_SECONDS if self._beats else 0)
            self._beats += 1
            stage, share = self._at
            with suppress(OSError):
                write_atomically(
                    self._file, json.dumps({"beat": self._beats, "stage": stage, "share": share})
                )


def main(folder: Path, timeout_seconds: float) -> None:
    """Train and compare; leave the result, or else the reason, and end with code 1."""
    _settle(timeout_seconds)
    heart = Heartbeat(folder / BEAT)
    heart.start()
    from models.errors import ModelError  # what is slow to load comes after the first beat
    from sfs.errors import SliceError

    reason = ""
    try:
        made = train_candidate(TrainingSpec.read(folder), folder, heart.tell)
        write_atomically(folder / RESULT, json.dumps(made))
    except (ModelError, SliceError, ServiceError, OSError) as error:
        reason = str(error) or type(error).__name__
    except MemoryError:
        reason = "there was not enough memory"
    heart.stop()
    if reason:
        write_atomically(folder / REASON, reason)
        sys.exit(1)


def write_atomically(file: Path, text: str) -> None:
    """Write a file that is there whole, or as it was before."""
    beside = file.with_name(f".{file.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def _settle(timeout_seconds: float) -> None:
    """Take a place behind the service, and end with it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes, to make the service stop orderly
        signal.signal(number, signal.SIG_IGN)
    # A function may hold the interpreter for ever, and the service be gone, which no thread here would notice.
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds + _GRACE_SECONDS)
    Thread(target=_end_with_parent, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICER)
    with suppress(OSError):  # if memory runs out, the kernel should take this process, not the service
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)  # and what functions have started


Tell: TypeAlias = Callable[[str, float], object]

_TRAINING_FROM, _TRAINING_TO = 0.05, 0.9


@dataclass(frozen=True, slots=True)
class _Given:
    """What is trained on: rows, functions, and the names of those that no row can tell of."""

    rows: TrainingRows
    functions: FunctionSet
    set_aside: list[str]


def train_candidate(spec: TrainingSpec, folder: Path, tell: Tell) -> dict[str, Any]:
    """Train a candidate, save its bundle, and return as JSON values what it came to beside the champion.

    Parameters
    ----------
    spec
        What is asked.
    folder
        Where the bundle is saved, under a name of its own.
    tell
        Told what is being done and the share of the whole that is done.

    Raises
    ------
    ModelError, SliceError, ServiceError, OSError
        If the rows, the functions, the configuration or the champion are not fit for it.
    """
    begun = monotonic()
    tell("reading", 0.0)
    champion = None if spec.champion is None else ModelBundle.load(spec.champion)
    kinds = cast("Mapping[str, FeatureKind]", spec.features)
    features = tuple(FeatureSpec(column, kind) for column, kind in kinds.items())
    given = _read(spec, features)
    config = TrainConfig(spec.label, features, given.functions, _learner(spec), spec.name)

    def progress(stage: str, share: float) -> None:
        tell(stage, _TRAINING_FROM + (_TRAINING_TO - _TRAINING_FROM) * share)

    made = train(config, given.rows.frame, progress=progress)
    rows = {
        "base_rows": given.rows.base,
        "traffic_rows": given.rows.traffic,
        "traffic_left_out": given.rows.left_out,
    }
    candidate = replace(made, lineage={**made.lineage, "data": rows})
    tell("comparing with the champion", _TRAINING_TO)
    counts, cells = _compared(champion, candidate, given)
    repeated = {each.slice: each.rows for each in cells if each.rows > each.n}
    candidate.save(folder / CANDIDATE)
    tell("done", 1.0)
    seconds = round(monotonic() - begun, 1)
    data = {
        **rows,
        **counts,
        "held_out_rows_of_slices": repeated,
        "functions_set_aside": given.set_aside,
        "seconds": seconds,
    }
    return {"hash": candidate.hash, "data": data, "cells": [asdict(each) for each in cells]}


def _read(spec: TrainingSpec, features: tuple[FeatureSpec, ...]) -> _Given:
    text = tuple(each.column for each in features if each.kind == "text")
    base = DataSource(Path(spec.data), spec.format, text, spec.label).read()
    traffic = [] if spec.traffic is None else read_traffic(Path(spec.traffic))
    of_files = FunctionSet.from_files(spec.functions, votes=True)
    added = [from_declaration(each) for each in spec.added if each["name"] not in of_files]
    there = {*map(str, base.columns), *(name for record, _ in traffic for name in record)}
    # one that was added and reads what no row has would end every training; nothing can be learned of it
    aside = [each.name for each in added if not set(each.fields) <= there]
    slices = [each for each in of_files if not isinstance(each, LabelingFunctionSlice)]
    functions = FunctionSet([*slices, *(each for each in added if each.name not in aside)])
    return _Given(with_traffic(base, traffic, spec.label, features, functions), functions, aside)


def _learner(spec: TrainingSpec) -> LearnerConfig:
    values = dict(spec.learner)
    if "widths" in values:
        values["widths"] = tuple(values["widths"])
    return LearnerConfig(**values)


def _compared(
    champion: ModelBundle | None, candidate: ModelBundle, given: _Given
) -> tuple[dict[str, int], tuple[PairedCells, ...]]:
    """Compare on the rows that are held out for both; return how many there are, and how both fare."""
    frame = given.rows.frame
    both = (candidate,) if champion is None else (champion, candidate)
    held = held_out_for(both, frame)
    contents = content_hashes(frame, candidate.featurizer.specs)
    counts = {
        "contents": len(np.unique(contents)),
        "held_out_rows": int(held.sum()),
        "held_out_traffic_rows": int(held[given.rows.base :].sum()),
        "held_out_contents": len(np.unique(contents[held])),
    }
    if champion is None:
        return counts, ()
    return counts, compare_paired(champion, candidate, frame[held], given.functions)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
