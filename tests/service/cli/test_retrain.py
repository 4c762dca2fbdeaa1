"""Retrainings on the command line."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.api.schemas.runs import run_detail_out, run_out
from service.cli.retrain import decision_of
from service.decisions import Decision, PairedCounts, Run, SliceDecision

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
WORSE = SliceDecision(
    PairedCounts("links", 100, 80, 12, 2), True, -0.1, -0.17, -0.03, "worse", "10.0 points fewer are right"
)
REJECTED = Decision("reject", ("worse on links",), (WORSE,), 0.02, 0.95)
RUN = Run(
    4, "orders", "rejected", "coverage", "alarm 3", AT, AT, (3,), ("links",), AT, 1, 1, 2,
    {"base_rows": 1000, "traffic_rows": 200, "by_slice": {"links": 20}}, REJECTED, "worse on links",
)  # fmt: skip
WAITING = replace(
    RUN,
    id=5,
    state="waiting_for_labels",
    data=None,
    decision=None,
    candidate=None,
    outcome="20 of 200 labels",
)


@pytest.fixture
def told(service: Any) -> Any:
    """The service with two runs."""
    for each in (RUN, WAITING):
        service.documents[f"/v1/runs/{each.id}"] = run_detail_out(each).model_dump(mode="json")
    runs = [run_out(each).model_dump(mode="json") for each in (WAITING, RUN)]
    service.documents["/v1/runs?limit=20"] = {"runs": runs, "next": None}
    service.documents["/v1/retrain"] = service.documents["/v1/runs/5"]
    return service


def test_the_gates_word_travels_whole() -> None:
    """What the service tells of a decision is that decision again."""
    document = json.loads(run_detail_out(RUN).model_dump_json())
    assert decision_of(document["decision"]) == REJECTED


def test_a_retraining_is_begun(cli: Callable, told: Any) -> None:
    """The reason goes to the service, and its run is named."""
    answer = cli("retrain", "--reason", "new labels", "--by", "ada", "--url", told.url)
    assert answer.out == "run 5 is waiting for labels: `slicewatch retrain show 5` tells how it goes\n"
    assert told.said == [("/v1/retrain", {"reason": "new labels", "by": "ada"})]


def test_runs_are_listed(cli: Callable, told: Any) -> None:
    """Newest first, with what became of each."""
    _, _, waiting, rejected = cli("retrain", "list", "--url", told.url).out.splitlines()
    assert (
        " ".join(waiting.split()) == "5 2026-05-01 12:00:00 waiting for labels alarm 3 1 - 20 of 200 labels"
    )
    assert " ".join(rejected.split()) == "4 2026-05-01 12:00:00 rejected alarm 3 1 2 worse on links"


def test_no_runs_are_said(cli: Callable, service: Any) -> None:
    """No empty table."""
    service.documents["/v1/runs?limit=1"] = {"runs": [], "next": None}
    assert cli("retrain", "list", "--limit", "1", "--url", service.url).out.startswith(
        "nothing was retrained"
    )


def test_a_run_is_shown_with_the_gates_table(cli: Callable, told: Any) -> None:
    """What it was trained on, and a line per slice."""
    out = cli("retrain", "show", "4", "--url", told.url).out
    assert re.search(r"^traffic rows +200$", out, re.MULTILINE)
    assert "the gate says: reject" in out
    line = next(line for line in out.splitlines() if line.startswith("links *"))
    assert ("92.0 %" in line, "82.0 %" in line, "10.0 points fewer are right" in line) == (True, True, True)


def test_a_run_before_the_gate_is_shown_without_one(cli: Callable, told: Any) -> None:
    """What it waits for is there."""
    out = cli("retrain", "show", "5", "--url", told.url).out
    assert "20 of 200 labels" in out
    assert "gate" not in out


def test_each_is_one_document(cli: Callable, told: Any) -> None:
    """As the service tells it."""

    def document(*argv: str) -> Any:
        return json.loads(cli("retrain", "--url", told.url, *argv, "--json").out)

    assert document() == told.documents["/v1/runs/5"]
    assert document("show", "4") == told.documents["/v1/runs/4"]
    assert document("list") == {"runs": told.documents["/v1/runs?limit=20"]["runs"]}


@pytest.mark.parametrize("limit", ["0", "201", "x"])
def test_a_list_is_bounded(cli: Callable, limit: str) -> None:
    """Anything else is misuse."""
    assert cli("retrain", "list", "--limit", limit).code == 2
