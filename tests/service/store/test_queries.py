"""Queries of the store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from factories import recount

from service.store import queries
from service.store.engine import Store
from service.store.writer import Writer


@pytest.fixture
def filled(store: Store, writer: Writer, prediction, label) -> Store:
    """Six predictions ten seconds apart, of two versions, every other one labelled, and one of another model."""
    rows = [prediction(f"p{n}", 10 * n, version=1 + n // 3) for n in range(6)]
    writer.append([*reversed(rows), prediction("other", 5, model="toxic")]).result()
    writer.label("spam", [label(f"p{n}", seconds=100 + n) for n in (0, 2, 4)]).result()
    return store


def test_records_of_a_time(filled: Store, start) -> None:
    """Predictions of the half-open span, oldest first, with their labels."""
    with filled.read() as connection:
        found = queries.records(
            connection, "spam", since=start + timedelta(seconds=10), until=start + timedelta(seconds=40)
        )
        assert [(each.prediction.id, each.label) for each in found] == [
            ("p1", None),
            ("p2", "spam"),
            ("p3", None),
        ]


@pytest.mark.parametrize(
    ("labelled", "ids"), [(None, ["p4", "p3", "p2"]), (True, ["p4", "p2", "p0"]), (False, ["p3", "p1"])]
)
def test_recent_records(filled: Store, start, labelled, ids: list[str]) -> None:
    """The last predictions before a time, newest first, with or without a label."""
    with filled.read() as connection:
        before = start + timedelta(seconds=50)
        found = queries.recent_records(connection, "spam", before=before, limit=3, labelled=labelled)
        assert [each.id for each in found] == ids


def test_recent_records_before_a_place(store: Store, writer: Writer, prediction) -> None:
    """A cursor separates rows of one time by their number."""
    writer.append([prediction(name, at) for name, at in (("a", 1), ("b", 1), ("c", 1), ("old", 0))]).result()
    with store.read() as connection:
        c, b, *_ = queries.recent_records(connection, "spam", before=datetime.max.replace(tzinfo=UTC), limit=9)
        found = queries.recent_records(connection, "spam", before=b.cursor, limit=9)
        assert (c.id, b.id) == ("c", "b")
        assert [each.id for each in found] == ["a", "old"]


def test_features_are_read_by_row(filled: Store) -> None:
    """Recent records do not have them; they may be long."""
    with filled.read() as connection:
        newest, *_ = queries.recent_records(connection, "spam", before=datetime.max.replace(tzinfo=UTC), limit=1)
        assert not hasattr(newest, "features")
        assert queries.stored_features(connection, newest.row) == '{"text": "hello"}'
        assert queries.stored_features(connection, 10**6) is None


def test_the_last_label(filled: Store, start) -> None:
    """The arrival of the model's newest label; None without labels."""
    with filled.read() as connection:
        assert queries.last_label_at(connection, "spam") == start + timedelta(seconds=164)
        assert queries.last_label_at(connection, "toxic") is None


def test_counts_of_a_time(filled: Store, writer: Writer, start) -> None:
    """Every block that overlaps the span, even by one second."""
    recount(filled, writer)
    with filled.read() as connection:
        found = queries.counts_between(
            connection, "spam", 1, start + timedelta(seconds=9), start + timedelta(seconds=20)
        )
        assert [block.start for block in found] == [start, start + timedelta(seconds=10)]
        later = start + timedelta(seconds=10)
        assert [block.start for block in queries.counts_between(connection, "spam", 1, later, later)] == []


def test_a_time_without_its_zone_is_refused(filled: Store, start) -> None:
    """A naive time is an error."""
    with pytest.raises(ValueError, match="has no time zone"), filled.read() as connection:
        list(queries.records(connection, "spam", since=start.replace(tzinfo=None), until=start))


def test_sums_in_steps(store: Store, writer: Writer, prediction, label, functions, start) -> None:
    """Blocks of any length are summed by step and function set, without empty steps."""
    writer.record_functions(functions("set-2"))
    rows = [prediction(f"p{n}", 40 * n, version=1 + n // 20) for n in range(25)]
    others = [prediction("q1", 5, set_hash="set-2"), prediction("q2", 9000)]
    writer.append([*rows, *others])
    writer.label("spam", [label("p1"), label("p8", "ham")]).result()
    while recount(store, writer):
        pass
    writer.roll_up(start + timedelta(seconds=300), 300).result()
    with store.read() as connection:
        totals = queries.totals_between(connection, "spam", 1, start, start + timedelta(hours=1), 600)
    assert [((each.start - start).seconds, each.seconds, each.set_hash) for each in totals] == [
        (0, 600, "set-1"),
        (0, 600, "set-2"),
        (600, 600, "set-1"),
    ]
    assert [(each.n, each.labelled) for each in totals] == [(15, 2), (1, 0), (5, 0)]


def test_longer_blocks_are_named(store: Store, writer: Writer, prediction, start) -> None:
    """Only rolled-up blocks that end after the given moment."""
    writer.append([prediction(f"p{n}", 600 * n) for n in range(3)]).result()
    recount(store, writer)
    writer.roll_up(start + timedelta(seconds=900), 300).result()
    with store.read() as connection:
        longer = queries.longer_blocks(connection, "spam", 1, start)
        later = queries.longer_blocks(connection, "spam", 1, start + timedelta(seconds=300))
        seconds = [block.seconds for block in queries.iter_blocks(connection, "spam", 1, start)]
    first, second = (queries.BlockKey("set-1", start + timedelta(seconds=n), 300) for n in (0, 600))
    assert (longer, later, seconds) == ({first, second}, {second}, [300, 300, 10])


def test_function_sets_come_oldest_first(store: Store, writer: Writer, functions) -> None:
    """All recorded sets."""
    newer = replace(functions("set-0"), at=functions().at + timedelta(days=1))
    writer.record_functions(newer).result()
    with store.read() as connection:
        assert queries.all_function_sets(connection) == [functions(), newer]


def test_the_usual_version_is_that_of_most_late_rows(store: Store, writer: Writer, prediction, start) -> None:
    """Stray and older versions do not matter; an empty log has none."""
    with store.read() as connection:
        assert queries.most_logged_version(connection, "spam") is None
    rows = [prediction(f"a{n}", n, version=7) for n in range(3)]
    rows += [prediction(f"b{n}", 100 + n, version=4) for n in range(5)]
    writer.append([*rows, prediction("stray", 200, version=2**31 - 1)]).result()
    with store.read() as connection:
        assert queries.most_logged_version(connection, "spam") == (4, start + timedelta(seconds=100))


def test_another_version_needs_three_fifths_of_the_rows(store: Store, writer: Writer, prediction, start) -> None:
    """Until then the current one stays, though it has no rows left; arrivals are counted by row number, not time."""
    writer.append([prediction(f"a{n}", n, version=7) for n in range(4)]).result()
    writer.append([prediction(f"b{n}", 100 + n, version=4) for n in range(5)]).result()
    with store.read() as connection:
        assert queries.most_logged_version(connection, "spam", 7) == (7, start)
        assert queries.most_logged_version(connection, "spam", 99) is None
        last = queries.last_row(connection)
    writer.append([prediction("c", 0, version=4)]).result()
    with store.read() as connection:
        assert queries.most_logged_version(connection, "spam", 7) == (4, start)
        assert [queries.leads_since(connection, "spam", version, last) for version in (4, 7)] == [True, False]
        assert not queries.leads_since(connection, "spam", 4, last + 1)


def test_a_usual_version_is_known_since_its_first_block(store: Store, writer: Writer, prediction, start) -> None:
    """The start of its first block dates a version to ten seconds."""
    writer.append([prediction("a", 13), prediction("b", 400)]).result()
    recount(store, writer)
    with store.read() as connection:
        assert queries.most_logged_version(connection, "spam") == (1, start + timedelta(seconds=10))


def test_where_blocks_start(filled: Store, writer: Writer, start) -> None:
    """The distinct starts in a half-open span, in order, up to the limit."""
    recount(filled, writer)
    with filled.read() as connection:
        found = queries.block_starts(connection, "spam", 1, start, start + timedelta(seconds=20), 9)
        first = queries.block_starts(connection, "spam", 2, start, start + timedelta(days=1), 2)
    assert found == [start, start + timedelta(seconds=10)]
    assert first == [start + timedelta(seconds=30), start + timedelta(seconds=40)]
