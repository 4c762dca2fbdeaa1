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

from sfs.function import LabelingFunction, LabelingFunctionSlice, SlicingFunction

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
_GENUINE = {  # before a file could replace one
    name: value
    for name, value in vars(builtins).items()
    if name in _BUILTINS or (isinstance(value, type) and issubclass(value, BaseException))
}
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
_READS_ATTRIBUTES = frozenset(("format", "format_map"))  # of anything that a name in the text leads to
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
    facts = _facts(function)
    return facts is not None and not all(facts)


def may_change_its_record(function: SlicingFunction) -> bool:
    """Return whether a function may change containers in its record, which another function would see."""
    facts = _facts(function)
    return facts is None or facts[1]


def _facts(function: SlicingFunction) -> tuple[bool, bool] | None:
    """Return whether a function reads containers of its file, and whether it changes any; None if it may do more."""
    inner = function.function if type(function) is LabelingFunctionSlice else function
    if type(function) not in (SlicingFunction, LabelingFunctionSlice) or inner.steps:
        return None
    if type(inner) not in (SlicingFunction, LabelingFunction):  # a subclass may keep state
        return None
    call = inner.bound_function
    if not isinstance(call, FunctionType):
        return None
    called, reads_containers, changes_items = [call], False, False
    for each in called:  # grows; one may pass or return a container to another one, which changes it
        found = _examine(each, called)
        if found is None:
            return None
        reads_containers, changes_items = reads_containers or found[0], changes_items or found[1]
    return reads_containers, changes_items


def _examine(function: FunctionType, known: list[FunctionType]) -> tuple[bool, bool] | None:
    """Return whether a function reads containers of its file, and whether it changes any; None if it may do more."""
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    if function.__closure__ or function.__dict__ or not all(map(_is_constant, defaults)):
        return None
    if getattr(function, "__builtins__", None) is not vars(builtins):
        return None
    instructions = [list(dis.get_instructions(code)) for code in _codes(function.__code__)]
    names = {each.argval for code in instructions for each in code if each.opname in ("LOAD_ATTR", "LOAD_METHOD")}
    if any(name.startswith(_INTERNALS) for name in names) or names & _READS_ATTRIBUTES:
        return None
    reads_containers = False
    for code in instructions:
        for each, following in zip(code, [*code[1:], None], strict=True):
            if each.opname in _REFUSED:
                return None
            if each.opname != "LOAD_GLOBAL":
                continue
            if each.argval not in function.__globals__:
                if _GENUINE.get(each.argval, ...) is not getattr(builtins, each.argval, None):
                    return None
                continue
            value = function.__globals__[each.argval]
            if isinstance(value, ModuleType):
                if following is None or following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                    return None
                if not any(value is module for module in _MODULES):
                    return None
                value = getattr(value, following.argval, ...)
            if any(value is known_function for known_function in _RE_FUNCTIONS) or _is_constant(value):
                continue
            if _is_container(value):
                reads_containers = True
            elif isinstance(value, FunctionType):
                if value not in known:
                    known.append(value)
            elif not (isinstance(value, BuiltinFunctionType) and any(value.__self__ is module for module in _MODULES)):
                return None
    changes_items = bool(names & _CHANGING_METHODS) or any(
        each.opname in _CHANGES_ITEMS or _may_change_in_place(before, each)
        for code in instructions
        for before, each in zip([None, *code], code, strict=False)
    )
    return reads_containers, changes_items


def _may_change_in_place(before: dis.Instruction | None, each: dis.Instruction) -> bool:
    """Return whether an instruction may change a container in place; ``n += 1`` cannot."""
    if each.opname != "BINARY_OP" or not each.argrepr.endswith("="):
        return False
    is_number = before is not None and before.opname == "LOAD_CONST" and type(before.argval) in (int, float)
    return each.is_jump_target or not is_number or each.argrepr == "*="


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
