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
from sfs.template_limits import TemplateLimits
from sfs.template_plan import TemplatePlan

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
    either = template("either", any=[{"compare": {"field": "n", "above": 3}}, *SLOW.spec["any"]])
    rows = [{"t": "ab", "n": 1}, {"t": SLOW_TEXT, "n": 9}, {"t": SLOW_TEXT, "n": 1}]
    results = plan_of(either).evaluate(Columns(rows), Meter(1e-9, HOUR, BoundedCaller()))
    assert results.member[:, 0].tolist() == [False, True, False]
    assert results.unknown[:, 0].tolist() == [False, False, True]


def test_without_time_for_all_of_them_no_template_is_blamed():
    """Rows that were not reached are out of time."""
    meter = Meter(HOUR, 1e-9, BoundedCaller())
    results = plan_of(SLOW).evaluate(Columns([{"t": SLOW_TEXT[:10_000]}] * 2), meter)
    assert results.faults[0] == {OUT_OF_TIME: 2}
    assert (meter.stopped, meter.exhausted) == (set(), True)


def test_many_rows_of_many_cheap_templates_are_known_within_any_limit():
    """Time in proportion to the bytes and patterns counts for no limit: less is allowed here than the whole takes."""
    words = random.Random(1).choices([f"w{n}" for n in range(400)], k=20_000)
    rows = [{"t": " ".join(words[start : start + 100])} for start in range(0, 20_000, 100)]
    specs = [
        template(f"k{n}", keyword={"field": "t", "words": [f"w{n}1", f"w{n}2", "w7"], "whole_word": n % 2 == 0})
        for n in range(80)
    ]
    meter = Meter(0.005, 0.005, BoundedCaller())
    plan = plan_of(*specs)
    plain, metered = plan.evaluate(Columns(rows)), plan.evaluate(Columns(rows), meter)
    assert not metered.unknown.any()
    assert (metered.member == plain.member).all()
    assert (meter.stopped, meter.exhausted) == (set(), False)


def test_one_slow_pattern_among_many_is_found_in_one_evaluation():
    """Patterns that are matched together are matched one by one when they are slow together."""
    hidden = template("hidden", regex={"field": "t", "pattern": "(?:a|b)*a(?:[ab]){700}c"})
    others = [template(f"q{n}", regex={"field": "t", "pattern": f"(?:b|{n})"}) for n in range(40)]
    meter = Meter(0.01, HOUR, BoundedCaller())
    rows = [{"t": SLOW_TEXT[start : start + 2_000]} for start in range(0, 30_000, 500)]
    results = plan_of(*others[:20], hidden, *others[20:]).evaluate(Columns(rows), meter)
    assert meter.stopped == {20}
    assert np.flatnonzero(results.unknown.any(axis=0)).tolist() == [20]
    assert results.member[:, 0].all()


def test_a_long_text_in_a_large_batch_costs_the_others_nothing():
    """The short texts of a batch that is matched by columns are known."""
    slow = template("slow", regex={"field": "t", "pattern": "(?:a|b)*a(?:[ab]){700}c"})
    rows = [{"t": SLOW_TEXT}, *({"t": "ab" * (n % 9)} for n in range(400))]
    results = plan_of(slow).evaluate(Columns(rows), Meter(0.02, HOUR, BoundedCaller()))
    assert np.flatnonzero(results.unknown[:, 0]).tolist() == [0]


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


def test_a_call_is_waited_for_once_more_after_a_stall(monkeypatch):
    """A clock that went on without the process costs no result."""
    release, times = threading.Event(), iter([0.0, HOUR, HOUR])

    def clock():
        now = next(times, 2 * HOUR)
        if now == 2 * HOUR:
            release.set()
        return now

    monkeypatch.setattr("sfs.metering.monotonic", clock)
    assert BoundedCaller().call("stalled", lambda: release.wait(60), HOUR, 60.0)[0] is True


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
    TemplateLimits(terms=5, pattern_mb=1).require(specs)
    with pytest.raises(InvalidFunction, match=r"5 different terms, more than the limit of 4.*template_limits\.terms"):
        TemplateLimits(terms=4).require(specs)
    with pytest.raises(InvalidFunction, match=r"MiB, more than the limit of 0 MiB.*template_limits\.pattern_mb"):
        TemplateLimits(pattern_mb=0.5).require(specs)


@pytest.mark.parametrize("count", [3, 40])
def test_a_thousand_word_lists_fit_the_limits(count):
    """A twentieth of the memory holds fifty lists of whole words."""
    limits = TemplateLimits()
    words = [[f"word{n}x{k}" for k in range(count)] for n in range(50)]
    lists = [template(f"k{n}", keyword={"field": "t", "words": words[n], "whole_word": True}) for n in range(50)]
    TemplateLimits(pattern_mb=limits.pattern_mb / 20).require([each.spec for each in lists])


def test_templates_are_accepted_in_their_order():
    """One that exceeds a limit with those before it is refused; a later one that fits is accepted."""
    two, one = ({"any": [{"missing": {"field": f}} for f in fields]} for fields in ("bc", "ac"))
    reasons = TemplateLimits(terms=2).refusals([two, one, {"missing": {"field": "a"}}], [{"missing": {"field": "a"}}])
    assert [reason is None for reason in reasons] == [False, True, True]
    assert "3 different terms" in reasons[0]
