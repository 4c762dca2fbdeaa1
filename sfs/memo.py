"""A bounded memory of results, and keys under which two rows are the same row."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from threading import Lock
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

from sfs.declared import short_text
from sfs.draft import FrameRow, separate
from sfs.errors import InvalidFunction, SliceError
from sfs.record import Record

_MISSING = object()
_BY_IDENTITY = (type, FunctionType, BuiltinFunctionType, ModuleType)


class Memo:
    """The last ``size`` results by key. Threads may share it; no two callers get the same changeable object.

    Parameters
    ----------
    size
        How many results are kept; the one not asked for longest goes first.
    """

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise InvalidFunction(f"memoize_size is a whole number of at least 1, got {short_text(size)}")
        self.size = size
        self._results: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._results)

    def get(self, key: Hashable) -> Any:
        """Return a copy of the result under a key, or None."""
        with self._lock:
            result = self._results.get(key, _MISSING)
            if result is _MISSING:
                return None
            self._results.move_to_end(key)
        return separate(result)

    def put(self, key: Hashable, result: Any) -> None:
        """Keep a copy of a result, and forget the oldest beyond the size."""
        kept = separate(result)
        with self._lock:
            self._results[key] = kept
            self._results.move_to_end(key)
            while len(self._results) > self.size:
                self._results.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._results.clear()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Memo, (self.size,)  # neither a lock nor what was seen here belongs in another process


def key_of(value: Any) -> Hashable:
    """Return a key that equal values share and unequal ones do not: 1, True, 1.0 and "1" are four keys.

    Raises
    ------
    SliceError
        If the value can be told apart from others neither by its contents nor by its hash.
    """
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]  # a str equals nothing but a str
    if isinstance(value, (float, np.floating)):
        return kind, float(value).hex()  # tells 0.0 from -0.0, and nan equals nan
    if isinstance(value, np.ndarray):
        return kind, value.dtype.str, value.shape, _contents(value)
    if isinstance(value, bytearray):
        return kind, bytes(value)
    if isinstance(value, (list, tuple)):
        return kind, tuple(key_of(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(key_of(item) for item in value)
    fields = _fields(value)
    if fields is not None:
        parts = frozenset((key_of(name), key_of(item)) for name, item in fields.items())
        return kind, parts, key_of(_label_of(value))
    return kind, _hashed(value)


def _contents(array: np.ndarray[Any, Any]) -> Hashable:
    return key_of(array.tolist()) if array.dtype.hasobject else array.tobytes()


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """Name and value of each part of an object that has parts, or None."""
    if isinstance(value, Record):
        return value.__dict__
    if isinstance(value, Mapping):
        return value
    if type(value).__name__ == "Series":
        return dict(value.items())
    hashing: Any = type(value).__hash__
    told_by_parts = hashing is None or hashing is object.__hash__
    return getattr(value, "__dict__", None) if told_by_parts and not isinstance(value, _BY_IDENTITY) else None


def _label_of(value: Any) -> Any:
    """Return the index label of a data frame's row, which a preprocessor may read; None for other rows."""
    if isinstance(value, FrameRow):
        return value._label
    return value.name if type(value).__name__ == "Series" else None


def _hashed(value: Any) -> Hashable:
    try:
        hash(value)
    except TypeError:
        raise SliceError(
            f"the memo cannot tell one {type(value).__name__} from another: give memoize_key"
        ) from None
    return value  # type: ignore[no-any-return]
