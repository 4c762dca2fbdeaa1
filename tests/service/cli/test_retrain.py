"""``slicewatch retrain``."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.api.schemas.runs import RunDetailOut, RunOut
from service.decisions import Decision, PairedCounts, Run, SliceDecision
from service.monitor.promotion_gate import decide

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
def two_runs(service: Any) -> Any:
    """Stub service with two runs."""
    for each in (RUN, WAITING):
        service.documents[f"/v1/runs/{each.id}"] = RunDetailOut.model_validate(each).model_dump(mode="json")
    runs = [RunOut.model_validate(each).model_dump(mode="json") for each in (WAITING, RUN)]
    service.documents["/v1/runs?limit=20"] = {"runs": runs, "next": None}
    service.documents["/v1/retrain"] = service.documents["/v1/runs/5"]
    return service


def test_a_retraining_is_started(cli: Callable, two_runs: Any) -> None:
    """The reason is sent to the service, and the run is printed."""
    answer = cli("retrain", "--reason", "new labels", "--by", "ada", "--url", two_runs.url)
    assert answer.out == "run 5 is waiting for labels: follow it with `slicewatch retrain show 5`\n"
    assert two_runs.received == [("/v1/retrain", {"reason": "new labels", "by": "ada"})]


def test_runs_are_listed(cli: Callable, two_runs: Any) -> None:
    """Runs are listed newest first, with their outcomes."""
    head, _, waiting, rejected = cli("retrain", "list", "--url", two_runs.url).out.splitlines()
    assert "opened (UTC, clock time)" in head
    assert " ".join(waiting.split()) == "5 2026-05-01 12:00:00 waiting for labels alarm 3 1 - 20 of 200 labels"
    assert " ".join(rejected.split()) == "4 2026-05-01 12:00:00 rejected alarm 3 1 2 worse on links"


def test_no_runs_are_a_sentence(cli: Callable, service: Any) -> None:
    """Nothing to list is a sentence, not an empty table."""
    service.documents["/v1/runs?limit=1"] = {"runs": [], "next": None}
    assert cli("retrain", "list", "--limit", "1", "--url", service.url).out.startswith("no retraining runs yet")


def test_a_run_is_shown_with_the_gates_table(cli: Callable, two_runs: Any) -> None:
    """A run is shown with its data and a line per slice."""
    out = cli("retrain", "show", "4", "--url", two_runs.url).out
    assert re.search(r"^traffic rows +200$", out, re.MULTILINE)
    assert re.search(r"^opened \(UTC, clock time\) +2026-05-01 12:00:00$", out, re.MULTILINE)
    assert "decision of the gate: reject" in out
    line = next(line for line in out.splitlines() if line.startswith("links *"))
    assert ("92.0%" in line, "82.0%" in line, "10.0 points fewer are right" in line) == (True, True, True)


def test_the_gates_table_has_a_line_for_every_slice(cli: Callable, two_runs: Any) -> None:
    """Protected slices have a star, numbers are right-aligned, and a slice without rows has no accuracy."""
    rows = [PairedCounts("__all__", 2000, 1800, 40, 44), PairedCounts("links", 40, 30, 1, 1)]
    held = decide(rows, {"gone"}, margin=0.02, minimum_rows=50)
    document = RunDetailOut.model_validate(replace(RUN, decision=held)).model_dump(mode="json")
    two_runs.documents["/v1/runs/4"] = document
    lines = cli("retrain", "show", "4", "--url", two_runs.url).out.splitlines()
    start = lines.index("decision of the gate: hold")
    assert lines[start + 1 :][: len(held.reasons)] == [f"- {reason}" for reason in held.reasons]
    cut = len("slice      effective n  champion  candidate  difference          interval  outcome       ")
    *table, legend = lines[start + 1 + len(held.reasons) :]
    assert legend == "* protected"
    assert [line[:cut].rstrip() for line in (table[0], *table[2:])] == [
        "slice      effective n  champion  candidate  difference          interval  outcome",
        "__all__ *        2,000     92.0%      92.2%        +0.2      -0.6 to +1.0  as good",
        "links               40     77.5%      77.5%         0.0    -10.9 to +10.9  not verified",
        "gone *               0         -          -         0.0  -100.0 to +100.0  not verified",
    ]
    assert [line[cut:].strip() for line in table[2:]] == [each.reason for each in held.slices]


def test_a_run_before_the_gate_is_shown_without_one(cli: Callable, two_runs: Any) -> None:
    """A waiting run is shown with its outcome, and without a decision."""
    out = cli("retrain", "show", "5", "--url", two_runs.url).out
    assert "20 of 200 labels" in out
    assert "gate" not in out


def test_every_output_is_one_document(cli: Callable, two_runs: Any) -> None:
    """The document is the service's."""

    def document(*argv: str) -> Any:
        return json.loads(cli("retrain", "--url", two_runs.url, *argv, "--json").out)

    assert document() == two_runs.documents["/v1/runs/5"]
    assert document("show", "4") == two_runs.documents["/v1/runs/4"]
    assert document("list") == {"runs": two_runs.documents["/v1/runs?limit=20"]["runs"]}


@pytest.mark.parametrize("limit", ["0", "201", "x"])
def test_a_list_is_bounded(cli: Callable, limit: str) -> None:
    """Anything else is refused."""
    assert cli("retrain", "list", "--limit", limit).code == 2
