"""Plain functions behind breakers: whatever one does, the others answer, and the request goes on."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from service.serving.breaker import FAULTS, SLOW, BreakerLimits
from service.serving.function_call import DIED, NOT_JSON, OUT_OF_TIME
from service.serving.isolation import Isolation
from service.serving.python_functions import BREAKER_OPEN, CHANGED, FunctionColumn, PythonFunctions
from sfs.function import SlicingFunction
from sfs.registry import FunctionSet

ROWS = [{"n": n} for n in range(4)]
LIMITS = BreakerLimits(least_ms=30, hold_ms=20_000, faults=3, back_off_seconds=10)
Eventually = Callable[[Callable[[], bool]], None]


class Asker:
    """Functions of the file, asked by their names."""

    def __init__(self, isolation: Isolation, mixed: FunctionSet, clock: Any) -> None:
        self.isolation, self.mixed, self.clock = isolation, mixed, clock
        self.with_limits(LIMITS)

    def with_limits(self, limits: BreakerLimits) -> None:
        """Forget everything, and go on under other limits."""
        self.plain = PythonFunctions(self.isolation, limits, self.clock)

    def columns(self, *names: str, rows: Any = ROWS) -> dict[str, FunctionColumn]:
        return self.plain.columns([self.mixed[name] for name in names], rows)

    def breaker(self, name: str) -> Any:
        return self.plain.breaker(self.mixed[name])


@pytest.fixture
def ask(isolation: Isolation, mixed: FunctionSet, clock: Any) -> Asker:
    """They know of nothing yet."""
    return Asker(isolation, mixed, clock)


@pytest.fixture
def mood(tmp_path: Path) -> Path:
    """What the moody functions read; at first they fail."""
    path = tmp_path / "mood"
    path.write_text("fails")
    return path


def moody_rows(mood: Path) -> list[dict[str, Any]]:
    return [{"n": n, "mood": str(mood)} for n in range(4)]


def reasons(columns: dict[str, FunctionColumn]) -> dict[str, dict[str, int]]:
    """Return what is unknown and why, by function."""
    return {name: dict(column.run.unknown) for name, column in columns.items() if column.run.unknown}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [("raises", "ValueError"), ("junk", "junk answer"), ("exits", "SystemExit"), ("dies", DIED)],
)
def test_a_fault_makes_its_own_memberships_unknown(bad: str, reason: str, ask: Asker) -> None:
    """Raising, answering junk and ending the process are faults, and the other functions do not notice."""
    columns = ask.columns(bad, "odd")
    assert reasons(columns) == {bad: {reason: 4}}
    assert columns[bad].unknown.tolist() == [True] * 4
    assert columns["odd"].member.tolist() == [False, True, False, True]


def test_the_first_fault_is_told(ask: Asker) -> None:
    """With its row and what was raised."""
    assert ask.columns("raises")["raises"].run.first_fault == "row 0: ValueError: no"


@pytest.mark.parametrize("bad", ["raises", "dies"])
def test_a_function_that_faults_on_and_on_is_not_called_any_more(
    bad: str, ask: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    """After so many faults in a row its breaker is open, which is logged, and rows are unknown for that reason."""
    ask.columns(bad)
    assert ask.breaker(bad).reason == FAULTS
    assert f"function {bad!r} is set aside, faults: " in caplog.text
    assert reasons(ask.columns(bad, "odd")) == {bad: {BREAKER_OPEN: 4}}


def test_faults_are_counted_across_batches(ask: Asker) -> None:
    """One row at a time opens it as well."""
    states = []
    for _ in range(3):
        ask.columns("dies", rows=ROWS[:1])
        states.append(ask.breaker("dies").is_open)
    assert states == [False, False, True]


def test_abstaining_opens_no_breaker(ask: Asker) -> None:
    """To abstain is an answer, though the membership is unknown."""
    for _ in range(3):
        assert reasons(ask.columns("shy")) == {"shy": {"abstained": 4}}
    assert not ask.breaker("shy").is_open


@pytest.mark.parametrize("stuck", ["sleeps", "endless", "backtracks"])
def test_a_function_that_is_stuck_holds_a_request_once(stuck: str, ask: Asker) -> None:
    """For its time of a batch; the next ones do not wait at all, and the others answer throughout."""
    began = monotonic()
    first, second = ask.columns(stuck, "odd"), ask.columns(stuck, "odd")
    assert monotonic() - began < 20
    assert reasons(first) == {stuck: {SLOW: 4}}
    assert reasons(second) == {stuck: {BREAKER_OPEN: 4}}
    assert first["odd"].member.tolist() == second["odd"].member.tolist() == [False, True, False, True]
    assert ask.breaker(stuck).reason == SLOW


def test_several_that_are_stuck_at_once_are_found_in_one_batch(ask: Asker) -> None:
    """As long as there is time for all of them."""
    assert reasons(ask.columns("sleeps", "endless", "odd")) == {"sleeps": {SLOW: 4}, "endless": {SLOW: 4}}


def test_a_function_slow_on_every_row_is_opened_after_some_batches(ask: Asker) -> None:
    """Also when it never takes so long that a batch is held up; not if its own budget allows for it."""
    ask.with_limits(BreakerLimits(budget_ms=0.1, least_ms=20_000, hold_ms=20_000, slow_batches=3))
    states = []
    for _ in range(3):
        assert reasons(ask.columns("dawdles", "may_dawdle")) == {}
        states.append(ask.breaker("dawdles").is_open)
    assert states == [False, False, True]
    assert not ask.breaker("may_dawdle").is_open


def test_of_functions_that_together_take_too_long_the_heaviest_is_opened(ask: Asker) -> None:
    """Who is interrupted only because another took the time gets another chance."""
    ask.with_limits(BreakerLimits(hold_ms=3000, slow_batches=1000))
    first = ask.columns("heavy", "light", rows=ROWS[:1] * 6)
    assert ask.breaker("heavy").is_open
    assert not ask.breaker("light").is_open
    assert reasons(first) == {"light": {OUT_OF_TIME: 6}}


def test_a_function_that_recovered_comes_back_by_a_probe(
    ask: Asker, mood: Path, eventually: Eventually
) -> None:
    """Not before its back-off is over, and not on the request that set the probe off."""
    rows = moody_rows(mood)
    ask.columns("moody", rows=rows)
    mood.write_text("well")
    assert reasons(ask.columns("moody", rows=rows)) == {"moody": {BREAKER_OPEN: 4}}
    ask.clock.seconds += LIMITS.back_off_seconds
    assert reasons(ask.columns("moody", rows=rows)) == {"moody": {BREAKER_OPEN: 4}}
    eventually(lambda: not ask.breaker("moody").is_open)
    assert reasons(ask.columns("moody", rows=rows)) == {}


@pytest.mark.parametrize(
    ("name", "now", "reason"),
    [("moody", "fails", FAULTS), ("moody", "dies", FAULTS), ("rash", "hangs", SLOW)],
)
def test_a_probe_that_fails_keeps_the_breaker_open_for_longer(
    name: str, now: str, reason: str, ask: Asker, mood: Path, eventually: Eventually
) -> None:
    """Requests do not wait for it, whatever it does, and it ends by itself."""
    rows = moody_rows(mood)
    ask.columns(name, rows=rows)
    mood.write_text(now)
    ask.clock.seconds += LIMITS.back_off_seconds
    assert reasons(ask.columns(name, "odd", rows=rows)) == {name: {BREAKER_OPEN: 4}}
    eventually(lambda: ask.breaker(name).back_off_seconds == 2 * LIMITS.back_off_seconds)
    assert ask.breaker(name).reason == reason
    assert reasons(ask.columns(name, "odd", rows=rows)) == {name: {BREAKER_OPEN: 4}}


def test_records_that_are_no_json_are_unknown_and_nobodys_fault(ask: Asker) -> None:
    """The others of their batch are answered, and faults are told by their place in it."""
    ask.with_limits(BreakerLimits(faults=1))
    rows = [{"n": 1}, {"n": {1, 2}}, {"n": 3}]
    odd = ask.columns("odd", rows=rows)["odd"]
    assert odd.member.tolist() == [True, False, True]
    assert odd.unknown.tolist() == [False, True, False]
    assert odd.run.unknown == {NOT_JSON: 1}
    assert not ask.breaker("odd").is_open
    raises = ask.columns("raises", rows=rows[1:])["raises"]
    assert raises.run.first_fault == "row 1: ValueError: no"
    assert raises.run.unknown == {"ValueError": 1, NOT_JSON: 1}


def test_batches_of_nothing_are_no_slow_batches(ask: Asker) -> None:
    """Whether there are no rows, or none that can be asked about."""
    ask.with_limits(BreakerLimits(slow_batches=1))
    assert reasons(ask.columns("odd", rows=[])) == {}
    assert reasons(ask.columns("odd", rows=[{"n": {1}}])) == {"odd": {NOT_JSON: 1}}
    assert not ask.breaker("odd").is_open


def test_a_function_that_is_another_one_in_its_process_is_not_asked(ask: Asker) -> None:
    """Its file was changed between the two loads: no answer is better than another function's."""
    other = SlicingFunction("odd", lambda x: True)
    columns = ask.plain.columns([other, ask.mixed["prints"]], ROWS)
    assert reasons(columns) == {"odd": {CHANGED: 4}}
    assert columns["prints"].member.tolist() == [True] * 4
    assert ask.plain.why_out(other) == CHANGED
