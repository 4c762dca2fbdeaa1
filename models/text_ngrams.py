"""Encoder of text for linear models: TF-IDF of word 1-2-grams and of character 2-5-grams, hashed to columns."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Annotated, ClassVar, Final, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, StrictBool, StrictInt

from models.column_encoders import SparseRows
from models.errors import DataError

WORD_COLUMNS: Final = 1 << 16
CHARACTER_COLUMNS: Final = 1 << 18
CHARACTER_NGRAMS: Final = (2, 5)

_BLOCK_ROWS = 20_000
_SMALLEST = 1e-30
_HASHED = WORD_COLUMNS + CHARACTER_COLUMNS
_WORD = re.compile(r"\w\w+")
_MEMO_WORDS, _MEMO_CHARACTERS = 30_000, 24
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, made odd

T = TypeVar("T")
Hashes = NDArray[np.uint64]
Columns = NDArray[np.int32]
Rows = NDArray[np.int64]


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
    >>> rows = ngrams.transform(["water"])
    >>> (rows.values**2).sum().round(6).item()
    1.0
    """

    def __init__(self, state: NgramState) -> None:
        self.state = state
        self._idf = state.idf.astype(np.float32)
        self._words: _Memo[_Word] = _Memo(self._weighed)

    @classmethod
    def fit(cls, texts: Sequence[str | None]) -> HashedNgrams:
        """Count the rows of every n-gram."""
        memo: _Memo[_HashedWord] = _Memo(_hashed)
        counts = np.zeros(_HASHED, np.int64)
        for start in range(0, len(texts), _BLOCK_ROWS):
            rows = _split(texts[start : start + _BLOCK_ROWS])
            words = memo.of(rows)
            of_word = _row_numbers(rows)
            pairs, of_pair = _bigrams([word.hashes for word in words], of_word)
            of_ngram = np.repeat(of_word, np.fromiter((len(word.columns) for word in words), np.int64, len(words)))
            columns = np.concatenate([pairs, *(word.columns for word in words)])
            cells = np.concatenate([of_pair, of_ngram]) * _HASHED + columns
            cells.sort()
            counts += np.bincount(cells[np.flatnonzero(np.diff(cells, prepend=-1))] % _HASHED, minlength=_HASHED)
        return cls(NgramState.of(max(len(texts), 1), counts.astype(np.int32), None in texts))

    def transform(self, texts: Sequence[str | None]) -> SparseRows:
        """Return N rows; a missing text, like one without known n-grams, is a row of zeros."""
        rows = _split(texts)
        words, of_word = self._words.of(rows), _row_numbers(rows)
        pairs, of_pair, pair_times = _repeated(*_bigrams([word.hashes for word in words], of_word))
        known = dict(zip(chain.from_iterable(rows), words, strict=True))
        counted = [Counter(row) for row in rows]
        distinct = [known[word] for word in chain.from_iterable(counted)]
        times = np.fromiter(chain.from_iterable(row.values() for row in counted), np.float32, len(distinct))
        _, columns, weights, squares = zip(*distinct, strict=True) if distinct else ((), (), (), ())
        of_word, word_times = _row_numbers(counted), 1 + np.log(times)
        of_pairs = self.state.columns[pairs]
        seen = of_pairs >= 0
        of_pair, of_pairs = of_pair[seen], of_pairs[seen]
        pair_weights = self._idf[of_pairs] * pair_times[seen].astype(np.float32)
        lengths = np.bincount(of_word, weights=np.array(squares) * word_times**2, minlength=len(texts))
        lengths += np.bincount(of_pair, weights=pair_weights * pair_weights, minlength=len(texts))
        scale = (1 / np.sqrt(np.maximum(lengths, _SMALLEST))).astype(np.float32)
        sizes = np.fromiter(map(len, columns), np.int64, len(columns))
        factors = np.concatenate([scale[of_pair], np.repeat(word_times * scale[of_word], sizes)])
        values = np.concatenate([pair_weights, *weights]) * factors
        at = np.concatenate([of_pair, np.repeat(of_word, sizes)])
        return SparseRows(len(texts), self.state.n_columns, at, np.concatenate([of_pairs, *columns]), values, True)

    def _weighed(self, words: Sequence[str]) -> list[_Word]:
        found = []
        for hashes, hashed in _hashed(words):
            columns = self.state.columns[hashed]
            columns = columns[columns >= 0]
            weights = self._idf[columns]
            found.append(_Word(hashes, columns, weights, float(weights @ weights)))
        return found


class _Word(NamedTuple):
    """Part of a text without blanks: hashes of its words, its n-grams but bigrams, their weights and squares."""

    hashes: list[int]
    columns: Columns
    weights: NDArray[np.float32]
    squares: float


class _HashedWord(NamedTuple):
    """The same by hashes alone."""

    hashes: list[int]
    columns: Columns


class _Memo(Generic[T]):
    """Values of words, computed together for those that are new."""

    def __init__(self, compute: Callable[[Sequence[str]], Sequence[T]]) -> None:
        self._compute = compute
        self._known: dict[str, T] = {}

    def of(self, rows: Sequence[Sequence[str]]) -> list[T]:
        """Return the values of the words of some rows, one after another."""
        known, words = self._known, list(chain.from_iterable(rows))
        new = [word for word in dict.fromkeys(words) if word not in known]
        if not new:
            return [known[word] for word in words]
        fresh = dict(zip(new, self._compute(new), strict=True))
        found = [fresh[word] if word in fresh else known[word] for word in words]
        if len(known) + len(fresh) > _MEMO_WORDS:
            self._known = known = {}
        if len(fresh) <= _MEMO_WORDS:
            known.update((word, value) for word, value in fresh.items() if len(word) <= _MEMO_CHARACTERS)
        return found


def _split(texts: Sequence[str | None]) -> list[list[str]]:
    """Return the lowered parts without blanks of each text."""
    return [[] if text is None else text.lower().split() for text in texts]


def _hashed(words: Sequence[str]) -> list[_HashedWord]:
    """Return the hashes of parts of texts."""
    inner = [_WORD.findall(word) for word in words]
    flat = [*chain.from_iterable(inner)]
    hashes = _polynomials(flat) if flat else np.zeros(0, np.uint64)
    starts = np.cumsum([0, *map(len, inner)])
    unigrams = _column(hashes, WORD_COLUMNS).astype(np.int32)
    return [
        _HashedWord(hashes[start:stop].tolist(), np.concatenate([unigrams[start:stop], letters]))
        for start, stop, letters in zip(starts[:-1], starts[1:], _character_columns(words), strict=True)
    ]


def _bigrams(
    hashes: Sequence[Sequence[int]], of_part: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return hashed columns and rows of the pairs of words that follow each other in a row."""
    words = np.array([*chain.from_iterable(hashes)], np.uint64)
    of_word = np.repeat(of_part, np.fromiter(map(len, hashes), np.int64, len(hashes)))
    pairs = np.flatnonzero(of_word[1:] == of_word[:-1])
    return _column(words[pairs] * _MULTIPLIER + words[pairs + 1], WORD_COLUMNS), of_word[pairs]


def _repeated(columns: Rows, rows: Rows) -> tuple[Rows, Rows, NDArray[np.float64]]:
    """Return each column of a row once, its row, and 1 + the logarithm of how often it is there."""
    cells = rows * _HASHED + columns
    cells.sort()
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    return cells[starts] % _HASHED, cells[starts] // _HASHED, 1 + np.log(np.diff(starts, append=len(cells)))


def _row_numbers(rows: Sequence[Collection[str]]) -> NDArray[np.int64]:
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
