"""Functions that are added while the service runs: templates only, kept in the store."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from service.api.refusals import FunctionConflict, UnknownFunction
from sfs.declarations import from_declaration, to_declaration
from sfs.errors import InvalidFunction
from sfs.registry import FunctionSet
from sfs.template import Template

CHECKPOINT = "functions"
"""Where the store keeps them."""
MOST = 1000
"""Functions in force, at most: each is a series per window in every scrape."""

_log = logging.getLogger(__name__)


def read_added(state: bytes | None) -> tuple[Template, ...]:
    """Return the functions that a store kept; one that this version cannot read is left out, and logged."""
    found = []
    for declaration in json.loads(state) if state else ():
        try:
            found.append(from_declaration(declaration))
        except InvalidFunction as error:
            _log.warning("an added function is left out: %s", error)
    return tuple(found)


def write_added(added: Iterable[Template]) -> bytes:
    """Return functions as the store keeps them."""
    return json.dumps([to_declaration(each) for each in added]).encode()


def together(of_files: FunctionSet, added: Iterable[Template]) -> FunctionSet:
    """Return the functions of files, then those added; a name in both is the file's, and that is logged."""
    fitting = []
    for each in added:
        if each.name in of_files:
            _log.warning("added function %r is set aside: a file defines one of this name", each.name)
        else:
            fitting.append(each)
    return FunctionSet([*of_files, *fitting])


def with_added(
    of_files: FunctionSet, added: tuple[Template, ...], declaration: Mapping[str, Any]
) -> tuple[Template, ...]:
    """Return what was added, and one more; the same once more changes nothing.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong, or there are too many functions.
    FunctionConflict
        If another function has the name.
    """
    new = from_declaration(declaration)
    if "/" in new.name or new.name in (".", ".."):
        raise InvalidFunction(f"name {new.name!r} cannot stand in an address: leave out '/', '.' and '..'")
    if new.name in of_files:
        raise FunctionConflict(
            f"{new.name!r} is defined in the project's files: change it there, or choose another name"
        )
    for each in added:
        if each.name == new.name:
            if to_declaration(each) != to_declaration(new):
                raise FunctionConflict(
                    f"{new.name!r} was added with other content: delete it first, or choose another name"
                )
            return added
    if len(of_files) + len(added) >= MOST:
        raise InvalidFunction(f"there are {MOST} functions already, and no more may be: delete some first")
    return (*added, new)


def without(of_files: FunctionSet, added: tuple[Template, ...], name: str) -> tuple[Template, ...]:
    """Return what was added, less one.

    Raises
    ------
    FunctionConflict
        If a file defines it.
    UnknownFunction
        If there is none of the name.
    """
    if name in of_files:
        raise FunctionConflict(f"{name!r} is defined in the project's files: remove it there, and restart")
    if name not in {each.name for each in added}:
        raise UnknownFunction(f"no function {name!r} was added here")
    return tuple(each for each in added if each.name != name)
