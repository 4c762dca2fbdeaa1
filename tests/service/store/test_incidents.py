"""Incidents in the store: joined, acknowledged and resolved with their alarms."""

from datetime import timedelta

import pytest

from service.decisions import Incident
from service.store.alarms import acknowledge_alarm, open_alarm, resolve_alarm
from service.store.audit import entries
from service.store.engine import Store
from service.store.errors import AlarmResolved, UnknownIncident
from service.store.incidents import acknowledge_incident, assign_alarms, incident, incidents, resolve_incident
from service.store.writer import Writer

MINUTE = timedelta(minutes=1)


class Incidents:
    """Alarms and incidents of one store."""

    def __init__(self, store: Store, writer: Writer, detection) -> None:
        self.store, self.writer, self.detection = store, writer, detection

    def raised(self, name: str, seconds: float = 0, **how) -> int:
        """Open an alarm, and return its id."""
        found = self.detection(name, seconds=seconds, **how)
        return self.writer.submit(lambda c: open_alarm(c, "spam", 1, found)).result().id

    def assigned(self, *ids: int) -> Incident:
        """Put alarms into an incident, the first as the cause."""
        moved = {id_: "with links" if k else "by itself" for k, id_ in enumerate(ids)}
        return self.writer.submit(lambda c: assign_alarms(c, "spam", ids, moved)).result()

    def change(self, work, *arguments):
        return self.writer.submit(lambda c: work(c, *arguments)).result()

    def read(self, **how) -> list[Incident]:
        with self.store.read() as connection:
            return incidents(connection, "spam", **how)


@pytest.fixture
def here(store: Store, writer, detection) -> Incidents:
    return Incidents(store, writer, detection)


def test_alarms_become_an_incident_with_the_cause_first(here: Incidents, start) -> None:
    """It opens with its first alarm, and every alarm says where it belongs and how its rate moved."""
    one, other = here.raised("wide"), here.raised("links", 60)
    opened = here.assigned(other, one)
    assert (opened.at, opened.state, opened.cause) == (start, "open", "links")
    assert [(each.id, each.incident, each.place, each.moved) for each in opened.alarms] == [
        (other, opened.id, 0, "by itself"),
        (one, opened.id, 1, "with links"),
    ]
    assert here.read() == here.read(unresolved=True) == [opened]


def test_an_alarm_joins_the_oldest_incident_of_its_group(here: Incidents) -> None:
    """The order is that of the last grouping; an alarm of another incident stays there."""
    first, second = here.assigned(here.raised("wide")), here.assigned(here.raised("apart"))
    joined = here.assigned(here.raised("links"), first.alarms[0].id, second.alarms[0].id)
    assert (joined.id, [each.drift.slice for each in joined.alarms]) == (first.id, ["links", "wide"])
    assert [each.id for each in here.read()] == [second.id, first.id]


def test_an_acknowledgement_covers_alarms_that_join(here: Incidents, start) -> None:
    """All alarms are acknowledged, by the same person and with the same note; the first acknowledgement is kept."""
    one = here.raised("links")
    number = here.assigned(one).id
    here.change(acknowledge_incident, number, start + MINUTE, "ann", "a campaign")
    here.change(acknowledge_incident, number, start + 2 * MINUTE, "bob")
    joined = here.assigned(one, here.raised("wide", 60))
    assert (joined.state, joined.acknowledged_by, joined.acknowledged_at) == ("acknowledged", "ann", start + MINUTE)
    assert [(each.state, each.acknowledged_by, each.note) for each in joined.alarms] == [
        ("acknowledged", "ann", "a campaign")
    ] * 2


def test_an_alarm_that_was_resolved_meanwhile_joins_as_it_is(here: Incidents, start) -> None:
    """It is not acknowledged."""
    one, other = here.raised("links"), here.raised("wide", 60)
    here.change(acknowledge_incident, here.assigned(one).id, start, "ann")
    here.change(resolve_alarm, other, start + MINUTE, "by hand")
    assert [each.state for each in here.assigned(one, other).alarms] == ["acknowledged", "resolved"]


def test_an_acknowledgement_does_not_cover_a_further_change(here: Incidents, start) -> None:
    """A rate that has a second alarm in the incident is open, and so is the incident."""
    one, other = here.raised("links"), here.raised("wide")
    number = here.assigned(one, other).id
    here.change(acknowledge_incident, number, start, "ann")
    here.change(resolve_alarm, one, start + MINUTE, "superseded: coverage changed")
    joined = here.assigned(here.raised("links", 60), other)
    assert (joined.id, joined.state, joined.acknowledged_at) == (number, "open", None)
    assert [each.state for each in joined.alarms] == ["open", "acknowledged", "resolved"]


def test_acknowledging_every_alarm_acknowledges_the_incident_so_far(here: Incidents, start) -> None:
    """An alarm that joins is open: only the alarms were acknowledged."""
    one = here.raised("links")
    number = here.assigned(one).id
    here.change(acknowledge_alarm, one, start, "ann")
    assert here.read()[0].state == "acknowledged"
    joined = here.assigned(one, here.raised("wide"))
    assert (joined.id, joined.state) == (number, "open")


def test_an_incident_ends_with_its_last_alarm(here: Incidents, start) -> None:
    """Its end is that of the last one, and it can no longer be acknowledged."""
    one, other = here.raised("links"), here.raised("wide")
    number = here.assigned(one, other).id
    here.change(resolve_alarm, one, start + MINUTE, "back")
    assert [(each.state, each.resolved_at) for each in here.read()] == [("open", None)]
    here.change(resolve_alarm, other, start + 2 * MINUTE, "back")
    assert [(each.state, each.resolved_at) for each in here.read()] == [("resolved", start + 2 * MINUTE)]
    assert here.read(unresolved=True) == []
    with pytest.raises(AlarmResolved, match=f"incident {number} is resolved"):
        here.change(acknowledge_incident, number, start, "ann")


def test_resolving_an_incident_resolves_its_alarms(here: Incidents, start) -> None:
    """Those that were resolved before keep their reason."""
    one, other = here.raised("links"), here.raised("wide")
    number = here.assigned(one, other).id
    here.change(resolve_alarm, one, start, "back")
    done = here.change(resolve_incident, number, start + MINUTE, "repaired")
    assert [each.resolution for each in done.alarms] == ["back", "repaired"]
    assert done.state == "resolved"


def test_the_audit_tells_of_an_incident(here: Incidents, start) -> None:
    """It is acknowledged and resolved by people, as are its alarms."""
    number = here.assigned(here.raised("links")).id
    here.change(acknowledge_incident, number, start, "ann", "mine")
    here.change(resolve_incident, number, start, "done")
    with here.store.read() as connection:
        found = [entry for _, entry in entries(connection) if entry.action.startswith("incident")]
    assert [(entry.action, entry.actor) for entry in found] == [
        ("incident.resolved", "monitor"),
        ("incident.acknowledged", "ann"),
    ]
    assert {entry.subject for entry in found} == {f"incident {number}"}
    assert found[-1].detail["note"] == "mine"


def test_incidents_come_in_pages(here: Incidents) -> None:
    """Newest first, with all their alarms; those of other models are not among them."""
    numbers = [here.assigned(here.raised(f"slice {k}")).id for k in range(3)]
    assert [each.id for each in here.read(limit=2)] == numbers[:0:-1]
    assert [each.id for each in here.read(before=numbers[1])] == numbers[:1]
    with here.store.read() as connection:
        assert incidents(connection, "other") == []
        assert incident(connection, 99) is None
    with pytest.raises(UnknownIncident, match="99"):
        here.change(resolve_incident, 99, None, "")
