"""Functions that are added, removed and previewed while the service runs."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sqlalchemy import Connection

from service.decisions import AuditEntry
from service.errors import ServiceError, Stopping
from service.events import Estimate, InsufficientData
from service.jobs.template_preview import apply_in_child
from service.serving.deployment import Deployment, Origin
from service.store.audit import record
from service.store.writer import Writer, save_checkpoint
from service.views.records import cut_features
from service.views.slices import FunctionView, estimate_of, functions_view
from sfs.declarations import from_declaration, to_declaration
from sfs.errors import InvalidFunction
from sfs.function import SlicingFunction
from sfs.grammar import Spec
from sfs.intervals import Rate, effective_n
from sfs.registry import FunctionSet
from sfs.template import Template
from sfs.template_limits import TEMPLATE_LIMITS, TemplateLimits
from sfs.validation import validate_monitored_metadata, validate_monitored_name, validate_name

if TYPE_CHECKING:
    from models.features import FeatureSpec

CHECKPOINT = "functions"
"""Name of the checkpoint with the added functions."""
MAX_FUNCTIONS = 1000
"""Maximum number of live functions: each is a series per window in every scrape."""
MAX_ADDED_BYTES = 16 * 2**20
"""Maximum size of all added functions as the store holds them."""
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
    limits
        Limits of all templates together.
    preview_seconds
        Timeout of a preview.
    """

    def __init__(
        self,
        file_functions: FunctionSet,
        added: tuple[Template, ...],
        deployment: Deployment,
        writer: Writer,
        clock: Callable[[], datetime],
        limits: TemplateLimits = TEMPLATE_LIMITS,
        preview_seconds: float = 8.0,
    ) -> None:
        self._file_functions, self._added = file_functions, added
        self._deployment, self._writer, self._clock = deployment, writer, clock
        self._limits, self._preview_seconds = limits, preview_seconds
        self._lock = threading.Lock()
        self._stop = threading.Event()
        # Threads of their own: no request waits for a compilation, and previews use one process.
        self._changes = ThreadPoolExecutor(1, "functions")
        self._previews = ThreadPoolExecutor(1, "preview")

    async def add(self, declaration: Mapping[str, Any], actor: str = "http") -> FunctionView:
        """Activate a declared function, and return it; the audit log names the actor.

        Raises
        ------
        InvalidFunction
            If the declaration is wrong.
        FunctionConflict
            If its name is taken.
        Stopping
            If the service is stopping.
        """
        return await asyncio.get_running_loop().run_in_executor(self._changes, self._add, declaration, actor)

    async def remove(self, name: str, actor: str = "http") -> None:
        """Deactivate a function; the audit log names the actor.

        Raises
        ------
        UnknownFunction, FunctionConflict
            If there is none, or a file defines it.
        Stopping
            If the service is stopping.
        """
        await asyncio.get_running_loop().run_in_executor(self._changes, self._remove, name, actor)

    async def preview(
        self, declaration: Mapping[str, Any], records: Sequence[Mapping[str, Any]] | None
    ) -> FunctionPreview:
        """Apply a declared function to records, or to the sample of the reference.

        Raises
        ------
        InvalidFunction
            If the declaration is wrong, or takes too long.
        Stopping
            If the service is stopping.
        """
        return await asyncio.get_running_loop().run_in_executor(self._previews, self._preview, declaration, records)

    def stop(self) -> None:
        """End a preview in progress, and refuse changes and previews that wait."""
        self._stop.set()

    def close(self) -> None:
        """End the threads."""
        self.stop()
        for executor in (self._changes, self._previews):
            executor.shutdown(wait=False, cancel_futures=True)

    def _add(self, declaration: Mapping[str, Any], actor: str) -> FunctionView:
        self._require_running()
        with self._lock:
            added = with_added(self._file_functions, self._added, declaration, self._limits)
            label = self._deployment.label
            if label in added[-1].fields:
                raise InvalidFunction(
                    f"{added[-1].name!r} reads {label!r}, the label, which no record has: leave it out"
                )
            self._activate(added, actor, "added", added[-1].name)
            views = functions_view(self._deployment)
        return next(view for view in views if view.name == declaration["name"])

    def _preview(self, declaration: Mapping[str, Any], records: Sequence[Mapping[str, Any]] | None) -> FunctionPreview:
        state = self._deployment.state
        source: Literal["given", "sample"] = "sample" if records is None else "given"
        if records is None:
            records = state.sample
        elif state.schema.columns:
            records = [*map(state.schema.parse_record, records)]
        return preview(declaration, records, source, state.specs, self._limits, self._preview_seconds, stop=self._stop)

    def _remove(self, name: str, actor: str) -> None:
        self._require_running()
        with self._lock:
            self._activate(without(self._file_functions, self._added, name), actor, "removed", name)

    def _require_running(self) -> None:
        if self._stop.is_set():
            raise Stopping("the service is stopping: change its functions later")

    def _activate(self, added: tuple[Template, ...], actor: str, action: str, name: str) -> None:
        if added == self._added:
            return
        functions = merge_functions(self._file_functions, added)
        at = self._clock()

        def work(connection: Connection) -> None:
            save_checkpoint(connection, CHECKPOINT, at, write_added(added))
            record(connection, AuditEntry(at, actor, f"function.{action}", f"function {name}", {}))

        self._writer.submit(work).result()
        self._deployment.activate_functions(functions, origins_of(functions, self._file_functions))
        self._added = added


def preview(
    declaration: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    source: Literal["given", "sample"],
    features: Sequence[FeatureSpec] = (),
    limits: TemplateLimits = TEMPLATE_LIMITS,
    timeout_seconds: float = 10.0,
    *,
    stop: threading.Event | None = None,
) -> FunctionPreview:
    """Apply a declared function to records, in a process that is killed after a timeout or when ``stop`` is set.

    The contents of the records are those of ``features``.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong, or takes too long.
    """
    from models.splits import record_contents  # imports pandas

    name = validate_name(declaration.get("name"))
    validate_monitored_name(name)
    result = apply_in_child(declaration, records, limits, timeout_seconds, stop=stop)
    member, known = np.zeros(len(records), dtype=bool), np.ones(len(records), dtype=bool)
    member[list(result.members)], known[list(result.unknown)] = True, False
    whole = [hash(json.dumps(record, sort_keys=True)) for record in records]
    contents = np.array(record_contents(records, features, whole), dtype=np.int64)
    independent = effective_n(contents[known], member[known])
    return FunctionPreview(
        name=name,
        fingerprint=result.fingerprint,
        source=source,
        rows=len(records),
        members=len(result.members),
        unknown=len(result.unknown),
        coverage=estimate_of(Rate(len(result.members), int(known.sum()), independent)),
        reasons=result.reasons,
        examples=tuple(cut_features(records[row])[0] or {} for row in result.members[:EXAMPLES]),
    )


def origins_of(functions: FunctionSet, file_functions: FunctionSet) -> dict[str, Origin]:
    """Return the origin of each function."""
    return {name: "file" if name in file_functions else "http" for name in functions.names}


def read_added(state: bytes | None) -> tuple[Template, ...]:
    """Return the functions in a checkpoint; one that this version cannot read is logged and left out."""
    added: list[Template] = []
    try:
        declarations = json.loads(state) if state else []
    except (ValueError, RecursionError) as error:
        declarations = error
    if not isinstance(declarations, list):
        _log.error("the added functions are left out: their entry in the store is damaged; add them again")
        return ()
    for declaration in declarations:
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
    file_functions: FunctionSet,
    added: tuple[Template, ...],
    declaration: Mapping[str, Any],
    limits: TemplateLimits = TEMPLATE_LIMITS,
) -> tuple[Template, ...]:
    """Return the added functions and one more; adding the same function again changes nothing.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong, there are too many functions, or their patterns exceed the limits.
    FunctionConflict
        If another function has the name.
    """
    new = from_declaration(declaration)
    validate_monitored_name(new.name)
    validate_monitored_metadata(new.metadata)
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
    limits.require(_specs([*file_functions, *added, new]))
    if (size := len(write_added((*added, new)))) > MAX_ADDED_BYTES:
        raise InvalidFunction(
            f"the added functions would have {size:,} bytes, more than the limit of {MAX_ADDED_BYTES:,}: delete some "
            "first, or list fewer values"
        )
    return (*added, new)


def within_limits(
    file_functions: FunctionSet, added: Iterable[Template], limits: TemplateLimits
) -> tuple[Template, ...]:
    """Return the added functions that are within the limits, together with those of files; others are logged.

    Functions of files are used in any case: they belong to the project, and a warning is logged.
    """
    added, files = tuple(added), _specs(file_functions)
    try:
        limits.require(files)
    except InvalidFunction as error:
        _log.warning("the functions of files are used, but no function can be added: %s", error)
    accepted = []
    for function, reason in zip(added, limits.refusals(_specs(added), files), strict=True):
        if reason is None:
            accepted.append(function)
        else:
            _log.warning("added function %r is left out: %s", function.name, reason)
    return tuple(accepted)


def _specs(functions: Iterable[SlicingFunction]) -> list[Spec]:
    return [function.spec for function in functions if isinstance(function, Template)]


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
