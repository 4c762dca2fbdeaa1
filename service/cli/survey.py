"""One pass over a project's rows: the first batch, a random sample of all, and what is wrong with the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.cli.project import blank_rows, project_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from service.settings.project import Settings

SAMPLE_ROWS = 1000
SEED = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass found: rows in all, the first batch, a sample in which each is as likely, the classes."""

    rows: int
    first: pd.DataFrame
    sample: pd.DataFrame
    classes: tuple[str, ...]


class Labels:
    """The classes and blanks of a label column, batch by batch."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._classes: dict[str, None] = {}
        self._blank: list[int] = []
        self._rows = 0
        self._fault: str | None = None

    def add(self, batch: pd.DataFrame) -> None:
        """Read one batch; nothing if it lacks the column, which is told elsewhere."""
        from models.classes import read_labels
        from models.errors import ModelError

        if self.column not in map(str, batch.columns):
            return
        here = blank_rows(batch[self.column])
        try:
            self._classes |= dict.fromkeys(read_labels(batch.drop(index=batch.index[here]), self.column))
        except ModelError as error:
            self._fault = self._fault or str(error)
        self._blank += [self._rows + row for row in here]
        self._rows += len(batch)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that occurred."""
        return tuple(self._classes)

    def problems(self) -> Iterator[str]:
        """Yield what a training would refuse."""
        from models.classes import class_names
        from models.errors import ModelError

        if self._fault:
            yield f"label: {self._fault}"
        elif self._rows:
            try:
                class_names(list(self._classes), self.column)
            except ModelError as error:
                yield f"label: {error}"
        if self._blank:
            yield (
                f"label: {len(self._blank):,} of {self._rows:,} rows have no {self.column!r}, first in row "
                f"{self._blank[0]} (from 0): fill them in or leave those rows out"
            )


def survey(settings: Settings, problems: list[str]) -> Survey | None:
    """Read all rows once, in bounded memory; None, with the problem told, where they cannot be read."""
    from models.errors import ModelError
    from sfs.errors import SliceError

    labels, found = Labels(settings.label), None
    try:
        found = _read(settings, labels)
    except (SliceError, ModelError, OSError) as error:
        problems.append(f"data: {error}")
    problems += labels.problems()
    return found


def _read(settings: Settings, labels: Labels) -> Survey | None:
    import numpy as np

    random = np.random.default_rng(SEED)
    rows, first = 0, None
    kept: list[tuple[Any, pd.DataFrame]] = []
    for batch in project_source(settings).batches():
        first = batch if first is None else first
        labels.add(batch)
        rows += len(batch)
        kept = _smallest([*kept, (random.random(len(batch)), batch)])
    if first is None:
        return None
    return Survey(rows, first, kept[0][1].reset_index(drop=True), labels.classes)


def _smallest(parts: list[tuple[Any, pd.DataFrame]]) -> list[tuple[Any, pd.DataFrame]]:
    """Keep the rows of the smallest keys, in their order."""
    import numpy as np
    import pandas as pd

    keys = np.concatenate([keys for keys, _ in parts])
    chosen = np.sort(np.argsort(keys, kind="stable")[:SAMPLE_ROWS])
    starts = np.cumsum([0, *(len(keys) for keys, _ in parts)])
    frames = [
        frame.iloc[chosen[(chosen >= start) & (chosen < start + len(frame))] - start]
        for (_, frame), start in zip(parts, starts[:-1], strict=True)
    ]
    return [(keys[chosen], pd.concat([frame for frame in frames if len(frame)]))]
