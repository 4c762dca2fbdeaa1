"""Hashed words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer

from models.text_features import HashedWords, SparseRows, side_by_side

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(words, min_size=1, max_size=6), n_features=st.sampled_from([1, 16, 2048]))
def test_the_numbers_are_those_of_scikit_learn(texts: list[str], n_features: int) -> None:
    """Any text gives what HashingVectorizer gives, whatever was hashed before."""
    hashed = HashedWords(n_features)
    hashed.transform(["the cat saw the other cat", *texts])
    expected = HashingVectorizer(n_features=n_features).transform(texts).toarray()
    np.testing.assert_allclose(side_by_side([hashed.transform(texts)]).toarray(), expected, atol=1e-6)


def test_missing_and_empty_texts_are_rows_of_zeros() -> None:
    """A text without words, like a missing one, has no entry."""
    rows = HashedWords(8).transform([None, "", "a !", "two words"])
    assert rows.counts.tolist()[:3] == [0, 0, 0]
    assert rows.counts[3] > 0


def test_lone_surrogates_are_hashed_like_any_word() -> None:
    """Text that cannot be encoded does not stop a row."""
    assert HashedWords(8).transform(["\ud800\ud800 ok"]).counts.tolist()[0] > 0


def test_parts_lie_side_by_side() -> None:
    """Entries of several parts are merged row by row, each part behind the one before."""
    first = SparseRows(2, np.array([1, 0, 2]), np.array([1, 0, 1]), np.array([1, 2, 3], dtype=np.float32))
    second = SparseRows(3, np.array([0, 1, 1]), np.array([2, 0]), np.array([4, 5], dtype=np.float32))
    expected = [[0, 1, 0, 0, 0], [0, 0, 0, 0, 4], [2, 3, 5, 0, 0]]
    assert side_by_side([first, second]).toarray().tolist() == expected


@pytest.mark.parametrize("n", [0, 3])
def test_rows_without_any_word_keep_their_shape(n: int) -> None:
    """No rows, or rows of nothing, have the usual width."""
    assert side_by_side([HashedWords(8).transform([None] * n)]).shape == (n, 8)


def test_long_words_are_not_remembered() -> None:
    """A word of 65 characters is hashed anew each time, so that what is kept is bounded in bytes too."""
    hashed = HashedWords(16)
    rows = hashed.transform(["x" * 64, "y" * 65])
    assert list(hashed._places) == ["x" * 64]
    assert hashed.transform(["x" * 64, "y" * 65]).columns.tolist() == rows.columns.tolist()
