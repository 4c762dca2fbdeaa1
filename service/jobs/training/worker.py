"""Training process: reads and writes files, has no access to the store, and promotes nothing.

Slow imports are inside functions, after the first heartbeat.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias, cast

from service.decisions import PairedCounts
from service.errors import ServiceError
from service.jobs.child_process import attach_to_parent, write_atomically
from service.jobs.training.spec import (
    CANDIDATE,
    HEARTBEAT,
    REASON,
    RESULT,
    TrainingResult,
    TrainingSpec,
    read_spec,
    read_traffic,
    result_to_json,
)

if TYPE_CHECKING:
    from models.features import FeatureKind

Progress: TypeAlias = Callable[[str, float], None]
"""Takes the current stage, and the fraction of the training that is done."""

BEAT_SECONDS = 1.0

_TRAINING_FROM, _TRAINING_TO = 0.05, 0.9


class Heartbeat:
    """Writes the progress of the training into a file at regular intervals, from a thread of its own."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._progress = ("starting", 0.0)
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start with a first beat."""
        self._thread.start()

    def stop(self) -> None:
        """Stop with a last beat."""
        self._stop.set()
        self._thread.join()

    def report(self, stage: str, share: float) -> None:
        """Set the progress that the next beat writes."""
        self._progress = (stage, share)

    def _run(self) -> None:
        beat, last = 0, False
        while not last:
            last = self._stop.wait(BEAT_SECONDS if beat else 0)
            beat += 1
            stage, share = self._progress
            with suppress(OSError):
                write_atomically(self._file, json.dumps({"beat": beat, "stage": stage, "share": share}))


def main(folder: Path, timeout_seconds: float) -> None:
    """Train and compare; write the result, or write the reason and exit with code 1."""
    attach_to_parent(timeout_seconds)
    heartbeat = Heartbeat(folder / HEARTBEAT)
    heartbeat.start()
    from models.errors import ModelError
    from sfs.errors import SliceError

    reason = ""
    try:
        result = train_candidate(read_spec(folder), folder, heartbeat.report)
        write_atomically(folder / RESULT, result_to_json(result))
    except (ModelError, SliceError, ServiceError, OSError) as error:
        reason = str(error) or type(error).__name__
    except MemoryError:
        reason = "not enough memory"
    except Exception as error:  # its message may quote a row
        traceback.print_exc()
        reason = f"unexpected {type(error).__name__}; SLICEWATCH_DEBUG=1 logs the traceback: please report it"
    heartbeat.stop()
    if reason:
        write_atomically(folder / REASON, reason)
        sys.exit(1)


def train_candidate(spec: TrainingSpec, folder: Path, progress: Progress) -> TrainingResult:
    """Train a candidate, save its bundle in a folder, and compare it with the champion.

    Raises
    ------
    ModelError, SliceError, ServiceError, OSError
        If the rows, the functions, the configuration or the champion cannot be used.
    """
    import numpy as np

    from models.bundle.model_bundle import ModelBundle
    from models.classes import class_names, read_known_labels
    from models.config import LearnerConfig, TrainConfig
    from models.errors import ConfigError
    from models.features import FeatureSpec
    from models.paired_comparison import compare_paired, held_out_for
    from models.splits import content_hashes
    from models.training import train
    from models.training_rows import DataSource, with_traffic
    from sfs.declarations import from_declaration
    from sfs.function import LabelingFunctionSlice
    from sfs.registry import FunctionSet
    from sfs.schema import Schema

    started = monotonic()
    progress("reading", 0.0)
    champion = None if spec.champion is None else ModelBundle.load(spec.champion)
    features = tuple(FeatureSpec(column, cast("FeatureKind", kind)) for column, kind in spec.features.items())
    text = tuple(feature.column for feature in features if feature.kind == "text")
    schema = Schema.from_json(spec.schema)
    if champion is not None and champion.featurizer.specs == features:
        schema = schema.joined(champion.schema)
    base = DataSource(Path(spec.data), spec.format, text, spec.label, schema).read()
    traffic = [] if spec.traffic is None else read_traffic(Path(spec.traffic))
    of_files = FunctionSet.from_files(spec.functions, votes=True)
    added = [from_declaration(entry) for entry in spec.added if entry["name"] not in of_files]
    columns = {*map(str, base.columns), *(name for record, _ in traffic for name in record)}
    # An added function that reads a column of no row would fail every training, and nothing can be learned from it.
    aside = [function.name for function in added if not set(function.fields) <= columns]
    slices = [function for function in of_files if not isinstance(function, LabelingFunctionSlice)]
    functions = FunctionSet([*slices, *(function for function in added if function.name not in aside)])
    rows = with_traffic(base, traffic, spec.label, features, functions, schema)
    counts = {"base_rows": rows.base, "traffic_rows": rows.traffic, "traffic_left_out": rows.left_out}

    learner = dict(spec.learner)
    if "widths" in learner:
        learner["widths"] = tuple(learner["widths"])
    fitted = LearnerConfig(**learner)
    labeling = of_files.labeling_functions if spec.labels_from_functions else ()
    if spec.labels_from_functions and not labeling:
        raise ConfigError("labels are from functions, and no file has a labeling function: add one, or label all rows")
    config = TrainConfig(
        spec.label, features, functions, fitted, spec.name, rows.schema, spec.time, spec.time_zone, labeling
    )
    if labeling:  # positions of classes are those of the table, whatever classes traffic adds
        known = [label for label in read_known_labels(rows.frame.iloc[: rows.base], spec.label) if label is not None]
        config = replace(config, vote_classes=class_names(known, spec.label))
    trained = train(
        config,
        rows.frame,
        progress=lambda stage, share: progress(stage, _TRAINING_FROM + (_TRAINING_TO - _TRAINING_FROM) * share),
    )
    candidate = replace(trained, lineage={**trained.lineage, "data": counts})

    progress("comparing with the champion", _TRAINING_TO)
    held_out = held_out_for((candidate,) if champion is None else (champion, candidate), rows.frame)
    held_out &= np.array([label is not None for label in read_known_labels(rows.frame, spec.label)])
    contents = content_hashes(rows.frame, features)
    cells = () if champion is None else compare_paired(champion, candidate, rows.frame[held_out], functions)
    candidate.save(folder / CANDIDATE)
    progress("done", 1.0)
    data = {
        **counts,
        "contents": len(np.unique(contents)),
        "held_out_rows": int(held_out.sum()),
        "held_out_traffic_rows": int(held_out[rows.base :].sum()),
        "held_out_contents": len(np.unique(contents[held_out])),
        "held_out_rows_of_slices": {cell.slice: cell.rows for cell in cells if cell.rows > cell.n},
        "functions_set_aside": aside,
        **({} if candidate.report.labels is None else {"function_labels": candidate.report.labels.labelled}),
        "seconds": round(monotonic() - started, 1),
    }
    pairs = tuple(
        PairedCounts(cell.slice, cell.n, cell.both, cell.only_champion, cell.only_candidate) for cell in cells
    )
    return TrainingResult(folder / CANDIDATE, pairs, data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
