"""A store with some traffic in it, the pages made from it, a server of them, and a real browser."""

import asyncio
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import Connection

from models.bundle_files import write_folder
from models.reference import SliceCounts, counts_to_json
from models.registry import ModelRegistry
from service.console.parts import ConsoleParts
from service.console.router import router
from service.decisions import DriftDetected, Run
from service.events import FunctionSetVersion, Label, Prediction
from service.jobs.snapshot import SnapshotJob
from service.store.alarms import acknowledge_alarm, open_alarm, resolve_alarm
from service.store.engine import Store
from service.store.reports import add_report
from service.store.runs import move_run, open_run
from service.store.writer import Writer
from service.views.current import Current, FunctionHealth, InForce
from sfs.apply import apply
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import template

NOW = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)
T = TypeVar("T")
EVIL = '"><script>alert("1")</script>'
TEXTS = (
    "hi",
    "check out my channel http://example.com",
    "what is this song?",
    f"{EVIL} <img src=x onerror=alert(1)>",
    "a_very_long_word_without_any_break_" * 12,
    "good\n\nold song, " * 40,
)


def functions_of(count: int) -> FunctionSet:
    """Functions with owners and targets: four that mean something, and more up to the count."""
    return FunctionSet(
        [
            template(
                "short", length={"field": "text", "below": 10}, owner="growth", target=0.99, protected=True
            ),
            template("links", keyword={"field": "text", "words": ["http"]}, severity="critical"),
            template(EVIL, regex={"field": "text", "pattern": "script"}, description=EVIL, owner=EVIL),
            template("asks/what?", regex={"field": "text", "pattern": r"\?$"}, target=0.5),
            *(
                template(f"{'long_name_' * (i % 9)}{i}", length={"field": "text", "below": i + 3}, target=0.9)
                for i in range(count - 4)
            ),
        ]
    )


def in_force_of(functions: FunctionSet, version: int | None) -> InForce:
    prints = tuple(functions.fingerprints.values())
    return InForce(
        model="spam",
        version=version,
        functions=functions,
        functions_version=FunctionSetVersion(
            functions.hash, functions.names, prints, NOW - timedelta(days=1)
        ),
        metadata={each.name: each.metadata for each in functions},
        origins=dict.fromkeys(functions.names, "file"),
        references={"short": Rate(30, 400), "links": Rate(80, 480)},
        classes=("ham", "spam"),
        promoted_at=NOW - timedelta(hours=5) if version else None,
    )


def predictions_of(functions: FunctionSet, rows: int) -> list[Prediction]:
    """Answers of the last 50 minutes, in batches of three that share their time."""
    draw = np.random.default_rng(7)
    records = [{"text": TEXTS[draw.integers(len(TEXTS))], "likes": i, "row": EVIL} for i in range(rows)]
    S = apply(functions, records)
    bits = (
        np.packbits(S.member, axis=1, bitorder="little") if len(functions) else np.zeros((rows, 0), np.uint8)
    )
    spam = draw.random(rows) < 0.4
    return [
        Prediction(
            id=f"row {i}",
            model="spam",
            version=4,
            set_hash=functions.hash,
            at=NOW - timedelta(seconds=7.0 * (i // 3)),
            label="spam" if spam[i] else "ham",
            probabilities=(0.2, 0.8) if spam[i] else (0.75, 0.25),
            member=bits[i].tobytes(),
            unknown=bytes(bits.shape[1]),
            features=json.dumps(record),
            content_hash=i,
            source="live",
        )
        for i, record in enumerate(records)
    ]


@dataclass(frozen=True)
class World:
    """A model with some traffic, whose pages can be asked for."""

    current: Current
    store: Store
    writer: Writer
    registry: ModelRegistry | None = None

    @property
    def app(self) -> FastAPI:
        """Only the pages."""
        app = FastAPI()
        parts = ConsoleParts(
            self.current,
            self.store,
            lambda: NOW,
            writer=self.writer,
            registry=self.registry,
            failures=lambda name: {"KeyError": 12, EVIL: 3} if name == "short" else {},
            example=lambda: {"comment": EVIL, "likes": 3},
        )
        app.include_router(router(parts))
        return app

    def get(self, path: str, **params: Any) -> httpx.Response:
        """Ask for a page in process."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.get(path, params=params or None)

        return asyncio.run(ask())

    def post(self, path: str, fields: Any, **headers: str) -> httpx.Response:
        """Send a form in process."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.post(path, data=fields, headers=headers)

        return asyncio.run(send())

    def do(self, work: Callable[[Connection], T]) -> T:
        """Do some work in the writer's transaction."""
        return self.writer.submit(work).result()

    def tick(self) -> None:
        """Make a snapshot."""
        monitor = SnapshotJob(
            self.store, self.writer, self.current, lambda: self.current.judging, lambda _: None
        )
        monitor.tick(NOW - timedelta(seconds=5))


def world_of(
    folder: Path, rows: int = 420, labels: int = 200, count: int = 4, version: int | None = 4
) -> World:
    """A world with so many predictions, labels and functions."""
    store = Store(folder / "log.db")
    writer = Writer(store)
    functions = functions_of(count) if count else FunctionSet([])
    late = {"short": FunctionHealth("short", "open", "it took 61 ms, more than its budget of 50 ms")}
    current = Current(in_force_of(functions, version), lambda: late)
    writer.record_functions(current.in_force.functions_version).result()
    predictions = predictions_of(functions, rows)
    writer.append(predictions).result()
    at = NOW - timedelta(minutes=1)
    writer.label("spam", [Label(each.id, "spam", at, at) for each in predictions[:labels]]).result()
    return World(current, store, writer)


def tell(made: World, pages: Any) -> None:
    """Let the loop have gone round: alarms of every state, runs of every end, reports, and hostile words."""
    spans = [("links", "version 5 was promoted"), ("asks/what?", ""), ("short", EVIL), (EVIL, "")]
    for k, (name, resolution) in enumerate(spans):
        at = NOW - timedelta(minutes=40 - 9 * k)
        made_of = pages.drift if k % 2 else pages.accuracy_drift
        found = made_of(name, since=at - timedelta(minutes=7))
        opened = made.do(partial(open_alarm, model="spam", version=4, verdict=DriftDetected(at, found)))
        if resolution:
            made.do(partial(resolve_alarm, alarm_id=opened.id, at=NOW, resolution=resolution))
    made.do(partial(acknowledge_alarm, alarm_id=2, at=NOW, by=EVIL, note=f"I know {EVIL}"))
    for shown in pages.ends():
        _keep_run(made, shown)
    for each in (pages.report(), pages.report(columns=(), error=EVIL), pages.report(columns=())):
        made.do(partial(add_report, report=each))
    made.current.drifts = (
        pages.drift("links", 21, 1000, evidence=4.2, lower=0.012, upper=0.033),
        pages.drift(EVIL, evidence=-3.0),
        pages.accuracy_drift("__all__", fingerprint=None, evidence=1.5),
        pages.drift("asks/what?", zone=None, evidence=0.0, since=None),
    )


def alarm_everywhere(made: World, pages: Any) -> None:
    """Let every slice alarm on both of its rates, and one of them again and again."""
    names = made.current.in_force.functions.names

    def work(connection: Connection) -> None:
        for k in range(25):
            at = NOW - timedelta(minutes=55 - 2 * k)
            opened = open_alarm(connection, "spam", 4, DriftDetected(at, pages.drift("short")))
            if opened is not None:
                resolve_alarm(connection, opened.id, at, "back in its zone")
        for name in names:
            for found in (pages.drift(name), pages.accuracy_drift(name)):
                open_alarm(connection, "spam", 4, DriftDetected(NOW - timedelta(minutes=1), found))

    made.do(work)
    made.current.drifts = tuple(pages.drift(name, evidence=k / 10) for k, name in enumerate(names))


def _keep_run(made: World, shown: Run) -> None:
    """Open a run and move it on until it is like one."""
    at, trigger = shown.opened_at, shown.trigger
    first = "training" if trigger == "request" else "waiting_for_labels"
    opened = made.do(
        partial(
            open_run,
            model="spam",
            state=first,
            trigger=trigger,
            reason=shown.reason,
            at=at,
            alarms=shown.alarms,
            slices=shown.slices,
            since=shown.since,
        )
    )
    ways = {
        "promoted": ("training", "gated"),
        "rejected": ("training", "gated"),
        "held": ("training", "gated"),
    }
    here = first
    known = {"champion": 4, "candidate": shown.candidate, "data": shown.data, "decision": shown.decision}
    for k, state in enumerate([*ways.get(shown.state, ()), shown.state]):
        if state != here:
            told = known if state == "gated" else {"attempts": 1} if state == "training" else {}
            end = {"outcome": shown.outcome} if state == shown.state else {}
            later = at + timedelta(minutes=k + 1)
            made.do(partial(move_run, run_id=opened.id, expected=here, at=later, state=state, **told, **end))
            here = state


def registry_of(folder: Path) -> ModelRegistry:
    """Five versions with small files, the fourth in force, the first damaged since."""
    counts = {"__all__": SliceCounts(500, 500, 0, 480, 60, 54, 58)}
    for number in range(1, 6):
        files = {
            "config.json": json.dumps({"classes": ["ham", "spam"], "format": number}).encode(),
            "reference.json": json.dumps(counts_to_json(counts)).encode(),
        }
        write_folder(folder / "spam" / "versions" / f"{number:06d}", files)
    made = ModelRegistry(folder, "spam")
    at = NOW - timedelta(days=3)
    for k, (version, before) in enumerate(((1, None), (3, 1), (4, 3))):
        reason = EVIL if version == 3 else "better on links"
        made.promote(version, expected=before, reason=reason, at=at + timedelta(hours=k))
    (folder / "spam" / "versions" / "000001" / "config.json").unlink()
    return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes a world."""
    made: list[World] = []

    def make(**values: Any) -> World:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(world_of(folder, **values))
        return made[-1]

    yield make
    for each in made:
        each.writer.stop()
        each.store.close()


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory, pages: Any) -> Iterator[World]:
    """A world with traffic, labels, a snapshot, and a loop that has gone round; not to be changed."""
    made = world_of(tmp_path_factory.mktemp("busy"))
    made = replace(made, registry=registry_of(tmp_path_factory.mktemp("registry")))
    tell(made, pages)
    made.tick()
    yield made
    made.writer.stop()
    made.store.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world without traffic, in which tests open alarms of slices of their own."""
    made = world_of(tmp_path_factory.mktemp("desk"), rows=0, labels=0)
    yield made
    made.writer.stop()
    made.store.close()


@dataclass(frozen=True)
class Served:
    """Addresses of worlds that are served."""

    busy: str
    many: str
    quiet: str
    unlabelled: str
    bare: str
    new: str
    untrained: str


def serve(app: FastAPI) -> tuple[str, Callable[[], None]]:
    """Serve an application from a thread, and return its address and what stops it."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()
        listening.close()

    return f"http://127.0.0.1:{listening.getsockname()[1]}", stop


@pytest.fixture(scope="session")
def serving() -> Callable[[FastAPI], tuple[str, Callable[[], None]]]:
    """Serves an application; see ``serve``."""
    return serve


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, busy: World, pages: Any) -> Iterator[Served]:
    """Every kind of world behind an address of its own."""
    kinds: dict[str, dict[str, Any]] = {
        "many": {"count": 200, "rows": 120},
        "quiet": {"rows": 0, "labels": 0},
        "unlabelled": {"labels": 0},
        "bare": {"count": 0},
        "new": {},
        "untrained": {"rows": 0, "labels": 0, "version": None},
    }
    worlds = {name: world_of(tmp_path_factory.mktemp(name), **values) for name, values in kinds.items()}
    alarm_everywhere(worlds["many"], pages)
    for name, each in worlds.items():
        if name != "new":
            each.tick()
    servers = {name: serve(each.app) for name, each in (*worlds.items(), ("busy", busy))}
    yield Served(**{name: address for name, (address, _) in servers.items()})
    for _, stop in servers.values():
        stop()
    for each in worlds.values():
        each.writer.stop()
        each.store.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine; while it is open, its event loop is the one of the whole thread."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()
