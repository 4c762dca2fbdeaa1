"""Scales of numbers and vocabularies of categories."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer

from models.column_encoders import (
    HashedWords,
    NumberScale,
    Vocabulary,
    as_number,
    as_text,
)
from models.errors import DataError


def test_a_number_is_its_distance_from_the_median() -> None:
    """The unit is the spread of the middle half, scaled to a normal's standard deviation."""
    values = np.random.default_rng(0).normal(50, 4, size=20_000)
    scale = NumberScale.fit(values)
    assert scale.center == pytest.approx(50, abs=0.1)
    assert scale.scale == pytest.approx(4, rel=0.03)
    np.testing.assert_allclose(scale.transform(np.array([scale.center + 2 * scale.scale]))[0, 0], 2, rtol=1e-5)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20))
def test_no_number_is_absurd_after_scaling(values: list[float]) -> None:
    """Whatever the column holds, features are finite and within 20, and keep the order of the numbers."""
    array = np.array([value if np.isfinite(value) else np.nan for value in values])
    out = NumberScale.fit(array).transform(array)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 20
    known = np.isfinite(array)
    ordered = out[known, 0][np.argsort(array[known], kind="stable")]
    assert (np.diff(ordered) >= 0).all()


@pytest.mark.parametrize(("values", "scale"), [([7.0] * 5, 1.0), ([0.0] * 99 + [1.0], 1.0), ([], 1.0)])
def test_columns_without_spread_have_a_scale(values: list[float], scale: float) -> None:
    """A constant column, one with a rare other value, and an empty one do not divide by zero."""
    assert NumberScale.fit(np.array(values)).scale == scale


def test_a_missing_number_is_the_median_and_says_so_if_training_saw_any() -> None:
    """The indicator stays 0 where training saw no missing value, for its weight would be untrained."""
    missing = np.array([np.nan, 1.0])
    assert NumberScale.fit(np.array([1.0, 2.0, np.nan])).transform(missing)[0].tolist() == [0, 1]
    assert NumberScale.fit(np.array([1.0, 2.0])).transform(missing)[0].tolist() == [0, 0]


def test_rare_categories_share_a_column() -> None:
    """The most frequent names have columns of their own, ties by spelling; others and missing ones share."""
    vocabulary = Vocabulary.fit(["b", "b", "a", "a", "c", "c", "c", "once", None], max_names=3, min_rows=2)
    assert vocabulary.names == ("c", "a", "b")
    assert vocabulary.transform(["a", "never seen", None]).tolist() == [1, 3, 4]


def test_an_unseen_category_has_no_column_if_training_had_no_other() -> None:
    """Shared columns that training never set stay empty."""
    vocabulary = Vocabulary.fit(["a", "a"], max_names=3, min_rows=2)
    assert vocabulary.transform(["a", "new", None]).tolist() == [0, -1, -1]


def test_the_vocabulary_is_bounded() -> None:
    """No more than the given number of names is kept."""
    names = [str(k) for k in range(50)] * 2
    assert len(Vocabulary.fit(names, max_names=10, min_rows=1).names) == 10


@pytest.mark.parametrize(
    ("value", "number"), [(True, 1.0), (np.int8(3), 3.0), ("2.5", 2.5), (" 1e3 ", 1000.0), (10**400, None)]
)
def test_what_counts_as_a_number(value: object, number: float | None) -> None:
    """Booleans and text that spells a number are numbers; one too large for a float is missing."""
    read = as_number(value, "n", 0)
    assert np.isnan(read) if number is None else read == number


@pytest.mark.parametrize("value", [float("inf"), "-inf", "nan", "NA", " ", "", None])
def test_infinity_counts_as_missing(value: object) -> None:
    """Infinite numbers, and the marks of a missing one in a file, are missing values."""
    assert np.isnan(as_number(value, "n", 0))


DATES = [pd.Timestamp("2020-01-01"), datetime.date(2020, 1, 1), pd.Timedelta(1, "s"), np.datetime64("2020")]


@pytest.mark.parametrize("read", [as_number, as_text])
@pytest.mark.parametrize("value", DATES)
def test_dates_are_refused_with_advice(read: object, value: object) -> None:
    """A date is neither number nor category, and the message suggests a derived feature."""
    with pytest.raises(DataError, match=r"column 'when', row 7: .* derive a number \(age in days\)"):
        read(value, "when", 7)  # type: ignore[operator]


@pytest.mark.parametrize("value", ["abc", "1_000", "\u0663", "0x1F", "1,5", [1], {"a": 1}])
def test_what_is_no_number_is_refused(value: object) -> None:
    """The message names column, row and value."""
    with pytest.raises(DataError, match=r"column 'n', row 3: .* is not a number: make the column a category"):
        as_number(value, "n", 3)


def test_what_is_no_name_is_refused() -> None:
    """A list is no category, and a long one is cut in the message."""
    with pytest.raises(DataError, match=r"row 3: \[0, 1, 2.*\.\.\. is a list, expected text, a number"):
        as_text(list(range(100)), "c", 3)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(words, min_size=1, max_size=6), n_features=st.sampled_from([1, 16, 2048]))
def test_the_numbers_are_those_of_scikit_learn(texts: list[str], n_features: int) -> None:
    """Any text equals the output of HashingVectorizer, in any order of texts."""
    hashed = HashedWords(n_features)
    hashed.transform(["the cat saw the other cat", *texts])
    expected = HashingVectorizer(n_features=n_features).transform(texts).toarray()
    np.testing.assert_allclose(hashed.transform(texts).to_csr().toarray(), expected, atol=1e-6)


def test_missing_and_empty_texts_are_rows_of_zeros() -> None:
    """A text without words, like a missing one, has no entry."""
    rows = HashedWords(8).transform([None, "", "a !", "two words"])
    assert set(rows.rows.tolist()) == {3}


def test_lone_surrogates_are_hashed_like_any_word() -> None:
    """Text that cannot be encoded does not stop a row."""
    assert len(HashedWords(8).transform(["\ud800\ud800 ok"]).values) > 0


@pytest.mark.parametrize("n", [0, 3])
def test_rows_without_any_word_keep_their_shape(n: int) -> None:
    """No rows, or rows of nothing, have the usual width."""
    assert HashedWords(8).transform([None] * n).to_csr().shape == (n, 8)


def test_long_words_are_not_remembered() -> None:
    """A word of 65 characters is not memoised, so that the memo is bounded in bytes too."""
    hashed = HashedWords(16)
    rows = hashed.transform(["x" * 64, "y" * 65])
    assert list(hashed.memo) == ["x" * 64]
    assert hashed.transform(["x" * 64, "y" * 65]).columns.tolist() == rows.columns.tolist()
