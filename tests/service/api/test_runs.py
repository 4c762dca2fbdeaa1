"""``/v1/retrain`` and ``/v1/runs``."""

from functools import partial

import pytest

from service.decisions import Decision, PairedCounts, Run, SliceDecision
from service.store.runs import move_run, open_run

DATA = {"base_rows": 1000, "traffic_rows": 200, "held_out_rows": 120}
WORSE = SliceDecision(
    PairedCounts("short", 100, 80, 12, 2), True, -0.1, -0.17, -0.03, "worse", "10.0 points fewer are right"
)
BETTER = SliceDecision(PairedCounts("__all__", 120, 90, 4, 12), False, 0.07, 0.01, 0.13, "better", "more are right")
REJECTED = Decision("reject", ("worse on short",), (BETTER, WORSE), 0.02, 0.95)


def opened(service, state="training", reason="because") -> Run:
    work = partial(
        open_run, model="comments", state=state, trigger="request", reason=reason, at=service.now,
        alarms=(3,), slices=("short",), since=service.now,
    )  # fmt: skip
    return service.kept(work)


def ended(service) -> Run:
    """Return a run whose candidate was rejected."""
    run = opened(service)
    move = partial(move_run, run_id=run.id, at=service.now)
    service.kept(partial(move, expected="training", state="training", attempts=1, champion=1, data=DATA))
    service.kept(partial(move, expected="training", state="gated", candidate=2, decision=REJECTED))
    return service.kept(partial(move, expected="gated", state="rejected", outcome="worse on short"))


def test_a_run_is_told_with_all_that_the_gate_said(service):
    """Slice by slice, both versions with their counts, and what it was trained on."""
    run = service.get(f"/v1/runs/{ended(service).id}").json()
    assert (run["state"], run["champion"], run["candidate"], run["attempts"]) == ("rejected", 1, 2, 1)
    assert (run["data"], run["outcome"], run["alarms"], run["slices"]) == (
        DATA,
        "worse on short",
        [3],
        ["short"],
    )
    decision = run["decision"]
    assert (decision["outcome"], decision["reasons"]) == ("reject", ["worse on short"])
    every, short = decision["slices"]
    assert every["slice"] == "__all__"
    assert short == {
        "slice": "short",
        "protected": True,
        "n": 100,
        "champion": {"value": 0.92, "count": 92, "n": 100},
        "candidate": {"value": 0.82, "count": 82, "n": 100},
        "only_champion": 12,
        "only_candidate": 2,
        "difference": -0.1,
        "lower": -0.17,
        "upper": -0.03,
        "outcome": "worse",
        "reason": "10.0 points fewer are right",
    }


def test_a_run_before_the_gate_has_no_decision(service):
    """Null for all that is not known yet."""
    run = service.get(f"/v1/runs/{opened(service).id}").json()
    assert (run["decision"], run["candidate"], run["data"], run["outcome"]) == (None, None, None, "")


def test_runs_are_listed_without_their_slices(service):
    """Newest first; what the gate said of the whole is there."""
    first, second = ended(service), opened(service)
    page = service.get("/v1/runs").json()
    assert ([each["id"] for each in page["runs"]], page["next"]) == ([second.id, first.id], None)
    said = {"outcome": "reject", "reasons": ["worse on short"], "margin": 0.02, "confidence": 0.95}
    assert page["runs"][1]["decision"] == said


def test_runs_come_in_pages(service):
    """``next`` leads on."""
    first, second = ended(service), ended(service)
    page = service.get("/v1/runs?limit=1").json()
    assert ([each["id"] for each in page["runs"]], page["next"]) == ([second.id], second.id)
    page = service.get(f"/v1/runs?limit=1&before={page['next']}").json()
    assert ([each["id"] for each in page["runs"]], page["next"]) == ([first.id], None)


def test_a_retraining_is_asked_for(service):
    """202 with its run and where it is found; the reason and who asks are handed on."""
    answer = service.post("/v1/retrain", {"reason": "new labels", "by": "ada"})
    assert (answer.status_code, answer.json()["reason"]) == (202, "new labels")
    assert service.get(answer.headers["location"]).json() == answer.json()
    (entry,) = service.get("/v1/audit").json()["entries"]
    assert entry["actor"] == "ada"


def test_neither_reason_nor_name_is_needed(service):
    """There is a plain one of each."""
    assert service.post("/v1/retrain", {}).json()["reason"] == "requested"
    (entry,) = service.get("/v1/audit").json()["entries"]
    assert entry["actor"] == "http"


def test_one_retraining_at_a_time(service):
    """409 that names the one that goes on."""
    service.post("/v1/retrain", {})
    answer = service.post("/v1/retrain", {})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:slicewatch:problem:run-active")
    assert "run 1" in answer.json()["detail"]


@pytest.mark.parametrize("id_", ["7", "9007199254740991"])
def test_an_unknown_run_is_not_found(service, id_):
    """404 that says where the runs are."""
    answer = service.get(f"/v1/runs/{id_}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:slicewatch:problem:unknown-run")


@pytest.mark.parametrize("body", [{"reason": "x" * 1001}, {"reason": None}, {"why": "x"}, [], None])
def test_what_is_said_of_a_retraining_is_bounded(service, body):
    """Refused before anything is opened."""
    assert service.post("/v1/retrain", body).status_code in (415, 422)
    assert service.get("/v1/runs").json()["runs"] == []
