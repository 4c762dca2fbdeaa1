"""Retention: labels of ids that never came, and rows beyond their age."""

from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from factories import (
    FUNCTION_SETS,
    START,
    dirty_count,
    label_history,
    make_label,
    make_prediction,
    open_log,
    pending_count,
    recount,
)
from sqlalchemy import func, select

from service.store import queries
from service.store.engine import Store
from service.store.labels import first_labels
from service.store.retention import delete_predictions, expire_labels
from service.store.runs import open_run
from service.store.tables import label_current, label_events, metadata, predictions
from service.store.writer import Writer

HOUR = timedelta(hours=1)
NOON = START.replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def log(tmp_path: Path):
    """A log with a labelled row every 10 minutes from noon on, for 3 hours; all blocks are counted."""
    with open_log(tmp_path / "log.db") as (store, writer):
        times = [NOON + timedelta(minutes=10 * n) for n in range(18)]
        writer.append([make_prediction(f"p{n}", at, features='{"text": "x"}') for n, at in enumerate(times)]).result()
        labels = [make_label(f"p{n}", at + timedelta(minutes=1), "xy"[n % 2]) for n, at in enumerate(times)]
        writer.label("m", labels).result()
        recount(store, writer)
        yield store, writer


def delete(writer: Writer, before: datetime, **changes: object) -> int:
    """Delete the rows of a model whose detectors have read everything."""
    values = {"model": "m", "before": before, "fed_until": NOON + 9 * HOUR, "fed_seq": 1_000, "limit": 100}
    return writer.submit(partial(delete_predictions, **(values | changes))).result()


def kept(store: Store) -> list[int]:
    """Return the numbers of the rows in the log."""
    with store.read() as connection:
        rows = queries.records(connection, "m", since=NOON - 90 * HOUR, until=NOON + 9 * HOUR)
        return [int(row.prediction.id.removeprefix("p")) for row in rows]


def test_labels_of_ids_that_never_come_expire_by_age(tmp_path: Path) -> None:
    """The oldest go first, with their events, at most so many at once; those of logged predictions stay."""
    with open_log(tmp_path / "log.db") as (store, writer):
        writer.append([make_prediction("there", NOON)]).result()
        for n, id_ in enumerate(("there", "a", "b", "b", "new")):
            writer.label("m", [make_label(id_, NOON + n * HOUR)]).result()
        gone = [writer.submit(partial(expire_labels, before=NOON + 4 * HOUR, limit=1)).result() for _ in range(3)]
        assert gone == [1, 1, 0]
        with store.read() as connection:
            assert pending_count(connection, "m") == 1
            events = {id_: len(label_history(connection, "m", id_)) for id_ in ("there", "a", "b", "new")}
        assert events == {"there": 1, "a": 0, "b": 0, "new": 1}
        writer.append([make_prediction("b", NOON + 5 * HOUR), make_prediction("new", NOON + 5 * HOUR)]).result()
        with store.read() as connection:
            assert queries.labels(connection, "m", ["there", "b", "new"]) == {"there": "x", "new": "x"}


def test_old_rows_go_with_their_labels_and_the_others_stay(log: tuple[Store, Writer]) -> None:
    """Only rows of full hours before the moment are deleted, in parts of the given size."""
    store, writer = log
    before = NOON + timedelta(minutes=90)
    assert [delete(writer, before, limit=4) for _ in range(3)] == [4, 2, 0]
    assert kept(store) == [*range(6, 18)]
    with store.read() as connection:
        tables = predictions, label_events, label_current, metadata.tables["first_labels"]
        counts = [connection.scalar(select(func.count()).select_from(table)) for table in tables]
        assert counts == [12] * 4
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


def test_counts_of_deleted_rows_stay(log: tuple[Store, Writer]) -> None:
    """Every window counts what it counted before, also after a late row and a late correction of that time."""
    store, writer = log

    def counted() -> list[tuple[int, int]]:
        with store.read() as connection:
            blocks = queries.counts_between(connection, "m", 1, NOON, NOON + 9 * HOUR)
        return [(block.n, int(block.confusion.sum())) for block in blocks]

    whole = counted()
    assert delete(writer, NOON + HOUR, limit=3) == 3
    writer.append([make_prediction("late", NOON + timedelta(minutes=5))]).result()
    writer.label("m", [make_label("p4", NOON + 2 * HOUR, "y")]).result()
    recount(store, writer)
    assert delete(writer, NOON + HOUR) == 3  # the late row has the highest number
    recount(store, writer)
    assert counted() == whole
    with store.read() as connection:
        assert dirty_count(connection) == 0


def test_a_recorded_set_with_other_votes_does_not_recount_deleted_rows(log: tuple[Store, Writer]) -> None:
    """Blocks are marked for a recount, but those of deleted rows stay."""
    store, writer = log
    delete(writer, NOON + HOUR)
    first = FUNCTION_SETS["first"]
    writer.record_functions(type(first)(first.hash, first.names, first.fingerprints, first.at, ("a",))).result()
    recount(store, writer)
    with store.read() as connection:
        blocks = queries.counts_between(connection, "m", 1, NOON, NOON + 9 * HOUR)
        assert (len(blocks), sum(block.n for block in blocks), dirty_count(connection)) == (18, 18, 0)


def test_rows_that_the_detectors_have_not_read_stay(log: tuple[Store, Writer]) -> None:
    """Neither rows after their position go, nor rows of labels after it."""
    store, writer = log
    assert delete(writer, NOON + 3 * HOUR, fed_until=NOON + HOUR) == 6
    with store.read() as connection:
        ninth = first_labels(connection, "m", 0, 9)[2]
    assert delete(writer, NOON + 3 * HOUR, fed_seq=ninth.seq) == 3
    assert kept(store) == [*range(9, 18)]


def test_rows_that_wait_for_a_recount_stay(log: tuple[Store, Writer]) -> None:
    """A changed label holds back the rows of its hour until the block is counted."""
    store, writer = log
    writer.label("m", [make_label("p7", NOON + 4 * HOUR, "x")]).result()
    assert delete(writer, NOON + 3 * HOUR) == 6
    recount(store, writer)
    assert delete(writer, NOON + 3 * HOUR) == 11


def test_rows_of_an_unfinished_run_stay(log: tuple[Store, Writer]) -> None:
    """Rows since the change that a retraining run is about are not deleted."""
    _, writer = log

    def work(connection: object) -> None:
        since = NOON + 2 * HOUR
        open_run(connection, "m", "waiting_for_labels", "coverage", "drift", NOON + 3 * HOUR, since=since)

    writer.submit(work).result()
    assert delete(writer, NOON + 3 * HOUR) == 12


def test_the_numbers_of_first_labels_never_return(log: tuple[Store, Writer]) -> None:
    """After everything was deleted, the detectors still find the next label."""
    store, writer = log
    with store.read() as connection:
        last = first_labels(connection, "m", 0, 99)[-1].seq
    assert delete(writer, NOON + 9 * HOUR) == 17  # the row of the last label stays
    writer.append([make_prediction("p18", NOON + 8 * HOUR)]).result()
    writer.label("m", [make_label("p18", NOON + 8 * HOUR)]).result()
    with store.read() as connection:
        assert [label.label for label in first_labels(connection, "m", last, 9)] == ["x"]


def test_the_space_of_deleted_rows_is_used_again(tmp_path: Path) -> None:
    """With retention, the file does not grow over many days of the same traffic."""
    sizes = []
    with open_log(tmp_path / "log.db") as (store, writer):
        for day in range(6):
            at = NOON + timedelta(days=day)
            rows = [make_prediction(f"{day}-{n}", at, features='"' + "x" * 2000 + '"') for n in range(500)]
            writer.append(rows).result()
            recount(store, writer)
            delete(writer, at, fed_until=at, limit=1000)
            writer.submit(lambda c: None).result()
            with store.read() as connection:
                sizes.append(connection.exec_driver_sql("PRAGMA page_count").scalar())
    assert sizes[5] <= sizes[2] + 20


def test_the_numbers_of_rows_never_return(log: tuple[Store, Writer]) -> None:
    """The row with the highest number stays, whatever its time, so a later row has a higher one."""
    store, writer = log
    writer.append([make_prediction("late", NOON)]).result()
    recount(store, writer)
    with store.read() as connection:
        last = queries.last_row(connection)
    delete(writer, NOON + 9 * HOUR)
    writer.append([make_prediction("next", NOON + 8 * HOUR)]).result()
    with store.read() as connection:
        assert queries.prediction(connection, "m", "late")
        assert queries.last_row(connection) == last + 1
