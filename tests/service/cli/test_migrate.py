"""``slicewatch migrate``."""

import json
import sqlite3
from pathlib import Path

from service.__main__ import main
from service.store.engine import Store
from service.store.schema import newest

SETTINGS = "data: a.csv\nlabel: y\nfeatures: {text: text}\nstore: live/store.sqlite3\n"


def call(folder: Path, *arguments: str) -> int:
    (folder / "slicewatch.yaml").write_text(SETTINGS)
    return main(["migrate", "--config", str(folder / "slicewatch.yaml"), *arguments], environ={})


def test_a_missing_store_is_created(tmp_path: Path, capsys) -> None:
    """A missing store is created; the second time there is nothing to do."""
    assert call(tmp_path) == 0
    assert f"no store yet; created, now at step {newest()}" in capsys.readouterr().out
    assert (tmp_path / "live/store.sqlite3").exists()
    assert call(tmp_path) == 0
    assert "the latest: nothing to do" in capsys.readouterr().out


def test_check_changes_nothing(tmp_path: Path, capsys) -> None:
    """With --check, the exit code is 1 if a migration is needed, and no file is written."""
    assert call(tmp_path, "--check", "--json") == 1
    assert json.loads(capsys.readouterr().out)["found"] is None
    assert not (tmp_path / "live").exists()
    call(tmp_path)
    assert call(tmp_path, "--check") == 0


def test_a_file_that_is_no_store_is_named(tmp_path: Path, capsys) -> None:
    """A file that is not a store is refused."""
    (tmp_path / "live").mkdir()
    (tmp_path / "live/store.sqlite3").write_text("not a database at all, " * 100)
    assert call(tmp_path) == 1
    assert "store.sqlite3 cannot be read as a store" in capsys.readouterr().err


def test_a_later_store_is_not_touched(tmp_path: Path, capsys) -> None:
    """A store at a step that this version does not know is refused."""
    call(tmp_path)
    with sqlite3.connect(tmp_path / "live/store.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert call(tmp_path) == 1
    assert "9999" in capsys.readouterr().err


def test_a_store_in_use_is_left_alone(tmp_path: Path, capsys) -> None:
    """A store in use can be checked."""
    call(tmp_path)
    with Store(tmp_path / "live/store.sqlite3"):
        assert call(tmp_path, "--check") == 0
