"""Reads have threads of their own."""

import asyncio
import threading

import pytest

from service.api.requests import ReadPool
from service.store.engine import READERS


def test_a_read_that_was_given_up_still_counts(service) -> None:
    """So many run at once and no more, also where nobody waits for some of them any more."""
    readers, go_on = ReadPool(service.runtime), threading.Event()
    begun = threading.Semaphore(0)

    def read() -> None:
        begun.release()
        go_on.wait(600)

    async def story() -> None:
        waiting = [asyncio.create_task(readers.run(read)) for _ in range(READERS - 2)]
        for _ in waiting:
            await asyncio.to_thread(begun.acquire)
        for each in waiting:
            each.cancel()
        late = asyncio.create_task(readers.run(lambda: "read"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(late), 0.05)
        go_on.set()
        assert await late == "read"

    asyncio.run(story())
