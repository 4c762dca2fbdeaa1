"""From records to the columns of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from models.features import FeatureKind, FeatureSpec
from service.jobs.column_report.columns import OTHER, Compared, PredictedRow, columns_of

ROWS = 40


def answered(
    values: Sequence[Any], column: str = "x", probabilities: Sequence[float] | None = None
) -> list[PredictedRow]:
    """Return a row per value."""
    return [PredictedRow({column: value}, "no", probabilities) for value in values]


def compared(
    kind: FeatureKind, reference: Sequence[Any], live: Sequence[Any], column: str = "x"
) -> Mapping[str, Compared]:
    """Return the columns that two sides of one feature make, by name."""
    sides = [answered(values, column) for values in (reference, live)]
    return {each.column: each for each in columns_of([FeatureSpec(column, kind)], *sides)}


def test_numbers_and_categories_are_compared_as_they_are() -> None:
    """A number is read as the model reads it, a category as its name."""
    number = compared("number", [1, "2.5"] * 20, [True, 3] * 20)["x"]
    category = compared("category", ["a", 1] * 20, ["a", True] * 20)["x"]
    assert (number.reference[:2], number.live[:2], number.numeric) == ((1.0, 2.5), (1.0, 3.0), True)
    assert (category.reference[:2], category.live[:2], category.numeric) == (("a", "1"), ("a", "true"), False)


def test_a_text_is_compared_by_its_length() -> None:
    """Of a text nothing but the number of its words is left."""
    columns = compared("text", ["one two", ""] * 20, ["one", "a b c"] * 20)
    found = columns["length of x"]
    assert "x" not in columns
    assert (found.kind, found.reference[:2], found.live[:2]) == ("words", (2.0, 0.0), (1.0, 3.0))


@pytest.mark.parametrize("kind", ["number", "category", "text"])
def test_missing_values_are_compared_where_there_are_some(kind: FeatureKind) -> None:
    """A column that lacks values on one side is also compared by whether it has any."""
    values = [f"{i % 3}" for i in range(ROWS)]
    found = compared(kind, values, [None, *values])
    assert found["x is missing"].reference == ("no",) * ROWS
    assert found["x is missing"].live == ("yes", *("no",) * ROWS)
    assert "x is missing" not in compared(kind, values, values)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "much", ["list"]])
def test_what_is_no_number_counts_as_missing(value: Any) -> None:
    """Whatever a number feature cannot use is missing, and stops nothing."""
    found = compared("number", [1, 2] * 20, [1, value] * 20)
    assert found["x"].live[:2] == (1.0, None)
    assert found["x is missing"].live[:2] == ("no", "yes")


def test_rows_that_did_not_keep_a_column_are_not_missing_values() -> None:
    """Rows without features, or without the column, are left out of the column and not of the labels."""
    known = answered(["a", "b"] * 20)
    live = [*known, PredictedRow(None, "no", None), PredictedRow({"y": 1}, "no", None)]
    x, label, _ = columns_of([FeatureSpec("x", "category")], known, live)
    assert (len(x.live), len(label.live)) == (ROWS, ROWS + 2)
    assert columns_of([FeatureSpec("z", "number")], known, live)[0].error == "no row of the reference kept it"


def test_rare_names_are_one() -> None:
    """Of more than ten names, those with less than a hundredth of all rows, or less than five rows, are one."""
    reference = ["a"] * 300 + ["rare"] * 4
    found = compared("category", reference, ["a"] * 100 + ["new"] * 10 + [f"{i}" for i in range(30)])["x"]
    assert set(found.reference) == {"a", OTHER}
    assert set(found.live) == {"a", "new", OTHER}
    assert found.error == ""


def test_few_names_are_all_told_apart() -> None:
    """Up to ten names, none is too rare."""
    reference = [f"{i}" for i in range(9)] * 60
    assert "new" in compared("category", reference, [*reference, "new"])["x"].live


def test_names_that_are_all_rare_are_not_compared() -> None:
    """A column of names such as ids says that none is common enough."""
    found = compared("category", [f"{i}" for i in range(100)], [f"{i}" for i in range(100, 200)])["x"]
    assert found.error == "none of its 200 values is common enough to be compared"


def test_a_long_name_is_cut() -> None:
    """Names are as long as a table can show."""
    found = compared("category", ["n" * 500, "b"] * 20, ["b"] * ROWS)["x"]
    assert {len(str(value)) for value in found.reference} == {60, 1}


@pytest.mark.parametrize(
    ("reference", "live", "error"),
    [
        ([1, 2] * 14, [1, 2] * 20, "28 rows of the reference have a value, and 30 are needed"),
        ([1, 2] * 20, [1, 2], "2 rows of live traffic have a value, and 30 are needed"),
        ([1, 2] * 20, [None] * ROWS, "no row of live traffic has a value"),
        ([None] * ROWS, [1, 2] * 20, "no row of the reference has a value"),
        ([3] * ROWS, [3] * ROWS, "every row of both sides has 3.0"),
        ([1, 2] * 20, [], "no row of live traffic kept it"),
    ],
)
def test_a_column_that_cannot_be_compared_says_why(
    reference: Sequence[Any], live: Sequence[Any], error: str
) -> None:
    """Few rows, no values, or one and the same value are a reason, and no failure."""
    assert compared("number", reference, live)["x"].error == error


def test_a_number_that_never_changed_is_compared_as_a_category() -> None:
    """Where the reference has one number only, the share of rows with another is what can be compared."""
    found = compared("number", [0] * ROWS + [None], [0, 7, None] * 20)["x"]
    assert (found.error, found.numeric, found.kind) == ("", False, "number")
    assert (set(found.reference), found.live[:3]) == ({"0", None}, ("0", OTHER, None))


def test_the_confidence_is_the_greatest_probability() -> None:
    """Rows without probabilities have no confidence; where none has, that is said."""
    sure = answered(["a"] * ROWS, probabilities=(0.2, 0.8)) + answered(["a"], probabilities=(0.7, 0.3))
    unsure = answered(["a"] * ROWS, probabilities=(0.5, 0.5))
    none = answered(["a"] * ROWS)
    found = columns_of([], sure, [*unsure, *none])[-1]
    assert (found.column, found.kind, set(found.reference)) == ("confidence", "confidence", {0.7, 0.8})
    assert (found.live.count(0.5), found.live.count(None)) == (ROWS, ROWS)
    assert columns_of([], sure, none)[-1].error == "no row of live traffic has a value"


def test_no_two_columns_are_called_the_same() -> None:
    """A feature that is called like a prediction's column keeps its name, and the other gets a stroke."""
    found = compared("number", [1, 2] * 20, [1, 2] * 20, column="confidence")
    assert [(name, each.kind) for name, each in found.items()] == [
        ("confidence", "number"),
        ("predicted label", "label"),
        ("confidence'", "confidence"),
    ]
