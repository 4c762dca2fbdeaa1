"""Sparse blocks: the same rows as entries, as a table, and as a product, in every size."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import sparse

from models.batches import FeatureRows
from models.ngram_words import NgramWord, NgramWords
from models.sparse_rows import SparseRows, joined_csr, sums_by_row
from models.text_ngrams import HashedNgrams

RNG = np.random.default_rng(0)
TEXTS = ["hot water, hot tea", "cold water", None, "", f"see http://{'x' * 60}.example/page now", "tea tea tea"]


def drawn(n: int, width: int) -> SparseRows:
    block = sparse.random(n, width, 0.2, format="coo", random_state=RNG, dtype=np.float32)
    return SparseRows(n, width, block.row.astype(np.int64), block.col.astype(np.int64), block.data)


def test_blocks_lie_side_by_side() -> None:
    """Entries of several blocks are merged row by row, each block behind the one before."""
    first = SparseRows(3, 2, np.array([0, 2, 2]), np.array([1, 0, 1]), np.array([1, 2, 3], dtype=np.float32))
    second = SparseRows(3, 3, np.array([1, 2]), np.array([2, 0]), np.array([4, 5], dtype=np.float32))
    expected = [[0, 1, 0, 0, 0], [0, 0, 0, 0, 4], [2, 3, 5, 0, 0]]
    assert joined_csr([first, second]).toarray().tolist() == expected
    assert FeatureRows(np.zeros((3, 0), np.float32), [first, second]).take(slice(0, 3)).tolist() == expected


@pytest.mark.parametrize("outputs", [1, 3, 40])
@pytest.mark.parametrize("n", [1, 7, 900])
def test_the_product_is_that_of_the_dense_rows(n: int, outputs: int) -> None:
    """Few rows and many, few outputs and many take another way to the same numbers."""
    blocks = [drawn(n, 200), drawn(n, 30)]
    dense = RNG.normal(size=(n, 4)).astype(np.float32)
    rows, weight = FeatureRows(dense, blocks), RNG.normal(size=(234, outputs)).astype(np.float32)
    every = slice(0, n)
    np.testing.assert_allclose(rows.product(every, weight), rows.take(every).numpy() @ weight, atol=1e-4)


@pytest.mark.parametrize("outputs", [2, 40])
def test_the_product_of_ngrams_is_that_of_their_entries(outputs: int) -> None:
    """Words known and unknown, short and too long to be kept, repeated, and none at all; twice, with two weights."""
    ngrams = HashedNgrams.fit(TEXTS)
    for weights in range(2):
        weight = np.random.default_rng(weights).normal(size=(5 + ngrams.state.n_columns, outputs)).astype(np.float32)
        for texts in (TEXTS, TEXTS[:1], [None], [], ["other words of water", *TEXTS]):
            rows = ngrams.transform(texts)
            expected = rows.entries().to_csr() @ weight[5:]
            np.testing.assert_allclose(rows.product(weight, 5), expected, rtol=1e-4, atol=1e-4)


def test_sums_by_row_are_equal_for_few_and_many_rows() -> None:
    """A row without terms has zeros."""
    terms, rows = RNG.normal(size=(500, 3)).astype(np.float32), RNG.integers(0, 400, 500)
    expected = np.zeros((400, 3))
    np.add.at(expected, rows, terms)
    np.testing.assert_allclose(sums_by_row(terms, rows, 400), expected, atol=1e-5)
    np.testing.assert_allclose(
        sums_by_row(terms[:50], rows[:50] % 5, 5), sums_by_row(terms[:50], rows[:50] % 5, 3000)[:5], atol=1e-5
    )


def test_words_beyond_the_memo_are_those_of_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full memo starts again, and texts of before are the same."""
    monkeypatch.setattr("models.ngram_words._MOST_WORDS", 4)
    ngrams = HashedNgrams.fit(TEXTS)
    expected = HashedNgrams(ngrams.state).transform(TEXTS).entries().to_csr().toarray()
    for text, row in [*zip(TEXTS, expected, strict=True)] * 2:
        np.testing.assert_allclose(ngrams.transform([text]).entries().to_csr().toarray()[0], row, atol=1e-6)


def test_equal_words_have_one_number_and_long_ones_are_not_kept() -> None:
    """New words are computed together, once if they are short, and every time if they are long."""
    asked: list[list[str]] = []

    def compute(names: Sequence[str]) -> list[NgramWord]:
        asked.append(list(names))
        return [NgramWord(np.ones(1, np.uint64), np.zeros(1, np.int32), np.ones(1, np.float32)) for _ in names]

    words, long = NgramWords(compute), "x" * 30
    numbers, _ = words.number(["a", long, "a", "b"])
    assert numbers[0] == numbers[2]
    assert len({*numbers}) == 3
    words.number(["b", "a", long])
    assert asked == [["a", long, "b"], [long]]
