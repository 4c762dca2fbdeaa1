"""Files of a SQLite store: its lock, the identity of its files while it is open, and the check after a crash."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from pathlib import Path
from time import monotonic
from typing import Self

from service.store.errors import StoreError, StoreInUse

FINDINGS = 5  # of a check, at most
LOCK_BYTES = 120


class StoreLock:
    """Lock of a store for this process, in a file beside it.

    The file holds the id of the process until the store is closed in good order, and what it last found in the store.

    Attributes
    ----------
    path
        File of the lock.
    unclean
        Whether the last process ended without closing the store, or this is unknown: the file is missing, or was
        written by release 0.1.0, which left its process id there in any case.
    crashed
        Whether that process certainly ended without closing the store.
    identity, last_row
        Identity of the store, and its last row, as recorded by that process; None and 0 if it recorded none.

    Raises
    ------
    StoreInUse
        If another process has the store.
    StoreError
        If the file cannot be created.
    """

    def __init__(self, store: Path) -> None:
        self.path = lock_file(store)
        is_new = not self.path.exists()
        try:
            handle = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        except OSError as error:
            there = self.path.parent.is_dir()
            todo = "check that its folder can be written" if there else "create the folder of the store first"
            raise StoreError(f"{self.path} cannot be created: {error.strerror}; {todo}") from error
        content = handle.read()
        holder, identity, self.last_row = _parse(content)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.close()
            raise StoreInUse(
                f"{store} is in use by process {holder or 'unknown'}: more than one process needs PostgreSQL; "
                "stop that process, or use its HTTP API"
            ) from error
        self.unclean = bool(holder) or (is_new and store.exists())
        self.crashed = _tells_of_a_crash(content)
        self.identity = identity or None
        self._handle = handle
        try:
            self.record(identity, self.last_row)  # an early end leaves what the process before found
        except StoreError:
            handle.close()
            raise

    def record(self, identity: str, last_row: int) -> None:
        """Record the identity of the store and its last row, which the next process looks for after a crash."""
        line = f"{os.getpid()} {identity} {last_row if identity else ''}"
        try:
            os.pwrite(self._handle.fileno(), line.ljust(LOCK_BYTES).encode(), 0)  # never empty meanwhile
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from error

    def release(self, *, clean: bool) -> None:
        """Release the lock, and record whether the store was closed in good order."""
        if clean and not self._handle.closed:
            self._handle.truncate(0)
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release(clean=not self.unclean)


class StoreFiles:
    """Database, journal and lock of an open store, as found when it was opened; thread-safe.

    A file that was moved, deleted or replaced still accepts writes, and nothing finds them after a restart.
    """

    def __init__(self, database: Path, lock: Path) -> None:
        self._lock = threading.Lock()
        self._first = {path: path.stat() for path in (database, journal(database), lock)}
        self._sizes = dict.fromkeys((database, journal(database)), 0)  # neither ever shrinks while it is open

    def problem(self) -> str | None:
        """Return the reason why rows written now would be lost; None if every file is in its place."""
        with self._lock:
            for path, first in self._first.items():
                try:
                    now = path.stat()
                except OSError as error:
                    return (
                        f"{path} was moved or deleted while the service ran ({error.strerror}): move it back, or stop"
                    )
                if (now.st_dev, now.st_ino) != (first.st_dev, first.st_ino):
                    return (
                        f"{path} was replaced by another file while the service ran: move the first one back, or stop"
                    )
                known = self._sizes.get(path, 0)
                if now.st_size < known:
                    sizes = f"from {known:,} to {now.st_size:,} bytes"
                    return (
                        f"{path} was truncated {sizes} while the service ran, perhaps by a checkpoint of another "
                        "program: stop and start again; the start tells whether rows are missing: restore a backup "
                        "only if so"
                    )
                if path in self._sizes:
                    self._sizes[path] = now.st_size
        return None


def lock_file(database: Path) -> Path:
    """Return the file that holds the id of the process that has a database open."""
    return database.with_name(database.name + ".lock")


def require_existing(database: Path) -> None:
    """Raise StoreError if a database is missing that its last process did not close."""
    lock = lock_file(database)
    content = lock.read_text() if lock.exists() else ""
    if not database.exists() and _tells_of_a_crash(content):
        raise StoreError(
            f"{database} is missing, and process {_parse(content)[0]} did not close it: move it back, or restore a "
            f"backup with `slicewatch restore FILE`; to begin with an empty store, stop the service and delete {lock}"
        )


def recorded_last_row(database: Path) -> int:
    """Return the number of the last row that the process with the store had found; 0 if it closed it."""
    lock = lock_file(database)
    return _parse(lock.read_text())[2] if lock.exists() else 0


def _tells_of_a_crash(lock: str) -> bool:
    """Return True if a lock names a process, unless release 0.1.0 wrote it, which left its id after any end."""
    return bool(lock.strip()) and not (lock.strip().isdecimal() and len(lock) < LOCK_BYTES)


def _parse(lock: str) -> tuple[str, str, int]:
    """Return process, identity of the store and its last row."""
    holder, identity, row = (*lock.split(), "", "", "")[:3]
    return holder, identity, int(row) if row.isdecimal() else 0


def journal(database: Path) -> Path:
    """Return the file with the latest commits of a database."""
    return database.with_name(database.name + "-wal")


def quick_check(connection: sqlite3.Connection, seconds: float) -> list[str] | None:
    """Return the findings of SQLite's ``quick_check``, at most five; None if it took longer than allowed.

    Examples
    --------
    >>> quick_check(sqlite3.connect(":memory:"), 10)
    []
    """
    end = monotonic() + seconds
    connection.set_progress_handler(lambda: monotonic() > end, 10_000)
    timer = threading.Timer(seconds, connection.interrupt)  # the check of one table is a single step to the handler
    timer.start()
    try:
        rows = connection.execute(f"PRAGMA quick_check({FINDINGS})").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    finally:
        timer.cancel()
        timer.join()
        connection.set_progress_handler(None, 0)
    return [text for (text,) in rows if text != "ok"]
