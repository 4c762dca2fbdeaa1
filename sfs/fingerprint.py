"""Fingerprints: what a function computes, as one sha256 that is the same in every process.

Covered are the name, the code (not its docstring, comments, annotations or layout), defaults, resources,
preprocessors, closure cells, and the module-level constants, functions and classes of the same module that
the code refers to, and what they refer to in turn. An instance of a class of the same module counts by its
class and its state, or by its ``fingerprint`` attribute. Metadata is not covered. Imported modules, and
functions and classes of other modules, count by their names; so does an object of a kind that is not known
here, which counts by the module and name of its class: give such an object a ``fingerprint`` attribute (text)
if its state matters. Values are taken when the fingerprint is first asked for.
"""

from __future__ import annotations

import dataclasses
import datetime
import dis
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from operator import itemgetter
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any
from uuid import UUID

import numpy as np

from sfs.source import code_text

_BY_REPR = (
    str, bytes, bool, int, float, complex, type(None), type(...), range, slice, Decimal, Fraction, UUID,
    PurePath, datetime.date, datetime.time, datetime.timedelta, datetime.timezone, np.generic, np.dtype,
)  # fmt: skip


def fingerprint_of(owner: Any) -> str:
    """Return sha256 in hex of the parts that ``owner.fingerprint_parts()`` lists."""
    return _Describer().digest(owner)


class _Describer:
    """One walk over what a function refers to; what was met before is named by when it was met."""

    def __init__(self) -> None:
        self.homes: set[str | None] = set()
        self.count = 0
        self.met: dict[int, tuple[int, Any]] = {}  # holds the object too: an id is a name only while it lives

    def digest(self, value: Any) -> str:
        if type(value).__module__ in self.homes and not isinstance(value, type):
            return self._once(value, self._instance)
        return self._plain(value) or self._once(value, self._walk)

    def _plain(self, value: Any) -> str | None:
        """Digest of a value whose parts, if any, contain no way back to it, or None."""
        if isinstance(value, Enum):
            return _hash("member", self._place(type(value)), str(value.name), self.digest(value.value))
        if isinstance(value, _BY_REPR):
            return _hash("value", type(value).__name__, repr(value))
        if isinstance(value, re.Pattern):
            return _hash("pattern", repr(value.pattern), str(int(value.flags)))
        if isinstance(value, (set, frozenset)):
            return _hash("set", *sorted(map(self._apart, value)))
        if isinstance(value, tuple):
            return _hash("tuple", *(self.digest(item) for item in value))
        if isinstance(value, ModuleType):
            return _hash("module", value.__name__)
        if isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
            return _hash("method", value.__name__, self.digest(value.__self__))
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return _hash("array", value.dtype.str, str(value.shape), value.tobytes().hex())
        return None

    def _apart(self, value: Any) -> str:
        """Digest of one of several values that have no order: it shows nothing of which came before."""
        before = set(self.homes), self.count, dict(self.met)
        out = self.digest(value)
        self.homes, self.count, self.met = before
        return out

    def _once(self, value: Any, describe: Callable[[Any], str]) -> str:
        """Digest of a value with parts; functions and classes are walked once, data unless it is a cycle."""
        if id(value) in self.met:
            return _hash("met", str(self.met[id(value)][0]))
        self.met[id(value)] = (self.count, value)
        self.count += 1
        out = describe(value)
        if not isinstance(value, (FunctionType, type)) and not hasattr(value, "fingerprint_parts"):
            del self.met[id(value)]
        return out

    def _walk(self, value: Any) -> str:
        described = self._container(value) or self._said(value)
        if described is not None:
            return described
        if callable(getattr(value, "__wrapped__", None)):
            return _hash("wrapped", self._place(type(value)), self.digest(value.__wrapped__))
        if dataclasses.is_dataclass(value):
            state = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return _hash("dataclass", self._place(type(value)), self._mapping(state))
        return _hash("object", self._place(value if hasattr(value, "__qualname__") else type(value)))

    def _container(self, value: Any) -> str | None:
        """Digest of a function, a class or a container, or None."""
        return next((walk(self, value) for kind, walk in self._walks if isinstance(value, kind)), None)

    def _said(self, value: Any) -> str | None:
        """Digest of what an object says of itself, or None."""
        if callable(getattr(value, "fingerprint_parts", None)):
            return self._owner(value)
        said = getattr(value, "fingerprint", None)
        return _hash("fingerprint", said) if isinstance(said, str) else None

    def _instance(self, value: Any) -> str:
        """Digest of an instance of a class that is written at home: the class, and what the instance holds."""
        kind = self.digest(type(value))
        if (said := self._said(value)) is not None:
            return _hash("instance", kind, said)
        held = self._plain(value) or self._container(value) or ""
        return _hash("instance", kind, held, "" if isinstance(value, Enum) else self._mapping(_state(value)))

    def _owner(self, owner: Any) -> str:
        """Digest of a slicing function or a preprocessor."""
        parts = owner.fingerprint_parts()
        for part in parts:
            self.homes |= _homes(part)
        return _hash("owner", *(self.digest(part) for part in parts))

    def _mapping(self, value: Mapping[Any, Any]) -> str:
        keys = sorted(((self._apart(key), key) for key in value), key=itemgetter(0))
        return _hash("mapping", *(_hash(digest, self.digest(value[key])) for digest, key in keys))

    def _sequence(self, value: Iterable[Any]) -> str:
        return _hash("sequence", *(self.digest(item) for item in value))

    def _array(self, value: np.ndarray[Any, Any]) -> str:
        return _hash("array", value.dtype.str, str(value.shape), self.digest(value.tolist()))

    def _partial(self, value: partial[Any]) -> str:
        return _hash(
            "partial", self.digest(value.func), self.digest(value.args), self._mapping(value.keywords)
        )

    def _method(self, value: MethodType) -> str:
        return _hash("method", self.digest(value.__func__), self.digest(value.__self__))

    def _function(self, f: FunctionType) -> str:
        if f.__module__ not in self.homes and f.__globals__.get("__name__") not in self.homes:
            return _hash("function", self._place(f))
        registered = getattr(f, "registry", None)  # of functools' dispatch by type
        if isinstance(registered, Mapping) and hasattr(f, "dispatch"):
            return _hash("dispatch", self._mapping(registered))
        cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
        captured = {name: _contents(cell) for name, cell in cells}
        names = sorted(_global_names(f.__code__))
        around = {name: f.__globals__[name] for name in names if name in f.__globals__}
        values = (f.__defaults__, f.__kwdefaults__, captured, around)
        return _hash("function", code_text(f.__code__), *(self.digest(value) for value in values))

    def _class(self, value: type) -> str:
        if value.__module__ not in self.homes:
            return _hash("class", self._place(value))
        bodies = _bodies(value)
        bases = [base for base in value.__bases__ if base is not object]
        return _hash("class", value.__name__, self.digest(bases), self._mapping(bodies))

    def _place(self, value: Any) -> str:
        """Module and name of something; its own module is home wherever it was loaded from."""
        module = getattr(value, "__module__", None) or ""
        return (
            f"{'' if module in self.homes else module}:{getattr(value, '__qualname__', type(value).__name__)}"
        )

    _walks: tuple[tuple[Any, Callable[[_Describer, Any], str]], ...] = (
        (FunctionType, _function),
        (type, _class),
        (MethodType, _method),
        (partial, _partial),
        (np.ndarray, _array),
        (Mapping, _mapping),
        (list, _sequence),
    )


def _hash(*parts: str) -> str:
    out = hashlib.sha256()
    for part in parts:
        spelled = part.encode("utf-8", "surrogatepass")
        out.update(len(spelled).to_bytes(8, "big") + spelled)
    return out.hexdigest()


def _homes(part: Any) -> set[str | None]:
    """Return the modules that a wrapped function or class is written in; code made by exec has none."""
    while isinstance(part, partial):
        part = part.func
    if not callable(part):
        return set()
    module = getattr(part, "__module__", None)
    return {module, getattr(part, "__globals__", {}).get("__name__", module)} - {"builtins"}


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # named before it was given a value
        return ...


def _global_names(code: CodeType) -> set[str]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def _state(value: Any) -> dict[str, Any]:
    """Return what an instance holds, in slots and in its dict; but of a dataclass only its fields."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    kinds = [kind for kind in type(value).__mro__ if "__slots__" in vars(kind)]
    slots = [slot for kind in kinds for slot in vars(kind).values() if isinstance(slot, MemberDescriptorType)]
    held = {slot.__name__: slot.__get__(value) for slot in slots if _is_filled(slot, value)}
    return held | getattr(value, "__dict__", {})


def _is_filled(slot: MemberDescriptorType, value: Any) -> bool:
    try:
        slot.__get__(value)
    except AttributeError:
        return False
    return True


def _bodies(kind: type) -> dict[str, Any]:
    """Return what the author of a class wrote in it: constants, and the functions inside methods of any kind."""
    members: Mapping[str, Any] = kind.__members__ if issubclass(kind, Enum) else {}
    inside = {name: _inside(body) for name, body in vars(kind).items() if name not in members}
    written = {name: body for name, body in inside.items() if _is_written(kind, name, body)}
    return written | {name: member.value for name, member in members.items()}


def _inside(body: Any) -> Any:
    """Return the function inside a method of any kind."""
    if isinstance(body, property):
        return (body.fget, body.fset)
    for name in ("__func__", "dispatcher", "func"):
        if hasattr(body, name):
            return getattr(body, name)
    return body


def _is_written(kind: type, name: str, body: Any) -> bool:
    """Tell what the class's author wrote from what Python, dataclasses and enumerations keep in a class."""
    by_python = name.startswith("__") or (
        issubclass(kind, Enum) and name.startswith("_") and name.endswith("_")
    )
    if not by_python:
        return name != "_abc_impl"
    inner = inspect.unwrap(body) if isinstance(body, FunctionType) else body
    return (
        isinstance(inner, FunctionType)
        and inner.__code__.co_filename != "<string>"
        and inner.__globals__.get("__name__") == kind.__module__
    )
