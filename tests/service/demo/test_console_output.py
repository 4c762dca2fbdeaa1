"""Terminal output of the demo."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from service.demo.checks import SliceTruth, StoryResult
from service.demo.client import StoryEvent
from service.demo.console_output import WIDTH, describe_event, ending, format_entry, indented, truth_tables
from service.demo.scenario import Goal, Phase

Document = dict[str, Any]


def test_an_entry_fits_and_names_the_time(at: datetime) -> None:
    """A long sentence is wrapped under the time."""
    lines = format_entry(at, "word " * 60).splitlines()
    assert lines[0].startswith("12:40  word")
    assert len(lines) > 2
    assert all(len(line) <= WIDTH for line in lines)
    assert all(line.startswith("       word") for line in lines[1:])


def test_an_alarm_has_slice_time_and_evidence(alarm: Callable[..., Document]) -> None:
    """An alarm has slice, time, expected rate and evidence."""
    (line,) = describe_event(StoryEvent("alarm", alarm()))
    assert line.startswith("ALARM 1: coverage of links is 8.1% since 12:40 UTC, expected 1.7% to 2.5%")
    assert "19.2 of 18.5" in line
    (unknown,) = describe_event(StoryEvent("alarm", alarm(evidence=None)))
    assert "(log evidence - of 18.5)" in unknown


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"state": "training", "outcome": "it suffers"}, "Run 1 is about to train: it suffers."),
        ({"state": "training", "attempts": 2}, "Run 1 is training, attempt 2."),
        ({"state": "skipped", "outcome": "benign"}, "Run 1 is skipped: benign."),
    ],
)
def test_every_state_of_a_run_is_a_sentence(run: Callable[..., Document], changes: Document, sentence: str) -> None:
    """Every state is a sentence."""
    assert list(describe_event(StoryEvent("run", run(**changes)))) == [sentence]


def test_an_opened_run_has_its_trigger(run: Callable[..., Document]) -> None:
    """An opened run has its trigger and its state."""
    said = "Run 1 is opened by a coverage alarm; it waits for labels: links moved."
    assert list(describe_event(StoryEvent("opened", run()))) == [said]


def test_a_decision_has_a_line_per_slice(run: Callable[..., Document], decision: Document) -> None:
    """A decision has the training rows, and n, difference and outcome per slice."""
    data = {"base_rows": 10_000, "traffic_rows": 2_000, "baseline": []}
    first, table = describe_event(StoryEvent("gate", run(state="gated", candidate=2, decision=decision, data=data)))
    assert first.startswith("Run 1 has trained version 2 on 10,000 base rows, 2,000 traffic rows.")
    row = next(line for line in table.splitlines() if line.strip().startswith("links"))
    assert row.split() == [
        "links",
        "yes",
        "20",
        "50.0%",
        "50.0%",
        "+0.0",
        "-10.0",
        "..",
        "+10.0",
        "not",
        "verified",
    ]
    assert indented("x").startswith(" ")


def test_the_truth_stands_beside_the_alarms() -> None:
    """The table has band, coverage by served phase, whether the slice left, and whether it alarmed."""
    phases = [Phase("calm", "", 0), Phase("campaign", "", 10), Phase("later", "", 20)]
    seen = {"calm": 0.02, "campaign": 0.08}
    text = truth_tables([SliceTruth("links", 1, 0.017, 0.025, seen, left=True, alarmed=False)], phases)
    assert text.splitlines()[0] == "under version 1:"
    assert text.splitlines()[1].split() == [
        "slice",
        "tolerance",
        "band",
        "calm",
        "campaign",
        "left",
        "alarmed",
    ]
    assert text.splitlines()[2].split()[-6:] == ["1.7%", "to", "2.5%", "2.0%", "8.0%", "yes"]


def test_the_ending_lists_failures(run: Callable[..., Document]) -> None:
    """Failures are listed; without failures the story happened."""
    goal = Goal("links", 0.6, 0.85, 300)
    result = StoryResult(run(state="promoted"), before=(1, 2), after=(9, 10))
    lines = list(ending(result, [], goal, 150.4))
    assert lines[0] == "Accuracy on links: 50.0% (1 of 2 labels) before, 90.0% (9 of 10 labels) after."
    assert lines[1].startswith("The story happened: promoted")
    assert list(ending(result, ["no alarm"], None, 150.4)) == [
        "The story did not happen, after 150 s:",
        "  - no alarm",
    ]
