"""A zygote and its workers: what they survive, and what survives them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from service.errors import ServiceError
from service.serving.breaker import BreakerLimits
from service.serving.channel import ConnectionClosed
from service.serving.processes import ForkServer, Unreadable, Worker
from sfs.registry import FunctionSet

Eventually = Callable[[Callable[[], bool]], None]
Alive = Callable[[int], bool]
RECORDS = [{"n": 1}, {"n": 4}]
PARENT = """
import sys, time
from service.serving.breaker import BreakerLimits
from service.serving.processes import ForkServer
zygote = ForkServer([sys.argv[1]], BreakerLimits())
worker = zygote.fork()
worker.wait_ready(time.monotonic() + 60)
worker.ask(["endless"], b'[{"note": "%s"}]' % sys.argv[2].encode(), None, time.monotonic() + 60)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def zygote(file: Path) -> Iterator[ForkServer]:
    """One that the tests share."""
    zygote = ForkServer([str(file)], BreakerLimits())
    yield zygote
    zygote.end()


@pytest.fixture
def worker(zygote: ForkServer) -> Iterator[Worker]:
    """A worker that has begun."""
    worker = forked(zygote)
    yield worker
    worker.kill()


def forked(zygote: ForkServer) -> Worker:
    worker = zygote.fork()
    assert worker is not None
    worker.wait_ready(monotonic() + 60)
    return worker


def asked(worker: Worker, name: str, *, records: Any = RECORDS) -> Any:
    """Return what a function says."""
    worker.ask([name], json.dumps(records).encode(), None, monotonic() + 60)
    return worker.said(len(records), monotonic() + 60)


def noted(path: Path) -> Callable[[], list[int]]:
    """Return a reader of the numbers that a function noted: of its process, and of the zygote."""
    return lambda: [int(each) for each in path.read_text().split()] if path.exists() else []


def test_it_loads_what_the_service_has_loaded(zygote: ForkServer, mixed: FunctionSet) -> None:
    """Fingerprints of plain functions are the same in both processes."""
    assert zygote.fingerprints == mixed.fingerprints


def test_a_worker_answers(worker: Worker) -> None:
    """Job after job, also after a function that prints."""
    assert asked(worker, "odd").member.tolist() == [True, False]
    assert asked(worker, "prints").member.tolist() == [True, True]
    assert asked(worker, "raises").reasons == {"ValueError": 2}


def test_votes_are_functions_too(worker: Worker) -> None:
    """Of a labelling function: the rows on which it votes."""
    assert asked(worker, "loud", records=[{"text": "CHECK THIS"}, {"text": "nice"}]).member.tolist() == [
        True,
        False,
    ]


def test_what_functions_print_is_no_output_of_the_service(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    """It would stand between the lines of a program that reads it."""
    asked(worker, "prints")
    assert capfd.readouterr().out == ""


def test_records_that_are_no_json_are_told(worker: Worker) -> None:
    """The worker goes on to the next job."""
    worker.ask(["odd"], b"[{]", None, monotonic() + 60)
    with pytest.raises(Unreadable):
        worker.said(1, monotonic() + 60)
    assert asked(worker, "odd").member.tolist() == [True, False]


@pytest.mark.parametrize("fatal", ["dies", "interrupted", "dies_of_two"])
def test_a_function_that_ends_its_process_ends_only_that(
    fatal: str, zygote: ForkServer, worker: Worker
) -> None:
    """The next worker is forked as ever."""
    with pytest.raises(ConnectionClosed):
        asked(worker, fatal, records=[{"n": 2}])
    assert asked(forked(zygote), "odd").member.tolist() == [True, False]


@pytest.mark.parametrize("stuck", ["endless", "backtracks", "sleeps"])
def test_whatever_a_function_is_stuck_in_its_process_can_be_killed(
    stuck: str, zygote: ForkServer, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    """A loop that catches everything, a search that does not let go of the interpreter, and a sleep."""
    worker, note = forked(zygote), tmp_path / "note"
    read = noted(note)
    asked(worker, "notes", records=[{"note": str(note)}])
    worker.ask([stuck], b"[{}]", None, monotonic() + 60)
    with pytest.raises(TimeoutError):
        worker.said(1, monotonic() + 0.02)
    process = read()[0]
    assert alive(process)
    worker.kill()
    eventually(lambda: not alive(process))
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)  # not even a zombie is left


def test_a_worker_is_there_at_once(zygote: ForkServer) -> None:
    """To fork ten takes less time than to load the functions once would."""
    began = monotonic()
    workers = [forked(zygote) for _ in range(10)]
    forking = monotonic() - began
    began = monotonic()
    subprocess.run([sys.executable, "-c", "import sfs"], check=True)
    assert forking < 10 * (monotonic() - began)
    for worker in workers:
        worker.kill()


def test_a_worker_ends_when_it_is_let_go(
    zygote: ForkServer, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    """An object that nothing refers to any more leaves no process."""
    worker = forked(zygote)
    asked(worker, "notes", records=[{"note": str(tmp_path / "note")}])
    process = noted(tmp_path / "note")()[0]
    assert alive(process)
    del worker
    eventually(lambda: not alive(process))


def test_the_zygote_takes_its_workers_along(
    file: Path, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    """Also one that is stuck; it forks no more."""
    zygote = ForkServer([str(file)], BreakerLimits())
    worker, read = forked(zygote), noted(tmp_path / "note")
    worker.ask(["endless"], json.dumps([{"note": str(tmp_path / "note")}]).encode(), None, monotonic() + 60)
    eventually(lambda: len(read()) == 2)
    processes = read()
    assert all(map(alive, processes))
    zygote.end()
    eventually(lambda: not any(map(alive, processes)))
    assert zygote.fork() is None
    worker.kill()


def test_no_process_outlives_a_service_that_is_killed(
    file: Path, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    """Though it had no time to end them, and a function was stuck."""
    read = noted(tmp_path / "note")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, file, tmp_path / "note"])
    eventually(lambda: len(read()) == 2)
    processes = read()
    assert all(map(alive, processes))
    parent.kill()
    parent.wait()
    eventually(lambda: not any(map(alive, processes)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_stop_a_service_orderly_do_not_stop_its_functions(
    number: signal.Signals, zygote: ForkServer, worker: Worker, tmp_path: Path
) -> None:
    """They come to all processes of a unit, and the last requests still want their slices."""
    asked(worker, "notes", records=[{"note": str(tmp_path / "note")}])
    for process in noted(tmp_path / "note")():
        os.kill(process, number)
    assert asked(worker, "odd").member.tolist() == [True, False]
    assert asked(forked(zygote), "odd").member.tolist() == [True, False]


def test_memory_can_be_limited(file: Path) -> None:
    """A function that wants more than it may faults like another."""
    zygote = ForkServer([str(file)], BreakerLimits(memory_mb=1000))
    worker = forked(zygote)
    assert asked(worker, "grows").reasons == {"MemoryError": 2}
    assert asked(worker, "odd").member.tolist() == [True, False]
    worker.kill()
    zygote.end()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1 / 0", "ZeroDivisionError"),
        ("import os; os._exit(4)", "the process ended"),
        ("while True: pass", "not loaded within 2 s"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why(code: str, message: str, tmp_path: Path) -> None:
    """And no process is left of it."""
    path = tmp_path / "broken.py"
    path.write_text(code)
    with pytest.raises(ServiceError, match=message):
        ForkServer([str(path)], BreakerLimits(load_seconds=2))
