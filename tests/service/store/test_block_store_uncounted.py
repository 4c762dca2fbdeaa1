"""Which blocks lack rows."""

from datetime import datetime, timedelta

import pytest

from service.store import queries
from service.store.block_store import first_uncounted
from service.store.engine import Store
from service.store.writer import Writer


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
    writer.recount()
    return store


def test_where_all_is_counted_nothing_lacks_rows(counted: Store, start) -> None:
    """There is nothing to wait for."""
    assert first(counted, start) is None


def test_a_row_that_is_not_counted_is_found(counted: Store, writer: Writer, prediction, start) -> None:
    """In a block that there is, or where there is none yet; the earliest is told, and only of the time asked for."""
    writer.append([prediction("late", 25), prediction("alone", 10)]).result()
    assert first(counted, start) == 10
    assert first(counted, start, since=20) == 20
    assert first(counted, start, until=10) is None
    writer.recount()
    assert first(counted, start) is None


def test_a_label_is_not_taken_for_a_row(counted: Store, writer: Writer, label, start) -> None:
    """The block is to be counted again, but has all of its rows."""
    writer.label("spam", [label("p1")]).result()
    with counted.read() as connection:
        assert queries.dirty_count(connection) == 1
    assert first(counted, start) is None


def test_rows_of_others_do_not_matter(counted: Store, writer: Writer, prediction, start) -> None:
    """Another version and another model have blocks of their own."""
    writer.append([prediction("v", 20, version=2), prediction("m", 20, model="toxic")]).result()
    assert first(counted, start) is None


def test_a_long_block_is_told_by_its_start(counted: Store, writer: Writer, prediction, start) -> None:
    """Where short blocks were merged, the whole of it lacks the row."""
    writer.roll_up(start + timedelta(hours=1), 300).result()
    writer.append([prediction("late", 25)]).result()
    assert first(counted, start) == 0
