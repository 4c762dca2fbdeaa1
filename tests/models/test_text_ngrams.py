"""Hashed n-grams of text, against scikit-learn's, and their memo."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from models import text_ngrams
from models.text_ngrams import WORD_COLUMNS, HashedNgrams

TEXTS = [
    "Check OUT my channel, please please",
    "check out this song",
    "I love this song",
    "ΣΑΣ über 𝒳 café naïve",
    None,
    "",
    "x",
    "\ud800 lone surrogate",
    "a" * 300,
    "song " * 40,
]


def known() -> list[str]:
    return [text for text in TEXTS if text]


def test_similarities_are_those_of_scikit_learn() -> None:
    """But for collisions, products of texts without repetitions are those of TF-IDF of words and of characters."""
    texts = ["red fox jumps", "red cat", "grey fox jumped", "ΣΑΣ über 𝒳 café"]
    rows = HashedNgrams.fit(texts).transform(texts).entries().to_csr()
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w\w+", norm=None).fit_transform(texts)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), norm=None).fit_transform(texts)
    expected = normalize(sparse.hstack([words, letters]))
    assert np.allclose((rows @ rows.T).toarray(), (expected @ expected.T).toarray(), atol=0.02)


def test_rows_have_length_one_or_are_empty() -> None:
    """A text that is missing or empty has nothing; a repeated word lengthens no row."""
    rows = HashedNgrams.fit(TEXTS).transform(TEXTS).entries().to_csr()
    lengths = np.asarray(rows.multiply(rows).sum(axis=1)).ravel()
    assert np.allclose(lengths[[1, 2, 3, 6, 7, 9]], 1, atol=0.2)
    assert lengths[[4, 5]].tolist() == [0, 0]


def test_a_row_is_the_same_alone_in_a_batch_and_from_the_memo() -> None:
    """Neither other rows nor earlier calls change a row."""
    ngrams = HashedNgrams.fit(TEXTS)
    whole = ngrams.transform(TEXTS).entries().to_csr()
    for i, text in enumerate(TEXTS):
        again = HashedNgrams(ngrams.state).transform([text]).entries().to_csr()
        assert (again != whole[i]).nnz == 0
        assert (ngrams.transform([text]).entries().to_csr() != whole[i]).nnz == 0


def test_n_grams_that_training_did_not_see_are_left_out() -> None:
    """They neither have a column nor lower the weight of others."""
    ngrams = HashedNgrams.fit(["alpha", "beta"])
    seen, mixed = ngrams.transform(["alpha"]).entries().to_csr(), ngrams.transform(["alpha qqqqq"]).entries().to_csr()
    assert ngrams.transform(["qqqqq zzzzz"]).entries().to_csr().nnz == 0
    assert np.allclose(seen.toarray(), mixed.toarray())


def test_a_word_is_hashed_the_same_on_every_machine() -> None:
    """Columns do not depend on the process or the platform: a stored model relies on them."""
    counts = HashedNgrams.fit(["ab ab"]).state.counts
    columns = np.flatnonzero(counts).tolist()
    assert columns[:2] == [23389, 58307]  # "ab" and "ab ab"
    assert len(columns) == 8  # and " a", "ab", "b ", " ab", "ab ", " ab "
    assert [column >= WORD_COLUMNS for column in columns] == [False, False, *[True] * 6]
    assert set(counts[columns].tolist()) == {1}


def test_the_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further and long words are hashed again, to the same columns."""
    hashed: list[str] = []
    original = vars(text_ngrams)["_hashed"]
    monkeypatch.setattr("models.ngram_words._MOST_WORDS", 3)
    monkeypatch.setattr(text_ngrams, "_hashed", lambda words: hashed.extend(words) or original(words))
    ngrams = HashedNgrams(HashedNgrams.fit(known()).state)
    whole = ngrams.transform(known()).entries().to_csr()
    for expected in (["check", "out", "a" * 300], ["a" * 300], ["a" * 300]):
        hashed.clear()
        ngrams.transform(["check out", "a" * 300])
        assert hashed == expected
    assert (ngrams.transform(known()).entries().to_csr() != whole).nnz == 0


def test_no_rows_have_the_width_of_the_state() -> None:
    """As for an empty request."""
    ngrams = HashedNgrams.fit(["a b"])
    assert ngrams.transform([]).entries().to_csr().shape == (0, ngrams.state.n_columns)
