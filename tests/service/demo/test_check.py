"""Whether the story happened."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.demo.check import PATH, Result, failures
from service.demo.script import Goal
from service.demo.truth import Standing

GOAL = Goal("links", at_most_before=0.6, at_least_after=0.85, labelled=300)
LEFT = Standing("links", 1, 0.017, 0.025, {"campaign": 0.08}, left=True, alarmed=True)
Document = dict[str, Any]


@pytest.fixture
def happened(run: Callable[..., Document]) -> Result:
    """A story as it should be."""
    return Result(run(state="promoted"), PATH, (LEFT,), before=(50, 100), after=(280, 300))


def test_a_story_that_happened_has_no_failures(happened: Result) -> None:
    """Promoted on the whole path, alarms as the truth, accuracy up: nothing is wrong."""
    assert failures(happened, GOAL) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"run": None}, "no retraining was begun"),
        ({"states": ("training", "gated", "promoted")}, "was never waiting_for_labels"),
        ({"before": (61, 100)}, "before, accuracy on links was 61.0 % (61 of 100)"),
        ({"before": (0, 0)}, "not known (0 of 0)"),
        ({"after": (290, 299)}, "only 299 of 300 labels"),
        ({"after": (254, 300)}, "after, accuracy on links is 84.7 % (254 of 300)"),
        ({"log": ["3 acknowledged predictions are not in the log"]}, "3 acknowledged"),
        ({"calm_alarms": ["markup"]}, "alarms while nothing had changed: markup"),
        ({"standings": (replace(LEFT, alarmed=False),)}, "no alarm was raised"),
        ({"standings": (replace(LEFT, left=False),)}, "had not left its zone"),
    ],
)
def test_what_did_not_happen_is_said(happened: Result, changes: dict[str, Any], says: str) -> None:
    """Each thing that is not as it should be is one failure."""
    (failure,) = failures(replace(happened, **changes), GOAL)
    assert says in failure


@pytest.mark.parametrize("alarmed", [True, False])
def test_what_cannot_be_told_is_no_failure(happened: Result, alarmed: bool) -> None:
    """Of a slice of which too few rows came, an alarm is neither demanded nor wrong."""
    open_ = replace(LEFT, left=None, alarmed=alarmed)
    assert failures(replace(happened, standings=(open_,)), GOAL) == []


def test_without_a_goal_a_run_may_be_held_unverified(
    happened: Result, run: Callable[..., Document], decision: Document
) -> None:
    """Real comments may be too few for the gate; to be shown worse is another thing."""
    held = run(state="held", decision=decision)
    assert failures(replace(happened, run=held), None) == []
    assert failures(replace(happened, run=held), GOAL) != []
    rejected = run(state="rejected", decision={**decision, "outcome": "reject"}, outcome="worse on links")
    assert failures(replace(happened, run=rejected), None) == ["run 1 is rejected: worse on links"]
    assert failures(replace(happened, run=run(state="held", decision=None)), None) != []
