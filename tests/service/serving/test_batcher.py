"""Batches that form by themselves, and what befalls the rows in them."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from service.errors import MisuseError
from service.serving.batcher import Batcher, BatchTiming, Failed
from service.serving.errors import (
    DeadlinePassed,
    ModelExited,
    NotAttempted,
    Overloaded,
    Stopping,
    WrongResultCount,
)

LONG_SECONDS = 30


class Model:
    """Doubles numbers, once its gate is open; remembers its batches, and in which threads they were run."""

    def __init__(self, gate_open: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.began = threading.Event()
        if gate_open:
            self.gate.set()

    def __call__(self, rows: Sequence[int]) -> list[int]:
        self.began.set()
        assert self.gate.wait(LONG_SECONDS)
        self.batches.append(list(rows))
        self.threads.add(threading.get_ident())
        if any(row < 0 for row in rows):
            raise ValueError("a negative row")
        return [2 * row for row in rows]


def drive(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine that ends by itself, or fails the test."""

    async def limited() -> Any:
        return await asyncio.wait_for(main(), LONG_SECONDS)

    return asyncio.run(limited())


async def busy(model: Model, batcher: Batcher[int, int]) -> "asyncio.Task[Any]":
    """Return a request that the model is working on, its gate shut."""
    task = asyncio.create_task(batcher.submit([0]))
    await asyncio.to_thread(model.began.wait, LONG_SECONDS)
    return task


async def queued(
    batcher: Batcher[int, int], *requests: Sequence[int], **more: Any
) -> "list[asyncio.Task[Any]]":
    """Return requests that are in the queue."""
    tasks = [asyncio.create_task(batcher.submit(rows, **more)) for rows in requests]
    await asyncio.sleep(0)
    return tasks


def test_what_piled_up_while_the_model_was_busy_is_one_batch() -> None:
    """In order of arrival, by one thread, each request with the answers to its own rows."""
    model = Model(gate_open=False)

    async def main() -> Any:
        batcher = Batcher(model)
        first = await busy(model, batcher)
        others = await queued(batcher, [1, 2], [3], [4, 5, 6])
        model.gate.set()
        answers = await asyncio.gather(first, *others)
        await batcher.stop()
        return answers

    assert drive(main) == [[0], [2, 4], [6], [8, 10, 12]]
    assert model.batches == [[0], [1, 2, 3, 4, 5, 6]]
    assert len(model.threads) == 1
    assert threading.get_ident() not in model.threads


def test_requests_that_are_ready_together_go_together_to_an_idle_model() -> None:
    """Without any timer."""
    model = Model()

    async def main() -> None:
        batcher = Batcher(model)
        await asyncio.gather(*(batcher.submit([n]) for n in range(5)))
        await batcher.stop()

    drive(main)
    assert model.batches == [[0, 1, 2, 3, 4]]


def test_batches_are_cut_between_requests() -> None:
    """Rows of a request stay together; one longer than a batch goes alone."""
    model = Model(gate_open=False)

    async def main() -> None:
        batcher = Batcher(model, max_batch_rows=3)
        first = await busy(model, batcher)
        others = await queued(batcher, [1, 1], [2, 2], [3] * 5, [4])
        model.gate.set()
        await asyncio.gather(first, *others)
        await batcher.stop()

    drive(main)
    assert model.batches == [[0], [1, 1], [2, 2], [3] * 5, [4]]


def test_a_bad_row_fails_alone() -> None:
    """Rows that were in its batch, of its own request and of others, are answered."""
    model = Model()

    async def main() -> Any:
        batcher = Batcher(model)
        answers = await asyncio.gather(batcher.submit([1, -2, 3]), batcher.submit([4]))
        after = await batcher.submit([5])
        await batcher.stop()
        return answers, after

    (mixed, other), after = drive(main)
    assert (mixed[0], mixed[2], other, after) == (2, 6, [8], [10])
    assert isinstance(mixed[1], Failed)
    assert str(mixed[1].error) == "a negative row"


def test_a_bad_row_that_is_alone_is_run_once() -> None:
    """There is nothing to learn from running it again."""
    model = Model()

    async def main() -> Any:
        batcher = Batcher(model)
        answer = await batcher.submit([-1])
        await batcher.stop()
        return answer

    assert isinstance(drive(main)[0], Failed)
    assert model.batches == [[-1]]


def submitted(model: Model, rows: Sequence[int], **limits: int) -> Any:
    """Return the answers to one request."""

    async def main() -> Any:
        batcher = Batcher(model, **limits)
        answers = await batcher.submit(rows)
        await batcher.stop()
        return answers

    return drive(main)


@pytest.mark.parametrize("bad", [0, 500, 999])
def test_a_bad_row_of_many_is_found_by_halves(bad: int) -> None:
    """A thousand rows are not run one by one for it."""
    model = Model()
    answers = submitted(model, [-1 if n == bad else n for n in range(1000)])
    assert [n for n, each in enumerate(answers) if isinstance(each, Failed)] == [bad]
    assert [each for each in answers if not isinstance(each, Failed)] == [
        2 * n for n in range(1000) if n != bad
    ]
    assert len(model.batches) <= 21


def test_a_request_full_of_bad_rows_ends() -> None:
    """The first rows at fault are found; rows after so many are not tried, and say so."""
    model = Model()
    errors = [each.error for each in submitted(model, [-1] * 1000)]
    assert len(model.batches) == 128
    found = [type(each) for each in errors]
    assert found == sorted(found, key=[ValueError, NotAttempted].index)
    assert 20 < found.count(ValueError) < 128
    assert str(errors[-1]) == "not tried, for too many rows before it failed"


@pytest.mark.parametrize("limits", [{}, {"max_batch_rows": 300}])
def test_in_a_batch_no_longer_than_it_may_be_every_row_is_tried(limits: dict[str, int]) -> None:
    """However many are bad, for they may be of other requests."""
    rows = [n if n % 2 else -1 for n in range(limits.get("max_batch_rows", 64))]
    answers = submitted(Model(), rows, **limits)
    assert [type(each.error) if isinstance(each, Failed) else each for each in answers] == [
        2 * n if n % 2 else ValueError for n in range(len(rows))
    ]


def test_a_thread_that_cannot_be_started_fails_its_batch_alone() -> None:
    """The next request finds one."""

    async def main() -> Any:
        batcher = Batcher(Model())
        before = threading.stack_size(2**47)  # more than there are addresses
        try:
            refused = await batcher.submit([1, 2])
        finally:
            threading.stack_size(before)
        answer = await batcher.submit([3])
        await batcher.stop()
        return refused, answer

    refused, answer = drive(main)
    assert [type(each.error) for each in refused] == [RuntimeError] * 2
    assert answer == [6]


def test_a_row_that_asks_to_exit_ends_nothing() -> None:
    """Its error can be raised anywhere, and has the exit as its cause."""

    def leave(rows: Sequence[int]) -> list[int]:
        raise SystemExit(3)

    async def main() -> Any:
        batcher = Batcher(leave)
        [failed] = await batcher.submit([1])
        await batcher.stop()
        return failed.error

    error = drive(main)
    assert isinstance(error, ModelExited)
    assert isinstance(error.__cause__, SystemExit)


@pytest.mark.parametrize("error", [MemoryError(), KeyError("x")])
def test_whatever_a_row_raises_the_next_one_is_answered(error: BaseException) -> None:
    """No error ends the batcher."""

    def run(rows: Sequence[int]) -> list[int]:
        if 13 in rows:
            raise error
        return list(rows)

    async def main() -> Any:
        batcher = Batcher(run)
        answers = [await batcher.submit([n]) for n in (13, 14)]
        await batcher.stop()
        return answers

    assert drive(main) == [[Failed(error)], [14]]


def test_miscounted_answers_are_given_to_nobody() -> None:
    """A model that loses or adds a row of a batch fails it; single rows that come out right are answered."""

    async def main() -> Any:
        batcher: Batcher[int, int] = Batcher(lambda rows: [7] if 1 in rows else [])
        answers = await batcher.submit([1, 2])
        await batcher.stop()
        return answers

    first, second = drive(main)
    assert first == 7
    assert isinstance(second.error, WrongResultCount)


def test_a_full_queue_refuses_at_once_and_takes_again_when_it_has_room() -> None:
    """Rows are counted, not requests; the rows that run are not in the queue."""
    model = Model(gate_open=False)

    async def main() -> Any:
        batcher = Batcher(model, max_queue_rows=3)
        first = await busy(model, batcher)
        others = await queued(batcher, [1, 2])
        room = [batcher.has_room(rows) for rows in (1, 2)]
        with pytest.raises(Overloaded, match="2 rows wait already and at most 3 may"):
            await batcher.submit([3, 4])
        model.gate.set()
        await asyncio.gather(first, *others)
        answer = await batcher.submit([3, 4])
        await batcher.stop()
        return room, answer, batcher.queued_rows

    assert drive(main) == ([True, False], [6, 8], 0)


def test_a_request_past_its_deadline_is_not_run(clock: Any) -> None:
    """It is told so; one whose deadline is now still has its turn."""
    model = Model(gate_open=False)

    async def main() -> Any:
        batcher = Batcher(model, clock=clock)
        first = await busy(model, batcher)
        [late] = await queued(batcher, [1], within_seconds=2.0)
        [just] = await queued(batcher, [2], within_seconds=3.0)
        clock.seconds += 3
        model.gate.set()
        return await asyncio.gather(first, late, just, batcher.stop(), return_exceptions=True)

    _, late, just, _ = drive(main)
    assert isinstance(late, DeadlinePassed)
    assert "waited 3.000 s" in str(late)
    assert just == [4]
    assert model.batches == [[0], [2]]


def test_a_cancelled_request_is_not_run_and_poisons_no_batch() -> None:
    """Whether it is cancelled in the queue or while it runs."""
    model = Model(gate_open=False)

    async def main() -> Any:
        batcher = Batcher(model)
        running = await busy(model, batcher)
        waits, stays = await queued(batcher, [1], [2])
        running.cancel()
        waits.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        answer = await stays
        await batcher.stop()
        return answer

    assert drive(main) == [4]
    assert model.batches == [[0], [2]]


def test_stopping_answers_what_waits_and_refuses_what_comes() -> None:
    """Nothing that was taken is lost."""
    model = Model(gate_open=False)

    async def main() -> Any:
        batcher = Batcher(model, max_batch_rows=1)
        taken = [await busy(model, batcher), *await queued(batcher, [1], [2])]
        stopped = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0)
        with pytest.raises(Stopping):
            await batcher.submit([3])
        assert not batcher.has_room()
        model.gate.set()
        await stopped
        return [task.result() for task in taken]

    assert drive(main) == [[0], [2], [4]]


def test_stopping_within_a_time_limit_leaves_nobody_waiting() -> None:
    """Who runs and who waits when the time is up are both told."""
    model = Model(gate_open=False)

    async def main() -> Any:
        batcher = Batcher(model, max_batch_rows=1)
        taken = [await busy(model, batcher), *await queued(batcher, [1])]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.stop(), 0.01)
        answers = await asyncio.gather(*taken, return_exceptions=True)
        model.gate.set()
        return answers

    assert [type(answer) for answer in drive(main)] == [Stopping, Stopping]


def test_stopping_one_that_was_never_used_returns() -> None:
    """There is no task to wait for."""
    drive(lambda: Batcher(Model()).stop())


def test_each_turn_is_reported(clock: Any) -> None:
    """Rows, waiting time, and what was dropped; a report that raises does not end the batcher."""
    model, told = Model(gate_open=False), []

    def report(timing: BatchTiming) -> None:
        told.append(timing)
        raise RuntimeError("no counters today")

    async def main() -> None:
        batcher = Batcher(model, clock=clock, report=report)
        first = await busy(model, batcher)
        late, gone, *kept = await queued(batcher, [1], [2], [3, -3], [4], within_seconds=5.0)
        late_deadline = await queued(batcher, [5], within_seconds=1.0)
        gone.cancel()
        clock.seconds += 2
        model.gate.set()
        await asyncio.gather(first, late, *kept, *late_deadline, return_exceptions=True)
        await batcher.stop()

    drive(main)
    assert [timing.rows for timing in told] == [1, 4]
    assert told[1] == BatchTiming(4, 3, (2.0, 2.0, 2.0), 0.0, expired=1, cancelled=1, failed=1)


def test_no_rows_are_answered_at_once() -> None:
    """The model is not asked."""
    model = Model()
    assert drive(lambda: Batcher(model).submit([])) == []
    assert model.batches == []


def test_limits_without_room_for_a_row_are_refused() -> None:
    """The message names both."""
    with pytest.raises(MisuseError, match="got 0 and 5"):
        Batcher(Model(), max_batch_rows=0, max_queue_rows=5)


def test_many_requests_get_each_its_own_answers() -> None:
    """However they fall into batches."""
    model = Model()

    async def one(batcher: Batcher[int, int], n: int) -> bool:
        rows = list(range(n, n + n % 7 + 1))
        for _ in range(n % 3):
            await asyncio.sleep(0)
        return await batcher.submit(rows) == [2 * row for row in rows]

    async def main() -> Any:
        batcher = Batcher(model, max_batch_rows=16, max_queue_rows=10_000)
        right = await asyncio.gather(*(one(batcher, n) for n in range(300)))
        await batcher.stop()
        return all(right)

    assert drive(main)
