"""Functions with every kind of fault, next to correct functions and under traffic."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfs.apply import apply
from sfs.registry import FunctionSet

HOLD_SECONDS = 5.0
LIMITS = {"SLICEWATCH_FUNCTION_LIMITS_LEAST_MS": 300, "SLICEWATCH_FUNCTION_LIMITS_HOLD_MS": 1000 * HOLD_SECONDS}
"""The faulty functions have 300 ms, and 5 s in a first call; correct ones have 5 s."""
SLACK_SECONDS = 60.0
FAULTY = ("raises", "answers_junk", "sleeps", "loops", "backtracks")
CODE = """
import re
import time

from sfs import slicing_function


def is_live(x):
    # before there is traffic, they behave
    return x["text"].startswith("live: ")


@slicing_function()
def raises(x):
    return is_live(x) and 1 / 0


@slicing_function()
def answers_junk(x):
    return is_live(x) and "perhaps"


@slicing_function(budget_ms=300)
def sleeps(x):
    if is_live(x):
        time.sleep(3600)
    return False


@slicing_function(budget_ms=300)
def loops(x):
    while is_live(x):
        pass
    return False


@slicing_function(budget_ms=300)
def backtracks(x):
    return is_live(x) and re.fullmatch("(a+)+", 64 * "a" + "!") is not None


SLICES = (raises, answers_junk, sleeps, loops, backtracks)
"""

Record = dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """Results of the traffic: service, statuses, responses with records, and latencies before and after."""

    running: Any
    statuses: set[int]
    answers: list[tuple[Record, Record]]
    seconds_before: list[float]
    seconds_after: list[float]


def timed(call: Any, record: Record) -> tuple[Any, float]:
    """Return the response to one record, and its latency in seconds."""
    began = time.perf_counter()
    reply = call("POST", "/v1/predict", {"instances": [record]})
    return reply, time.perf_counter() - began


@pytest.fixture(scope="module")
def tried(
    trained: Path,
    start_shared: Callable[..., Any],
    caller: Callable[[int], Any],
    until: Callable[..., Any],
    records: list[Record],
) -> Tried:
    """Service with the faulty functions first, after traffic that opens all breakers, and more traffic."""
    running = start_shared(trained, prepare, **LIMITS)
    call = caller(running.port)
    tried = Tried(running, set(), [], [], [])
    turn = ({**each, "text": f"live: {each['text']}"} for each in cycle(records))

    def asked(seconds: list[float]) -> None:
        record = next(turn)
        reply, took = timed(call, record)
        tried.statuses.add(reply.status)
        tried.answers.append((record, reply.json["predictions"][0]))
        seconds.append(took)

    def asked_until_kept_out() -> bool:
        asked(tried.seconds_before)
        return kept_out(running) >= set(FAULTY)

    until(asked_until_kept_out)
    for _ in range(150):
        asked(tried.seconds_after)
    call.close()
    return tried


def prepare(folder: Path) -> None:
    """Insert the faulty functions before those of the project."""
    (folder / "faulty.py").write_text(CODE)
    settings = folder / "slicewatch.yaml"
    settings.write_text(settings.read_text().replace("functions: [", "functions: [faulty.py, "))


def kept_out(running: Any) -> set[str]:
    """Return the functions with an open breaker."""
    functions = running.ask("GET", "/v1/functions").json["functions"]
    return {each["name"] for each in functions if (each["health"] or {}).get("state") == "open"}


def test_every_prediction_is_answered(tried: Tried) -> None:
    """Every request gets status 200, whatever the functions do."""
    assert tried.statuses == {200}


def test_good_functions_are_right_and_faulty_ones_unknown(tried: Tried, trained: Path) -> None:
    """Every response has the slices of the correct functions, and lists the unknown slices."""
    rows = [record for record, _ in tried.answers]
    S = apply(FunctionSet.from_files([str(trained / "slices.py"), str(trained / "slices.yaml")]), rows)
    right = [[name for name, is_in in zip(S.names, row, strict=True) if is_in] for row in S.member]
    assert not S.unknown.any()
    assert [answer["slices"] for _, answer in tried.answers] == right
    assert {tuple(answer["unknown_slices"]) for _, answer in tried.answers} == {FAULTY}


def test_reasons_are_counted(tried: Tried) -> None:
    """Unknown rows of a faulty function are counted by reason."""
    counted: dict[str, dict[str, float]] = {}
    for name, value in tried.running.metrics().items():
        if name.startswith("slicewatch_slice_unknown_total"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            if value:
                counted.setdefault(labels["slice"], {})[labels["reason"]] = value
    assert counted.keys() == set(FAULTY)
    assert {name: sum(each.values()) for name, each in counted.items()} == dict.fromkeys(FAULTY, len(tried.answers))
    assert "ZeroDivisionError" in " ".join(counted["raises"])
    for name in ("sleeps", "loops", "backtracks"):
        assert counted[name]["over budget"] >= 1
        assert counted[name]["breaker open"] >= 100


def test_health_is_shown(tried: Tried, until: Callable[..., Any]) -> None:
    """The slices show the functions with an open breaker, and the reason."""
    shown = until(tried.running.slices)
    states = {name: each["health"]["state"] for name, each in shown.items() if each["health"]}
    reasons = {name: shown[name]["health"]["reason"] for name in FAULTY}
    assert {name for name, state in states.items() if state == "open"} == set(FAULTY)
    assert reasons == {
        "raises": "faults",
        "answers_junk": "faults",
        "sleeps": "over budget",
        "loops": "over budget",
        "backtracks": "over budget",
    }


def test_no_request_waits_longer_than_functions_may_hold_it(tried: Tried) -> None:
    """Before their breakers open, faulty functions delay a request by at most twice the configured time."""
    assert max(tried.seconds_before) < 2 * HOLD_SECONDS + SLACK_SECONDS


def test_kept_out_functions_cost_no_time(
    tried: Tried, running: Any, caller: Callable[[int], Any], records: list[Record]
) -> None:
    """After their breakers open, the median latency is about the same as without faulty functions."""
    call = caller(running.port)
    without = [timed(call, record)[1] for record in islice(records, 150)]
    call.close()
    kept, plain = (float(np.median(each)) for each in (tried.seconds_after, without))
    print(
        f"median {1000 * kept:.1f} ms, without faulty functions {1000 * plain:.1f} ms; "
        f"slowest before {1000 * max(tried.seconds_before):.0f} ms of {len(tried.seconds_before)}"
    )
    assert kept < 5 * plain + 0.1
