"""The real runtime behind an in-process client."""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from factories import PATIENT, ManualClock
from sqlalchemy import Connection

from models.registry import ModelRegistry
from service.__main__ import main
from service.api.app import create_api
from service.decisions import Alarm, DriftDetected, DriftKind, DriftStatus, ToleranceBand
from service.runtime.runtime import Runtime
from service.settings.loading import load
from service.store.alarms import open_alarm
from service.store.engine import Store
from sfs.intervals import Rate

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
WORDS = ("good", "free", "song", "click", "voice", "subscribe", "love", "money")
SLICES = """
slices:
  - {name: short, length: {field: text, unit: words, below: 3}}
  - {name: clicks, keyword: {field: text, words: [click, subscribe]}}
"""
SETTINGS = """\
name: comments
data: comments.csv
label: spam
features: {text: text, likes: number}
functions: [slices.yaml]
learner: {kind: erm, epochs: 2, hidden: [8]}
"""


@pytest.fixture(scope="session")
def comments_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of comments about money, trained, with an empty store; to be copied."""
    folder = tmp_path_factory.mktemp("comments")
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 8))) for _ in range(240)]
    spam = [("free" in text or "money" in text) and len(text.split()) > 2 for text in texts]
    table = pd.DataFrame({"text": texts, "likes": draw.integers(0, 9, 240), "spam": spam})
    table.to_csv(folder / "comments.csv", index=False)
    (folder / "slices.yaml").write_text(SLICES)
    (folder / "slicewatch.yaml").write_text(SETTINGS)
    with redirect_stdout(StringIO()):
        assert main(["train", "--config", str(folder / "slicewatch.yaml")], now=lambda: AT, environ={}) == 0
    settings = load(folder / "slicewatch.yaml", {})
    settings.store.parent.mkdir(exist_ok=True)
    Store(settings.store).close()  # migrations take longest
    return folder


class Service:
    """A runtime and a client of its application; requests run on one event loop, one after another."""

    def __init__(self, project: Path) -> None:
        self.project, self.clock = project, ManualClock(AT)
        self.start()

    def start(self) -> None:
        """Start the runtime, and connect a client."""
        self.runner = asyncio.Runner()
        self.runtime = Runtime(load(self.project / "slicewatch.yaml", PATIENT), self.clock)
        self.model = self.runtime.model
        self.predictions = self.model.predictions
        self.store, self.writer = self.runtime.store, self.runtime.writer
        self.app, self.client = create_api(self.runtime), None
        self.connect()

    def restart(self) -> None:
        """Stop, and start again with the same project and clock."""
        self.close()
        self.start()

    def connect(self, app: Any = None) -> None:
        """Serve an application, by default one built from the current settings."""
        if self.client is not None:
            self.runner.run(self.client.aclose())
            self.app = app or create_api(self.runtime)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://localhost")

    @property
    def now(self) -> datetime:
        return self.clock.now

    @now.setter
    def now(self, at: datetime) -> None:
        self.clock.now = at

    def limit(self, **changes: Any) -> None:
        """Change limits of the server."""
        settings = self.runtime.settings
        self.runtime.settings = replace(settings, serve=replace(settings.serve, **changes))
        self.connect()

    def override(self, **methods: Any) -> None:
        """Replace some methods of the request path."""
        real = self.predictions
        names = ("predict", "slice_external", "has_room", "stop")
        self.model.predictions = SimpleNamespace(**{name: getattr(real, name) for name in names} | methods)

    def fill_queue(self) -> None:
        """Let the prediction queue be full."""
        self.override(has_room=lambda rows: False)

    def set_state(self, **changes: Any) -> None:
        """Change the state of the deployment."""
        self.model.deployment.state = replace(self.model.deployment.state, **changes)

    def set_version(self, version: int) -> None:
        """Let the same model answer under another version."""
        active = self.model.deployment.state.active
        self.set_state(version=version, active=replace(active, version=version))

    def tick(self) -> None:
        """Take a snapshot, a minute later."""
        self.model.snapshots.run(self.clock.advance(minutes=1))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.runner.run(self.client.get(path, **more))

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        sent = {"json": body} if body is not None else {}
        return self.runner.run(self.client.post(path, **sent, **more))

    def delete(self, path: str) -> httpx.Response:
        return self.runner.run(self.client.delete(path))

    def predicted(self, *records: Mapping[str, Any], ids: Sequence[str] | None = None) -> httpx.Response:
        """Request predictions."""
        body: dict[str, Any] = {"instances": list(records)}
        return self.post("/v1/predict", body if ids is None else body | {"ids": ids})

    def counted(self, line: str) -> float:
        """Return a value of /metrics by the name and labels of its series."""
        lines = self.runtime.page.text().decode().splitlines()
        return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith(f"slicewatch_{line} "))

    def kept(self, work: Callable[[Connection], Any]) -> Any:
        """Do some work in the writer's transaction, and return its result."""
        return self.writer.submit(work).result()

    def raised(self, slice_: str = "short", kind: DriftKind = "coverage", **changes: Any) -> Alarm:
        """Open an alarm."""
        detection = DriftDetected(self.now, drift_status(slice_, kind, **changes))
        alarm = self.kept(partial(open_alarm, model="comments", version=1, detection=detection))
        assert alarm is not None
        return alarm

    def close(self) -> None:
        self.model.predictions = self.predictions
        self.runner.run(self.client.aclose())
        assert self.runner.run(self.runtime.stop(10)) == 0
        self.runner.close()


_BANDS: Mapping[DriftKind, tuple[float, float, float]] = {
    "coverage": (0.018, 0.022, 0.1),
    "accuracy": (0.93, 1.0, 0.01),
}


def drift_status(slice_: str = "short", kind: DriftKind = "coverage", **changes: Any) -> DriftStatus:
    """Return the status of a slice with four times its coverage, or with a low accuracy."""
    coverage = kind == "coverage"
    status = DriftStatus(
        slice=slice_,
        fingerprint="f" if slice_ in ("short", "clicks") else None,
        kind=kind,
        zone=ToleranceBand(Rate(400, 20_000) if coverage else Rate(950, 1000), *_BANDS[kind]),
        evidence=20.0,
        threshold=16.0,
        since=AT - timedelta(minutes=20),
        direction="up" if coverage else "down",
        observed=Rate(81, 1000) if coverage else Rate(61, 100),
        lower=0.06,
        upper=0.1,
    )
    return replace(status, **changes)


@pytest.fixture
def service(comments_project: Path, tmp_path: Path) -> Iterator[Service]:
    """A fresh runtime over a copy of the project."""
    service = Service(shutil.copytree(comments_project, tmp_path / "project"))
    yield service
    service.close()


@pytest.fixture
def drift() -> Callable[..., DriftStatus]:
    """Makes the drift status of a slice."""
    return drift_status


@pytest.fixture
def two(service: Service) -> ModelRegistry:
    """The registry of the service with a second version, which differs in its lineage."""
    registry = service.model.registry
    bundle = registry.get(1)
    registry.put(replace(bundle, lineage={**bundle.lineage, "again": True}))
    return registry


@pytest.fixture
def held_page() -> Iterator[Any]:
    """A metrics page that does not render before the test ends."""
    release = Event()

    class Page:
        def text(self) -> bytes:
            release.wait()
            return b""

    yield Page()
    release.set()


@pytest.fixture
def held(service: Service) -> Iterator[Callable[[], Event]]:
    """Holds the writer until the returned event is set, or the test ends."""
    release = Event()

    def hold() -> Event:
        service.writer.submit(lambda connection: release.wait())
        return release

    yield hold
    release.set()
