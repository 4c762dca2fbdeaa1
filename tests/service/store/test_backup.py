"""Backup of a store in use, its check, and its restoration."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.store import queries
from service.store.backup import back_up, read_contents, restore
from service.store.engine import Store, latest_revision
from service.store.errors import StoreError, StoreInUse
from service.store.writer import Writer

NOW = datetime(2026, 5, 2, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def backup(store: Store, writer: Writer, prediction: Callable, label: Callable, tmp_path: Path) -> Path:
    """A backup of the open store with three rows; a fourth row follows it."""
    writer.append([prediction(f"p{n}", seconds=n) for n in range(3)]).result()
    writer.label("spam", [label("p0"), label("stray")]).result()
    target = tmp_path / "backup.db"
    back_up(store.path, target)
    writer.append([prediction("later", seconds=9)]).result()
    return target


def test_a_backup_of_a_store_in_use_is_whole(backup: Path) -> None:
    """It is one private file with the rows of its moment."""
    contents = read_contents(backup, 60)
    assert (contents.revision, contents.findings) == (latest_revision(), ())
    assert (contents.predictions, contents.label_events, contents.pending) == (3, 2, 1)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in backup.parent.glob("backup.db*")] == ["backup.db"]


def test_a_backup_never_replaces_a_file(store: Store, backup: Path) -> None:
    """An existing file stays as it is."""
    before = backup.read_bytes()
    with pytest.raises(FileExistsError):
        back_up(store.path, backup)
    assert backup.read_bytes() == before


def test_a_store_is_not_restored_while_it_is_in_use(store: Store, backup: Path) -> None:
    """The error names the process, and the store goes on."""
    with pytest.raises(StoreInUse, match=f"in use by process {os.getpid()}"):
        restore(backup, store.path, NOW)
    assert store.probe() is None


def test_a_restored_store_has_the_rows_of_the_backup(store: Store, writer: Writer, backup: Path) -> None:
    """The old store is kept under another name with all of its rows, and the backup is unchanged."""
    writer.stop()
    store.close()
    before = backup.read_bytes()
    old = restore(backup, store.path, NOW)
    assert old == store.path.with_name("log.db.before-20260502T070809Z")
    assert backup.read_bytes() == before
    for path, ids in ((store.path, ["p0"]), (old, ["p0", "later"])):
        with Store(path) as opened, opened.read() as connection:
            found = [id_ for id_ in ("p0", "later") if queries.prediction(connection, "spam", id_)]
        assert found == ids
    assert restore(backup, store.path, NOW) == store.path.with_name("log.db.before-20260502T070809Z-2")


def test_a_restored_store_has_no_unused_pages(store: Store, writer: Writer, backup: Path, tmp_path: Path) -> None:
    """Space of deleted rows is given back."""
    writer.submit(lambda c: c.exec_driver_sql("CREATE TABLE filler AS SELECT zeroblob(4000000) AS b")).result()
    writer.submit(lambda c: c.exec_driver_sql("DROP TABLE filler")).result()
    assert store.disk_use().reusable >= 4_000_000
    back_up(store.path, tmp_path / "large.db")
    restore(tmp_path / "large.db", tmp_path / "new.db", NOW)
    with Store(tmp_path / "new.db") as restored:
        assert restored.disk_use().reusable == 0
        assert (tmp_path / "new.db").stat().st_size < 1_000_000


@pytest.mark.parametrize("content", [b"", b"a letter, long enough to be no empty database" * 100])
def test_a_file_that_is_no_store_is_not_restored(store: Store, tmp_path: Path, content: bytes) -> None:
    """The store stays as it is."""
    store.close()
    (tmp_path / "letter").write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(StoreError, match=r"letter (is not a store|cannot be read)"):
        restore(tmp_path / "letter", store.path, NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_damaged_backup_is_not_restored(store: Store, writer: Writer, backup: Path, tmp_path: Path) -> None:
    """The check comes first, and the store stays as it is."""
    writer.stop()
    store.close()
    pages = backup.read_bytes()
    backup.write_bytes(pages[:4096] + b"\xa5" * (len(pages) - 4096))
    with pytest.raises(StoreError, match=r"backup\.db (is damaged|cannot be read)"):
        restore(backup, store.path, NOW)
    with Store(store.path) as opened, opened.read() as connection:
        assert queries.prediction(connection, "spam", "later")
    assert not [*tmp_path.glob("log.db.*before*")]


@pytest.mark.parametrize("is_copied", [False, True])
def test_a_journal_left_behind_is_not_replayed_over_the_restored_store(
    store: Store, writer: Writer, backup: Path, tmp_path: Path, is_copied: bool
) -> None:
    """It is kept aside with its content, also if its database is missing or a backup was copied beside it."""
    left = [tmp_path / f"left-{suffix}" for suffix in ("wal", "shm")]
    for file in left:
        shutil.copy(store.path.with_name(f"log.db-{file.name[-3:]}"), file)
    writer.stop()
    store.close()
    store.path.unlink()
    for file in left:
        shutil.copy(file, store.path.with_name(f"log.db-{file.name[-3:]}"))
    if is_copied:
        shutil.copy(backup, store.path)
    kept = restore(backup, store.path, NOW)
    old = store.path.with_name("log.db.before-20260502T070809Z")
    assert kept == (old if is_copied else old.with_name(f"{old.name}-wal"))
    assert old.with_name(f"{old.name}-wal").read_bytes() == left[0].read_bytes()
    assert read_contents(store.path, 60).predictions == 3


def test_a_copy_has_its_name_only_when_it_is_complete(store: Store, tmp_path: Path) -> None:
    """A copy that fails leaves neither the file nor a part of it."""
    folder = tmp_path / "backups"
    folder.mkdir()
    store.close()
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="could not be copied"):
        back_up(store.path, folder / "new.db")
    assert [*folder.iterdir()] == []
