"""Promotion and rollback on request; retraining runs promote by themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection

from models.errors import BundleError, RegistryError, RegistryUnavailable
from models.registry import CHAMPION, AliasChange, ModelRegistry
from service.decisions import AuditEntry
from service.errors import ServiceError
from service.store.audit import entries_about, record
from service.store.runs import move_run, run_that_made
from service.store.writer import Writer

_log = logging.getLogger(__name__)


class PromotionConflict(ServiceError):
    """The champion was changed concurrently, or there is no earlier champion."""


class DamagedVersion(ServiceError):
    """The version cannot be served: its files have changed since they were written."""


class PromotionService:
    """Changes the champion of one model, with an entry in the audit."""

    def __init__(self, registry: ModelRegistry, writer: Writer, model: str, clock: Callable[[], datetime]) -> None:
        self._registry, self._writer, self._model, self._clock = registry, writer, model, clock

    def promote(self, version: int, expected: int | None, reason: str, actor: str) -> AliasChange:
        """Promote a version to champion, and approve the run that holds it.

        If it is already the champion, only missing records are written: an interrupted request can be repeated.

        ``expected`` is the champion that it replaces; None for any.

        Raises
        ------
        PromotionConflict, DamagedVersion
            If there is no such version, or the champion was changed concurrently; if it cannot be loaded.
        RegistryUnavailable
            If the registry cannot be read or written.
        """
        with self._translated_errors():
            self._registry.get(version)  # verifies that it loads: a damaged version must not become champion
            last = self._registry.change(CHAMPION)
            if last is not None and last.version == version and expected in (None, version):
                change = last
            else:
                current = last if expected is None else expected
                change = self._registry.promote(version, expected=current, reason=reason, at=self._clock())
        self._record(change, "model.promoted", actor)
        return change

    def rollback(self, reason: str, actor: str) -> AliasChange:
        """Promote the previous champion again. Raises PromotionConflict if there is none, and as `promote`."""
        with self._translated_errors():
            change = self._registry.rollback(reason=reason, at=self._clock())
        self._record(change, "model.rolled_back", actor)
        return change

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except BundleError as error:
            raise DamagedVersion(self._registry.relative(str(error))) from error
        except RegistryUnavailable:
            raise
        except RegistryError as error:
            raise PromotionConflict(str(error)) from error

    def _record(self, change: AliasChange, action: str, actor: str) -> None:
        """Write the change to the audit, once, and end the run that holds its version."""
        _log.info("version %d is the champion", change.version, extra={"action": action, "by": actor})
        detail = {"reason": change.reason, "sequence": change.sequence}
        entry = AuditEntry(change.at, actor, action, f"version {change.version}", detail)

        def work(connection: Connection) -> None:
            earlier = entries_about(connection, entry.subject)
            if not any(entry.detail.get("sequence") == change.sequence for entry in earlier):
                record(connection, entry)
            run = run_that_made(connection, self._model, change.version)
            if run is not None and run.state == "held" and change.change == "promote":
                outcome = f"approved by {actor}: {change.reason}"
                move_run(connection, run.id, "held", change.at, state="promoted", outcome=outcome, actor=actor)

        self._writer.submit(work).result()
