"""Schema migrations of a store."""

from __future__ import annotations

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from service.store.errors import UnknownSchema

STEPS = Path(__file__).parent / "migrations"


def current(connection: Connection) -> str | None:
    """Return the schema version of the store; None without tables."""
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """Return the latest schema version that this release knows."""
    return ScriptDirectory(str(STEPS)).get_current_head()


def refuse_unknown(version: str | None) -> None:
    """Raise UnknownSchema for a schema version that this release does not know."""
    known = {step.revision for step in ScriptDirectory(str(STEPS)).walk_revisions()}
    if version is not None and version not in known:
        raise UnknownSchema(
            f"the store has schema {version}, which this release of slicewatch does not know "
            f"(its latest is {newest()}): use the release that wrote it, or a later one"
        )


def upgrade(connection: Connection) -> None:
    """Run the missing migrations, all in the transaction of the connection. Raises as ``refuse_unknown``."""
    steps, version = ScriptDirectory(str(STEPS)), current(connection)
    refuse_unknown(version)
    missing = list(steps.iterate_revisions("head", version or "base"))
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for step in reversed(missing):
            step.module.upgrade()
            context.stamp(steps, step.revision)


def downgrade(connection: Connection, target: str) -> None:
    """Revert migrations down to a target (``base`` is a store without tables), in the caller's transaction."""
    steps, context = ScriptDirectory(str(STEPS)), MigrationContext.configure(connection)
    with Operations.context(context):
        for step in steps.iterate_revisions(current(connection) or "base", target):
            step.module.downgrade()
            context.stamp(steps, str(step.down_revision or "base"))
