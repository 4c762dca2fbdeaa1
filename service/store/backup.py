"""Contents of a store, its backup while it is in use, and its restoration."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from models.bundle.files import fsync_path
from service.store.engine import advice, connect_read_only, current_revision, refuse_unknown
from service.store.errors import StoreError
from service.store.store_files import StoreLock, quick_check
from service.store.tables import from_us, label_events, pending_labels, predictions

PAGES = 4096  # copied at once
_SUFFIXES = ("", "-wal", "-journal", "-shm")  # of the files of a database
RESTORE_SECONDS = 86_400.0  # of the check: a restored file is checked whole


@dataclass(frozen=True, slots=True)
class Contents:
    """Counts of a store, and the result of its check.

    Parameters
    ----------
    revision
        Schema version; None if the file has no tables.
    findings
        Damage found by ``quick_check``; None if the check took longer than allowed.
    predictions, label_events, pending
        Rows, labels, and ids of labels whose prediction has not arrived.
    last_row
        Number of the last prediction.
    first_at, last_at, oldest_pending
        Times of the oldest and the newest prediction, and arrival of the oldest pending label.
    versions
        Model versions of the predictions, by model.
    """

    revision: str | None
    findings: tuple[str, ...] | None
    predictions: int = 0
    label_events: int = 0
    pending: int = 0
    last_row: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    oldest_pending: datetime | None = None
    versions: tuple[tuple[str, int], ...] = ()


def read_contents(path: Path, seconds: float) -> Contents:
    """Check and count the rows of a store, also while another process has it open.

    Parameters
    ----------
    path
        Existing file.
    seconds
        Maximum time of the check.

    Raises
    ------
    StoreError
        If the file is not a store, cannot be read, or was written by a later release.
    """
    try:
        with closing(connect_read_only(path)) as raw:
            findings = quick_check(raw, seconds)
            if findings:
                return Contents(None, tuple(findings))
            raw.execute("BEGIN")  # all figures are of one moment
            with _engine(raw).connect() as connection:
                revision = current_revision(connection)
                refuse_unknown(revision)
                checked = None if findings is None else ()
                if revision is None:
                    return Contents(None, checked)
                p, waiting = predictions.c, pending_labels.c
                first, last = (connection.scalar(select(each(p.at_us))) for each in (func.min, func.max))
                oldest = connection.scalar(select(func.min(waiting.received_us)))
                versions = connection.execute(
                    text("SELECT DISTINCT model, version FROM blocks ORDER BY model, version")
                ).all()
                last_row = connection.scalar(select(func.max(p.row))) or 0
                rows, labels, pending = (
                    connection.scalar(select(func.count()).select_from(table)) or 0
                    for table in (predictions, label_events, pending_labels)
                )
                first_at, last_at, received = (None if us is None else from_us(us) for us in (first, last, oldest))
                named = tuple((model, version) for model, version in versions)
                return Contents(revision, checked, rows, labels, pending, last_row, first_at, last_at, received, named)
    except (sqlite3.Error, DatabaseError) as error:
        reason = getattr(error, "orig", None) or error
        raise StoreError(f"{path} cannot be read as a store: {reason}{advice(reason)}") from error


def back_up(path: Path, target: Path) -> None:
    """Copy a store, as of one moment, into a new file that only its owner may read.

    Another process may write to the store meanwhile. The copy gets its name when it is complete.

    Raises
    ------
    StoreError
        If the store cannot be read, or the copy cannot be written.
    FileExistsError
        If the target exists.
    """
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists")
    handle, name = tempfile.mkstemp(".unfinished", f"{target.name}.", target.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        with closing(connect_read_only(path)) as source, closing(sqlite3.connect(unfinished)) as copy:
            source.execute("BEGIN")  # later commits do not start the copy again
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(copy, pages=PAGES)
            source.execute("ROLLBACK")
            copy.execute("PRAGMA journal_mode=DELETE")  # one file
        fsync_path(unfinished)
        unfinished.rename(target)
        fsync_path(target.parent)
    except BaseException as error:
        for file in _files(unfinished):
            file.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise StoreError(f"{path} could not be copied to {target}: {error}") from error
        raise


def restore(backup: Path, path: Path, now: datetime) -> Path | None:
    """Replace a store by a backup, without the backup's free pages, and return the new name of the old store.

    The backup is copied and checked completely before the old store is touched, and not changed. A journal whose
    database is missing is kept, too: SQLite would replay it over the backup.

    Parameters
    ----------
    backup
        File made by ``back_up``.
    path
        Store; need not exist, but its folder must.
    now
        Time in the new name of the old store, UTC.

    Raises
    ------
    StoreInUse
        If a process has the store open.
    StoreError
        If the backup is damaged, or is not a store.
    """
    path = path.resolve()
    with StoreLock(path) as lock:
        fresh = path.with_name(f"{path.name}.restoring")
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL, 0o600))
        try:
            _copy_checked(backup, fresh)
            old = _move_away(path, now)
            fresh.replace(path)
            fsync_path(path.parent)
        finally:
            fresh.unlink(missing_ok=True)
        lock.unclean = False
        return old


def _copy_checked(backup: Path, fresh: Path) -> None:
    contents = read_contents(backup, RESTORE_SECONDS)
    if contents.findings:
        raise StoreError(f"{backup} is damaged, and nothing was restored: {'; '.join(contents.findings)}")
    if contents.revision is None:
        raise StoreError(f"{backup} is not a store: nothing was restored")
    try:
        with closing(connect_read_only(backup)) as source:
            source.execute("PRAGMA query_only=OFF")  # for the copy; the file itself is opened read-only
            source.execute("VACUUM INTO ?", (str(fresh),))
    except sqlite3.Error as error:
        raise StoreError(f"{backup} could not be copied to {fresh}, and nothing was restored: {error}") from error
    fsync_path(fresh)


def _move_away(path: Path, now: datetime) -> Path | None:
    """Rename a store and its journals, of which any may be missing, and return the new name of the first."""
    first = path.with_name(f"{path.name}.before-{now:%Y%m%dT%H%M%SZ}")
    old, number = first, 1
    while any(file.exists() for file in _files(old)):
        number += 1
        old = first.with_name(f"{first.name}-{number}")
    moved = [file.rename(new) for file, new in zip(_files(path), _files(old), strict=True) if file.exists()]
    return moved[0] if moved else None


def _files(database: Path) -> list[Path]:
    return [database.with_name(database.name + suffix) for suffix in _SUFFIXES]


def _engine(raw: sqlite3.Connection) -> Engine:
    return create_engine("sqlite+pysqlite://", creator=lambda: raw, poolclass=StaticPool, hide_parameters=True)
