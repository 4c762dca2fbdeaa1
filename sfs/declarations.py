"""Template declarations in YAML and JSON; YAML errors name the file and the line."""

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

    The file maps the single key ``slices`` to a list. An item of the list has a ``name``, one kind with its body
    as in ``sfs.template.template``, and optional metadata.

    Raises
    ------
    UnreadableFile
        If the file is absent or not YAML.
    InvalidFunction
        If a declaration is invalid; the message names the file, the line and the correction.
    """
    reader = _YamlReader(path)
    try:
        templates = [_template(item, ("slices", i)) for i, item in enumerate(_items(reader.value))]
        seen: set[str] = set()
        for i, each in enumerate(templates):
            if each.name in seen:
                raise GrammarError(("slices", i, "name"), f"duplicate template name {each.name!r}: rename one")
            seen.add(each.name)
    except GrammarError as error:
        raise InvalidFunction(f"{path}, line {reader.line_of(error.path)}: {error}") from None
    return templates


def from_declaration(declaration: Mapping[str, Any]) -> Template:
    """Create a template from one declaration: an item of a YAML file, as a mapping of JSON values.

    Raises
    ------
    InvalidFunction
        If the declaration is invalid; the message names the part.

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
    """Return the declaration of a template as JSON values; the inverse of ``from_declaration``.

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
        raise GrammarError((), "expected a mapping from the key slices to a list of templates")
    check_known(document, (), ("slices",))
    items = document.get("slices")
    if not isinstance(items, list) or not items:
        raise GrammarError(("slices",), "slices must be a non-empty list of templates")
    return items


def _template(item: Any, path: Path) -> Template:
    if not isinstance(item, Mapping):
        raise GrammarError(
            path, "a template must be a mapping with a name and one kind, such as missing: {field: price}"
        )
    check_known(item, path, ("name", *METADATA_KEYS, *KINDS))
    given = {key: item[key] for key in METADATA_KEYS if key in item}
    for key, value in given.items():  # validate one by one: the error needs the line of its key
        try:
            Metadata(**{key: value})
        except InvalidFunction as error:
            raise GrammarError((*path, key), str(error)) from None
    try:
        kinds = {key: item[key] for key in item if key in KINDS}
        return Template(item.get("name"), kinds, Metadata(**given))  # type: ignore[arg-type]  # Template validates the name
    except GrammarError as error:
        named = f"template {item['name']!r}: " if isinstance(item.get("name"), str) else ""
        raise GrammarError((*path, *error.path), f"{named}{error}") from None
    except InvalidFunction as error:
        raise GrammarError((*path, "name"), str(error)) from None


class _YamlReader:
    """YAML document as mappings, lists and scalars, with the line of every key and list item.

    Raises
    ------
    UnreadableFile
        If the file is absent, not UTF-8, or not YAML; the message names the file and the line.
    InvalidFunction
        If a key is duplicated, a scalar is not text, a boolean, a number or null (a date, for example), or YAML
        converts an unquoted list item to a value other than its text, such as ``no`` or ``010``.
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
                raise self._error(key_node, "a key must be a scalar, not a list or a mapping")
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
            raise self._error(node, f'YAML reads unquoted {bare} as {text_of(value)}: write "{bare}" in quotes')
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
