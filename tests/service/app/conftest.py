"""The service of the orders project, in this process and without a server."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app.build import build
from service.app.service import Service
from service.settings.project import load

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at


@dataclass
class Running:
    """A service that was built, a client of it, and its clock."""

    service: Service
    http: httpx.AsyncClient
    clock: Clock

    async def post(self, path: str, body: Any, expected: int = 200) -> Any:
        response = await self.http.post(path, json=body)
        assert response.status_code == expected, response.text
        return response.json()

    async def get(self, path: str, expected: int = 200) -> Any:
        response = await self.http.get(path)
        assert response.status_code == expected, response.text
        return response.json()

    def tick(self, seconds: float = 10) -> None:
        """Let time pass, and make a snapshot."""
        self.clock.at += timedelta(seconds=seconds)
        self.service._monitor.tick(self.clock.at)


Run = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def serving() -> Run:
    """Builds the service of a settings file, and stops it again."""

    @asynccontextmanager
    async def run(file: Path, **environ: str) -> AsyncIterator[Running]:
        clock = Clock()
        made = build(load(file, environ), clock.now)
        transport = httpx.ASGITransport(made.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            try:
                yield Running(made, http, clock)
            finally:
                assert await made.stop(10) == 0

    return run
