"""Labels as classes."""

import numpy as np
import pandas as pd
import pytest

from models.classes import class_codes, class_names, label_leaks, read_labels, without_label
from models.errors import DataError


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([1, 0, 1], ("0", "1")),
        ([1.0, 0.0], ("0", "1")),
        ([True, False], ("false", "true")),
        (["spam", "ham"], ("ham", "spam")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["2", "10", "x"], ("10", "2", "x")),
    ],
)
def test_classes_are_text_in_a_fixed_order(values: list, classes: tuple[str, ...]) -> None:
    """However labels are typed, classes are text: by value if all are numbers, else by spelling."""
    labels = read_labels(pd.DataFrame({"y": values}), "y")
    assert class_names(labels, "y") == classes
    assert [classes[k] for k in class_codes(labels, classes)] == labels


def test_labels_are_read_without_blanks_and_in_one_unicode_form() -> None:
    """Long ones too: blanks and Unicode forms make no class of their own."""
    labels = [" a very happy one", "a very happy one\t", "cafe\u0301", "caf\u00e9"]
    assert class_names(read_labels(pd.DataFrame({"y": labels}), "y"), "y") == ("a very happy one", "caf\u00e9")


@pytest.mark.parametrize("blank", [None, "", "  ", np.nan])
def test_blank_labels_are_refused_with_their_number_and_first_row(blank: object) -> None:
    """The message gives the number of blanks and the first row."""
    frame = pd.DataFrame({"y": ["a", blank, "b", blank]})
    with pytest.raises(DataError, match="'y' is blank in 2 of 4 rows, first in row 1: fill"):
        read_labels(frame, "y")


def test_a_missing_label_column_is_refused() -> None:
    """A misspelt label column is named with the nearest spelling."""
    with pytest.raises(DataError, match="no column 'lable'; did you mean 'label'"):
        read_labels(pd.DataFrame({"label": ["a"]}), "lable")


def test_one_class_only_is_refused() -> None:
    """Nothing can be learned where every label is the same."""
    with pytest.raises(DataError, match="holds only 'a': at least two classes"):
        class_names(["a", "a"], "y")


def test_a_column_of_numbers_is_no_label() -> None:
    """More different values than can be classes are refused."""
    with pytest.raises(DataError, match="holds 1,001 distinct values"):
        class_names([str(k) for k in range(1001)], "y")


def test_functions_see_rows_without_the_label() -> None:
    """The label column is dropped from tables and records for any type of name; other rows are unchanged."""
    frame = pd.DataFrame({"a": [1], 7: [2]})
    assert list(without_label(frame, "7").columns) == ["a"]
    assert without_label(frame, "b") is frame
    assert without_label([{"a": 1, "y": 2}, {"a": 3}], "y") == [{"a": 1}, {"a": 3}]


def leaky(n: int = 400) -> tuple[pd.DataFrame, list[str]]:
    """Return features of which some give the label away, and labels of which a quarter is ``rare``."""
    random = np.random.default_rng(0)
    labels = np.where(np.arange(n) % 4 == 0, "rare", "common")
    rare = labels == "rare"
    features = {
        "copy": np.where(rare, "x", "y"),
        "code": np.where(rare, random.integers(0, 5, n), random.integers(5, 10, n)),
        "threshold": np.where(rare, 5.0, -5.0) + random.random(n),
        "gap": np.where(rare, random.random(n), np.nan),
        "noise": random.random(n),
        "constant": np.zeros(n),
        "id": [f"u{k}" for k in range(n)],
        "hint": np.where(random.random(n) < 0.9, rare, ~rare),
        "list": [[k] for k in range(n)],
    }
    return pd.DataFrame(features), labels.tolist()


def test_columns_that_give_the_label_away_are_named() -> None:
    """Copies, disjoint codes, thresholds and missing values are leaks; noise, ids and good features are not."""
    told = label_leaks(*leaky())
    assert [sentence.split("'")[1] for sentence in told] == ["copy", "code", "threshold", "gap"]
    assert all("alone predicts the label for " in sentence for sentence in told)


def test_the_order_of_the_rows_is_no_leak() -> None:
    """In a table sorted by its label, equal values of a number do not give it away."""
    labels = ["a"] * 200 + ["b"] * 200
    assert label_leaks(pd.DataFrame({"n": np.arange(400) % 50 * 1.0}), labels) == []


def test_a_rare_class_needs_its_own_rows_to_be_predicted() -> None:
    """The most frequent class alone is no leak, however frequent."""
    labels = ["a"] * 396 + ["b"] * 4
    assert label_leaks(pd.DataFrame({"n": [0.0] * 400, "m": np.arange(400) % 7}), labels) == []


def test_few_rows_show_no_leak() -> None:
    """Below 40 rows nothing is said."""
    features, labels = leaky(36)
    assert label_leaks(features, labels) == []
