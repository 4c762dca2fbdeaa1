"""Fork server, workers and calls: a bad function ends or blocks its own process only."""

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
from service.events import DIED, INVALID_ANSWER, NOT_JSON, STARTING
from service.serving.breaker import SLOW, BreakerLimits
from service.serving.channel import ConnectionClosed
from service.serving.function_call import FunctionCall
from service.serving.isolation import (
    SHARED,
    CallRecords,
    EncodedRecords,
    ForkServer,
    FunctionResult,
    Isolation,
    NoResult,
    Worker,
    encode_records,
)
from sfs.metering import OUT_OF_TIME
from sfs.record import Record
from sfs.registry import FunctionSet

Eventually = Callable[[Callable[[], bool]], None]
Alive = Callable[[int], bool]
Fork = Callable[[str], "Asked"]
ROWS = [{"n": n} for n in range(3)]
LIMITS = BreakerLimits(back_off_seconds=10)
PARENT = """
import sys, time
from service.serving.breaker import BreakerLimits
from service.serving.isolation import CallRecords, ForkServer, encode_records
server = ForkServer([sys.argv[1]], BreakerLimits())
worker = server.fork()
worker.wait_until_ready(time.monotonic() + 60)
worker.call((server.position["endless"],), CallRecords(encode_records([{"note": sys.argv[2]}])))
time.sleep(600)
"""


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[ForkServer]:
    """A fork server shared by the tests."""
    server = ForkServer([str(file)], BreakerLimits())
    yield server
    server.kill()


@pytest.fixture
def own(file: Path, clock: Any) -> Iterator[Isolation]:
    """Processes of one test, which it may kill."""
    isolation = Isolation([str(file)], LIMITS, clock)
    isolation.start()
    yield isolation
    isolation.close()


class Asked:
    """A worker for one function."""

    def __init__(self, server: ForkServer, name: str) -> None:
        worker = server.fork()
        assert worker is not None
        self.worker, self.position = worker, (server.position[name],)
        worker.wait_until_ready(monotonic() + 60)

    def send(self, *records: Any) -> None:
        assert self.worker.call(self.position, CallRecords(encode_records(records)))

    def ask(self, *records: Any) -> FunctionResult:
        """Return the result for records."""
        records = records or ({"n": 1}, {"n": 4})
        self.send(*records)
        [result] = self.worker.receive(len(records), monotonic() + 60) or ()
        return result


@pytest.fixture
def fork(server: ForkServer) -> Iterator[Fork]:
    """Forks workers that are ready."""
    created: list[Worker] = []

    def make(name: str) -> Asked:
        asked = Asked(server, name)
        created.append(asked.worker)
        return asked

    yield make
    for worker in created:
        worker.kill()


def run(isolation: Isolation, allowances: dict[str, float], seconds: float = 60.0, rows: Any = ROWS) -> Any:
    """Call functions, each with its allowance, within a time for all of them."""
    call = FunctionCall([*allowances], [*allowances.values()], encode_records(rows), seconds)
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


def process_of(isolation: Isolation, name: str) -> int:
    """Return the process id of a function's worker."""
    assert isinstance(outcome_of(isolation, name), FunctionResult)
    worker = isolation.worker(isolation.key(name))
    assert worker is not None
    return worker.process


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


def test_a_worker_answers_call_after_call(fork: Fork) -> None:
    """Also about records that are too large for a message."""
    worker = fork("odd")
    assert worker.ask().member.tolist() == [True, False]
    large = [{"n": n, "text": 100_000 * "x"} for n in range(20)]
    assert worker.ask(*large).member.tolist() == [n % 2 == 1 for n in range(20)]
    assert worker.ask().member.tolist() == [True, False]
    assert fork("raises").ask().reasons == {"ValueError": 2}


def test_votes_are_memberships(fork: Fork) -> None:
    """A labelling function's slice has the rows on which it votes."""
    result = fork("loud").ask({"text": "CHECK THIS"}, {"text": "nice"})
    assert result.member.tolist() == [True, False]


def test_unreadable_records_have_no_result(fork: Fork) -> None:
    """The worker answers the next call."""
    worker = fork("odd")
    assert worker.worker.call(worker.position, CallRecords(EncodedRecords(b"[{]", None, 1)))
    assert worker.worker.receive(1, monotonic() + 60) is None
    assert worker.ask().member.tolist() == [True, False]


@pytest.mark.parametrize("fatal", ["dies", "interrupted", "dies_of_two"])
def test_a_function_that_ends_its_process_ends_only_that(fatal: str, fork: Fork) -> None:
    """The next worker is forked as before."""
    with pytest.raises(ConnectionClosed):
        fork(fatal).ask({"n": 2})
    assert fork("odd").ask().member.tolist() == [True, False]


@pytest.mark.parametrize("stuck", ["endless", "backtracks", "sleeps"])
def test_a_hanging_worker_can_be_killed(stuck: str, fork: Fork, alive: Alive, eventually: Eventually) -> None:
    """In a loop that catches everything, in a search that keeps the interpreter lock, and asleep."""
    asked = fork(stuck)
    asked.send({})
    worker = asked.worker
    with pytest.raises(TimeoutError):
        worker.receive(1, monotonic() + 0.02)
    process = worker.process
    assert alive(process)
    worker.kill()
    eventually(lambda: not alive(process))
    eventually(lambda: not Path(f"/proc/{process}").exists())  # not even a zombie is left


def test_time_is_that_of_the_process(fork: Fork) -> None:
    """The CPU time of a running function is known, and the sleep of one that waits is none."""
    asked = fork("endless"), fork("sleeps")
    for each in asked:
        each.send({})
    busy, idle = (each.worker for each in asked)
    while busy.used_seconds() < 0.05:
        with pytest.raises(TimeoutError):
            busy.receive(1, monotonic() + 0.01)
    assert (busy.state(), idle.state()) == ("R", "S")
    assert idle.used_seconds() < 0.05


def test_a_worker_without_references_ends(server: ForkServer, alive: Alive, eventually: Eventually) -> None:
    """Its process ends with the object."""
    asked = Asked(server, "odd")
    asked.ask()
    process = asked.worker.process
    assert alive(process)
    del asked
    eventually(lambda: not alive(process))


def test_killing_the_server_kills_its_workers(file: Path, tmp_path: Path, alive: Alive, eventually: Eventually) -> None:
    """Also a hanging one; the server forks no more."""
    server, note = ForkServer([str(file)], BreakerLimits()), tmp_path / "note"
    asked = Asked(server, "endless")
    asked.send({"note": str(note)})
    eventually(lambda: len(noted(note)) == 2)
    processes = noted(note)
    assert all(map(alive, processes))
    server.kill()
    assert not any(map(alive, processes))
    assert server.fork() is None
    asked.worker.kill()


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


def test_processes_that_a_file_starts_end_with_the_server(tmp_path: Path, alive: Alive) -> None:
    """Also in sessions of their own, and if their first thread has ended."""
    note, path = tmp_path / "started", tmp_path / "starts.py"
    path.write_text(
        "import subprocess, sys\nfrom pathlib import Path\n"
        "code = 'import ctypes, threading; threading.Thread(target=threading.Event().wait, args=(600,)).start(); '\n"
        "code += 'print(flush=True); ctypes.CDLL(None).pthread_exit(None)'\n"
        "commands = [['sleep', '600'], ['sleep', '600'], [sys.executable, '-c', code]]\n"
        "started = [subprocess.Popen(each, stdout=-1, start_new_session=True) for each in commands]\n"
        "started[2].stdout.readline()\n"
        f"Path({str(note)!r}).write_text(' '.join(str(each.pid) for each in started))\n"
        "from sfs.function import slicing_function\n@slicing_function()\ndef odd(x): return True"
    )
    server = ForkServer([str(path)], BreakerLimits())
    assert all(map(alive, noted(note)))
    server.kill()
    assert len(noted(note)) == 3
    assert not any(map(alive, noted(note)))


def test_signals_that_stop_the_service_do_not_stop_its_functions(fork: Fork, tmp_path: Path) -> None:
    """The last requests still need slices when SIGTERM or SIGINT has come to the whole process group."""
    worker, note = fork("notes"), tmp_path / "note"
    worker.ask({"note": str(note)})
    for process in noted(note):
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGINT)
    assert worker.ask().member.tolist() == [True, True]
    assert fork("odd").ask().member.tolist() == [True, False]


def test_memory_is_limited(file: Path) -> None:
    """A function that exceeds the limit fails with MemoryError."""
    server = ForkServer([str(file)], BreakerLimits(memory_mb=1000))
    asked = Asked(server, "grows")
    assert asked.ask().reasons == {"MemoryError": 2}
    asked.worker.kill()
    server.kill()


@pytest.mark.parametrize(
    ("code", "seconds", "message"),
    [
        ("x = 1 / 0", 300, "ZeroDivisionError"),
        ("import os; os._exit(4)", 300, "the process ended"),
        ("while True: pass", 2, "not loaded within 2 s"),
    ],
)
def test_a_file_that_cannot_be_loaded_raises(code: str, seconds: float, message: str, tmp_path: Path) -> None:
    """The message has the cause."""
    path = tmp_path / "broken.py"
    path.write_text(code)
    with pytest.raises(ServiceError, match=message):
        ForkServer([str(path)], BreakerLimits(load_seconds=seconds))


def test_outcomes_are_in_the_order_of_the_functions(isolation: Isolation) -> None:
    """Every function has every row."""
    assert outcomes(run(isolation, {"odd": 9, "prints": 9})) == [[False, True, False], [True] * 3]


@pytest.mark.parametrize("stuck", ["sleeps", "endless", "backtracks"])
def test_a_hanging_function_does_not_affect_the_others(stuck: str, isolation: Isolation) -> None:
    """It is interrupted at the end of the hold."""
    call = run(isolation, {"odd": 9, stuck: 0.02, "prints": 9}, seconds=1)
    assert outcomes(call) == [[False, True, False], SLOW, [True] * 3]
    assert call.heaviest is None


def test_a_dying_worker_does_not_affect_the_other_functions(isolation: Isolation) -> None:
    """Two of three functions end theirs."""
    call = run(isolation, {"dies": 9, "odd": 9, "dies_of_two": 9})
    assert outcomes(call) == [DIED, [False, True, False], DIED]


def test_a_call_out_of_time_names_the_heaviest_function(isolation: Isolation, eventually: Eventually) -> None:
    """Another one that is interrupted because of it is out of time, not slow."""
    calls = []

    def is_heavy() -> bool:  # on a busy machine, both may be out of time without having had any
        calls.append(run(isolation, {"light": 100, "heavy": 1}, seconds=0.5, rows=[{}]))
        return calls[-1].heaviest is not None

    eventually(is_heavy)
    assert calls[-1].heaviest == 1
    assert outcomes(calls[-1]) == [OUT_OF_TIME, SLOW]


def test_harmless_functions_share_a_worker(isolation: Isolation) -> None:
    """Others have one of their own."""
    names = ("odd", "lacks", "prints", "notes", "raises")
    workers = {name: process_of(isolation, name) for name in ("odd", "prints", "may_dawdle")}
    assert [isolation.key(name) == SHARED for name in names] == [True, True, True, False, True]
    assert workers["odd"] == workers["prints"] != workers["may_dawdle"]


@pytest.mark.parametrize(("rash", "outcome"), [("spins", SLOW), ("recurs", [False] * 3)])
def test_functions_that_share_a_worker_are_called_again_without_it(
    rash: str, outcome: Any, isolation: Isolation
) -> None:
    """One that loops is interrupted at its own allowance, and the others have results."""
    call = run(isolation, {"odd": 0.5, rash: 0.5, "prints": 0.5}, seconds=2)
    assert outcomes(call)[::2] == [[False, True, False], [True] * 3]
    assert outcomes(call)[1] == outcome


def test_workers_that_functions_need_for_a_while_end(
    isolation: Isolation, alive: Alive, eventually: Eventually
) -> None:
    """Functions that lost their shared worker had others; some calls later they share one again."""
    os.kill(process_of(isolation, "odd"), signal.SIGSTOP)
    call = run(isolation, {"odd": 9, "prints": 9}, seconds=0.5)
    assert outcomes(call) == [[False, True, False], [True] * 3]
    others = [worker.process for name in ("odd", "prints") if (worker := isolation.worker(name)) is not None]
    assert all(map(alive, others))
    for _ in range(260):
        assert isinstance(outcome_of(isolation), FunctionResult)
    eventually(lambda: not any(map(alive, others)))


@pytest.mark.parametrize("lie", [{"seconds": "inf"}, {"seconds": "nan"}, {"seconds": "1e9"}, {"length": 1 << 20}])
def test_an_answer_is_bounded(lie: dict[str, Any], isolation: Isolation) -> None:
    """Its times and its text: the metrics are sums, and a long text would hold up the service."""
    assert outcome_of(isolation, "lies", **lie) == INVALID_ANSWER
    assert isinstance(outcome_of(isolation, "lies", seconds="1000"), FunctionResult)
    isolation.drop("lies")


def test_reading_the_records_is_no_time_of_a_function(isolation: Isolation) -> None:
    """A field that no function uses may be large; of functions that share a worker, and of one of its own."""
    rows = [{"n": 1, "unused": [[] for _ in range(600_000)]}]
    names = {"odd": 0.1, "prints": 0.1, "may_dawdle": 0.1}
    run(isolation, names)  # a first call may take longer
    assert outcomes(run(isolation, names, rows=rows)) == [[True]] * 3


def test_a_first_call_may_take_longer(isolation: Isolation, tmp_path: Path) -> None:
    """A function may initialize something, once in a process."""
    mood, note = tmp_path / "mood", tmp_path / "note"
    mood.write_text("well")
    row = {"mood": str(mood), "note": str(note)}
    for _ in range(2):
        isolation.drop("lazy")
        call = run(isolation, {"lazy": 0.05}, seconds=20, rows=[row])
        assert outcomes(call) == [[True]]
        assert call.outcomes[0].seconds >= 0.1
        assert run(isolation, {"lazy": 0.05}, seconds=20, rows=[row]).outcomes[0].seconds < 0.05


def test_first_calls_may_not_take_longer_than_the_hold(isolation: Isolation) -> None:
    """If they use it up together, those over their allowance are over budget."""
    call = run(isolation, {"odd": 9, **dict.fromkeys(("endless", "light", "heavy"), 0.05)}, seconds=0.5)
    assert outcomes(call) == [[False, True, False], SLOW, SLOW, SLOW]


def test_a_stopped_worker_is_replaced_once(isolation: Isolation) -> None:
    """The call is repeated in another process; one that is stopped again has no result."""
    process = process_of(isolation, "stops_itself")
    os.kill(process, signal.SIGSTOP)
    call = run(isolation, {"stops_itself": 9, "odd": 9}, seconds=0.5, rows=[{"n": 1}])
    assert outcomes(call) == [[True], [True]]
    call = run(isolation, {"stops_itself": 9, "odd": 9}, seconds=0.5, rows=[{"n": 2}])
    assert outcomes(call) == [SLOW, [False]]


def test_unreadable_records_blame_no_function(isolation: Isolation) -> None:
    """The same worker answers the next call."""
    call = FunctionCall(["odd", "prints"], [9, 9], EncodedRecords(b"[{]", None, 1), 60)
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


def test_a_worker_is_replaced_after_many_calls(
    file: Path, tmp_path: Path, eventually: Eventually, alive: Alive
) -> None:
    """The next one is ready before the last one ends, and no call waits for it."""
    isolation, note = Isolation([str(file)], BreakerLimits(recycle_calls=5), monotonic), tmp_path / "note"
    isolation.start()
    first = processes_of(isolation, note)[0]
    eventually(lambda: processes_of(isolation, note)[0] != first)
    eventually(lambda: not alive(first))
    isolation.close()


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
    worker, server = processes_of(own, tmp_path / "note")
    os.kill(server, signal.SIGKILL)
    eventually(lambda: not alive(server))
    assert processes_of(own, tmp_path / "note")[0] == worker


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
