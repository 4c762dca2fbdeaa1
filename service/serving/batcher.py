"""Batches that form by themselves: what piled up while the model was busy is what it gets next."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeAlias, TypeVar

from service.errors import MisuseError
from service.serving.breaker import Seconds
from service.serving.errors import (
    DeadlinePassed,
    NotAttempted,
    Overloaded,
    Stopping,
    WrongResultCount,
    raisable,
)

RowT = TypeVar("RowT")
AnswerT = TypeVar("AnswerT")

_log = logging.getLogger(__name__)

LEAST_RUNS = 128
"""Runs of one batch that may be spent on finding rows at fault, whatever its size."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that has no answer, and why."""

    error: Exception


Outcome: TypeAlias = AnswerT | Failed
"""An answer, or why there is none."""


@dataclass(frozen=True, slots=True)
class BatchTiming:
    """One turn of the model.

    Parameters
    ----------
    rows, requests
        How many were run together.
    waited_seconds
        How long each request was in the queue.
    seconds
        How long the model took.
    expired, cancelled
        Requests that were dropped rather than run, because their deadline had passed or nobody waited for them.
    failed
        Rows without an answer.
    """

    rows: int
    requests: int
    waited_seconds: tuple[Seconds, ...]
    seconds: Seconds
    expired: int
    cancelled: int
    failed: int


@dataclass(slots=True)
class _Waiting(Generic[RowT, AnswerT]):
    """One request in the queue."""

    rows: Sequence[RowT]
    answered: asyncio.Future[list[Outcome[AnswerT]]]
    since: Seconds
    deadline: Seconds | None


class Batcher(Generic[RowT, AnswerT]):
    """Gathers requests into batches, of which one thread runs one at a time.

    There is no timer: an idle model starts at once, and a busy one finds what came meanwhile. The rows of a
    request stay together. A batch that raises is run again in halves, and those that raise in halves of their
    own, so that only the rows at fault fail. There is an end to that: in a request longer than a batch, rows
    that come after many bad ones fail with `NotAttempted`.

    Parameters
    ----------
    run
        From N rows to N answers, in order; called in the batcher's thread.
    max_batch_rows
        A batch is closed before the request that would take it beyond; a longer request is a batch by itself.
    max_queue_rows
        Rows that may wait; beyond, requests are refused at once.
    clock
        Monotonic seconds.
    report
        Told of each turn; what it raises is written to the log and goes no further.

    Raises
    ------
    MisuseError
        If a limit is below 1.
    """

    def __init__(
        self,
        run: Callable[[Sequence[RowT]], Sequence[AnswerT]],
        *,
        max_batch_rows: int = 64,
        max_queue_rows: int = 2048,
        clock: Callable[[], Seconds] = monotonic,
        report: Callable[[BatchTiming], object] = lambda timing: None,
    ) -> None:
        if min(max_batch_rows, max_queue_rows) < 1:
            raise MisuseError(
                f"batches and queue need room for a row, got {max_batch_rows} and {max_queue_rows}"
            )
        self._run = run
        self._max_batch_rows, self._max_queue_rows = max_batch_rows, max_queue_rows
        self._most_runs = max(2 * max_batch_rows, LEAST_RUNS)  # enough for a batch in which every row is bad
        self._clock, self._report = clock, report
        self._queue: deque[_Waiting[RowT, AnswerT]] = deque()
        self._queued_rows = 0
        self._arrived = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._queued_rows

    def has_room(self, rows: int = 1) -> bool:
        """Tell whether so many rows would be taken; for refusing a request before it is parsed."""
        return not self._stopping and self._queued_rows + rows <= self._max_queue_rows

    async def submit(
        self, rows: Sequence[RowT], within_seconds: Seconds | None = None
    ) -> list[Outcome[AnswerT]]:
        """Return the answers to the rows of one request, in order; a row that failed has a `Failed`.

        Parameters
        ----------
        rows
            Any number.
        within_seconds
            How long the request may wait for its turn; None for as long as it takes.

        Raises
        ------
        Overloaded
            If the queue has no room for them.
        DeadlinePassed
            If they waited too long; they were not run.
        Stopping
            If the batcher stops.
        """
        if not rows:
            return []
        if self._stopping:
            raise Stopping("the service stops: send the request to another instance, or again later")
        if not self.has_room(len(rows)):
            raise Overloaded(
                f"{self._queued_rows} rows wait already and at most {self._max_queue_rows} may: "
                f"send these {len(rows)} again later, or in smaller requests"
            )
        now = self._clock()
        deadline = None if within_seconds is None else now + within_seconds
        waiting: _Waiting[RowT, AnswerT] = _Waiting(
            rows, asyncio.get_running_loop().create_future(), now, deadline
        )
        self._queue.append(waiting)
        self._queued_rows += len(rows)
        self._arrived.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(), name="batcher")
        return await waiting.answered

    async def stop(self) -> None:
        """Refuse new requests, answer those that wait, and end the thread.

        When this is cancelled, by a time limit around it, those that still wait get `Stopping`.
        """
        self._stopping = True
        self._arrived.set()
        try:
            if self._task is not None:
                await self._task
        finally:
            for waiting in self._queue:
                _refuse(waiting, Stopping("the service stopped before this request had its turn"))
            self._queue.clear()
            self._queued_rows = 0
            self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        while self._queue or not self._stopping:
            if self._queue:
                await self._turn()
                continue
            self._arrived.clear()
            await self._arrived.wait()
            await asyncio.sleep(0)  # requests that are ready in the same turn of the loop come along

    async def _turn(self) -> None:
        """Run one batch and hand its answers out."""
        began = self._clock()
        batch, expired, cancelled = self._take(began)
        rows = [row for waiting in batch for row in waiting.rows]
        outcomes = await self._run_in_thread(batch, rows) if rows else []
        after = iter(outcomes)
        for waiting in batch:
            mine = [next(after) for _ in waiting.rows]
            if not waiting.answered.done():
                waiting.answered.set_result(mine)
        self._tell(
            BatchTiming(
                rows=len(rows),
                requests=len(batch),
                waited_seconds=tuple(began - waiting.since for waiting in batch),
                seconds=self._clock() - began,
                expired=expired,
                cancelled=cancelled,
                failed=sum(isinstance(outcome, Failed) for outcome in outcomes),
            )
        )

    def _take(self, now: Seconds) -> tuple[list[_Waiting[RowT, AnswerT]], int, int]:
        """Return the next batch, and how many requests were dropped as expired and as cancelled."""
        batch: list[_Waiting[RowT, AnswerT]] = []
        rows = expired = cancelled = 0
        while self._queue and (not rows or rows + len(self._queue[0].rows) <= self._max_batch_rows):
            waiting = self._queue.popleft()
            self._queued_rows -= len(waiting.rows)
            if waiting.answered.done():
                cancelled += 1
            elif waiting.deadline is not None and now > waiting.deadline:
                expired += 1
                _refuse(
                    waiting, DeadlinePassed(f"the request waited {now - waiting.since:.3f} s for its turn")
                )
            else:
                batch.append(waiting)
                rows += len(waiting.rows)
        return batch, expired, cancelled

    async def _run_in_thread(
        self, batch: Sequence[_Waiting[RowT, AnswerT]], rows: list[RowT]
    ) -> list[Outcome[AnswerT]]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._outcomes, rows)
        except asyncio.CancelledError:
            for waiting in batch:
                _refuse(waiting, Stopping("the service stopped before this request was answered"))
            raise
        except Exception as error:  # there is no thread to be had; the next batch may find one
            return [Failed(error) for _ in rows]

    def _outcomes(self, rows: list[RowT]) -> list[Outcome[AnswerT]]:
        """Run rows together, and if that fails find those at fault by halves; for the model's thread."""
        outcomes: list[Outcome[AnswerT]] = []
        parts, runs = [rows], 0  # the first rows are the last part
        while parts and runs < self._most_runs:
            part, runs = parts.pop(), runs + 1
            try:
                outcomes += self._answers(part)
            except (Exception, SystemExit) as error:
                half = len(part) // 2
                if half:
                    parts += [part[half:], part[:half]]
                else:
                    outcomes.append(Failed(raisable(error)))
        left = len(rows) - len(outcomes)
        return outcomes + [Failed(NotAttempted("not tried, for too many rows before it failed"))] * left

    def _answers(self, rows: list[RowT]) -> list[Outcome[AnswerT]]:
        answers = self._run(rows)
        if len(answers) != len(rows):
            raise WrongResultCount(f"{len(rows)} rows got {len(answers)} answers: report this as a defect")
        return list(answers)

    def _tell(self, timing: BatchTiming) -> None:
        try:
            self._report(timing)
        except Exception:
            _log.exception("a batch could not be reported")


def _refuse(waiting: _Waiting[RowT, AnswerT], error: Exception) -> None:
    if not waiting.answered.done():
        waiting.answered.set_exception(error)
