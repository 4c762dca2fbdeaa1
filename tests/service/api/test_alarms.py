"""``/v1/alarms``."""

from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from service.events import Freshness
from service.store.engine import READERS
from sfs.intervals import Rate

SENTENCE = "coverage of short is 8.1% since 11:40 UTC, expected 1.8% to 2.2%"


def test_an_alarm_is_told_with_its_evidence(service):
    """What was seen, what was expected, since when, how sure, and all of it in a sentence."""
    raised = service.raised()
    (one,) = service.get("/v1/alarms").json()["alarms"]
    assert one == service.get(f"/v1/alarms/{raised.id}").json()
    assert (one["slice"], one["kind"], one["direction"], one["state"]) == ("short", "coverage", "up", "open")
    assert one["observed"] == {"value": 0.081, "count": 81, "n": 1000, "lower": 0.06, "upper": 0.1}
    assert one["expected"] == {
        "baseline": None, "value": 0.02, "count": 400, "n": 20_000, "effective_n": 20_000,
        "lower": 0.018, "upper": 0.022, "tolerance": 0.1, "target": None,
    }  # fmt: skip
    assert (one["evidence"], one["threshold"], one["share"]) == (20.0, 16.0, 1.25)
    assert (one["since"], one["at"]) == ("2026-05-01T11:40:00Z", "2026-05-01T12:00:00Z")
    assert (one["model"], one["version"], one["sentence"]) == ("comments", 1, SENTENCE)


def test_what_has_no_reference_has_no_expectation(service):
    """Values without a reference or without counts are null."""
    service.raised(zone=None, since=None, direction=None, observed=Rate(0, 0))
    (one,) = service.get("/v1/alarms").json()["alarms"]
    assert (one["expected"], one["since"], one["observed"]["value"]) == (None, None, None)
    assert one["sentence"] == "coverage of short is unknown so far, no reference to compare with"


def test_the_rate_of_an_alarm_is_unknown_since_the_last_row(service):
    """While it is unresolved; the list and the alarm say the same."""
    service.tick()
    fingerprint = service.model.deployment.state.fingerprints["short"]
    raised, dry = service.raised(fingerprint=fingerprint), service.now - timedelta(hours=2)
    fresh = Freshness(fingerprint, 9, dry, 0, None, None)
    service.model.deployment.snapshot = replace(service.model.deployment.snapshot, freshness={"short": fresh})
    (one,) = service.get("/v1/alarms").json()["alarms"]
    assert datetime.fromisoformat(one["unknown_since"]) == dry
    assert one["sentence"] == f"{SENTENCE}; unknown since {dry:%Y-%m-%d %H:%M} UTC"
    assert service.get(f"/v1/alarms/{raised.id}").json() == one
    resolved = service.post(f"/v1/alarms/{raised.id}/resolve", {}).json()
    assert (resolved["unknown_since"], resolved["sentence"]) == (None, SENTENCE)


def test_alarms_that_have_ended_are_told_when_asked_for(service):
    """Unresolved ones are the default; newest first."""
    first, second = service.raised("short"), service.raised("clicks")
    service.post(f"/v1/alarms/{first.id}/resolve", {})
    assert [each["id"] for each in service.get("/v1/alarms").json()["alarms"]] == [second.id]
    every = service.get("/v1/alarms?state=all").json()["alarms"]
    assert [each["id"] for each in every] == [second.id, first.id]


def test_alarms_come_in_pages(service):
    """``next`` leads from page to page, and is null on the last one."""
    ids = [service.raised(name, kind).id for name in ("short", "clicks") for kind in ("coverage", "accuracy")]
    found, before = [], ""
    while True:
        page = service.get(f"/v1/alarms?limit=3{before}").json()
        found += [each["id"] for each in page["alarms"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert found == ids[::-1]


def test_an_alarm_is_acknowledged_once(service):
    """A repeated acknowledgement leaves the first one unchanged."""
    raised = service.raised()
    path = f"/v1/alarms/{raised.id}/acknowledge"
    service.now += timedelta(minutes=5)
    answer = service.post(path, {"by": "ada", "note": "a campaign,\nuntil Friday"})
    one = answer.json()
    assert (answer.status_code, one["state"], one["acknowledged_by"]) == (200, "acknowledged", "ada")
    assert (one["acknowledged_at"], one["note"]) == ("2026-05-01T12:05:00Z", "a campaign,\nuntil Friday")
    assert service.post(path, {"by": "bob"}).json() == one


def test_an_alarm_is_resolved_by_hand(service):
    """Why, and by whom, stands as its resolution; a second time changes nothing."""
    raised = service.raised()
    path = f"/v1/alarms/{raised.id}/resolve"
    one = service.post(path, {"by": "ada", "note": "the filter was repaired"}).json()
    assert (one["state"], one["resolution"]) == ("resolved", "by ada: the filter was repaired")
    assert service.post(path, {}).json() == one


def test_a_rate_is_accepted_as_normal(service):
    """The alarm is resolved; one that misses a target is not, and says what to do."""
    raised = service.raised()
    path = f"/v1/alarms/{raised.id}/accept"
    one = service.post(path, {"by": "ada", "note": "a new client"}).json()
    assert (one["state"], one["resolution"]) == ("resolved", "accepted as the new normal: a new client")
    assert service.post(path, {}).json()["type"] == "urn:slicewatch:problem:alarm-resolved"


def test_who_resolves_need_not_say_who(service):
    """It was done by hand then."""
    raised = service.raised()
    assert service.post(f"/v1/alarms/{raised.id}/resolve", {}).json()["resolution"] == "by hand"


def test_an_alarm_that_has_ended_cannot_be_acknowledged(service):
    """409, and why it ended."""
    raised = service.raised()
    service.post(f"/v1/alarms/{raised.id}/resolve", {"note": "repaired"})
    answer = service.post(f"/v1/alarms/{raised.id}/acknowledge", {})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:slicewatch:problem:alarm-resolved")
    assert "repaired" in answer.json()["detail"]


@pytest.mark.parametrize("action", ["", "/acknowledge", "/resolve"])
def test_an_unknown_alarm_is_not_found(service, action):
    """404 that says where the alarms are."""
    answer = service.post(f"/v1/alarms/7{action}", {}) if action else service.get("/v1/alarms/7")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:slicewatch:problem:unknown-alarm")
    assert answer.json()["detail"] == "there is no alarm 7; the alarms are listed under /v1/alarms"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"by": "x" * 201}, "by"),
        ({"note": "x" * 1001}, "note"),
        ({"note": "\x00"}, "note"),
        ({"who": "ada"}, "who"),
        ({"by": 1}, "by"),
    ],
)
def test_what_is_said_of_an_alarm_is_bounded(service, body, field):
    """An invalid field returns 422 with its name and leaves the alarm unchanged."""
    raised = service.raised()
    answer = service.post(f"/v1/alarms/{raised.id}/acknowledge", body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert service.get(f"/v1/alarms/{raised.id}").json()["state"] == "open"


def test_only_json_changes_an_alarm(service):
    """A page of another site can send a form without asking; it is refused."""
    raised = service.raised()
    answer = service.post(f"/v1/alarms/{raised.id}/resolve")
    assert answer.status_code == 415


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "before=0", "before=x", "state=open"])
def test_a_page_is_bounded(service, query):
    """422 for what no page can be."""
    assert service.get(f"/v1/alarms?{query}").status_code == 422


def test_changes_are_in_the_audit(service):
    """Who acknowledged and resolved, newest first; a person who gave no name came by HTTP."""
    raised = service.raised()
    service.post(f"/v1/alarms/{raised.id}/acknowledge", {"by": "ada"})
    service.post(f"/v1/alarms/{raised.id}/resolve", {})
    entries = service.get("/v1/audit").json()["entries"]
    assert [(each["actor"], each["action"], each["subject"]) for each in entries] == [
        ("http", "alarm.resolved", f"alarm {raised.id}"),
        ("ada", "alarm.acknowledged", f"alarm {raised.id}"),
        ("monitor", "alarm.opened", f"alarm {raised.id}"),
    ]


def test_slices_tell_of_their_drift_and_alarms(service, drift):
    """By kind, for the slices that are watched; null for the others, and for a function that is another now."""
    raised = service.raised("short")
    other = drift("clicks", fingerprint="of another function")
    service.model.deployment.drift_statuses = (
        drift("short", fingerprint=service.model.deployment.state.fingerprints["short"]),
        drift("__all__", "accuracy"),
        other,
    )
    service.predicted({"text": "love", "likes": 0})
    service.tick()
    by_name = {each["name"]: each for each in service.get("/v1/slices").json()["slices"]}
    assert by_name["short"]["drift"]["coverage"]["share"] == 1.25
    assert by_name["short"]["alarms"] == [raised.id]
    assert by_name["__all__"]["drift"]["accuracy"]["direction"] == "down"
    assert (by_name["clicks"]["drift"], by_name["clicks"]["alarms"]) == (None, [])


def test_a_slice_over_time_tells_when_it_alarmed(service):
    """As an event of its own kind, with the sentence."""
    service.raised("short")
    service.raised("clicks")
    service.now += timedelta(minutes=1)
    events = service.get("/v1/slices/short?window=1h").json()["events"]
    alarms = [each["detail"] for each in events if each["kind"] == "alarm"]
    assert alarms == [f"alarm 1: {SENTENCE}"]


def test_an_alarm_is_acknowledged_while_all_readers_are_busy(service):
    """The change needs no reading connection: it neither waits for one nor takes one from a page."""
    raised = service.raised()
    with ExitStack() as busy:
        for _ in range(READERS):
            busy.enter_context(service.store.read())
        answer = service.post(f"/v1/alarms/{raised.id}/acknowledge", {"by": "ada"})
        assert (answer.status_code, answer.json()["state"]) == (200, "acknowledged")
