"""Adding, removing and trying functions while the service runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.app.added import CHECKPOINT, together, with_added, without, write_added
from service.app.preview import preview
from service.store.writer import Writer
from service.views.functions import functions_view
from sfs.declarations import to_declaration
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
        functions = together(self._of_files, added)
        self._writer.keep(CHECKPOINT, self._clock(), write_added(added)).result()
        self._switchboard.put_functions(functions, origins_of(functions, self._of_files))
        self._added = added
