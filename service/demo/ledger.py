"""What the service has acknowledged, and whether the log says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from service.store import queries
from service.store.engine import Store

SETTLED = ("accepted", "corrected", "pending", "duplicate")
"""The outcomes of labels that count, or did when they were first sent."""


class Answer(NamedTuple):
    """The predicted class, who said so, and the slices that the row is in."""

    label: str
    version: int
    slices: tuple[str, ...]


class Logged(NamedTuple):
    """A row of the log: a prediction, and the label that counts for it."""

    id: str
    label: str
    version: int
    true: str | None


@dataclass(slots=True)
class Ledger:
    """Every prediction and label that was acknowledged.

    ``labels`` holds the label that counts in the end; labels are sent in the order in which they were observed.
    """

    predictions: dict[str, Answer] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)

    def answered(self, id_: str, answer: Answer) -> None:
        """Note an answer."""
        self.predictions[id_] = answer

    def labelled(self, id_: str, label: str, outcome: str) -> None:
        """Note a label, and what became of it."""
        self.outcomes[outcome] += 1
        if outcome in SETTLED:
            self.labels[id_] = label

    def accuracy(self, slice_: str, version: int, ids: Iterable[str]) -> tuple[int, int]:
        """Return the right and the labelled among the rows of a slice that a version has answered."""
        rows = [(id_, self.predictions[id_]) for id_ in ids if id_ in self.predictions and id_ in self.labels]
        of_it = [(id_, each.label) for id_, each in rows if each.version == version and slice_ in each.slices]
        return sum(self.labels[id_] == label for id_, label in of_it), len(of_it)

    def differences(self, logged: Sequence[Logged]) -> list[str]:
        """Return how the log differs from this, in sentences."""
        mine = {id_: (each.label, each.version) for id_, each in self.predictions.items()}
        there = {each.id: (each.label, each.version) for each in logged}
        counted = {each.id: each.true for each in logged if each.true is not None}
        return [
            *_said(len(logged) - len(there), "predictions are in the log more than once"),
            *_said(_missing(mine, there), "acknowledged predictions are not in the log"),
            *_said(_others(mine, there), "predictions are in the log with another answer"),
            *_said(_missing(there, mine), "predictions are in the log that nobody acknowledged"),
            *_said(_missing(self.labels, counted), "acknowledged labels do not count"),
            *_said(_others(self.labels, counted), "predictions have another label than the last one"),
            *_said(self.outcomes["rejected"], "labels were rejected"),
        ]


def read_log(path: Path, model: str) -> list[Logged]:
    """Return the whole log of a service that has stopped. Raises StoreInUse where one runs."""
    ever = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    with Store(path) as store, store.read() as connection:
        return [
            Logged(each.prediction.id, each.prediction.label, each.prediction.version, each.label)
            for each in queries.records(connection, model, since=ever[0], until=ever[1])
        ]


def _missing(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> int:
    return len(wanted.keys() - there.keys())


def _others(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> int:
    return sum(wanted[key] != there[key] for key in wanted.keys() & there.keys())


def _said(n: int, what: str) -> list[str]:
    return [f"{n:,} {what}"] if n else []
