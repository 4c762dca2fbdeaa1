"""YAML nodes and what they may hold; a node knows its line, so that every error can name it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from service.errors import SettingsError

Reader: TypeAlias = Callable[[Node], Any]
Pairs: TypeAlias = dict[str, tuple[Node, Node]]


class NodeError(ValueError):
    """What is wrong with a value, and the node to blame; who reads the file adds its name."""

    def __init__(self, node: Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


def compose(text: str, where: str) -> Node:
    """Return the root node of a YAML text.

    Raises
    ------
    SettingsError
        If the text is not YAML, or empty.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{where}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(node, Node):
        raise SettingsError(f"{where} is empty: expected a value")
    return node


def nearest(name: str, known: Collection[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known spelling, or nothing.

    Examples
    --------
    >>> nearest("lable", ["label", "data"])
    "; did you mean 'label'?"
    """
    by_lower = {option.lower(): option for option in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def text(node: Node) -> str:
    """Read text as it is written: ``no`` and ``2024`` are names here, not a boolean and a number."""
    if not isinstance(node, ScalarNode) or node.tag.endswith(":null") or not node.value.strip():
        raise NodeError(node, f"expected text, got {_shown(node)}")
    return str(node.value)


def word(node: Node) -> str:
    """Read a name that can also be a folder's: letters, digits, ``.``, ``_`` and ``-``."""
    value = text(node)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", value):
        raise NodeError(node, f"expected letters, digits, '.', '_' and '-', at most 64, got {value!r}")
    return value


def choice(options: Collection[str]) -> Reader:
    """Return a reader of one of some words."""

    def read(node: Node) -> str:
        value = text(node)
        if value not in options:
            raise NodeError(node, f"{value!r} is not one of {', '.join(options)}{nearest(value, options)}")
        return value

    return read


def whole(minimum: int, maximum: int = 10**18) -> Reader:
    """Return a reader of a whole number from ``minimum`` to ``maximum``."""
    most = f" and at most {maximum}" if maximum < 10**18 else ""

    def read(node: Node) -> int:
        digits = node.value if isinstance(node, ScalarNode) else ""
        if not re.fullmatch(r"[0-9]{1,18}", digits) or not minimum <= int(digits) <= maximum:
            raise NodeError(node, f"expected a whole number, at least {minimum}{most}, got {_shown(node)}")
        return int(digits)

    return read


def yes_or_no(node: Node) -> bool:
    """Read ``true`` or ``false``."""
    value = text(node).lower()
    if value not in ("true", "false"):
        raise NodeError(node, f"expected true or false, got {_shown(node)}")
    return value == "true"


def positive(node: Node) -> float:
    """Read a finite number above 0."""
    try:
        value = float(text(node))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise NodeError(node, f"expected a number above 0, got {_shown(node)}")
    return value


def share(node: Node) -> float:
    """Read a number above 0 and below 1."""
    value = positive(node)
    if value >= 1:
        raise NodeError(node, f"expected a number above 0 and below 1, got {_shown(node)}")
    return value


def many(read: Reader, least: int = 0) -> Reader:
    """Return a reader of a list of ``least`` values or more; one bare value is a list of one."""

    def read_many(node: Node) -> tuple[Any, ...]:
        items = node.value if isinstance(node, SequenceNode) else [node]
        if len(items) < least:
            raise NodeError(node, f"expected at least {least} in the list, got {len(items)}")
        return tuple(read(item) for item in items)

    return read_many


def by_column(read: Reader) -> Reader:
    """Return a reader of ``column: value`` lines, at least one."""

    def read_columns(node: Node) -> dict[str, Any]:
        columns = {column: read(value) for column, (_, value) in pairs(node).items()}
        if not columns:
            raise NodeError(node, "name at least one column, as in `features: {comment: text}`")
        return columns

    return read_columns


def pairs(node: Node) -> Pairs:
    """Return a mapping's keys, as they are written, with the nodes of key and value.

    Raises
    ------
    NodeError
        If the node is no mapping, or a key stands twice.
    """
    if not isinstance(node, MappingNode):
        raise NodeError(node, f"expected `key: value` lines, got {_shown(node)}")
    out: Pairs = {}
    for key_node, value in node.value:
        key = text(key_node)
        if key in out:
            raise NodeError(key_node, f"{key!r} stands twice")
        out[key] = (key_node, value)
    return out


def _shown(node: Node) -> str:
    if not isinstance(node, ScalarNode):
        return "a mapping" if isinstance(node, MappingNode) else "a list"
    return "nothing" if node.tag.endswith(":null") else repr(node.value)
