"""Schema migrations of a store."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Literal, cast

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, insert, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from service.events import DiskUse
from service.store.errors import StoreError, StoreUnusable, UnknownSchema
from service.store.store_files import StoreFiles, StoreLock, journal, quick_check, require_existing

STEPS = Path(__file__).parent / "migrations"

CHECK_SECONDS = 30.0
"""Maximum time of the check after a crash."""

_READ_BY_PROBE = ("predictions", "label_events", "blocks", "first_labels", "checkpoints")
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_log = logging.getLogger(__name__)


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


_IDENTITY = text("SELECT id FROM store_identity")
_LAST_ROW = text("SELECT coalesce(max(row), 0) FROM predictions")
REMEDY = "restore a backup with `slicewatch restore FILE`"
_NOT_WRITABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)

_DIALECT = sqlite.dialect(paramstyle="qmark")
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
        self.path = path = path.resolve()  # SQLite puts the journal beside the file, not beside a link to it
        require_existing(path)
        self._journal_left = journal(path).exists()
        self._lock = StoreLock(path)
        self._files: StoreFiles | None = None
        self._guard: sqlite3.Connection | None = None
        self._is_sound = False  # closed in this state, it is checked when it is opened next
        self._damage: str | None = None
        self._unreadable: str | None = None
        self._logged: str | None = None
        self._looking = threading.Lock()
        # Records are private: only the owner may read the file, and SQLite gives its journal the same mode.
        os.close(os.open(path, os.O_CREAT, 0o600))
        self.writing = _engine(lambda: _connect(path, synchronous), "BEGIN IMMEDIATE", connections=1)
        self._reading = _engine(self._connect_reader, "BEGIN", connections=READERS)
        try:
            if self._lock.unclean:
                self._check()
            with self.writing.begin() as connection:
                upgrade_schema(connection)
                self._identity = str(connection.scalar(_IDENTITY))
                last_row = connection.scalar(_LAST_ROW)
            if self._lock.unclean:
                self._compare(last_row)
            self._lock.record(self._identity, last_row)
            self._files = StoreFiles(path, self._lock.path)
            self._guard = connect_read_only(path)
            self._guard.execute(str(_IDENTITY)).fetchall()  # from now on it is a user of the journal
            self._is_sound = True
        except BaseException as error:
            self.close()
            if isinstance(error, DatabaseError | sqlite3.Error):
                reason = getattr(error, "orig", None) or error
                hint = self._copied_by_hand() if is_damage(reason) else ""
                raise StoreError(f"{path} cannot be opened as a store: {reason}{advice(reason)}{hint}") from error
            raise

    @property
    def problem(self) -> str | None:
        """Reason why the store takes no writes; None if it does. Logged when it changes."""
        with self._looking:
            found = self._damage or self._unreadable or (self._files.problem() if self._files else None)
            if found != self._logged:
                self._logged = found
                if found is None:
                    _log.warning("the store is usable again")
                else:
                    _log.error("the store takes no writes: %s", found)
        return found

    def require_usable(self) -> None:
        """Raise StoreUnusable if rows written now would be lost."""
        if problem := self.problem:
            raise StoreUnusable(f"the store takes no writes: {problem}; the request can be sent again later")

    def probe(self) -> str | None:
        """Read a row of every large table through a new connection, and return ``problem``."""
        if self._files is not None and self._files.problem() is None:
            try:
                with closing(connect_read_only(self.path)) as connection:
                    for table in _READ_BY_PROBE:
                        connection.execute(f"SELECT * FROM {table} ORDER BY rowid DESC LIMIT 1").fetchall()  # noqa: S608
                    (identity,) = connection.execute(str(_IDENTITY)).fetchone() or (None,)
                    (last_row,) = connection.execute(str(_LAST_ROW)).fetchone()
                same = identity == self._identity
                self._unreadable = None if same else f"{self.path} holds another store: stop, and restore the first one"
                if same:
                    self._lock.record(self._identity, last_row)
            except StoreError as error:
                self._unreadable = str(error)
            except sqlite3.Error as error:
                self.note(error)
                if self._files.problem() is None:  # else moved meanwhile, which says more
                    self._unreadable = f"{self.path} could not be read: {error}"
        return self.problem

    def disk_use(self) -> DiskUse:
        """Return the size of the store, and the space on its disk; without the reusable part if it cannot be read."""
        reusable = size = 0
        for path in (self.path, journal(self.path)):
            with suppress(OSError):
                size += path.stat().st_size
        with suppress(StoreError), self.read() as connection:
            pages, bytes_of_page = (connection.scalar(text(f"PRAGMA {of}")) for of in ("freelist_count", "page_size"))
            reusable = pages * bytes_of_page
        free = disk = 0
        with suppress(OSError):
            usage = shutil.disk_usage(self.path.parent)
            free, disk = usage.free, usage.total
        return DiskUse(size, reusable, free, disk)

    def note(self, error: BaseException | None) -> None:
        """Take no more writes if an error of the database says that the file is damaged."""
        if is_damage(error):
            self._damage = self._damage or f"{self.path} is damaged ({error}): {REMEDY}"

    def _check(self) -> None:
        """Check the file after a crash. Raises StoreError if it is damaged."""
        start = monotonic()
        with self.writing.connect() as connection:
            raw = connection.connection.driver_connection
            findings = quick_check(raw, CHECK_SECONDS)  # type: ignore[arg-type]
        if findings:
            raise StoreError(f"{self.path} is damaged: {'; '.join(findings)}; {REMEDY}{self._copied_by_hand()}")
        ended = "the last process did not close the store" if self._lock.crashed else "no record of the last process"
        if findings is None:
            _log.warning(
                "%s, and it is too large to check within %g s: check it with `slicewatch doctor`", ended, CHECK_SECONDS
            )
        else:
            _log.info("%s: checked, no damage found", ended, extra={"seconds": round(monotonic() - start, 3)})

    def _copied_by_hand(self) -> str:
        """Return a hint at a journal of another file, which SQLite replays over a copy beside it."""
        if not self._journal_left:
            return ""
        found = journal(self.path)
        return f"; if a backup was copied here by hand, {found} was that of another file: restore puts it away"

    def _compare(self, last_row: int) -> None:
        """Compare the store with the record of its last process. Raises StoreError if it is another store."""
        if self._lock.identity not in (None, self._identity):
            raise StoreError(
                f"{self.path} is not the store that the last process did not close: put that file back, or restore a "
                f"backup of it; to use this store instead, delete {self._lock.path}"
            )
        if missing := max(0, self._lock.last_row - last_row):
            _log.error(
                "the latest %d rows of the store are missing: its journal was lost or truncated, or the file is an "
                "older copy; if there is a later backup, stop the service and restore it",
                missing,
            )

    def _connect_reader(self) -> sqlite3.Connection:
        if self._files is not None and (problem := self._files.problem()):
            raise StoreUnusable(f"the store could not be read: {problem}")  # not whatever is there instead
        return connect_read_only(self.path)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a read-only connection that sees one moment. Raises StoreError if the database fails."""
        try:
            with self._reading.connect() as connection, connection.begin():
                yield connection
        except (SQLAlchemyError, sqlite3.Error) as error:
            reason = getattr(error, "orig", None) or error
            self.note(reason)
            raise StoreError(f"the store could not be read: {reason}") from error

    def close(self) -> None:
        """Close all connections, and release the lock; ``problem`` stays as it is.

        The writing connection is the last one, and moves the journal into the database, unless there is a problem.
        """
        self._unreadable = self.problem
        clean = self._is_sound and self._unreadable is None
        self._files = None  # the last connection deletes the journal
        self._reading.dispose()
        if not clean:
            self.writing.dispose()  # not the last connection, which would copy a cut journal into the database
        if self._guard is not None:
            self._guard.close()
        self.writing.dispose()
        self._lock.release(clean=clean)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def schema_version(path: Path) -> str | None:
    """Return the schema version of a store, None without a store. Raises StoreError for another file."""
    if not path.exists():
        return None
    with open_read_only(path) as connection:
        return current_revision(connection)


@contextmanager
def open_read_only(path: Path) -> Iterator[Connection]:
    """Yield a connection that only reads a store, also while another process has it open.

    Every statement sees the state of its own moment.

    Raises
    ------
    StoreError
        If the file is not a store, or cannot be read.
    """
    try:
        with closing(connect_read_only(path)) as raw:
            engine = create_engine(
                "sqlite+pysqlite://", creator=lambda: raw, poolclass=StaticPool, hide_parameters=True
            )
            with engine.connect() as connection:
                yield connection
    except (sqlite3.DatabaseError, DatabaseError) as error:
        raise StoreError(f"{path} cannot be read as a store: {error}") from error


def is_damage(error: object) -> bool:
    """Return True for an error of SQLite that says that a file is damaged."""
    return _code(error) in _DAMAGE


def advice(error: object) -> str:
    """Return the advice for an error of SQLite, as the end of a sentence; empty without one."""
    if is_damage(error):
        return f"; {REMEDY}"
    folder = "; check that its folder can be written (SQLite needs a -shm file)"
    return folder if _code(error) in _NOT_WRITABLE else ""


def _code(error: object) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that supports ``ON CONFLICT`` in the dialect of this database."""
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that supports ``ON CONFLICT`` in a dialect."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def driver_of(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection: a statement takes 50 us less there, which counts in every commit of predictions.

    Its errors are those of ``sqlite3``.
    """
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def sql_of(statement: Insert, table: Table) -> str:
    """Return an insert as text for the driver, with all columns but a generated ``row`` as parameters, in order."""
    names = [column.name for column in table.columns if column.name != "row"]
    return str(statement.compile(dialect=_DIALECT, column_keys=names))


def add_row(connection: Connection, table: Table, row: Mapping[str, Any]) -> int:
    """Insert a row into a table with a generated ``id``, and return the id."""
    return int(connection.scalars(insert(table).returning(table.c.id), row).one())


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
        driver_of(connection).execute(begin)

    return engine


def _connect(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that neither writes nor checkpoints."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA query_only=ON")
    return connection
