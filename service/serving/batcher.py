"""Dynamic batching without a timer: requests that arrive while the model is busy form the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Generic, TypeVar

from service.errors import (
    DeadlinePassed,
    MisuseError,
    ModelExited,
    NotAttempted,
    Overloaded,
    Stopping,
    WrongResultCount,
)

RowT = TypeVar("RowT")
ResultT = TypeVar("ResultT")

MIN_RUNS = 128
"""Minimum number of runs allowed for isolating the bad rows of a batch."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The outcome of a row without a result."""

    error: Exception


@dataclass(slots=True)
class _Pending(Generic[RowT, ResultT]):
    """One request in the queue; times in monotonic seconds."""

    rows: Sequence[RowT]
    outcomes: asyncio.Future[list[ResultT | Failed]]
    queued_at: float
    deadline: float | None

    def fail(self, error: Exception) -> None:
        if not self.outcomes.done():
            self.outcomes.set_exception(error)


class Batcher(Generic[RowT, ResultT]):
    """Gathers requests into batches, and runs one batch at a time in a thread of its own.

    An idle model starts at once; a busy one takes the requests that have arrived meanwhile. Rows of one
    request stay together. A batch that raises is bisected, so that only bad rows fail; the number of runs is
    limited, and rows beyond the limit fail with `NotAttempted`. Only a request longer than a batch can reach it.

    Parameters
    ----------
    run
        Maps N rows to N results, in order; called in the batcher's thread.
    max_batch_rows
        Maximum rows of a batch of several requests; a longer request is a batch by itself.
    max_queue_rows
        Capacity of the queue; requests beyond it are refused at once.
    clock
        Monotonic seconds.

    Raises
    ------
    MisuseError
        If a limit is below 1.
    """

    def __init__(
        self,
        run: Callable[[Sequence[RowT]], Sequence[ResultT]],
        *,
        max_batch_rows: int = 64,
        max_queue_rows: int = 2048,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if min(max_batch_rows, max_queue_rows) < 1:
            raise MisuseError(
                f"max_batch_rows and max_queue_rows must be at least 1, got {max_batch_rows} and {max_queue_rows}"
            )
        self._run, self._clock = run, clock
        self._max_batch_rows, self._max_queue_rows = max_batch_rows, max_queue_rows
        self._queue: deque[_Pending[RowT, ResultT]] = deque()
        self._queued_rows = 0
        self._arrived = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def has_room(self, rows: int = 1) -> bool:
        """Return whether the queue has room for that many rows; lets callers refuse a request before parsing it."""
        return not self._stopping and self._queued_rows + rows <= self._max_queue_rows

    async def submit(self, rows: Sequence[RowT], within_seconds: float | None = None) -> list[ResultT | Failed]:
        """Return the results of one request's rows, in order; `Failed` for a row that failed.

        Parameters
        ----------
        rows
            Any number of rows.
        within_seconds
            Maximum time in the queue; None for no limit.

        Raises
        ------
        Overloaded
            If the queue has no room for the rows.
        DeadlinePassed
            If they were in the queue for too long; they were not run.
        Stopping
            If the batcher is stopping.
        """
        if not rows:
            return []
        if self._stopping:
            raise Stopping("the service is stopping: retry later, or send the request to another instance")
        if not self.has_room(len(rows)):
            raise Overloaded(
                f"the queue is full: it holds {self._queued_rows} of {self._max_queue_rows} rows, and has no "
                f"room for {len(rows)} more; retry later, or send fewer rows"
            )
        now, loop = self._clock(), asyncio.get_running_loop()
        deadline = None if within_seconds is None else now + within_seconds
        pending: _Pending[RowT, ResultT] = _Pending(rows, loop.create_future(), now, deadline)
        self._queue.append(pending)
        self._queued_rows += len(rows)
        self._arrived.set()
        if self._task is None:
            self._task = loop.create_task(self._run_batches(), name="batcher")
        return await pending.outcomes

    async def stop(self) -> None:
        """Refuse new requests, answer those in the queue, and end the thread.

        If this is cancelled, by a timeout around it, requests still in the queue fail with `Stopping`.
        """
        self._stopping = True
        self._arrived.set()
        try:
            if self._task is not None:
                await self._task
        finally:
            for pending in self._queue:
                pending.fail(Stopping("the service stopped while the request was in the queue"))
            self._queue.clear()
            self._queued_rows = 0
            self._thread.shutdown(wait=False)

    async def _run_batches(self) -> None:
        while self._queue or not self._stopping:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                await asyncio.sleep(0)  # requests that are ready now join the batch
                continue
            batch = self._next_batch()
            if not batch:
                continue
            rows = [row for pending in batch for row in pending.rows]
            loop = asyncio.get_running_loop()
            try:
                outcomes = await loop.run_in_executor(self._thread, self._outcomes, rows)
            except asyncio.CancelledError:
                for pending in batch:
                    pending.fail(Stopping("the service stopped while the request was running"))
                raise
            except Exception as error:  # no thread could be started; the next batch may get one
                outcomes = [Failed(error)] * len(rows)
            remaining = iter(outcomes)
            for pending in batch:
                part = list(islice(remaining, len(pending.rows)))
                if not pending.outcomes.done():
                    pending.outcomes.set_result(part)

    def _next_batch(self) -> list[_Pending[RowT, ResultT]]:
        """Take the next batch from the queue; expired and cancelled requests are dropped."""
        now, rows = self._clock(), 0
        batch: list[_Pending[RowT, ResultT]] = []
        while self._queue and (not rows or rows + len(self._queue[0].rows) <= self._max_batch_rows):
            pending = self._queue.popleft()
            self._queued_rows -= len(pending.rows)
            if pending.deadline is not None and now > pending.deadline:
                waited = now - pending.queued_at
                pending.fail(DeadlinePassed(f"the request was in the queue for {waited:.3f} s, too long"))
            elif not pending.outcomes.done():
                batch.append(pending)
                rows += len(pending.rows)
        return batch

    def _outcomes(self, rows: list[RowT]) -> list[ResultT | Failed]:
        """Run rows together, and bisect a batch that raises; called in the batcher's thread."""
        max_runs = max(2 * self._max_batch_rows, MIN_RUNS)  # enough for a batch in which every row is bad
        outcomes: list[ResultT | Failed] = []
        parts, runs = [rows], 0  # a stack: the first rows are on top
        while parts and runs < max_runs:
            part, runs = parts.pop(), runs + 1
            try:
                results = self._run(part)
                if len(results) != len(part):
                    raise WrongResultCount(
                        f"the model returned {len(results)} results for {len(part)} rows: please report this"
                    )
                outcomes += list(results)
            except (Exception, SystemExit) as error:
                half = len(part) // 2
                if half:
                    parts += [part[half:], part[:half]]
                elif isinstance(error, Exception):
                    outcomes.append(Failed(error))
                else:  # raised again, it would end the process
                    exited = ModelExited(f"the model exited with {error.code!r} on this row: please report this")
                    exited.__cause__ = error
                    outcomes.append(Failed(exited))
        missing = len(rows) - len(outcomes)
        return outcomes + [Failed(NotAttempted("not attempted: too many earlier rows failed"))] * missing
