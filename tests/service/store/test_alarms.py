"""Alarms in the store, and their audit."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.decisions import Alarm, AuditEntry, DriftDetected
from service.store.alarms import (
    acknowledge_alarm,
    alarm,
    alarms,
    count_unresolved,
    open_alarm,
    resolve_alarm,
)
from service.store.audit import entries
from service.store.engine import Store
from service.store.errors import AlarmResolved, UnknownAlarm
from service.store.tables import alarms as table
from service.store.writer import Writer
from sfs.intervals import Rate

MINUTE = timedelta(minutes=1)


def opened(writer: Writer, detection, model: str = "spam", version: int = 1) -> Alarm | None:
    return writer.submit(lambda c: open_alarm(c, model, version, detection)).result()


def stored(store: Store, **how) -> list[Alarm]:
    with store.read() as connection:
        return alarms(connection, "spam", **how)


def audited(store: Store) -> list[AuditEntry]:
    with store.read() as connection:
        return [entry for _, entry in entries(connection)]


def test_a_detection_becomes_an_alarm(store: Store, writer, detection) -> None:
    """The alarm is open, with its exact evidence."""
    raised = opened(writer, detection(), version=3)
    assert raised == Alarm(1, "spam", 3, detection().at, detection().drift)
    assert stored(store) == [raised]


def test_the_audit_tells_of_an_alarm(store: Store, writer, detection, start) -> None:
    """The entry has actor, time, slice and evidence."""
    opened(writer, detection())
    (entry,) = audited(store)
    assert (entry.at, entry.actor, entry.action, entry.subject) == (
        start,
        "monitor",
        "alarm.opened",
        "alarm 1",
    )
    about = {"model": "spam", "version": 1, "slice": "links", "kind": "coverage"}
    assert {name: entry.detail[name] for name in about} == about
    assert entry.detail["drift"]["observed"] == {"count": 8, "n": 90, "independent": None}


def test_a_slice_has_one_unresolved_alarm_of_a_kind(store: Store, writer, detection) -> None:
    """A second one is neither stored nor audited, on any version, open or acknowledged."""
    opened(writer, detection())
    assert opened(writer, detection(seconds=10), version=2) is None
    writer.submit(lambda c: acknowledge_alarm(c, 1, detection().at, "ann")).result()
    assert opened(writer, detection(seconds=20)) is None
    assert (len(stored(store)), len(audited(store))) == (1, 2)


def later(detection, count: int, of: int = 100, direction: str | None = "up", **how) -> DriftDetected:
    """Return a detection a minute later, with an interval of ten points to each side."""
    first, share = detection(seconds=60, **how), count / of
    drift = replace(first.drift, observed=Rate(count, of), lower=share - 0.1, upper=share + 0.1, direction=direction)
    return replace(first, drift=drift)


@pytest.mark.parametrize(("count", "direction"), [(20, "down"), (50, "up")])
def test_what_moved_on_is_another_alarm(store: Store, writer, detection, start, count: int, direction: str) -> None:
    """A rate that turned or changed further is not muted by an acknowledged alarm."""
    opened(writer, later(detection, 20), version=1)
    writer.submit(lambda c: acknowledge_alarm(c, 1, start, "ann")).result()
    raised = opened(writer, later(detection, count, direction=direction), version=2)
    assert raised is not None
    assert (raised.id, raised.version, raised.state) == (2, 2, "open")
    first = stored(store)[1]
    assert (first.state, first.resolved_at, first.acknowledged_by) == ("resolved", raised.at, "ann")
    assert first.resolution == f"superseded: coverage changed from 20.0% to {count}.0%"
    assert stored(store, unresolved=True) == [raised]


@pytest.mark.parametrize(
    ("kind", "direction", "before", "after", "raised"),
    [
        ("coverage", "up", 20, 48, True),  # it was shown to be 0.3 at most, and a quarter more is let pass: 0.375
        ("coverage", "up", 20, 47, False),
        ("coverage", "up", 80, 30, False),  # part of the way back
        ("coverage", "down", 80, 42, True),  # 0.7 at least, less a quarter: 0.525
        ("coverage", "down", 80, 43, False),
        ("coverage", "down", 20, 60, False),
        ("coverage", None, 80, 42, True),
        ("accuracy", "down", 80, 34, True),  # 0.7 at least, less 0.25
        ("accuracy", "down", 80, 36, False),
        ("accuracy", "up", 20, 66, True),  # 0.3 at most, and 0.25
        ("accuracy", "up", 20, 64, False),
    ],
)
def test_what_is_tolerated_of_a_zone_is_tolerated_between_alarms(
    store: Store, writer, detection, kind: str, direction: str | None, before: int, after: int, raised: bool
) -> None:
    """A change is a further one if it exceeds the tolerance, in the direction of the first."""
    opened(writer, later(detection, before, kind=kind, direction=direction))
    assert (opened(writer, later(detection, after, kind=kind, direction=direction)) is not None) is raised
    assert len(stored(store, unresolved=True)) == 1


def test_the_audit_tells_of_both_when_a_change_moves_on(store: Store, writer, detection) -> None:
    """Resolution and opening are audited in order, by the same actor."""
    opened(writer, later(detection, 20))
    opened(writer, later(detection, 70))
    said = [(entry.actor, entry.action, entry.subject) for entry in audited(store)]
    assert said == [
        ("monitor", "alarm.opened", "alarm 2"),
        ("monitor", "alarm.resolved", "alarm 1"),
        ("monitor", "alarm.opened", "alarm 1"),
    ]


def test_a_detection_without_a_direction_says_nothing_of_a_turn(store: Store, writer, detection) -> None:
    """A missing direction is not a turn."""
    opened(writer, later(detection, 20))
    assert opened(writer, later(detection, 22, direction=None)) is None


def test_other_slices_kinds_and_models_have_their_own(store: Store, writer, detection) -> None:
    """Alarms are unique by model, slice and kind."""
    raised = [
        opened(writer, detection()),
        opened(writer, detection("short")),
        opened(writer, detection(kind="accuracy")),
        opened(writer, detection(), model="other"),
    ]
    assert [each and each.id for each in raised] == [1, 2, 3, 4]


def test_after_its_resolution_a_slice_can_alarm_again(store: Store, writer, detection) -> None:
    """The new alarm has a new id."""
    opened(writer, detection())
    writer.submit(lambda c: resolve_alarm(c, 1, detection().at, "back in its zone")).result()
    again = opened(writer, detection(seconds=60))
    assert again is not None
    assert [each.id for each in stored(store)] == [2, 1]
    assert stored(store, unresolved=True) == [again]


def test_somebody_knows(store: Store, writer, detection, start) -> None:
    """An acknowledgement stores person, time and note, and is audited."""
    opened(writer, detection())
    known = writer.submit(lambda c: acknowledge_alarm(c, 1, start + MINUTE, "ann", "on it")).result()
    said = (known.state, known.acknowledged_at, known.acknowledged_by, known.note)
    assert said == ("acknowledged", start + MINUTE, "ann", "on it")
    assert stored(store, unresolved=True) == [known]
    entry = audited(store)[0]
    assert (entry.actor, entry.action, entry.detail["note"]) == ("ann", "alarm.acknowledged", "on it")


def test_the_audit_can_name_another_than_who_knows(store: Store, writer, detection, start) -> None:
    """The actor may differ from the person."""
    opened(writer, detection())
    writer.submit(lambda c: acknowledge_alarm(c, 1, start, "ann", actor="http")).result()
    assert (audited(store)[0].actor, audited(store)[0].detail["by"]) == ("http", "ann")


def test_the_first_to_know_stays(store: Store, writer, detection, start) -> None:
    """A second acknowledgement changes and audits nothing."""
    opened(writer, detection())
    first = writer.submit(lambda c: acknowledge_alarm(c, 1, start, "ann", "on it")).result()
    second = writer.submit(lambda c: acknowledge_alarm(c, 1, start + MINUTE, "bob", "me too")).result()
    assert (second, len(audited(store))) == (first, 2)


def test_what_has_ended_cannot_be_acknowledged(store: Store, writer, detection, start) -> None:
    """The error has the resolution, and the writer continues."""
    opened(writer, detection())
    writer.submit(lambda c: resolve_alarm(c, 1, start, "version 2 was promoted")).result()
    late = writer.submit(lambda c: acknowledge_alarm(c, 1, start, "ann"))
    with pytest.raises(
        AlarmResolved, match=r"alarm 1 is resolved \(version 2 was promoted\) and cannot be acknowledged"
    ):
        late.result()
    assert (len(audited(store)), writer.refusal) == (2, None)


def test_an_alarm_ends_once(store: Store, writer, detection, start) -> None:
    """The first resolution stays, with the acknowledgement."""
    opened(writer, detection())
    writer.submit(lambda c: acknowledge_alarm(c, 1, start, "ann")).result()
    first = writer.submit(lambda c: resolve_alarm(c, 1, start + MINUTE, "fixed", actor="ann")).result()
    second = writer.submit(lambda c: resolve_alarm(c, 1, start + 2 * MINUTE, "again")).result()
    said = (first.state, first.resolved_at, first.resolution, first.acknowledged_by)
    assert said == ("resolved", start + MINUTE, "fixed", "ann")
    assert (second, stored(store)) == (first, [first])
    assert [entry.action for entry in audited(store)] == [
        "alarm.resolved",
        "alarm.acknowledged",
        "alarm.opened",
    ]


@pytest.mark.parametrize("change", [partial(acknowledge_alarm, by="ann"), partial(resolve_alarm, resolution="fixed")])
def test_an_unknown_alarm_is_refused(store: Store, writer, start, change) -> None:
    """The error names the id; reading it returns None."""
    with pytest.raises(UnknownAlarm, match="unknown alarm 7"):
        writer.submit(lambda c: change(c, 7, start)).result()
    with store.read() as connection:
        assert alarm(connection, 7) is None


def test_alarms_are_read_page_by_page(store: Store, writer, detection) -> None:
    """Pages are newest first, from an id downwards."""
    for i in range(5):
        opened(writer, detection(f"s{i}"))
    writer.submit(lambda c: resolve_alarm(c, 4, detection().at, "")).result()
    assert [each.id for each in stored(store, limit=2)] == [5, 4]
    assert [each.id for each in stored(store, before=4, limit=2)] == [3, 2]
    assert [each.id for each in stored(store, unresolved=True, before=5)] == [3, 2, 1]
    with store.read() as connection:
        assert [alarm(connection, 2)] == stored(store, before=3, limit=1)


def test_all_that_stand_are_read(store: Store, writer, detection) -> None:
    """Unresolved alarms are not limited, the history is."""

    def open_many(connection: Connection) -> None:
        for i in range(120):
            open_alarm(connection, "spam", 1, detection(f"s{i}"))

    writer.submit(open_many).result()
    assert [each.id for each in stored(store, unresolved=True)] == [*range(120, 0, -1)]
    assert [each.id for each in stored(store, unresolved=True, limit=2)] == [120, 119]
    assert len(stored(store)) == 100


def test_those_that_stand_are_counted(store: Store, writer, detection, start) -> None:
    """Alarms of another model, and those that have ended, are not counted."""
    ended = opened(writer, detection("links"))
    writer.submit(partial(resolve_alarm, alarm_id=ended.id, at=start, resolution="by hand")).result()
    opened(writer, detection("links"))
    opened(writer, detection("short"))
    opened(writer, detection("short"), model="other")
    with store.read() as connection:
        counts = [count_unresolved(connection, model) for model in ("spam", "other", "nobody")]
    assert counts == [2, 1, 0]


def test_the_database_itself_refuses_a_second_one(store: Store, writer, detection) -> None:
    """A unique index holds even for writes past this code; resolved alarms may repeat."""
    opened(writer, detection())

    def double(connection: Connection) -> None:
        (row,) = connection.execute(select(*(c for c in table.c if c.name != "id"))).mappings().all()
        connection.execute(insert(table), dict(row) | {"state": "resolved"})
        with pytest.raises(IntegrityError), connection.begin_nested():
            connection.execute(insert(table), dict(row) | {"state": "acknowledged"})
        connection.execute(update(table).values(state="resolved"))

    writer.submit(double).result()
    assert [each.state for each in stored(store)] == ["resolved", "resolved"]


def test_an_alarm_whose_transaction_fails_is_not_there(store: Store, writer, detection) -> None:
    """Neither it nor what the audit would have said."""

    def fail(connection: Connection) -> None:
        open_alarm(connection, "spam", 1, detection())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        writer.submit(fail).result()
    assert (stored(store), audited(store)) == ([], [])
