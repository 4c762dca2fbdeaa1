"""``slicewatch backup`` and ``slicewatch restore``, and the store in ``slicewatch doctor``."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import START, make_label, make_prediction, open_log

SETTINGS = "name: m\ndata: a.csv\nlabel: y\nfeatures: {text: text}\nstore: store.sqlite3\n"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A project whose store has two predictions, a label of one, and a label of an id that never came."""
    file = tmp_path / "slicewatch.yaml"
    file.write_text(SETTINGS)
    (tmp_path / "a.csv").write_text("text,y\n")
    with open_log(tmp_path / "store.sqlite3") as (_, writer):
        writer.append([make_prediction(id_, START, version=3) for id_ in ("p1", "p2")]).result()
        writer.label("m", [make_label("p1", START), make_label("stray", START)]).result()
    return file


def test_a_backup_says_what_it_holds(cli: Callable, settings: Path, tmp_path: Path) -> None:
    """Rows, labels and their time are named, and what to copy beside the file."""
    answer = cli("backup", tmp_path / "b.sqlite3", "--config", settings)
    assert answer.code == 0
    assert "2 predictions from 2026-05-20 12:34 to 2026-05-20 12:34 UTC, 2 labels" in answer.out
    assert "1 labelled id without a prediction" in answer.out
    assert "not contained: the registry" in answer.out


def test_a_backup_does_not_overwrite(cli: Callable, settings: Path, tmp_path: Path) -> None:
    """An existing file is a misuse."""
    (tmp_path / "b.sqlite3").touch()
    answer = cli("backup", tmp_path / "b.sqlite3", "--config", settings)
    assert (answer.code, "name a new file" in answer.err) == (2, True)


def test_a_restored_backup_has_its_rows(cli: Callable, settings: Path, tmp_path: Path) -> None:
    """The answer names the file that keeps the old store, and the counts."""
    cli("backup", tmp_path / "b.sqlite3", "--config", settings)
    answer = json.loads(cli("restore", tmp_path / "b.sqlite3", "--config", settings, "--json").out)
    assert (answer["predictions"], answer["labels"]) == (2, 2)
    assert Path(answer["kept"]).exists()


def test_a_store_in_use_is_not_restored(cli: Callable, settings: Path, tmp_path: Path) -> None:
    """The error names the process."""
    cli("backup", tmp_path / "b.sqlite3", "--config", settings)
    with open_log(tmp_path / "store.sqlite3"):
        answer = cli("restore", tmp_path / "b.sqlite3", "--config", settings)
    assert (answer.code, "is in use by process" in answer.err) == (1, True)


def store_finding(answer: object) -> tuple[str, str]:
    (found,) = [one for one in json.loads(answer.out)["findings"] if one["what"] == "store"]
    return found["state"], found["detail"]


def test_doctor_checks_and_counts_the_store(cli: Callable, settings: Path) -> None:
    """A sound store is counted, with the labels that wait."""
    state, detail = store_finding(cli("doctor", "--config", settings, "--json"))
    assert state == "ok"
    assert "no damage found; 2 predictions" in detail
    assert "1 labelled id without a prediction (since 2026-05-20 12:34 UTC)" in detail


def test_doctor_finds_flipped_bytes(cli: Callable, settings: Path, tmp_path: Path) -> None:
    """A damaged store is broken, with the remedy."""
    file = tmp_path / "store.sqlite3"
    pages = file.read_bytes()
    file.write_bytes(pages[:8192] + b"\xa5" * (len(pages) - 8192))
    state, detail = store_finding(cli("doctor", "--config", settings, "--json"))
    assert state == "broken"
    assert "slicewatch restore" in detail


def test_doctor_misses_a_store_and_its_latest_rows(cli: Callable, settings: Path, tmp_path: Path) -> None:
    """After a crash a store without the rows that its process had found is broken, and so is a missing one."""
    store = tmp_path / "store.sqlite3"
    store.with_name("store.sqlite3.lock").write_text("4711 some-identity 9")
    answer = cli("doctor", "--config", settings, "--json")
    assert store_finding(answer)[0] == "broken"
    assert "the latest 7 rows" in store_finding(answer)[1]
    store.unlink()
    answer = cli("doctor", "--config", settings, "--json")
    assert "is missing, and process 4711 did not close it" in store_finding(answer)[1]


def test_a_check_that_did_not_end_is_named(
    cli: Callable, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text and JSON tell a backup that was checked from one whose check took too long."""
    answer = json.loads(cli("backup", tmp_path / "b.sqlite3", "--config", settings, "--json").out)
    assert answer["checked"] is True
    monkeypatch.setattr("service.cli.backup.CHECK_SECONDS", 0.0)
    monkeypatch.setattr("service.store.backup.quick_check", lambda connection, seconds: None)
    assert "not checked whole" in cli("backup", tmp_path / "c.sqlite3", "--config", settings).out
    answer = json.loads(cli("restore", tmp_path / "c.sqlite3", "--config", settings, "--json").out)
    assert answer["checked"] is False


def test_a_restored_store_is_in_a_private_folder(cli: Callable, settings: Path, tmp_path: Path) -> None:
    """A folder that is created for it may be read by its owner only."""
    cli("backup", tmp_path / "b.sqlite3", "--config", settings)
    settings.write_text(SETTINGS.replace("store.sqlite3", "new/store.sqlite3"))
    assert cli("restore", tmp_path / "b.sqlite3", "--config", settings).code == 0
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_doctor_misses_no_row_of_a_store_in_use(
    cli: Callable, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that the service writes during the check are neither counted nor missed."""
    from service.store import backup

    read = backup.read_contents
    with open_log(tmp_path / "store.sqlite3") as (store, writer):

        def read_before_more_rows(*args: object) -> object:
            contents = read(*args)
            writer.append([make_prediction("p3", START, version=3)]).result()
            store.probe()
            return contents

        monkeypatch.setattr(backup, "read_contents", read_before_more_rows)
        assert store_finding(cli("doctor", "--config", settings, "--json"))[0] == "ok"
