"""Dynamic batching without a timer: requests that arrive while the model is busy form the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any, Generic, TypeAlias, TypeVar

from service.errors import (
    DeadlinePassed,
    MisuseError,
    ModelExited,
    Overloaded,
    RowsFailed,
    Stopping,
    WrongResultCount,
)

RowT = TypeVar("RowT")
ResultT = TypeVar("ResultT")
AnswerT = TypeVar("AnswerT")

MAX_FAILED_ROWS = 64
"""Failed rows of a request with which the search for others ends."""
MAX_SEARCH_RUNS = 64
"""Maximum runs of the search for the failed rows of a request."""
SEARCH_SHARE = 0.2
"""Share of the time for these searches while other requests wait."""
_LEAST_ROUNDS = 3
FINISH_SECONDS = 0.005
"""Time for which the next batch waits for the end of this one: together, requests make larger batches."""


@dataclass(slots=True)
class _Pending(Generic[RowT, AnswerT]):
    """One request in the queue; times in monotonic seconds."""

    rows: Sequence[RowT]
    outcomes: asyncio.Future[list[AnswerT]]
    queued_at: float
    deadline: float | None

    def succeed(self, answers: list[AnswerT]) -> None:
        if not self.outcomes.done():
            self.outcomes.set_result(answers)

    def fail(self, error: Exception) -> None:
        if not self.outcomes.done():
            self.outcomes.set_exception(error)


@dataclass(slots=True)
class _Search(Generic[RowT, ResultT, AnswerT]):
    """Search for the rows for which a request failed: parts that grow while they succeed, and shrink when one fails."""

    pending: _Pending[RowT, AnswerT]
    error: Exception
    max_rows: int
    results: list[ResultT] = field(default_factory=list)
    failed: dict[int, Exception] = field(default_factory=dict)
    start: int = 0
    rows: int = 1
    runs: int = 0

    def step(self, run: Callable[[Sequence[RowT]], list[ResultT]]) -> None:
        """Run the next part."""
        part = self.pending.rows[self.start : self.start + self.rows]
        self.runs += 1
        try:
            self.results += run(part)
        except RowsFailed as error:
            self.failed |= {self.start + row: reason for row, reason in error.errors.items()}
            self.start += error.checked
        except Exception as error:
            if len(part) == 1:
                self.failed[self.start] = error
                self.start += 1
            self.rows = max(1, len(part) // 2)
        else:
            self.start += len(part)
            self.rows = min(2 * self.rows, self.max_rows)

    @property
    def is_over(self) -> bool:
        """True if the request can be answered, or waits no more."""
        is_done = self.start == len(self.pending.rows) or len(self.failed) >= MAX_FAILED_ROWS
        return is_done or self.runs >= MAX_SEARCH_RUNS or self.pending.outcomes.done()

    @property
    def outcome(self) -> list[ResultT] | Exception:
        """Results of the request, or its error."""
        if self.failed:
            return RowsFailed(self.failed, self.start)
        return self.error if self.start < len(self.pending.rows) else self.results


_Finished: TypeAlias = tuple[list[_Pending[RowT, AnswerT]], Future[list[list[AnswerT] | Exception]]]
_Worked: TypeAlias = tuple[list[tuple[_Pending[RowT, AnswerT], Exception]], _Finished[RowT, AnswerT] | None]


def _unchanged(requests: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(requests)
    return done


class Batcher(Generic[RowT, ResultT, AnswerT]):
    """Gathers requests into batches, and runs one batch at a time in a thread of its own.

    An idle model starts at once; a busy one takes the requests that have arrived meanwhile. Rows of one
    request stay together. A request with a row that fails has no result, and does not affect others: those of
    its batch run again without it. If the error names no rows, they are searched for with a limited number of
    runs, for which other requests wait a fifth of the time at most.

    Parameters
    ----------
    run
        Maps N rows to N results, in order, or raises; `RowsFailed` names the rows. Called in the batcher's thread.
    finish
        Maps the results of M requests of a batch to their answers, or the error of each, later; None if the results
        are the answers. Called in the batcher's thread.
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
        finish: Callable[[list[list[ResultT]]], Future[list[list[AnswerT] | Exception]]] | None = None,
        *,
        max_batch_rows: int = 64,
        max_queue_rows: int = 2048,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if min(max_batch_rows, max_queue_rows) < 1:
            raise MisuseError(
                f"max_batch_rows and max_queue_rows must be at least 1, got {max_batch_rows} and {max_queue_rows}"
            )
        self._run, self._finish, self._clock = run, finish or _unchanged, clock
        self._max_batch_rows, self._max_queue_rows = max_batch_rows, max_queue_rows
        self._queue: deque[_Pending[RowT, AnswerT]] = deque()
        self._queued_rows = 0
        self._searches: deque[_Search[RowT, ResultT, AnswerT]] = deque()
        self._finishing: set[asyncio.Task[None]] = set()
        self._owed_seconds = 0.0
        self._arrived = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def has_room(self, rows: int = 1) -> bool:
        """Return whether the queue has room for that many rows; lets callers refuse a request before parsing it."""
        return not self._stopping and self._queued_rows + rows <= self._max_queue_rows

    async def submit(self, rows: Sequence[RowT], within_seconds: float | None = None) -> list[AnswerT]:
        """Return the answers to one request's rows, in order.

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
        RowsFailed
            If rows failed.
        Exception
            The error of ``run`` if the rows were not found.
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
        now = self._clock()
        loop = self._loop = self._loop or asyncio.get_running_loop()
        deadline = None if within_seconds is None else now + within_seconds
        pending: _Pending[RowT, AnswerT] = _Pending(rows, loop.create_future(), now, deadline)
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
            await asyncio.gather(*self._finishing)
        finally:
            for pending in (*self._queue, *(search.pending for search in self._searches)):
                pending.fail(Stopping("the service stopped while the request was in the queue"))
            self._queue.clear()
            self._searches.clear()
            self._queued_rows = 0
            self._thread.shutdown(wait=False)

    async def _run_batches(self) -> None:
        while self._queue or self._searches or not self._stopping:
            began = self._clock()
            if self._searches and (not self._queue or self._owed_seconds <= 0):
                await self._search()
                self._owed_seconds = (self._clock() - began) * (1 / SEARCH_SHARE - 1)
            elif self._queue:
                await self._gather()
                if batch := self._next_batch():
                    await self._run_batch(batch)
                    self._owed_seconds -= self._clock() - began
            else:
                self._arrived.clear()
                await self._arrived.wait()

    async def _gather(self) -> None:
        """Let requests join the batch that are ready now, and those that follow answers sent just now."""
        rows, rounds = -1, 0
        while rows < self._queued_rows < self._max_batch_rows or rounds < _LEAST_ROUNDS:
            rows, rounds = self._queued_rows, rounds + 1
            await asyncio.sleep(0)

    async def _run_batch(self, batch: list[_Pending[RowT, AnswerT]]) -> None:
        try:
            failed, succeeded = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, batch)
        except asyncio.CancelledError:
            for pending in batch:
                pending.fail(Stopping("the service stopped while the request was running"))
            raise
        except Exception as error:  # no thread could be started; the next batch may get one
            failed, succeeded = [(pending, RowsFailed({0: error}, 1)) for pending in batch], None
        for pending, outcome in failed:
            if isinstance(outcome, RowsFailed):
                pending.fail(outcome)
            elif len(pending.rows) == 1:
                pending.fail(RowsFailed({0: outcome}, 1))
            elif sum(len(search.pending.rows) for search in self._searches) < self._max_queue_rows:
                max_rows = max(self._max_batch_rows, 4 * len(pending.rows) // MAX_SEARCH_RUNS)
                self._searches.append(_Search(pending, outcome, max_rows))
            else:
                pending.fail(outcome)
        await self._succeed(succeeded)

    def _work(self, batch: list[_Pending[RowT, AnswerT]]) -> _Worked[RowT, AnswerT]:
        """Run a batch, and finish the requests that succeeded; called in the thread."""
        outcomes = self._outcomes(batch)
        failed = [(pending, outcome) for pending, outcome in outcomes if not isinstance(outcome, list)]
        results = [(pending, outcome) for pending, outcome in outcomes if isinstance(outcome, list)]
        if not results:
            return failed, None
        return failed, ([pending for pending, _ in results], self._finish([outcome for _, outcome in results]))

    async def _search(self) -> None:
        """Run a part of the request that failed first."""
        search, finished = self._searches[0], None
        loop = asyncio.get_running_loop()
        try:
            if not search.is_over:
                await loop.run_in_executor(self._thread, search.step, self._results)
            if search.is_over and isinstance(outcome := search.outcome, list):
                finished = [search.pending], await loop.run_in_executor(self._thread, self._finish, [outcome])
        except Exception as error:  # as for a batch
            search.pending.fail(error)
        if search.is_over:
            self._searches.popleft()
            if isinstance(outcome := search.outcome, Exception):
                search.pending.fail(outcome)
            await self._succeed(finished)

    async def _succeed(self, finished: _Finished[RowT, AnswerT] | None) -> None:
        """Answer finished requests; return then, or earlier if their end takes long."""
        if finished is None:
            return
        if finished[1].done():
            await self._answer(*finished)
        else:
            task = asyncio.get_running_loop().create_task(self._answer(*finished), name="batcher-finish")
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)
            await asyncio.wait((task,), timeout=FINISH_SECONDS)

    async def _answer(
        self, requests: list[_Pending[RowT, AnswerT]], future: Future[list[list[AnswerT] | Exception]]
    ) -> None:
        outcomes: list[list[AnswerT] | Exception]
        try:
            outcomes = future.result() if future.done() else await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            for pending in requests:
                pending.fail(Stopping("the service stopped while the request was running"))
            raise
        except Exception as error:
            outcomes = [error] * len(requests)
        for pending, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, list):
                pending.succeed(outcome)
            else:
                pending.fail(outcome)

    def _next_batch(self) -> list[_Pending[RowT, AnswerT]]:
        """Take the next batch from the queue; expired and cancelled requests are dropped."""
        now, rows = self._clock(), 0
        batch: list[_Pending[RowT, AnswerT]] = []
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

    def _outcomes(
        self, batch: list[_Pending[RowT, AnswerT]]
    ) -> list[tuple[_Pending[RowT, AnswerT], list[ResultT] | Exception]]:
        """Run requests together, and those of a batch that fails without the ones that fail; called in the thread."""
        try:
            results = iter(self._results([row for pending in batch for row in pending.rows]))
            return [(pending, list(islice(results, len(pending.rows)))) for pending in batch]
        except RowsFailed as failed:
            outcomes: list[tuple[_Pending[RowT, AnswerT], list[ResultT] | Exception]] = []
            others, start = [], 0
            for pending in batch:
                end = start + len(pending.rows)
                own = {row - start: error for row, error in failed.errors.items() if start <= row < end}
                if own:
                    outcomes.append((pending, RowsFailed(own, min(failed.checked, end) - start)))
                else:
                    others.append(pending)
                start = end
            return outcomes + (self._outcomes(others) if others else [])
        except Exception as error:
            if len(batch) == 1:
                return [(batch[0], error)]
            half = len(batch) // 2
            return self._outcomes(batch[:half]) + self._outcomes(batch[half:])

    def _results(self, rows: Sequence[RowT]) -> list[ResultT]:
        try:
            results = list(self._run(rows))
        except SystemExit as error:  # raised again, it would end the process
            raise ModelExited(f"the model exited with {error.code!r}: please report this") from error
        if len(results) != len(rows):
            raise WrongResultCount(
                f"the model returned {len(results)} results for {len(rows)} rows: please report this"
            )
        return results
