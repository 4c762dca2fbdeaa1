"""A store whose file is moved, replaced, truncated or damaged while it is open, and after a crash."""

import logging
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from service.store import queries
from service.store.backup import read_contents
from service.store.engine import Store, connect_read_only
from service.store.errors import StoreError, StoreInUse, StoreUnusable
from service.store.store_files import StoreLock, quick_check
from service.store.writer import Writer


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


CHANGES = [(change, suffix) for change in (move, delete, replace) for suffix in ("", "-wal", ".lock")]


@pytest.mark.parametrize(("change", "suffix"), [*CHANGES, (truncate, ""), (truncate, "-wal")])
def test_no_row_is_acknowledged_into_a_file_that_is_lost(
    store: Store, writer: Writer, prediction: Callable, change: Callable[[Path], None], suffix: str
) -> None:
    """Writes are refused after database, journal or lock were moved, deleted, replaced or truncated."""
    writer.append([prediction("before")]).result()
    change(store.path.with_name(store.path.name + suffix))
    with pytest.raises(StoreUnusable, match="takes no writes"):
        writer.append([prediction("after")]).result()
    assert "while the service ran" in (store.probe() or "")


def test_a_store_that_is_moved_back_is_used_again(
    store: Store, writer: Writer, prediction: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    """The problem and its end are logged once each, and no acknowledged row is missing."""
    caplog.set_level(logging.INFO)
    away = store.path.with_name("elsewhere")
    writer.append([prediction("p1")]).result()
    store.path.rename(away)
    for id_ in ("p2", "p3"):
        with pytest.raises(StoreUnusable):
            writer.append([prediction(id_)]).result()
    assert store.probe() == store.problem is not None
    away.rename(store.path)
    assert store.probe() is None
    writer.append([prediction("p4")]).result()
    with store.read() as connection:
        kept = [id_ for id_ in ("p1", "p2", "p3", "p4") if queries.prediction(connection, "spam", id_)]
    assert kept == ["p1", "p4"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_move_during_a_probe_is_named_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe whose connection fails for the move leaves no second reason, which would outlive it."""
    away = store.path.with_name("elsewhere")

    def moved_before(path: Path) -> sqlite3.Connection:
        path.rename(away)
        return connect_read_only(path)

    monkeypatch.setattr("service.store.engine.connect_read_only", moved_before)
    assert "moved or deleted" in (store.probe() or "")
    away.rename(store.path)
    assert store.problem is None


def test_a_new_reader_never_opens_another_file(store: Store, writer: Writer, prediction: Callable) -> None:
    """A file that took the place of the store is not read in its stead."""
    writer.append([prediction("p1")]).result()
    with store.read() as first:  # holds the one open connection
        store.path.rename(store.path.with_name("elsewhere"))
        Store(store.path.with_name("other.db")).close()
        store.path.with_name("other.db").rename(store.path)
        with pytest.raises(StoreUnusable, match="replaced by another file"), store.read() as second:
            queries.prediction(second, "spam", "p1")
        assert queries.prediction(first, "spam", "p1") == prediction("p1")


def test_another_store_copied_into_the_file_is_noticed(store: Store, tmp_path: Path) -> None:
    """The file is the same and as long, but its identity is that of another store."""
    with store.writing.begin() as connection:
        connection.exec_driver_sql("UPDATE store_identity SET id = 'another'")
    assert "holds another store" in (store.probe() or "")


def damage(path: Path) -> None:
    """Overwrite every page but the first one of a closed database."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_damage_found_by_a_read_stops_writes(store: Store, writer: Writer, prediction: Callable) -> None:
    """A read that finds damage makes the store refuse writes, and it stays so."""
    writer.append([prediction("p1")]).result()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
    damage(store.path)
    assert "is damaged" in (store.probe() or "")
    with pytest.raises(StoreUnusable, match="slicewatch restore"):
        writer.append([prediction("p2")]).result()


KILLED = """
import os, sys
from pathlib import Path
from service.store.engine import Store, connect_read_only
store = Store(Path(sys.argv[1]))
os._exit(1)
"""


def kill_a_process_with(path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == 1


def test_a_store_is_checked_after_a_crash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log tells of the check; after an orderly close there is none."""
    caplog.set_level(logging.INFO, "service")
    path = tmp_path / "log.db"
    kill_a_process_with(path)
    for _ in range(2):
        Store(path).close()
    assert [record.getMessage() for record in caplog.records] == [
        "the last process did not close the store: checked, no damage found"
    ]


def test_a_damaged_store_does_not_open_after_a_crash(tmp_path: Path) -> None:
    """Each start names the damage and the remedy, until the file is replaced."""
    path = tmp_path / "log.db"
    Store(path).close()
    damage(path)
    path.with_name("log.db.lock").write_text("4711")  # as a killed process leaves it
    for _ in range(2):
        with pytest.raises(StoreError, match=r"(damaged|malformed).*slicewatch restore"):
            Store(path)


def test_a_check_ends_in_time(tmp_path: Path) -> None:
    """A check without time is given up, and has no findings."""
    path = tmp_path / "large.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a TEXT UNIQUE)")
        rows = ((f"{n:09d}" * 20,) for n in range(20_000))
        connection.executemany("INSERT INTO t VALUES (?)", rows)
        connection.commit()
        assert quick_check(connection, 60) == []
        assert quick_check(connection, 0) is None


def test_a_missing_store_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    """After a crash a moved store is asked for; after an orderly end a deleted one begins anew."""
    path = tmp_path / "log.db"
    kill_a_process_with(path)
    path.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"is missing, and process \d+ did not close it: move it back"):
            Store(path)
    assert not path.exists()
    (tmp_path / "elsewhere").rename(path)
    Store(path).close()
    path.unlink()
    Store(path).close()


def test_another_store_is_refused_after_a_crash(tmp_path: Path) -> None:
    """The file that the last process had open is asked for, also by the next start."""
    path, other = tmp_path / "log.db", tmp_path / "other.db"
    Store(other).close()
    kill_a_process_with(path)
    other.replace(path)
    path.with_name("log.db-wal").unlink()
    for _ in range(2):
        with pytest.raises(StoreError, match="is not the store that the last process did not close"):
            Store(path)


def test_rows_lost_with_a_journal_are_counted_at_the_next_start(
    store: Store, writer: Writer, prediction: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    """A journal that was cut or deleted after a crash is no damage to SQLite; the log names the missing rows."""
    lock, older = store.path.with_name(store.path.name + ".lock"), store.path.with_name("older")
    shutil.copy(store.path, older)
    writer.append([prediction(f"p{n}") for n in range(7)]).result()
    assert store.probe() is None
    left = lock.read_text()
    writer.stop()
    store.close()
    older.replace(store.path)
    lock.write_text(left)  # as a killed process leaves it
    Store(store.path).close()
    assert "the latest 7 rows of the store are missing" in caplog.text


def test_a_problem_outlives_the_store(store: Store, writer: Writer) -> None:
    """A service whose store was moved ends with the reason, and the next start checks the store."""
    store.path.rename(store.path.with_name("elsewhere"))
    store.close()
    assert "moved or deleted" in (store.problem or "")
    with pytest.raises(StoreError, match="is missing"):
        Store(store.path)


def test_a_link_to_a_store_is_the_store(tmp_path: Path, prediction: Callable) -> None:
    """It opens with the lock and the journal beside the file itself, so that two links share one lock."""
    (tmp_path / "disk").mkdir()
    link, path = tmp_path / "log.db", tmp_path / "disk" / "real.db"
    link.symlink_to(path)
    with Store(link) as opened:
        assert opened.probe() is None
        assert opened.path == path
        with pytest.raises(StoreInUse):
            Store(path)
    assert [file.name for file in tmp_path.glob("log.db*")] == ["log.db"]


def test_a_checkpoint_of_another_program_is_not_taken_for_a_loss(store: Store, writer: Writer) -> None:
    """The journal is shorter, but every row is in the database: a new start tells, before a backup is restored."""
    with closing(sqlite3.connect(store.path)) as outsider:
        outsider.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert "stop and start again; the start tells whether rows are missing" in (store.problem or "")
    writer.stop()
    store.close()
    with Store(store.path) as again:
        assert again.problem is None


def test_a_lock_of_the_first_release_is_no_evidence_of_a_crash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It kept its process id after an orderly end: the store is checked, and a missing one begins anew."""
    caplog.set_level(logging.INFO, "service")
    path = tmp_path / "log.db"
    lock = path.with_name("log.db.lock")
    lock.write_text("4711")
    Store(path).close()
    lock.write_text("4711")
    Store(path).close()
    assert [record.getMessage() for record in caplog.records[-1:]] == [
        "no record of the last process: checked, no damage found"
    ]


def test_a_folder_that_cannot_be_written_is_no_damage(tmp_path: Path) -> None:
    """SQLite cannot open its journal: the folder is named, and no backup is asked for."""
    path = tmp_path / "log.db"
    Store(path).close()
    path.with_name("log.db-wal").mkdir()
    for opened in (lambda: Store(path), lambda: read_contents(path, 60)):
        with pytest.raises(StoreError, match="check that its folder can be written") as caught:
            opened()
        assert "restore" not in str(caught.value)


def test_a_lock_that_cannot_be_created_names_its_folder(tmp_path: Path) -> None:
    """Only a missing folder is to be created."""
    (tmp_path / "log.db.lock").mkdir()
    with pytest.raises(StoreError, match=r"log\.db\.lock cannot be created: Is a directory; check that its folder"):
        StoreLock(tmp_path / "log.db")
    with pytest.raises(StoreError, match="create the folder of the store first"):
        StoreLock(tmp_path / "none" / "log.db")


@contextmanager
def no_room() -> Iterator[None]:
    """Let every write to a file fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The first write of a start is that of the lock; on a full disk it fails."""
    with no_room(), pytest.raises(StoreError, match=r"log\.db\.lock cannot be written: File too large"):
        StoreLock(tmp_path / "log.db")


def test_a_probe_that_cannot_write_the_lock_is_a_problem(store: Store) -> None:
    """It ends with the reason instead of an error, and the next probe clears it."""
    with no_room():
        found = store.probe()
    assert "log.db.lock cannot be written: File too large" in (found or "")
    assert store.probe() is None


def test_a_backup_copied_beside_an_old_journal_is_recognised(tmp_path: Path) -> None:
    """SQLite would replay the journal over it: a damaged store beside a journal names both."""
    path = tmp_path / "log.db"
    Store(path).close()
    damage(path)
    path.with_name("log.db.lock").write_text("4711")
    path.with_name("log.db-wal").touch()
    with pytest.raises(StoreError, match=r"if a backup was copied here by hand, .*log\.db-wal was that of another"):
        Store(path)
