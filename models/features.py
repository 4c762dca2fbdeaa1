"""Feature extraction from a data frame or from request records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray
from pydantic import Discriminator, Tag, TypeAdapter, ValidationError

from models.column_encoders import (
    N_HASHED,
    BinnedNumber,
    HashedWords,
    NumberScale,
    TextState,
    Vocabulary,
    as_number,
    as_text,
)
from models.errors import ConfigError, DataError, require_type
from models.sparse_rows import SparseBlock, SparseRows, joined_csr
from models.text_ngrams import HashedNgrams, NgramState
from sfs.errors import did_you_mean
from sfs.record import Columns

if TYPE_CHECKING:
    from models.batches import FeatureRows

FeatureKind: TypeAlias = Literal["text", "number", "category"]
State: TypeAlias = TextState | NgramState | NumberScale | BinnedNumber | Vocabulary
Table: TypeAlias = pd.DataFrame | Sequence[Mapping[str, Any]]
"""N rows: a data frame, or a list of records."""

MAX_CATEGORIES = 100
MIN_CATEGORY_ROWS = 2
_BLOCK_ROWS = 20_000
_NAME_CHARS = 60


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A column and its kind: ``text``, ``number`` or ``category``; ConfigError if the kind is unknown."""

    column: str
    kind: FeatureKind

    def __post_init__(self) -> None:
        if self.kind not in get_args(FeatureKind):
            kinds = ", ".join(get_args(FeatureKind))
            raise ConfigError(f"feature {self.column!r} has unknown kind {self.kind!r}; known are {kinds}")


class Featurizer:
    """Transform columns into features: hashed words or n-grams, scaled numbers, and one column per category.

    Words and categories come first (sparse), then numbers and the indicators of missing values (dense).
    Infinite numbers count as missing; dates are refused; a category absent from training, or seen once, falls
    into one shared column. The state is JSON, floats exact.

    Parameters
    ----------
    specs
        The features, in order.
    wide
        Features for linear models: TF-IDF of n-grams in place of hashed words, and numbers in bins, too.

    Raises
    ------
    ConfigError
        If there is no feature, or a column is named twice.

    Examples
    --------
    >>> rows = [{"likes": 1}, {"likes": 3}, {"likes": None}]
    >>> Featurizer([FeatureSpec("likes", "number")]).fit(rows).transform(rows).shape
    (3, 2)
    """

    def __init__(self, specs: Sequence[FeatureSpec], *, wide: bool = False) -> None:
        self.specs, self.wide = tuple(specs), wide
        for spec in self.specs:
            require_type(spec, FeatureSpec, "a feature", "a FeatureSpec, such as FeatureSpec('comment', 'text')")
        names = [spec.column for spec in self.specs]
        if not names:
            raise ConfigError("no features: name at least one column and its kind, text, number or category")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"feature {twice!r} is named twice: name each column once")
        self._states: dict[str, State] = {}
        self._texts: dict[str, HashedWords | HashedNgrams] = {}

    def fit(self, rows: Table) -> Featurizer:
        """Learn scales and vocabularies from training rows, and return self.

        Raises
        ------
        DataError
            If a column is missing, or holds values that its kind cannot read.
        """
        check_columns(rows, [spec.column for spec in self.specs])
        columns, numbers = Columns(rows), _row_numbers(rows)
        for spec in self.specs:
            values = _values(columns, spec, numbers)
            self._set_state(spec.column, self._fitted(spec.kind, values))
        return self

    def _fitted(self, kind: FeatureKind, values: Any) -> State:
        if kind == "number":
            return BinnedNumber.fit(values) if self.wide else NumberScale.fit(values)
        if kind == "category":
            return Vocabulary.fit(values, MAX_CATEGORIES, MIN_CATEGORY_ROWS)
        return HashedNgrams.fit(values).state if self.wide else TextState(N_HASHED, None in values)

    def _set_state(self, column: str, state: State) -> None:
        self._states[column] = state
        if isinstance(state, TextState):
            self._texts[column] = HashedWords()
        elif isinstance(state, NgramState):
            self._texts[column] = HashedNgrams(state)

    def transform(self, rows: Table) -> FeatureRows:
        """Return the features of N rows.

        Raises
        ------
        DataError
            If a column is missing, or holds values that its kind cannot read.
        """
        from models.batches import FeatureRows  # imports torch, not needed to check columns

        check_columns(rows, [spec.column for spec in self.specs])
        numbers = _row_numbers(rows)
        dense, scattered = [], []
        for start in range(0, max(len(rows), 1), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            block = rows.iloc[part] if isinstance(rows, pd.DataFrame) else rows[part]
            of_block, sparse_block = self._transform_block(Columns(block), numbers[part])
            dense.append(of_block)
            scattered.append(sparse_block)
        if len(dense) == 1:
            return FeatureRows(dense[0], scattered[0] or None, self._one_hot)
        blocks = [joined_csr(block) for block in scattered if block]
        joined = scipy.sparse.vstack(blocks, format="csr") if blocks else None
        return FeatureRows(np.concatenate(dense), joined, self._one_hot)

    def check(self, record: Mapping[str, Any]) -> None:
        """Raise DataError unless `transform` can read a record; takes microseconds."""
        check_columns([record], [spec.column for spec in self.specs])
        columns = Columns([record])
        for spec in self.specs:
            _values(columns, spec, [0])

    def _transform_block(
        self, columns: Columns, numbers: Sequence[Any]
    ) -> tuple[NDArray[np.float32], list[SparseBlock]]:
        scattered: list[SparseBlock] = []
        dense: list[NDArray[np.float32]] = [np.zeros((len(columns), 0), dtype=np.float32)]
        for spec in self.specs:
            state, values = self._state(spec), _values(columns, spec, numbers)
            if isinstance(state, NumberScale):
                dense.append(state.transform(values))
            elif isinstance(state, BinnedNumber):
                dense.append(state.scale.transform(values))
                scattered.append(state.bins(values))
            elif isinstance(state, Vocabulary):
                places = state.transform(values)
                known = np.flatnonzero(places >= 0)
                ones = np.ones(len(known), dtype=np.float32)
                scattered.append(SparseRows(len(places), len(state.names) + 2, known, places[known], ones))
            else:
                scattered.append(self._texts[spec.column].transform(values))
                missing = [value is None and state.missing_seen for value in values]
                dense.append(np.array(missing, dtype=np.float32)[:, None])
        return np.concatenate(dense, axis=1), scattered

    @property
    def _one_hot(self) -> tuple[tuple[int, int], ...]:
        """Columns of each category, as `FeatureRows.one_hot`."""
        found, place = [], 0
        for spec in self.specs:
            state = self._state(spec)
            width = _sparse_width(state)
            if isinstance(state, Vocabulary):
                found.append((place, place + width))
            place += width
        return tuple(found)

    @property
    def n_features(self) -> int:
        """D, after fitting."""
        return sum(_width(self._state(spec)) for spec in self.specs)

    def _state(self, spec: FeatureSpec) -> State:
        if spec.column not in self._states:
            raise DataError("the featurizer is not fitted: call fit(rows) with training rows first")
        return self._states[spec.column]

    def to_json(self) -> list[dict[str, Any]]:
        """Return specs and state as JSON values; floats are exact when written by ``json``."""
        return [{"column": s.column, "kind": s.kind, "state": asdict(self._state(s))} for s in self.specs]

    @classmethod
    def from_json(cls, saved: Any) -> Featurizer:
        """Return the featurizer of ``to_json``; DataError if the state is malformed."""
        try:
            features = _FEATURES.validate_python(saved)
            featurizer = cls([FeatureSpec(feature.column, feature.kind) for feature in features])
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ", ".join(map(str, fault["loc"]))
            raise DataError(
                f"malformed state of feature {place}: {fault['msg']}, got {fault['input']!r:.80}"
            ) from error
        except ConfigError as error:
            raise DataError(f"malformed state of a featurizer: {error}") from error
        for feature in features:
            featurizer._set_state(feature.column, feature.state)
        return featurizer


def _sparse_width(state: State) -> int:
    """Return the number of sparse columns."""
    if isinstance(state, Vocabulary):
        return len(state.names) + 2
    if isinstance(state, NgramState):
        return state.n_columns
    if isinstance(state, BinnedNumber):
        return state.n_bins
    return 0 if isinstance(state, NumberScale) else N_HASHED


def _width(state: State) -> int:
    """Return the number of columns, with those of numbers and of missing values."""
    dense = 0 if isinstance(state, Vocabulary) else 2 if isinstance(state, NumberScale | BinnedNumber) else 1
    return _sparse_width(state) + dense


@dataclass(frozen=True, slots=True)
class _TextFeature:
    column: str
    kind: Literal["text"]
    state: TextState


@dataclass(frozen=True, slots=True)
class _NgramFeature:
    column: str
    kind: Literal["text"]
    state: NgramState


@dataclass(frozen=True, slots=True)
class _NumberFeature:
    column: str
    kind: Literal["number"]
    state: NumberScale


@dataclass(frozen=True, slots=True)
class _BinnedFeature:
    column: str
    kind: Literal["number"]
    state: BinnedNumber


@dataclass(frozen=True, slots=True)
class _CategoryFeature:
    column: str
    kind: Literal["category"]
    state: Vocabulary


def _kind_of_state(saved: Any) -> Any:
    """Return the kind of a saved feature, or that of its state where a kind has two."""
    if not isinstance(saved, dict):
        return None
    state = saved.get("state")
    if isinstance(state, dict) and "document_frequencies" in state:
        return "n-grams"
    return "bins" if isinstance(state, dict) and "edges" in state else saved.get("kind")


_Feature: TypeAlias = Annotated[
    Annotated[_TextFeature, Tag("text")]
    | Annotated[_NgramFeature, Tag("n-grams")]
    | Annotated[_NumberFeature, Tag("number")]
    | Annotated[_BinnedFeature, Tag("bins")]
    | Annotated[_CategoryFeature, Tag("category")],
    Discriminator(_kind_of_state),
]

_FEATURES = TypeAdapter(list[_Feature])


def check_columns(rows: Table, names: Sequence[str]) -> None:
    """Raise DataError unless every row has every named column; a missing value is null, not absent."""
    if isinstance(rows, pd.DataFrame):
        _check_names(list(map(str, rows.columns)), names, "the table")
        return
    wanted = frozenset(names)
    for row, record in enumerate(rows):
        if not isinstance(record, Mapping):
            raise DataError(f"row {row} is a {type(record).__name__}: expected a record, {{column: value}}")
        if not record.keys() >= wanted:
            _check_names(list(map(str, record)), names, f"row {row}")


def _check_names(present: Sequence[str], names: Sequence[str], subject: str) -> None:
    for name in names:
        if name not in present:
            names = [each[:_NAME_CHARS] for each in present]  # names from a request may have any length
            raise DataError(f"{subject} has no column {name!r}{did_you_mean(name, names)}")
        if present.count(name) > 1:
            raise DataError(f"{subject} has column {name!r} more than once: rename one of them")


def _row_numbers(rows: Table) -> Sequence[Any]:
    """Return the row numbers for messages: by index, so that a part of a table names rows of the whole."""
    return cast("Sequence[Any]", rows.index) if isinstance(rows, pd.DataFrame) else range(len(rows))


def _values(columns: Columns, spec: FeatureSpec, numbers: Sequence[Any]) -> Any:
    """Return the input of a column's encoder: float[N] with NaN for a number, else N spelled values or None."""
    values = columns.column(spec.column)
    pairs = zip(values, numbers, strict=True)
    if spec.kind != "number":
        return [as_text(value, spec.column, row) for value, row in pairs]
    if set(map(type, values)) <= {float, type(None)}:  # nearly always, and several times faster
        floats = np.array(values, dtype=np.float64)
        return np.where(np.isfinite(floats), floats, np.nan)
    read = (as_number(value, spec.column, row) for value, row in pairs)
    return np.fromiter(read, dtype=np.float64, count=len(values))
