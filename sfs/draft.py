"""Copies of rows: drafts that a preprocessor may change, and frozen rows that come of them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from sfs.record import Record

_ATOMS = frozenset({str, int, float, bool, bytes, complex, type(None)})
_CONTAINERS = (list, dict, set, tuple, bytearray, np.ndarray)


class Draft(Record):
    """A copy of a record that can be changed: ``x.field = value`` or ``x["my field"] = value``."""

    __slots__ = ("_like",)

    def __init__(self, fields: dict[Any, Any], like: Record) -> None:
        super().__init__(fields)
        object.__setattr__(self, "_like", like)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self.__dict__:
            self.__getattr__(name)
        del self.__dict__[name]

    def __delitem__(self, name: str) -> None:
        del self.__dict__[name]

    def __getattr__(self, name: str) -> Any:  # a row of another shape may know more than its fields
        if _is_dunder(name):
            return super().__getattr__(name)
        return getattr(renewed(self._like, self.__dict__), name)

    def __reduce__(self) -> Any:
        return type(self), (self.__dict__, self._like)


class FrameRow(Record):
    """A data frame's row at the Snorkel-shaped doors: a record that also answers what a Series does."""

    __slots__ = ("_label",)

    def __init__(self, fields: dict[Any, Any], label: Any) -> None:
        super().__init__(fields)
        object.__setattr__(self, "_label", label)

    def __getattr__(self, name: str) -> Any:  # reached only when no column has the name
        return super().__getattr__(name) if _is_dunder(name) else getattr(self.series(), name)

    def __getitem__(self, name: Any) -> Any:
        try:
            return self.__dict__[name]
        except (KeyError, TypeError):
            return self.series()[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__dict__.values())

    def __len__(self) -> int:
        return len(self.__dict__)

    def series(self) -> Any:
        """The row as the Series that ``DataFrame.apply(axis=1)`` would hand over."""
        import pandas as pd

        return pd.Series(self.__dict__, name=self._label)

    def __reduce__(self) -> Any:
        return type(self), (self.__dict__, self._label)


class MappingRow(Record):
    """A dict at the Snorkel-shaped doors: a record that also answers ``get``, ``items`` and so on."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if _is_dunder(name) or not hasattr(dict, name):
            return super().__getattr__(name)
        return getattr(self.__dict__, name)

    def __len__(self) -> int:
        return len(self.__dict__)


def renewed(like: Record, fields: dict[Any, Any]) -> Record:
    """Return a row like another, with other fields."""
    kind, arguments = like.__reduce__()
    row: Record = kind(fields, *arguments[1:])
    return row


def draft_of(x: Any) -> Any:
    """Return a copy of a row that may be changed without changing the row.

    Plain containers among its fields are copied too; other objects, such as a parsed document, are shared.
    """
    if isinstance(x, Record):
        return Draft({name: _own(value) for name, value in x.__dict__.items()}, x)
    if _is_series(x):
        return Draft({name: _own(value) for name, value in x.items()}, FrameRow({}, x.name))
    return copy.deepcopy(x)


def with_containers(rows: Iterable[Any]) -> bool:
    """Tell whether a field of a record among the rows holds a container, which a function could change."""
    held = chain.from_iterable(row.__dict__.values() for row in rows if isinstance(row, Record))
    return any(issubclass(kind, _CONTAINERS) for kind in set(map(type, held)) - _ATOMS)


def lent(x: Any) -> Any:
    """Return a row to hand to one function of several: a record with containers of its own, else the row."""
    if not isinstance(x, Record) or not with_containers((x,)):
        return x
    return renewed(x, {name: _own_or_shared(value) for name, value in x.__dict__.items()})


def finished(result: Any, given: Any) -> Any:
    """Return what a preprocessor made of ``given``: a draft becomes a frozen row of the kind that came in."""
    if not isinstance(result, Draft):
        return result
    row = renewed(result._like, result.__dict__)
    return row.series() if isinstance(row, FrameRow) and _is_series(given) else row


def separate(x: Any) -> Any:
    """Return a copy that shares nothing that can change."""
    if isinstance(x, Record):
        return renewed(x, {name: _deep(value) for name, value in x.__dict__.items()})
    return copy.deepcopy(x)


def _own(value: Any) -> Any:
    if type(value) in _ATOMS or not isinstance(value, _CONTAINERS):
        return value
    if type(value) is list and _ATOMS.issuperset(map(type, value)):
        return value.copy()  # which a deep copy of a flat list is, at many times the price
    return copy.deepcopy(value)


def _own_or_shared(value: Any) -> Any:
    try:
        return _own(value)
    except Exception:  # it holds something that has no copies, such as a lock
        return value


def _deep(value: Any) -> Any:
    return value if type(value) in _ATOMS else copy.deepcopy(value)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")  # copy and pickle look for these on the instance


def _is_series(x: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(x, pandas.Series)
