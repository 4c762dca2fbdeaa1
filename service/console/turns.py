"""Pages are made off the event loop, and few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.errors import ServiceError

AT_ONCE = 2
"""Pages that are made at once: they take processor time, and connections to the store, from predictions."""

WAIT_SECONDS = 5.0

T = TypeVar("T")


class TooManyPages(ServiceError):
    """A page had no turn in time."""


class Turns:
    """Threads that make pages; one whose page nobody waits for any more is busy until it has made it.

    Parameters
    ----------
    at_once
        How many.
    wait_seconds
        How long a page waits for its turn.
    """

    def __init__(self, at_once: int = AT_ONCE, wait_seconds: float = WAIT_SECONDS) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="page")
        self._wait_seconds = wait_seconds

    async def run(self, work: Callable[[], T]) -> T:
        """Return what some blocking work returns.

        Raises
        ------
        TooManyPages
            If too much other work is in hand.
        """
        made = self._threads.submit(work)
        answer = asyncio.wrap_future(made)
        try:
            await asyncio.wait([answer], timeout=self._wait_seconds)
            if made.cancel():  # which cannot be done to work that has begun
                raise TooManyPages(
                    f"too many pages are asked for: this one waited {self._wait_seconds:g} s; load it again"
                )
            return await answer
        finally:
            answer.cancel()
