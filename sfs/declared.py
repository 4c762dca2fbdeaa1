"""Checks of what a declaration of a function or preprocessor holds, and short spellings of what it got."""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, SupportsFloat, TypeGuard

import numpy as np

from sfs.errors import InvalidFunction


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80


def short_text(value: object) -> str:
    """Spell any value in about 80 characters; one that cannot spell itself is named by its type."""
    try:
        return _Short().repr(value)
    except Exception:
        return f"<a {type(value).__name__}>"


def is_share(value: object) -> bool:
    """Tell whether a value is a number above 0 and at most 1."""
    return _is_number(value) and 0 < float(value) <= 1


def checked_name(name: object, reserved: frozenset[str] = frozenset()) -> str:
    """Return the name if it can be one."""
    if not isinstance(name, str) or not name.strip():
        raise InvalidFunction(f"a function's name is text with at least one letter, got {short_text(name)}")
    if any(not character.isprintable() for character in name):
        raise InvalidFunction(f"a function's name has no control characters, got {name!r}")
    if name in reserved:
        raise InvalidFunction(f"{name!r} is how reports call all rows: give the slice another name")
    return name


def checked_callable(name: str, f: object) -> Callable[..., Any]:
    """Return ``f`` if calling it gives an answer at once."""
    if not callable(f):
        raise InvalidFunction(f"{name!r} wraps {short_text(f)}, not a function of one row")
    if inspect.iscoroutinefunction(f) or inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f):
        raise InvalidFunction(f"{name!r} is a coroutine or a generator: write a plain function that returns")
    return f


def checked_resources(name: str, resources: object) -> dict[str, Any]:
    """Return the resources as a dict of keyword arguments."""
    if resources is None:
        return {}
    if not isinstance(resources, Mapping) or not all(isinstance(key, str) for key in resources):
        raise InvalidFunction(
            f"resources of {name!r} are a mapping from argument names to values, got {short_text(resources)}"
        )
    return dict(resources)


def checked_budget(name: str, budget_ms: object) -> float | None:
    """Return the budget in milliseconds, or None."""
    if budget_ms is None:
        return None
    if not _is_number(budget_ms) or not 0 < float(budget_ms) < math.inf:
        raise InvalidFunction(f"budget_ms of {name!r} is a positive number, got {short_text(budget_ms)}")
    return float(budget_ms)


def _is_number(value: object) -> TypeGuard[SupportsFloat]:
    return not isinstance(value, (bool, np.bool_)) and isinstance(value, Real) and _fits_float(value)


def _fits_float(value: SupportsFloat) -> bool:
    try:
        float(value)
    except OverflowError:  # an integer of more digits than floats reach
        return False
    return True
