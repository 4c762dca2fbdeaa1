"""Guessed kinds of columns, and the guessed label."""

import numpy as np
import pandas as pd
import pytest

from service.cli.dataset_scan import excerpt, guess_columns, guess_label
from service.errors import MisuseError

N = 200
SENTENCES = [f"the parcel number {n} came late" for n in range(N)]


def kind_of(values: object, name: str = "column") -> str | None:
    frame = pd.DataFrame({name: values, "other": ["a", "b"] * (N // 2), "label": ["x", "y"] * (N // 2)})
    return {column.name: column for column in guess_columns(frame, "label")}[name].kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (SENTENCES, "text"),
        ([f"{n} " + "word " * 40 for n in range(10)] * (N // 10), "text"),
        (["ok thanks", "no", "too late for us", "good good good good", "bad"] * (N // 5), "category"),
        (["日本語のコメントです" + chr(0x4E00 + n) for n in range(N)], "text"),
        (["no", "se", "dk", None] * (N // 4), "category"),
        ([True, False] * (N // 2), "category"),
        (pd.array([True, False, None, True] * (N // 4), dtype="boolean"), "category"),
        ([True, False, None, True] * (N // 4), "category"),
        (np.linspace(0, 1, N), "number"),
        (pd.array([1, 2, 5, None] * (N // 4), dtype="Int64"), "number"),
        ([7 * n % 311 for n in range(N)], "number"),
        (range(1000, 1000 + N), None),
        ([f"u-{n:05d}" for n in range(N)], None),
        ([f"name{n % 150}" for n in range(N)], None),
        ([f"2026-05-{1 + n % 28:02d}" for n in range(N)], None),
        (pd.date_range("2026-01-01", periods=N), None),
        (["same"] * N, None),
        ([None] * N, None),
        ([["a"], ["b"]] * (N // 2), None),
        ([{"a": 1}, {"b": 2}] * (N // 2), None),
    ],
)
def test_a_column_is_taken_for_what_it_holds(values: object, kind: str | None) -> None:
    """Text, numbers and categories are features; ids, dates, constants and nested values are left out."""
    assert kind_of(values) == kind


def test_a_number_named_like_an_id_is_left_out() -> None:
    """Distinct integers are an id if the name of the column says so."""
    numbers = [7 * n % 311 for n in range(N)]
    assert (kind_of(numbers, "customer_id"), kind_of(numbers, "bid")) == (None, "number")


def test_one_value_with_gaps_is_a_category() -> None:
    """One value with gaps is a category; a constant column is left out."""
    assert kind_of(["coupon", None] * (N // 2)) == "category"


def test_no_feature_at_all_is_an_error() -> None:
    """The message has the reason for every column."""
    frame = pd.DataFrame({"id": range(N), "label": ["x", "y"] * (N // 2)})
    with pytest.raises(MisuseError, match="'id': it looks like an id"):
        guess_columns(frame, "label")


@pytest.mark.parametrize("name", ["label", "Class", " TARGET ", "y"])
def test_an_obvious_label_is_found(name: str) -> None:
    """The usual names are recognised in any case."""
    frame = pd.DataFrame({"text": SENTENCES, name: ["x", "y"] * (N // 2)})
    assert guess_label(frame, None) == name


def test_a_label_needs_few_values() -> None:
    """A column called target with a value per row is not a label; the message lists candidates."""
    frame = pd.DataFrame({"target": np.linspace(0, 1, N), "kind": ["x", "y"] * (N // 2)})
    with pytest.raises(MisuseError, match=r"--label COLUMN; candidates: 'kind' \(2 values\)"):
        guess_label(frame, None)


def test_a_misspelt_label_is_answered_with_the_nearest_column() -> None:
    """A missing label column is refused, with the nearest name."""
    frame = pd.DataFrame({"returned": [1, 0]})
    with pytest.raises(MisuseError, match="did you mean 'returned'"):
        guess_label(frame, "retruned")


def test_examples_fit_on_a_line() -> None:
    """Line ends, separators and control characters become spaces, and long values are cut."""
    assert excerpt("a\nb\u2028c\x85d" + "e" * 99) == "a b c d" + "e" * 30 + "..."
