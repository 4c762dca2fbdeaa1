"""The file of the store is moved, truncated, damaged, backed up and restored under a running service."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

STORE = ".slicewatch/store.sqlite3"

Record = dict[str, Any]


def ids_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {id_ for (id_,) in connection.execute("SELECT id FROM predictions")}


class Load:
    """Client that predicts without pause in a thread, and keeps the ids that were acknowledged."""

    def __init__(self, running: Any, caller: Callable, records: list[Record], name: str) -> None:
        self.acknowledged: set[str] = set()
        self.statuses: set[int] = set()
        self._end, self._ask = Event(), caller(running.port)
        self._ids: Iterator[str] = (f"{name}-{n}" for n in count())
        self._record = records[0]
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            ids = [next(self._ids) for _ in range(5)]
            reply = self._ask("POST", "/v1/predict", {"instances": [self._record] * 5, "ids": ids})
            self.statuses.add(reply.status)
            if reply.status == 200:
                self.acknowledged.update(ids)

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        self._ask.close()


def test_no_acknowledged_row_is_missing_after_the_store_was_moved(
    project: Path, records: list[Record], up: Callable, until: Callable, caller: Callable
) -> None:
    """Under load the file is moved, later moved back, and the service killed: every acknowledged row is there."""
    running, store = up(project), project / STORE
    load = Load(running, caller, records, "a")
    until(lambda: len(load.acknowledged) >= 20)
    store.rename(store.with_name("elsewhere"))
    until(lambda: 503 in load.statuses)
    reply = running.ask("GET", "/readyz")
    assert (reply.status, "moved or deleted" in reply.json["reasons"]["store"]) == (503, True)
    assert running.ask("GET", "/v1/slices/__all__/records?kind=all").status == 200
    so_far = len(load.acknowledged)
    until(lambda: running.metrics()["slicewatch_store_usable"] == 0)
    assert len(load.acknowledged) == so_far
    store.with_name("elsewhere").rename(store)
    until(lambda: len(load.acknowledged) >= so_far + 20)
    load.stop()
    said = [line["message"] for line in running.lines() if line["message"].startswith("the store takes no writes")]
    assert len(said) == 1
    running.kill()
    again = up(project)
    assert "the last process did not close the store: checked, no damage found" in again.said()
    assert again.stop() == 0
    assert load.acknowledged <= ids_in(store)


def test_a_truncated_journal_is_noticed(
    project: Path, records: list[Record], up: Callable, until: Callable, command: Callable
) -> None:
    """Nothing is acknowledged after it, and the service says so; the next start names the number of missing rows."""
    running, store = up(project), project / STORE
    assert running.stop() == 0  # the schema is in the file
    running = up(project)
    assert running.ask("POST", "/v1/predict", {"instances": records[:20]}).status == 200
    journal = store.with_name(store.name + "-wal")
    until(lambda: store.with_name(store.name + ".lock").read_text().split()[2:] == ["20"])
    counted = journal.stat().st_mtime
    until(
        lambda: journal.stat().st_mtime > counted
    )  # a job would make up for the missing part: the next is a tick away
    until(lambda: time.time() - journal.stat().st_mtime > 0.5)
    os.truncate(journal, 100)
    assert running.ask("POST", "/v1/predict", {"instances": records[:20]}).status == 503
    assert "truncated" in running.ask("GET", "/readyz").json["reasons"]["store"]
    assert running.stop() == 1
    assert "the next start will not find the store as it was" in running.said()
    assert command(project, "doctor") == 1
    again = up(project)
    assert "the latest 20 rows of the store are missing" in again.said()
    assert again.stop() == 0


def test_a_damaged_store_is_replaced_by_its_backup(
    project: Path, records: list[Record], up: Callable, refused_up: Callable, command: Callable, caller: Callable
) -> None:
    """A backup under load is whole; after damage and a crash the service starts from it, and not before."""
    running, store, backup = up(project), project / STORE, project / "backup.sqlite3"
    first = [f"first-{n}" for n in range(20)]
    assert running.ask("POST", "/v1/predict", {"instances": records[:20], "ids": first}).status == 200
    load = Load(running, caller, records, "b")
    try:
        assert command(project, "backup", backup) == 0
        assert command(project, "restore", backup) == 1  # in use
    finally:
        load.stop()
    assert load.statuses == {200}
    assert set(first) <= ids_in(backup)
    running.kill()
    assert first[0] in ids_in(store)  # the journal is now in the file
    with store.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (store.stat().st_size - 8192))
    code, said = refused_up(project)
    assert (code, "slicewatch restore FILE" in said) == (1, True)
    assert command(project, "doctor") == 1
    assert command(project, "restore", backup) == 0
    again = up(project)
    assert json.loads(again.ask("GET", "/readyz").body) == {"ready": True}
    reply = again.ask("POST", "/v1/labels", {"labels": [{"id": id_, "label": "spam"} for id_ in first]})
    assert {each["outcome"] for each in reply.json["labels"]} == {"accepted"}
    assert again.stop() == 0
