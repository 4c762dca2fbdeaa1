"""Blocks agree with their rows, whatever comes in between."""

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, delete, event, select

from service.events import BlockCounts
from service.monitor.block_counts import count
from service.store import queries
from service.store.block_store import read_dirty, replace_blocks
from service.store.dirty_blocks import SeriesKey, mark_dirty
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.tables import blocks, predictions, to_us
from service.store.writer import Writer

FOREVER = timedelta(days=400)


def standing(store: Store, start: datetime, version: int = 1) -> list[BlockCounts]:
    with store.read() as connection:
        return queries.counts_between(connection, "spam", version, start - FOREVER, start + FOREVER)


def dirty(store: Store) -> int:
    with store.read() as connection:
        return queries.dirty_count(connection)


def test_blocks_are_counted_from_rows(store: Store, writer: Writer, prediction, label, start) -> None:
    """After a recount there is a block of ten seconds for every ten seconds with rows."""
    rows = [prediction("p1", 0), prediction("p2", 9.999999), prediction("p3", 10, label="spam")]
    writer.append(rows).result()
    writer.label("spam", [label("p2")]).result()
    assert writer.recount() == 2
    assert standing(store, start) == [
        count(rows[:2], {"p2": "spam"}, 3, start, 10),
        count(rows[2:], {}, 3, start + timedelta(seconds=10), 10),
    ]
    assert (dirty(store), writer.recount()) == (0, 0)


def test_versions_and_sets_are_counted_apart(
    store: Store, writer: Writer, prediction, functions, start
) -> None:
    """Rows of one moment go to the block of their model version and function set."""
    writer.record_functions(functions("set-2"))
    rows = [prediction("p1"), prediction("p2", version=2), prediction("p3", version=2, set_hash="set-2")]
    writer.append(rows).result()
    writer.recount()
    assert standing(store, start, 1) == [count(rows[:1], {}, 3, start, 10)]
    assert standing(store, start, 2) == [count([row], {}, 3, start, 10) for row in rows[1:]]


def test_a_late_label_makes_its_block_dirty(store: Store, writer: Writer, prediction, label, start) -> None:
    """A label that changes what counts marks the block of its prediction, and no other label does."""
    writer.append([prediction("p1"), prediction("p2", 10)]).result()
    writer.recount()
    writer.label("spam", [label("p2", seconds=90)]).result()
    assert dirty(store) == 1
    assert writer.recount() == 1
    writer.label("spam", [label("p2", seconds=95), label("p2", "ham", seconds=30), label("unheard")]).result()
    assert dirty(store) == 0
    assert [block.labelled for block in standing(store, start)] == [0, 1]


def test_a_block_without_rows_goes(store: Store, writer: Writer, prediction, start) -> None:
    """Where no row is left, or where none ever was, nothing stands and nothing stays dirty."""
    writer.append([prediction("p1"), prediction("p2", 10)]).result()
    writer.recount()

    def lose(connection: Connection) -> None:
        connection.execute(delete(predictions).where(predictions.c.id == "p1"))
        never = SeriesKey("spam", 1, "unheard")
        mark_dirty(connection, [(SeriesKey("spam", 1, "set-1"), to_us(start)), (never, to_us(start))])

    writer.submit(lose).result()
    assert (writer.recount(), dirty(store)) == (2, 0)
    assert standing(store, start) == [count([prediction("p2", 10)], {}, 3, start + timedelta(seconds=10), 10)]


def test_rows_of_a_set_that_is_not_known_are_not_counted(store: Store, writer: Writer, prediction) -> None:
    """Without the names nobody can say what the bits of the rows mean."""
    writer.append([prediction("p1")]).result()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as careless:
        careless.execute("DELETE FROM function_sets")
    with pytest.raises(StoreError, match="'set-1' is not in the store: record it before its predictions"):
        writer.recount()


def test_few_at_a_time(store: Store, writer: Writer, prediction, start) -> None:
    """A recount does as many blocks as it is told; those that were first come first."""
    writer.append([prediction(f"p{i}", 10 * i) for i in range(5)]).result()
    assert [writer.recount(limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert len(standing(store, start)) == 5


def test_what_changed_while_it_was_counted_stays_dirty(
    store: Store, writer: Writer, prediction, label, start
) -> None:
    """A count of rows that are out of date is not kept; the next one is right."""
    writer.append([prediction()]).result()
    with store.read() as connection:
        counted = read_dirty(connection, 10)
    writer.label("spam", [label()]).result()
    assert writer.submit(lambda connection: replace_blocks(connection, counted)).result() == []
    assert (standing(store, start), dirty(store)) == ([], 1)
    writer.recount()
    assert standing(store, start) == [count([prediction()], {"p1": "spam"}, 3, start, 10)]


def test_blocks_are_rolled_up(store: Store, writer: Writer, prediction, label, start) -> None:
    """Longer blocks count the same rows; blocks that end after the given moment stay."""
    rows = [prediction(f"p{i}", 100 * i) for i in range(10)]
    writer.append(rows).result()
    writer.label("spam", [label("p4")]).result()
    writer.recount()
    assert writer.roll_up(start + timedelta(seconds=899), 300).result() == 6
    assert standing(store, start) == [
        count(rows[:3], {}, 3, start, 300),
        count(rows[3:6], {"p4": "spam"}, 3, start + timedelta(seconds=300), 300),
        *(count([row], {}, 3, row.at, 10) for row in rows[6:]),
    ]
    assert writer.roll_up(start + timedelta(hours=1), 3600).result() == 6
    assert standing(store, start) == [count(rows, {"p4": "spam"}, 3, start, 3600)]


def test_blocks_have_few_lengths(writer: Writer, start) -> None:
    """Rolling up into a length that is not kept is refused."""
    with pytest.raises(ValueError, match="are rolled up into \\(300, 3600\\) seconds, not into 60"):
        writer.roll_up(start, 60).result()


def test_roll_up_in_small_steps(store: Store, writer: Writer, prediction, start) -> None:
    """Rolling up a few blocks at a time ends at the same counts."""
    rows = [prediction(f"p{i}", 10 * i) for i in range(40)]
    writer.append(rows).result()
    writer.recount()
    while writer.roll_up(start + timedelta(hours=2), 300, limit=3).result():
        pass
    assert [(block.seconds, block.n) for block in standing(store, start)] == [(300, 30), (300, 10)]


def test_blocks_that_stand_alone_are_rolled_up(store: Store, writer: Writer, prediction, start) -> None:
    """A block with no other beside it is taken in as well, and says so: the next are not waited for in vain."""
    writer.append([prediction(f"p{i}", 600 * i) for i in range(3)]).result()
    writer.recount()
    taken = [writer.roll_up(start + timedelta(hours=1), 300, limit=1).result() for _ in range(4)]
    assert taken == [1, 1, 1, 0]
    assert [block.seconds for block in standing(store, start)] == [300, 300, 300]


def test_far_and_near_long_and_short(store: Store, writer: Writer, prediction, label, start) -> None:
    """However the dirty blocks lie, and however long they are, each gets its own rows and no others."""
    rows = [
        prediction(f"p{i}", s) for i, s in enumerate([0, 9.999999, 10, 20, 30, 40, 299, 300, 7201, 90_000])
    ]
    writer.append(rows).result()
    writer.recount()
    writer.roll_up(start + timedelta(seconds=300), 300).result()
    late = [prediction(f"q{i}", s) for i, s in enumerate([5, 150, 310, 330, 7209, 7210, 90_020, 900_000])]
    writer.append(late)
    writer.label("spam", [label("p1", seconds=95), label("p9", seconds=95_000)]).result()
    assert writer.recount() == 8
    assert (dirty(store), sum(block.n for block in standing(store, start))) == (0, 18)
    for block in standing(store, start):
        here = [row for row in (*rows, *late) if block.start <= row.at < block.end]
        assert block == count(here, {"p1": "spam", "p9": "spam"}, 3, block.start, block.seconds)


def test_many_blocks_take_few_statements(store: Store, writer: Writer, prediction) -> None:
    """The database is asked as often for two hundred blocks that follow each other as for two."""
    statements: list[str] = []

    def hear(connection: object, cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    asked = []
    for first, many in ((0, 2), (10_000, 200)):
        writer.append([prediction(f"p{first + i}", first + 10 * i) for i in range(many)]).result()
        statements.clear()
        event.listen(Engine, "before_cursor_execute", hear)
        counted = writer.recount()
        event.remove(Engine, "before_cursor_execute", hear)
        asked.append((counted, len(statements)))
    assert asked == [(2, asked[0][1]), (200, asked[0][1])]


def test_a_label_for_a_rolled_up_block_recounts_it(
    store: Store, writer: Writer, prediction, label, start
) -> None:
    """Late labels and late rows of a rolled-up time change the one block that holds it."""
    rows = [prediction("p1", 0), prediction("p2", 290)]
    writer.append(rows).result()
    writer.recount()
    writer.roll_up(start + timedelta(seconds=300), 300).result()
    late = prediction("p3", 100, source="backfill")
    writer.append([late])
    writer.label("spam", [label("p1", seconds=9000), label("p2", seconds=9000)]).result()
    assert dirty(store) == 3
    assert writer.recount() == 1
    assert standing(store, start) == [count([*rows, late], {"p1": "spam", "p2": "spam"}, 3, start, 300)]
    assert dirty(store) == 0


def test_a_block_rolled_up_while_it_was_counted_stays_dirty(
    store: Store, writer: Writer, prediction, label, start
) -> None:
    """A recount never puts a short block beside the longer one that took its rows."""
    writer.append([prediction()]).result()
    writer.recount()
    writer.label("spam", [label()]).result()
    with store.read() as connection:
        counted = read_dirty(connection, 10)
    writer.roll_up(start + timedelta(hours=1), 300).result()
    assert writer.submit(lambda connection: replace_blocks(connection, counted)).result() == []
    assert writer.recount() == 1
    assert standing(store, start) == [count([prediction()], {"p1": "spam"}, 3, start, 300)]


def test_every_recount_is_a_revision(store: Store, writer: Writer, prediction, label) -> None:
    """The number of times that a block was counted is kept with it."""
    writer.append([prediction()]).result()
    for n in (1, 2):
        writer.recount()
        with store.read() as connection:
            assert connection.scalar(select(blocks.c.revision)) == n
        writer.label("spam", [label()]).result()
