"""Functions that may share a process, because their code can change nothing that another function sees.

The check reads the compiled code: a function may read its record and constants, compute with them, and call functions
listed here and others that pass the check. Whatever it does not know is refused, and costs a process of its own.
"""

from __future__ import annotations

import builtins
import dis
import math
import re
import string
import unicodedata
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from sfs.function import LabelingFunctionSlice, SlicingFunction

_ATOMS = (str, int, float, bool, bytes, complex, type(None), re.Pattern, re.RegexFlag)
_FROZEN, _MUTABLE = (tuple, frozenset), (list, set, dict)
_BUILTINS = frozenset(
    {
        "abs", "all", "any", "ascii", "bin", "bool", "bytes", "chr", "dict", "divmod", "enumerate", "filter",
        "float", "frozenset", "hash", "hex", "int", "isinstance", "iter", "len", "list", "map", "max", "min",
        "next", "oct", "ord", "pow", "print", "range", "repr", "reversed", "round", "set", "slice", "sorted",
        "str", "sum", "tuple", "zip",
    }
)  # fmt: skip
_MODULES = (math, re, string, unicodedata)
_RE_FUNCTIONS = (re.search, re.match, re.fullmatch, re.findall, re.finditer, re.split, re.sub, re.subn, re.escape)
_REFUSED = frozenset(
    {
        "STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL", "STORE_NAME", "DELETE_NAME", "LOAD_NAME",
        "LOAD_CLASSDEREF", "LOAD_BUILD_CLASS", "IMPORT_NAME", "IMPORT_FROM", "IMPORT_STAR", "MATCH_CLASS",
    }
)  # fmt: skip
_CHANGES_ITEMS = frozenset(("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"))
_INTERNALS = ("gi_", "cr_", "ag_", "f_", "tb_", "co_", "_", "obj", "mro")
"""Beginnings of attributes that lead from a value to its code, frame, class or module."""
_CHANGING_METHODS = frozenset(
    {
        "append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "add", "discard",
        "setdefault", "sort", "reverse", "difference_update", "intersection_update", "symmetric_difference_update",
    }
)  # fmt: skip


def may_share(function: SlicingFunction) -> bool:
    """Return whether a function may run in one process with others that may.

    Examples
    --------
    >>> may_share(SlicingFunction("short", lambda x: len(x.text.split()) < 5))
    True
    >>> may_share(SlicingFunction("patches", lambda x: setattr(x, "text", "")))
    False
    """
    inner = function.function if type(function) is LabelingFunctionSlice else function
    if function.steps or type(function) not in (SlicingFunction, LabelingFunctionSlice):
        return False
    call = inner.bound_function
    return isinstance(call, FunctionType) and _is_harmless(call, [])


def _is_harmless(function: FunctionType, known: list[FunctionType]) -> bool:
    """Return whether a function changes nothing; functions that call each other are known already."""
    if function in known:
        return True
    known.append(function)
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    if function.__closure__ or function.__dict__ or not all(map(_is_constant, defaults)):
        return False
    instructions = [list(dis.get_instructions(code)) for code in _codes(function.__code__)]
    names = {each.argval for code in instructions for each in code if each.opname in ("LOAD_ATTR", "LOAD_METHOD")}
    if any(name.startswith(_INTERNALS) for name in names):
        return False
    reads_containers = False
    for code in instructions:
        for each, following in zip(code, [*code[1:], None], strict=True):
            if each.opname in _REFUSED:
                return False
            if each.opname != "LOAD_GLOBAL":
                continue
            if each.argval not in function.__globals__:
                value = getattr(builtins, each.argval, None)
                is_error = isinstance(value, type) and issubclass(value, BaseException)
                if not (each.argval in _BUILTINS or is_error):
                    return False
                continue
            value = function.__globals__[each.argval]
            if isinstance(value, ModuleType):
                if following is None or following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                    return False
                if not any(value is module for module in _MODULES):
                    return False
                value = getattr(value, following.argval, ...)
            if any(value is known_function for known_function in _RE_FUNCTIONS) or _is_constant(value):
                continue
            if _is_container(value):
                reads_containers = True
            elif isinstance(value, FunctionType):
                if not _is_harmless(value, known):
                    return False
            elif not (isinstance(value, BuiltinFunctionType) and any(value.__self__ is module for module in _MODULES)):
                return False
    changes_items = names & _CHANGING_METHODS or any(
        each.opname in _CHANGES_ITEMS or (each.opname == "BINARY_OP" and each.argrepr.endswith("="))
        for code in instructions
        for each in code
    )
    return not (reads_containers and changes_items)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_constant(value: Any) -> bool:
    return type(value) in _ATOMS or (type(value) in _FROZEN and all(map(_is_constant, value)))


def _is_container(value: Any) -> bool:
    """Return whether a value is a container of constants that could be changed."""
    if type(value) is dict:
        return all(map(_is_constant, value)) and all(map(_is_constant, value.values()))
    return type(value) in _MUTABLE and all(map(_is_constant, value))
