"""Schema migrations of a store."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from service.store.errors import StoreError, StoreInUse, UnknownSchema

STEPS = Path(__file__).parent / "migrations"


def current_revision(connection: Connection) -> str | None:
    """Return the schema version of the store; None without tables."""
    return MigrationContext.configure(connection).get_current_revision()


def latest_revision() -> str | None:
    """Return the latest schema version that this release knows."""
    return ScriptDirectory(str(STEPS)).get_current_head()


def refuse_unknown(version: str | None) -> None:
    """Raise UnknownSchema for a schema version that this release does not know."""
    known = {step.revision for step in ScriptDirectory(str(STEPS)).walk_revisions()}
    if version is not None and version not in known:
        raise UnknownSchema(
            f"the store has schema {version}, which this release of slicewatch does not know "
            f"(its latest is {latest_revision()}): use the release that wrote it, or a later one"
        )


def upgrade_schema(connection: Connection) -> None:
    """Run the missing migrations, all in the transaction of the connection. Raises as ``refuse_unknown``."""
    steps, version = ScriptDirectory(str(STEPS)), current_revision(connection)
    refuse_unknown(version)
    missing = list(steps.iterate_revisions("head", version or "base"))
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for step in reversed(missing):
            step.module.upgrade()
            context.stamp(steps, step.revision)


def downgrade_schema(connection: Connection, target: str) -> None:
    """Revert migrations down to a target (``base`` is a store without tables), in the caller's transaction."""
    steps, context = ScriptDirectory(str(STEPS)), MigrationContext.configure(connection)
    with Operations.context(context):
        for step in steps.iterate_revisions(current_revision(connection) or "base", target):
            step.module.downgrade()
            context.stamp(steps, str(step.down_revision or "base"))


Synchronous = Literal["NORMAL", "FULL"]
BUSY_SECONDS = 10.0
READERS = 8


class Store:
    """SQLite file, locked for this process, with one writing connection and several reading ones.

    SQLite before 3.51.3 can corrupt a WAL file that one connection writes while another checkpoints it, so
    only the writing connection does either, and it is closed last.

    Parameters
    ----------
    path
        Database file in an existing folder on a local disk; created if missing.
    synchronous
        ``NORMAL`` keeps every acknowledged row if the process is killed, ``FULL`` also if power fails, at the
        cost of waiting for the disk at every commit.

    Raises
    ------
    StoreInUse
        If another process has it open.
    StoreError
        If the file cannot be opened, is not a store, or was written by a later release.
    """

    def __init__(self, path: Path, *, synchronous: Synchronous = "NORMAL") -> None:
        self.path = path
        self._lock = _lock(path)
        # Records are private: only the owner may read the file, and SQLite gives its journal the same mode.
        os.close(os.open(path, os.O_CREAT, 0o600))
        self.writing = _engine(lambda: _connect(path, synchronous), "BEGIN IMMEDIATE", connections=1)
        self._reading = _engine(lambda: _connect_read_only(path), "BEGIN", connections=READERS)
        try:
            with self.writing.begin() as connection:
                upgrade_schema(connection)
        except BaseException as error:
            self.close()
            if isinstance(error, DatabaseError):
                raise StoreError(f"{path} cannot be opened as a store: {error.orig}") from error
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a read-only connection that sees one moment. Raises StoreError if the database fails."""
        try:
            with self._reading.connect() as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise StoreError(f"the store could not be read: {reason}") from error

    def close(self) -> None:
        """Close all connections, the writing one last, and release the lock."""
        self._reading.dispose()
        self.writing.dispose()
        self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def schema_version(path: Path) -> str | None:
    """Return the schema version of a store, None without a store. Raises StoreError for another file."""
    if not path.exists():
        return None
    try:
        with closing(_connect_read_only(path)) as raw:
            engine = create_engine(
                "sqlite+pysqlite://", creator=lambda: raw, poolclass=StaticPool, hide_parameters=True
            )
            with engine.connect() as connection:
                return current_revision(connection)
    except (sqlite3.DatabaseError, DatabaseError) as error:
        raise StoreError(f"{path} cannot be read as a store: {error}") from error


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that supports ``ON CONFLICT`` in the dialect of this database."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def add_row(connection: Connection, table: Table, row: Mapping[str, Any]) -> int:
    """Insert a row into a table with a generated ``id``, and return the id."""
    return int(connection.scalars(insert(table).returning(table.c.id), row).one())


def _lock(path: Path) -> TextIO:
    lock_path = path.with_name(path.name + ".lock")
    try:
        handle = os.fdopen(os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+")
    except OSError as error:
        raise StoreError(
            f"{lock_path} cannot be created: {error.strerror}; create the folder of the store first"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.seek(0)
        holder = handle.read().strip() or "unknown"
        handle.close()
        raise StoreInUse(
            f"{path} is in use by process {holder}: more than one process needs PostgreSQL; "
            "stop that process, or use its HTTP API"
        ) from error
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def _engine(connect: Callable[[], sqlite3.Connection], begin: str, *, connections: int) -> Engine:
    engine = create_engine(
        "sqlite+pysqlite://",
        creator=connect,
        pool_size=connections,
        max_overflow=0,
        poolclass=QueuePool,
        hide_parameters=True,  # an error text would quote the rows
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Python's own transactions start too late for a read to see one moment, and never for DDL.
        connection.exec_driver_sql(begin)

    return engine


def _connect(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _connect_read_only(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA query_only=ON")
    return connection
