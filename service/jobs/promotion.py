"""Puts versions in force, asked by a person or by a run, and keeps who asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from models.registry import CHAMPION, AliasChange, ModelRegistry
from service.decisions import AuditEntry
from service.store.audit import entries_about, record
from service.store.runs import move_run, run_that_made
from service.store.writer import Writer

_log = logging.getLogger(__name__)


class PromotionService:
    """Changes the champion of one model.

    Parameters
    ----------
    registry
        Where the versions are.
    writer
        Keeps who did what.
    model
        What the model is called.
    clock
        The time, UTC.
    """

    def __init__(
        self, registry: ModelRegistry, writer: Writer, model: str, clock: Callable[[], datetime]
    ) -> None:
        self._registry, self._writer, self._model, self._clock = registry, writer, model, clock

    def promote(self, version: int, expected: int | None, reason: str, actor: str) -> AliasChange:
        """Make a version the champion; one that a run has held back is approved by it.

        Where it is the champion already only what was not kept of that is kept: whoever was cut off between
        the two can ask again.

        Parameters
        ----------
        expected
            The champion that it replaces; None for whichever it is.
        reason, actor
            Why, and who asks.

        Raises
        ------
        RegistryError
            If there is no such version, or somebody else was first.
        BundleError
            If the version cannot be loaded.
        """
        self._registry.get(version)  # proves that it loads: what is broken must not become champion
        history = self._registry.history(CHAMPION)
        if history and history[-1].version == version and expected in (None, version):
            self._kept(history[-1], "model.promoted", actor)
            return history[-1]
        there = expected if expected is not None else history[-1] if history else None
        at = self._clock()
        change = self._registry.promote(version, expected=there, reason=reason, at=at)
        self._kept(change, "model.promoted", actor)
        return change

    def rollback(self, reason: str, actor: str) -> AliasChange:
        """Make the champion before this one champion again. Raises RegistryError where there is none."""
        change = self._registry.rollback(reason=reason, at=self._clock())
        self._kept(change, "model.rolled_back", actor)
        return change

    def _kept(self, change: AliasChange, action: str, actor: str) -> None:
        _log.info("version %d is the champion", change.version, extra={"action": action, "by": actor})
        detail = {"reason": change.reason, "sequence": change.sequence}
        entry = AuditEntry(change.at, actor, action, f"version {change.version}", detail)
        work = partial(_keep, entry=entry, model=self._model, change=change, actor=actor)
        self._writer.submit(work).result()


def _keep(connection: Connection, entry: AuditEntry, model: str, change: AliasChange, actor: str) -> None:
    """Record the change, once, and end the run that held its version back."""
    told = entries_about(connection, entry.subject)
    if not any(each.detail.get("sequence") == change.sequence for each in told):
        record(connection, entry)
    run = run_that_made(connection, model, change.version)
    if run is not None and run.state == "held" and change.change == "promote":
        said = f"approved by {actor}: {change.reason}"
        move_run(connection, run.id, "held", change.at, state="promoted", outcome=said, actor=actor)
