"""Batches formed by waiting requests, and the outcome of each row."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from service.errors import (
    DeadlinePassed,
    MisuseError,
    ModelExited,
    NotAttempted,
    Overloaded,
    Stopping,
    WrongResultCount,
)
from service.serving.batcher import Batcher, Failed

LONG_SECONDS = 30


class Model:
    """Doubles numbers, once its gate is open; records its batches and their threads."""

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
    """Run a coroutine; a timeout fails the test."""

    async def limited() -> Any:
        return await asyncio.wait_for(main(), LONG_SECONDS)

    return asyncio.run(limited())


async def busy(model: Model, batcher: Batcher[int, int]) -> "asyncio.Task[Any]":
    """Return a running request; the gate is closed."""
    task = asyncio.create_task(batcher.submit([0]))
    await asyncio.to_thread(model.began.wait, LONG_SECONDS)
    return task


async def queued(batcher: Batcher[int, int], *requests: Sequence[int], **more: Any) -> "list[asyncio.Task[Any]]":
    """Return requests in the queue."""
    tasks = [asyncio.create_task(batcher.submit(rows, **more)) for rows in requests]
    await asyncio.sleep(0)
    return tasks


def test_requests_that_arrive_while_the_model_is_busy_are_one_batch() -> None:
    """In order of arrival and in one thread; each request gets the results of its own rows."""
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


def test_requests_that_are_ready_together_are_one_batch_of_an_idle_model() -> None:
    """Without any timer."""
    model = Model()

    async def main() -> None:
        batcher = Batcher(model)
        await asyncio.gather(*(batcher.submit([n]) for n in range(5)))
        await batcher.stop()

    drive(main)
    assert model.batches == [[0, 1, 2, 3, 4]]


def test_batches_are_cut_between_requests() -> None:
    """Rows of a request stay together; a request longer than a batch is a batch by itself."""
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
    """Other rows of its batch, of its own request and of others, have results."""
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
    """Another run would tell nothing."""
    model = Model()

    async def main() -> Any:
        batcher = Batcher(model)
        answer = await batcher.submit([-1])
        await batcher.stop()
        return answer

    assert isinstance(drive(main)[0], Failed)
    assert model.batches == [[-1]]


def submit(model: Model, rows: Sequence[int], **limits: int) -> Any:
    """Return the outcomes of one request."""

    async def main() -> Any:
        batcher = Batcher(model, **limits)
        answers = await batcher.submit(rows)
        await batcher.stop()
        return answers

    return drive(main)


@pytest.mark.parametrize("bad", [0, 500, 999])
def test_a_bad_row_of_many_is_found_by_bisection(bad: int) -> None:
    """Not by a thousand runs of one row."""
    model = Model()
    answers = submit(model, [-1 if n == bad else n for n in range(1000)])
    assert [n for n, each in enumerate(answers) if isinstance(each, Failed)] == [bad]
    assert [each for each in answers if not isinstance(each, Failed)] == [2 * n for n in range(1000) if n != bad]
    assert len(model.batches) <= 21


def test_the_runs_of_a_request_full_of_bad_rows_are_limited() -> None:
    """The first bad rows have their own errors; the rows after them are not attempted."""
    model = Model()
    errors = [each.error for each in submit(model, [-1] * 1000)]
    assert len(model.batches) == 128
    types = [type(each) for each in errors]
    assert types == sorted(types, key=[ValueError, NotAttempted].index)
    assert 20 < types.count(ValueError) < 128
    assert str(errors[-1]) == "not attempted: too many earlier rows failed"


@pytest.mark.parametrize("limits", [{}, {"max_batch_rows": 300}])
def test_every_row_of_a_batch_of_several_requests_is_attempted(limits: dict[str, int]) -> None:
    """However many are bad, since they may belong to other requests."""
    rows = [n if n % 2 else -1 for n in range(limits.get("max_batch_rows", 64))]
    answers = submit(Model(), rows, **limits)
    assert [type(each.error) if isinstance(each, Failed) else each for each in answers] == [
        2 * n if n % 2 else ValueError for n in range(len(rows))
    ]


def test_a_thread_that_cannot_be_started_fails_one_batch() -> None:
    """The next request gets a thread."""

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


def test_a_row_that_exits_fails() -> None:
    """With an error that can be raised anywhere, and has the exit as its cause."""

    def exit_process(rows: Sequence[int]) -> list[int]:
        raise SystemExit(3)

    async def main() -> Any:
        batcher = Batcher(exit_process)
        [failed] = await batcher.submit([1])
        await batcher.stop()
        return failed.error

    error = drive(main)
    assert isinstance(error, ModelExited)
    assert isinstance(error.__cause__, SystemExit)


@pytest.mark.parametrize("error", [MemoryError(), KeyError("x")])
def test_no_error_ends_the_batcher(error: BaseException) -> None:
    """The next request has a result."""

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


def test_a_wrong_number_of_results_fails_the_batch() -> None:
    """Its rows are run again alone, and those with one result each succeed."""

    async def main() -> Any:
        batcher: Batcher[int, int] = Batcher(lambda rows: [7] if 1 in rows else [])
        answers = await batcher.submit([1, 2])
        await batcher.stop()
        return answers

    first, second = drive(main)
    assert first == 7
    assert isinstance(second.error, WrongResultCount)


def test_a_full_queue_refuses_requests_until_it_has_room() -> None:
    """Its capacity is in rows; running rows do not count."""
    model = Model(gate_open=False)

    async def main() -> Any:
        batcher = Batcher(model, max_queue_rows=3)
        first = await busy(model, batcher)
        others = await queued(batcher, [1, 2])
        room = [batcher.has_room(rows) for rows in (1, 2)]
        with pytest.raises(Overloaded, match="holds 2 of 3 rows, and has no room for 2 more"):
            await batcher.submit([3, 4])
        model.gate.set()
        await asyncio.gather(first, *others)
        answer = await batcher.submit([3, 4])
        await batcher.stop()
        return room, answer

    assert drive(main) == ([True, False], [6, 8])


def test_a_request_past_its_deadline_is_not_run(clock: Any) -> None:
    """It fails; a request whose deadline is now is run."""
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
    assert "in the queue for 3.000 s" in str(late)
    assert just == [4]
    assert model.batches == [[0], [2]]


def test_a_cancelled_request_does_not_affect_others() -> None:
    """Cancelled in the queue it is not run; cancelled while it runs, the next batch follows."""
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


def test_stop_answers_queued_requests_and_refuses_new_ones() -> None:
    """No accepted request is lost."""
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


def test_a_timeout_of_stop_fails_the_remaining_requests() -> None:
    """Both the running one and the queued one."""
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


def test_a_batcher_that_was_never_used_stops() -> None:
    """It has no task to wait for."""
    drive(lambda: Batcher(Model()).stop())


def test_an_empty_request_is_answered_at_once() -> None:
    """The model is not called."""
    model = Model()
    assert drive(lambda: Batcher(model).submit([])) == []
    assert model.batches == []


def test_limits_below_1_are_refused() -> None:
    """The message has both values."""
    with pytest.raises(MisuseError, match="got 0 and 5"):
        Batcher(Model(), max_batch_rows=0, max_queue_rows=5)


def test_many_requests_get_the_results_of_their_own_rows() -> None:
    """However they are batched."""
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
