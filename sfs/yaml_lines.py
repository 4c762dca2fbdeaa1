"""YAML as plain values, and the line on which each of them stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from sfs.errors import InvalidFunction, UnreadableFile
from sfs.values import text_of

Place: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML file holds.

    Parameters
    ----------
    value
        Its content as mappings, lists and scalars.
    lines
        Where each key and list item begins: places (keys and positions from the top) to line numbers from 1.
    """

    value: Any
    lines: dict[Place, int]

    def line_of(self, place: Place) -> int:
        """Return the line of a place, or of the nearest one around it."""
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]


def read_yaml(path: str | Path) -> Document:
    """Read one YAML document of plain values.

    Raises
    ------
    UnreadableFile
        If the file is absent, not UTF-8, or not YAML; the message names file and line.
    InvalidFunction
        If a key is written twice, a value is a date or the like, or a list holds a bare scalar that YAML
        reads as something other than it spells, such as ``no`` or ``010``.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path}: cannot be read: {error}") from None
    try:
        return _Reader(str(path), yaml.SafeLoader(text)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        raise UnreadableFile(f"{path}, line {line}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UnreadableFile(f"{path}: not YAML: {str(error).splitlines()[0]}") from None


class _Reader:
    """One pass over the nodes of a document."""

    def __init__(self, path: str, loader: yaml.SafeLoader) -> None:
        self._path = path
        self._loader = loader
        self._lines: dict[Place, int] = {(): 1}
        self._open: list[yaml.Node] = []

    def document(self) -> Document:
        node = self._loader.get_single_node()
        return Document(None if node is None else self._value(node, ()), self._lines)

    def _value(self, node: yaml.Node, place: Place) -> Any:
        if any(node is around for around in self._open):
            raise self._fault(node, "an alias stands inside what it names: write the value out")
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                return [self._item(each, (*place, i)) for i, each in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._fault(key_node, "a key is a word, not a list or a mapping")
            key = key_node.value
            if key in out:
                raise self._fault(key_node, f"the key {key!r} is written twice: keep one")
            self._lines[(*place, key)] = key_node.start_mark.line + 1
            out[key] = self._value(value_node, (*place, key))
        return out

    def _item(self, node: yaml.Node, place: Place) -> Any:
        self._lines[place] = node.start_mark.line + 1
        value = self._value(node, place)
        if isinstance(value, (bool, int)) and text_of(value) != node.value.lower():
            bare = node.value
            raise self._fault(node, f'YAML reads a bare {bare} as {text_of(value)}: write "{bare}" in quotes')
        return value

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            value = self._loader.construct_object(node)
        except ValueError as error:
            raise self._fault(node, f"{node.value!r} cannot be read ({error}): write it in quotes") from None
        if value is not None and not isinstance(value, (str, bool, int, float)):
            raise self._fault(node, f"{node.value!r} is read as a {type(value).__name__}: write it in quotes")
        return value

    def _fault(self, node: yaml.Node, message: str) -> InvalidFunction:
        return InvalidFunction(f"{self._path}, line {node.start_mark.line + 1}: {message}")
