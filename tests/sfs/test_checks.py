"""Contract checks: every violation is detected, and valid functions pass."""

import itertools
from time import perf_counter
from types import SimpleNamespace

import pytest

from sfs.checks import check_function
from sfs.function import SlicingFunction, slicing_function
from sfs.library import spam, table, text
from sfs.preprocess import preprocessor
from sfs.template import template

RECORDS = [{"text": "Check it out please", "likes": 3}, {"text": "", "likes": None}]
SHIPPED = [
    *spam.SLICES,
    *spam.TEMPLATES,
    *text.SLICES,
    table.missing_any("likes"),
    table.at_least("likes", 3),
]


@slicing_function()
def shout(x):
    return x.text is not None and x.text.isupper()


def outcome(function, records=RECORDS):
    return {check.name: check for check in check_function(function, records)}


def failed(function, records=RECORDS):
    return [check.name for check in check_function(function, records) if not check.passed]


@pytest.mark.parametrize("function", SHIPPED, ids=lambda each: f"{type(each).__name__}-{each.name}")
def test_every_function_that_we_ship_keeps_the_contract(function):
    """The library passes every check."""
    assert [check for check in check_function(function, RECORDS) if not check.passed] == []


def test_all_five_checks_are_reported():
    """Passed checks are reported too, with detail."""
    checks = outcome(shout)

    assert list(checks) == ["deterministic", "total", "does not mutate", "picklable", "within budget"]
    assert all(check.detail for check in checks.values())


def test_a_function_with_a_memory_is_not_deterministic():
    """A function that gives a row different results fails the check."""
    count = itertools.count()

    assert failed(SlicingFunction("odd", lambda x: next(count) % 2 == 0), [{"text": "a"}])[0] == "deterministic"


def test_a_function_that_raises_on_a_missing_value_is_not_total():
    """The detail names the value, the field and the error."""
    check = outcome(SlicingFunction("long", lambda x: len(x.text) > 3))["total"]

    assert not check.passed
    assert check.detail.startswith("no value in 'text': TypeError: ")


def test_a_fault_at_a_missing_value_that_never_occurs_is_a_warning():
    """The check passes with a warning if every row has a value there, and fails if one lacks it."""
    long = SlicingFunction("long", lambda x: len(x.text) > 3)
    (warned,) = [check for check in check_function(long, RECORDS, {"text"}) if check.name == "total"]

    assert (warned.passed, warned.is_warning) == (True, True)
    assert warned.detail.startswith("no value in 'text': TypeError: ")
    assert not outcome(long)["total"].passed


def test_a_fault_at_unusual_text_is_no_warning():
    """A column without missing values may still hold any text."""
    first = SlicingFunction("first", lambda x: x.text[0] == "C")

    assert "total" in [c.name for c in check_function(first, RECORDS[:1], {"text", "likes"}) if not c.passed]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.f7 > 3,
        lambda x: x["f7"] > 3,
        lambda x: x.get("f7") > 3,
        lambda x: "f7" in x and x.f7 > 3,
        lambda x: vars(x)["f7"] > 3,
        lambda x: max(x[name] for name in x) > 3,
    ],
)
def test_every_way_to_read_a_field_is_probed(read):
    """The field that a function reads is found among many, however it is read."""
    row = {f"f{k}": k for k in range(50)}

    assert "total" in failed(SlicingFunction("read", read), [row])


def test_a_slow_function_is_checked_on_few_rows():
    """The number of calls does not grow with the rows."""
    calls = []

    def slow(x):
        calls.append(x)
        end = perf_counter() + 0.06
        while perf_counter() < end:
            pass
        return False

    assert failed(SlicingFunction("slow", slow), [{"n": k} for k in range(50)])[-1] == "within budget"
    assert len(calls) < 50


def test_a_preprocessed_function_is_probed():
    """Fields that a preprocessor reads are probed too."""

    @preprocessor()
    def lower(x):
        x.lowered = x.text.lower()
        return x

    function = SlicingFunction("lowered", lambda x: "a" in x.lowered, pre=[lower])

    assert outcome(function)["total"].detail.startswith("no value in 'text'")


@pytest.mark.parametrize("kind", ["python", "template"])
def test_the_number_of_calls_does_not_grow_with_the_columns(kind):
    """A function of one field is called as often on rows of 1,000 fields as on rows of two."""
    calls = []

    def one(x):
        calls.append(1)
        return x.f0 is None

    counts = []
    for width in (2, 1000):
        calls.clear()
        rows = [{f"f{k}": "word" for k in range(width)}] * 3
        function = SlicingFunction("one", one) if kind == "python" else template("one", missing={"field": "f0"})
        counts.append((outcome(function, rows)["total"].detail, len(calls)))
    assert counts[0] == counts[1]


def test_a_record_that_is_changed_through_its_dictionary_fails():
    """A function that writes into a field's list changes its row; one that adds a field is refused."""

    def append(x):
        x.tags.append(1)
        return True

    def add(x):
        vars(x)["new"] = 1
        return True

    for function, check in ((append, "does not mutate"), (add, "total")):
        assert check in failed(SlicingFunction("changing", function), [{"tags": [1]}])


def test_a_function_that_returns_an_invalid_value_is_not_total():
    """The detail has the advice to return True or False."""
    check = outcome(SlicingFunction("found", lambda x: None if x.text else False))["total"]

    assert not check.passed
    assert "return True or False" in check.detail


def test_a_function_that_changes_its_row_fails():
    """The detail names the modified row."""

    def pop(x):
        x.tags.pop()
        return True

    check = outcome(SlicingFunction("pop", pop), [SimpleNamespace(tags=[1, 2, 3, 4, 5, 6])])["does not mutate"]

    assert (check.passed, check.detail[:28]) == (False, "the function modified row 0:")


def test_a_local_function_is_not_picklable():
    """The advice is to define it at the top level of a file."""
    check = outcome(SlicingFunction("local", lambda x: True))["picklable"]

    assert not check.passed
    assert "define it at the top level" in check.detail


def test_a_slow_function_is_over_its_budget():
    """The budget is the function's own, in milliseconds per row."""
    slow = SlicingFunction("slow", lambda x: sum(range(20_000)) > 0, budget_ms=0.001)

    assert "within budget" in failed(slow)
    assert "the budget is 0.001 ms" in outcome(slow)["within budget"].detail


def test_no_rows_pass_every_check():
    """The budget check reports that there are no rows."""
    assert failed(shout, []) == []
    assert outcome(shout, [])["within budget"].detail == "no rows to time"


def test_time_is_that_of_rows_that_are_not_memoized():
    """Traffic has new rows, so a memoized result is no measure of the time of a function, also of a nested one."""
    times = []

    @preprocessor(memoize=True)
    def slow(x):
        times.append(perf_counter())
        while perf_counter() < times[-1] + 0.01:
            pass
        return x

    nested = preprocessor(pre=[slow], memoize=True)(lambda x: x)
    for pre in ([slow], [nested]):
        function = SlicingFunction("f", lambda x: True, pre=pre, budget_ms=5)
        assert not outcome(function)["within budget"].passed
