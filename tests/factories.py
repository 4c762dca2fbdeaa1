"""Builders shared by the tests: values of the log, settings, deployments, a runtime with its client."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
from sqlalchemy import Connection, func, select

from models.bundle.reference import SliceCounts, slice_counts
from service.events import BlockCounts, FunctionSetVersion, Label, LabelOutcome, Prediction
from service.metrics.gauges import MetricsPage
from service.metrics.process import ProcessMetrics
from service.monitor.block_counts import count_columns, empty, unpack_bitmaps
from service.runtime.clock import FastClock
from service.serving.breaker import BreakerLimits
from service.serving.deployment import ActiveModel, Deployment, DeploymentState
from service.serving.live_functions import LiveFunctions
from service.settings.schema import Settings
from service.store.block_store import read_dirty, replace_blocks
from service.store.engine import Store
from service.store.labels import LabelRules
from service.store.tables import dirty_blocks, from_us, label_events, pending_labels
from service.store.writer import Writer
from sfs.intervals import anytime_arrays
from sfs.registry import FunctionSet

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle

START = datetime(2026, 5, 20, 12, 34, 56, 789_000, tzinfo=UTC)
LATE = timedelta(days=5)
"""Age at which the stores of `open_log` refuse a label."""


class ManualClock:
    """A clock that shows what it is set to.

    >>> clock = ManualClock()
    >>> clock.advance(seconds=10) == START + timedelta(seconds=10) == clock()
    True
    """

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> datetime:
        """Move on by a `timedelta`, and return the new time."""
        self.now += timedelta(**by)
        return self.now


def anytime(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the anytime-valid interval of one rate."""
    lower, upper = anytime_arrays([count], [n], confidence)
    return float(lower[0]), float(upper[0])


def function_set(set_hash: str, votes: tuple[str, ...] = (), **fingerprints: str) -> FunctionSetVersion:
    """Return a function set of names with fingerprints."""
    at = START - timedelta(days=30)
    return FunctionSetVersion(set_hash, tuple(fingerprints), tuple(fingerprints.values()), at, votes)


FUNCTION_SETS: Mapping[str, FunctionSetVersion] = {
    each.hash: each
    for each in (
        function_set("first", a="1", b="1", c="1"),
        function_set("edited", a="1", b="2", d="1"),
        function_set("shuffled", c="1", a="1", b="1"),
        function_set("voting", ("v",), a="1", v="1", b="1", c="1"),
    )
}


def make_prediction(id_: str, at: datetime, label: str = "x", **changes: Any) -> Prediction:
    """Return a prediction of model ``m``, version 1, by the function set ``first``; a member of ``a``."""
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


def make_label(id_: str, at: datetime, label: str = "x", observed_at: datetime | None = None) -> Label:
    """Return a label that was observed when it arrived, unless stated otherwise."""
    return Label(id_, label, observed_at or at, at)


@contextmanager
def open_log(path: Path) -> Iterator[tuple[Store, Writer]]:
    """Open a store that knows the function sets above, and its writer."""
    with Store(path) as store:
        writer = Writer(store, rules=LabelRules(late_after_seconds=LATE.total_seconds()))
        for each in FUNCTION_SETS.values():
            writer.record_functions(each)
        try:
            yield store, writer
        finally:
            writer.stop()


def make_settings(folder: Path, **changes: Any) -> Settings:
    """Return settings of model ``m`` with classes ``x`` and ``y``, and all files in a folder."""
    values: dict[str, Any] = {
        "file": folder / "slicewatch.yaml",
        "data": folder / "data.csv",
        "label": "label",
        "features": {"text": "text"},
        "registry": folder / "registry",
        "store": folder / "store.sqlite3",
        "name": "m",
        "classes": ("x", "y"),
    }
    return Settings(**(values | changes))


def make_state(set_hash: str = "first", version: int | None = 1, **changes: Any) -> DeploymentState:
    """Return the state of model ``m`` with one of the function sets above."""
    values: dict[str, Any] = {
        "model": "m",
        "version": version,
        "live": LiveFunctions(FunctionSet([])),
        "functions_version": FUNCTION_SETS[set_hash],
        "metadata": {},
        "origins": {},
        "classes": ("x", "y"),
    }
    return DeploymentState(**(values | changes))


def make_local_state(set_hash: str = "first", version: int = 1, **changes: Any) -> DeploymentState:
    """Return `make_state` with a local model, an empty one: no external version is followed."""
    nothing: dict[str, Any] = {"function_fingerprints": {}, "reference": {}, "families": {}}
    empty = cast("ModelBundle", SimpleNamespace(outputs=None, season=None, **nothing))
    active = ActiveModel(empty, version, LiveFunctions(FunctionSet([])))
    return make_state(set_hash, version, **({"active": active} | changes))


def make_deployment(
    store: Store,
    writer: Writer,
    settings: Settings,
    *,
    state: DeploymentState | None = None,
    functions: FunctionSet | None = None,
    live: LiveFunctions | None = None,
    metrics: ProcessMetrics | None = None,
    clock: Callable[[], datetime] = lambda: START,
) -> Deployment:
    """Return a deployment over a log, in a given state; of ``live`` functions, or of templates."""
    live = live or LiveFunctions(functions or FunctionSet([]))
    deployment = Deployment(
        settings,
        live,
        dict.fromkeys(live.functions.names, "file"),
        store=store,
        writer=writer,
        metrics=metrics or make_metrics(settings.name),
        clock=clock,
    )
    if state is not None:
        deployment.state = state
    return deployment


def make_metrics(model: str = "m") -> ProcessMetrics:
    """Return the counters of a process."""
    return ProcessMetrics(model, log_queue_rows=lambda: 0)


def make_page(model: str = "m") -> MetricsPage:
    """Return a metrics page."""
    return MetricsPage(make_metrics(model))


COUNTED = ("n", "member", "unknown", "contents", "held_out", "correct", "held_out_contents", "held_out_effective_n")
"""Order of the counts of `make_counts`."""


def make_counts(*counts: int) -> SliceCounts:
    """Return the counts of a slice on a table, as far as they are given; others are 0."""
    return slice_counts(dict.fromkeys(COUNTED, 0) | dict(zip(COUNTED, counts, strict=False)))


PATIENT = {
    "SLICEWATCH_SERVE_REQUEST_SECONDS": "120",
    "SLICEWATCH_FUNCTION_LIMITS_BUDGET_MS": "20000",
    "SLICEWATCH_FUNCTION_LIMITS_LEAST_MS": "20000",
    "SLICEWATCH_FUNCTION_LIMITS_HOLD_MS": "20000",
}
"""Settings of a service under test: no request times out, and no function is slow, because the machine is busy."""
PATIENT_LIMITS = BreakerLimits(budget_ms=20_000, least_ms=20_000, hold_ms=20_000)


@contextmanager
def serving_process(settings: Path, now: datetime = START) -> Iterator[str]:
    """Run ``slicewatch up`` on a project, its clock at a given time, and yield the address."""
    clock = settings.parent / "clock.json"
    FastClock(now, time.time(), 1.0).write(clock)
    with (settings.parent / "up.log").open("w+") as log:
        process = subprocess.Popen(
            [os.environ["SLICEWATCH_TEST_PYTHON"], "-m", "service", "up", "--port", "0", "--config", str(settings)],
            env={**os.environ, **PATIENT, "SLICEWATCH_CLOCK": str(clock)},
            stderr=log,
        )
        try:
            while not (found := re.search(r"console and API at (http://[0-9.:]+)", _text_of(log))):
                assert process.poll() is None, _text_of(log)
                time.sleep(0.05)
            yield found[1]
        finally:
            process.terminate()
            assert process.wait() == 0, _text_of(log)


def _text_of(file: TextIO) -> str:
    file.seek(0)
    return file.read()


def count_rows(
    rows: Sequence[Prediction],
    labels: Mapping[str, str],
    slices: int,
    start: datetime,
    seconds: int,
    votes: Sequence[int] = (),
) -> BlockCounts:
    """Return the block of at least one prediction, with labels by prediction id."""
    model, version, set_hash = rows[0].model, rows[0].version, rows[0].set_hash
    block = empty(model, version, set_hash, slices, start, seconds)
    assert all((row.model, row.version, row.set_hash) == block.series for row in rows)
    assert all(block.start <= row.at < block.end for row in rows)
    return count_columns(
        block,
        [row.label for row in rows],
        [labels.get(row.id) for row in rows],
        unpack_bitmaps([row.member for row in rows], slices),
        unpack_bitmaps([row.unknown for row in rows], slices),
        votes,
        np.array([max(row.probabilities or (np.nan,)) for row in rows]),
        [row.disagreement for row in rows],
    )


def recount(store: Store, writer: Writer, limit: int = 256) -> int:
    """Recount dirty blocks, and return the number of blocks replaced."""
    with store.read() as connection:
        counted = read_dirty(connection, limit)
    return len(writer.submit(lambda connection: replace_blocks(connection, counted)).result())


def dirty_count(connection: Connection) -> int:
    """Return the number of dirty blocks."""
    return connection.scalar(select(func.count()).select_from(dirty_blocks)) or 0


def pending_count(connection: Connection, model: str) -> int:
    """Return the number of predictions, not yet logged, that have labels."""
    query = select(func.count()).select_from(pending_labels).where(pending_labels.c.model == model)
    return connection.scalar(query) or 0


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """Label as it arrived, and its outcome."""

    label: Label
    outcome: LabelOutcome


def label_history(connection: Connection, model: str, id_: str) -> list[LabelEvent]:
    """Return all labels of a prediction id, in order of arrival."""
    c = label_events.c
    query = select(label_events).where(c.model == model, c.prediction_id == id_).order_by(c.row)
    return [
        LabelEvent(
            Label(id_, e.label, from_us(e.observed_us), from_us(e.received_us), e.labeller, e.idempotency_key),
            e.outcome,
        )
        for e in connection.execute(query)
    ]


def read_sample(metrics: ProcessMetrics, name: str) -> float:
    """Return the value of a sample by its name with labels, such as ``slicewatch_leader`` or ``x_total{a="b"}``."""
    lines = (line.rpartition(" ") for line in metrics.text().decode().splitlines())
    return next(float(value) for sample, _, value in lines if sample == name)
