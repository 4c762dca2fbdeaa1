"""The story in words."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from service.demo.check import Result
from service.demo.script import Goal, Phase
from service.demo.tell import WIDTH, block, ending, entry, told, truth_text
from service.demo.truth import Standing
from service.demo.watch import News

Document = dict[str, Any]


def test_an_entry_fits_and_names_the_time(at: datetime) -> None:
    """A long sentence is wrapped under the time."""
    lines = entry(at, "word " * 60).splitlines()
    assert lines[0].startswith("12:40  word")
    assert len(lines) > 2
    assert all(len(line) <= WIDTH for line in lines)
    assert all(line.startswith("       word") for line in lines[1:])


def test_an_alarm_says_slice_time_and_evidence(alarm: Callable[..., Document]) -> None:
    """Which slice moved, since when, against what is expected, on which evidence."""
    (line,) = told(News("alarm", alarm()))
    assert line.startswith(
        "ALARM 1, coverage: links holds 8.1 % of rows since 12:40 UTC, expected 1.7 to 2.5 %"
    )
    assert "19.2 of 18.5" in line
    (unknown,) = told(News("alarm", alarm(evidence=None)))
    assert "(log evidence - of 18.5)" in unknown


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": "training", "outcome": "it suffers"}, "Run 1 is to train: it suffers."),
        ({"state": "training", "attempts": 2}, "Run 1 trains, attempt 2."),
        ({"state": "skipped", "outcome": "benign"}, "Run 1 is skipped: benign."),
    ],
)
def test_a_run_says_where_it_stands(run: Callable[..., Document], changes: Document, says: str) -> None:
    """Each state in a sentence."""
    assert list(told(News("run", run(**changes)))) == [says]


def test_an_opened_run_says_why(run: Callable[..., Document]) -> None:
    """What caused it, and that it waits."""
    said = "Run 1 is opened by a coverage alarm; it waits for labels: links moved."
    assert list(told(News("opened", run()))) == [said]


def test_the_gate_says_a_line_per_slice(run: Callable[..., Document], decision: Document) -> None:
    """What was trained on, then n and difference of every slice, and what is said of it."""
    data = {"base_rows": 10_000, "traffic_rows": 2_000, "baseline": []}
    first, table = told(News("gate", run(state="gated", candidate=2, decision=decision, data=data)))
    assert first.startswith("Run 1 has trained version 2 on 10,000 base rows, 2,000 traffic rows.")
    row = next(line for line in table.splitlines() if line.strip().startswith("links"))
    assert row.split() == [
        "links",
        "yes",
        "20",
        "50.0",
        "%",
        "50.0",
        "%",
        "+0.0",
        "-10.0",
        "..",
        "+10.0",
        "not",
        "verified",
    ]
    assert block("x").startswith(" ")


def test_the_truth_stands_beside_the_alarms() -> None:
    """Zone, coverage in each phase that the version saw, whether it left, and whether it was alarmed."""
    phases = [Phase("calm", "", 0), Phase("campaign", "", 10), Phase("later", "", 20)]
    seen = {"calm": 0.02, "campaign": 0.08}
    text = truth_text([Standing("links", 1, 0.017, 0.025, seen, left=True, alarmed=False)], phases)
    assert text.splitlines()[0] == "under version 1:"
    assert text.splitlines()[1].split() == ["slice", "zone", "calm", "campaign", "left", "alarmed"]
    assert text.splitlines()[2].split()[-5:] == ["2.00", "%", "8.00", "%", "yes"]


def test_the_ending_says_what_did_not_happen(run: Callable[..., Document]) -> None:
    """Failures are listed; without any the story happened."""
    goal = Goal("links", 0.6, 0.85, 300)
    result = Result(run(state="promoted"), before=(1, 2), after=(9, 10))
    lines = list(ending(result, [], goal, 150.4))
    assert lines[0] == "Accuracy on links: 50.0 % (1 of 2) before, 90.0 % (9 of 10) after."
    assert lines[1].startswith("The story happened: promoted")
    assert list(ending(result, ["no alarm"], None, 150.4)) == [
        "The story did not happen, after 150 s:",
        "  - no alarm",
    ]
