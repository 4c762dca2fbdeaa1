"""Rows: records for slicing functions, columns for templates, and copies of rows."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, wraps
from itertools import chain
from numbers import Integral, Real
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, cast

import numpy as np

from sfs.errors import UnknownName

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Rows: TypeAlias = "pd.DataFrame | Sequence[Any] | NDArray[Any]"
"""N rows: a data frame, or a sequence of mappings or of any objects with attributes."""

_ATOMS = frozenset({str, int, float, bool, bytes, complex, type(None)})
_CONTAINERS = (list, dict, set, tuple, bytearray, np.ndarray)
_NO_FIELDS: Final[Mapping[Any, Any]] = MappingProxyType({})
_PANDAS_MISSING = ("NAType", "NaTType")  # compared by name, to avoid an import of pandas


class _Absent:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""Value of ``Columns.field`` for a record without the field."""
_JSON_TYPES = frozenset({str, int, float, bool, type(None), _Absent})


def none_if_missing(value: Any) -> Any:
    """Return None for a missing value (None, NaN, pandas NA and NaT), and other values unchanged."""
    if isinstance(value, (float, np.floating)):
        return None if value != value else value
    return None if type(value).__name__ in _PANDAS_MISSING else value


def text_of(value: Any) -> str:
    """Return the canonical text of a scalar: ``1``, ``1.0`` and ``"1"`` are all ``1``.

    Raises
    ------
    TypeError
        If the value is not text, a boolean, or a number, or the number is too large to convert.

    Examples
    --------
    >>> text_of(3.0), text_of(True), text_of("Cool video!")
    ('3', 'true', 'Cool video!')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    try:
        if isinstance(value, Integral):
            return str(int(value))
        if isinstance(value, Real):
            number = float(value)
            return str(int(number)) if number.is_integer() else repr(number)
    except (OverflowError, ValueError):  # beyond 64-bit floats, or more digits than Python converts
        raise TypeError(
            f"expected text, a boolean or a number, got a number too large to convert ({type(value).__name__})"
        ) from None
    raise TypeError(f"expected text, a boolean or a number, got {type(value).__name__}")


def is_dataframe(rows: Rows) -> TypeGuard[pd.DataFrame]:
    """Return whether the rows are a data frame, without importing pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, pandas.DataFrame)


class _Fields:
    """Fields of a record as its attributes, which is how the interpreter finds them fastest."""

    __slots__ = ("__dict__",)


fields_of = cast("Callable[[_Fields], dict[Any, Any]]", vars(_Fields)["__dict__"].__get__)
"""Return the fields of a record as the dictionary that it has, to be read only."""
_set_fields = vars(_Fields)["__dict__"].__set__


class Record(_Fields):
    """Immutable row: a field is an attribute (``x.text``) or an item (``x["my column"]``), None if missing.

    ``vars(x)`` is a read-only view: every function has to see the same fields.

    Examples
    --------
    >>> x = Record({"text": "Cool video!", "like count": 3})
    >>> x.text, x["like count"]
    ('Cool video!', 3)
    """

    __slots__ = ()

    def __init__(self, fields: dict[Any, Any]) -> None:
        _set_fields(self, fields)

    @property
    def __dict__(self) -> Mapping[Any, Any]:  # type: ignore[override]  # a view, not a dict
        return MappingProxyType(fields_of(self))

    def __getattr__(self, name: str) -> Any:  # reached only when the field does not exist
        raise AttributeError(f"the record has no field {name!r}; its fields are {list(fields_of(self))}")

    def __getitem__(self, name: Any) -> Any:
        return fields_of(self)[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or the default if the record does not have it."""
        return fields_of(self).get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in fields_of(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__dict__)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a record is immutable: derive field {name!r} in a preprocessor instead")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a record is immutable: cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # fields may be unhashable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.__dict__)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (fields_of(self),)


class MutableRecord(Record):
    """Mutable copy of a record for a preprocessor: ``x.field = value`` or ``x["my field"] = value``."""

    __slots__ = ()

    @property
    def __dict__(self) -> dict[Any, Any]:  # type: ignore[override]  # it may be changed
        return fields_of(self)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, name: Any, value: Any) -> None:
        fields_of(self)[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in fields_of(self):
            self.__getattr__(name)
        del self[name]

    def __delitem__(self, name: Any) -> None:
        del fields_of(self)[name]


class _ThreadState(threading.local):
    changed: list[tuple[Any, dict[Any, Any]]] | None = None
    """Rows of Snorkel's doors that the current function changed, with their fields before; None between calls."""
    labels_read = 0
    """Number of rows whose index label may have been read."""


_state = _ThreadState()


@contextmanager
def changes_undone() -> Iterator[None]:
    """Undo the assignments to rows of the Snorkel-compatible appliers inside the block: the next function sees none."""
    before, _state.changed = _state.changed, []
    try:
        yield
    finally:
        changed, _state.changed = _state.changed, before
        for row, fields in reversed(changed):
            if isinstance(row, MappingRow):
                dict.clear(row)
                dict.update(row, fields)
                _set_fields(row, {})
            else:
                _set_fields(row, fields)


def _note_change(row: Any) -> None:
    if _state.changed is not None:
        _state.changed.append((row, dict(row if type(row) is MappingRow else fields_of(row))))


class FrameRow(MutableRecord):
    """Row of a data frame in the Snorkel-compatible appliers: a record with the interface of a Series."""

    __slots__ = ("_label",)

    def __init__(self, fields: dict[Any, Any], label: Any) -> None:
        super().__init__(fields)
        object.__setattr__(self, "_label", label)

    @property  # type: ignore[misc]  # it cannot be assigned
    def __class__(self) -> Any:
        """``Series``, for ``isinstance``."""
        import pandas as pd

        return pd.Series

    @property
    def __dict__(self) -> dict[Any, Any]:  # type: ignore[override]  # it may be changed
        _note_change(self)
        return fields_of(self)

    def __getattr__(self, name: str) -> Any:  # reached only when no column has the name
        return super().__getattr__(name) if _is_dunder(name) else getattr(self.series(), name)

    def __getitem__(self, name: Any) -> Any:
        try:
            return fields_of(self)[name]
        except (KeyError, TypeError):
            return self.series()[name]

    def get(self, name: Any, default: Any = None) -> Any:
        """Return a field, several for a list of names, or the default if the row does not have them."""
        try:
            return self[name]
        except (KeyError, IndexError, ValueError):
            return default

    def __setitem__(self, name: Any, value: Any) -> None:
        _note_change(self)
        fields_of(self)[name] = value

    def __delitem__(self, name: Any) -> None:
        _note_change(self)
        del fields_of(self)[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(fields_of(self).values())

    def __len__(self) -> int:
        return len(fields_of(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.series(), dtype)

    def series(self) -> Any:
        """Return the row as the Series that ``DataFrame.apply(axis=1)`` passes."""
        _state.labels_read += 1
        return _series(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameRow, (fields_of(self), self._label)


_SERIES_OPERATORS = (
    "eq ne lt le gt ge add sub mul truediv floordiv mod pow and or xor matmul "
    "radd rsub rmul rtruediv rfloordiv rmod rpow rand ror rxor neg pos abs invert"
)
_DICT_METHODS = frozenset(dir(dict))


def _series_operator(name: str) -> Callable[..., Any]:
    def operator(row: FrameRow, *others: Any) -> Any:
        return getattr(row.series(), name)(*(_series(o) if type(o) is FrameRow else o for o in others))

    return operator


for _name in _SERIES_OPERATORS.split():
    setattr(FrameRow, f"__{_name}__", _series_operator(f"__{_name}__"))


class MappingRow(dict[Any, Any], _Fields):
    """Row of a mapping in the Snorkel-compatible appliers: a dict whose fields can be read as attributes, too.

    A field that has the name of a method of dict is an item only. Attributes that repeat the items make reading them
    faster; without them they are looked up among the items.

    Examples
    --------
    >>> x = mapping_row({"text": "Cool video!"})
    >>> x["text"] == x.text, x == {"text": "Cool video!"}
    (True, True)
    """

    __slots__ = ()

    @property
    def __dict__(self) -> MappingRow:  # type: ignore[override]  # its items are the fields
        return self

    def __getattr__(self, name: str) -> Any:  # reached only when there is no such attribute
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the record has no field {name!r}; its fields are {list(self)}") from None

    def __setitem__(self, name: Any, value: Any) -> None:
        _note_change(self)
        dict.__setitem__(self, name, value)
        if name not in _DICT_METHODS:
            fields_of(self)[name] = value

    __setattr__ = __setitem__

    def __delattr__(self, name: str) -> None:
        if name not in self:
            self.__getattr__(name)
        del self[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return mapping_row, (dict(self),)


def mapping_row(fields: Mapping[Any, Any]) -> MappingRow:
    """Return a row with the fields of a mapping, as items and as attributes."""
    row = MappingRow(fields)
    if _DICT_METHODS.isdisjoint(fields):
        _set_fields(row, dict(fields))
    return row


def _change_of_dict(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    @wraps(method)
    def change(row: MappingRow, *args: Any, **kwargs: Any) -> Any:
        _note_change(row)
        _set_fields(row, {})
        return method(row, *args, **kwargs)

    return change


for _name in ("__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(MappingRow, _name, _change_of_dict(_name))


def with_fields(row: Any, fields: dict[Any, Any]) -> Any:
    """Return a row of the same type and label with the given fields."""
    kind, arguments = row.__reduce__()
    return kind(fields, *arguments[1:])


def mutable_copy(x: Any) -> Any:
    """Return a mutable copy of a row.

    Fields that are plain containers are copied; other objects, such as a parsed document, are shared.
    """
    if isinstance(x, Record) or type(x) is MappingRow:
        fields = {name: _copy_container(value) for name, value in x.__dict__.items()}
        return with_fields(x, fields) if type(x) in (MappingRow, FrameRow) else MutableRecord(fields)
    if _is_series(x):
        return FrameRow({name: _copy_container(value) for name, value in x.items()}, x.name)
    return copy.deepcopy(x, _document_copies(x))


def freeze(result: Any, original: Any) -> Any:
    """Return the result of a preprocessor: an immutable record, or a Series where the original is one."""
    if type(result) is MutableRecord:
        return Record(fields_of(result))
    return _series(result) if type(result) is FrameRow and _is_series(original) else result


def label_of(x: Any) -> Any:
    """Return the index label of the row of a data frame; None for other rows."""
    return x._label if type(x) is FrameRow else x.name if _is_series(x) else None


def with_label_of(result: Any, x: Any) -> Any:
    """Return a result with the index label of a row, where both have labels; the result is changed."""
    if type(result) is FrameRow:
        object.__setattr__(result, "_label", label_of(x))
    elif _is_series(result) and _is_series(x):
        result.name = x.name
    return result


def labels_read() -> int:
    """Return the number of rows in this thread whose index label may have been read."""
    return _state.labels_read


def has_containers(rows: Iterable[Any]) -> bool:
    """Return whether any record has a field that is a container, which a function could modify."""
    values = chain.from_iterable(
        (fields_of(row) if isinstance(row, Record) else row if type(row) is MappingRow else _NO_FIELDS).values()
        for row in rows
    )
    return any(issubclass(kind, _CONTAINERS) for kind in set(map(type, values)) - _ATOMS)


def copy_for_call(x: Any) -> Any:
    """Return the row for one function call: copy the containers of a record; return other rows unchanged."""
    if not has_containers((x,)):
        return x
    fields = x if type(x) is MappingRow else fields_of(x)
    return with_fields(x, {name: _copy_container(value, strict=False) for name, value in fields.items()})


def deep_copy(x: Any) -> Any:
    """Return a copy that shares no mutable objects with the row."""
    if not isinstance(x, Record) and type(x) is not MappingRow:
        return copy.deepcopy(x, _document_copies(x))
    fields = x if type(x) is MappingRow else fields_of(x)
    copies = _document_copies(fields)
    return with_fields(x, {name: v if type(v) in _ATOMS else copy.deepcopy(v, copies) for name, v in fields.items()})


def _document_copies(x: Any) -> dict[int, Any]:
    """Return copies of the spaCy documents of a row by their ids: deepcopy would copy the vocabulary with each."""
    tokens = sys.modules.get("spacy.tokens")
    if tokens is None:
        return {}
    fields: Mapping[Any, Any] = x if isinstance(x, Mapping) else getattr(x, "__dict__", _NO_FIELDS)
    return {id(value): value.copy() for value in fields.values() if isinstance(value, tokens.Doc)}


def _series(row: FrameRow) -> Any:
    import pandas as pd

    return pd.Series(dict(fields_of(row)), name=row._label)


def _copy_container(value: Any, *, strict: bool = True) -> Any:
    if type(value) in _ATOMS or not isinstance(value, _CONTAINERS):
        return value
    if type(value) is list and _ATOMS.issuperset(map(type, value)):
        return value.copy()  # faster than a deep copy, with the same result for a flat list
    try:
        return copy.deepcopy(value)
    except Exception:
        if strict:
            raise
        return value  # contains an object that cannot be copied, such as a lock


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")  # copy and pickle look for these on the instance


def _is_series(x: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and issubclass(type(x), pandas.Series)  # not isinstance: a FrameRow is no Series here


class Columns:
    """N rows, accessed by row (``records``) or by field (``column``); both are cached.

    Parameters
    ----------
    rows
        A data frame, a sequence of mappings, or a sequence of objects, passed to functions unchanged.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._fields: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def records(self) -> list[Any]:
        """N rows as passed to functions."""
        if is_dataframe(self._rows):
            names = [str(name) for name in self._rows.columns]
            if not names:
                return [Record({}) for _ in range(len(self))]
            values = [self.field(name) for name in names]
            return [Record(dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]
        return [
            Record({str(key): none_if_missing(value) for key, value in row.items()})
            if isinstance(row, Mapping)
            else row
            for row in self._rows
        ]

    @cached_property
    def _places(self) -> dict[str, int]:
        """Position of each column of a data frame by its name; the first of two."""
        names = [str(name) for name in cast("pd.DataFrame", self._rows).columns]
        return {name: place for place, name in reversed(list(enumerate(names)))}

    def column(self, name: str) -> list[Any]:
        """Return N values of one field, None for a missing value and for a record without the field.

        Raises
        ------
        UnknownName
            If the rows are a data frame without the column.
        """
        return [None if value is ABSENT else value for value in self.field(name)]

    def field(self, name: str) -> list[Any]:
        """Return N values as in ``column``, but ``ABSENT`` for a record without the field."""
        if name not in self._fields:
            if is_dataframe(self._rows):
                self._fields[name] = _series_values(self._rows, name, self._places)
            elif self._are_dicts:
                self._fields[name] = _without_missing(
                    [cast("dict[str, Any]", row).get(name, ABSENT) for row in self._rows]
                )
            else:
                self._fields[name] = [none_if_missing(_field(row, name)) for row in self._rows]
        return self._fields[name]

    @cached_property
    def _are_dicts(self) -> bool:
        """True for rows of requests, whose fields are read faster."""
        return set(map(type, self._rows)) == {dict}


def _without_missing(values: list[Any]) -> list[Any]:
    """Return values with None in the place of missing ones, as `none_if_missing`."""
    kinds = set(map(type, values))
    if not kinds <= _JSON_TYPES:
        return [none_if_missing(value) for value in values]
    return [None if value != value else value for value in values] if float in kinds else values


def _series_values(frame: pd.DataFrame, name: str, places: Mapping[str, int]) -> list[Any]:
    if name not in places:
        raise UnknownName(f"no column {name!r}; the columns are {list(places)}")
    series = frame.iloc[:, places[name]]
    values: list[Any] = series.tolist()
    for row in np.flatnonzero(series.isna().to_numpy()):
        values[row] = None
    return values


def _field(row: Any, name: str) -> Any:
    if type(row) is dict or isinstance(row, Mapping):  # the exact type check is faster, and covers most rows
        return row.get(name, ABSENT)
    if isinstance(row, Record):  # methods of a record are not fields
        return fields_of(row).get(name, ABSENT)
    return getattr(row, name, ABSENT)
