"""Runtimes with some traffic and history, whose pages tests request in process or from a server."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import uvicorn
from factories import ManualClock, make_settings
from fastapi import FastAPI
from page_factories import EVIL, NOW, accuracy_drift, drift, finished_runs, report
from sqlalchemy import Connection

from models.bundle.files import write_folder
from models.bundle.reference import SliceCounts, counts_to_json
from models.registry import ModelRegistry
from service.app import create_app
from service.decisions import DriftDetected, Run
from service.events import Label, Prediction
from service.runtime.runtime import Runtime
from service.serving.live_functions import LiveFunctions
from service.settings.schema import ServeSettings
from service.store.alarms import acknowledge_alarm, open_alarm, resolve_alarm
from service.store.reports import add_report
from service.store.runs import move_run, open_run
from sfs.apply import FunctionStats, apply
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import template

T = TypeVar("T")
TEXTS = (
    "hi",
    "check out my channel http://example.com",
    "what is this song?",
    f"{EVIL} <img src=x onerror=alert(1)>",
    "a_very_long_word_without_any_break_" * 12,
    "good\n\nold song, " * 40,
)


class DisabledFunction(LiveFunctions):
    """Functions of which ``short`` is disabled by its breaker."""

    def disabled_reasons(self) -> dict[str, str | None]:
        return {"short": "it took 61 ms, more than its budget of 50 ms"}


@dataclass
class World:
    """A runtime of model ``spam`` whose jobs run only when asked, and its web application."""

    runtime: Runtime

    @cached_property
    def app(self) -> FastAPI:
        return create_app(self.runtime)

    def request(self, method: str, path: str, **values: Any) -> httpx.Response:
        """Send a request in process."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.request(method, path, **values)

        return asyncio.run(send())

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.request("GET", path, params=params or None)

    def post(self, path: str, fields: Any, **headers: str) -> httpx.Response:
        return self.request("POST", path, data=fields, headers=headers)

    def start_page_threads(self) -> None:
        """Start the threads that render pages, which last as long as the runtime."""

        async def send() -> None:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                await asyncio.gather(*(client.get("/runs") for _ in range(8)))

        asyncio.run(send())

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do some work in a transaction of the writer."""
        return self.runtime.writer.submit(work).result()

    def open_alarm(self, *args: Any, at: Any = NOW, **kwargs: Any) -> Any:
        """Open an alarm about a slice."""
        found = DriftDetected(at, drift(*args, **kwargs))
        return self.write(partial(open_alarm, model="spam", version=4, detection=found))

    def activate(self, functions: FunctionSet, **changes: Any) -> None:
        """Apply functions, and change the state of the deployment."""
        deployment = self.runtime.model.deployment
        deployment.activate_functions(functions, dict.fromkeys(functions.names, "file"))
        deployment.state = replace(deployment.state, live=DisabledFunction(functions), **changes)

    def take_snapshot(self) -> None:
        self.runtime.model.snapshots.run(NOW - timedelta(seconds=5))


def functions_of(count: int) -> FunctionSet:
    """Four meaningful functions with owners and targets, and more up to the count."""
    return FunctionSet(
        [
            template("short", length={"field": "text", "below": 10}, owner="growth", target=0.99, protected=True),
            template("links", keyword={"field": "text", "words": ["http"]}, severity="critical"),
            template(EVIL, regex={"field": "text", "pattern": "script"}, description=EVIL, owner=EVIL),
            template("asks/what?", regex={"field": "text", "pattern": r"\?$"}, target=0.5),
            *(
                template(f"{'long_name_' * (i % 9)}{i}", length={"field": "text", "below": i + 3}, target=0.9)
                for i in range(count - 4)
            ),
        ]
    )


def predictions_of(functions: FunctionSet, rows: int) -> list[Prediction]:
    """Predictions of the last 50 minutes, in batches of three at one time."""
    draw = np.random.default_rng(7)
    records = [{"text": TEXTS[draw.integers(len(TEXTS))], "likes": i, "row": EVIL} for i in range(rows)]
    member = apply(functions, records).member
    bits = np.packbits(member, axis=1, bitorder="little") if len(functions) else np.zeros((rows, 0), np.uint8)
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


def make_world(folder: Path, rows: int = 420, labels: int = 200, count: int = 4, version: int | None = 4) -> World:
    """Return a world with given numbers of predictions, labels and functions."""
    clock = ManualClock(NOW - timedelta(days=1))
    serve = ServeSettings(hosts=("here",))
    made = World(Runtime(make_settings(folder, name="spam", classes=("ham", "spam"), serve=serve), clock))
    functions = functions_of(count) if count else FunctionSet([])
    references = {"short": Rate(30, 400), "links": Rate(80, 480)} if count else {}
    promoted_at = NOW - timedelta(hours=5) if version else None
    made.activate(functions, version=version, references=references, promoted_at=promoted_at)
    clock.now = NOW
    predictions, at = predictions_of(functions, rows), NOW - timedelta(minutes=1)
    made.runtime.writer.append(predictions).result()
    made.runtime.writer.label("spam", [Label(each.id, "spam", at, at) for each in predictions[:labels]]).result()
    return made


def add_history(made: World) -> None:
    """Add alarms of every state, runs of every outcome, reports, failures, versions, and hostile text."""
    spans = [("links", "version 5 was promoted"), ("asks/what?", ""), ("short", EVIL), (EVIL, "")]
    for k, (name, resolution) in enumerate(spans):
        at = NOW - timedelta(minutes=40 - 9 * k)
        found = (drift if k % 2 else accuracy_drift)(name, since=at - timedelta(minutes=7))
        opened = made.write(partial(open_alarm, model="spam", version=4, detection=DriftDetected(at, found)))
        if resolution:
            made.write(partial(resolve_alarm, alarm_id=opened.id, at=NOW, resolution=resolution))
    made.write(partial(acknowledge_alarm, alarm_id=2, at=NOW, by=EVIL, note=f"I know {EVIL}"))
    for each in finished_runs():
        _add_run(made, each)
    for each in (report(), report(columns=(), error=EVIL), report(columns=())):
        made.write(partial(add_report, report=each))
    made.runtime.model.deployment.drift_statuses = (
        drift("links", 21, 1000, evidence=4.2, lower=0.012, upper=0.033),
        drift(EVIL, evidence=-3.0),
        accuracy_drift("__all__", fingerprint=None, evidence=1.5),
        drift("asks/what?", zone=None, evidence=0.0, since=None),
    )
    made.runtime.metrics.count_function_runs([FunctionStats("short", 0.1, {"KeyError": 12, EVIL: 3}, None)])
    _add_versions(made.runtime.settings.registry)


def _add_run(made: World, like: Run) -> None:
    """Open a run, and move it until it is like the given one."""
    at, state = like.opened_at, "training" if like.trigger == "request" else "waiting_for_labels"
    opened = made.write(
        partial(
            open_run,
            model="spam",
            state=state,
            trigger=like.trigger,
            reason=like.reason,
            at=at,
            alarms=like.alarms,
            slices=like.slices,
            since=like.since,
        )
    )
    path = ("training", "gated") if like.state in ("promoted", "rejected", "held") else ()
    facts = {"champion": 4, "candidate": like.candidate, "data": like.data, "decision": like.decision}
    for k, following in enumerate([*path, like.state], 1):
        if following == state:
            continue
        changes = facts if following == "gated" else {"attempts": 1} if following == "training" else {}
        if following == like.state:
            changes = changes | {"outcome": like.outcome}
        later = at + timedelta(minutes=k)
        made.write(partial(move_run, run_id=opened.id, expected=state, at=later, state=following, **changes))
        state = following


def _add_versions(folder: Path) -> None:
    """Add five versions with small files: the fourth is the champion, the first is damaged."""
    counts = {"__all__": SliceCounts(500, 500, 0, 480, 60, 54, 58, 57, 480)}
    for number in range(1, 6):
        files = {
            "config.json": json.dumps({"classes": ["ham", "spam"], "format": number}).encode(),
            "reference.json": json.dumps(counts_to_json(counts)).encode(),
        }
        write_folder(folder / "spam" / "versions" / f"{number:06d}", files)
    registry = ModelRegistry(folder, "spam")
    for k, (version, before) in enumerate(((1, None), (3, 1), (4, 3))):
        at = NOW - timedelta(days=3) + timedelta(hours=k)
        registry.promote(version, expected=before, reason=EVIL if version == 3 else "better on links", at=at)
    (folder / "spam" / "versions" / "000001" / "config.json").unlink()


def alarm_everywhere(made: World) -> None:
    """Raise both alarms of every slice, and one of them many times."""
    names = made.runtime.model.deployment.state.functions.names

    def work(connection: Connection) -> None:
        for k in range(25):
            at = NOW - timedelta(minutes=55 - 2 * k)
            opened = open_alarm(connection, "spam", 4, DriftDetected(at, drift("short")))
            if opened is not None:
                resolve_alarm(connection, opened.id, at, "back in its zone")
        for name in names:
            for found in (drift(name), accuracy_drift(name)):
                open_alarm(connection, "spam", 4, DriftDetected(NOW - timedelta(minutes=1), found))

    made.write(work)
    made.runtime.model.deployment.drift_statuses = tuple(drift(name, evidence=k / 10) for k, name in enumerate(names))


def world_maker(folder: Path) -> Iterator[Callable[..., World]]:
    """Yield a function that makes worlds, and stop them all."""
    made: list[World] = []

    def make(**values: Any) -> World:
        made.append(make_world(folder / str(len(made)), **values))
        return made[-1]

    yield make
    for each in made:
        asyncio.run(each.runtime.stop(5.0))


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Serve an application from a thread, and yield its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
