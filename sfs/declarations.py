"""Templates written in YAML; every fault names the file and the line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sfs.errors import InvalidFunction
from sfs.function import NO_METADATA, Metadata
from sfs.grammar import KINDS, GrammarFault, unknown_key
from sfs.template import Template
from sfs.yaml_lines import Place, read_yaml

METADATA_KEYS = tuple(field.name for field in fields(Metadata))


def read_templates(path: str | Path) -> list[Template]:
    """Return the templates of a YAML file, in its order.

    The file is a mapping with the one key ``slices``, a list; an item has a ``name``, one kind with its body
    as in ``sfs.template.template``, and any of the metadata.

    Raises
    ------
    UnreadableFile
        If the file is absent or not YAML.
    InvalidFunction
        If a declaration is wrong; the message names the file, the line and what to write.
    """
    document = read_yaml(path)
    try:
        items = _items(document.value)
        found = [_template(item, ("slices", i)) for i, item in enumerate(items)]
        _check_distinct([each.name for each in found])
    except GrammarFault as fault:
        raise InvalidFunction(f"{path}, line {document.line_of(fault.path)}: {fault}") from None
    return found


def from_declaration(declaration: Mapping[str, Any]) -> Template:
    """Return the template of one declaration: an item of such a file, as JSON gives it.

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
    except GrammarFault as fault:
        where = " > ".join(map(str, fault.path))
        raise InvalidFunction(f"{where}: {fault}" if where else str(fault)) from None


def to_declaration(template: Template) -> dict[str, Any]:
    """Return the declaration of a template, of JSON values; ``from_declaration`` gives an equal one back.

    Examples
    --------
    >>> to_declaration(from_declaration({"name": "no_price", "missing": {"field": "price"}}))
    {'name': 'no_price', 'missing': {'field': 'price'}}
    """
    about = {key: value for key, value in asdict(template.metadata).items() if value != _BLANK[key]}
    return {"name": template.name, **template.spec, **about}


_BLANK = asdict(NO_METADATA)


def _items(value: Any) -> list[Any]:
    if not isinstance(value, Mapping):
        raise GrammarFault((), "expected a mapping with the key slices and a list of templates under it")
    for key in value:
        if key != "slices":
            raise GrammarFault((key,), unknown_key(key, ("slices",)))
    items = value.get("slices")
    if not isinstance(items, list) or not items:
        raise GrammarFault(("slices",), "slices is a non-empty list of templates")
    return items


def _template(item: Any, place: Place) -> Template:
    if not isinstance(item, Mapping):
        raise GrammarFault(
            place, "a template is a mapping of a name and one kind, such as missing: {field: price}"
        )
    known = ("name", *METADATA_KEYS, *KINDS)
    for key in item:
        if key not in known:
            raise GrammarFault((*place, key), unknown_key(key, known))
    metadata = _metadata({key: item[key] for key in METADATA_KEYS if key in item}, place)
    try:
        return Template(
            item.get("name"),  # type: ignore[arg-type]  # the constructor says what a name is
            {key: item[key] for key in item if key in KINDS},
            metadata=metadata,
        )
    except GrammarFault as fault:
        named = f"template {item['name']!r}: " if isinstance(item.get("name"), str) else ""
        raise GrammarFault((*place, *fault.path), f"{named}{fault}") from None
    except InvalidFunction as error:
        raise GrammarFault((*place, "name"), str(error)) from None


def _metadata(about: dict[str, Any], place: Place) -> Metadata:
    for key, value in about.items():
        try:
            Metadata(**{key: value})
        except InvalidFunction as error:
            raise GrammarFault((*place, key), str(error)) from None
    return Metadata(**about)


def _check_distinct(names: list[str]) -> None:
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if first.setdefault(name, i) != i:
            raise GrammarFault(("slices", i, "name"), f"a second template is called {name!r}: rename one")
