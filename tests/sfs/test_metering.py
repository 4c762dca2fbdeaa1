"""Bounded CPU time of template patterns."""

import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfs.errors import InvalidFunction
from sfs.metering import OUT_OF_TIME, OVER_BUDGET, BoundedCaller, Meter, OutOfTime
from sfs.record import Columns
from sfs.template import template
from sfs.template_plan import TemplateLimits, TemplatePlan

HOUR = 3600.0
SLOW_TEXT = "".join(random.Random(0).choices("ab", k=30_000))
SLOW = template("slow", any=[{"regex": {"field": "t", "pattern": f"(?:a|b)*a(?:[ab]){{{n}}}c"}} for n in (700, 701)])
QUICK = template("quick", regex={"field": "t", "pattern": "b"})
NUMBER = template("number", any=[{"compare": {"field": "n", "above": 3}}, {"regex": {"field": "t", "pattern": "x"}}])
WORDS = [
    template("plain", keyword={"field": "t", "words": ["ab", "c"]}),
    template("whole", keyword={"field": "t", "words": ["ab"], "whole_word": True}),
    template("not", not_={"regex": {"field": "u", "pattern": "^a|b$", "ignore_case": True}}),
    NUMBER,
]
ROWS = st.fixed_dictionaries(
    {"t": st.text("abcx ", max_size=6) | st.none() | st.integers(), "u": st.text("aAbB", max_size=3)},
    optional={"n": st.integers(0, 5)},
)


def plan_of(*templates):
    return TemplatePlan(each.spec for each in templates)


@settings(max_examples=40)
@given(st.lists(ROWS, min_size=1, max_size=5), st.booleans(), st.sampled_from([1, 60]))
def test_a_meter_with_time_changes_no_result(rows, detailed, repeats):
    """Results are the same without a meter, measured as a whole, and measured in detail."""
    plan, rows = plan_of(*WORDS), rows * repeats
    metered = plan.evaluate(Columns(rows), Meter(HOUR, HOUR, BoundedCaller(), detailed=detailed))
    plain = plan.evaluate(Columns(rows))
    assert (metered.member == plain.member).all()
    assert (metered.unknown == plain.unknown).all()
    assert (metered.faults, metered.first_faults) == (plain.faults, plain.first_faults)


def test_a_slow_template_is_stopped_and_costs_no_other_its_result():
    """Its long text is unknown; short texts and other templates have their results."""
    meter = Meter(0.02, 10.0, BoundedCaller())
    results = plan_of(SLOW, QUICK).evaluate(Columns([{"t": SLOW_TEXT}, {"t": "ab"}]), meter)
    assert results.unknown.tolist() == [[True, False], [False, False]]
    assert results.member.tolist() == [[False, True], [False, True]]
    assert results.faults == ({OVER_BUDGET: 1}, {})
    assert results.first_faults[0] == f"row 0: {OVER_BUDGET}"
    assert (meter.stopped, meter.exhausted) == ({0}, False)
    assert meter.seconds[0] > meter.seconds[1]


def test_a_stopped_part_does_not_hide_what_the_other_parts_say():
    """A row is known if the parts that were evaluated determine it."""
    meter = Meter(1e-9, HOUR, BoundedCaller(), detailed=True)
    results = plan_of(NUMBER).evaluate(Columns([{"t": "x", "n": 9}, {"t": "x", "n": 1}, {"t": "x", "n": 1}]), meter)
    assert results.member[0, 0]
    assert results.unknown[:, 0].tolist()[2] is True


def test_without_time_for_all_of_them_no_template_is_blamed():
    """Rows that were not reached are out of time."""
    meter = Meter(HOUR, 1e-9, BoundedCaller(), detailed=True)
    results = plan_of(QUICK).evaluate(Columns([{"t": "b"}] * 2), meter)
    assert results.faults[0] == {OUT_OF_TIME: 2}
    assert (meter.stopped, meter.exhausted) == (set(), True)


def test_a_disabled_template_is_not_evaluated():
    """Its patterns take no time; a pattern that it shares is evaluated for the other template."""
    shared = template("shared", regex={"field": "t", "pattern": "b"})
    meter = Meter(HOUR, HOUR, BoundedCaller(), disabled=[0, 1])
    results = plan_of(SLOW, QUICK, shared).evaluate(Columns([{"t": SLOW_TEXT}]), meter)
    assert results.unknown.tolist() == [[True, False, False]]
    assert meter.seconds[0] == 0


def test_a_call_that_goes_on_is_left_behind_and_not_made_again():
    """Its key is refused until it ends; other calls are made."""
    caller, release = BoundedCaller(), threading.Event()
    later = HOUR * 1e6
    with pytest.raises(OutOfTime):
        caller.call("long", release.wait, HOUR, 0.0)
    with pytest.raises(OutOfTime):
        caller.call("long", lambda: 1, HOUR, later)
    assert caller.call("short", lambda: 7, HOUR, later)[0] == 7
    release.set()


def test_the_calls_that_are_left_behind_are_limited():
    """Beyond four of them none is made, and none costs its caller time."""
    caller, release = BoundedCaller(), threading.Event()
    for key in range(4):
        with pytest.raises(OutOfTime):
            caller.call(key, release.wait, HOUR, 0.0)
    with pytest.raises(OutOfTime) as refused:
        caller.call("fifth", lambda: 1, HOUR, HOUR * 1e6)
    assert refused.value.seconds == 0
    release.set()


def test_many_patterns_match_as_few_do():
    """Patterns in several compiled parts keep their positions, also after one was added or removed."""
    words = [f"w{n:03d}x" for n in range(150)]
    for chosen in (words, words[:70] + words[71:], ["new", *words]):
        member = plan_of(*(template(word, regex={"field": "t", "pattern": word}) for word in chosen)).evaluate(
            Columns([{"t": " ".join(chosen[::7])}])
        )
        assert np.flatnonzero(member.member[0]).tolist() == list(range(0, len(chosen), 7))


def test_the_templates_have_limits_in_sum():
    """Terms count once; the error names number, limit and setting."""
    regexes = [{"regex": {"field": "t", "pattern": f"a{n}"}} for n in range(5)]
    specs = [template(f"f{n}", any=regexes).spec for n in range(3)]
    TemplateLimits(terms=5, pattern_mb=3).require(specs)
    with pytest.raises(InvalidFunction, match=r"5 different terms, more than the limit of 4.*template_limits\.terms"):
        TemplateLimits(terms=4).require(specs)
    with pytest.raises(InvalidFunction, match=r"MiB, more than the limit of 2 MiB.*template_limits\.pattern_mb"):
        TemplateLimits(pattern_mb=2).require(specs)
