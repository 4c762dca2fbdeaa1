"""Template declarations as YAML and JSON; every error names the file and the line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path as FilePath
from typing import Any

import yaml

from sfs.errors import InvalidFunction, UnreadableFile
from sfs.grammar import KINDS, GrammarError, Path, check_known
from sfs.record import text_of
from sfs.template import Template
from sfs.validation import NO_METADATA, Metadata

METADATA_KEYS = tuple(field.name for field in fields(Metadata))
_DEFAULT_METADATA = asdict(NO_METADATA)


def read_templates(path: str | FilePath) -> list[Template]:
    """Return the templates of a YAML file, in order.

    The file is a mapping with the one key ``slices``, a list; an item has a ``name``, one kind with its body
    as in ``sfs.template.template``, and any of the metadata.

    Raises
    ------
    UnreadableFile
        If the file is absent or not YAML.
    InvalidFunction
        If a declaration is wrong; the message names the file, the line and the correction.
    """
    reader = _YamlReader(path)
    try:
        templates = [_template(item, ("slices", i)) for i, item in enumerate(_items(reader.value))]
        seen: set[str] = set()
        for i, each in enumerate(templates):
            if each.name in seen:
                raise GrammarError(
                    ("slices", i, "name"), f"duplicate template name {each.name!r}: rename one"
                )
            seen.add(each.name)
    except GrammarError as error:
        raise InvalidFunction(f"{path}, line {reader.line_of(error.path)}: {error}") from None
    return templates


def from_declaration(declaration: Mapping[str, Any]) -> Template:
    """Return the template of one declaration: an item of a YAML file, as a mapping of JSON values.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong; the message names the part.

    Examples
    --------
    >>> no_price = from_declaration({"name": "no_price", "missing": {"field": "price"}, "owner": "sales"})
    >>> no_price({"price": None}), no_price.metadata.owner
    (True, 'sales')
    """
    try:
        return _template(declaration, ())
    except GrammarError as error:
        place = " > ".join(map(str, error.path))
        raise InvalidFunction(f"{place}: {error}" if place else str(error)) from None


def to_declaration(template: Template) -> dict[str, Any]:
    """Return the declaration of a template, of JSON values; the inverse of ``from_declaration``.

    Examples
    --------
    >>> to_declaration(from_declaration({"name": "no_price", "missing": {"field": "price"}}))
    {'name': 'no_price', 'missing': {'field': 'price'}}
    """
    metadata = asdict(template.metadata).items()
    given = {key: value for key, value in metadata if value != _DEFAULT_METADATA[key]}
    return {"name": template.name, **template.spec, **given}


def _items(document: Any) -> list[Any]:
    if not isinstance(document, Mapping):
        raise GrammarError((), "expected a mapping with the key slices and a list of templates under it")
    check_known(document, (), ("slices",))
    items = document.get("slices")
    if not isinstance(items, list) or not items:
        raise GrammarError(("slices",), "slices must be a non-empty list of templates")
    return items


def _template(item: Any, path: Path) -> Template:
    if not isinstance(item, Mapping):
        raise GrammarError(
            path, "a template must be a mapping of a name and one kind, such as missing: {field: price}"
        )
    check_known(item, path, ("name", *METADATA_KEYS, *KINDS))
    given = {key: item[key] for key in METADATA_KEYS if key in item}
    for key, value in given.items():  # one by one, so that the error has the line of its key
        try:
            Metadata(**{key: value})
        except InvalidFunction as error:
            raise GrammarError((*path, key), str(error)) from None
    try:
        kinds = {key: item[key] for key in item if key in KINDS}
        return Template(item.get("name"), kinds, Metadata(**given))  # type: ignore[arg-type]  # it checks the name
    except GrammarError as error:
        named = f"template {item['name']!r}: " if isinstance(item.get("name"), str) else ""
        raise GrammarError((*path, *error.path), f"{named}{error}") from None
    except InvalidFunction as error:
        raise GrammarError((*path, "name"), str(error)) from None


class _YamlReader:
    """A YAML document as mappings, lists and scalars, and the line of every key and list item.

    Raises
    ------
    UnreadableFile
        If the file is absent, not UTF-8, or not YAML; the message names file and line.
    InvalidFunction
        If a key is duplicate, a value is a date or the like, or a list holds a bare scalar that YAML reads as
        something other than its text, such as ``no`` or ``010``.
    """

    def __init__(self, path: str | FilePath) -> None:
        self._path = path
        self._lines: dict[Path, int] = {(): 1}
        self._open: list[yaml.Node] = []
        try:
            text = FilePath(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableFile(f"{path}: cannot be read: {error}") from None
        try:
            self._loader = yaml.SafeLoader(text)
            node = self._loader.get_single_node()
            self.value = None if node is None else self._value(node, ())
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise UnreadableFile(f"{path}, line {line}: not YAML: {error.problem or error.context}") from None
        except yaml.YAMLError as error:
            raise UnreadableFile(f"{path}: not YAML: {str(error).splitlines()[0]}") from None

    def line_of(self, path: Path) -> int:
        """Return the line of a position, or of the nearest enclosing one."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def _value(self, node: yaml.Node, path: Path) -> Any:
        if any(node is ancestor for ancestor in self._open):
            raise self._error(node, "an alias refers to its own parent: write the value out")
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._item(each, (*path, i)) for i, each in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(key_node, "a key must be a word, not a list or a mapping")
            key = key_node.value
            if key in out:
                raise self._error(key_node, f"duplicate key {key!r}: keep one")
            self._lines[(*path, key)] = key_node.start_mark.line + 1
            out[key] = self._value(value_node, (*path, key))
        return out

    def _item(self, node: yaml.Node, path: Path) -> Any:
        self._lines[path] = node.start_mark.line + 1
        value = self._value(node, path)
        if isinstance(value, (bool, int)) and text_of(value) != node.value.lower():
            bare = node.value
            raise self._error(node, f'YAML reads a bare {bare} as {text_of(value)}: write "{bare}" in quotes')
        return value

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            value = self._loader.construct_object(node)
        except ValueError as error:
            raise self._error(node, f"{node.value!r} cannot be read ({error}): write it in quotes") from None
        if value is not None and not isinstance(value, (str, bool, int, float)):
            raise self._error(node, f"{node.value!r} is read as a {type(value).__name__}: write it in quotes")
        return value

    def _error(self, node: yaml.Node, message: str) -> InvalidFunction:
        return InvalidFunction(f"{self._path}, line {node.start_mark.line + 1}: {message}")
