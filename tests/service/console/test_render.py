"""Pages are rendered on a few threads of their own."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.console.render import PageExecutor, TooManyPages

PATIENCE_SECONDS = 120


class Work:
    """Blocks until it is released, and counts its concurrent runs."""

    def __init__(self):
        self.started, self.release = threading.Semaphore(0), threading.Event()
        self.running, self.most = 0, 0
        self._lock = threading.Lock()

    def __call__(self):
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.started.release()
        assert self.release.wait(PATIENCE_SECONDS)
        with self._lock:
            self.running -= 1


def test_at_most_the_given_number_of_pages_render_at_once():
    """Other pages wait for a thread, and all are rendered."""
    work = Work()

    async def story(executor):
        pages = [asyncio.create_task(executor.run(work)) for _ in range(12)]
        for _ in range(2):
            assert await asyncio.to_thread(work.started.acquire, timeout=PATIENCE_SECONDS)
        work.release.set()
        await asyncio.gather(*pages)

    with ThreadPoolExecutor(2) as threads:
        asyncio.run(story(PageExecutor(threads)))
    assert (work.most, work.running) == (2, 0)


def test_a_page_without_a_thread_in_time_is_refused():
    """A page behind one that does not end is refused; afterwards the thread is free again."""
    work = Work()

    async def story(executor):
        first = asyncio.create_task(executor.run(work))
        assert await asyncio.to_thread(work.started.acquire, timeout=PATIENCE_SECONDS)
        with pytest.raises(TooManyPages, match="too many pages are requested"):
            await executor.run(work)
        work.release.set()
        await first
        return await executor.run(lambda: "done")

    with ThreadPoolExecutor(1) as threads:
        assert asyncio.run(story(PageExecutor(threads, wait_seconds=0.01))) == "done"


def test_an_abandoned_page_occupies_its_thread_until_it_is_done():
    """Cancelled requests do not start further threads."""
    work = Work()

    async def story(executor):
        first = asyncio.create_task(executor.run(work))
        assert await asyncio.to_thread(work.started.acquire, timeout=PATIENCE_SECONDS)
        first.cancel()
        with pytest.raises(TooManyPages):
            await executor.run(work)
        work.release.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await executor.run(lambda: "done")

    with ThreadPoolExecutor(1) as threads:
        assert asyncio.run(story(PageExecutor(threads, wait_seconds=0.01))) == "done"
