"""Rows for training and reports."""

from datetime import timedelta

import pytest

from service.store import training_rows
from service.store.engine import Store
from service.store.training_rows import (
    LabelledRow,
    TrafficRow,
    labelled_rows,
    traffic_rows,
    traffic_sample,
)

HOUR = timedelta(hours=1)


def labelled(store: Store, until, limit: int = 100) -> list[LabelledRow]:
    with store.read() as connection:
        return list(labelled_rows(connection, "spam", limit=limit, until=until))


def traffic(store: Store, since, until, limit: int, version: int = 1) -> list[TrafficRow]:
    with store.read() as connection:
        sample = traffic_sample(connection, "spam", version, since=since, until=until, limit=limit)
        return sorted(traffic_rows(connection, sample), key=lambda row: row.at)


def test_a_labelled_row_has_its_record_and_the_label_that_counts(
    store: Store, writer, prediction, label, start
) -> None:
    """The current label is returned, not the first one."""
    writer.append([prediction(seconds=5, features='{"text": "hi"}')])
    writer.label("spam", [label(label="ham"), label(label="spam", seconds=90)]).result()
    (row,) = labelled(store, start + HOUR)
    assert row == LabelledRow("p1", start + timedelta(seconds=5), '{"text": "hi"}', "spam")


def test_rows_without_label_or_record_teach_nothing(store: Store, writer, prediction, label, start) -> None:
    """Rows without label or features, of other models, or answered too late, are left out."""
    writer.append([prediction("kept"), prediction("bare", features=None), prediction("unlabelled")])
    writer.append([prediction("late", 3600), prediction("other", model="other")])
    writer.label("spam", [label(id_) for id_ in ("kept", "bare")] + [label("late", seconds=4000)])
    writer.label("other", [label("other")]).result()
    assert [row.id for row in labelled(store, start + HOUR)] == ["kept"]
    assert [row.id for row in labelled(store, start + 2 * HOUR)] == ["late", "kept"]


def test_the_newest_labelled_rows_come_first(store: Store, writer, prediction, label, start) -> None:
    """The order is by time, then by row, up to the limit."""
    seconds = {"a": 30, "b": 10, "c": 20, "d": 20}
    writer.append([prediction(id_, at) for id_, at in seconds.items()])
    writer.label("spam", [label(id_) for id_ in seconds]).result()
    assert [row.id for row in labelled(store, start + HOUR)] == ["a", "d", "c", "b"]
    assert [row.id for row in labelled(store, start + HOUR, limit=2)] == ["a", "d"]


def test_rows_are_read_as_they_are_asked_for(store: Store, writer, prediction, label, start) -> None:
    """Rows are streamed, beyond the number held in memory."""
    ids = [f"p{i}" for i in range(1200)]
    writer.append([prediction(id_, i) for i, id_ in enumerate(ids)])
    writer.label("spam", [label(id_) for id_ in ids]).result()
    with store.read() as connection:
        rows = labelled_rows(connection, "spam", limit=5000, until=start + HOUR)
        assert next(rows).id == "p1199"
        assert [row.id for row in rows] == ids[-2::-1]


def test_a_small_window_is_taken_whole(store: Store, writer, prediction, start) -> None:
    """All rows of one version in [since, until) are returned."""
    writer.append([prediction("a", 20, features=None, probabilities=None), prediction("b", 10, label="spam")])
    writer.append([prediction("before", -1), prediction("end", 3600), prediction("other", 15, version=2)])
    writer.append([prediction("foreign", 15, model="other")]).result()
    second = timedelta(seconds=1)
    assert traffic(store, start, start + HOUR, 10) == [
        TrafficRow(start + 10 * second, 1, "spam", (0.1, 0.9), '{"text": "hello"}', 7),
        TrafficRow(start + 20 * second, 1, "ham", None, None, 7),
    ]


@pytest.mark.parametrize("limit", [1, 2, 7, 50, 99, 100, 101])
def test_a_large_window_is_spread_evenly(store: Store, writer, prediction, start, limit: int) -> None:
    """The sample has exactly the limit and is evenly spaced, independent of other versions' rows."""
    rows = [prediction(f"p{i}", i, version=1) for i in range(100)]
    rows += [prediction(f"q{i}", i + 0.5, version=2) for i in range(0, 100, 3)]
    writer.append(sorted(rows, key=lambda row: row.at)).result()
    seconds = [(row.at - start).total_seconds() for row in traffic(store, start, start + HOUR, limit)]
    taken = min(limit, 100)
    assert seconds == [-(-i * 100 // taken) for i in range(taken)]


def test_nothing_is_taken_of_nothing(store: Store, writer, prediction, start) -> None:
    """An empty window and a limit of 0 give no rows."""
    assert traffic(store, start, start + HOUR, 10) == []
    writer.append([prediction()]).result()
    assert traffic(store, start, start + HOUR, 0) == []


def test_long_records_end_a_sample_anywhere_in_time(store: Store, writer, prediction, start, monkeypatch) -> None:
    """Their size is limited, and those that fit are spread over the window; the same ones at every call."""
    monkeypatch.setattr(training_rows, "REPORT_BYTES", 4_500)
    writer.append([prediction(f"p{i}", i, features="x" * 100) for i in range(1000)]).result()
    rows = traffic(store, start, start + HOUR, 1000)
    assert len(rows) == 45
    seconds = [(row.at - start).total_seconds() for row in rows]
    assert min(seconds) < 200
    assert max(seconds) > 800
    assert rows == traffic(store, start, start + HOUR, 1000)


def test_long_records_end_the_rows_of_a_training(store: Store, writer, prediction, label, start, monkeypatch) -> None:
    """The newest ones are taken."""
    monkeypatch.setattr(training_rows, "TRAINING_BYTES", 250)
    ids = [f"p{i}" for i in range(9)]
    writer.append([prediction(id_, i, features="x" * 100) for i, id_ in enumerate(ids)])
    writer.label("spam", [label(id_) for id_ in ids]).result()
    assert [row.id for row in labelled(store, start + HOUR)] == ["p8", "p7", "p6"]
