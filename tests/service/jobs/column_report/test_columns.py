"""Columns of a report, and the distances that chance gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from models.features import FeatureKind, FeatureSpec
from service.jobs.column_report.columns import (
    OTHER,
    PERMUTATIONS,
    QUANTILE,
    ColumnPair,
    PredictedRow,
    build_columns,
    count_names,
    jensenshannon_by_chance,
    scale_small_deviation,
    wasserstein_by_chance,
)

ROWS = 40


def predicted(
    values: Sequence[Any], column: str = "x", probabilities: Sequence[float] | None = None
) -> list[PredictedRow]:
    """Return a row per value, each of another content."""
    rows = enumerate(values)
    return [PredictedRow({column: value, "other": f"row{k}"}, "no", probabilities) for k, value in rows]


def columns(
    kind: FeatureKind, reference: Sequence[Any], live: Sequence[Any], column: str = "x"
) -> Mapping[str, ColumnPair]:
    """Return the columns of two sides of one feature, by name."""
    sides = [predicted(values, column) for values in (reference, live)]
    features = [FeatureSpec(column, kind), FeatureSpec("other", "text")]
    return {each.column: each for each in build_columns(features, *sides)}


def test_numbers_and_categories_are_compared_as_they_are() -> None:
    """A number is read as the model reads it, a category as its name."""
    number = columns("number", [1, "2.5"] * 20, [True, 3] * 20)["x"]
    category = columns("category", ["a", 1] * 20, ["a", True] * 20)["x"]
    assert (number.reference[:2], number.live[:2], number.numeric) == ((1.0, 2.5), (1.0, 3.0), True)
    assert (category.reference[:2], category.live[:2], category.numeric) == (("a", "1"), ("a", "true"), False)


def test_a_text_is_compared_by_its_length() -> None:
    """The number of its words is compared, and not the text."""
    found = columns("text", ["one two", ""] * 20, ["one", "a b c"] * 20)
    length = found["length of x"]
    assert "x" not in found
    assert (length.kind, length.reference[:2], length.live[:2]) == ("words", (2.0, 0.0), (1.0, 3.0))


@pytest.mark.parametrize("kind", ["number", "category", "text"])
def test_missing_values_are_a_column_of_their_own(kind: FeatureKind) -> None:
    """A column with missing values on one side is also compared by whether it has any."""
    values = [f"{i % 3}" for i in range(ROWS)]
    found = columns(kind, values, [None, *values])
    assert found["x is missing"].reference == ("no",) * ROWS
    assert found["x is missing"].live == ("yes", *("no",) * ROWS)
    assert "x is missing" not in columns(kind, values, values)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "much", ["list"]])
def test_a_value_that_is_not_a_number_is_missing(value: Any) -> None:
    """A value that the model cannot use as a number is missing."""
    found = columns("number", [1, 2] * 20, [1, value] * 20)
    assert found["x"].live[:2] == (1.0, None)
    assert found["x is missing"].live[:2] == ("no", "yes")


def test_unlogged_columns_are_not_missing_values() -> None:
    """Rows without features, or without the column, are in the labels, but not in the column."""
    known = predicted(["a", "b"] * 20)
    live = [*known, PredictedRow(None, "no", None), PredictedRow({"y": 1}, "no", None)]
    x, label, _ = build_columns([FeatureSpec("x", "category")], known, live)
    assert (len(x.live), len(label.live)) == (ROWS, ROWS + 2)
    assert (
        build_columns([FeatureSpec("z", "number")], known, live)[0].error == "no row of the reference has this column"
    )


def test_predictions_that_the_reference_lacks_come_later() -> None:
    """A table has none; those of a version served elsewhere are compared after its first report interval."""
    known, live = [PredictedRow({}, None, None)] * ROWS, [PredictedRow({}, "a", (0.9, 0.1))] * ROWS
    errors = [column.error for column in build_columns([], known, live, known)]
    later = "yet: the version's first `report.every_hours` set it"
    assert errors == [f"the reference has no predicted label {later}", f"the reference has no confidence {later}"]


def test_rare_categories_are_merged() -> None:
    """Of more than ten categories, those with less than 1 % of all rows, or less than five rows, are merged."""
    reference = ["a"] * 300 + ["rare"] * 4
    found = columns("category", reference, ["a"] * 100 + ["new"] * 10 + [f"{i}" for i in range(30)])["x"]
    assert set(found.reference) == {"a", OTHER}
    assert set(found.live) == {"a", "new", OTHER}
    assert found.error == ""


def test_few_categories_are_not_merged() -> None:
    """Up to ten categories, none is too rare."""
    reference = [f"{i}" for i in range(9)] * 60
    assert "new" in columns("category", reference, [*reference, "new"])["x"].live


def test_columns_of_rare_categories_are_skipped() -> None:
    """A column of ids has no common category."""
    found = columns("category", [f"{i}" for i in range(100)], [f"{i}" for i in range(100, 200)])["x"]
    assert found.error == "none of its 200 values is common enough to be compared"


def test_long_categories_are_cut() -> None:
    """They have at most 60 characters."""
    found = columns("category", ["n" * 500, "b"] * 20, ["b"] * ROWS)["x"]
    assert {len(str(value)) for value in found.reference} == {60, 1}


@pytest.mark.parametrize(
    ("reference", "live", "error"),
    [
        ([1, 2] * 14, [1, 2] * 20, "28 rows of the reference have a value; 30 are needed"),
        ([1, 2] * 20, [1, 2], "2 rows of live traffic have a value; 30 are needed"),
        ([1, 2] * 20, [None] * ROWS, "no row of live traffic has a value"),
        ([None] * ROWS, [1, 2] * 20, "no row of the reference has a value"),
        ([3] * ROWS, [3] * ROWS, "every row of both sides has 3.0"),
        ([1, 2] * 20, [], "no row of live traffic has this column"),
    ],
)
def test_a_skipped_column_has_a_reason(reference: Sequence[Any], live: Sequence[Any], error: str) -> None:
    """Few rows, no values, or one value are reasons."""
    assert columns("number", reference, live)["x"].error == error


def test_a_constant_number_is_compared_as_a_category() -> None:
    """If the reference has one number only, the share of other numbers is compared."""
    found = columns("number", [0] * ROWS + [None], [0, 7, None] * 20)["x"]
    assert (found.error, found.numeric, found.kind) == ("", False, "number")
    assert (set(found.reference), found.live[:3]) == ({"0", None}, ("0", OTHER, None))


def test_the_confidence_is_the_largest_probability() -> None:
    """Rows without probabilities have no confidence."""
    sure = predicted(["a"] * ROWS, probabilities=(0.2, 0.8)) + predicted(["a"], probabilities=(0.7, 0.3))
    unsure = predicted(["a"] * ROWS, probabilities=(0.5, 0.5))
    none = predicted(["a"] * ROWS)
    found = build_columns([], sure, [*unsure, *none])[-1]
    assert (found.column, found.kind, set(found.reference)) == ("confidence", "confidence", {0.7, 0.8})
    assert (found.live.count(0.5), found.live.count(None)) == (ROWS, ROWS)
    assert build_columns([], sure, none)[-1].error == "no row of live traffic has a value"


def test_column_names_are_unique() -> None:
    """A feature keeps its name, and a prediction's column of the same name gets a prime."""
    found = columns("number", [1, 2] * 20, [1, 2] * 20, column="confidence")
    assert [(name, each.kind) for name, each in found.items()] == [
        ("confidence", "number"),
        ("length of other", "words"),
        ("predicted label", "label"),
        ("confidence'", "confidence"),
    ]


RANDOM_SAMPLES = 60


def distance_in_deviations(reference: np.ndarray, live: np.ndarray) -> float:
    """Return the Wasserstein distance in standard deviations of the reference."""
    return float(wasserstein_distance(reference, live)) / float(np.std(reference))


def test_the_distance_by_chance_equals_that_of_permuted_rows() -> None:
    """The fast computation equals permuting the rows and measuring each time."""
    random = np.random.default_rng(1)
    reference, live = random.lognormal(size=30), random.lognormal(1, size=50)
    pool = np.sort(np.concatenate([reference, live]))
    shuffle, distances = np.random.default_rng(0), []
    for _ in range(PERMUTATIONS):
        first = shuffle.permutation(np.arange(80) < 30)
        apart = distance_in_deviations(pool[first], pool[~first]) * np.std(pool[first])
        distances.append(apart / np.std(reference))
    assert wasserstein_by_chance(reference, live) == pytest.approx(float(np.quantile(distances, QUANTILE)))


def test_two_samples_of_one_distribution_rarely_exceed_chance() -> None:
    """With 100 rows on each side most samples exceed 0.1, and few exceed chance."""
    random = np.random.default_rng(2)
    fixed = by_chance = 0
    for _ in range(RANDOM_SAMPLES):
        reference, live = random.normal(size=100), random.normal(size=100)
        value = distance_in_deviations(reference, live)
        fixed, by_chance = (
            fixed + (value >= 0.1),
            by_chance + (value > wasserstein_by_chance(reference, live)),
        )
    assert fixed >= 0.8 * RANDOM_SAMPLES
    assert by_chance <= 0.1 * RANDOM_SAMPLES


def test_two_samples_of_one_share_rarely_exceed_chance() -> None:
    """The same holds for counts of ten names, 60 on each side."""
    random = np.random.default_rng(3)
    fixed = by_chance = 0
    for _ in range(RANDOM_SAMPLES):
        reference, live = random.multinomial(60, [0.1] * 10, size=2)
        value = jensenshannon(reference, live)
        fixed, by_chance = (
            fixed + (value >= 0.1),
            by_chance + (value > jensenshannon_by_chance(reference, live)),
        )
    assert fixed >= 0.8 * RANDOM_SAMPLES
    assert by_chance <= 0.1 * RANDOM_SAMPLES


def test_the_distance_by_chance_is_reproducible() -> None:
    """Reports on the same rows are equal."""
    counts = np.array([5, 50]), np.array([9, 30])
    assert jensenshannon_by_chance(*counts) == jensenshannon_by_chance(*counts)


def test_a_change_is_far_beyond_chance() -> None:
    """So are half a standard deviation on a thousand rows, and 2 % that become 8 %."""
    random = np.random.default_rng(4)
    reference, live = random.normal(size=1000), random.normal(0.5, size=1000)
    assert distance_in_deviations(reference, live) > 3 * wasserstein_by_chance(reference, live)
    counts = np.array([20, 980]), np.array([400, 4600])
    assert jensenshannon(*counts) > 1.5 * jensenshannon_by_chance(*counts)


def test_small_numbers_are_scaled() -> None:
    """Numbers that vary by less than a thousandth are divided by their deviation, others are unchanged."""
    random = np.random.default_rng(5)
    reference, live = random.normal(size=500), random.normal(1, size=500)
    small = scale_small_deviation(reference * 1e-6, live * 1e-6)
    assert distance_in_deviations(*small) == pytest.approx(distance_in_deviations(reference, live))
    assert scale_small_deviation(reference, live)[0] is reference


def test_names_of_both_sides_are_counted() -> None:
    """A name that one side lacks has the count 0 there."""
    names, reference, live = count_names(["b", "b"], ["a", "b"])
    assert (names, reference.tolist(), live.tolist()) == (["a", "b"], [0, 2], [1, 1])


def test_repeated_rows_are_no_evidence_in_a_column() -> None:
    """One content on a side is not compared; distances by chance are those of the effective n."""
    features = [FeatureSpec("x", "category")]
    one, many = [PredictedRow({"x": "a"}, "no", None)] * 229, predicted([f"v{k % 40}" for k in range(400)])
    found = {each.column: each for each in build_columns(features, one, many)}
    assert found["x"].error == "the 229 rows of the reference with a value have an effective n of 1"
    assert found["predicted label"].error == found["x"].error
    backwards = {each.column: each for each in build_columns(features, many, one)}
    assert backwards["x"].error == "the 229 rows of live traffic with a value have an effective n of 1"
    column = next(each for each in build_columns(features, many, many) if each.column == "x")
    assert (column.error, column.independent) == ("", (40, 40))


def test_the_effective_n_of_a_column_is_at_most_the_contents_with_a_value() -> None:
    """Rows that lack a feature have the hash of their record, or are distinct without one."""
    features = [FeatureSpec("x", "number"), FeatureSpec("y", "category")]
    rows = [PredictedRow({"x": k % 5, "y": None}, "no", (0.5, 0.5)) for k in range(100)]
    partial = [PredictedRow({"x": k % 5}, "no", (0.5, 0.5)) for k in range(100)]
    found = {each.column: each.independent for each in build_columns(features, rows, partial)}
    assert found["x"] == found["predicted label"] == (5, 100)
    assert found["y"] == (0, 0)
    hashed = [replace(row, content=k % 7) for k, row in enumerate(partial)]
    found = {each.column: each.independent for each in build_columns(features, rows, hashed)}
    assert found["x"] == found["predicted label"] == (5, 7)


def test_distances_by_chance_grow_as_the_effective_n_falls() -> None:
    """Few contents on both sides differ by chance more than as many rows; all rows are the usual case."""
    random = np.random.default_rng(5)
    reference, live = random.normal(size=300), random.normal(size=300)
    assert wasserstein_by_chance(reference, live, (300, 300)) == wasserstein_by_chance(reference, live)
    assert wasserstein_by_chance(reference, live, (12, 12)) > 3 * wasserstein_by_chance(reference, live)
    counts = np.array([60, 240]), np.array([50, 250])
    assert jensenshannon_by_chance(*counts, (300, 300)) == jensenshannon_by_chance(*counts)
    assert jensenshannon_by_chance(*counts, (12, 12)) > 2 * jensenshannon_by_chance(*counts)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=90), min_size=40, max_size=120))
def test_values_of_strangers_are_few_and_short_names(values: list[str]) -> None:
    """A report has at most a hundred values per column and the rest together, each of at most 60 characters."""
    for column in build_columns([FeatureSpec("x", "category")], predicted(["a", "b"] * 30), predicted(values)):
        if not column.numeric and not column.error:
            names = {value for value in (*column.reference, *column.live) if value is not None}
            assert len(names) <= 101
            assert all(len(str(name)) <= 60 for name in names)
        assert len(column.error) <= 200
