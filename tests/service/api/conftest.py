"""The whole service but its process: a real store, writer, model and monitor, behind an in-process client."""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Connection

from models.bundle import ModelBundle
from models.config import TrainConfig
from models.features import FeatureSpec
from models.learners import LearnerConfig
from models.registry import ModelRegistry
from models.training import train
from service.api.app import ROUTES, routes
from service.api.parts import SHED_REASONS, STAGES, Limits, Parts, PreviewView
from service.decisions import Alarm, DriftDetected, DriftKind, DriftStatus, ToleranceBand
from service.events import FunctionSetVersion
from service.jobs.snapshot import SnapshotJob
from service.metrics.page import MetricsPage
from service.metrics.process import ProcessMetrics
from service.monitor.estimates import EstimateConfig
from service.runtime.functions import preview, with_added, without
from service.serving.batcher import Batcher, Failed
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import (
    ExternalPrediction,
    PredictionFactory,
    PredictionRequest,
    PredictionResult,
)
from service.serving.predictor import ActiveModel, ExternalLogger, Predictor
from service.store.alarms import open_alarm
from service.store.engine import Store
from service.store.writer import Writer, WriterLimits
from service.views.current import Current, InForce
from service.views.functions import FunctionView, functions_view
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import Template, template

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
WORDS = ("good", "free", "song", "click", "voice", "subscribe", "love", "money")
GOOD = {"text": "subscribe to my song for free money", "likes": 2}
SHORT = {"text": "love", "likes": 0}


def comments(rows: int = 240, seed: int = 0) -> pd.DataFrame:
    """Return comments of a few words; those about money are spam, but not the short ones."""
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 8))) for _ in range(rows)]
    spam = [("free" in text or "money" in text) and len(text.split()) > 2 for text in texts]
    return pd.DataFrame({"text": texts, "likes": draw.integers(0, 9, rows), "spam": spam})


def of_files() -> FunctionSet:
    """Return two templates."""
    short = template("short", length={"field": "text", "unit": "words", "below": 3})
    clicks = template("clicks", keyword={"field": "text", "words": ["click", "subscribe"]})
    return FunctionSet([short, clicks])


@pytest.fixture(scope="session")
def bundle() -> ModelBundle:
    """A model of the comments, trained for a moment."""
    features = (FeatureSpec("text", "text"), FeatureSpec("likes", "number"))
    learner = LearnerConfig(n_epochs=2, widths=(8,))
    return train(TrainConfig("spam", features, of_files(), learner, name="comments"), comments())


@pytest.fixture(scope="session")
def registry(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """The model as version 1, the champion."""
    made = ModelRegistry(tmp_path_factory.mktemp("registry"), "comments")
    made.promote(made.put(bundle), expected=None, reason="the first", at=AT)
    return made


def moved(slice_: str = "short", kind: DriftKind = "coverage", **changes: Any) -> DriftStatus:
    """Return a slice that holds four times as many rows as it should, or is right too seldom."""
    coverage = kind == "coverage"
    drift = DriftStatus(
        slice=slice_,
        fingerprint=of_files().fingerprints.get(slice_),
        kind=kind,
        zone=ToleranceBand(Rate(400, 20_000) if coverage else Rate(950, 1000), *_LIMITS[kind]),
        evidence=20.0,
        threshold=16.0,
        since=AT - timedelta(minutes=20),
        direction="up" if coverage else "down",
        observed=Rate(81, 1000) if coverage else Rate(61, 100),
        lower=0.06,
        upper=0.1,
    )
    return replace(drift, **changes)


_LIMITS: Mapping[DriftKind, tuple[float, float, float]] = {
    "coverage": (0.018, 0.022, 0.1),
    "accuracy": (0.93, 1.0, 0.01),
}


@dataclass
class Service:
    """The parts, and a client that speaks to them; calls run on one event loop, one after another."""

    bundle: ModelBundle
    registry: ModelRegistry
    store: Store
    writer: Writer
    now: datetime = AT
    stopping: bool = False
    full: bool = False
    not_ready: dict[str, str] = field(default_factory=dict)
    added: tuple[Template, ...] = ()
    changed: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.runner = asyncio.Runner()
        self.metrics = ProcessMetrics(
            "comments",
            routes=ROUTES,
            stages=STAGES,
            shed_reasons=SHED_REASONS,
            log_queue_rows=lambda: self.writer.backlog_rows,
        )
        self.recorder = PredictionFactory(lambda: self.now)
        self.predictor = Predictor(ActiveModel(self.bundle, 1, LiveFunctions(of_files())), self.recorder)
        self.batcher: Batcher[PredictionRequest, PredictionResult] = Batcher(
            lambda rows: self.predictor.predict(rows)
        )
        self.page = MetricsPage(self.metrics)
        self.current = Current(self._in_force())
        self.monitor = SnapshotJob(self.store, self.writer, self.current, EstimateConfig, self._show)
        self._observing = Lock()
        self._use_functions()
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(routes(self.parts())), base_url="http://service"
        )

    def parts(self) -> Parts:
        """Return what the routes are given; a test may have changed some of it."""
        parts = Parts(
            current=self.current,
            store=self.store,
            writer=self.writer,
            metrics=self.metrics,
            page=self.page,
            predict=self.predict,
            observe=self.observe,
            has_room=lambda rows: not self.full and self.batcher.has_room(rows),
            classes=lambda: self.current.in_force.classes,
            add_function=self.add_function,
            remove_function=self.remove_function,
            preview=self.preview,
            registry=self.registry,
            clock=lambda: self.now,
            limits=Limits(),
            problems=lambda: self.not_ready,
        )
        return replace(parts, **self.changed)

    def change(self, **parts: Any) -> None:
        """Serve the routes anew, with other parts."""
        self.changed = parts
        self.runner.run(self.client.aclose())
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(routes(self.parts())), base_url="http://service"
        )

    async def predict(
        self, requests: Sequence[PredictionRequest], seconds: float
    ) -> list[PredictionResult | Failed]:
        return await self.batcher.submit(requests, seconds)

    async def observe(self, logged: Sequence[ExternalPrediction]) -> list[PredictionResult]:
        live = self.predictor.loaded.live
        observer = ExternalLogger("comments", self.bundle.classes, "spam", live, self.recorder)
        return await asyncio.to_thread(observer.observe, logged)

    async def add_function(self, declaration: Mapping[str, Any]) -> FunctionView:
        self.added = with_added(of_files(), self.added, declaration)
        self._use_functions()
        return next(each for each in functions_view(self.current) if each.name == declaration["name"])

    async def remove_function(self, name: str) -> None:
        self.added = without(of_files(), self.added, name)
        self._use_functions()

    async def preview(
        self, declaration: Mapping[str, Any], records: Sequence[Mapping[str, Any]] | None
    ) -> PreviewView:
        if records is None:
            return preview(declaration, self.bundle.sample, "sample")
        return preview(declaration, records, "given")

    def tick(self) -> None:
        """Let the monitor count, a minute later."""
        self.now += timedelta(minutes=1)
        self.monitor.tick(self.now)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.runner.run(self.client.get(path, **more))

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        sent = {"json": body} if body is not None else {}
        return self.runner.run(self.client.post(path, **sent, **more))

    def delete(self, path: str) -> httpx.Response:
        return self.runner.run(self.client.delete(path))

    def predicted(self, *records: Mapping[str, Any], ids: Sequence[str] | None = None) -> httpx.Response:
        """Ask for predictions."""
        body: dict[str, Any] = {"instances": list(records)}
        return self.post("/v1/predict", body if ids is None else body | {"ids": ids})

    def counted(self, line: str) -> float:
        """Return a value of /metrics by the name and labels of its series."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith(f"slicewatch_{line} "))

    def kept(self, work: Callable[[Connection], Any]) -> Any:
        """Do some work in the writer's transaction, and return what it returns."""
        return self.writer.submit(work).result()

    def raised(self, slice_: str = "short", kind: DriftKind = "coverage", **changes: Any) -> Alarm:
        """Raise an alarm."""
        drift = moved(slice_, kind, **changes)
        alarm = self.kept(
            partial(open_alarm, model="comments", version=1, verdict=DriftDetected(self.now, drift))
        )
        assert alarm is not None
        return alarm

    def close(self) -> None:
        async def end() -> None:
            await self.client.aclose()
            await self.batcher.stop()

        self.runner.run(end())
        self.runner.close()

    def _in_force(self) -> InForce:
        functions = FunctionSet([*of_files(), *self.added])
        prints = tuple(functions.fingerprints.values())
        reference = self.bundle.reference
        return InForce(
            model="comments",
            version=1,
            functions=functions,
            functions_version=FunctionSetVersion(functions.hash, functions.names, prints, AT),
            metadata={each.name: each.metadata for each in functions},
            origins={name: "file" if name in of_files() else "http" for name in functions.names},
            references={name: Rate(reference[name].member, reference[name].n) for name in of_files().names},
            classes=self.bundle.classes,
            promoted_at=AT,
        )

    def _use_functions(self) -> None:
        in_force = self._in_force()
        self.writer.record_functions(in_force.functions_version).result()
        self.metrics.watch(in_force.functions_version)
        self.metrics.serve(1, in_force.classes)
        self.current.in_force = in_force
        self.predictor.swap(ActiveModel(self.bundle, 1, LiveFunctions(in_force.functions)))

    def _show(self, snapshot: Any) -> None:
        self.page.show(snapshot, self.current.in_force.metadata, self.current.in_force.references)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store with nothing in it, for copies: it takes longest to make."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    Store(path).close()
    return path


@pytest.fixture
def service(
    bundle: ModelBundle, registry: ModelRegistry, empty_store: Path, tmp_path: Path
) -> Iterator[Service]:
    """Such a service, fresh."""
    with Store(shutil.copy(empty_store, tmp_path / "store.db")) as store:
        writer = Writer(store)
        made = Service(bundle, registry, store, writer)
        yield made
        made.close()
        writer.stop()


@pytest.fixture
def drift() -> Callable[..., DriftStatus]:
    """Makes where a slice stands."""
    return moved


@pytest.fixture
def held(service: Service) -> Iterator[Callable[[], Event]]:
    """Holds the writer until the returned event is set, or the test ends."""
    let_go = Event()

    def hold() -> Event:
        service.writer.submit(lambda connection: let_go.wait())
        return let_go

    yield hold
    let_go.set()


@pytest.fixture
def small_log(
    bundle: ModelBundle, registry: ModelRegistry, empty_store: Path, tmp_path: Path
) -> Iterator[Service]:
    """A service whose log takes two rows at a time."""
    with Store(shutil.copy(empty_store, tmp_path / "small.db")) as store:
        writer = Writer(store, limits=WriterLimits(queue_rows=2))
        made = Service(bundle, registry, store, writer)
        yield made
        made.close()
        writer.stop()


@pytest.fixture
def held_page() -> Iterator[Any]:
    """A page of metrics that is not ready before the test ends."""
    let_go = Event()

    class Page:
        def text(self) -> bytes:
            let_go.wait()
            return b""

    yield Page()
    let_go.set()
