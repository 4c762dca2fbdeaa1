"""Validation of declared functions and preprocessors: names, callables, metadata, and short reprs for messages."""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, SupportsFloat, TypeGuard
from unicodedata import category

import numpy as np

from sfs.errors import InvalidFunction

MAX_NAME_CHARACTERS = 200
"""Maximum length of the name of a monitored function."""
MAX_DESCRIPTION_CHARACTERS = 1_000
SEVERITIES = ("info", "warning", "critical")

_SHORT_REPR = reprlib.Repr()
_SHORT_REPR.maxstring = _SHORT_REPR.maxother = 80


@dataclass(frozen=True, slots=True)
class Metadata:
    """Description, ownership and requirements of a slice.

    Parameters
    ----------
    description
        One sentence that describes the rows of the slice.
    owner
        Responsible person or team.
    severity
        ``info``, ``warning`` or ``critical``.
    target
        Accuracy in (0, 1] that the slice must keep, or None.
    protected
        Whether the slice can reject a candidate model.
    family
        Name shared by related slices, whose accuracy is monitored together, too.

    Raises
    ------
    InvalidFunction
        If a value has the wrong type or is out of range.
    """

    description: str = ""
    owner: str = ""
    severity: str = "warning"
    target: float | None = None
    protected: bool = False
    family: str = ""

    def __post_init__(self) -> None:
        for field in ("description", "owner", "severity", "family"):
            value = getattr(self, field)
            if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
                raise InvalidFunction(f"{field} must be Unicode text, got {short_repr(value)}")
        if self.severity not in SEVERITIES:
            raise InvalidFunction(f"severity must be one of {', '.join(SEVERITIES)}, got {self.severity!r}")
        if not isinstance(self.protected, bool):
            raise InvalidFunction(f"protected must be True or False, got {short_repr(self.protected)}")
        if self.target is not None and not (_is_number(self.target) and 0 < float(self.target) <= 1):
            raise InvalidFunction(
                f"target must be an accuracy above 0 and at most 1, such as 0.9, got {short_repr(self.target)}"
            )


NO_METADATA = Metadata()


def families(metadata: Mapping[str, Metadata]) -> dict[str, tuple[str, ...]]:
    """Return the slices of every family, in order; a family of one slice is none.

    Examples
    --------
    >>> links = Metadata(family="links")
    >>> families({"short": NO_METADATA, "has_url": links, "short_link": links})
    {'links': ('has_url', 'short_link')}
    """
    slices: dict[str, tuple[str, ...]] = {}
    for name, facts in metadata.items():
        if facts.family:
            slices[facts.family] = (*slices.get(facts.family, ()), name)
    return {family: names for family, names in slices.items() if len(names) > 1}


def short_repr(value: object) -> str:
    """Return a repr of about 80 characters, or the name of the type if ``repr`` raises."""
    try:
        return _SHORT_REPR.repr(value)
    except Exception:
        return f"<a {type(value).__name__}>"


def validate_name(name: object, reserved: frozenset[str] = frozenset()) -> str:
    """Return a function name; raise InvalidFunction if it is empty, unprintable or reserved."""
    if not isinstance(name, str) or not name.strip():
        advice = "write a name, in quotes where YAML reads a number or a boolean"
        raise InvalidFunction(f"a function name must be non-empty text, got {short_repr(name)}: {advice}")
    for character in name:
        if not character.isprintable():
            raise InvalidFunction(f"name {name!r} {_unprintable(character)}")
    if name in reserved:
        raise InvalidFunction(f"{name!r} is a reserved name: give the slice another name")
    return name


def validate_monitored_name(name: str) -> None:
    """Refuse the name of a monitored function that cannot be one part of a URL."""
    if "/" in name or name in (".", ".."):  # a browser and a server resolve them, encoded as well
        raise InvalidFunction(f"name {name!r} cannot be part of a URL: leave out '/', and use neither '.' nor '..'")
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidFunction(
            f"name {short_repr(name)} has {len(name):,} characters: use at most {MAX_NAME_CHARACTERS}"
        )


def validate_monitored_metadata(metadata: Metadata) -> None:
    """Refuse the metadata of a monitored function that are too long, or not one line, for labels and pages."""
    limits = (
        ("owner", MAX_NAME_CHARACTERS),
        ("family", MAX_NAME_CHARACTERS),
        ("description", MAX_DESCRIPTION_CHARACTERS),
    )
    for field, limit in limits:
        text = getattr(metadata, field)
        if len(text) > limit:
            raise InvalidFunction(f"{field} {short_repr(text)} has {len(text):,} characters: use at most {limit:,}")
        for character in text:
            if not (character.isprintable() or category(character) == "Zs" or character == "\u200d"):  # joins emoji
                raise InvalidFunction(f"{field} {short_repr(text)} {_unprintable(character)}")


def _unprintable(character: str) -> str:
    return f"has the character U+{ord(character):04X}, which cannot be printed: use one line of text without it"


def validate_callable(name: str, f: object) -> Callable[..., Any]:
    """Return ``f``; raise InvalidFunction if it is not callable, or is a coroutine or generator function."""
    if not callable(f):
        raise InvalidFunction(f"{name!r} must wrap a function of one row, got {short_repr(f)}")
    if inspect.iscoroutinefunction(f) or inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f):
        raise InvalidFunction(
            f"{name!r} is a coroutine or generator function: use a plain function with a return value"
        )
    return f


def validate_resources(name: str, resources: object) -> dict[str, Any]:
    """Return the resources as a dict of keyword arguments."""
    if resources is None:
        return {}
    if not isinstance(resources, Mapping) or not all(isinstance(key, str) for key in resources):
        raise InvalidFunction(f"resources of {name!r} must map argument names to values, got {short_repr(resources)}")
    return dict(resources)


def validate_budget(name: str, budget_ms: object) -> float | None:
    """Return the time budget in milliseconds, or None."""
    if budget_ms is None:
        return None
    if not _is_number(budget_ms) or not 0 < float(budget_ms) < math.inf:
        raise InvalidFunction(f"budget_ms of {name!r} must be a positive number, got {short_repr(budget_ms)}")
    return float(budget_ms)


def _is_number(value: object) -> TypeGuard[SupportsFloat]:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:  # an integer beyond the range of floats
        return False
    return True
