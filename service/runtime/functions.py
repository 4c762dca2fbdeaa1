"""Functions that are added while the service runs: templates only, kept in the store."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from service.api.errors import FunctionConflict, UnknownFunction
from service.api.parts import PreviewView
from service.store.writer import Writer
from service.views.functions import functions_view
from service.views.rates import estimate_of
from sfs.apply import run
from sfs.declarations import from_declaration, to_declaration
from sfs.errors import InvalidFunction
from sfs.registry import FunctionSet
from sfs.template import Template

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from service.api.parts import PreviewView
    from service.app.switchboard import Switchboard
    from service.views.current import Origin
    from service.views.functions import FunctionView

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


def merge_functions(of_files: FunctionSet, added: Iterable[Template]) -> FunctionSet:
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


EXAMPLES = 10
"""Members that are shown, at most."""


def preview(
    declaration: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    source: Literal["given", "sample"],
) -> PreviewView:
    """Apply a declared function to records.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong.
    """
    function = from_declaration(declaration)
    applied = run([function], records)
    member, unknown = applied.matrix.member[:, 0], applied.matrix.unknown[:, 0]
    members = [record for record, is_member in zip(records, member, strict=True) if is_member]
    return PreviewView(
        name=function.name,
        fingerprint=function.fingerprint,
        source=source,
        rows=len(records),
        members=len(members),
        unknown=int(unknown.sum()),
        coverage=estimate_of(len(members), len(records) - int(unknown.sum())),
        reasons=applied.runs[0].unknown,
        examples=tuple(members[:EXAMPLES]),
    )


def origins_of(functions: FunctionSet, of_files: FunctionSet) -> dict[str, Origin]:
    """Return where each function is defined."""
    return {name: "file" if name in of_files else "http" for name in functions.names}


class FunctionDesk:
    """Takes templates in and out of force; the store keeps them, so that a restart finds them again.

    Parameters
    ----------
    of_files
        The functions that the project's files define; these stay.
    added
        Those that were added before.
    switchboard
        Where they are put in force.
    writer, clock
        To keep them, and since when.
    """

    def __init__(
        self,
        of_files: FunctionSet,
        added: tuple[Template, ...],
        switchboard: Switchboard,
        writer: Writer,
        clock: Callable[[], datetime],
    ) -> None:
        self._of_files, self._added = of_files, added
        self._switchboard, self._writer, self._clock = switchboard, writer, clock
        self._changing = threading.Lock()

    async def add(self, declaration: Mapping[str, Any]) -> FunctionView:
        """Put a declared function in force, and return it.

        Raises
        ------
        InvalidFunction
            If the declaration is wrong.
        FunctionConflict
            If its name is taken.
        """
        return await asyncio.to_thread(self._add, declaration)

    async def remove(self, name: str) -> None:
        """Take a function out of force.

        Raises
        ------
        UnknownFunction, FunctionConflict
            If there is none, or a file defines it.
        """
        await asyncio.to_thread(self._remove, name)

    async def preview(
        self, declaration: Mapping[str, Any], records: Sequence[Mapping[str, Any]] | None
    ) -> PreviewView:
        """Try a declared function on records, or on the held-out ones that came with the model.

        Raises
        ------
        InvalidFunction
            If the declaration is wrong.
        """
        if records is not None:
            return await asyncio.to_thread(preview, declaration, records, "given")
        predictor = self._switchboard.predictor
        sample = () if predictor is None else predictor.loaded.bundle.sample
        return await asyncio.to_thread(preview, declaration, sample, "sample")

    def declarations(self) -> list[dict[str, Any]]:
        """Return the functions that were added, as they are declared in a YAML file."""
        return [to_declaration(each) for each in self._added]

    def _add(self, declaration: Mapping[str, Any]) -> FunctionView:
        with self._changing:
            added = with_added(self._of_files, self._added, declaration)
            self._refuse_label(added[-1:])
            self._put(added)
            views = functions_view(self._switchboard.current)
        return next(each for each in views if each.name == declaration["name"])

    def _refuse_label(self, added: tuple[Template, ...]) -> None:
        label = self._switchboard.label
        for each in added:
            if label in each.fields:
                raise InvalidFunction(
                    f"{each.name!r} reads {label!r}, the label, which no record has: leave it out"
                )

    def _remove(self, name: str) -> None:
        with self._changing:
            self._put(without(self._of_files, self._added, name))

    def _put(self, added: tuple[Template, ...]) -> None:
        if added == self._added:
            return
        functions = merge_functions(self._of_files, added)
        self._writer.save_checkpoint(CHECKPOINT, self._clock(), write_added(added)).result()
        self._switchboard.put_functions(functions, origins_of(functions, self._of_files))
        self._added = added
