"""The audit log."""

from datetime import timedelta

import pytest

from service.decisions import AuditEntry
from service.store.audit import entries, entries_about, record
from service.store.engine import Store


def test_an_entry_is_kept_as_it_is(store: Store, writer, start) -> None:
    """Time, actor, action, subject and JSON details are stored exactly."""
    detail = {"from": 1, "share": 0.1 + 0.2, "why": None, "slices": ["a", "ü"], "gate": {"passed": True}}
    entry = AuditEntry(start + timedelta(microseconds=7), "ann", "model.promoted", "model spam", detail)
    writer.submit(lambda c: record(c, entry)).result()
    with store.read() as connection:
        assert entries(connection) == [(1, entry)]


def test_entries_are_read_page_by_page(store: Store, writer, start) -> None:
    """Pages are newest first."""
    for i in range(5):
        writer.submit(lambda c, i=i: record(c, AuditEntry(start, "ann", "did", f"thing {i}", {})))
    writer.submit(lambda _: None).result()
    with store.read() as connection:
        first = entries(connection, limit=2)
        rest = entries(connection, before=first[-1][0])
    assert [(id_, entry.subject) for id_, entry in first] == [(5, "thing 4"), (4, "thing 3")]
    assert [id_ for id_, _ in rest] == [3, 2, 1]


def test_entries_about_one_subject(store: Store, writer, start) -> None:
    """The last entries of exactly this subject, oldest first."""
    for i, subject in enumerate(["run 1", "run 1", "run 12", "run 1"]):
        writer.submit(
            lambda c, i=i, subject=subject: record(c, AuditEntry(start, "ann", f"step {i}", subject, {}))
        ).result()
    with store.read() as connection:
        assert [each.action for each in entries_about(connection, "run 1")] == ["step 0", "step 1", "step 3"]
        assert [each.action for each in entries_about(connection, "run 1", limit=2)] == ["step 1", "step 3"]
        assert entries_about(connection, "run 2") == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: "x"}, b"x"])
def test_what_is_no_json_is_refused(store: Store, writer, start, value) -> None:
    """Nothing is written, and the writer continues."""
    refused = writer.submit(lambda c: record(c, AuditEntry(start, "ann", "did", "thing", {"value": value})))
    with pytest.raises(ValueError, match=r"can be stored|cannot store|must be a string"):
        refused.result()
    writer.submit(lambda c: record(c, AuditEntry(start, "ann", "did", "other", {}))).result()
    with store.read() as connection:
        assert [entry.subject for _, entry in entries(connection)] == ["other"]
