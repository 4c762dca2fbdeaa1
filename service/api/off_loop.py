"""Reading from the store, which blocks, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.store.engine import READERS

T = TypeVar("T")

AT_ONCE = READERS - 2
"""Reads at once; the other connections are for pages, and for answers that were given before."""


class Readers:
    """Threads that read; one whose answer nobody waits for any more is busy until it has read."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="reader")

    async def run(self, work: Callable[[], T]) -> T:
        """Return what some blocking work returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
