"""Locking of a store, and its connections."""

import subprocess
import sys
from pathlib import Path

import pytest
from factories import dirty_count
from sqlalchemy import text

from service.store import queries
from service.store.engine import Store
from service.store.errors import StoreError, StoreInUse
from service.store.writer import Writer


def test_a_second_process_is_refused(store: Store) -> None:
    """The error of a second process mentions PostgreSQL."""
    code = f"from pathlib import Path; from service.store.engine import Store; Store(Path({str(store.path)!r}))"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "StoreInUse" in second.stderr
    assert "more than one process needs PostgreSQL" in second.stderr


def test_a_closed_store_can_be_opened_again(tmp_path: Path) -> None:
    """Closing releases the lock."""
    path = tmp_path / "log.db"
    with Store(path), pytest.raises(StoreInUse, match="is in use by process"):
        Store(path)
    with Store(path) as again, again.read() as connection:
        assert dirty_count(connection) == 0


def test_readers_cannot_write(store: Store) -> None:
    """A reading connection is read-only."""
    with pytest.raises(StoreError, match=r"could not be read: .*readonly"), store.read() as connection:
        connection.execute(text("DELETE FROM blocks"))


def test_a_reader_sees_one_moment(store: Store, writer: Writer, prediction, start) -> None:
    """A commit is invisible to an open reader, and visible to the next."""
    with store.read() as connection:
        before = queries.prediction(connection, "spam", "p1")
        writer.append([prediction()]).result()
        assert queries.prediction(connection, "spam", "p1") is before is None
    with store.read() as connection:
        assert queries.prediction(connection, "spam", "p1") == prediction()


def test_only_the_writer_moves_the_journal_into_the_file(store: Store) -> None:
    """The journal is a WAL, and readers never checkpoint it."""
    with store.writing.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA wal_autocheckpoint")) > 0
    with store.read() as connection:
        assert connection.scalar(text("PRAGMA wal_autocheckpoint")) == 0


@pytest.mark.parametrize(("synchronous", "level"), [("NORMAL", 1), ("FULL", 2)])
def test_waiting_for_the_disk_can_be_chosen(tmp_path: Path, synchronous, level: int) -> None:
    """``FULL`` waits for the disk at every commit."""
    with Store(tmp_path / "log.db", synchronous=synchronous) as store, store.writing.connect() as connection:
        assert connection.scalar(text("PRAGMA synchronous")) == level


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    """The error names the file and leaves it unchanged and unlocked."""
    path = tmp_path / "log.db"
    path.write_text("a letter, long enough to be no empty database\n" * 100)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"log\.db cannot be opened as a store: file is not a database"):
            Store(path)
    assert path.read_text().startswith("a letter")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The error names the missing folder."""
    with pytest.raises(StoreError, match="No such file or directory; create the folder of the store first"):
        Store(tmp_path / "nowhere" / "log.db")


def test_the_records_are_nobody_elses(store: Store, writer: Writer, prediction) -> None:
    """Only the owner may read database, journal and lock."""
    writer.append([prediction()]).result()
    files = list(store.path.parent.glob(f"{store.path.name}*"))
    assert len(files) >= 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
