"""Brings the tables of a store to the shape that this version knows, step by step."""

from __future__ import annotations

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from service.store.errors import UnknownSchema

STEPS = Path(__file__).parent / "migrations"


def current(connection: Connection) -> str | None:
    """Return the step that the store stands at; None for a store without tables."""
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """Return the last step that this version knows."""
    return ScriptDirectory(str(STEPS)).get_current_head()


def refuse_unknown(found: str | None) -> None:
    """Refuse a step that this version does not know.

    Raises
    ------
    UnknownSchema
        If it does not.
    """
    known = {step.revision for step in ScriptDirectory(str(STEPS)).walk_revisions()}
    if found is not None and found not in known:
        raise UnknownSchema(
            f"the store stands at step {found}, which this version of slicewatch does not know "
            f"(its last is {newest()}); use the version that wrote it, or a later one"
        )


def upgrade(connection: Connection) -> None:
    """Run the missing steps, all in the transaction of the connection.

    Raises
    ------
    UnknownSchema
        If the store stands at a step that this version does not know.
    """
    steps, found = ScriptDirectory(str(STEPS)), current(connection)
    refuse_unknown(found)
    missing = list(steps.iterate_revisions("head", found or "base"))
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for step in reversed(missing):
            step.module.upgrade()
            context.stamp(steps, step.revision)


def downgrade(connection: Connection, target: str) -> None:
    """Take steps back to a target (``base`` is a store without tables), in the transaction of the connection."""
    steps, context = ScriptDirectory(str(STEPS)), MigrationContext.configure(connection)
    with Operations.context(context):
        for step in steps.iterate_revisions(current(connection) or "base", target):
            step.module.downgrade()
            context.stamp(steps, str(step.down_revision or "base"))
