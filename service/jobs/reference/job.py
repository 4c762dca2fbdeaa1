"""Job that counts the slices on the reference table of a model that is served elsewhere."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic
from typing import Any

from models.bundle.reference import FamilyCounts, slice_counts
from service.errors import ServiceError
from service.jobs.child_process import ChildProcess, write_atomically
from service.jobs.reference.files import REASON, RESULT, SPEC
from service.serving.deployment import Deployment, DeploymentState
from service.serving.table_reference import COUNTS, FOLDER, SAMPLE, ReferenceSource, TableReference
from service.settings.schema import Settings
from sfs.function import ALL_ROWS
from sfs.schema import Schema

RETRY_SECONDS = 600.0
"""Wait before a count that failed is tried again; another table or other functions are tried at once."""

_TIMEOUT_SECONDS = 7200.0
_POLL_SECONDS = 0.2
_PART = ".counting-"

_log = logging.getLogger(__name__)


class ReferenceFailed(ServiceError):
    """The slices could not be counted on the table."""


class ReferenceCounts:
    """Keeps the counts of the live functions on the reference table; for one thread at a time, except ``stop``.

    A child process applies the functions. Counts are kept by function and table: only functions that are new or
    changed are applied again, and all if the table is another one, or is read by other settings.
    """

    def __init__(self, settings: Settings, deployment: Deployment) -> None:
        self._settings, self._deployment = settings, deployment
        self._folder = settings.store.parent / FOLDER
        self._key: tuple[object, str] = ((), "")  # of the source with this state of its files
        self._failed: tuple[str, Sequence[str], str] = ("", (), "")  # key, functions and reason of the last failure
        self._retry_at = 0.0
        self._stop = Event()
        for unfinished in self._folder.glob(f"{_PART}*"):  # left behind by a killed service
            shutil.rmtree(unfinished, ignore_errors=True)
        try:
            self._deployment.set_table(TableReference.load(self._folder))
        except ServiceError as error:
            _log.warning("%s", error)

    def stop(self) -> None:
        """End a count in progress."""
        self._stop.set()

    def run(self) -> None:
        """Count the functions that lack counts, if the model is served elsewhere."""
        state = self._deployment.state
        if state.active is not None or state.fault or not self._settings.classes:
            return
        table, note = state.table, ""
        try:
            source = ReferenceSource.of(self._settings)
            key = self._key_of(source)
            table = self._counted(source, key, state)
        except ServiceError as error:
            note = str(error)
        if table is not None and table.has_predictions and table.version is None and state.version is not None:
            table = replace(table, version=state.version)
            self._save(table)
        if (table, note) != (state.table, state.table_note):
            self._deployment.set_table(table, note)

    def _key_of(self, source: ReferenceSource) -> str:
        """Return the key of a table; its files are read only if their size or time of change is another one."""
        try:
            state = source, source.state()
            if state != self._key[0]:
                self._key = state, source.key(self._settings)
        except OSError as error:
            raise ReferenceFailed(f"{source.name} cannot be read: {error.strerror or error}") from error
        return self._key[1]

    def _counted(self, source: ReferenceSource, key: str, state: DeploymentState) -> TableReference:
        """Return a reference with the counts of all live functions."""
        table = state.table if state.table is not None and state.table.key == key else None
        counted = {} if table is None else table.fingerprints
        names = [name for name, fingerprint in state.fingerprints.items() if counted.get(name) != fingerprint]
        if source.predicted is not None:  # a family is counted on all of its slices at once
            known = {} if table is None else table.families
            lacking = [
                own for name, own in state.families.items() if name not in known or known[name].fingerprints != own
            ]
            failed = {*self._failed[1]} & {*names} if self._failed[0] == key else set()
            needed = {*names, *chain.from_iterable(own for own in lacking if not failed & {*own})}
            names = [name for name in state.fingerprints if name in needed]
        if table is not None and not names:
            return table
        if self._failed[:2] == (key, names) and monotonic() < self._retry_at:
            raise ReferenceFailed(self._failed[2])
        self._deployment.set_table(state.table, f"being counted on {source.name}")
        try:
            new, stopped = self._count(source, key, names, state)
        except ReferenceFailed as error:
            self._fail(key, names, f"{source.name} could not be counted: {error}")
            raise ReferenceFailed(self._failed[2]) from error
        if missing := [name for name in names if name not in new.fingerprints]:
            changed = [name for name in missing if name not in stopped]
            reasons = [f"changed on disk and not counted, restart the service: {', '.join(changed)}"] if changed else []
            reasons += [f"{name} was stopped on {source.name}, and is not counted: {stopped[name]}" for name in stopped]
            self._fail(key, missing, "; ".join(reasons))
        _log.info("counted %d functions on the %d rows of %s", len(new.fingerprints), new.rows, source.name)
        if table is not None:
            kept = {name: f for name, f in state.fingerprints.items() if counted.get(name) == f}
            counts = {name: table.counts[name] for name in kept}
            fingerprints = {**kept, **new.fingerprints}
            same = {n: each for n, each in table.families.items() if each.fingerprints.items() <= fingerprints.items()}
            counts, families = {**counts, **new.counts}, {**same, **new.families}
            new = replace(new, fingerprints=fingerprints, counts=counts, families=families)
        if state.table is not None and state.table.key.split("-")[0] == key.split("-")[0]:  # the same predictions
            new = replace(new, version=state.table.version)
        self._save(new)
        return new

    def _fail(self, key: str, names: Sequence[str], reason: str) -> None:
        self._failed, self._retry_at = (key, names, reason), monotonic() + RETRY_SECONDS
        _log.warning("reference: %s", reason)

    def _count(
        self, source: ReferenceSource, key: str, names: Sequence[str], state: DeploymentState
    ) -> tuple[TableReference, dict[str, str]]:
        """Return the counts of some functions, and why others were stopped, by name; put their sample in place."""
        settings = self._settings
        spec = {
            "path": str(source.path),
            "format": source.format,
            "label": source.label,
            "predicted": source.predicted,
            "hidden": settings.label,
            "classes": settings.classes,
            "features": dict(settings.features),
            "schema": settings.table_schema.to_json(),
            "functions": [*settings.functions],
            "added": state.declarations,
            "names": [*names],
            "families": {name: [*own] for name, own in state.families.items()},
        }
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._folder, prefix=_PART) as name:
            folder = Path(name)
            (folder / SPEC).write_text(json.dumps(spec))
            try:
                self._run_worker(folder)
            except ReferenceFailed as error:  # pages do not show paths of the server
                raise ReferenceFailed(str(error).replace(str(source.path), source.name)) from None
            result: dict[str, Any] = json.loads((folder / RESULT).read_bytes())
            if self._key_of(source) != key:
                raise ReferenceFailed(f"{source.name} was changed while it was read")
            (folder / SAMPLE).replace(self._folder / SAMPLE)
        lines = (self._folder / SAMPLE).read_text(encoding="utf-8").splitlines()
        live = state.fingerprints
        fingerprints = {name: f for name, f in result["fingerprints"].items() if live.get(name) == f}
        families = {n: each for n, each in result["families"].items() if {*each["fingerprints"]} <= {*fingerprints}}
        table = TableReference(
            source.name,
            key,
            result["rows"],
            result["has_predictions"],
            source.version,
            fingerprints,
            {name: slice_counts(result["counts"][name]) for name in (ALL_ROWS, *fingerprints)},
            Schema.from_json(result["schema"]),
            tuple((row["features"], row["label"]) for row in map(json.loads, lines)),
            FamilyCounts.from_json(families, fingerprints),
        )
        return table, result["stopped"]

    def _run_worker(self, folder: Path) -> None:
        process = ChildProcess("service.jobs.reference.worker", folder, _TIMEOUT_SECONDS, folder=folder)
        try:
            end = monotonic() + _TIMEOUT_SECONDS
            while not process.wait(_POLL_SECONDS):
                if self._stop.is_set():
                    raise ReferenceFailed("the service is stopping")
                if monotonic() > end:
                    raise ReferenceFailed(f"not finished within {_TIMEOUT_SECONDS:g} s")
        finally:
            process.kill()
        if process.exit_code != 0:
            _log.debug("output of the reference process: %s", process.output)  # may quote records
            reason = folder / REASON
            raise ReferenceFailed(
                reason.read_text(encoding="utf-8")
                if reason.exists()
                else f"the reference process {process.describe_exit()}"
            )

    def _save(self, table: TableReference) -> None:
        write_atomically(self._folder / COUNTS, table.to_json())
