"""Pages wait for their turn."""

import asyncio
import threading

import pytest

from service.console.turns import TooManyPages, Turns

PATIENCE_SECONDS = 30


class Work:
    """Blocks until it is let go, and counts how much of it runs at once."""

    def __init__(self):
        self.begun, self.let_go = threading.Semaphore(0), threading.Event()
        self.running, self.most = 0, 0
        self._lock = threading.Lock()

    def __call__(self):
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.begun.release()
        assert self.let_go.wait(PATIENCE_SECONDS)
        with self._lock:
            self.running -= 1


def test_no_more_run_at_once_than_may():
    """The others wait until it is their turn; all are done in the end."""
    work = Work()

    async def story():
        turns = Turns(at_once=2)
        pages = [asyncio.create_task(turns.run(work)) for _ in range(12)]
        for _ in range(2):
            assert await asyncio.to_thread(work.begun.acquire, timeout=PATIENCE_SECONDS)
        work.let_go.set()
        await asyncio.gather(*pages)

    asyncio.run(story())
    assert (work.most, work.running) == (2, 0)


def test_who_has_no_turn_in_time_is_told():
    """A page behind others that do not end is refused; once they end, there are turns again."""
    work = Work()

    async def story():
        turns = Turns(at_once=1, wait_seconds=0.01)
        first = asyncio.create_task(turns.run(work))
        assert await asyncio.to_thread(work.begun.acquire, timeout=PATIENCE_SECONDS)
        with pytest.raises(TooManyPages, match="too many pages are asked for"):
            await turns.run(work)
        work.let_go.set()
        await first
        return await turns.run(lambda: "made")

    assert asyncio.run(story()) == "made"


def test_a_page_that_nobody_waits_for_keeps_its_turn_until_it_is_made():
    """However many are given up, no more threads are at work."""
    work = Work()

    async def story():
        turns = Turns(at_once=1, wait_seconds=0.01)
        first = asyncio.create_task(turns.run(work))
        assert await asyncio.to_thread(work.begun.acquire, timeout=PATIENCE_SECONDS)
        first.cancel()
        with pytest.raises(TooManyPages):
            await turns.run(work)
        work.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await turns.run(lambda: "made")

    assert asyncio.run(story()) == "made"
