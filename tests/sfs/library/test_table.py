"""Ready-made templates for tables."""

import pytest

from sfs.library import table

CASES = [
    (table.missing_any("a", "b"), [{"a": 1, "b": None}, {}], [{"a": 1, "b": 1}]),
    (table.missing_all("a", "b"), [{}], [{"a": 1, "b": None}]),
    (table.at_least("a", 3), [{"a": 3}], [{"a": 2.9}, {"a": None}]),
    (table.below("a", 3), [{"a": -1}], [{"a": 3}, {"a": None}]),
    (table.outside("a", 0, 1), [{"a": -0.1}, {"a": 2}], [{"a": 0}, {"a": 1}, {"a": None}]),
    (table.zero("a"), [{"a": 0}, {"a": -0.0}], [{"a": 1e-9}, {"a": None}]),
    (table.among("a", ["no", 2, True]), [{"a": "no"}, {"a": 2.0}, {"a": "true"}], [{"a": "No"}, {"a": None}]),
    (table.not_among("a", ["no", 2]), [{"a": "se"}, {"a": 3}], [{"a": "no"}, {"a": 2.0}, {"a": None}]),
]


@pytest.mark.parametrize(("function", "inside", "outside"), CASES, ids=lambda each: getattr(each, "name", ""))
def test_each_template_finds_its_slice(function, inside, outside):
    """Members and non-members follow the description."""
    assert [function(row) for row in inside] == [True] * len(inside)
    assert [function(row) for row in outside] == [False] * len(outside)


def test_names_say_what_is_in_the_slice():
    """A template's name describes its slice."""
    assert [function.name for function, *_ in CASES] == [
        "a_or_b_missing",
        "a_and_b_missing",
        "a_at_least_3",
        "a_below_3",
        "a_outside_0_1",
        "a_zero",
        "a_no_2_True",
        "a_unexpected",
    ]
    assert table.among("a", ["no"], name="nordic").name == "nordic"
