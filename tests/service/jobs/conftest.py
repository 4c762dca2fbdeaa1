"""A store with its writer, three function sets, and what is in force over them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.events import FunctionSetVersion, Label, Prediction
from service.store.engine import Store
from service.store.labels import LabelRules
from service.store.writer import Writer
from service.views.current import Current, InForce
from sfs.registry import FunctionSet

START = datetime(2026, 5, 20, 12, 34, 56, 789_000, tzinfo=UTC)
LATE = timedelta(days=5)


def function_set(hash_: str, votes: tuple[str, ...] = (), **prints: str) -> FunctionSetVersion:
    return FunctionSetVersion(hash_, tuple(prints), tuple(prints.values()), START - timedelta(days=30), votes)


SETS = {
    each.hash: each
    for each in (
        function_set("first", a="1", b="1", c="1"),
        function_set("edited", a="1", b="2", d="1"),
        function_set("shuffled", c="1", a="1", b="1"),
        function_set("voting", ("v",), a="1", v="1", b="1", c="1"),
    )
}


def in_force_of(set_hash: str = "first", version: int | None = 1, **changes: Any) -> InForce:
    values: dict[str, Any] = {
        "model": "m",
        "version": version,
        "functions": FunctionSet([]),
        "functions_version": SETS[set_hash],
        "metadata": {},
        "origins": {},
        "references": {},
        "classes": ("x", "y"),
        "promoted_at": None,
    }
    return InForce(**(values | changes))


def prediction_of(id_: str, at: datetime, label: str = "x", **changes: Any) -> Prediction:
    values: dict[str, Any] = {
        "id": id_,
        "model": "m",
        "version": 1,
        "set_hash": "first",
        "at": at,
        "label": label,
        "probabilities": None,
        "member": b"\x01",
        "unknown": b"\x00",
        "features": None,
        "content_hash": 7,
        "source": "live",
    }
    return Prediction(**(values | changes))


def label_of(id_: str, at: datetime, label: str = "x", observed_at: datetime | None = None) -> Label:
    return Label(id_, label, observed_at or at, at)


def opened(path: Path) -> tuple[Store, Writer]:
    """Open a store that knows the function sets."""
    store = Store(path)
    writer = Writer(store, rules=LabelRules(late_after_seconds=LATE.total_seconds()))
    for each in SETS.values():
        writer.record_functions(each)
    return store, writer


def closed(store: Store, writer: Writer) -> None:
    assert writer.stop() == 0
    store.close()


class Desk:
    """All of the above, for tests to take as one fixture."""

    start, late, sets = START, LATE, SETS
    in_force_of = staticmethod(in_force_of)
    prediction = staticmethod(prediction_of)
    label = staticmethod(label_of)
    opened: Callable[[Path], tuple[Store, Writer]] = staticmethod(opened)
    closed = staticmethod(closed)


@pytest.fixture(scope="session")
def desk() -> type[Desk]:
    return Desk


@pytest.fixture
def current() -> Current:
    return Current(in_force_of())


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[Store, Writer]]:
    store, writer = opened(tmp_path / "log.db")
    yield store, writer
    writer.stop()
    store.close()
