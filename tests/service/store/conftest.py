"""A store with its writer, and builders of rows."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.decisions import Decision, DriftDetected, DriftStatus, PairedCounts, SliceDecision, ToleranceBand
from service.events import FunctionSetVersion, Label, Prediction
from service.store.engine import Store
from service.store.writer import Writer
from sfs.intervals import Rate

START = datetime(2026, 5, 1, tzinfo=UTC)
NAMES = ("short", "links", "asks")


def functions_of(hash_: str = "set-1") -> FunctionSetVersion:
    """Return three functions."""
    return FunctionSetVersion(hash_, NAMES, tuple(f"print of {name}" for name in NAMES), START)


def prediction_of(id_: str = "p1", seconds: float = 0, **changes: Any) -> Prediction:
    """Return a prediction so long after the start."""
    values: dict[str, Any] = {
        "id": id_,
        "model": "spam",
        "version": 1,
        "set_hash": "set-1",
        "at": START + timedelta(seconds=seconds),
        "label": "ham",
        "probabilities": (0.1, 0.9),
        "member": b"\x05",
        "unknown": b"\x02",
        "features": '{"text": "hello"}',
        "content_hash": 7,
        "source": "live",
    }
    return Prediction(**(values | changes))


def label_of(id_: str = "p1", label: str = "spam", seconds: float = 60, **changes: Any) -> Label:
    """Return a label that was observed so long after the start, and received a minute later."""
    observed_at = START + timedelta(seconds=seconds)
    values: dict[str, Any] = {"observed_at": observed_at, "received_at": observed_at + timedelta(seconds=60)}
    return Label(id_, label, **(values | changes))


def detection_of(slice_: str = "links", kind: str = "coverage", seconds: float = 0) -> DriftDetected:
    """Return a detection on a slice so long after the start, on numbers that no decimal spells in short."""
    at = START + timedelta(seconds=seconds)
    zone = ToleranceBand(Rate(21, 1000), 0.1 / 3, 2 / 7, 0.25)
    drift = DriftStatus(slice_, "abc", kind, zone, 14.200000000000001, 14.2, at, "up", Rate(8, 90), 1 / 30, 1 / 6)
    return DriftDetected(at, drift)


def decision_of(outcome: str = "promote") -> Decision:
    """Return a decision on all rows and one slice."""
    slices = (
        SliceDecision(PairedCounts("__all__", 900, 700, 40, 60), True, 2 / 90, 0.001, 0.04, "better", "shown"),
        SliceDecision(PairedCounts("links", 12, 3, 4, 5), False, 1 / 12, -0.4, 0.5, "not_verified", "too few rows"),
    )
    return Decision(outcome, ("all rows: better", "links: too few rows"), slices, 0.02, 0.95)


@pytest.fixture
def detection() -> Callable[..., DriftDetected]:
    """Makes a detection."""
    return detection_of


@pytest.fixture
def decision() -> Callable[..., Decision]:
    """Makes a decision of the gate."""
    return decision_of


@pytest.fixture
def start() -> datetime:
    """The time of the first prediction."""
    return START


@pytest.fixture
def functions() -> Callable[..., FunctionSetVersion]:
    """Makes a function set."""
    return functions_of


@pytest.fixture
def prediction() -> Callable[..., Prediction]:
    """Makes a prediction."""
    return prediction_of


@pytest.fixture
def label() -> Callable[..., Label]:
    """Makes a label."""
    return label_of


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """File of a store without rows, which saves every test the migrations."""
    path = tmp_path_factory.mktemp("migrated") / "log.db"
    Store(path).close()
    return path.read_bytes()


@pytest.fixture
def store(tmp_path: Path, migrated_file: bytes) -> Iterator[Store]:
    """An open store without rows."""
    path = tmp_path / "log.db"
    path.touch(0o600)
    path.write_bytes(migrated_file)
    with Store(path) as opened:
        yield opened


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    """Its writer; the function set is recorded."""
    made = Writer(store)
    made.record_functions(functions_of()).result()
    yield made
    made.stop()
