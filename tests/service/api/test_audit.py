"""``/v1/audit``."""

from datetime import timedelta
from functools import partial

import pytest

from service.decisions import AuditEntry
from service.store.audit import record


def recorded(service, action: str) -> None:
    service.now += timedelta(seconds=1)
    entry = AuditEntry(service.now, "ada", action, "version 2", {"reason": "better", "slices": ["short"]})
    service.kept(partial(record, entry=entry))


def test_an_entry_says_who_did_what_when_to_what(service):
    """With its detail as it was kept."""
    recorded(service, "model.promoted")
    (one,) = service.get("/v1/audit").json()["entries"]
    assert one == {
        "id": one["id"],
        "at": "2026-05-01T12:00:01Z",
        "actor": "ada",
        "action": "model.promoted",
        "subject": "version 2",
        "detail": {"reason": "better", "slices": ["short"]},
    }


def test_entries_come_in_pages(service):
    """Newest first; ``next`` leads on, and is null at the end."""
    for action in ("a", "b", "c"):
        recorded(service, action)
    page = service.get("/v1/audit?limit=2").json()
    assert [each["action"] for each in page["entries"]] == ["c", "b"]
    page = service.get(f"/v1/audit?limit=2&before={page['next']}").json()
    assert ([each["action"] for each in page["entries"]], page["next"]) == (["a"], None)


def test_before_anything_was_done_there_are_no_entries(service):
    """An empty page, and no next one."""
    assert service.get("/v1/audit").json() == {"entries": [], "next": None}


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "before=0", "before=9007199254740992"])
def test_a_page_is_bounded(service, query):
    """422 for what no page can be."""
    assert service.get(f"/v1/audit?{query}").status_code == 422
