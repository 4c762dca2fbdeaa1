"""One rung of the ladder as a process: it serves what its name says, and prints its address.

    python tests/benchmarks/serving_stage.py STAGE SETTINGS

Every rung is served by the same server. From ``model`` on, a rung is the API itself on real parts; what it is to
be measured without is replaced by a part of the same shape that does nothing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from models.registry import ModelRegistry
from service.api.app import ROUTES, routes
from service.api.parts import SHED_REASONS, STAGES, Limits, Parts
from service.events import FunctionSetVersion, Prediction
from service.metrics.page import MetricsPage
from service.metrics.process import ProcessMetrics
from service.serving.batcher import Batcher
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import PredictionFactory
from service.serving.predictor import ActiveModel, BatchReport, Predictor
from service.serving.predictor import load as load_version
from service.settings.project import Settings, load
from service.store.engine import Store
from service.store.prediction_log import LogResult
from service.store.writer import Writer
from service.views.current import Current, InForce
from sfs.registry import FunctionSet

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
MODEL_STAGES = ("features", "functions", "model", "record")
ANSWER = {
    "model": {"name": "comments", "version": 1},
    "predictions": [
        {
            "id": "01994d6e-7c4b-7000-8000-000000000000",
            "label": "ham",
            "probabilities": {"ham": 0.75, "spam": 0.25},
            "slices": ["function000", "no_author"],
            "unknown_slices": [],
            "version": 1,
            "repeated": False,
        }
    ],
}


class Asked(BaseModel):
    """The body of a prediction."""

    instances: list[dict[str, Any]]
    ids: list[str] | None = None


class AnsweredRow(BaseModel):
    """One answer."""

    id: str
    label: str
    probabilities: dict[str, float]
    slices: list[str]
    unknown_slices: list[str]
    version: int
    repeated: bool


class Answered(BaseModel):
    """The answers."""

    model: dict[str, Any]
    predictions: list[AnsweredRow]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, and answer the same bytes to everything."""
    while (await receive()).get("more_body"):
        pass
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"content-length", BARE_LENGTH)],
        }
    )
    await send({"type": "http.response.body", "body": BARE_BODY})


BARE_BODY = json.dumps(ANSWER).encode()
BARE_LENGTH = str(len(BARE_BODY)).encode()


def endpoint() -> FastAPI:
    """Return FastAPI with the same body and answer, each taken and made by hand, and nothing between."""
    app = FastAPI()

    @app.post("/v1/predict")
    async def predict(request: Request) -> Response:
        Asked.model_validate_json(await request.body())
        return Response(to_json(ANSWER), media_type="application/json")

    return app


def declared() -> FastAPI:
    """Return FastAPI with the same body and answer, both declared."""
    app = FastAPI()

    @app.post("/v1/predict")
    async def predict(body: Asked) -> Answered:
        return Answered.model_validate(ANSWER)

    return app


class NoMetrics:
    """Takes every count, and keeps none."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class NoLog:
    """Says that everything is in the log."""

    backlog_rows = 0

    def append(self, predictions: Sequence[Prediction]) -> Future[list[LogResult]]:
        done: Future[list[LogResult]] = Future()
        done.set_result([LogResult(each, "stored") for each in predictions])
        return done


def utc_now() -> datetime:
    return datetime.now(UTC)


def api(settings: Settings, folder: Path, *, functions: bool, log: bool, metrics: bool) -> Asgi:
    """Return the API with the champion, and with what it is to be measured with."""
    chosen = FunctionSet.from_files(settings.functions) if functions else FunctionSet([])
    store = Store(folder / "store.sqlite3")
    writer = Writer(store)
    version = FunctionSetVersion(chosen.hash, chosen.names, tuple(chosen.fingerprints.values()), utc_now())
    writer.record_functions(version).result()
    registry = ModelRegistry(settings.registry, name=settings.name)
    loaded = load_version(registry, LiveFunctions(chosen))
    counted = _metrics(settings.name, writer, version, loaded)
    kept: Any = counted if metrics else NoMetrics()

    def report(batch: BatchReport) -> None:
        kept.applied(batch.runs)
        for stage, seconds in batch.stage_seconds.items():
            kept.stage_took(stage, seconds)

    predictor = Predictor(loaded, PredictionFactory(utc_now), report if metrics else lambda batch: None)
    batcher = Batcher(predictor.predict)
    in_force = InForce(
        model=settings.name,
        version=loaded.version,
        functions=chosen,
        functions_version=version,
        metadata={},
        origins={},
        references={},
        classes=loaded.bundle.classes,
        promoted_at=None,
    )
    return routes(
        Parts(
            current=Current(in_force),
            store=store,
            writer=writer if log else NoLog(),  # type: ignore[arg-type]  # of the same shape
            metrics=kept,
            page=MetricsPage(counted),
            predict=batcher.submit,
            observe=_not_asked,
            has_room=batcher.has_room,
            classes=lambda: loaded.bundle.classes,
            add_function=_not_asked,
            remove_function=_not_asked,
            preview=_not_asked,
            registry=registry,
            clock=utc_now,
            limits=Limits(),
            problems=dict,
        )
    )


def _metrics(model: str, writer: Writer, version: FunctionSetVersion, loaded: ActiveModel) -> ProcessMetrics:
    made = ProcessMetrics(
        model,
        routes=ROUTES,
        stages=(*STAGES, *MODEL_STAGES),
        shed_reasons=SHED_REASONS,
        log_queue_rows=lambda: writer.backlog_rows,
    )
    made.watch(version)
    made.serve(loaded.version, loaded.bundle.classes)
    return made


async def _not_asked(*_: Any) -> Any:
    raise NotImplementedError("the benchmark asks for predictions only")


def application(stage: str, settings: Settings, folder: Path) -> Asgi:
    """Return what a rung serves."""
    if stage in ("asgi", "endpoint", "declared"):
        return {"asgi": lambda: bare, "endpoint": endpoint, "declared": declared}[stage]()
    have = {"model": 0, "functions": 1, "log": 2, "metrics": 3}[stage]
    return api(settings, folder, functions=have > 0, log=have > 1, metrics=have > 2)


def main() -> None:
    """Serve until killed."""
    stage, settings_file = sys.argv[1:]
    torch.set_num_threads(1)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    with tempfile.TemporaryDirectory() as folder:
        app = application(stage, load(Path(settings_file), {}), Path(folder))
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, server_header=False)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            gc.collect()
            gc.freeze()  # as `slicewatch up` does
            runner.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
