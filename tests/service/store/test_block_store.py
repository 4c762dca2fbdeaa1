"""Blocks agree with their rows after any interleaving."""

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta

import pytest
from factories import count_rows, dirty_count, recount
from sqlalchemy import Connection, delete, event, select

from service.events import BlockCounts
from service.monitor.block_counts import merge
from service.store import block_store, queries
from service.store.block_store import SeriesKey, first_uncounted, mark_dirty, read_dirty, replace_blocks
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.tables import blocks, predictions, to_us
from service.store.writer import Writer

FOREVER = timedelta(days=400)


def stored_blocks(store: Store, start: datetime, version: int = 1) -> list[BlockCounts]:
    with store.read() as connection:
        return queries.counts_between(connection, "spam", version, start - FOREVER, start + FOREVER)


def dirty(store: Store) -> int:
    with store.read() as connection:
        return dirty_count(connection)


def test_blocks_are_counted_from_rows(store: Store, writer: Writer, prediction, label, start) -> None:
    """A recount writes one block for every ten seconds with rows."""
    rows = [prediction("p1", 0), prediction("p2", 9.999999), prediction("p3", 10, label="spam")]
    writer.append(rows).result()
    writer.label("spam", [label("p2")]).result()
    assert recount(store, writer) == 2
    assert stored_blocks(store, start) == [
        count_rows(rows[:2], {"p2": "spam"}, 3, start, 10),
        count_rows(rows[2:], {}, 3, start + timedelta(seconds=10), 10),
    ]
    assert (dirty(store), recount(store, writer)) == (0, 0)


def test_versions_and_sets_are_counted_apart(store: Store, writer: Writer, prediction, functions, start) -> None:
    """Rows of one moment belong to the block of their model version and function set."""
    writer.record_functions(functions("set-2"))
    rows = [prediction("p1"), prediction("p2", version=2), prediction("p3", version=2, set_hash="set-2")]
    writer.append(rows).result()
    recount(store, writer)
    assert stored_blocks(store, start, 1) == [count_rows(rows[:1], {}, 3, start, 10)]
    assert stored_blocks(store, start, 2) == [count_rows([row], {}, 3, start, 10) for row in rows[1:]]


def test_a_late_label_makes_its_block_dirty(store: Store, writer: Writer, prediction, label, start) -> None:
    """Only a label that changes the current label marks the block of its prediction."""
    writer.append([prediction("p1"), prediction("p2", 10)]).result()
    recount(store, writer)
    writer.label("spam", [label("p2", seconds=90)]).result()
    assert dirty(store) == 1
    assert recount(store, writer) == 1
    writer.label("spam", [label("p2", seconds=95), label("p2", "ham", seconds=30), label("unheard")]).result()
    assert dirty(store) == 0
    assert [block.labelled for block in stored_blocks(store, start)] == [0, 1]


def test_a_block_without_rows_goes(store: Store, writer: Writer, prediction, start) -> None:
    """A block without rows is deleted, and its mark removed."""
    writer.append([prediction("p1"), prediction("p2", 10)]).result()
    recount(store, writer)

    def lose(connection: Connection) -> None:
        connection.execute(delete(predictions).where(predictions.c.id == "p1"))
        never = SeriesKey("spam", 1, "unheard")
        mark_dirty(connection, [(SeriesKey("spam", 1, "set-1"), to_us(start)), (never, to_us(start))])

    writer.submit(lose).result()
    assert (recount(store, writer), dirty(store)) == (2, 0)
    assert stored_blocks(store, start) == [count_rows([prediction("p2", 10)], {}, 3, start + timedelta(seconds=10), 10)]


def test_rows_of_a_set_that_is_not_known_are_not_counted(store: Store, writer: Writer, prediction) -> None:
    """Without names the bitmaps of the rows cannot be read."""
    writer.append([prediction("p1")]).result()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as careless:
        careless.execute("DELETE FROM function_sets")
    with pytest.raises(StoreError, match="'set-1' is not in the store: record it before its predictions"):
        recount(store, writer)


def test_few_at_a_time(store: Store, writer: Writer, prediction, start) -> None:
    """A recount does at most the given number of blocks, oldest first."""
    writer.append([prediction(f"p{i}", 10 * i) for i in range(5)]).result()
    assert [recount(store, writer, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert len(stored_blocks(store, start)) == 5


def test_what_changed_while_it_was_counted_stays_dirty(store: Store, writer: Writer, prediction, label, start) -> None:
    """An outdated count is not written; the next recount is right."""
    writer.append([prediction()]).result()
    with store.read() as connection:
        counted = read_dirty(connection, 10)
    writer.label("spam", [label()]).result()
    assert writer.submit(lambda connection: replace_blocks(connection, counted)).result() == []
    assert (stored_blocks(store, start), dirty(store)) == ([], 1)
    recount(store, writer)
    assert stored_blocks(store, start) == [count_rows([prediction()], {"p1": "spam"}, 3, start, 10)]


def test_blocks_are_rolled_up(store: Store, writer: Writer, prediction, label, start) -> None:
    """Longer blocks count the same rows; later blocks stay."""
    rows = [prediction(f"p{i}", 100 * i) for i in range(10)]
    writer.append(rows).result()
    writer.label("spam", [label("p4")]).result()
    recount(store, writer)
    assert writer.roll_up(start + timedelta(seconds=899), 300).result() == 6
    assert stored_blocks(store, start) == [
        count_rows(rows[:3], {}, 3, start, 300),
        count_rows(rows[3:6], {"p4": "spam"}, 3, start + timedelta(seconds=300), 300),
        *(count_rows([row], {}, 3, row.at, 10) for row in rows[6:]),
    ]
    assert writer.roll_up(start + timedelta(hours=1), 3600).result() == 6
    assert stored_blocks(store, start) == [count_rows(rows, {"p4": "spam"}, 3, start, 3600)]


def test_blocks_have_few_lengths(writer: Writer, start) -> None:
    """Rolling up into an unknown length is an error."""
    with pytest.raises(ValueError, match=r"rolled up into \(300, 3600\) seconds, not into 60"):
        writer.roll_up(start, 60).result()


def test_roll_up_in_small_steps(store: Store, writer: Writer, prediction, start) -> None:
    """Rolling up in steps gives the same counts."""
    rows = [prediction(f"p{i}", 10 * i) for i in range(40)]
    writer.append(rows).result()
    recount(store, writer)
    while writer.roll_up(start + timedelta(hours=2), 300, limit=3).result():
        pass
    assert [(block.seconds, block.n) for block in stored_blocks(store, start)] == [(300, 30), (300, 10)]


def test_blocks_that_stand_alone_are_rolled_up(store: Store, writer: Writer, prediction, start) -> None:
    """A block without neighbours is rolled up and counted as well."""
    writer.append([prediction(f"p{i}", 600 * i) for i in range(3)]).result()
    recount(store, writer)
    taken = [writer.roll_up(start + timedelta(hours=1), 300, limit=1).result() for _ in range(4)]
    assert taken == [1, 1, 1, 0]
    assert [block.seconds for block in stored_blocks(store, start)] == [300, 300, 300]


def test_far_and_near_long_and_short(store: Store, writer: Writer, prediction, label, start) -> None:
    """Dirty blocks of any distance and length get exactly their own rows."""
    rows = [prediction(f"p{i}", s) for i, s in enumerate([0, 9.999999, 10, 20, 30, 40, 299, 300, 7201, 90_000])]
    writer.append(rows).result()
    recount(store, writer)
    writer.roll_up(start + timedelta(seconds=300), 300).result()
    late = [prediction(f"q{i}", s) for i, s in enumerate([5, 150, 310, 330, 7209, 7210, 90_020, 900_000])]
    writer.append(late)
    writer.label("spam", [label("p1", seconds=95), label("p9", seconds=95_000)]).result()
    assert recount(store, writer) == 8
    assert (dirty(store), sum(block.n for block in stored_blocks(store, start))) == (0, 18)
    for block in stored_blocks(store, start):
        here = [row for row in (*rows, *late) if block.start <= row.at < block.end]
        assert block == count_rows(here, {"p1": "spam", "p9": "spam"}, 3, block.start, block.seconds)


def test_many_blocks_take_few_statements(store: Store, writer: Writer, prediction) -> None:
    """Recounting two hundred adjacent blocks takes as many statements as two."""
    statements: list[str] = []

    def hear(connection: object, cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    with store.read() as connection:
        engines = [store.writing, connection.engine]
    executed = []
    for first, many in ((0, 2), (10_000, 200)):
        writer.append([prediction(f"p{first + i}", first + 10 * i) for i in range(many)]).result()
        statements.clear()
        for engine in engines:
            event.listen(engine, "before_cursor_execute", hear)
        counted = recount(store, writer)
        for engine in engines:
            event.remove(engine, "before_cursor_execute", hear)
        executed.append((counted, len(statements)))
    assert executed[0][1] > 0
    assert executed == [(2, executed[0][1]), (200, executed[0][1])]


def test_rows_are_counted_some_at_a_time(store: Store, writer: Writer, prediction, label, start, monkeypatch) -> None:
    """Parts end within a block and a moment, and each is added to the counts so far: together they take memory."""
    kept: list[int] = []

    def hear(parts: list[BlockCounts]) -> BlockCounts:
        kept.append(len(parts))
        return merge(parts)

    monkeypatch.setattr(block_store, "_ROWS_AT_A_TIME", 3)
    monkeypatch.setattr(block_store, "merge", hear)
    rows = [prediction(f"p{i}", 2 * (i // 4), label="abc"[i % 3]) for i in range(50)]
    writer.append(rows).result()
    writer.label("spam", [label(f"p{i}", "abd"[i % 2]) for i in range(7)]).result()
    recount(store, writer)
    labels = {f"p{i}": "abd"[i % 2] for i in range(7)}
    assert stored_blocks(store, start) == [
        count_rows(rows[20 * k : 20 * k + 20], labels, 3, start + timedelta(seconds=10 * k), 10) for k in range(3)
    ]
    assert set(kept) == {2}


def test_a_label_for_a_rolled_up_block_recounts_it(store: Store, writer: Writer, prediction, label, start) -> None:
    """Late labels and rows of a rolled-up time recount the one block that covers it."""
    rows = [prediction("p1", 0), prediction("p2", 290)]
    writer.append(rows).result()
    recount(store, writer)
    writer.roll_up(start + timedelta(seconds=300), 300).result()
    late = prediction("p3", 100, source="backfill")
    writer.append([late])
    writer.label("spam", [label("p1", seconds=9000), label("p2", seconds=9000)]).result()
    assert dirty(store) == 3
    assert recount(store, writer) == 1
    assert stored_blocks(store, start) == [count_rows([*rows, late], {"p1": "spam", "p2": "spam"}, 3, start, 300)]
    assert dirty(store) == 0


def test_a_block_rolled_up_while_it_was_counted_stays_dirty(
    store: Store, writer: Writer, prediction, label, start
) -> None:
    """A recount never writes a short block next to the longer one."""
    writer.append([prediction()]).result()
    recount(store, writer)
    writer.label("spam", [label()]).result()
    with store.read() as connection:
        counted = read_dirty(connection, 10)
    writer.roll_up(start + timedelta(hours=1), 300).result()
    assert writer.submit(lambda connection: replace_blocks(connection, counted)).result() == []
    assert recount(store, writer) == 1
    assert stored_blocks(store, start) == [count_rows([prediction()], {"p1": "spam"}, 3, start, 300)]


def test_every_recount_is_a_revision(store: Store, writer: Writer, prediction, label) -> None:
    """The revision counts the writes of a block."""
    writer.append([prediction()]).result()
    for n in (1, 2):
        recount(store, writer)
        with store.read() as connection:
            assert connection.scalar(select(blocks.c.revision)) == n
        writer.label("spam", [label()]).result()


def first(store: Store, start: datetime, since: float = 0, until: float = 3_600) -> float | None:
    """Return the seconds after the start at which the first block of version 1 starts that lacks rows."""
    begin, end = start + timedelta(seconds=since), start + timedelta(seconds=until)
    with store.read() as connection:
        counted = queries.counts_between(connection, "spam", 1, begin, end)
        found = first_uncounted(connection, "spam", 1, counted, begin, end)
    return None if found is None else (found - start).total_seconds()


@pytest.fixture
def counted(store: Store, writer: Writer, prediction) -> Store:
    """Rows at 0 s, 20 s and 40 s, all counted."""
    writer.append([prediction(f"p{n}", 20 * n) for n in range(3)]).result()
    recount(store, writer)
    return store


def test_where_all_is_counted_nothing_lacks_rows(counted: Store, start) -> None:
    """Without dirty blocks none lacks rows."""
    assert first(counted, start) is None


def test_a_row_that_is_not_counted_is_found(counted: Store, writer: Writer, prediction, start) -> None:
    """The earliest block that lacks rows is found, whether it exists yet or not, within the given span."""
    writer.append([prediction("late", 25), prediction("alone", 10)]).result()
    assert first(counted, start) == 10
    assert first(counted, start, since=20) == 20
    assert first(counted, start, until=10) is None
    recount(counted, writer)
    assert first(counted, start) is None


def test_a_label_is_not_taken_for_a_row(counted: Store, writer: Writer, label, start) -> None:
    """A block that is dirty because of a label lacks no rows."""
    writer.label("spam", [label("p1")]).result()
    with counted.read() as connection:
        assert dirty_count(connection) == 1
    assert first(counted, start) is None


def test_rows_of_others_do_not_matter(counted: Store, writer: Writer, prediction, start) -> None:
    """Other versions and models have their own blocks."""
    writer.append([prediction("v", 20, version=2), prediction("m", 20, model="toxic")]).result()
    assert first(counted, start) is None


def test_a_long_block_is_told_by_its_start(counted: Store, writer: Writer, prediction, start) -> None:
    """A rolled-up block is named by its own start."""
    writer.roll_up(start + timedelta(hours=1), 300).result()
    writer.append([prediction("late", 25)]).result()
    assert first(counted, start) == 0
