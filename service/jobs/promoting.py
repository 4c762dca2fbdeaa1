"""Puts versions in force, asked by a person or by a run, and keeps who asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from models.registry import CHAMPION, AliasChange, ModelRegistry
from service.decisions import AuditEntry
from service.store.audit import record
from service.store.runs import move_run, runs
from service.store.writer import Writer

_log = logging.getLogger(__name__)


class Promotions:
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
    """Record the change, and end the run that held its version back."""
    record(connection, entry)
    for run in runs(connection, model):
        if run.state == "held" and run.candidate == change.version and change.change == "promote":
            said = f"approved by {actor}: {change.reason}"
            move_run(connection, run.id, "held", change.at, state="promoted", outcome=said, actor=actor)
