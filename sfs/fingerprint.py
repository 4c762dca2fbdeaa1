"""Fingerprints: SHA-256 of a function's computation, identical in every process.

A fingerprint covers the name, the code (without docstring, comments, annotations and layout), defaults,
resources, preprocessors, closure cells, and the module-level constants, functions and classes of the same
module that the code references, directly or indirectly. Metadata is not covered.

An instance of a class of the same module is represented by its class and state, or by its ``fingerprint``
attribute. Imported modules, and functions and classes of other modules, are represented by their names. An
object of any other type is represented by the module and name of its class: give it a ``fingerprint`` attribute
(text) if its state matters. Values are read at the first access of the fingerprint.
"""

from __future__ import annotations

import ast
import dataclasses
import datetime
import dis
import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from operator import itemgetter
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any
from uuid import UUID

import numpy as np

_BY_REPR = (
    str, bytes, bool, int, float, complex, type(None), type(...), range, slice, Decimal, Fraction, UUID,
    PurePath, datetime.date, datetime.time, datetime.timedelta, datetime.timezone, np.generic, np.dtype,
)  # fmt: skip
_UNCOVERED_NODES = ("ctx", "kind", "type_comment", "annotation", "returns")
_FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def fingerprint_of(owner: Any) -> str:
    """Return the SHA-256 of ``owner.fingerprint_parts()`` in hexadecimal."""
    return _Hasher().digest(owner)


class _Hasher:
    """Traversal of the objects that a function references; a repeated object is hashed by its first position."""

    def __init__(self) -> None:
        self.homes: set[str | None] = set()  # modules whose functions and classes are hashed by code
        self.count = 0
        self.visited: dict[int, tuple[int, Any]] = {}  # keeps objects alive: ids are reused afterwards

    def digest(self, value: Any) -> str:
        if type(value).__module__ in self.homes and not isinstance(value, type):
            return self._once(value, self._home_instance)
        return self._plain(value) or self._once(value, self._walk)

    def _plain(self, value: Any) -> str | None:
        """Digest of a value whose parts cannot refer back to it, or None."""
        if isinstance(value, Enum):
            return _hash("member", self._place(type(value)), str(value.name), self.digest(value.value))
        if isinstance(value, _BY_REPR):
            return _hash("value", type(value).__name__, repr(value))
        if isinstance(value, re.Pattern):
            return _hash("pattern", repr(value.pattern), str(int(value.flags)))
        if isinstance(value, (set, frozenset)):
            return _hash("set", *sorted(map(self._isolated, value)))
        if isinstance(value, tuple):
            return _hash("tuple", *(self.digest(item) for item in value))
        if isinstance(value, ModuleType):
            return _hash("module", value.__name__)
        if isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
            return _hash("method", value.__name__, self.digest(value.__self__))
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return _hash("array", value.dtype.str, str(value.shape), value.tobytes().hex())
        return None

    def _isolated(self, value: Any) -> str:
        """Digest of one item of an unordered collection, independent of the other items."""
        before = set(self.homes), self.count, dict(self.visited)
        out = self.digest(value)
        self.homes, self.count, self.visited = before
        return out

    def _once(self, value: Any, describe: Callable[[Any], str]) -> str:
        """Digest of a composite value; functions and classes are traversed once, data at every use but a cycle."""
        if id(value) in self.visited:
            return _hash("met", str(self.visited[id(value)][0]))
        self.visited[id(value)] = (self.count, value)
        self.count += 1
        out = describe(value)
        if not isinstance(value, (FunctionType, type)) and not hasattr(value, "fingerprint_parts"):
            del self.visited[id(value)]
        return out

    def _walk(self, value: Any) -> str:
        described = self._container(value) or self._declared(value)
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
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, MethodType):
            return _hash("method", self.digest(value.__func__), self.digest(value.__self__))
        if isinstance(value, partial):
            parts = self.digest(value.func), self.digest(value.args), self._mapping(value.keywords)
            return _hash("partial", *parts)
        if isinstance(value, np.ndarray):
            return _hash("array", value.dtype.str, str(value.shape), self.digest(value.tolist()))
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, list):
            return _hash("sequence", *(self.digest(item) for item in value))
        return None

    def _declared(self, value: Any) -> str | None:
        """Digest of an object that declares its own fingerprint, or None."""
        if callable(getattr(value, "fingerprint_parts", None)):
            parts = value.fingerprint_parts()
            for part in parts:
                self.homes |= _home_modules(part)
            return _hash("owner", *(self.digest(part) for part in parts))
        declared = getattr(value, "fingerprint", None)
        return _hash("fingerprint", declared) if isinstance(declared, str) else None

    def _home_instance(self, value: Any) -> str:
        """Digest of an instance of a class of a home module: the class and the instance's state."""
        kind = self.digest(type(value))
        if (declared := self._declared(value)) is not None:
            return _hash("instance", kind, declared)
        content = self._plain(value) or self._container(value) or ""
        return _hash("instance", kind, content, "" if isinstance(value, Enum) else self._mapping(_state(value)))

    def _mapping(self, value: Mapping[Any, Any]) -> str:
        keys = sorted(((self._isolated(key), key) for key in value), key=itemgetter(0))
        return _hash("mapping", *(_hash(digest, self.digest(value[key])) for digest, key in keys))

    def _function(self, f: FunctionType) -> str:
        if f.__module__ not in self.homes and f.__globals__.get("__name__") not in self.homes:
            return _hash("function", self._place(f))
        registered = getattr(f, "registry", None)  # of functools.singledispatch
        if isinstance(registered, Mapping) and hasattr(f, "dispatch"):
            return _hash("dispatch", self._mapping(registered))
        cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
        captured = {name: _cell_value(cell) for name, cell in cells}
        names = sorted(_global_names(f.__code__))
        used = {name: f.__globals__[name] for name in names if name in f.__globals__}
        values = (f.__defaults__, f.__kwdefaults__, captured, used)
        return _hash("function", _code_text(f.__code__), *(self.digest(value) for value in values))

    def _class(self, kind: type) -> str:
        if kind.__module__ not in self.homes:
            return _hash("class", self._place(kind))
        members: Mapping[str, Any] = kind.__members__ if issubclass(kind, Enum) else {}
        bodies = {name: _unwrap_method(body) for name, body in vars(kind).items() if name not in members}
        written = {name: body for name, body in bodies.items() if _is_authored(kind, name, body)}
        bases = self.digest([base for base in kind.__bases__ if base is not object])
        values = {name: member.value for name, member in members.items()}
        return _hash("class", kind.__name__, bases, self._mapping(written | values))

    def _place(self, value: Any) -> str:
        """Module and qualified name; the module is empty for a home module, whose name depends on its location."""
        module = getattr(value, "__module__", None) or ""
        name = getattr(value, "__qualname__", type(value).__name__)
        return f"{'' if module in self.homes else module}:{name}"


def _hash(*parts: str) -> str:
    out = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        out.update(len(encoded).to_bytes(8, "big") + encoded)
    return out.hexdigest()


def _home_modules(part: Any) -> set[str | None]:
    """Return the modules that define a wrapped function or class; code from ``exec`` has none."""
    while isinstance(part, partial):
        part = part.func
    if not callable(part):
        return set()
    module = getattr(part, "__module__", None)
    return {module, getattr(part, "__globals__", {}).get("__name__", module)} - {"builtins"}


def _cell_value(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return ...


def _global_names(code: CodeType) -> set[str]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def _state(value: Any) -> dict[str, Any]:
    """Return the attributes of an instance from its slots and dict; only the fields of a dataclass."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    state = {}
    for kind in type(value).__mro__:
        if "__slots__" not in vars(kind):
            continue
        for slot in vars(kind).values():
            if isinstance(slot, MemberDescriptorType):
                with suppress(AttributeError):  # an empty slot
                    state[slot.__name__] = slot.__get__(value)
    return state | getattr(value, "__dict__", {})


def _unwrap_method(body: Any) -> Any:
    """Return the function of a property, class method, static method or similar descriptor."""
    if isinstance(body, property):
        return (body.fget, body.fset)
    for name in ("__func__", "dispatcher", "func"):
        if hasattr(body, name):
            return getattr(body, name)
    return body


def _is_authored(kind: type, name: str, body: Any) -> bool:
    """Return whether an attribute is written in the class, not generated by Python, dataclasses or enum."""
    generated = name.startswith("__") or (issubclass(kind, Enum) and name.startswith("_") and name.endswith("_"))
    if not generated:
        return name != "_abc_impl"
    inner = inspect.unwrap(body) if isinstance(body, FunctionType) else body
    return (
        isinstance(inner, FunctionType)
        and inner.__code__.co_filename != "<string>"
        and inner.__globals__.get("__name__") == kind.__module__
    )


def _code_text(code: CodeType) -> str:
    """Return the normalised source of a code object, or its bytecode if there is no source.

    Normalised source is the same in every Python version that parses it; bytecode only in one minor version.
    """
    node = _function_node(code)
    if node is None:
        return "bytecode " + _bytecode(code)
    body = node.body if isinstance(node, ast.Lambda) else _without_docstring(node.body)
    return f"source {_tree_text(node.args)} {_tree_text(body)}"


def _tree_text(node: Any) -> str:
    """Return a syntax tree as text; empty fields are omitted, so that new grammar fields have no effect."""
    if isinstance(node, list):
        return "[" + ",".join(_tree_text(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = {name: getattr(node, name, None) for name in node._fields if name not in _UNCOVERED_NODES}
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        parts["body"] = _without_docstring(node.body)
    shown = (f"{name}={_tree_text(part)}" for name, part in parts.items() if part is not None and part != [])
    return f"{type(node).__name__}({','.join(shown)})"


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0].value if isinstance(body[0], ast.Expr) else None
    is_text = isinstance(first, ast.Constant) and isinstance(first.value, str)
    return body[1:] if is_text else body


def _function_node(code: CodeType) -> _FunctionNode | None:
    """Return the syntax tree of a function, or None if it is absent or ambiguous."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, TypeError):
        return None
    nodes: list[_FunctionNode]
    if code.co_name == "<lambda>":
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    else:
        functions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        nodes = [node for node in functions if node.name == code.co_name]
    return nodes[0] if len(nodes) == 1 else None


def _bytecode(code: CodeType) -> str:
    constants = [
        _bytecode(constant)
        if isinstance(constant, CodeType)
        else repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)
        for constant in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return repr((code.co_code.hex(), constants, names, counts))
