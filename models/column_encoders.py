"""Encoders of one column: scaled numbers, a vocabulary of categories, hashed words of text.

The fitted state of an encoder is a small frozen value with an exact JSON form.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from functools import cached_property
from itertools import chain, pairwise
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, StrictBool, StrictFloat

from models.errors import DataError
from models.sparse_rows import SparseRows
from sfs.record import text_of
from sfs.schema import Column

N_HASHED: Final = 2048
_LINEAR_UP_TO = 3.0
_MAX_SCALED = 20.0
_BINS = 16
_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
_DATES = (date, time, timedelta, np.datetime64, np.timedelta64)
_WORD = re.compile(r"\w\w+")
_MEMO_WORDS = 200_000
_MEMO_CHARACTERS = 64
_NUMBER = Column("", "number")
_STATE = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class NumberScale:
    """Scale of a number column: distance from the median in robust standard deviations.

    Values beyond 3 deviations are compressed logarithmically and clipped at 20, so that an extreme value
    cannot dominate. Infinity counts as missing. A missing value is the median, and sets an indicator if
    training saw missing values (otherwise the indicator's weight would be untrained).

    Parameters
    ----------
    center, scale
        In the column's own unit.
    missing_seen
        Some training value was missing.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STATE

    center: StrictFloat
    scale: Annotated[StrictFloat, Field(gt=0)]
    missing_seen: StrictBool

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> NumberScale:
        """Learn from float[N], NaN where missing."""
        known = values[np.isfinite(values)]
        missing = len(known) < len(values)
        if not len(known):
            return cls(0.0, 1.0, missing)
        low, first, middle, third, high = np.quantile(known, _QUANTILES, method="nearest")
        with np.errstate(over="ignore"):
            spreads = ((third - first) / 1.349, (high - low) / 4.653, known.max() - known.min())
        scale = next((float(spread) for spread in spreads if 0 < spread < np.inf), 1.0)
        return cls(float(middle), scale, missing)

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return float32[N, 2]: the scaled number, and the indicator of a missing value."""
        missing = ~np.isfinite(values)
        with np.errstate(over="ignore"):
            scaled = (np.where(missing, self.center, values) - self.center) / self.scale
            beyond = np.maximum(np.abs(scaled) - _LINEAR_UP_TO, 0.0)
        near = np.minimum(np.abs(scaled), _LINEAR_UP_TO)
        squeezed = np.sign(scaled) * np.minimum(near + np.log1p(beyond), _MAX_SCALED)
        return np.stack([squeezed, missing & self.missing_seen], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class BinnedNumber:
    """Scale of a number column, and the inner limits of its bins of about equally many training rows.

    Parameters
    ----------
    scale
        The number as one column.
    edges
        Rising limits; a number is in the bin after the last limit that is not above it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STATE

    scale: NumberScale
    edges: tuple[StrictFloat, ...]

    def __post_init__(self) -> None:
        if any(low >= high for low, high in pairwise(self.edges)):
            raise DataError("the limits of bins must rise")

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> BinnedNumber:
        """Learn from float[N], NaN where missing."""
        known = values[np.isfinite(values)]
        edges = np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS, method="nearest")) if len(known) else known
        return cls(NumberScale.fit(values), tuple(edges[edges > known.min()].tolist()) if len(known) else ())

    @property
    def n_bins(self) -> int:
        """Number of bins, each a column."""
        return len(self.edges) + 1

    def bins(self, values: NDArray[np.float64]) -> SparseRows:
        """Return N rows with a one in their bin; a missing number has none."""
        known = np.flatnonzero(np.isfinite(values))
        places = np.searchsorted(np.array(self.edges), values[known], side="right")
        return SparseRows(len(values), self.n_bins, known, places.astype(np.int64), np.ones(len(known), np.float32))


@dataclass(frozen=True)
class Vocabulary:
    """Categories of a column, most frequent first, with one shared column for others and one for missing.

    As with numbers, a shared column stays 0 where training had no row for it.

    Parameters
    ----------
    names
        The categories with a column of their own, spelled by `sfs.record.text_of`.
    other_seen, missing_seen
        Some training value was another category, or missing.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STATE

    names: tuple[str, ...]
    other_seen: StrictBool
    missing_seen: StrictBool

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise DataError("the names of a vocabulary must be distinct")

    @cached_property
    def _places(self) -> dict[str | None, int]:
        places: dict[str | None, int] = {name: place for place, name in enumerate(self.names)}
        places[None] = len(self.names) + 1 if self.missing_seen else -1
        return places

    @classmethod
    def fit(cls, names: Sequence[str | None], max_names: int, min_rows: int) -> Vocabulary:
        """Learn from N spelled categories, keeping at most ``max_names`` of those with ``min_rows`` rows."""
        counts = Counter(name for name in names if name is not None)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [name for name, rows in ranked if rows >= min_rows][:max_names]
        missing = counts.total() < len(names)
        return cls(tuple(kept), len(kept) < len(counts), missing)

    def transform(self, names: Sequence[str | None]) -> NDArray[np.int64]:
        """Return int64[N], each row's column among len(names) + 2, or -1 for none."""
        other = len(self.names) if self.other_seen else -1
        places = self._places
        return np.fromiter((places.get(name, other) for name in names), dtype=np.int64, count=len(names))


@dataclass(frozen=True, slots=True)
class TextState:
    """State of a text column: the number of hashed columns, and whether training saw a missing text."""

    __pydantic_config__: ClassVar[ConfigDict] = _STATE

    n_hashed: Literal[2048]
    missing_seen: StrictBool


class HashedWords:
    """Signed counts of lowered words of at least two characters, hashed to columns, each row of length one.

    The same numbers as scikit-learn's ``HashingVectorizer(n_features)``. Without a vocabulary no word can be
    missing from it. The columns of up to 200,000 words of up to 64 characters are memoised.

    Parameters
    ----------
    n_features
        Number of columns.

    Examples
    --------
    >>> HashedWords(100).transform(["Hot hot water"]).values.astype(float).round(3).tolist()
    [0.447, 0.894]
    """

    def __init__(self, n_features: int = N_HASHED) -> None:
        self.n_features = n_features
        self.memo = _SignedColumns(n_features)

    def transform(self, texts: Sequence[str | None]) -> SparseRows:
        """Return N rows; a missing text, like one without words, is a row of zeros."""
        words = [() if text is None else _WORD.findall(text.lower()) for text in texts]
        counts = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
        codes = np.fromiter(
            map(self.memo.__getitem__, chain.from_iterable(words)), dtype=np.int64, count=int(counts.sum())
        )
        codes += np.repeat(np.arange(len(words)) * (2 * self.n_features), counts)
        codes.sort()
        cells, sums, squares = codes >> 1, 1.0 - 2.0 * (codes & 1), counts
        if (cells[1:] == cells[:-1]).any():  # a word that a row repeats
            starts = np.flatnonzero(np.diff(cells, prepend=-1))
            cells, sums = cells[starts], np.add.reduceat(sums, starts)
            squares = np.bincount(cells // self.n_features, weights=sums**2, minlength=len(words))
        rows, columns = np.divmod(cells, self.n_features)
        lengths = np.sqrt(squares)
        lengths[lengths == 0] = 1.0  # a row without words, or whose words cancel out
        values = (sums / lengths[rows]).astype(np.float32)
        return SparseRows(len(words), self.n_features, rows, columns, values)


class _SignedColumns(dict[str, int]):
    """Memo of the code of a word: 2 j for column j, or 2 j + 1 where the word counts negatively."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features

    def __missing__(self, word: str) -> int:
        from sklearn.utils import murmurhash3_32  # slow to import, and needed for new words only

        code = int(murmurhash3_32(word.encode("utf-8", "surrogatepass"), seed=0))
        place = 2 * (abs(code) % self.n_features) + (code < 0)
        if len(self) < _MEMO_WORDS and len(word) <= _MEMO_CHARACTERS:
            self[word] = place
        return place


def as_number(value: Any, column: str, row: Any) -> float:
    """Return a value as a float, NaN where missing or infinite.

    Raises
    ------
    DataError
        If the value is not a number, a boolean, or text that spells a number as in a file.
    """
    read = _NUMBER.parse(value) if isinstance(value, str) else value
    if read is None:
        return np.nan
    _refuse_dates(value, column, row)
    try:
        number = float(read if not isinstance(read, str) else "text")
    except (TypeError, ValueError):
        raise DataError(
            f"column {column!r}, row {row}: {_short(value)} is not a number: "
            "make the column a category or text feature, or correct the value"
        ) from None
    except OverflowError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def as_text(value: Any, column: str, row: Any) -> str | None:
    """Return the spelling of a category or text, None where missing.

    Raises
    ------
    DataError
        If the value is not text, a boolean or a number.
    """
    if value is None or isinstance(value, str):
        return value
    _refuse_dates(value, column, row)
    try:
        return text_of(value)
    except (TypeError, OverflowError):
        raise DataError(
            f"column {column!r}, row {row}: {_short(value)} is a {type(value).__name__}, "
            "expected text, a number or a boolean"
        ) from None


def _refuse_dates(value: Any, column: str, row: Any) -> None:
    if isinstance(value, _DATES):
        raise DataError(
            f"column {column!r}, row {row}: {_short(value)} is a date or time and cannot be used as a feature: "
            "derive a number (age in days) or a category (weekday) from it"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
