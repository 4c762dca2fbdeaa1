"""Live functions: whatever one does, the others answer, and the request goes on."""

import gc
import threading
from collections.abc import Callable
from threading import Event
from time import monotonic
from typing import Any

import pytest

from service.serving.breaker import FAULTS, SLOW, Limits
from service.serving.functions import BREAKER_OPEN, OUT_OF_TIME, STILL_RUNNING, LiveFunctions
from sfs.apply import Applied, apply
from sfs.function import SlicingFunction
from sfs.matrix import SliceMatrix
from sfs.record import Record
from sfs.registry import FunctionSet
from sfs.template import template

ROWS = [{"n": n, "text": "free" if n == 2 else "song"} for n in range(4)]
FREE = template("free", keyword={"field": "text", "words": ["free"]})
LIMITS = Limits(least_ms=30, hold_ms=20_000, faults=3, back_off_seconds=10)
Eventually = Callable[[Callable[[], bool]], None]


def patient(name: str, f: Callable[[Record], Any]) -> SlicingFunction:
    """Return a function that has time, however busy the machine is."""
    return SlicingFunction(name, f, budget_ms=10_000)


ODD = patient("odd", lambda x: x.n % 2 == 1)


def live(*functions: SlicingFunction, clock: Any = monotonic, limits: Limits = LIMITS) -> LiveFunctions:
    return LiveFunctions(FunctionSet(functions), limits, clock=clock)


def reasons(applied: Applied) -> dict[str, dict[str, int]]:
    """Return what is unknown and why, by function."""
    return {run.name: dict(run.unknown) for run in applied.runs if run.unknown}


def members(applied: Applied, name: str) -> list[bool]:
    return applied.matrix.column(name).tolist()


def fails(x: Record) -> bool:
    raise ValueError("no")


class Moody:
    """A function that does as it is told at the time."""

    def __init__(self, mood: Callable[[Record], Any]) -> None:
        self.mood = mood

    def __call__(self, x: Record) -> Any:
        return self.mood(x)


def test_functions_of_both_kinds_answer_as_they_do_offline() -> None:
    """The matrix is that of `apply`, names in the order of the set."""
    functions = FunctionSet([ODD, FREE, patient("big", lambda x: x.n > 1)])
    applied = LiveFunctions(functions).apply(ROWS)
    assert applied.matrix == apply(functions, ROWS)
    assert [run.name for run in applied.runs] == ["odd", "free", "big"]


@pytest.mark.parametrize("functions", [(), (FREE,), (ODD,)])
def test_one_kind_or_none_is_enough(functions: tuple[SlicingFunction, ...]) -> None:
    """Sets without templates, without plain functions, and without any are applied, also to no rows."""
    for rows in (ROWS, []):
        assert live(*functions).apply(rows).matrix == apply(functions, rows)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(fails, "ValueError"), (lambda x: "junk", "junk answer"), (lambda x: exit(), "SystemExit")],
)
def test_a_fault_makes_its_own_memberships_unknown(bad: Callable[[Record], Any], reason: str) -> None:
    """Raising, answering junk and ending the process are faults, and the other functions do not notice."""
    applied = live(patient("bad", bad), ODD, FREE).apply(ROWS)
    assert reasons(applied) == {"bad": {reason: 4}}
    assert members(applied, "odd") == [False, True, False, True]
    assert members(applied, "free") == [False, False, True, False]


def test_a_function_that_faults_on_and_on_is_not_called_any_more(clock: Any) -> None:
    """After so many faults in a row its breaker is open, and rows are unknown for that reason."""
    calls: list[int] = []
    functions = live(patient("bad", lambda x: calls.append(x.n)), ODD, clock=clock)
    functions.apply(ROWS)
    assert functions.breakers["bad"].reason == FAULTS
    assert reasons(functions.apply(ROWS)) == {"bad": {BREAKER_OPEN: 4}}
    assert calls == [0, 1, 2, 3]


def test_abstaining_opens_no_breaker(clock: Any) -> None:
    """To abstain is an answer, though the membership is unknown."""
    functions = live(patient("shy", lambda x: -1), clock=clock)
    for _ in range(3):
        assert reasons(functions.apply(ROWS)) == {"shy": {"abstained": 4}}
    assert not functions.breakers["shy"].is_open


def test_a_function_that_hangs_holds_a_request_once_and_no_longer_than_its_budget(
    clock: Any, let_go: Event
) -> None:
    """The first batch waits for its time of a batch, the next ones not at all; the others answer throughout."""
    functions = live(SlicingFunction("hangs", lambda x: let_go.wait(60)), FREE, ODD, clock=clock)
    began = monotonic()
    first, second = functions.apply(ROWS), functions.apply(ROWS)
    assert monotonic() - began < 20
    assert reasons(first) == {"hangs": {SLOW: 4}, "odd": {OUT_OF_TIME: 4}}
    assert reasons(second) == {"hangs": {BREAKER_OPEN: 4}}
    assert members(first, "free") == members(second, "free") == [False, False, True, False]
    assert members(second, "odd") == [False, True, False, True]


def test_an_endless_loop_ends_with_its_breaker(clock: Any, eventually: Eventually) -> None:
    """Its thread does not go on taking the processor's time."""

    def endless(x: Record) -> bool:
        while True:
            pass

    before = set(threading.enumerate())
    functions = live(SlicingFunction("endless", endless), clock=clock)
    functions.apply(ROWS)
    assert functions.breakers["endless"].reason == SLOW
    eventually(lambda: set(threading.enumerate()) <= before)


def test_a_function_slow_on_every_row_is_opened_after_some_batches(clock: Any) -> None:
    """Also when it never takes so long that a batch is held up."""
    pause = Event()
    limits = Limits(budget_ms=0.1, least_ms=20_000, hold_ms=20_000, slow_batches=3)
    slow = SlicingFunction("slow", lambda x: pause.wait(0.001))
    patient = SlicingFunction("patient", lambda x: pause.wait(0.001), budget_ms=10_000)
    functions = live(slow, patient, clock=clock, limits=limits)
    states = []
    for _ in range(3):
        functions.apply(ROWS)
        states.append(functions.breakers["slow"].is_open)
    assert states == [False, False, True]
    assert not functions.breakers["patient"].is_open


def test_of_functions_that_together_take_too_long_the_heaviest_is_opened(clock: Any, let_go: Event) -> None:
    """Who is interrupted only because another took the time is not called while its thread still runs."""
    pause = Event()
    limits = Limits(budget_ms=60_000, hold_ms=1500, slow_batches=1000)
    heavy = SlicingFunction("heavy", lambda x: pause.wait(0.25))
    light = Moody(lambda x: let_go.wait(60))
    functions = live(heavy, SlicingFunction("light", light), clock=clock, limits=limits)
    first, second = functions.apply(ROWS), functions.apply(ROWS)
    assert functions.breakers["heavy"].is_open
    assert not functions.breakers["light"].is_open
    assert reasons(first) == {"light": {SLOW: 4}}
    assert reasons(second) == {"heavy": {BREAKER_OPEN: 4}, "light": {STILL_RUNNING: 4}}


def test_a_function_that_recovered_comes_back_by_a_probe(clock: Any, eventually: Eventually) -> None:
    """Not before its back-off is over, and not on the request that set the probe off."""
    moody = Moody(fails)
    functions = live(patient("moody", moody), clock=clock)
    functions.apply(ROWS)
    moody.mood = lambda x: True
    assert reasons(functions.apply(ROWS)) == {"moody": {BREAKER_OPEN: 4}}
    clock.seconds += LIMITS.back_off_seconds
    assert reasons(functions.apply(ROWS)) == {"moody": {BREAKER_OPEN: 4}}
    eventually(lambda: not reasons(functions.apply(ROWS)))
    assert not functions.breakers["moody"].is_open


def test_a_probe_that_fails_keeps_the_breaker_open_for_longer(clock: Any, eventually: Eventually) -> None:
    """No row of the request waits for it."""
    moody = Moody(fails)
    functions = live(patient("moody", moody), clock=clock)
    functions.apply(ROWS)
    clock.seconds += LIMITS.back_off_seconds

    def backed_off() -> bool:
        functions.apply(ROWS)
        return functions.breakers["moody"].back_off_seconds == 2 * LIMITS.back_off_seconds

    eventually(backed_off)
    assert functions.breakers["moody"].reason == FAULTS


def test_a_probe_that_hangs_holds_nothing_up(clock: Any, let_go: Event, eventually: Eventually) -> None:
    """It is told to stop; when it has, the breaker stays open and backs off."""
    moody = Moody(fails)
    functions = live(SlicingFunction("moody", moody), ODD, clock=clock)
    functions.apply(ROWS)
    moody.mood = lambda x: let_go.wait(60)
    clock.seconds += LIMITS.back_off_seconds
    began = monotonic()
    for _ in range(20):
        assert reasons(functions.apply(ROWS)) == {"moody": {BREAKER_OPEN: 4}}
    assert monotonic() - began < 20
    let_go.set()

    def stopped() -> bool:
        functions.apply(ROWS)
        breaker = functions.breakers["moody"]
        return not breaker.is_open or breaker.since == clock.seconds

    eventually(stopped)


def test_another_set_keeps_what_is_known_of_the_same_function(clock: Any) -> None:
    """A breaker goes with the fingerprint; a function that was changed begins closed."""
    functions = live(patient("bad", fails), ODD, clock=clock)
    functions.apply(ROWS)
    same = functions.with_functions(FunctionSet([FREE, patient("bad", fails)]))
    changed = functions.with_functions(FunctionSet([patient("bad", lambda x: x.n > 0)]))
    assert same.breakers["bad"].is_open
    assert not changed.breakers["bad"].is_open


@pytest.mark.parametrize("ended", ["closed", "forgotten"])
def test_threads_end_with_the_functions(ended: str, eventually: Eventually) -> None:
    """Whether a set is closed, or nothing refers to it any more."""
    before = set(threading.enumerate())
    functions = live(ODD)
    functions.apply(ROWS)
    if ended == "closed":
        functions.close()
    else:
        del functions
        gc.collect()
    eventually(lambda: set(threading.enumerate()) <= before)


def test_threads_that_apply_at_once_get_their_own_answers() -> None:
    """Rows of one batch are never answered with those of another."""
    functions = live(ODD, FREE, limits=Limits(least_ms=20_000, hold_ms=20_000))
    found: list[SliceMatrix] = []
    batches = [ROWS[:k] for k in (1, 2, 3, 4)] * 5
    threads = [threading.Thread(target=lambda b=b: found.append(functions.apply(b).matrix)) for b in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {len(batch): apply([ODD, FREE], batch) for batch in batches}
    assert len(found) == 20
    assert all(matrix == expected[len(matrix)] for matrix in found)
