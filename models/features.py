"""From rows of a table to features, the same whether rows come as a data frame or as records of a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from models.errors import ConfigError, DataError
from models.feature_states import State, TextState, state_from_json, state_to_json
from models.table_features import NumberScale, Vocabulary, as_name, as_number
from models.text_features import N_HASHED, HashedWords, SparseRows, side_by_side
from sfs.errors import did_you_mean
from sfs.record import Columns

if TYPE_CHECKING:
    from models.rows import FeatureRows

FeatureKind: TypeAlias = Literal["text", "number", "category"]
Table: TypeAlias = pd.DataFrame | Sequence[Mapping[str, Any]]
"""N rows: a data frame, or a list of records."""

MAX_CATEGORIES = 100
MIN_CATEGORY_ROWS = 2
_BLOCK_ROWS = 50_000
_NAME_CHARS = 60


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One column and how it is read: ``text``, ``number`` or ``category``.

    Raises
    ------
    ConfigError
        If the kind is none of these.
    """

    column: str
    kind: FeatureKind

    def __post_init__(self) -> None:
        if self.kind not in get_args(FeatureKind):
            kinds = ", ".join(get_args(FeatureKind))
            raise ConfigError(f"feature {self.column!r} cannot be {self.kind!r}: the kinds are {kinds}")


class Featurizer:
    """Turns columns into features: hashed words, scaled numbers, and one column per category.

    Words and categories come first (sparse), then numbers and the indicators of missing values (dense).
    Infinite numbers count as missing; dates are refused; a category that training did not see, or saw once,
    falls into one shared column. The state is JSON, floats exact.

    Parameters
    ----------
    specs
        The features, in order.

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

    def __init__(self, specs: Sequence[FeatureSpec]) -> None:
        self.specs = tuple(specs)
        names = [spec.column for spec in self.specs]
        if not names:
            raise ConfigError("name at least one feature: a column and text, number or category")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"feature {twice!r} is named twice: a column is one feature")
        self._states: dict[str, State] = {}
        self._words = {s.column: HashedWords() for s in self.specs if s.kind == "text"}

    def fit(self, rows: Table) -> Featurizer:
        """Learn scales and vocabularies from training rows, and return self.

        Raises
        ------
        DataError
            If a column is missing, or holds what its kind cannot read.
        """
        check_columns(rows, [spec.column for spec in self.specs])
        columns, numbers = Columns(rows), _row_numbers(rows)
        for spec in self.specs:
            self._states[spec.column] = _fitted(spec, _values(columns, spec, numbers))
        return self

    def transform(self, rows: Table) -> FeatureRows:
        """Return the features of N rows.

        Raises
        ------
        DataError
            If a column is missing, or holds what its kind cannot read.
        """
        from models.rows import FeatureRows  # brings torch, which checking columns does without

        check_columns(rows, [spec.column for spec in self.specs])
        numbers = _row_numbers(rows)
        blocks = [self._block(_cut(rows, at), numbers[at : at + _BLOCK_ROWS]) for at in _starts(rows)]
        if len(blocks) == 1:
            return FeatureRows(*blocks[0])
        dense, scattered = zip(*blocks, strict=True)
        stacked = None if scattered[0] is None else sparse.vstack(scattered, format="csr")
        return FeatureRows(np.concatenate(dense), stacked)

    def _block(
        self, rows: Table, numbers: Sequence[Any]
    ) -> tuple[NDArray[np.float32], sparse.csr_matrix | None]:
        columns = Columns(rows)
        scattered: list[SparseRows] = []
        dense: list[NDArray[np.float32]] = [np.zeros((len(columns), 0), dtype=np.float32)]
        for spec in self.specs:
            for part in self._parts(spec, _values(columns, spec, numbers)):
                if isinstance(part, SparseRows):
                    scattered.append(part)
                else:
                    dense.append(part)
        return np.concatenate(dense, axis=1), side_by_side(scattered) if scattered else None

    @property
    def n_features(self) -> int:
        """D, after fitting."""
        return sum(_width(self._state(spec)) for spec in self.specs)

    def _state(self, spec: FeatureSpec) -> State:
        if spec.column not in self._states:
            raise DataError("this featurizer has not been fitted: call fit(rows) with training rows first")
        return self._states[spec.column]

    def _parts(self, spec: FeatureSpec, values: Any) -> Iterator[SparseRows | NDArray[np.float32]]:
        state = self._state(spec)
        if isinstance(state, NumberScale):
            yield state.transform(values)
        elif isinstance(state, Vocabulary):
            yield _one_hot(state.transform(values), len(state.names) + 2)
        else:
            yield self._words[spec.column].transform(values)
            missing = np.array([value is None and state.missing_seen for value in values], dtype=np.float32)
            yield missing[:, None]

    def to_json(self) -> list[dict[str, Any]]:
        """Return specs and state as JSON values; floats are exact when written by ``json``."""
        return [
            {"column": s.column, "kind": s.kind, "state": state_to_json(self._state(s))} for s in self.specs
        ]

    @classmethod
    def from_json(cls, saved: Any) -> Featurizer:
        """Return the featurizer that ``to_json`` described.

        Raises
        ------
        DataError
            If the description is not one, or a field of it is of another kind.
        """
        if not isinstance(saved, list) or not all(map(_is_description, saved)):
            raise DataError("this is no state of a featurizer: expected a column, kind and state per feature")
        try:
            featurizer = cls([FeatureSpec(item["column"], item["kind"]) for item in saved])
        except ConfigError as error:
            raise DataError(f"this is no state of a featurizer: {error}") from error
        for item in saved:
            state = state_from_json(item["column"], item["kind"], item["state"])
            featurizer._states[item["column"]] = state
        return featurizer


def _is_description(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and set(item) == {"column", "kind", "state"}
        and isinstance(item["column"], str)
        and isinstance(item["kind"], str)
    )


def check_columns(rows: Table, names: Sequence[str]) -> None:
    """Raise DataError unless every row has every named column; a missing value is null, not absent."""
    if isinstance(rows, pd.DataFrame):
        _check_names(list(map(str, rows.columns)), names, "the table has")
        return
    for row, record in enumerate(rows):
        if not isinstance(record, Mapping):
            raise DataError(f"row {row} is a {type(record).__name__}: expected a record, {{column: value}}")
        if not all(name in record for name in names):
            _check_names(list(map(str, record)), names, f"row {row} has")


def _check_names(present: Sequence[str], names: Sequence[str], who: str) -> None:
    for name in names:
        if name not in present:
            names = [each[:_NAME_CHARS] for each in present]  # those of a request have any length
            raise DataError(f"{who} no column {name!r}{did_you_mean(name, names)}")
        if present.count(name) > 1:
            raise DataError(f"{who} column {name!r} more than once: rename one of them")


def _starts(rows: Table) -> range:
    return range(0, max(len(rows), 1), _BLOCK_ROWS)


def _cut(rows: Table, start: int) -> Table:
    part = slice(start, start + _BLOCK_ROWS)
    return rows.iloc[part] if isinstance(rows, pd.DataFrame) else rows[part]


def _row_numbers(rows: Table) -> Sequence[Any]:
    """Return how messages call the rows: by index, so that a part of a table names rows of the whole."""
    return cast("Sequence[Any]", rows.index) if isinstance(rows, pd.DataFrame) else range(len(rows))


def _values(columns: Columns, spec: FeatureSpec, numbers: Sequence[Any]) -> Any:
    """Return what a column's kind reads: float[N] with NaN for a number, else N spelled values or None."""
    values = columns.column(spec.column)
    pairs = zip(values, numbers, strict=True)
    if spec.kind != "number":
        return [as_name(value, spec.column, row) for value, row in pairs]
    if set(map(type, values)) <= {float, type(None)}:  # nearly always, and several times faster
        found = np.array(values, dtype=np.float64)
        return np.where(np.isfinite(found), found, np.nan)
    read = (as_number(value, spec.column, row) for value, row in pairs)
    return np.fromiter(read, dtype=np.float64, count=len(values))


def _fitted(spec: FeatureSpec, values: Any) -> State:
    if spec.kind == "number":
        return NumberScale.fit(values)
    if spec.kind == "category":
        return Vocabulary.fit(values, MAX_CATEGORIES, MIN_CATEGORY_ROWS)
    return TextState(N_HASHED, None in values)


def _width(state: State) -> int:
    if isinstance(state, NumberScale):
        return 2
    return len(state.names) + 2 if isinstance(state, Vocabulary) else state.n_hashed + 1


def _one_hot(places: NDArray[np.int64], width: int) -> SparseRows:
    known = places >= 0
    columns = places[known]
    return SparseRows(width, known.astype(np.int64), columns, np.ones(len(columns), dtype=np.float32))
