"""Encoder of text for linear models: TF-IDF of word 1-2-grams and of character 2-5-grams, hashed to columns."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Annotated, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, StrictBool, StrictInt

from models.errors import DataError
from models.ngram_words import NgramWord, NgramWords, NumberedWords
from models.sparse_rows import NARROW, SparseRows, sums_by_row

WORD_COLUMNS: Final = 1 << 16
CHARACTER_COLUMNS: Final = 1 << 18
CHARACTER_NGRAMS: Final = (2, 5)

_BLOCK_ROWS, _BLOCK_CHARACTERS = 20_000, 10_000_000
_SMALLEST = 1e-30
_HASHED = WORD_COLUMNS + CHARACTER_COLUMNS
_WORD = re.compile(r"\w\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, made odd

Hashes = NDArray[np.uint64]
Columns = NDArray[np.int32]
Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
_NONE: Floats = np.zeros(0, np.float32)


@dataclass(frozen=True)
class NgramState:
    """State of a text column: the number of training rows with each hashed n-gram.

    Parameters
    ----------
    n_rows
        Training rows.
    document_frequencies
        int32[65,536 + 262,144], little-endian, of word and of character n-grams; compressed by zlib, in base64.
    missing_seen
        Whether training saw a missing text.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    n_rows: Annotated[StrictInt, Field(ge=1)]
    document_frequencies: str
    missing_seen: StrictBool

    def __post_init__(self) -> None:
        counts = self.counts
        if counts.min() < 0 or counts.max() > self.n_rows:
            raise DataError(f"document frequencies must be 0 to {self.n_rows:,}, the number of rows")

    @classmethod
    def of(cls, n_rows: int, counts: NDArray[np.int32], missing_seen: bool) -> NgramState:
        """Return the state of document frequencies int32[327,680]."""
        packed = zlib.compress(counts.astype("<i4").tobytes(), 6)
        return cls(n_rows, base64.b64encode(packed).decode("ascii"), missing_seen)

    @cached_property
    def counts(self) -> NDArray[np.int32]:
        """Document frequencies, int32[327,680]; DataError if they are damaged."""
        size = 4 * _HASHED
        try:
            reader = zlib.decompressobj()
            content = reader.decompress(base64.b64decode(self.document_frequencies, validate=True), size + 1)
        except (binascii.Error, ValueError, zlib.error) as error:
            raise DataError(f"document frequencies cannot be read: {error}") from None
        if len(content) != size:
            raise DataError(f"document frequencies must be {_HASHED:,} numbers")
        return np.frombuffer(content, "<i4").astype(np.int32)

    @cached_property
    def columns(self) -> Columns:
        """Column of each hashed n-gram, int32[327,680]; -1 for those that training did not see."""
        seen = self.counts > 0
        return np.where(seen, np.cumsum(seen) - 1, -1).astype(np.int32)

    @cached_property
    def idf(self) -> NDArray[np.float64]:
        """Inverse document frequency of each column, as scikit-learn's, smoothed."""
        counts = self.counts
        return np.log((1 + self.n_rows) / (1 + counts[counts > 0])) + 1

    @property
    def n_columns(self) -> int:
        """Number of n-grams that training saw."""
        return len(self.idf)


class HashedNgrams:
    """Sublinear TF-IDF of the n-grams of lowered texts, each row of a length near one.

    Words are of at least two characters. Character n-grams are within words, with the blanks around them, as by
    scikit-learn's ``char_wb``. Words and their bigrams are counted over a row; character n-grams are counted within a
    word, and what several words have in common adds up, which lengthens a row. What a word adds is memoised.

    Parameters
    ----------
    state
        Of `fit`.

    Examples
    --------
    >>> ngrams = HashedNgrams.fit(["hot water", "cold water", None])
    >>> rows = ngrams.transform(["water"]).entries()
    >>> (rows.values**2).sum().round(6).item()
    1.0
    """

    def __init__(self, state: NgramState) -> None:
        self.state = state
        self._idf = state.idf.astype(np.float32)
        self._words = NgramWords(self._weighed)

    @classmethod
    def fit(cls, texts: Sequence[str | None]) -> HashedNgrams:
        """Count the rows of every n-gram."""
        memo = NgramWords(_hashed)
        counts = np.zeros(_HASHED, np.int64)
        for block in _blocks(texts):
            rows = _split(block)
            numbers, known = memo.number([*chain.from_iterable(rows)])
            words = [known[number] for number in numbers.tolist()]
            of_word = _row_numbers(rows)
            pairs, of_pair = _bigrams(*known.hashes(numbers), of_word)
            of_ngram = np.repeat(of_word, np.fromiter((len(word.columns) for word in words), np.int64, len(words)))
            columns = np.concatenate([pairs, *(word.columns for word in words)])
            cells = np.concatenate([of_pair, of_ngram]) * _HASHED + columns
            cells.sort()
            counts += np.bincount(cells[np.flatnonzero(np.diff(cells, prepend=-1))] % _HASHED, minlength=_HASHED)
        return cls(NgramState.of(max(len(texts), 1), counts.astype(np.int32), None in texts))

    def transform(self, texts: Sequence[str | None]) -> NgramRows:
        """Return N rows; a missing text, like one without known n-grams, is a row of zeros."""
        rows = _split(texts)
        numbers, words = self._words.number([*chain.from_iterable(rows)])
        of_part = _row_numbers(rows)
        pairs, of_pair, pair_times = _repeated(*_bigrams(*words.hashes(numbers), of_part))
        columns = self.state.columns[pairs]
        if len(columns) and columns.min() < 0:
            seen = columns >= 0
            columns, of_pair, pair_times = columns[seen], of_pair[seen], pair_times[seen]
        pair_values = self._idf[columns] * pair_times
        number, of_word, factors = _repeated(numbers, of_part)
        lengths = np.bincount(of_word, weights=words.squares(number) * factors**2, minlength=len(texts))
        lengths += np.bincount(of_pair, weights=pair_values * pair_values, minlength=len(texts))
        scale = (1 / np.sqrt(np.maximum(lengths, _SMALLEST))).astype(np.float32)
        factors *= scale[of_word]
        pair_values *= scale[of_pair]
        width = self.state.n_columns
        return NgramRows(len(texts), width, words, number, of_word, factors, columns, of_pair, pair_values)

    def _weighed(self, words: Sequence[str]) -> list[NgramWord]:
        found = []
        for hashes, hashed, _ in _hashed(words):
            columns = self.state.columns[hashed]
            columns = columns[columns >= 0]
            found.append(NgramWord(hashes, columns, self._idf[columns]))
        return found


@dataclass(frozen=True, slots=True)
class NgramRows:
    """N-grams of N rows by the M distinct words of each, and P bigrams.

    Parameters
    ----------
    n_rows, width
        N, and the number of columns.
    words
        The words by number.
    numbers : int64[M]
        Number of each word.
    of_word : int64[M]
        Its row.
    factors : float32[M]
        By which its weights are multiplied.
    pairs : int32[P]
        Column of each bigram.
    of_pair : int64[P]
        Its row.
    pair_values : float32[P]
        Its value.
    """

    n_rows: int
    width: int
    words: NumberedWords
    numbers: Rows
    of_word: Rows
    factors: Floats
    pairs: Columns
    of_pair: Rows
    pair_values: Floats
    repeat: ClassVar[bool] = True

    def entries(self) -> SparseRows:
        """Return the entries, of which several may be of one cell."""
        words = [self.words[number] for number in self.numbers.tolist()]
        sizes = np.fromiter((len(word.columns) for word in words), np.int64, len(words))
        weights = np.concatenate([_NONE, *(word.weights for word in words)])
        rows = np.concatenate([self.of_pair, np.repeat(self.of_word, sizes)])
        columns = np.concatenate([self.pairs, *(word.columns for word in words)])
        values = np.concatenate([self.pair_values, weights * np.repeat(self.factors, sizes)])
        return SparseRows(self.n_rows, self.width, rows, columns, values, repeat=True)

    def product(self, weight: Floats, start: int) -> Floats:
        """Return float32[N, H], the rows times the rows of weight float32[D, H] from ``start`` on.

        Where outputs are few, those of known words are remembered.
        """
        if weight.shape[1] > NARROW:
            return self.entries().product(weight, start)
        of_pairs = weight[self.pairs + start] * self.pair_values[:, None]
        of_words = self.words.products(self.numbers, weight, start) * self.factors[:, None]
        rows = np.concatenate([self.of_pair, self.of_word])
        return sums_by_row(np.concatenate([of_pairs, of_words]), rows, self.n_rows)


def _blocks(texts: Sequence[str | None]) -> Iterator[Sequence[str | None]]:
    """Yield texts in blocks of at most 20,000 rows and, beyond one row, ten million characters."""
    ends = np.cumsum([0 if text is None else len(text) for text in texts])
    start = 0
    while start < len(texts):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + _BLOCK_CHARACTERS, side="right"))
        stop = max(start + 1, min(stop, start + _BLOCK_ROWS))
        yield texts[start:stop]
        start = stop


def _split(texts: Sequence[str | None]) -> list[list[str]]:
    """Return the lowered parts without blanks of each text."""
    return [[] if text is None else text.lower().split() for text in texts]


def _hashed(words: Sequence[str]) -> list[NgramWord]:
    """Return parts of texts, their n-grams by hashes, without weights."""
    inner = [_WORD.findall(word) for word in words]
    flat = [*chain.from_iterable(inner)]
    hashes = _polynomials(flat) if flat else np.zeros(0, np.uint64)
    starts = np.cumsum([0, *map(len, inner)])
    unigrams = _column(hashes, WORD_COLUMNS).astype(np.int32)
    return [
        NgramWord(hashes[start:stop], np.concatenate([unigrams[start:stop], letters]), _NONE)
        for start, stop, letters in zip(starts[:-1], starts[1:], _character_columns(words), strict=True)
    ]


def _bigrams(words: Hashes, of_word: Rows, of_part: Rows) -> tuple[Rows, Rows]:
    """Return hashed columns and rows of the pairs of words that follow each other in a row.

    ``of_word`` are the parts of the words, ``of_part`` the rows of the parts.
    """
    rows = of_part[of_word]
    pairs = np.flatnonzero(rows[1:] == rows[:-1])
    return _column(words[pairs] * _MULTIPLIER + words[pairs + 1], WORD_COLUMNS), rows[pairs]


def _repeated(columns: Rows, rows: Rows) -> tuple[Rows, Rows, Floats]:
    """Return each column of a row once, its row, and 1 + the logarithm of how often it is there."""
    cells = (rows << 32) + columns
    cells.sort()
    times = np.ones(len(cells), np.float32)
    if (is_again := cells[1:] == cells[:-1]).any():
        stops = np.append(np.flatnonzero(~is_again) + 1, len(cells))
        counts = stops.copy()
        counts[1:] -= stops[:-1]
        times = 1 + np.log(counts.astype(np.float32))
        cells = cells[stops - 1]
    return cells & 0xFFFFFFFF, cells >> 32, times


def _row_numbers(rows: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Return the row of every word."""
    return np.repeat(np.arange(len(rows)), np.fromiter(map(len, rows), np.int64, len(rows)))


def _column(hashes: Hashes, columns: int) -> NDArray[np.int64]:
    """Return one of a power of two of columns for each hash."""
    mixed = (hashes ^ (hashes >> np.uint64(32))) * _MULTIPLIER
    return (mixed >> np.uint64(65 - columns.bit_length())).astype(np.int64)


def _code_points(words: Sequence[str]) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """Return the code points of words one after another, their places in their words, and the words' lengths."""
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    points = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    places = np.arange(len(points)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return points, places, lengths


def _polynomials(words: Sequence[str]) -> Hashes:
    """Return the hashes of words of at least one character, uint64[M]: polynomials in the code points."""
    points, places, lengths = _code_points(words)
    powers = np.cumprod(np.full(int(lengths.max()), _MULTIPLIER))
    return np.add.reduceat(points * powers[places], np.cumsum(lengths) - lengths)


def _character_columns(words: Sequence[str]) -> list[Columns]:
    """Return the columns of the character n-grams of each word, with repetitions."""
    points, places, lengths = _code_points([f" {word} " for word in words])
    left = np.repeat(lengths, lengths) - places  # characters from here to the end of the word
    owners = np.repeat(np.arange(len(words)), lengths)
    least, most = CHARACTER_NGRAMS
    columns, of_word = [], []
    hashes = points.copy()
    for n in range(2, most + 1):
        hashes[: 1 - n] = hashes[: 1 - n] * _MULTIPLIER + points[n - 1 :]
        if n >= least:
            whole = left >= n
            columns.append(WORD_COLUMNS + _column(hashes[whole] + np.uint64(n), CHARACTER_COLUMNS))
            of_word.append(owners[whole])
    order = np.argsort(np.concatenate(of_word), kind="stable")
    joined = np.concatenate(columns)[order].astype(np.int32)
    return np.split(joined, np.cumsum(np.bincount(np.concatenate(of_word), minlength=len(words)))[:-1])
