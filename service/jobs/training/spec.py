"""Files exchanged by the service and a training process, in the folder of the attempt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter

from models.bundle.files import create_private
from service.decisions import PairedCounts
from service.errors import ServiceError
from service.settings.schema import LearnerSettings

SPEC, TRAFFIC, HEARTBEAT = "spec.json", "traffic.jsonl", "heartbeat.json"
CANDIDATE, RESULT, REASON = "candidate", "result.json", "reason.txt"
"""Folder of the candidate's bundle; the result; or the reason why there is none."""


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """Input of a training.

    Parameters
    ----------
    features
        Kind of every feature column: ``text``, ``number`` or ``category``.
    data, format
        The project's rows: a file or a public data set, as in the settings.
    functions, added
        Files and modules of slicing functions, and declarations of those added over HTTP; a name in files wins.
    learner
        Values of `models.config.LearnerConfig` by name; a missing one keeps its default.
    traffic
        File of labelled traffic, see `write_traffic`; None for none.
    champion
        Folder of the version to compare with; None for none.
    schema
        Types of columns in the project's settings, as JSON values.
    time, time_zone
        Column with the time of the project's rows, if any, and the time zone of their season.
    labels_from_functions
        Whether the labeling functions in ``functions`` label the project's rows without a label.
    """

    name: str
    label: str
    features: Mapping[str, str]
    data: str
    format: str = "table"
    functions: tuple[str, ...] = ()
    added: tuple[Mapping[str, Any], ...] = ()
    learner: Mapping[str, Any] = field(default_factory=dict)
    traffic: str | None = None
    champion: str | None = None
    schema: list[dict[str, Any]] = field(default_factory=list)
    time: str | None = None
    time_zone: str = "UTC"
    labels_from_functions: bool = False


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Output of a training.

    Parameters
    ----------
    candidate
        Folder of the candidate's bundle.
    pairs
        Champion and candidate on the contents of held-out rows: all rows first, then every slice; empty
        without a champion.
    data
        Rows of the training and the comparison, as JSON values: ``base_rows``, ``traffic_rows``,
        ``traffic_left_out``, ``contents`` (distinct ones of all rows), ``held_out_rows`` (compared),
        ``held_out_traffic_rows`` (among these), ``held_out_contents``, ``held_out_rows_of_slices`` (if more
        than the slice's contents), ``functions_set_aside`` (added functions that read a column of no row),
        ``function_labels`` (training rows with a label of functions, if there are any), and ``seconds``.
    """

    candidate: Path
    pairs: tuple[PairedCounts, ...]
    data: Mapping[str, Any]


_LEARNER_NAMES = {
    "epochs": "n_epochs",
    "hidden": "widths",
    "learning_rate": "lr",
    "batch_rows": "batch_size",
    "search_rows": "max_search_rows",
}
_SPEC, _RESULT = TypeAdapter(TrainingSpec), TypeAdapter(TrainingResult)


def write_spec(folder: Path, spec: TrainingSpec) -> None:
    """Write a specification into the folder of an attempt."""
    with open_private(folder / SPEC) as file:
        file.write(json.dumps(asdict(spec)).encode())  # unlike pydantic, of paths that are not UTF-8 too


def read_spec(folder: Path) -> TrainingSpec:
    """Return the specification in the folder of an attempt."""
    return _SPEC.validate_python(json.loads((folder / SPEC).read_bytes()))


def result_to_json(result: TrainingResult) -> str:
    """Return a result as JSON text, with the candidate's folder relative to that of the attempt."""
    return _RESULT.dump_json(replace(result, candidate=Path(CANDIDATE))).decode()


def read_result(folder: Path) -> TrainingResult | None:
    """Return the result in the folder of an attempt; None if there is none, or another release wrote it."""
    with suppress(OSError, ValueError):
        result = _RESULT.validate_json((folder / RESULT).read_bytes(), strict=True)
        for pair in result.pairs:
            right = pair.both, pair.only_champion, pair.only_candidate
            if min(right) < 0 or sum(right) > pair.n:
                return None
        return replace(result, candidate=folder / CANDIDATE)
    return None


def learner_values(settings: LearnerSettings) -> dict[str, Any]:
    """Return the ``learner`` section of the settings by the learner's own names; None keeps its default.

    Examples
    --------
    >>> learner_values(LearnerSettings("erm", epochs=3))
    {'kind': 'erm', 'n_epochs': 3, 'seed': 0}
    """
    return {_LEARNER_NAMES.get(name, name): value for name, value in settings.given.items()}


def open_private(path: Path) -> BinaryIO:
    """Create a file that only this user can read: it may quote customers. An existing one is replaced."""
    path.unlink(missing_ok=True)  # it has a mode of its own
    return create_private(path)


def write_traffic(path: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Write labelled rows, pairs of a record as JSON text and a label; return their number."""
    written = 0
    with open_private(path) as file:
        for features, label in rows:
            file.write(f'{{"features": {features}, "label": {json.dumps(label)}}}\n'.encode())
            written += 1
    return written


def read_traffic(path: Path) -> list[tuple[Mapping[str, Any], str]]:
    """Return the records and labels of `write_traffic`; ServiceError if a line is not a labelled row."""
    rows: list[tuple[Mapping[str, Any], str]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                record, label = row["features"], row["label"]
            except (ValueError, LookupError, TypeError):
                record, label = None, None
            if not isinstance(record, dict) or not isinstance(label, str):
                raise ServiceError(f"{path}, line {number}: not a labelled row")
            rows.append((record, label))
    return rows
