"""Batches formed by waiting requests, and the outcome of each row."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from service.errors import (
    DeadlinePassed,
    MisuseError,
    ModelExited,
    Overloaded,
    RowsFailed,
    Stopping,
    WrongResultCount,
)
from service.serving.batcher import MAX_SEARCH_RUNS, Batcher

LONG_SECONDS = 300


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


async def busy(model: Model, batcher: Batcher[int, int, int]) -> "asyncio.Task[Any]":
    """Return a running request; the gate is closed."""
    task = asyncio.create_task(batcher.submit([0]))
    await asyncio.to_thread(model.began.wait, LONG_SECONDS)
    return task


async def queued(batcher: Batcher[int, int, int], *requests: Sequence[int], **more: Any) -> "list[asyncio.Task[Any]]":
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


async def outcome(batcher: Batcher[int, int, int], rows: Sequence[int]) -> Any:
    """Return the results of a request, or the errors of its rows by place."""
    try:
        return await batcher.submit(rows)
    except RowsFailed as failed:
        return failed


def errors(failed: Any) -> dict[int, str]:
    assert isinstance(failed, RowsFailed), failed
    return {row: str(error) for row, error in failed.errors.items()}


def test_a_bad_row_fails_its_request_alone() -> None:
    """The request has the error by row; other requests of its batch have results."""
    model = Model()

    async def main() -> Any:
        batcher = Batcher(model)
        answers = await asyncio.gather(*(outcome(batcher, rows) for rows in ([1, -2, 3], [4], [5, 6], [-7])))
        after = await batcher.submit([5])
        await batcher.stop()
        return answers, after

    (mixed, one, two, bad), after = drive(main)
    assert (one, two, after) == ([8], [10, 12], [10])
    assert errors(mixed) == {1: "a negative row"}
    assert errors(bad) == {0: "a negative row"}


def test_a_bad_row_that_is_alone_is_run_once() -> None:
    """Another run would tell nothing."""
    model = Model()
    assert errors(submit(model, [-1])) == {0: "a negative row"}
    assert model.batches == [[-1]]


def submit(model: Callable[[Sequence[int]], list[int]], rows: Sequence[int], **limits: int) -> Any:
    """Return the outcome of one request."""

    async def main() -> Any:
        batcher = Batcher(model, **limits)
        answer = await outcome(batcher, rows)
        await batcher.stop()
        return answer

    return drive(main)


@pytest.mark.parametrize("bad", [0, 500, 999])
def test_a_bad_row_of_many_is_found_in_few_runs(bad: int) -> None:
    """With parts that grow while they succeed, not with a thousand runs of one row, and with twice the rows at most."""
    model = Model()
    failed = submit(model, [-1 if n == bad else n for n in range(1000)])
    assert errors(failed) == {bad: "a negative row"}
    assert failed.checked == 1000
    assert len(model.batches) <= 50
    assert sum(map(len, model.batches[1:])) <= 2000


@pytest.mark.parametrize("rows", [1000, 100_000])
def test_the_runs_for_a_request_full_of_bad_rows_are_limited(rows: int) -> None:
    """The first bad rows are named; the rows after them are not run again."""
    model = Model()
    failed = submit(model, [-1] * rows, max_queue_rows=rows)
    assert len(model.batches) == 1 + MAX_SEARCH_RUNS
    assert list(failed.errors) == list(range(failed.checked))
    assert sum(map(len, model.batches[1:])) == MAX_SEARCH_RUNS


def test_rows_that_the_error_names_are_not_searched_for() -> None:
    """The other requests of the batch run once more, all together."""
    batches = []

    def run(rows: Sequence[int]) -> list[int]:
        batches.append(list(rows))
        bad = {n: ValueError(f"{row}") for n, row in enumerate(rows) if row < 0}
        if bad:
            raise RowsFailed(bad, len(rows))
        return list(rows)

    async def main() -> Any:
        batcher = Batcher(run)
        requests = ([1], [2, -3], [4], [-5, 6, -7], [8])
        answers = await asyncio.gather(*(outcome(batcher, rows) for rows in requests))
        await batcher.stop()
        return answers

    one, second, four, fourth, eight = drive(main)
    assert (one, four, eight) == ([1], [4], [8])
    assert (errors(second), errors(fourth)) == ({1: "-3"}, {0: "-5", 2: "-7"})
    assert (second.checked, fourth.checked) == (2, 3)
    assert batches == [[1, 2, -3, 4, -5, 6, -7, 8], [1, 4, 8]]


def test_requests_do_not_wait_for_the_search_in_another(clock: Any) -> None:
    """While requests wait, the search for the bad rows of one gets a fifth of the time."""
    ran: list[str] = []

    def run(rows: Sequence[int]) -> list[int]:
        clock.seconds += 1
        ran.append("search" if len(rows) > 1 or rows[0] < 1000 else "other")
        if any(row < 0 for row in rows):
            raise ValueError("a negative row")
        return list(rows)

    async def main() -> Any:
        batcher = Batcher(run, max_batch_rows=1, clock=clock)
        bad = asyncio.create_task(outcome(batcher, [*range(30), -1]))
        await asyncio.sleep(0)
        others = await queued(batcher, *([1000 + n] for n in range(20)))
        await asyncio.gather(*others)
        searched = ran.count("search")
        failed = await bad
        await batcher.stop()
        return searched, failed

    searched, failed = drive(main)
    assert errors(failed) == {30: "a negative row"}
    assert ran.count("other") == 20
    assert 4 <= searched <= 8


def test_a_request_that_is_given_up_is_not_searched() -> None:
    """Nobody waits for its bad rows."""
    model = Model(gate_open=False)

    async def main() -> None:
        batcher = Batcher(model)
        first = await busy(model, batcher)
        [bad] = await queued(batcher, [1, 2, -3])
        bad.cancel()
        model.gate.set()
        await first
        await batcher.submit([4])
        await batcher.stop()

    drive(main)
    assert model.batches == [[0], [4]]


def test_a_thread_that_cannot_be_started_fails_one_batch() -> None:
    """The next request gets a thread."""

    async def main() -> Any:
        batcher = Batcher(Model())
        before = threading.stack_size(2**47)  # more than there are addresses
        try:
            refused = await outcome(batcher, [1, 2])
        finally:
            threading.stack_size(before)
        answer = await batcher.submit([3])
        await batcher.stop()
        return refused, answer

    refused, answer = drive(main)
    assert [type(error) for error in refused.errors.values()] == [RuntimeError]
    assert answer == [6]


def test_a_row_that_exits_fails() -> None:
    """With an error that can be raised anywhere, and has the exit as its cause."""

    def exit_process(rows: Sequence[int]) -> list[int]:
        raise SystemExit(3)

    async def main() -> Any:
        batcher = Batcher(exit_process)
        failed = await outcome(batcher, [1])
        await batcher.stop()
        return failed.errors[0]

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
        answers = [await outcome(batcher, [n]) for n in (13, 14)]
        await batcher.stop()
        return answers

    failed, answer = drive(main)
    assert (failed.errors, answer) == ({0: error}, [14])


def test_a_wrong_number_of_results_fails_the_batch() -> None:
    """Its rows are run again alone, and those without one result each fail."""
    failed = submit(lambda rows: [7] if 1 in rows else [], [1, 2])
    assert [type(error) for error in failed.errors.values()] == [WrongResultCount]
    assert list(failed.errors) == [1]


def test_rows_that_succeed_in_parts_have_results() -> None:
    """A batch that is too large for the model is no error of its rows."""

    def run(rows: Sequence[int]) -> list[int]:
        if len(rows) > 3:
            raise MemoryError
        return list(rows)

    assert submit(run, range(20)) == list(range(20))


def test_an_error_after_a_search_fails_its_request_alone() -> None:
    """The next request has a result."""

    def run(rows: Sequence[int]) -> list[int]:
        if len(rows) > 3:
            raise MemoryError
        return list(rows)

    def finish(requests: list[list[int]]) -> Future[Any]:
        if len(requests[0]) > 3:
            raise KeyError("x")
        done: Future[Any] = Future()
        done.set_result(requests)
        return done

    async def main() -> Any:
        batcher: Batcher[int, int, int] = Batcher(run, finish)
        answers = await asyncio.gather(batcher.submit(range(20)), return_exceptions=True)
        answers.append(await batcher.submit([1]))
        await batcher.stop()
        return answers

    failed, answer = drive(main)
    assert isinstance(failed, KeyError)
    assert answer == [1]


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

    async def one(batcher: Batcher[int, int, int], n: int) -> bool:
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
