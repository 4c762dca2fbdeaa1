"""A log of two function sets, and a deployment over it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from factories import make_deployment, make_prediction, make_settings, make_state, recount

from service.events import FunctionSetVersion, Label, Prediction
from service.serving.deployment import Deployment
from service.serving.live_functions import LiveFunctions
from service.settings.schema import MonitorSettings
from service.store.engine import Store
from service.store.writer import Writer
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


def set_of(functions: FunctionSet, at: datetime, **fingerprints: str) -> FunctionSetVersion:
    """Return the version of a function set, with some fingerprints changed."""
    changed = tuple(fingerprints.get(name, each) for name, each in functions.fingerprints.items())
    return FunctionSetVersion(functions.hash + "".join(fingerprints), functions.names, changed, at, ("loud",))


BITS = {"c": 1, "s": 2, "l": 4}
NOW_SET = set_of(FUNCTIONS, NOW - timedelta(hours=30))
OLD_SET = set_of(FUNCTIONS, NOW - timedelta(days=20), cheap="another")


def row(
    id_: str, age: timedelta, member: str = "", unknown: str = "", label: str = "kept", **changes: Any
) -> Prediction:
    """Return a prediction of an age; its members and unknown slices are given by their initials."""
    bitmaps = [bytes([sum(BITS[initial] for initial in initials)]) for initials in (member, unknown)]
    values: dict[str, Any] = {
        "model": "orders",
        "set_hash": NOW_SET.hash,
        "probabilities": (0.75, 0.25),
        "member": bitmaps[0],
        "unknown": bitmaps[1],
        "features": '{"price":3,"text":"fine"}',
    }
    return make_prediction(id_, NOW - age, label, **(values | changes))


class Log:
    """A store, and how to fill it."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self.store, self.writer = store, writer

    def add(self, *rows: Prediction, **labels: str) -> None:
        """Commit rows and labels by prediction id, and recount all blocks."""
        self.writer.append(rows)
        self.writer.label("orders", [Label(id_, label, NOW, NOW) for id_, label in labels.items()]).result()
        while recount(self.store, self.writer):
            pass


@dataclass(frozen=True)
class HealthyFunctions:
    """Live functions with a given health: whether the breaker is open, and the reason."""

    functions: FunctionSet
    reasons: Mapping[str, tuple[bool, str | None]]

    def health(self) -> Mapping[str, tuple[bool, str | None]]:
        return self.reasons


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
def deployment(log: Log, tmp_path: Path) -> Deployment:
    monitor = MonitorSettings(minimum_labels=1)
    classes = ("kept", "lost")
    state = make_state(
        model="orders",
        live=LiveFunctions(FUNCTIONS),
        functions_version=NOW_SET,
        metadata={each.name: each.metadata for each in FUNCTIONS},
        origins={"cheap": "http", "short": "file", "loud": "file"},
        references={"cheap": Rate(300, 1000), "short": Rate(10, 1000)},
        classes=classes,
    )
    settings = make_settings(tmp_path, name="orders", classes=classes, monitor=monitor)
    return make_deployment(log.store, log.writer, settings, state=state, functions=FUNCTIONS)


@pytest.fixture
def change(deployment: Deployment) -> Callable[..., None]:
    """Changes the state of the deployment."""

    def change(**changes: Any) -> None:
        deployment.state = replace(deployment.state, **changes)

    return change


@pytest.fixture
def open_breaker(change: Callable[..., None]) -> Callable[[str, str], None]:
    """Opens the breaker of one function, for a reason."""
    return lambda name, reason: change(live=HealthyFunctions(FUNCTIONS, {name: (True, reason)}))


@pytest.fixture(scope="session")
def empty_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store that knows both function sets; to be copied."""
    path = tmp_path_factory.mktemp("log") / "log.db"
    with Store(path) as store:
        writer = Writer(store)
        for each in (OLD_SET, NOW_SET):
            writer.record_functions(each).result()
        writer.stop()
    return path


@pytest.fixture
def log(empty_log: Path, tmp_path: Path) -> Iterator[Log]:
    with Store(Path(shutil.copy(empty_log, tmp_path / "log.db"))) as store:
        writer = Writer(store)
        yield Log(store, writer)
        writer.stop()
