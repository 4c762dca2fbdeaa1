"""``/v1/incidents``."""

from functools import partial

from service.store.incidents import assign_alarms


def opened(service, *slices: str) -> int:
    """Open an incident with alarms on some slices, the cause first, and return its number."""
    ids = [service.raised(name).id for name in slices]
    moved = {id_: f"with {slices[0]}" if k else "by itself" for k, id_ in enumerate(ids)}
    return service.kept(partial(assign_alarms, model="comments", order=ids, moved=moved)).id


def test_an_incident_is_told_with_its_alarms(service):
    """Cause, slices, sentence, and the alarms as under their own address; each names its incident."""
    number = opened(service, "short", "clicks")
    (one,) = service.get("/v1/incidents").json()["incidents"]
    assert one == service.get(f"/v1/incidents/{number}").json()
    assert (one["model"], one["state"], one["at"]) == ("comments", "open", "2026-05-01T12:00:00Z")
    assert (one["cause"], one["slices"]) == ("short", ["short", "clicks"])
    assert one["sentence"] == "coverage of short is 8.1% since 11:40 UTC, expected 1.8% to 2.2%; 1 moved with it"
    assert one["alarms"] == [service.get(f"/v1/alarms/{each['id']}").json() for each in one["alarms"]]
    assert [(each["incident"], each["moved"]) for each in one["alarms"]] == [
        (number, "by itself"),
        (number, "with short"),
    ]


def test_an_alarm_without_an_incident_says_so(service):
    """The moment until it is assigned."""
    raised = service.raised()
    one = service.get(f"/v1/alarms/{raised.id}").json()
    assert (one["incident"], one["moved"]) == (None, "")
    assert service.get("/v1/incidents").json() == {"incidents": [], "next": None}


def test_acknowledging_an_incident_acknowledges_its_alarms(service):
    """With name and note; a repeated one changes nothing."""
    number = opened(service, "short", "clicks")
    path = f"/v1/incidents/{number}/acknowledge"
    one = service.post(path, {"by": "ada", "note": "a campaign"}).json()
    assert (one["state"], one["acknowledged_by"], one["note"]) == ("acknowledged", "ada", "a campaign")
    assert {each["state"] for each in one["alarms"]} == {"acknowledged"}
    assert service.post(path, {"by": "bob"}).json() == one


def test_resolving_an_incident_resolves_its_alarms(service):
    """It is then listed only when asked for, and refuses an acknowledgement."""
    number = opened(service, "short", "clicks")
    one = service.post(f"/v1/incidents/{number}/resolve", {"by": "ada", "note": "repaired"}).json()
    assert (one["state"], {each["resolution"] for each in one["alarms"]}) == ("resolved", {"by ada: repaired"})
    assert one["resolved_at"] is not None
    assert service.get("/v1/incidents").json()["incidents"] == []
    assert service.get("/v1/incidents?state=all").json()["incidents"] == [one]
    assert service.post(f"/v1/incidents/{number}/acknowledge", {}).status_code == 409


def test_incidents_come_in_pages(service):
    """``next`` leads from page to page, and is null on the last one."""
    numbers = [opened(service, name) for name in ("short", "clicks")]
    first = service.get("/v1/incidents?limit=1").json()
    second = service.get(f"/v1/incidents?limit=1&before={first['next']}").json()
    assert [each["id"] for page in (first, second) for each in page["incidents"]] == numbers[::-1]
    assert second["next"] is None


def test_an_unknown_incident_is_not_found(service):
    """Reading and changing alike."""
    answers = [service.get("/v1/incidents/7"), service.post("/v1/incidents/7/resolve", {})]
    answers.append(service.post("/v1/incidents/7/acknowledge", {}))
    for answer in answers:
        assert (answer.status_code, answer.json()["title"]) == (404, "Unknown incident")
        assert "there is no incident 7" in answer.json()["detail"]
