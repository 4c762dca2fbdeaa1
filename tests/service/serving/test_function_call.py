"""A batch put to plain functions."""

from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import pytest

from service.serving.breaker import SLOW, BreakerLimits
from service.serving.function_call import (
    DIED,
    NOT_JSON,
    OUT_OF_TIME,
    STARTING,
    CallResult,
    FunctionCall,
    NoResult,
    Records,
    records_of,
)  # fmt: skip
from service.serving.isolation import Isolation
from service.serving.processes import FunctionResult
from sfs.record import Record

ROWS = [{"n": n} for n in range(3)]


def put(
    isolation: Isolation, allowances: dict[str, float], seconds: float = 60.0, rows: Any = ROWS
) -> CallResult:
    """Ask functions, each with the time that it may take, in a time for all of them."""
    question = FunctionCall([*allowances], [*allowances.values()], records_of(rows), monotonic() + seconds)
    return question.put(isolation)


def shown(asked: CallResult) -> list[Any]:
    """Return memberships, or why there are none."""
    return [
        each.member.tolist() if isinstance(each, FunctionResult) else each.reason for each in asked.outcomes
    ]


def test_all_functions_answer_in_order(isolation: Isolation) -> None:
    """Every one about every row."""
    assert shown(put(isolation, {"odd": 9, "prints": 9})) == [[False, True, False], [True] * 3]


@pytest.mark.parametrize("stuck", ["sleeps", "endless", "backtracks"])
def test_a_function_that_is_stuck_costs_no_other_its_answer(stuck: str, isolation: Isolation) -> None:
    """Those before it have answered, those after it are asked in another process."""
    asked = put(isolation, {"odd": 9, stuck: 0.02, "prints": 9})
    assert shown(asked) == [[False, True, False], SLOW, [True] * 3]
    assert asked.heaviest is None


def test_a_process_that_dies_costs_no_other_its_answer(isolation: Isolation) -> None:
    """Two of three functions end theirs."""
    assert shown(put(isolation, {"dies": 9, "odd": 9, "dies_of_two": 9})) == [
        DIED,
        [False, True, False],
        DIED,
    ]


def test_each_function_has_its_own_time(isolation: Isolation) -> None:
    """What one function took is not taken from the next."""
    asked = put(isolation, {"heavy": 20, "may_dawdle": 20, "sleeps": 0.3}, rows=[{"n": 1}])
    assert shown(asked) == [[True], [True], SLOW]


def test_when_the_time_of_all_is_up_the_heaviest_is_named(isolation: Isolation) -> None:
    """Those that were interrupted, or not asked, only because of it are out of time."""
    asked = put(isolation, {"heavy": 2, "light": 60, "odd": 60}, seconds=3, rows=[{"n": 1}])
    assert shown(asked) == [[True], OUT_OF_TIME, OUT_OF_TIME]
    assert asked.heaviest == 0
    asked = put(isolation, {"odd": 60, "light": 60}, seconds=1, rows=[{"n": 1}])
    assert shown(asked) == [[True], SLOW]
    assert asked.heaviest == 1


def test_no_time_is_no_answer(isolation: Isolation) -> None:
    """Nobody is blamed."""
    assert put(isolation, {"odd": 9}, seconds=-1) == CallResult((NoResult(OUT_OF_TIME),), None)


def test_without_processes_nothing_is_known(tmp_path: Path) -> None:
    """And nobody waits for them."""
    began = monotonic()
    nothing = Isolation([str(tmp_path / "none.py")], BreakerLimits(), monotonic)
    assert shown(put(nothing, {"odd": 9})) == [STARTING]
    assert monotonic() - began < 30
    nothing.close()


def test_records_that_a_worker_cannot_read_blame_no_function(isolation: Isolation) -> None:
    """It goes on with the next job."""
    question = FunctionCall(["odd", "odd"], [9, 9], Records(b"[{]", None, 1), monotonic() + 60)
    assert question.put(isolation).outcomes == (NoResult(NOT_JSON), NoResult(NOT_JSON))
    assert shown(put(isolation, {"odd": 9})) == [[False, True, False]]


@pytest.mark.parametrize(
    "value", [{1}, object(), 2.0j, b"x", {(1, 2): 3}, 10**5000], ids=lambda value: type(value).__name__
)
def test_what_is_no_json_is_left_out(value: Any) -> None:
    """The other rows are not."""
    found = records_of([{"a": value}, {"a": 1}, {"a": [value]}])
    assert (found.text, found.positions, found.rows, found.readable) == (b'[{"a":1}]', (1,), 3, 1)


def test_what_refers_to_itself_is_left_out() -> None:
    """Or is nested without end."""
    loop: list[Any] = []
    loop.append(loop)
    assert records_of([{"a": loop}]).readable == 0


def test_rows_of_any_kind_are_sent() -> None:
    """Frames, records and mappings that are no dicts."""
    frame = pd.DataFrame({"a": [1.5, None], "b": ["x", "y"]})
    assert records_of(frame).text == b'[{"a":1.5,"b":"x"},{"a":null,"b":"y"}]'
    assert records_of((Record({"a": 1}),)).text == b'[{"a":1}]'
