"""Guessed kinds of columns, and the guessed label."""

from collections.abc import Callable
from datetime import date, time, timedelta
from uuid import UUID

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


def reason_of(values: object) -> str:
    frame = pd.DataFrame({"column": values, "other": ["a", "b"] * (N // 2), "label": ["x", "y"] * (N // 2)})
    return guess_columns(frame, "label")[0].reason


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


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.random.default_rng(0).permutation(N), "an index"),
        (np.random.default_rng(0).permutation(N) + 1.0, "an index"),
        ([time(9 + n % 3) for n in range(N)], "a time of day"),
        ([timedelta(seconds=n) for n in range(N)], "a duration"),
        (pd.to_timedelta([n % 3 for n in range(N)], unit="D"), "a duration"),
        ([b"ab", b"cd"] * (N // 2), "bytes"),
        ([UUID(int=n).bytes for n in range(N)], "bytes"),
        ([UUID(int=n) for n in range(N)], "UUID"),
        ([date(2026, 5, 1 + n % 28) for n in range(N)], "a date"),
        (pd.Series([None, 10**400] * (N // 2), dtype=object), "too large"),
        ([np.inf, None] * (N // 2), "empty"),
        ([" ", "\t"] * (N // 2), "blanks"),
        ([complex(n) for n in range(N)], "complex"),
    ],
)
def test_a_column_that_no_feature_can_read_is_left_out(values: object, reason: str) -> None:
    """Indexes in any order, times, durations, bytes, UUIDs and blanks are left out, with the reason."""
    assert kind_of(values) is None
    assert reason in reason_of(values)


@pytest.mark.parametrize(
    ("spell", "example"),
    [
        (lambda n: f"{n + 1000:,}", "'1,000'"),
        (lambda n: f"{n},5", "'0,5'"),
        (lambda n: f"${n}", "'$0'"),
        (lambda n: f"{n} EUR", "'0 EUR'"),
        (lambda n: f"{n / 50}%", "'0.0%'"),
        (lambda n: f"({n + 1})", "'(1)'"),
        (lambda n: f"{n + 1}_000", "'1_000'"),
        (lambda n: f"-£{n + 1000:,}.50", "'-£1,000.50'"),
        (lambda n: f"{n + 1}.000,5", "'1.000,5'"),
        (lambda n: str(n + 1) if n % 3 else f"{n + 1000:,}", "'1,000'"),
    ],
)
def test_numbers_in_another_format_are_no_ids(spell: Callable[[int], str], example: str) -> None:
    """Separators, decimal commas, currencies, percent signs and brackets are named, with an example."""
    reason = reason_of([spell(n) for n in range(N)])
    assert f"numbers in another format, such as {example}" in reason


@pytest.mark.parametrize("spell", ["{:05d}", "1.{}.3", "u-{:05d}", "{} Main Street"])
def test_codes_and_names_are_no_numbers(spell: str) -> None:
    """Codes with leading zeros, versions and names are not taken for numbers."""
    assert "numbers spelled" not in reason_of([spell.format(n) for n in range(N)])


@pytest.mark.parametrize("name", ["", " ", "\u00a0", "n" * 201])
def test_a_column_without_a_usable_name_is_left_out(name: str) -> None:
    """Blank names and names of more than 200 characters cannot stand in the settings."""
    assert kind_of(np.linspace(0, 1, N), name) is None


def test_infinite_numbers_count_as_missing() -> None:
    """The range is that of the finite numbers, and infinities are counted as missing."""
    frame = pd.DataFrame({"n": [np.inf, 1.0, 2.5, -np.inf] * 50, "label": ["x", "y"] * 100})
    (guess,) = guess_columns(frame, "label")
    assert (guess.kind, guess.reason, guess.missing) == ("number", "numbers from 1 to 2.5", 100)


def test_an_index_is_seen_in_the_first_rows_of_a_longer_table() -> None:
    """Distinct whole numbers within the number of rows of the whole table are an index."""
    numbers = np.random.default_rng(0).permutation(10 * N)[:N]
    frame = pd.DataFrame({"n": numbers, "other": ["a", "b"] * (N // 2), "label": ["x", "y"] * (N // 2)})
    assert [guess_columns(frame, "label", rows)[0].kind for rows in (None, 10 * N)] == ["number", None]


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
