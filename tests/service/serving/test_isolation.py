"""Fork server, workers and calls: a bad function ends or blocks its own process only."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import pytest

from service.errors import ServiceError
from service.serving.breaker import SLOW, BreakerLimits
from service.serving.channel import ConnectionClosed
from service.serving.isolation import (
    DIED,
    NOT_JSON,
    OUT_OF_TIME,
    STARTING,
    EncodedRecords,
    ForkServer,
    FunctionCall,
    FunctionResult,
    Isolation,
    NoResult,
    Worker,
    encode_records,
)
from sfs.record import Record
from sfs.registry import FunctionSet

Eventually = Callable[[Callable[[], bool]], None]
Alive = Callable[[int], bool]
ROWS = [{"n": n} for n in range(3)]
LIMITS = BreakerLimits(back_off_seconds=10)
PARENT = """
import sys, time
from service.serving.breaker import BreakerLimits
from service.serving.isolation import ForkServer
server = ForkServer([sys.argv[1]], BreakerLimits())
worker = server.fork()
worker.wait_until_ready(time.monotonic() + 60)
worker.call(["endless"], b'[{"note": "%s"}]' % sys.argv[2].encode(), None, time.monotonic() + 60)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[ForkServer]:
    """A fork server shared by the tests."""
    server = ForkServer([str(file)], BreakerLimits())
    yield server
    server.kill()


@pytest.fixture
def worker(server: ForkServer) -> Iterator[Worker]:
    """A worker that is ready."""
    worker = fork(server)
    yield worker
    worker.kill()


@pytest.fixture
def own(file: Path, clock: Any) -> Iterator[Isolation]:
    """Processes of one test, which it may kill."""
    isolation = Isolation([str(file)], LIMITS, clock)
    isolation.start()
    yield isolation
    isolation.close()


def fork(server: ForkServer) -> Worker:
    worker = server.fork()
    assert worker is not None
    worker.wait_until_ready(monotonic() + 60)
    return worker


def call(worker: Worker, name: str, *, records: Any = ({"n": 1}, {"n": 4})) -> Any:
    """Return the result of a function in a worker."""
    worker.call([name], json.dumps(records).encode(), None, monotonic() + 60)
    return worker.receive(len(records), monotonic() + 60)


def run(isolation: Isolation, allowances: dict[str, float], seconds: float = 60.0, rows: Any = ROWS) -> Any:
    """Call functions, each with its allowance, within a time for all of them."""
    deadline = monotonic() + seconds
    call = FunctionCall([*allowances], [*allowances.values()], encode_records(rows), deadline)
    call.run(isolation)
    return call


def outcomes(call: FunctionCall) -> list[Any]:
    """Return memberships, or the reason for their absence."""
    return [each.member.tolist() if isinstance(each, FunctionResult) else each.reason for each in call.outcomes]


def outcome_of(isolation: Isolation, name: str = "odd", **record: Any) -> Any:
    """Return the outcome of a function for one odd record: its result, or the reason for having none."""
    [outcome] = run(isolation, {name: 60}, rows=[{"n": 1, **record}]).outcomes
    return outcome if isinstance(outcome, FunctionResult) else outcome.reason


def processes_of(isolation: Isolation, note: Path) -> tuple[int, int]:
    """Return the process ids of the worker and of the fork server."""
    assert isinstance(outcome_of(isolation, "notes", note=str(note)), FunctionResult)
    worker, server = map(int, note.read_text().split())
    return worker, server


def noted(path: Path) -> list[int]:
    """Return the process ids that a function noted, of its worker and of the fork server."""
    return [int(each) for each in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize(
    "value", [{1}, object(), 2.0j, b"x", {(1, 2): 3}, 10**5000], ids=lambda value: type(value).__name__
)
def test_values_that_are_not_json_are_left_out(value: Any) -> None:
    """The other rows are encoded."""
    records = encode_records([{"a": value}, {"a": 1}, {"a": [value]}])
    assert records == EncodedRecords(b'[{"a":1}]', (1,), 3)
    assert records.encoded_rows == 1


def test_circular_values_are_left_out() -> None:
    """As values that are nested without end."""
    loop: list[Any] = []
    loop.append(loop)
    assert encode_records([{"a": loop}]).encoded_rows == 0


def test_rows_of_any_kind_are_encoded() -> None:
    """Frames, records and mappings that are not dicts."""
    frame = pd.DataFrame({"a": [1.5, None], "b": ["x", "y"]})
    assert encode_records(frame).json == b'[{"a":1.5,"b":"x"},{"a":null,"b":"y"}]'
    assert encode_records((Record({"a": 1}),)).json == b'[{"a":1}]'


def test_fingerprints_are_those_of_the_service(server: ForkServer, mixed: FunctionSet) -> None:
    """Python functions have the same fingerprints in both processes."""
    assert server.fingerprints == mixed.fingerprints


def test_a_worker_answers_call_after_call(worker: Worker, capfd: pytest.CaptureFixture[str]) -> None:
    """Also after a function that prints; its output is not on the service's standard output."""
    assert call(worker, "odd").member.tolist() == [True, False]
    assert call(worker, "prints").member.tolist() == [True, True]
    assert call(worker, "raises").reasons == {"ValueError": 2}
    assert capfd.readouterr().out == ""


def test_votes_are_memberships(worker: Worker) -> None:
    """A labelling function's slice has the rows on which it votes."""
    result = call(worker, "loud", records=[{"text": "CHECK THIS"}, {"text": "nice"}])
    assert result.member.tolist() == [True, False]


def test_unreadable_records_have_no_result(worker: Worker) -> None:
    """The worker answers the next call."""
    worker.call(["odd"], b"[{]", None, monotonic() + 60)
    assert worker.receive(1, monotonic() + 60) is None
    assert call(worker, "odd").member.tolist() == [True, False]


@pytest.mark.parametrize("fatal", ["dies", "interrupted", "dies_of_two"])
def test_a_function_that_ends_its_process_ends_only_that(fatal: str, server: ForkServer, worker: Worker) -> None:
    """The next worker is forked as before."""
    with pytest.raises(ConnectionClosed):
        call(worker, fatal, records=[{"n": 2}])
    assert call(fork(server), "odd").member.tolist() == [True, False]


@pytest.mark.parametrize("stuck", ["endless", "backtracks", "sleeps"])
def test_a_hanging_worker_can_be_killed(
    stuck: str, server: ForkServer, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    """In a loop that catches everything, in a search that keeps the interpreter lock, and asleep."""
    worker, note = fork(server), tmp_path / "note"
    call(worker, "notes", records=[{"note": str(note)}])
    worker.call([stuck], b"[{}]", None, monotonic() + 60)
    with pytest.raises(TimeoutError):
        worker.receive(1, monotonic() + 0.02)
    process = noted(note)[0]
    assert alive(process)
    worker.kill()
    eventually(lambda: not alive(process))
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)  # not even a zombie is left


def test_forking_takes_less_time_than_loading(server: ForkServer) -> None:
    """Ten workers are ready sooner than ten processes have imported the package."""
    began = monotonic()
    workers = [fork(server) for _ in range(10)]
    forking = monotonic() - began
    began = monotonic()
    subprocess.run([sys.executable, "-c", "import sfs"], check=True)
    assert forking < 10 * (monotonic() - began)
    for worker in workers:
        worker.kill()


def test_a_worker_without_references_ends(
    server: ForkServer, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    """Its process ends with the object."""
    worker = fork(server)
    call(worker, "notes", records=[{"note": str(tmp_path / "note")}])
    process = noted(tmp_path / "note")[0]
    assert alive(process)
    del worker
    eventually(lambda: not alive(process))


def test_killing_the_server_kills_its_workers(file: Path, tmp_path: Path, alive: Alive, eventually: Eventually) -> None:
    """Also a hanging one; the server forks no more."""
    server, note = ForkServer([str(file)], BreakerLimits()), tmp_path / "note"
    worker = fork(server)
    worker.call(["endless"], json.dumps([{"note": str(note)}]).encode(), None, monotonic() + 60)
    eventually(lambda: len(noted(note)) == 2)
    processes = noted(note)
    assert all(map(alive, processes))
    server.kill()
    eventually(lambda: not any(map(alive, processes)))
    assert server.fork() is None
    worker.kill()


def test_processes_end_when_the_service_is_killed(
    file: Path, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    """Though a function hangs."""
    note = tmp_path / "note"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, file, note])
    eventually(lambda: len(noted(note)) == 2)
    processes = noted(note)
    assert all(map(alive, processes))
    parent.kill()
    parent.wait()
    eventually(lambda: not any(map(alive, processes)))


def test_signals_that_stop_the_service_do_not_stop_its_functions(
    server: ForkServer, worker: Worker, tmp_path: Path
) -> None:
    """The last requests still need slices when SIGTERM or SIGINT has come to the whole process group."""
    call(worker, "notes", records=[{"note": str(tmp_path / "note")}])
    for process in noted(tmp_path / "note"):
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGINT)
    assert call(worker, "odd").member.tolist() == [True, False]
    assert call(fork(server), "odd").member.tolist() == [True, False]


def test_memory_can_be_limited(file: Path) -> None:
    """A function that exceeds the limit fails with MemoryError."""
    server = ForkServer([str(file)], BreakerLimits(memory_mb=1000))
    worker = fork(server)
    assert call(worker, "grows").reasons == {"MemoryError": 2}
    assert call(worker, "odd").member.tolist() == [True, False]
    worker.kill()
    server.kill()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1 / 0", "ZeroDivisionError"),
        ("import os; os._exit(4)", "the process ended"),
        ("while True: pass", "not loaded within 2 s"),
    ],
)
def test_a_file_that_cannot_be_loaded_raises(code: str, message: str, tmp_path: Path) -> None:
    """The message has the cause."""
    path = tmp_path / "broken.py"
    path.write_text(code)
    with pytest.raises(ServiceError, match=message):
        ForkServer([str(path)], BreakerLimits(load_seconds=2))


def test_outcomes_are_in_the_order_of_the_functions(isolation: Isolation) -> None:
    """Every function has every row."""
    assert outcomes(run(isolation, {"odd": 9, "prints": 9})) == [[False, True, False], [True] * 3]


@pytest.mark.parametrize("stuck", ["sleeps", "endless", "backtracks"])
def test_a_hanging_function_does_not_affect_the_others(stuck: str, isolation: Isolation) -> None:
    """Those before it have results; those after it run in another worker."""
    call = run(isolation, {"odd": 9, stuck: 0.02, "prints": 9})
    assert outcomes(call) == [[False, True, False], SLOW, [True] * 3]
    assert call.heaviest is None


def test_a_dying_worker_does_not_affect_the_other_functions(isolation: Isolation) -> None:
    """Two of three functions end theirs."""
    call = run(isolation, {"dies": 9, "odd": 9, "dies_of_two": 9})
    assert outcomes(call) == [DIED, [False, True, False], DIED]


def test_each_function_has_its_own_allowance(isolation: Isolation) -> None:
    """Time that one function used is not taken from the next."""
    call = run(isolation, {"heavy": 20, "may_dawdle": 20, "sleeps": 0.3}, rows=[{"n": 1}])
    assert outcomes(call) == [[True], [True], SLOW]


def test_a_call_out_of_time_names_the_heaviest_function(isolation: Isolation) -> None:
    """Functions interrupted or not started because of it are out of time, not slow."""
    call = run(isolation, {"heavy": 2, "light": 60, "odd": 60}, seconds=3, rows=[{"n": 1}])
    assert outcomes(call) == [[True], OUT_OF_TIME, OUT_OF_TIME]
    assert call.heaviest == 0
    call = run(isolation, {"odd": 60, "light": 60}, seconds=1, rows=[{"n": 1}])
    assert outcomes(call) == [[True], SLOW]
    assert call.heaviest == 1


def test_a_call_without_time_blames_no_function(isolation: Isolation) -> None:
    """All of its functions are out of time."""
    call = run(isolation, {"odd": 9}, seconds=-1)
    assert (call.outcomes, call.heaviest) == ([NoResult(OUT_OF_TIME)], None)


def test_unreadable_records_blame_no_function(isolation: Isolation) -> None:
    """The same worker answers the next call."""
    call = FunctionCall(["odd", "odd"], [9, 9], EncodedRecords(b"[{]", None, 1), monotonic() + 60)
    call.run(isolation)
    assert call.outcomes == [NoResult(NOT_JSON), NoResult(NOT_JSON)]
    assert outcomes(run(isolation, {"odd": 9})) == [[False, True, False]]


def test_without_processes_a_call_does_not_wait(tmp_path: Path) -> None:
    """Its functions are starting."""
    began = monotonic()
    nothing = Isolation([str(tmp_path / "none.py")], BreakerLimits(), monotonic)
    assert outcomes(run(nothing, {"odd": 9})) == [STARTING]
    assert monotonic() - began < 30
    nothing.close()


def test_the_worker_is_reused(isolation: Isolation, tmp_path: Path) -> None:
    """Nothing is forked while all goes well."""
    note = tmp_path / "note"
    assert processes_of(isolation, note) == processes_of(isolation, note)


def test_a_worker_lost_while_idle_is_replaced(
    isolation: Isolation, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    """The kernel kills one when memory runs out: another one answers the same batch."""
    worker, _ = processes_of(isolation, tmp_path / "note")
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: not alive(worker))
    assert isinstance(outcome_of(isolation), FunctionResult)
    assert processes_of(isolation, tmp_path / "note")[0] != worker


def test_a_lost_fork_server_is_restarted(
    own: Isolation, tmp_path: Path, clock: Any, eventually: Eventually, alive: Alive
) -> None:
    """After the back-off, off the request path; until then functions are unknown."""
    worker, server = processes_of(own, tmp_path / "note")
    os.killpg(server, signal.SIGKILL)
    eventually(lambda: not alive(worker) and not alive(server))
    # a socket may outlive its process for a moment
    eventually(lambda: outcome_of(own) == STARTING and own.fingerprints is None)
    assert outcome_of(own) == STARTING
    clock.seconds += LIMITS.back_off_seconds
    assert outcome_of(own) == STARTING
    eventually(lambda: own.fingerprints is not None)
    assert isinstance(outcome_of(own), FunctionResult)


def test_a_worker_outlives_its_fork_server(
    own: Isolation, tmp_path: Path, eventually: Eventually, alive: Alive
) -> None:
    """The loss has no effect until another worker is needed."""
    _, server = processes_of(own, tmp_path / "note")
    os.kill(server, signal.SIGKILL)
    eventually(lambda: not alive(server))
    assert isinstance(outcome_of(own), FunctionResult)


def test_files_that_cannot_be_loaded_are_retried_after_the_back_off(
    tmp_path: Path, clock: Any, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failure is logged with its cause."""
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    isolation = Isolation([str(path)], LIMITS, clock)
    with pytest.raises(ServiceError, match="ZeroDivisionError"):
        isolation.start()
    with caplog.at_level(logging.WARNING):
        assert outcome_of(isolation) == STARTING
        eventually(lambda: "ZeroDivisionError" in caplog.text)
    path.write_text("from sfs.function import slicing_function\n@slicing_function()\ndef odd(x): return True")

    def is_loaded() -> bool:
        clock.seconds += LIMITS.back_off_seconds
        outcome_of(isolation)
        return isolation.fingerprints is not None

    eventually(is_loaded)
    isolation.close()


def test_nothing_starts_after_close(own: Isolation) -> None:
    """Closing twice is allowed."""
    own.close()
    own.close()
    assert outcome_of(own) == STARTING
    own.start()
    assert own.fingerprints is None
