"""Breakers of templates on the request path."""

import random
import threading
import time
from contextlib import ExitStack

import pytest

from service.events import BREAKER_OPEN
from service.serving.breaker import SLOW, BreakerLimits
from service.serving.live_functions import LiveFunctions
from sfs.metering import OVER_BUDGET
from sfs.registry import FunctionSet
from sfs.template import template

TEXT = template("text", regex={"field": "t", "pattern": "a+b"})
NUMBER = template("number", compare={"field": "n", "above": 3})
ROWS = [{"t": "aab", "n": 9}, {"t": "b", "n": 1}]
NO_TEXT = [{"t": None, "n": 9}]
NO_TIME = BreakerLimits(budget_ms=1e-9, least_ms=1e-9, slow_batches=2)
"""Limits that every search of a text exceeds."""
LARGE = BreakerLimits(least_ms=50, hold_ms=200)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def live_of(clock):
    """Make live functions with the clock, closed at the end."""
    with ExitStack() as stack:

        def make(limits, *templates):
            live = LiveFunctions(FunctionSet(templates), limits, clock=clock)
            stack.callback(live.close)
            return live

        yield make


def reasons(applied):
    return {stats.name: dict(stats.unknown) for stats in applied.stats}


def wait_for(condition):
    """Poll, because probes run in threads of their own."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def test_a_template_within_its_budget_stays(clock, live_of):
    """Cheap templates have their results, and nothing is disabled."""
    live = live_of(BreakerLimits(budget_ms=60_000), TEXT, NUMBER)
    for _ in range(3):
        assert live.apply(ROWS).matrix.member.tolist() == [[True, True], [False, False]]
    assert live.disabled_reasons() == {}


def test_a_template_over_its_budget_is_unknown_until_it_is_in_time(clock, live_of):
    """Its breaker opens, is shown, and closes after a probe; other templates keep their results."""
    live = live_of(NO_TIME, TEXT, NUMBER)
    while not live.disabled_reasons():
        live.apply(ROWS)
    assert live.disabled_reasons() == {"text": SLOW}
    applied = live.apply(ROWS)
    assert reasons(applied) == {"text": {BREAKER_OPEN: 2}, "number": {}}
    assert applied.matrix.unknown.tolist() == [[True, False], [True, False]]
    assert applied.matrix.member.tolist() == [[False, True], [False, False]]
    clock.now = NO_TIME.back_off_seconds
    live.apply(NO_TEXT)
    wait_for(lambda: not live.disabled_reasons())
    assert reasons(live.apply(NO_TEXT)) == {"text": {}, "number": {}}


def test_a_failed_probe_extends_the_back_off(clock, live_of):
    """Before twice the back-off has passed there is no other probe."""
    live = live_of(NO_TIME, TEXT)
    while not live.disabled_reasons():
        live.apply(ROWS)
    clock.now = 1.0
    live.apply(ROWS)  # the probe has no time for these texts
    wait_for(lambda: not any(each.name == "slicing-functions" for each in threading.enumerate()))
    clock.now = 2.9
    live.apply(NO_TEXT)
    assert live.disabled_reasons() == {"text": SLOW}
    clock.now = 3.0
    live.apply(NO_TEXT)
    wait_for(lambda: not live.disabled_reasons())


@pytest.mark.parametrize("kind", ["keyword", "whole", "regex"])
def test_a_large_request_of_cheap_templates_is_known(clock, live_of, kind):
    """Batches of 1,000 rows have all their memberships, and no template is measured as slow."""

    def declare(n):
        if kind == "regex":
            return template(f"f{n}", regex={"field": "t", "pattern": rf"{n}\d+ w"})
        words = [f"w{n}{each}" for each in "abcde"]
        return template(f"f{n}", keyword={"field": "t", "words": words, "whole_word": kind == "whole"})

    live = live_of(BreakerLimits(), *map(declare, range(100)))
    words = random.Random(2).choices([f"w{n}{each}" for n in range(120) for each in "abcdefghij1"], k=2_000)
    rows = [{"t": " ".join(words[start : start + 200])} for start in range(1_000)]
    for _ in range(2):
        applied = live.apply(rows)
        assert not applied.matrix.unknown.any()
    assert applied.matrix.member.any()
    assert live.disabled_reasons() == {}


def test_other_sets_share_the_breakers(clock, live_of):
    """A disabled template stays disabled when functions are added or removed."""
    live = live_of(NO_TIME, TEXT)
    while not live.disabled_reasons():
        live.apply(ROWS)
    assert live.with_functions(FunctionSet([NUMBER, TEXT])).disabled_reasons() == {"text": SLOW}
    assert live.with_functions(FunctionSet([NUMBER])).disabled_reasons() == {}


def test_rows_that_are_no_traffic_open_no_breaker(clock, live_of):
    """A template that is too slow for a reference is unknown there."""
    live = live_of(NO_TIME, TEXT)
    for _ in range(5):
        live.apply(ROWS, update_breakers=False)
    assert live.disabled_reasons() == {}


def test_hundreds_of_slow_patterns_hold_a_batch_no_longer_than_one(clock, live_of):
    """One batch pays for the slow template, and the small row beside the large text has all its memberships."""
    regexes = [{"regex": {"field": "t", "pattern": f"(?:a|b)*a(?:[ab]){{{800 - n}}}c"}} for n in range(199)]
    live = live_of(LARGE, NUMBER, template("slow", any=regexes))
    large = {"t": "".join(random.Random(0).choices("ab", k=20_000)), "n": 9}
    first = live.apply([large, {"t": "ab", "n": 9}])
    assert reasons(first) == {"number": {}, "slow": {OVER_BUDGET: 1}}
    assert first.matrix.unknown.tolist() == [[False, True], [False, False]]
    assert live.disabled_reasons() == {"slow": SLOW}
