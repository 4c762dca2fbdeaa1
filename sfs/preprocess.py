"""Preprocessors: derived fields of a row for slicing functions."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime, time
from decimal import Decimal
from functools import cached_property, partial
from threading import Lock
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sfs.errors import InvalidFunction, InvalidReturnValue, SliceError
from sfs.fingerprint import fingerprint_of
from sfs.loading import reduce_wrapper
from sfs.record import ABSENT, Record, deep_copy, freeze, label_of, labels_read, mutable_copy, with_label_of
from sfs.validation import short_repr, validate_callable, validate_name

Step: TypeAlias = Callable[[Any], Any]
"""One transformation of a row; functions share equal steps."""

_EQUAL_BUT_DIFFERENT = (datetime, time, Decimal, complex, np.complexfloating, np.datetime64, np.timedelta64)
"""Types with equal values that a function can tell apart, such as one time in two zones, but not by their text."""


class Preprocessor:
    """Base class of preprocessors, which derive new fields of a row.

    Subclasses implement ``run``: it takes fields of the row as arguments and returns a dict of new fields.

    Parameters
    ----------
    name
        Name in fingerprints and error messages.
    field_names
        Mapping from argument names of ``run`` to field names of the row; identical names by default.
    mapped_field_names
        Mapping from keys of the result of ``run`` to names of new fields; identical names by default.
    pre
        Preprocessors to run first, in order.
    memoize
        Whether to cache results and reuse them for equal rows.
    memoize_key
        Function that returns the cache key of a row; by default, the key is the entire row.
    memoize_size
        Maximum number of cached results.

    Raises
    ------
    InvalidFunction
        If an argument is invalid.

    Examples
    --------
    >>> class Words(Preprocessor):
    ...     def run(self, text):
    ...         return {"words": text.split()}
    >>> from sfs.record import Record
    >>> Words("words")(Record({"text": "Cool video!"})).words
    ['Cool', 'video!']
    """

    def __init__(
        self,
        name: str,
        field_names: Mapping[str, str] | None = None,
        mapped_field_names: Mapping[str, str] | None = None,
        pre: Sequence[Preprocessor] | None = None,
        memoize: bool = False,
        memoize_key: Callable[[Any], Any] | None = None,
        memoize_size: int = 10_000,
    ) -> None:
        self.name = validate_name(name)
        self.pre = validate_pre(name, pre)
        if field_names is None:
            parameters = inspect.signature(self.run).parameters.values()
            if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
                raise InvalidFunction(
                    f"Function run of {self.name!r} should not have *args or **kwargs: pass field_names"
                )
            field_names = {p.name: p.name for p in parameters}
        self.field_names = dict(field_names)
        self.mapped_field_names = None if mapped_field_names is None else dict(mapped_field_names)
        self.memoize = memoize
        self.memoize_key = memoize_key
        self._cache = _ResultCache(memoize_size)
        self._reads_label = False
        """Whether a result may depend on the index label of a data frame's row, which is part of the key only then."""

    def run(self, *args: Any, **fields: Any) -> Mapping[str, Any] | None:
        """Return the new fields of a row; subclasses declare the fields that they read as parameters."""
        raise NotImplementedError(f"preprocessor {self.name!r} does not implement run: define it in a subclass")

    def __call__(self, x: Any) -> Any:
        """Return a copy of the row with the new fields; None if the preprocessor returns None.

        Raises
        ------
        InvalidReturnValue
            If the preprocessor returns an invalid value, or one of ``pre`` None.
        """
        if not self.memoize:
            return self._run_with_pre(x)
        key = self._memo_key(x)
        found = self._cache.get(key)
        if found is not ABSENT:
            return with_label_of(found, x)
        before = labels_read()
        result = self._run_with_pre(x)
        if self.memoize_key is None and labels_read() > before and not self._reads_label:
            self._reads_label = True
            key = key, get_hashable(label_of(x))
        self._cache.put(key, result)
        return result

    def rows_ahead(self, rows: Sequence[Any]) -> Iterable[Any]:
        """Return the rows in order; the appliers take each, and preprocess it before they take the next one.

        A subclass may overwrite it to compute the fields of several rows together, for ``run`` to return.
        """
        return rows

    def require(self, x: Any) -> Any:
        """Return a copy of the row with the new fields, as a function reads it.

        Raises
        ------
        InvalidReturnValue
            If the preprocessor returns None or an invalid value.
        """
        result = self(x)
        if result is None:
            raise self._returned_none()
        return result

    @property
    def steps(self) -> tuple[Step, ...]:
        """Steps that functions can share: those of ``pre`` and ``derive``, or the preprocessor itself if memoized."""
        if self.memoize:
            return (self.require,)
        return (*(step for p in self.pre for step in p.steps), self.derive)

    def derive(self, x: Any) -> Any:
        """Run this preprocessor without ``pre``, on a copy of the row; raise InvalidReturnValue if it returns None."""
        result = self._run_on_copy(mutable_copy(x))
        if result is None:
            raise self._returned_none()
        return freeze(result, x)

    def _returned_none(self) -> InvalidReturnValue:
        return InvalidReturnValue(f"Preprocessor should not return None, but {self.name!r} did: return the row")

    def reset_cache(self) -> None:
        """Clear all memoized results."""
        self._cache.clear()

    def _memo_key(self, x: Any) -> Hashable:
        """Return the cache key of a row."""
        key = get_hashable(x if self.memoize_key is None else self.memoize_key(x))
        return (key, get_hashable(label_of(x))) if self._reads_label else key

    def _arguments(self, row: Any) -> dict[str, Any]:
        """Return the arguments of ``run`` for a row."""
        fields = self.field_names.items()
        return {name: row[field] if isinstance(row, Mapping) else getattr(row, field) for name, field in fields}

    def _run_with_pre(self, x: Any) -> Any:
        for preprocessor in self.pre:
            x = preprocessor.require(x)
        return freeze(self._run_on_copy(mutable_copy(x)), x)

    def _run_on_copy(self, row: Any) -> Any:
        """Return a mutable row with the derived fields set, or None."""
        new = self.run(**self._arguments(row))
        if new is None:
            return None
        if not isinstance(new, Mapping):
            raise InvalidReturnValue(f"run of {self.name!r} returned {short_repr(new)}: return a dict")
        if self.mapped_field_names is not None:
            if absent := [key for key in self.mapped_field_names if key not in new]:
                raise InvalidReturnValue(f"run of {self.name!r} returned {list(new)}, without {absent[0]!r}")
            new = {name: new[key] for key, name in self.mapped_field_names.items()}
        if hasattr(row, "asDict"):  # a Row of Spark cannot be changed
            return type(row)(**row.asDict() | new)
        for name, value in new.items():
            if isinstance(row, dict):
                row[name] = value
            else:
                setattr(row, name, value)
        return row

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the preprocessor's computation in hexadecimal; see ``sfs.fingerprint``."""
        return fingerprint_of(self)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return the parts that the fingerprint covers: name, class, settings, and preprocessors."""
        uncovered = ("name", "pre", "memoize", "memoize_key", "_cache", "_reads_label", "fingerprint")
        settings = {key: value for key, value in vars(self).items() if key not in uncovered}
        return "preprocessor", self.name, type(self), settings, self.pre

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduce_wrapper(self, getattr(self, "f", type(self)), partial(super().__reduce_ex__, protocol))

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name}, Pre: {list(self.pre)}"


class LambdaPreprocessor(Preprocessor):
    """Preprocessor that calls a function on a copy of the row; the function sets fields and returns the copy.

    Parameters
    ----------
    name, pre, memoize, memoize_key, memoize_size
        As in ``Preprocessor``.
    f
        Function of one row.
    """

    def __init__(
        self,
        name: str,
        f: Callable[[Any], Any],
        pre: Sequence[Preprocessor] | None = None,
        memoize: bool = False,
        memoize_key: Callable[[Any], Any] | None = None,
        memoize_size: int = 10_000,
    ) -> None:
        super().__init__(name, {}, None, pre, memoize, memoize_key, memoize_size)
        self.f = validate_callable(name, f)

    def _run_on_copy(self, row: Any) -> Any:
        return self.f(row)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return the parts that the fingerprint covers: name, code and preprocessors."""
        return "preprocessor", self.name, self.f, self.pre


BasePreprocessor = BaseMapper = Mapper = Preprocessor
LambdaMapper = LambdaPreprocessor


def preprocessor(
    name: str | None = None,
    pre: Sequence[Preprocessor] | None = None,
    memoize: bool = False,
    memoize_key: Callable[[Any], Any] | None = None,
    memoize_size: int = 10_000,
) -> Callable[[Callable[[Any], Any]], LambdaPreprocessor]:
    """Decorator to define a preprocessor from a function of one row; parameters as in ``Preprocessor``.

    Raises
    ------
    InvalidFunction
        If the decorator is used without parentheses, or an argument is invalid.

    Examples
    --------
    >>> @preprocessor()
    ... def count_words(x):
    ...     x.n_words = len(x.text.split())
    ...     return x
    >>> from sfs.record import Record
    >>> count_words(Record({"text": "Cool video!"})).n_words
    2
    """
    if callable(name):
        raise InvalidFunction("Looks like this decorator is missing parentheses! Write @preprocessor()")

    def wrap(f: Callable[[Any], Any]) -> LambdaPreprocessor:
        own = getattr(f, "__name__", "") if name is None else name
        return LambdaPreprocessor(own, f, pre, memoize, memoize_key, memoize_size)

    return wrap


lambda_mapper = preprocessor


def validate_pre(name: str, pre: object) -> tuple[Preprocessor, ...]:
    """Return ``pre`` as a tuple of preprocessors."""
    if pre is None:
        return ()
    if not isinstance(pre, Sequence):
        raise InvalidFunction(f"pre of {name!r} must be a list of preprocessors, got {short_repr(pre)}")
    for each in pre:
        if not isinstance(each, Preprocessor):
            raise InvalidFunction(
                f"pre of {name!r} contains {short_repr(each)}, not a preprocessor: use @preprocessor()"
            )
    return tuple(pre)


class _ResultCache:
    """Thread-safe LRU cache of rows; stores and returns copies, so that callers cannot change cached rows."""

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise InvalidFunction(f"memoize_size must be an integer of at least 1, got {short_repr(size)}")
        self.size = size
        self._results: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> Any:
        with self._lock:
            if key not in self._results:
                return ABSENT
            self._results.move_to_end(key)
            result = self._results[key]
        return deep_copy(result)

    def put(self, key: Hashable, result: Any) -> None:
        stored = deep_copy(result)
        with self._lock:
            self._results[key] = stored
            self._results.move_to_end(key)
            while len(self._results) > self.size:
                self._results.popitem(last=False)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._results

    def __len__(self) -> int:
        return len(self._results)

    def clear(self) -> None:
        with self._lock:
            self._results.clear()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return _ResultCache, (self.size,)  # exclude the lock and the results from the pickle


def get_hashable(value: Any) -> Hashable:
    """Return a cache key that distinguishes type and content: 1, True, 1.0 and "1" have different keys.

    Raises
    ------
    SliceError
        If the value is not hashable and its contents cannot be compared.
    """
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]  # a str equals only a str
    if isinstance(value, (float, np.floating)):
        return kind, float(value).hex()  # distinguishes 0.0 from -0.0, and nan equals nan
    if isinstance(value, np.ndarray):
        content = get_hashable(value.tolist()) if value.dtype.hasobject else value.tobytes()
        return kind, value.dtype.str, value.shape, content
    if isinstance(value, bytearray):
        return kind, bytes(value)
    if isinstance(value, (list, tuple)):  # the values of a Row of Spark do not include the names of its fields
        names = tuple(getattr(value, "__fields__", ()))
        return kind, names, tuple(get_hashable(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(get_hashable(item) for item in value)
    if isinstance(value, _EQUAL_BUT_DIFFERENT):
        return kind, repr(value)
    if kind.__name__ == "Series":
        items = tuple((get_hashable(label), get_hashable(item)) for label, item in value.items())
        return kind, str(value.dtype), items  # labels may repeat
    if (array := _as_array(value)) is not None:
        return kind, str(value.dtype), get_hashable(array)
    fields = _fields(value)
    if fields is not None:
        return kind, frozenset((get_hashable(name), get_hashable(item)) for name, item in fields.items())
    try:
        hash(value)
    except TypeError:
        raise SliceError(f"a {kind.__name__} in a row to memoize has no hashing proxy: pass memoize_key") from None
    return kind, value


def _as_array(value: Any) -> NDArray[Any] | None:
    """Return the content of a tensor or an array of pandas, whose fields do not show it; None for other values."""
    if isinstance(value, np.generic) or not (hasattr(value, "__array__") and hasattr(value, "dtype")):
        return None
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """Return the fields of an object that is compared by its fields, or None."""
    if isinstance(value, Record):
        return value.__dict__
    if isinstance(value, Mapping):
        return value
    hashing: Any = type(value).__hash__
    by_parts = hashing is None or hashing is object.__hash__
    by_identity = isinstance(value, (type, FunctionType, BuiltinFunctionType, ModuleType))
    if not by_parts or by_identity:
        return None
    own = getattr(value, "__dict__", None)
    state = object.__getstate__(value)
    return {**(own or {}), **state[1]} if isinstance(state, tuple) else own  # with those in __slots__
