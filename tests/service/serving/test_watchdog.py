"""A thread for functions that can be left behind."""

from threading import Event
from time import monotonic

import pytest

from service.serving.watchdog import Job, Worker
from sfs.function import SlicingFunction
from sfs.record import Record

ROWS = [Record({"n": n}) for n in range(3)]


def started(*functions: SlicingFunction) -> Job:
    """Return a job that a worker has been given."""
    job, worker = Job(functions, list(ROWS)), Worker()
    worker.submit(job)
    worker.end()
    return job


def test_it_asks_every_function_about_every_row() -> None:
    """Answers come function by function, in order."""
    job = started(SlicingFunction("odd", lambda x: x.n % 2 == 1), SlicingFunction("all", lambda x: True))
    assert job.wait([9.0, 9.0], 9.0)
    assert [asked.values[0].tolist() for asked in job.answered] == [[0, 1, 0], [1, 1, 1]]


def test_waiting_ends_when_a_function_is_over_its_time(let_go: Event) -> None:
    """Those that returned before it have answered; it and those after it have not."""
    quick, slow = SlicingFunction("quick", lambda x: True), SlicingFunction("slow", lambda x: let_go.wait())
    job = started(quick, slow, quick)
    began = monotonic()
    assert not job.wait([60.0, 0.02, 60.0], 60.0)
    assert monotonic() - began < 30
    assert len(job.answered) == 1


def test_waiting_ends_when_all_are_over_theirs(let_go: Event) -> None:
    """The time for all functions holds whatever each may take."""
    job = started(SlicingFunction("slow", lambda x: let_go.wait()))
    began = monotonic()
    assert not job.wait([60.0], 0.02)
    assert monotonic() - began < 30


def test_each_function_has_its_own_time() -> None:
    """What one function took is not taken from the next."""
    pause = Event()
    functions = [SlicingFunction(f"f{k}", lambda x: pause.wait(0.02)) for k in range(4)]
    assert started(*functions).wait([5.0] * 4, 20.0)


@pytest.mark.parametrize("catches", [False, True])
def test_a_loop_without_end_is_ended_when_it_is_left_behind(catches: bool) -> None:
    """Also one that catches every exception, and rows that it was not asked about yet."""
    calls = []

    def endless(x: Record) -> bool:
        calls.append(x.n)
        try:
            while True:
                pass
        except Exception:
            return False
        except BaseException:
            if catches:
                return False
            raise

    job = started(SlicingFunction("endless", endless), SlicingFunction("next", lambda x: True))
    assert not job.wait([0.02, 0.02], 0.02)
    end = monotonic() + 30
    while not job.done.wait(0.02) and monotonic() < end:
        job.leave_behind()
    assert job.done.is_set()
    assert len(job.answered) == (1 if catches else 0)
    assert calls == ([0, 1, 2] if catches else [0])


def test_leaving_a_finished_job_behind_does_nothing() -> None:
    """Its thread takes the next job as ever."""
    worker = Worker()
    first, second = (Job([SlicingFunction("all", lambda x: True)], list(ROWS)) for _ in range(2))
    worker.submit(first)
    assert first.done.wait(20)
    first.leave_behind()
    worker.submit(second)
    assert second.done.wait(20)
    worker.end()
    worker.thread.join(20)
    assert not worker.thread.is_alive()
