"""The values of the loop as JSON, and back: nothing is lost, nothing is guessed.

Numbers keep every digit and are finite; times are written in UTC. What is read must have exactly the fields of
its kind, each of its type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_EXACT_BITS = 53  # whole numbers of so many bits are floats as they are


def to_json(value: Any) -> str:
    """Return a value of ``decisions``, or JSON values, as JSON.

    Raises
    ------
    ValueError
        If a number is not finite, a time has no zone, a key is no text, or the value is of another kind.

    Examples
    --------
    >>> to_json({"share": 0.1, "slices": ("links",)})
    '{"share":0.1,"slices":["links"]}'
    """
    return json.dumps(to_values(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def from_json(kind: type[T], text: str) -> T:
    """Return the value of a kind, a class of ``decisions``, that ``to_json`` wrote.

    Raises
    ------
    ValueError
        If the text is not JSON of this kind.

    Examples
    --------
    >>> from sfs.intervals import Rate
    >>> from_json(Rate, to_json(Rate(9, 10)))
    Rate(count=9, n=10)
    """
    made: T = _read(kind, values_from_json(text), kind.__name__)
    return made


def values_from_json(text: str) -> Any:
    """Return the JSON values that ``to_json`` wrote.

    Raises
    ------
    ValueError
        If the text is no JSON, or holds a number that is not finite.
    """
    try:
        return json.loads(text, parse_float=_finite_of, parse_constant=_finite_of)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deep cannot be read") from error


def to_values(value: Any) -> Any:
    """Return a value as JSON values: objects for dataclasses, lists for tuples, text for times. As ``to_json``."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _finite(float(value))
    if isinstance(value, datetime):
        return _utc(value).isoformat()
    if isinstance(value, Mapping):
        return {_key(key): to_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_values(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_values(getattr(value, each.name)) for each in fields(value)}
    raise ValueError(f"a {type(value).__name__} cannot be kept as JSON: {value!r}")


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"only finite numbers can be kept, got {number}")
    return number


def _finite_of(text: str) -> float:
    return _finite(float(text))


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"a key of a JSON object is text, got {key!r}")
    return key


def _utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"a time needs its zone, got {at.isoformat()}; give it in UTC")
    return at.astimezone(UTC)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, values: Any, path: str) -> Any:
    """Return JSON values as a kind; the path says where they stand."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if values is None and NoneType in parts:
            return None
        (kind,) = (part for part in parts if part is not NoneType)
        return _read(kind, values, path)
    if origin is Literal:
        return _check(values in parts and isinstance(values, str), values, path, f"one of {parts}")
    if origin is tuple:
        _check(isinstance(values, list), values, path, "a list")
        return tuple(_read(parts[0], each, f"{path}[{i}]") for i, each in enumerate(values))
    if is_dataclass(kind) and isinstance(kind, type):
        return _read_object(kind, values, path)
    return _read_plain(kind, values, path)


def _read_object(kind: type, values: Any, path: str) -> Any:
    hints = _hints(kind)
    _check(isinstance(values, dict), values, path, "an object")
    _check(values.keys() == hints.keys(), sorted(values), path, f"the fields {sorted(hints)}")
    return kind(**{name: _read(hint, values[name], f"{path}.{name}") for name, hint in hints.items()})


def _read_plain(kind: Any, values: Any, path: str) -> Any:
    if kind is datetime:
        return _read_time(_check(isinstance(values, str), values, path, "a time"), path)
    if kind is float:
        exact = type(values) is float or (type(values) is int and values.bit_length() <= _EXACT_BITS)
        return float(_check(exact, values, path, "a number"))
    return _check(type(values) is kind, values, path, f"a value of type {kind.__name__}")


def _read_time(text: str, path: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{path} is to be a time, got {text!r}") from error
    return _utc(at)


def _check(right: bool, values: Any, path: str, wanted: str) -> Any:
    if not right:
        raise ValueError(f"{path} is to be {wanted}, got {values!r}")
    return values
