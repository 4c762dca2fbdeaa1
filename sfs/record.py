"""Rows as slicing functions see them, and the columns that templates read."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard

import numpy as np

from sfs.errors import UnknownName
from sfs.values import present

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Rows: TypeAlias = "pd.DataFrame | Sequence[Any] | NDArray[Any]"
"""N rows: a data frame, or a sequence of mappings or of any objects with attributes."""


class _Absent:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""What ``Columns.field`` holds for a record that has no such field."""


def is_frame(rows: Rows) -> TypeGuard[pd.DataFrame]:
    """Tell whether the rows are a data frame, without importing pandas where nobody has."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, pandas.DataFrame)


class Record:
    """One frozen row: a field is an attribute (``x.text``) or an item (``x["my column"]``); missing is None.

    Examples
    --------
    >>> x = Record({"text": "Cool video!", "like count": 3})
    >>> x.text, x["like count"]
    ('Cool video!', 3)
    """

    __slots__ = ("__dict__",)

    def __init__(self, fields: dict[str, Any]) -> None:
        object.__setattr__(self, "__dict__", fields)

    def __getattr__(self, name: str) -> Any:  # reached only when the field does not exist
        raise AttributeError(f"the record has no field {name!r}; its fields are {list(self.__dict__)}")

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or the default where the record has none."""
        return self.__dict__.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a record cannot be changed: derive field {name!r} in a preprocessor instead")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a record cannot be changed: field {name!r} stays")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # fields may be unhashable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__dict__!r})"

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return type(self), (self.__dict__,)


class Columns:
    """N rows, readable row by row (``records``) and field by field (``column``), each made once when first read.

    Parameters
    ----------
    rows
        A data frame, a sequence of mappings, or a sequence of any objects; objects are handed to functions as they are.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._fields: dict[str, list[Any]] = {}
        self._columns: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def records(self) -> list[Any]:
        """The N rows as functions see them."""
        if is_frame(self._rows):
            names = [str(name) for name in self._rows.columns]
            if not names:
                return [Record({}) for _ in range(len(self))]
            values = [self.field(name) for name in names]
            return [Record(dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]
        return [_record(row) for row in self._rows]

    def column(self, name: str) -> list[Any]:
        """Return N values of one field, None where it is missing or a record has no such field.

        Raises
        ------
        UnknownName
            If the rows are a data frame without such a column.
        """
        if name not in self._columns:
            self._columns[name] = [None if value is ABSENT else value for value in self.field(name)]
        return self._columns[name]

    def field(self, name: str) -> list[Any]:
        """Return N values as in ``column``, but ``ABSENT`` where a record has no such field."""
        if name not in self._fields:
            self._fields[name] = self._read(name)
        return self._fields[name]

    def _read(self, name: str) -> list[Any]:
        if is_frame(self._rows):
            return _series_values(self._rows, name)
        return [present(_field(row, name)) for row in self._rows]


def _series_values(frame: pd.DataFrame, name: str) -> list[Any]:
    position = (
        [str(column) for column in frame.columns].index(name) if name in map(str, frame.columns) else None
    )
    if position is None:
        raise UnknownName(f"no column {name!r}; the columns are {[str(c) for c in frame.columns]}")
    series = frame.iloc[:, position]
    values: list[Any] = series.tolist()
    missing = series.isna().to_numpy()
    for row in np.flatnonzero(missing):
        values[row] = None
    return values


def _field(row: Any, name: str) -> Any:
    if type(row) is dict or isinstance(row, Mapping):  # asking for the type first saves time on each row
        return row.get(name, ABSENT)
    if isinstance(row, Record):  # whose methods are no fields
        return row.__dict__.get(name, ABSENT)
    return getattr(row, name, ABSENT)


def _record(row: Any) -> Any:
    if isinstance(row, Mapping):
        return Record({str(key): present(value) for key, value in row.items()})
    return row
