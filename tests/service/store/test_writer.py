"""The writer thread: grouping, isolation of failures, limits and shutdown."""

import sqlite3
import threading
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from time import sleep

import pytest
from sqlalchemy import Connection, event, text

from service.store import queries
from service.store.engine import Store
from service.store.errors import StoreError, StoreFull, StoreStopped
from service.store.writer import Writer, WriterLimits


class Gate:
    """Holds the writer up, so that what comes meanwhile piles up behind it."""

    def __init__(self, writer: Writer) -> None:
        self._entered, self._open = threading.Event(), threading.Event()
        self.held: Future[bool] = writer.submit(lambda _: self._hold())
        assert self._entered.wait(300)

    def _hold(self) -> bool:
        self._entered.set()
        return self._open.wait(600)

    def release(self) -> None:
        self._open.set()


@pytest.fixture
def idle(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """A writer that has nothing to do, and takes commits of 0.3 s for fast ones."""
    monkeypatch.setattr("service.store.writer.SLOW_SECONDS", 0.3)
    writer.submit(lambda _: None).result()
    while writer.backlog_rows:
        sleep(0.001)
    return writer


@pytest.fixture
def small(store: Store, functions):
    """A writer for which little may wait."""
    made = Writer(store, limits=WriterLimits(queue_rows=10, queue_bytes=10_000))
    made.record_functions(functions()).result()
    yield made
    made.stop()


def test_what_was_answered_can_be_read(store: Store, writer: Writer, prediction) -> None:
    """The answer comes after the commit."""
    for n in range(20):
        writer.append([prediction(f"p{n}")]).result()
        with store.read() as connection:
            assert queries.prediction(connection, "spam", f"p{n}") is not None


def test_what_piled_up_is_committed_together(store: Store, writer: Writer, prediction, label) -> None:
    """Requests that arrive while the writer is busy share one commit."""
    commits = []
    gate = Gate(writer)
    event.listen(store.writing, "commit", commits.append)
    logged = [writer.append([prediction(f"p{n}")]) for n in range(100)]
    labelled = [writer.label("spam", [label(f"p{n}")]) for n in range(100)]
    gate.release()
    assert [each.result()[0].outcome for each in logged] == ["stored"] * 100
    assert [each.result()[0].outcome for each in labelled] == ["accepted"] * 100
    assert len(commits) == 2  # the gate's, and one for all


def test_every_request_gets_its_own_answers(writer: Writer, prediction) -> None:
    """Requests that are written together get their own answers."""
    gate = Gate(writer)
    sizes = [3, 0, 1, 5]
    requests = [[prediction(f"{n}-{i}") for i in range(size)] for n, size in enumerate(sizes)]
    futures = [writer.append(each) for each in requests]
    gate.release()
    assert [[logged.prediction for logged in each.result()] for each in futures] == requests


def test_a_request_that_fails_fails_alone(writer: Writer, prediction) -> None:
    """Neighbours of a failing request are written."""
    gate = Gate(writer)
    good = writer.append([prediction("p1")])
    bad = writer.append([prediction("p2", set_hash="unheard"), prediction("p3")])
    worse = writer.submit(lambda _: 1 // 0)
    also = writer.append([prediction("p4")])
    gate.release()
    assert [each.result()[0].outcome for each in (good, also)] == ["stored", "stored"]
    with pytest.raises(StoreError, match="unheard"):
        bad.result()
    with pytest.raises(ZeroDivisionError):
        worse.result()
    assert writer.append([prediction("p3")]).result()[0].outcome == "stored"


def test_too_many_rows_are_refused_at_once(small: Writer, prediction) -> None:
    """A full queue refuses a request with its numbers, and accepts it again later."""
    gate = Gate(small)  # one row by itself
    waiting = small.append([prediction(f"p{n}") for n in range(9)])
    with pytest.raises(StoreFull, match="10 rows are waiting, and 1 more do not fit"):
        small.append([prediction("p9")])
    gate.release()
    waiting.result()
    small.stop()
    assert small.backlog_rows == 0


def test_too_many_bytes_are_refused_at_once(small: Writer, prediction) -> None:
    """Few large rows can fill the queue as well."""
    with pytest.raises(StoreFull):
        small.append([prediction(features="x" * 10_000)])
    assert small.append([prediction(features="x" * 1_000)]).result()[0].outcome == "stored"


def test_stopping_writes_what_waits(store: Store, writer: Writer, prediction) -> None:
    """Accepted requests are written before the writer stops; later ones are refused."""
    gate = Gate(writer)
    futures = [writer.append([prediction(f"p{n}")]) for n in range(50)]
    gate.release()
    assert writer.stop(30) == 0
    assert all(each.result()[0].outcome == "stored" for each in futures)
    with pytest.raises(StoreStopped, match="is shutting down"):
        writer.append([prediction()])


def test_stopping_has_a_deadline(writer: Writer, prediction) -> None:
    """A writer that cannot finish in time returns the number of unwritten rows."""
    gate = Gate(writer)
    last = writer.append([prediction(f"p{n}") for n in range(3)])
    assert writer.stop(0.01) == 4
    gate.release()
    assert len(last.result()) == 3


def test_a_cancelled_request_is_not_written(store: Store, writer: Writer, prediction) -> None:
    """A request that was cancelled in the queue is skipped."""
    gate = Gate(writer)
    gone, stays = writer.append([prediction("p1")]), writer.append([prediction("p2")])
    assert gone.cancel()
    gate.release()
    assert stays.result()[0].outcome == "stored"
    with store.read() as connection:
        assert queries.prediction(connection, "spam", "p1") is None


def test_a_full_disk_fails_the_request_and_not_the_writer(store: Store, writer: Writer, prediction) -> None:
    """Requests fail with the reason while the file cannot grow, and succeed afterwards."""
    writer.append([prediction("p0")]).result()

    def limit(connection: Connection, pages: str) -> None:
        pages = pages or connection.scalar(text("PRAGMA page_count"))
        connection.execute(text(f"PRAGMA max_page_count={pages}"))

    writer.submit(partial(limit, pages="")).result()
    rows = [prediction(f"p{n}", features="x" * 5_000) for n in range(1, 9)]
    futures = [writer.append([row]) for row in rows]
    for future in futures:
        with pytest.raises(StoreError, match="database or disk is full; the request was rolled back"):
            future.result()
    writer.submit(partial(limit, pages="1000000")).result()
    assert [each.outcome for each in writer.append([prediction("p0"), *rows]).result()] == [
        "repeated",
        *["stored"] * 8,
    ]


def test_a_state_is_kept_under_its_name(store: Store, writer: Writer, start) -> None:
    """The last state of a name is stored, with its time."""
    for state in (b"one", b"\x00two"):
        writer.save_checkpoint("monitor", start, state).result()
    with store.read() as connection:
        assert queries.checkpoint(connection, "monitor") == queries.Checkpoint(start, b"\x00two")
        assert queries.checkpoint(connection, "gate") is None


def test_a_function_set_stays_as_it_was_first_recorded(store: Store, writer: Writer, functions) -> None:
    """Names and fingerprints come back in order; recording the set again changes nothing."""
    writer.record_functions(functions()).result()
    with store.read() as connection:
        assert queries.function_set(connection, "set-1") == functions()
        assert queries.function_set(connection, "set-2") is None


def test_a_write_that_changes_nothing_does_not_end_a_refusal(store: Store, writer: Writer, prediction) -> None:
    """It succeeds on a full disk, too; the next row that is stored ends the refusal."""
    pages = writer.submit(lambda c: c.execute(text("PRAGMA page_count")).scalar()).result()
    writer.submit(lambda c: c.execute(text(f"PRAGMA max_page_count={pages}")).scalar()).result()
    with pytest.raises(StoreError, match="full"):
        writer.append([prediction("p1", features="x" * 1_000_000)]).result()
    writer.submit(lambda c: None).result()
    assert "full" in (writer.refusal or "")
    writer.submit(lambda c: c.execute(text("PRAGMA max_page_count=1000000")).scalar()).result()
    writer.append([prediction("p1")]).result()
    assert writer.refusal is None


def test_an_idle_writer_commits_in_the_calling_thread(store: Store, idle: Writer, prediction) -> None:
    """The rows are there when `append` returns; a busy writer takes them into its queue, in order."""
    assert idle.append([prediction("p0")], here=True).done()
    gate = Gate(idle)
    future = idle.append([prediction("p1")], here=True)
    assert not future.done()
    gate.release()
    assert [each.outcome for each in future.result()] == ["stored"]
    assert [each.outcome for each in idle.append([prediction("p0")], here=True).result()] == ["repeated"]
    assert idle.stop() == 0


def test_a_commit_that_fails_slowly_is_slow(store: Store, idle: Writer, prediction) -> None:
    """While another process holds a lock, the calling thread waits for it once; the writer's thread goes on waiting."""
    idle.submit(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=500").all()).result()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            idle.append([prediction("p0")], here=True).result()
        second = idle.append([prediction("p1")], here=True)
        assert not second.done()
        other.execute("ROLLBACK")
        assert second.result()[0].outcome == "stored"
    assert idle.append([prediction("p2")], here=True).result()[0].outcome == "stored"


def test_threads_write_one_after_another(store: Store, writer: Writer, prediction) -> None:
    """Rows of several threads that write here are all stored once."""
    given = [[prediction(f"p{k}-{n}") for n in range(50)] for k in range(4)]
    threads = [
        threading.Thread(target=lambda rows=rows: [writer.append([row], here=True).result() for row in rows])
        for rows in given
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each.outcome for each in writer.append([row for rows in given for row in rows]).result()] == [
        "repeated"
    ] * 200


def test_a_stopped_writer_writes_nowhere(writer: Writer, prediction) -> None:
    """Also not in the calling thread."""
    writer.stop()
    with pytest.raises(StoreStopped):
        writer.append([prediction("p0")], here=True)
