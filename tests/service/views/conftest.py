"""A log of two function sets, what is in force over it, and a snapshot of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from factories import recount

from service.events import FunctionSetVersion, Label, Prediction
from service.monitor.estimates import EstimateConfig
from service.store.engine import Store
from service.store.writer import Writer
from service.views.current import Current, InForce
from sfs.function import LabelingFunction, LabelingFunctionSlice, SlicingFunction
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import template
from sfs.validation import Metadata

NOW = datetime(2026, 5, 20, 12, 0, 3, tzinfo=UTC)
FUNCTIONS = FunctionSet(
    [
        template("cheap", compare={"field": "price", "below": 40}, owner="shop", target=0.9),
        SlicingFunction("short", lambda x: len(x["text"]) < 9, metadata=Metadata("A short text.")),
        LabelingFunctionSlice(LabelingFunction("loud", lambda x: 1 if x["text"].isupper() else -1)),
    ]
)


def set_of(functions: FunctionSet, at: datetime, **prints: str) -> FunctionSetVersion:
    """Return what a set's hash stands for, some of the fingerprints changed."""
    fingerprints = tuple(prints.get(name, each) for name, each in functions.fingerprints.items())
    return FunctionSetVersion(functions.hash + "".join(prints), functions.names, fingerprints, at, ("loud",))


BITS = {"c": 1, "s": 2, "l": 4}
NOW_SET = set_of(FUNCTIONS, NOW - timedelta(hours=30))
OLD_SET = set_of(FUNCTIONS, NOW - timedelta(days=20), cheap="another")


def in_force_of(**changes: Any) -> InForce:
    values: dict[str, Any] = {
        "model": "orders",
        "version": 1,
        "functions": FUNCTIONS,
        "functions_version": NOW_SET,
        "metadata": {each.name: each.metadata for each in FUNCTIONS},
        "origins": {"cheap": "http", "short": "file", "loud": "file"},
        "references": {"cheap": Rate(300, 1000), "short": Rate(10, 1000)},
        "classes": ("kept", "lost"),
        "promoted_at": None,
    }
    return InForce(**(values | changes))


def row(
    id_: str, age: timedelta, inside: str = "", unknown: str = "", called: str = "kept", **changes: Any
) -> Prediction:
    """Return a prediction so long ago that is in some slices, and of which others are unknown, by initials."""
    member, holes = (bytes([sum(BITS[initial] for initial in said)]) for said in (inside, unknown))
    values: dict[str, Any] = {
        "id": id_,
        "model": "orders",
        "version": 1,
        "set_hash": NOW_SET.hash,
        "at": NOW - age,
        "label": called,
        "probabilities": (0.75, 0.25),
        "member": member,
        "unknown": holes,
        "features": '{"price":3,"text":"fine"}',
        "content_hash": 1,
        "source": "live",
    }
    return Prediction(**(values | changes))


class Log:
    """A store, and how to fill it."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self.store, self.writer = store, writer

    def add(self, *rows: Prediction, **labels: str) -> None:
        """Commit rows and labels by prediction id, and count all blocks again."""
        self.writer.append(rows)
        said = [Label(id_, label, NOW, NOW) for id_, label in labels.items()]
        self.writer.label("orders", said).result()
        while recount(self.store, self.writer):
            pass


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def old_set() -> FunctionSetVersion:
    return OLD_SET


@pytest.fixture
def prediction() -> Callable[..., Prediction]:
    return row


@pytest.fixture
def current() -> Current:
    return Current(in_force_of(), judging=EstimateConfig(minimum_labels=1))


@pytest.fixture
def put(current: Current) -> Callable[..., None]:
    """Changes what is in force."""

    def change(**changes: Any) -> None:
        current.in_force = replace(current.in_force, **changes)

    return change


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    store = Store(tmp_path / "log.db")
    writer = Writer(store)
    for each in (OLD_SET, NOW_SET):
        writer.record_functions(each).result()
    yield Log(store, writer)
    writer.stop()
    store.close()
