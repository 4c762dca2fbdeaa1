"""The runtime of the orders project and its application, in this process and without a server."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from factories import PATIENT, ManualClock

from service.app import create_app
from service.runtime.runtime import Runtime
from service.settings.loading import load

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


@dataclass
class Running:
    """A runtime, a client of its application, and its clock."""

    runtime: Runtime
    http: httpx.AsyncClient
    clock: ManualClock

    async def post(self, path: str, body: Any, expected: int = 200) -> Any:
        response = await self.http.post(path, json=body)
        assert response.status_code == expected, response.text
        return response.json()

    async def get(self, path: str, expected: int = 200) -> Any:
        response = await self.http.get(path)
        assert response.status_code == expected, response.text
        return response.json()

    def tick(self, seconds: float = 10) -> None:
        """Let time pass, and take a snapshot."""
        self.runtime.model.snapshots.run(self.clock.advance(seconds=seconds))

    def detect(self, seconds: float = 10) -> None:
        """Let time pass, take a snapshot, and look for drift, as the tick job does."""
        self.tick(seconds)
        self.runtime.model.detection.run(self.clock.now)


Run = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def serving() -> Run:
    """Runs the project of a settings file, and stops it again."""

    @asynccontextmanager
    async def run(file: Path, **environ: str) -> AsyncIterator[Running]:
        clock = ManualClock(START)
        runtime = Runtime(load(file, PATIENT | environ), clock)
        transport = httpx.ASGITransport(create_app(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            try:
                yield Running(runtime, http, clock)
            finally:
                assert await runtime.stop(10) == 0

    return run
