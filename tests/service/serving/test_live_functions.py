"""Live functions: templates and Python functions together, Python functions isolated and behind breakers."""

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from factories import PATIENT_LIMITS

from service.errors import ServiceError
from service.events import BREAKER_OPEN, CHANGED, DIED, NOT_JSON, STARTING
from service.serving.breaker import FAULTS, SLOW, BreakerLimits
from service.serving.isolation import Isolation
from service.serving.live_functions import (
    FunctionColumn,
    LiveFunctions,
    PythonFunctions,
)
from sfs.apply import ApplyResult, apply
from sfs.function import SlicingFunction
from sfs.matrix import SliceMatrix
from sfs.registry import FunctionSet
from sfs.template import template

ROWS = [{"n": n, "text": "free" if n == 2 else "song"} for n in range(4)]
FREE = template("free", keyword={"field": "text", "words": ["free"]})
ODD = "@slicing_function()\ndef odd(x): return x.n % 2 == 1\n"
NOTES = """
@slicing_function()
def notes(x):
    return bool(Path(x.note).write_text(f"{os.getpid()} {os.getppid()}"))
"""
VOTES = """
@labeling_function()
def mentions_check(x):
    return 0 if "check" in x.text else -1

@slicing_function()
def short(x):
    return len(x.text) < 5
"""
LIMITS = BreakerLimits(least_ms=30, hold_ms=2_000, faults=3, back_off_seconds=10)
Eventually = Callable[[Callable[[], bool]], None]
LiveOf = Callable[..., LiveFunctions]


def reasons(applied: ApplyResult) -> dict[str, dict[str, int]]:
    """Return the unknown rows by function and reason."""
    return {run.name: dict(run.unknown) for run in applied.stats if run.unknown}


def children() -> set[int]:
    """Return the process ids of this process's children."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


def test_the_matrix_is_that_of_offline_functions(live_of: LiveOf) -> None:
    """With the names in the order of the set."""
    live = live_of(f"{ODD}@slicing_function()\ndef big(x): return x.n > 1\n", FREE)
    applied = live.apply(ROWS)
    assert applied.matrix == apply(live.functions, ROWS)
    assert [run.name for run in applied.stats] == ["free", "odd", "big"]
    again = live.with_functions(FunctionSet(reversed(list(live.functions)))).apply(ROWS)
    assert [run.name for run in again.stats] == ["big", "odd", "free"]


def test_a_set_may_lack_templates_or_python_functions(live_of: LiveOf) -> None:
    """Or both; no rows are as good as any."""
    live = live_of(ODD)
    for functions in (live.functions, FunctionSet([FREE]), FunctionSet([])):
        for rows in (ROWS, []):
            assert live.with_functions(functions).apply(rows).matrix == apply(functions, rows)


def test_labelling_functions_run_beside_slices(live_of: LiveOf) -> None:
    """A vote is a membership; a row on which the function raises is unknown."""
    live = live_of(VOTES)
    applied = live.apply([{"text": "check it"}, {"text": "hi"}, {"text": None}])
    matrix = applied.matrix
    assert set(matrix.names) == {"short", "mentions_check"}
    assert matrix.column("mentions_check").tolist() == [True, False, False]
    assert matrix.column("short").tolist() == [False, True, False]
    assert matrix.unknown.tolist() == [[False, False], [False, False], [True, True]]
    assert {run.name: run.unknown for run in applied.stats}["mentions_check"] == {"TypeError": 1}


def test_a_set_without_python_functions_starts_no_process(tmp_path: Path) -> None:
    """Neither in `start` nor in `apply`."""
    before = children()
    live = LiveFunctions(FunctionSet([FREE]), sources=[tmp_path / "none.py"])
    live.start()
    live.apply(ROWS)
    assert children() == before
    live.close()


def test_functions_that_cannot_be_loaded_raise_at_the_start(tmp_path: Path) -> None:
    """The file existed when the service loaded it."""
    path = tmp_path / "gone.py"
    path.write_text(f"from sfs.function import slicing_function\n{ODD}")
    live = LiveFunctions(FunctionSet.from_file(path), sources=[path])
    path.unlink()
    with pytest.raises(ServiceError, match=r"gone\.py: cannot be read"):
        live.start()
    assert live.disabled_reasons() == {"odd": STARTING}


def test_a_function_whose_file_has_changed_is_unknown(tmp_path: Path) -> None:
    """Other functions of the file are not affected."""
    path = tmp_path / "edited.py"
    code = f"from sfs.function import slicing_function\n{ODD}{ODD.replace('odd', 'even')}"
    path.write_text(code)
    live = LiveFunctions(FunctionSet.from_file(path), sources=[path])
    path.write_text(code.replace("2 == 1\n@", "2 == 0\n@"))
    live.start()
    assert live.functions.names == ("odd", "even")
    assert reasons(live.apply(ROWS)) == {"odd": {CHANGED: 4}}
    assert live.disabled_reasons() == {"odd": CHANGED, "even": None}
    live.close()


def test_without_a_start_the_first_batches_start_the_process(file: Path, mixed: FunctionSet) -> None:
    """Python functions are unknown meanwhile, and templates are not."""
    live = LiveFunctions(FunctionSet([FREE, mixed["odd"]]), sources=[file])
    applied = live.apply(ROWS)
    assert reasons(applied) == {"odd": {STARTING: 4}}
    assert applied.matrix.column("free").tolist() == [False, False, True, False]
    live.start()
    assert live.apply(ROWS).matrix == apply(live.functions, ROWS)
    live.close()


def test_another_set_shares_processes_and_breakers(live_of: LiveOf, clock: Any, tmp_path: Path) -> None:
    """A breaker belongs to the fingerprint."""
    limits = replace(PATIENT_LIMITS, faults=3)
    live = live_of(f"{NOTES}@slicing_function()\ndef bad(x): return 1 / 0\n", limits=limits, clock=clock)
    rows = [{**row, "note": str(tmp_path / "note")} for row in ROWS]
    live.apply(rows)
    process = (tmp_path / "note").read_text()
    other = live.with_functions(FunctionSet([FREE, *live.functions]))
    assert reasons(other.apply(rows)) == {"bad": {BREAKER_OPEN: 4}}
    assert (tmp_path / "note").read_text() == process
    assert other.disabled_reasons() == {"notes": None, "bad": FAULTS}
    changed = live.with_functions(FunctionSet([SlicingFunction("bad", lambda x: x.n > 0)]))
    assert reasons(changed.apply(rows)) == {"bad": {CHANGED: 4}}


def test_rows_that_are_not_traffic_open_no_breaker(live_of: LiveOf) -> None:
    """Unless they are declared as traffic, which is the default."""
    live = live_of("@slicing_function()\ndef bad(x): return 1 / 0\n")
    rows = ROWS * 5
    live.apply(rows, update_breakers=False)
    assert live.disabled_reasons() == {"bad": None}
    live.apply(rows)
    assert live.disabled_reasons() == {"bad": FAULTS}


@pytest.mark.parametrize("closed", [True, False])
def test_processes_end_with_the_functions(
    closed: bool, file: Path, mixed: FunctionSet, tmp_path: Path, alive: Any, eventually: Eventually
) -> None:
    """If a set is closed, or nothing refers to it."""
    live = LiveFunctions(FunctionSet([mixed["notes"]]), sources=[file])
    live.start()
    live.apply([{"note": str(tmp_path / "note")}])
    processes = [int(each) for each in (tmp_path / "note").read_text().split()]
    assert all(map(alive, processes))
    if closed:
        live.close()
    else:
        del live
        gc.collect()
    eventually(lambda: not any(map(alive, processes)))


def test_concurrent_batches_get_their_own_rows(live_of: LiveOf) -> None:
    """Threads may apply one set at the same time."""
    live = live_of(ODD, FREE)
    matrices: list[SliceMatrix] = []
    batches = [ROWS[:k] for k in (1, 2, 3, 4)] * 5
    threads = [threading.Thread(target=lambda b=b: matrices.append(live.apply(b).matrix)) for b in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {len(batch): apply(live.functions, batch) for batch in batches}
    assert len(matrices) == 20
    assert all(matrix == expected[len(matrix)] for matrix in matrices)


class Caller:
    """Applies functions of the shared file by name."""

    def __init__(self, isolation: Isolation, mixed: FunctionSet, clock: Any) -> None:
        self.isolation, self.mixed, self.clock = isolation, mixed, clock
        self.set_limits(LIMITS)

    def set_limits(self, limits: BreakerLimits) -> None:
        """Start again with closed breakers and other limits."""
        self.python = PythonFunctions(self.isolation, limits, self.clock)

    def columns(self, *names: str, rows: Any = ROWS) -> dict[str, FunctionColumn]:
        return self.python.apply([self.mixed[name] for name in names], rows)

    def breaker(self, name: str) -> Any:
        return self.python.breaker(self.mixed[name])

    def process(self, name: str, note: Path) -> int:
        """Return the process id of a function that notes it."""
        self.columns(name, rows=[{"n": 1, "note": str(note)}])
        return int(note.read_text().split()[0])


@pytest.fixture
def caller(isolation: Isolation, mixed: FunctionSet, clock: Any) -> Caller:
    """All breakers are closed."""
    return Caller(isolation, mixed, clock)


@pytest.fixture
def mood(tmp_path: Path) -> Path:
    """A file read by the moody functions; at first they fail."""
    path = tmp_path / "mood"
    path.write_text("fails")
    return path


def moody_rows(mood: Path) -> list[dict[str, Any]]:
    return [{"n": n, "mood": str(mood)} for n in range(4)]


def unknown(columns: dict[str, FunctionColumn]) -> dict[str, dict[str, int]]:
    """Return the unknown rows by function and reason."""
    return {name: dict(column.run.unknown) for name, column in columns.items() if column.run.unknown}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [("raises", "ValueError"), ("junk", "junk answer"), ("exits", "SystemExit"), ("dies", DIED)],
)
def test_a_fault_makes_memberships_of_its_own_function_unknown(bad: str, reason: str, caller: Caller) -> None:
    """Raising, returning an invalid value and ending the process do not affect other functions."""
    columns = caller.columns(bad, "odd")
    assert unknown(columns) == {bad: {reason: 4}}
    assert columns[bad].unknown.tolist() == [True] * 4
    assert columns["odd"].member.tolist() == [False, True, False, True]


def test_the_first_fault_is_reported(caller: Caller) -> None:
    """With its row and its error."""
    assert caller.columns("raises")["raises"].run.first_fault == "row 0: ValueError: no"


@pytest.mark.parametrize("bad", ["raises", "dies"])
def test_consecutive_faults_open_the_breaker(bad: str, caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and following rows are unknown for that reason."""
    caller.columns(bad)
    assert caller.breaker(bad).reason == FAULTS
    assert f"breaker of function {bad!r} opened, faults: " in caplog.text
    assert unknown(caller.columns(bad, "odd")) == {bad: {BREAKER_OPEN: 4}}


@pytest.mark.parametrize(("level", "quoted"), [(logging.INFO, False), (logging.DEBUG, True)])
@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ("quotes", "ValueError"),
        ("lacks", "KeyError"),
        ("prepared", "ValueError"),
        ("returns", "invalid return value"),
    ],
)
def test_the_log_has_row_and_kind_of_a_fault(
    bad: str, kind: str, level: int, quoted: bool, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    """The message, which may quote the record, is logged at level DEBUG only."""
    with caplog.at_level(level):
        caller.columns(bad, rows=[{"n": n, "email": "4711-SECRET"} for n in range(4)])
    assert f"breaker of function {bad!r} opened, faults: row 0: {kind}\n" in caplog.text
    assert ("4711-SECRET" in caplog.text) == quoted


def test_faults_are_counted_across_batches(caller: Caller) -> None:
    """Batches of one row open the breaker too."""
    states = []
    for _ in range(3):
        caller.columns("dies", rows=ROWS[:1])
        states.append(caller.breaker("dies").is_open)
    assert states == [False, False, True]


def test_abstaining_opens_no_breaker(caller: Caller) -> None:
    """It is an answer, though the membership is unknown."""
    for _ in range(3):
        assert unknown(caller.columns("shy")) == {"shy": {"abstained": 4}}
    assert not caller.breaker("shy").is_open


@pytest.mark.parametrize("stuck", ["sleeps", "endless", "backtracks"])
def test_a_hanging_function_delays_one_request(stuck: str, caller: Caller) -> None:
    """By its allowance; the next requests do not wait, and other functions always have results."""
    began = monotonic()
    first, second = caller.columns(stuck, "odd"), caller.columns(stuck, "odd")
    assert monotonic() - began < 20
    assert unknown(first) == {stuck: {SLOW: 4}}
    assert unknown(second) == {stuck: {BREAKER_OPEN: 4}}
    assert first["odd"].member.tolist() == second["odd"].member.tolist() == [False, True, False, True]
    assert caller.breaker(stuck).reason == SLOW


def test_several_hanging_functions_are_disabled_in_one_batch(caller: Caller) -> None:
    """Each has its own process."""
    columns = caller.columns("sleeps", "endless", "odd")
    assert unknown(columns) == {"sleeps": {SLOW: 4}, "endless": {SLOW: 4}}


def test_a_stopped_process_is_retried_once(caller: Caller, tmp_path: Path) -> None:
    """A stall of the machine makes no row unknown, and opens no breaker."""
    process = caller.process("notes", tmp_path / "note")
    os.kill(process, signal.SIGSTOP)
    assert unknown(caller.columns("notes", "odd")) == {}
    assert not caller.breaker("notes").is_open
    assert caller.process("notes", tmp_path / "note") != process


def test_a_wait_longer_than_the_budget_is_no_fault(caller: Caller) -> None:
    """A budget is one of CPU time; a function may wait now and then."""
    caller.set_limits(BreakerLimits(least_ms=10, hold_ms=20_000, slow_batches=3))
    for seconds in (0.1, 0.1, 0.0, 0.1, 0.1):
        assert unknown(caller.columns("naps", rows=[{"seconds": seconds}])) == {}
    assert not caller.breaker("naps").is_open


def test_waiting_in_consecutive_batches_opens_the_breaker(caller: Caller) -> None:
    """Every request would be late."""
    caller.set_limits(BreakerLimits(hold_ms=20_000, least_ms=20, slow_batches=2))
    while not caller.breaker("naps").is_open:
        assert unknown(caller.columns("naps", rows=[{"seconds": 0.2}])) == {}
    assert caller.breaker("naps").reason == SLOW


def test_time_between_batches_counts(caller: Caller, eventually: Eventually) -> None:
    """A function may leave a thread behind that computes."""
    caller.set_limits(BreakerLimits(hold_ms=20_000, least_ms=20_000, slow_batches=3))

    def is_disabled() -> bool:
        assert caller.columns("leaves_a_thread")["leaves_a_thread"].run.unknown in ({}, {BREAKER_OPEN: 4})
        return bool(caller.breaker("leaves_a_thread").is_open)

    eventually(is_disabled)
    assert caller.breaker("leaves_a_thread").reason == SLOW


def test_consecutive_slow_batches_open_the_breaker(caller: Caller) -> None:
    """Though no batch is interrupted; a function with a larger budget of its own is not slow."""
    caller.set_limits(BreakerLimits(budget_ms=0.1, least_ms=20_000, hold_ms=20_000, slow_batches=3))
    states = []
    for _ in range(3):
        assert unknown(caller.columns("dawdles", "may_dawdle")) == {}
        states.append(caller.breaker("dawdles").is_open)
    assert states == [False, False, True]
    assert not caller.breaker("may_dawdle").is_open


def test_a_successful_probe_closes_the_breaker(caller: Caller, mood: Path, eventually: Eventually) -> None:
    """Not before the back-off is over, and not for the request that starts the probe."""
    rows = moody_rows(mood)
    caller.columns("moody", rows=rows)
    mood.write_text("well")
    assert unknown(caller.columns("moody", rows=rows)) == {"moody": {BREAKER_OPEN: 4}}
    caller.clock.seconds += LIMITS.back_off_seconds
    assert unknown(caller.columns("moody", rows=rows)) == {"moody": {BREAKER_OPEN: 4}}
    eventually(lambda: not caller.breaker("moody").is_open)
    assert unknown(caller.columns("moody", rows=rows)) == {}


def test_a_probe_keeps_the_process_that_it_has_initialized(
    caller: Caller, mood: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """Though that took longer than the function may in a batch."""
    rows = [{**row, "note": str(tmp_path / "note")} for row in moody_rows(mood)]
    caller.columns("lazy", rows=rows)
    assert caller.breaker("lazy").reason == FAULTS
    mood.write_text("well")
    caller.clock.seconds += LIMITS.back_off_seconds
    caller.columns("lazy", rows=rows)
    eventually(lambda: not caller.breaker("lazy").is_open)
    initialized = (tmp_path / "note").read_text()
    columns = caller.columns("lazy", rows=rows)
    assert (unknown(columns), (tmp_path / "note").read_text()) == ({}, initialized)
    assert columns["lazy"].run.seconds < 0.1


def test_a_probe_of_a_slow_function_fails(caller: Caller, eventually: Eventually) -> None:
    """Its first call may take longer, the second one may not."""
    caller.set_limits(
        BreakerLimits(budget_ms=0.1, least_ms=20_000, hold_ms=20_000, slow_batches=1, back_off_seconds=10)
    )
    caller.columns("dawdles")
    caller.clock.seconds += 10
    caller.columns("dawdles")
    eventually(lambda: caller.breaker("dawdles").back_off_seconds == 20)
    assert caller.breaker("dawdles").reason == SLOW


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [("moody", "fails", FAULTS), ("moody", "dies", FAULTS), ("rash", "hangs", SLOW)],
)
def test_a_failed_probe_doubles_the_back_off(
    name: str, state: str, reason: str, caller: Caller, mood: Path, eventually: Eventually
) -> None:
    """Requests do not wait for it, and it ends by itself."""
    rows = moody_rows(mood)
    caller.columns(name, rows=rows)
    mood.write_text(state)
    caller.clock.seconds += LIMITS.back_off_seconds
    assert unknown(caller.columns(name, "odd", rows=rows)) == {name: {BREAKER_OPEN: 4}}
    eventually(lambda: caller.breaker(name).back_off_seconds == 2 * LIMITS.back_off_seconds)
    assert caller.breaker(name).reason == reason
    assert unknown(caller.columns(name, "odd", rows=rows)) == {name: {BREAKER_OPEN: 4}}


def test_records_that_are_not_json_blame_no_function(caller: Caller) -> None:
    """The others of their batch have results, and faults have their position in the batch."""
    caller.set_limits(replace(PATIENT_LIMITS, faults=1))
    rows = [{"n": 1}, {"n": {1, 2}}, {"n": 3}]
    odd = caller.columns("odd", rows=rows)["odd"]
    assert odd.member.tolist() == [True, False, True]
    assert odd.unknown.tolist() == [False, True, False]
    assert odd.run.unknown == {NOT_JSON: 1}
    assert not caller.breaker("odd").is_open
    raises = caller.columns("raises", rows=rows[1:])["raises"]
    assert raises.run.first_fault == "row 1: ValueError: no"
    assert raises.run.unknown == {"ValueError": 1, NOT_JSON: 1}


def test_empty_batches_are_not_slow(caller: Caller) -> None:
    """If they have no rows, or none that JSON can hold."""
    caller.set_limits(replace(PATIENT_LIMITS, slow_batches=1))
    assert unknown(caller.columns("odd", rows=[])) == {}
    assert unknown(caller.columns("odd", rows=[{"n": {1}}])) == {"odd": {NOT_JSON: 1}}
    assert not caller.breaker("odd").is_open


def test_a_function_that_differs_in_its_process_is_not_called(caller: Caller) -> None:
    """Its file was changed between the two loads."""
    other = SlicingFunction("odd", lambda x: True)
    columns = caller.python.apply([other, caller.mixed["prints"]], ROWS)
    assert unknown(columns) == {"odd": {CHANGED: 4}}
    assert columns["prints"].member.tolist() == [True] * 4
    assert caller.python.disabled_reason(other) == CHANGED
