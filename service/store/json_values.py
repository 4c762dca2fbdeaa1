"""Exact, strict JSON of alarms, runs, audit entries and reports.

Floats keep every digit and are finite; times are written in UTC. A stored value must have exactly the fields
of its class, with their types.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from numbers import Integral, Real
from types import GenericAlias
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from service.store.errors import DamagedValue

T = TypeVar("T")


def to_json(value: Any) -> str:
    """Return a value of ``decisions``, or JSON values, as JSON.

    Raises
    ------
    ValueError
        If a number is not finite, a time has no time zone, a key is not a string, or a type is not supported.

    Examples
    --------
    >>> to_json({"share": 0.1, "slices": ("links",)})
    '{"share":0.1,"slices":["links"]}'
    """
    return json.dumps(to_values(value), ensure_ascii=False, separators=(",", ":"))


def to_values(value: Any) -> Any:
    """Return a value as JSON values: dataclasses as objects, tuples as lists, times as strings."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _finite(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"the time {value.isoformat()} has no time zone: give it in UTC")
        return value.astimezone(UTC).isoformat()
    if isinstance(value, list | tuple):
        return [to_values(item) for item in value]
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"a key of a JSON object must be a string, got {wrong[0]!r}")
        return {key: to_values(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_values(getattr(value, field.name)) for field in fields(value)}
    raise ValueError(f"cannot store a {type(value).__name__} as JSON: {value!r}")


def from_json(kind: type[T], text: str) -> T:
    """Return the value of a class of ``decisions`` written by ``to_json``. Raises DamagedValue for other text.

    Examples
    --------
    >>> from sfs.intervals import Rate
    >>> from_json(Rate, to_json(Rate(9, 10)))
    Rate(count=9, n=10)
    """
    try:
        # A dataclass takes no configuration from its adapter; as the element of a tuple it does.
        value: T = _adapter(GenericAlias(tuple, (kind,))).validate_json(f"[{text}]")[0]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, (kind.__name__, *first["loc"][1:])))
        raise DamagedValue(f"damaged JSON in the store: {path}: {first['msg']}, got {first['input']!r:.80}") from error
    try:
        to_values(value)  # refuses times without a time zone
    except ValueError as error:
        raise DamagedValue(f"damaged JSON in the store: {kind.__name__}: {error}") from error
    return value


def values_from_json(text: str) -> Any:
    """Return the JSON values written by ``to_json``. Raises DamagedValue for other text."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise DamagedValue("damaged JSON in the store: it is nested too deeply to be read") from error
    except ValueError as error:
        raise DamagedValue(f"damaged JSON in the store: {error}") from error


def _finite(number: Any) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"only finite numbers can be stored, got {number}")
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
