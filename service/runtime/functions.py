"""Functions that are added, removed and previewed while the service runs."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from service.errors import ServiceError
from service.events import Estimate, InsufficientData
from service.serving.deployment import Deployment, Origin
from service.store.writer import Writer
from service.views.records import cut_features
from service.views.slices import FunctionView, estimate_of, functions_view
from sfs.apply import apply_with_stats
from sfs.declarations import from_declaration, to_declaration
from sfs.errors import InvalidFunction
from sfs.intervals import Rate, effective_n
from sfs.registry import FunctionSet
from sfs.template import Template
from sfs.validation import validate_monitored_name

if TYPE_CHECKING:
    from models.features import FeatureSpec

CHECKPOINT = "functions"
"""Name of the checkpoint with the added functions."""
MAX_FUNCTIONS = 1000
"""Maximum number of live functions: each is a series per window in every scrape."""
EXAMPLES = 10
"""Maximum number of members that a preview shows."""

_log = logging.getLogger(__name__)


class FunctionConflict(ServiceError):
    """The name belongs to a function that cannot be changed over HTTP, such as one defined in a file."""


class UnknownFunction(ServiceError):
    """No live function has this name."""


@dataclass(frozen=True, slots=True)
class FunctionPreview:
    """Result of a function on some records; the function is not activated.

    Parameters
    ----------
    name, fingerprint
        The function.
    source
        Source of the records: the request, or the sample of the reference.
    rows, members, unknown
        Number of records, of members, and of records with an unknown membership.
    coverage
        Members among the records with a known membership.
    reasons
        Reasons of unknown memberships, with the number of records of each.
    examples
        The first members, with long values cut.
    """

    name: str
    fingerprint: str
    source: Literal["given", "sample"]
    rows: int
    members: int
    unknown: int
    coverage: Estimate | InsufficientData
    reasons: Mapping[str, int]
    examples: tuple[Mapping[str, Any], ...]


class FunctionAdmin:
    """Adds and removes declared functions; the store keeps them across restarts.

    Parameters
    ----------
    file_functions
        Functions defined in the project's files; these cannot be changed here.
    added
        Functions added earlier.
    deployment
        Applies them.
    writer, clock
        Store them with a time, UTC.
    """

    def __init__(
        self,
        file_functions: FunctionSet,
        added: tuple[Template, ...],
        deployment: Deployment,
        writer: Writer,
        clock: Callable[[], datetime],
    ) -> None:
        self._file_functions, self._added = file_functions, added
        self._deployment, self._writer, self._clock = deployment, writer, clock
        self._lock = threading.Lock()

    async def add(self, declaration: Mapping[str, Any]) -> FunctionView:
        """Activate a declared function, and return it.

        Raises
        ------
        InvalidFunction
            If the declaration is wrong.
        FunctionConflict
            If its name is taken.
        """
        return await asyncio.to_thread(self._add, declaration)

    async def remove(self, name: str) -> None:
        """Deactivate a function.

        Raises
        ------
        UnknownFunction, FunctionConflict
            If there is none, or a file defines it.
        """
        await asyncio.to_thread(self._remove, name)

    async def preview(
        self, declaration: Mapping[str, Any], records: Sequence[Mapping[str, Any]] | None
    ) -> FunctionPreview:
        """Apply a declared function to records, or to the sample of the reference.

        Raises
        ------
        InvalidFunction
            If the declaration is wrong.
        """
        state = self._deployment.state
        specs = state.specs
        if records is not None:
            read = [*map(state.schema.parse_record, records)] if state.schema.columns else records
            return await asyncio.to_thread(preview, declaration, read, "given", specs)
        return await asyncio.to_thread(preview, declaration, state.sample, "sample", specs)

    def _add(self, declaration: Mapping[str, Any]) -> FunctionView:
        with self._lock:
            added = with_added(self._file_functions, self._added, declaration)
            label = self._deployment.label
            if label in added[-1].fields:
                raise InvalidFunction(
                    f"{added[-1].name!r} reads {label!r}, the label, which no record has: leave it out"
                )
            self._activate(added)
            views = functions_view(self._deployment)
        return next(view for view in views if view.name == declaration["name"])

    def _remove(self, name: str) -> None:
        with self._lock:
            self._activate(without(self._file_functions, self._added, name))

    def _activate(self, added: tuple[Template, ...]) -> None:
        if added == self._added:
            return
        functions = merge_functions(self._file_functions, added)
        self._writer.save_checkpoint(CHECKPOINT, self._clock(), write_added(added)).result()
        self._deployment.activate_functions(functions, origins_of(functions, self._file_functions))
        self._added = added


def preview(
    declaration: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    source: Literal["given", "sample"],
    features: Sequence[FeatureSpec] = (),
) -> FunctionPreview:
    """Apply a declared function to records, whose contents are those of ``features``.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong.
    """
    from models.splits import record_contents  # imports pandas

    function = from_declaration(declaration)
    validate_monitored_name(function.name)
    applied = apply_with_stats([function], records)
    member, unknown = applied.matrix.member[:, 0], applied.matrix.unknown[:, 0]
    members = [record for record, is_member in zip(records, member, strict=True) if is_member]
    whole = [hash(json.dumps(record, sort_keys=True)) for record in records]
    contents = np.array(record_contents(records, features, whole), dtype=np.int64)
    independent = effective_n(contents[~unknown], member[~unknown])
    return FunctionPreview(
        name=function.name,
        fingerprint=function.fingerprint,
        source=source,
        rows=len(records),
        members=len(members),
        unknown=int(unknown.sum()),
        coverage=estimate_of(Rate(len(members), int((~unknown).sum()), independent)),
        reasons=applied.stats[0].unknown,
        examples=tuple(cut_features(member)[0] or {} for member in members[:EXAMPLES]),
    )


def origins_of(functions: FunctionSet, file_functions: FunctionSet) -> dict[str, Origin]:
    """Return the origin of each function."""
    return {name: "file" if name in file_functions else "http" for name in functions.names}


def read_added(state: bytes | None) -> tuple[Template, ...]:
    """Return the functions in a checkpoint; one that this version cannot read is logged and left out."""
    added = []
    for declaration in json.loads(state) if state else ():
        try:
            added.append(from_declaration(declaration))
        except InvalidFunction as error:
            _log.warning("an added function is left out: %s", error)
    return tuple(added)


def write_added(added: Iterable[Template]) -> bytes:
    """Return functions as the checkpoint holds them."""
    return json.dumps([to_declaration(function) for function in added]).encode()


def merge_functions(file_functions: FunctionSet, added: Iterable[Template]) -> FunctionSet:
    """Return the functions of files, then the added ones; a file wins over an added function of the same name."""
    accepted = []
    for function in added:
        if function.name in file_functions:
            _log.warning("added function %r is ignored: a file defines this name", function.name)
        else:
            accepted.append(function)
    return FunctionSet([*file_functions, *accepted])


def with_added(
    file_functions: FunctionSet, added: tuple[Template, ...], declaration: Mapping[str, Any]
) -> tuple[Template, ...]:
    """Return the added functions and one more; adding the same function again changes nothing.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong, or there are too many functions.
    FunctionConflict
        If another function has the name.
    """
    new = from_declaration(declaration)
    validate_monitored_name(new.name)
    if new.name in file_functions:
        raise FunctionConflict(
            f"{new.name!r} is defined in the project's files: change it there, or choose another name"
        )
    for function in added:
        if function.name == new.name:
            if to_declaration(function) != to_declaration(new):
                raise FunctionConflict(
                    f"{new.name!r} was added with other content: delete it first, or choose another name"
                )
            return added
    if len(file_functions) + len(added) >= MAX_FUNCTIONS:
        raise InvalidFunction(f"there are {MAX_FUNCTIONS} functions, the maximum: delete some first")
    return (*added, new)


def without(file_functions: FunctionSet, added: tuple[Template, ...], name: str) -> tuple[Template, ...]:
    """Return the added functions without one.

    Raises
    ------
    FunctionConflict
        If a file defines it.
    UnknownFunction
        If no added function has the name.
    """
    if name in file_functions:
        raise FunctionConflict(f"{name!r} is defined in the project's files: remove it there, and restart")
    if name not in {function.name for function in added}:
        raise UnknownFunction(f"no added function is named {name!r}")
    return tuple(function for function in added if function.name != name)
