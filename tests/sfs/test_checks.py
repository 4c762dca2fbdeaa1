"""Contract checks: every violation is detected, and valid functions pass."""

import itertools
from types import SimpleNamespace

import pytest

from sfs.checks import check_function
from sfs.function import SlicingFunction, slicing_function
from sfs.library import spam, table, text

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

    assert (
        failed(SlicingFunction("odd", lambda x: next(count) % 2 == 0), [{"text": "a"}])[0] == "deterministic"
    )


def test_a_function_that_raises_on_a_missing_value_is_not_total():
    """The detail names the value, the field and the error."""
    check = outcome(SlicingFunction("long", lambda x: len(x.text) > 3))["total"]

    assert not check.passed
    assert check.detail.startswith("no value in 'text': TypeError: ")


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

    check = outcome(SlicingFunction("pop", pop), [SimpleNamespace(tags=[1, 2, 3, 4, 5, 6])])[
        "does not mutate"
    ]

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
