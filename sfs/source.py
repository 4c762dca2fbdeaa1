"""The code of a Python function as text in which docstrings, comments, annotations and layout do not show."""

from __future__ import annotations

import ast
import inspect
import textwrap
from types import CodeType
from typing import Any

_UNSEEN = ("ctx", "kind", "type_comment", "annotation", "returns")
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def code_text(code: CodeType) -> str:
    """Return the normalised source of a code object, or its bytecode where there is no source.

    Source is the same for every Python that can parse it; bytecode only for one minor version.
    """
    node = _node_of(code)
    if node is None:
        return "bytecode " + _bytecode(code)
    body = node.body if isinstance(node, ast.Lambda) else _without_docstring(node.body)
    return f"source {canonical(node.args)} {canonical(body)}"


def canonical(node: Any) -> str:
    """Spell a syntax tree; what a newer Python adds to the grammar shows only where it is used."""
    if isinstance(node, list):
        return "[" + ",".join(canonical(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = {name: getattr(node, name, None) for name in node._fields if name not in _UNSEEN}
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        parts["body"] = _without_docstring(node.body)
    shown = (f"{name}={canonical(part)}" for name, part in parts.items() if part is not None and part != [])
    return f"{type(node).__name__}({','.join(shown)})"


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0].value if isinstance(body[0], ast.Expr) else None
    is_text = isinstance(first, ast.Constant) and isinstance(first.value, str)
    return body[1:] if is_text else body


def _node_of(code: CodeType) -> _Function | None:
    """Return the syntax tree of a function, or None if it cannot be found for sure."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, TypeError):
        return None
    found: list[_Function]
    if code.co_name == "<lambda>":
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    else:
        defined = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        found = [node for node in defined if node.name == code.co_name]
    return found[0] if len(found) == 1 else None


def _bytecode(code: CodeType) -> str:
    constants = [_bytecode(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return repr((code.co_code.hex(), constants, names, counts))


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
