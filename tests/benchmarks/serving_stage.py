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
from dataclasses import replace
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

from service.api.app import create_api
from service.events import Prediction
from service.runtime.runtime import Runtime
from service.serving.prediction_factory import PredictionFactory
from service.serving.predictions import RequestQueues
from service.serving.predictor import Predictor
from service.settings.loading import load
from service.settings.schema import Settings
from service.store.prediction_log import LogResult

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
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

    def append(self, predictions: Sequence[Prediction], *, here: bool) -> Future[list[LogResult]]:
        done: Future[list[LogResult]] = Future()
        done.set_result([LogResult(each, "stored") for each in predictions])
        return done


def utc_now() -> datetime:
    return datetime.now(UTC)


def api(settings: Settings, folder: Path, *, functions: bool, log: bool, metrics: bool) -> Asgi:
    """Return the API with the champion, and with the parts that are to be measured."""
    chosen = settings.functions if functions else ()
    runtime = Runtime(replace(settings, store=folder / "store.sqlite3", functions=chosen), utc_now)
    model = runtime.model
    writer: Any = runtime.writer if log else NoLog()
    runtime.metrics = counters = runtime.metrics if metrics else NoMetrics()  # type: ignore[assignment]
    predictor = Predictor(model.deployment, PredictionFactory(utc_now), counters)  # type: ignore[arg-type]
    model.predictions = RequestQueues(
        model.deployment,
        predictor,
        writer,
        counters,
        settings.serve.queue_rows,  # type: ignore[arg-type]
    )
    return create_api(runtime)


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
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, server_header=False, proxy_headers=False
        )
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            gc.collect()
            gc.freeze()  # as `slicewatch up` does
            runner.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
