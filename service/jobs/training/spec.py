"""What a training's process is told, in files of a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from service.errors import ServiceError

SPEC, TRAFFIC, BEAT, CANDIDATE, RESULT, REASON, WORDS = (
    "spec.json",
    "traffic.jsonl",
    "beat.json",
    "candidate",
    "result.json",
    "reason.txt",
    "words.txt",
)
"""In the folder: what is asked, labelled traffic, the sign of life, the candidate's bundle, what it came to, why
there is none, and what the process printed."""


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """What to train, on what, and which version to compare it with.

    Parameters
    ----------
    name
        Of the model.
    label
        The column to predict.
    features
        How each column is read, by name: ``text``, ``number`` or ``category``.
    data, format
        The project's rows: a file, or a public set, as in the settings.
    functions
        Files and modules of slicing functions.
    added
        Declarations of functions that were added while the service ran; one whose name the files define is set
        aside.
    learner
        Values of `models.config.LearnerConfig` by name, the seed among them; what is not there keeps its default.
    traffic
        The file of labelled traffic, as `write_traffic` writes it; None for none.
    champion
        The folder of the version to compare with; None for none.
    """

    name: str
    label: str
    features: Mapping[str, str]
    data: str
    format: str = "table"
    functions: Sequence[str] = ()
    added: Sequence[Mapping[str, Any]] = ()
    learner: Mapping[str, Any] = field(default_factory=dict)
    traffic: str | None = None
    champion: str | None = None

    def write(self, folder: Path) -> None:
        """Write it into a training's folder."""
        written = json.dumps({**asdict(self), "functions": list(self.functions), "added": list(self.added)})
        with open_private(folder / SPEC) as file:
            file.write(written.encode())

    @classmethod
    def read(cls, folder: Path) -> TrainingSpec:
        """Read what `write` wrote."""
        return cls(**json.loads((folder / SPEC).read_text(encoding="utf-8")))


def learner_values(
    kind: str,
    epochs: int | None = None,
    hidden: Sequence[int] | None = None,
    learning_rate: float | None = None,
    batch_rows: int | None = None,
    search_rows: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the learner's section of the settings by the learner's own names; None keeps its default.

    Examples
    --------
    >>> learner_values("erm", epochs=3)
    {'kind': 'erm', 'n_epochs': 3, 'seed': 0}
    """
    given = {
        "kind": kind,
        "n_epochs": epochs,
        "widths": hidden,
        "lr": learning_rate,
        "batch_size": batch_rows,
        "max_search_rows": search_rows,
        "seed": seed,
    }
    return {key: value for key, value in given.items() if value is not None}


def open_private(path: Path) -> BinaryIO:
    """Open a file to be written anew, which nobody else may read: it may quote what customers wrote."""
    path.unlink(missing_ok=True)  # one that is there has its own mode
    path.touch(mode=0o600)
    return path.open("wb")


def write_traffic(path: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Write labelled rows of traffic, each a record as JSON text and a label; return how many there were."""
    written = 0
    with open_private(path) as file:
        for features, label in rows:
            file.write(f'{{"features": {features}, "label": {json.dumps(label)}}}\n'.encode())
            written += 1
    return written


def read_traffic(path: Path) -> list[tuple[Mapping[str, Any], str]]:
    """Return the records and labels that `write_traffic` wrote.

    Raises
    ------
    ServiceError
        If a line is something else; it is named.
    """
    rows: list[tuple[Mapping[str, Any], str]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                record, label = row["features"], row["label"]
            except (ValueError, LookupError, TypeError) as error:
                raise ServiceError(f"{path}, line {number} is no labelled row: {error!r}") from error
            if not isinstance(record, dict) or not isinstance(label, str):
                raise ServiceError(f"{path}, line {number} is no labelled row: {line[:80]}")
            rows.append((record, label))
    return rows
