"""Records for people: features in few words, and which classes were confused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHORT_CHARACTERS = 140
WHOLE_CHARACTERS = 4000
MOST_CLASSES = 12
MOST_PAIRS = 30


@dataclass(frozen=True, slots=True)
class FeaturesText:
    """Features in a line, and whole where the line leaves something out; ``kept`` is whether there are any."""

    short: str
    whole: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """Records of one true and one predicted class; ``hit`` is whether they are the same."""

    n: int
    hit: bool


@dataclass(frozen=True, slots=True)
class ConfusionRow:
    """The records of one true class, by predicted class."""

    name: str
    cells: tuple[Cell, ...]
    n: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Records of one true and one predicted class, where there are too many classes for a table."""

    true: str
    predicted: str
    n: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Labelled records by class: a table of all classes, or the most frequent pairs where they are many."""

    classes: tuple[str, ...]
    rows: tuple[ConfusionRow, ...]
    pairs: tuple[Pair, ...]
    labelled: int


def features_text(features: Mapping[str, Any] | None) -> FeaturesText:
    """Return features as they stand in a table.

    Examples
    --------
    >>> features_text({"text": "hello", "price": 3}).short
    'text: hello; price: 3'
    """
    if features is None:
        return FeaturesText("not kept", "", False)
    line = "; ".join(f"{name}: {_said(value)}" for name, value in features.items())
    if len(line) <= SHORT_CHARACTERS and "\n" not in line:
        return FeaturesText(line, "", True)
    whole = json.dumps(features, indent=1, ensure_ascii=False)
    return FeaturesText(_cut(" ".join(line.split()), SHORT_CHARACTERS), _cut(whole, WHOLE_CHARACTERS), True)


def confusion(buckets: Mapping[tuple[str, str], int]) -> Confusion:
    """Return the counts by (true, predicted) class as they are shown."""
    classes = tuple(sorted({name for pair in buckets for name in pair}))
    labelled = sum(buckets.values())
    if len(classes) > MOST_CLASSES:
        most = sorted(buckets.items(), key=lambda item: (-item[1], item[0]))[:MOST_PAIRS]
        return Confusion(classes, (), tuple(Pair(true, called, n) for (true, called), n in most), labelled)
    rows = tuple(
        ConfusionRow(
            true,
            tuple(Cell(buckets.get((true, called), 0), true == called) for called in classes),
            sum(buckets.get((true, called), 0) for called in classes),
        )
        for true in classes
    )
    return Confusion(classes, rows, (), labelled)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text):,} characters in all)"
