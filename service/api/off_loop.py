"""Reading from the store, which blocks, off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

from service.store.engine import READERS

T = TypeVar("T")


class Readers:
    """Threads that read, as many as the store has connections for reading.

    A request that ran out of time leaves its thread to finish by itself.
    """

    def __init__(self) -> None:
        self._limiter = CapacityLimiter(READERS)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what some blocking work returns."""
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
