"""Checks of the story: the verdict, the log, and the true coverages."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from service.demo.checks import (
    PATH,
    Ledger,
    LogRow,
    RecordedPrediction,
    SliceTruth,
    StoryResult,
    coverages,
    find_failures,
    rows_to_detect,
    slice_truths,
)
from service.demo.scenario import Goal
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import template

Document = dict[str, Any]
GOAL = Goal("links", at_most_before=0.6, at_least_after=0.85, labelled=300)
LEFT = SliceTruth("links", 1, 0.017, 0.025, {"campaign": 0.08}, left=True, alarmed=True)


@pytest.fixture
def happened(run: Callable[..., Document]) -> StoryResult:
    """Result of a story that happened."""
    return StoryResult(run(state="promoted"), PATH, (LEFT,), before=(50, 100), after=(280, 300))


def test_a_story_that_happened_has_no_failures(happened: StoryResult) -> None:
    """A promotion over all states, true alarms and a higher accuracy are no failure."""
    assert find_failures(happened, GOAL) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": None}, "no retraining was started"),
        ({"states": ("training", "gated", "promoted")}, "was never waiting_for_labels"),
        ({"before": (61, 100)}, "accuracy on links before was 61.0% (61 of 100 labels)"),
        ({"before": (0, 0)}, "unknown (no labels)"),
        ({"after": (290, 299)}, "only 299 of 300 labels"),
        ({"after": (254, 300)}, "accuracy on links after is 84.7% (254 of 300 labels)"),
        ({"log": ["3 acknowledged predictions are missing from the log"]}, "3 acknowledged"),
        ({"calm_alarms": ["markup"]}, "alarms before any change: markup"),
        ({"truths": (replace(LEFT, alarmed=False),)}, "without an alarm"),
        ({"truths": (replace(LEFT, left=False),)}, "inside its band"),
    ],
)
def test_a_deviation_is_a_failure(happened: StoryResult, changes: dict[str, Any], message: str) -> None:
    """Every deviation is one failure."""
    (failure,) = find_failures(replace(happened, **changes), GOAL)
    assert message in failure


@pytest.mark.parametrize("alarmed", [True, False])
def test_an_open_question_is_no_failure(happened: StoryResult, alarmed: bool) -> None:
    """With too few rows, an alarm is neither required nor wrong."""
    open_ = replace(LEFT, left=None, alarmed=alarmed)
    assert find_failures(replace(happened, truths=(open_,)), GOAL) == []


def test_without_a_goal_a_run_may_be_held_unverified(
    happened: StoryResult, run: Callable[..., Document], decision: Document
) -> None:
    """Without a goal, a run may be held as unverified, but not rejected."""
    held = run(state="held", decision=decision)
    assert find_failures(replace(happened, run=held), None) == []
    assert find_failures(replace(happened, run=held), GOAL) != []
    rejected = run(state="rejected", decision={**decision, "outcome": "reject"}, outcome="worse on links")
    assert find_failures(replace(happened, run=rejected), None) == ["run 1 is rejected: worse on links"]
    assert find_failures(replace(happened, run=run(state="held", decision=None)), None) != []


PREDICTION = RecordedPrediction("spam", 1, ("links",))


@pytest.fixture
def ledger() -> Ledger:
    """Ledger of three predictions and two labels, one of them corrected."""
    found = Ledger()
    for id_ in ("a", "b", "c"):
        found.predictions[id_] = PREDICTION
    found.add_label("a", "ham", "accepted")
    found.add_label("a", "spam", "corrected")
    found.add_label("b", "ham", "pending")
    return found


LOG = [LogRow("a", "spam", 1, "spam"), LogRow("b", "spam", 1, "ham"), LogRow("c", "spam", 1, None)]


def test_a_log_that_agrees_has_no_differences(ledger: Ledger) -> None:
    """A log with every prediction once and its last label has no differences."""
    assert ledger.differences(LOG) == []


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ([*LOG, LOG[2]], "1 predictions are in the log more than once"),
        (LOG[:2], "1 acknowledged predictions are missing from the log"),
        ([*LOG[:2], LogRow("c", "spam", 2, None)], "1 predictions differ between the log and the response"),
        ([*LOG, LogRow("d", "ham", 1, None)], "1 predictions in the log were never acknowledged"),
        ([LOG[0], LogRow("b", "spam", 1, None), LOG[2]], "1 acknowledged labels do not count"),
        (
            [LogRow("a", "spam", 1, "ham"), *LOG[1:]],
            "1 predictions have a label other than the last one sent",
        ),
    ],
)
def test_every_difference_is_reported(ledger: Ledger, log: list[LogRow], message: str) -> None:
    """Lost, repeated and changed rows are counted."""
    assert ledger.differences(log) == [message]


def test_a_rejected_label_is_a_difference(ledger: Ledger) -> None:
    """A rejected label is a difference."""
    ledger.add_label("c", "ham", "rejected")
    assert ledger.differences(LOG) == ["1 labels were rejected"]


def test_accuracy_is_of_a_slice_a_version_and_some_rows(ledger: Ledger) -> None:
    """Accuracy is over labelled rows of the slice that the version predicted."""
    ledger.predictions["d"] = RecordedPrediction("ham", 1, ())
    ledger.predictions["e"] = RecordedPrediction("ham", 2, ("links",))
    for id_ in ("d", "e"):
        ledger.add_label(id_, "ham", "accepted")
    assert ledger.accuracy("links", 1, ["a", "b", "c", "d", "e"]) == (1, 2)
    assert ledger.accuracy("links", 1, ["b"]) == (0, 1)
    assert ledger.accuracy("links", 2, ["a", "e", "gone"]) == (1, 1)


BAND = {"lower": 0.017, "upper": 0.025, "threshold": 18.5}
PHASES = {
    "calm": {"links": Rate(200, 10_000), "markup": Rate(20, 1_000)},
    "campaign": {"links": Rate(800, 10_000), "markup": Rate(20, 1_000)},
    "nearly": {"links": Rate(251, 10_000), "markup": Rate(0, 0)},
}


def _left(served: dict[tuple[int, str], int], alarms: list[Document]) -> dict[tuple[int, str], tuple[Any, bool]]:
    bands = {1: {"links": BAND, "markup": BAND}, 2: {"links": {**BAND, "upper": 0.1}}}
    return {
        (each.version, each.slice): (each.left, each.alarmed) for each in slice_truths(bands, served, PHASES, alarms)
    }


def test_a_slice_leaves_where_a_phase_lies_outside(alarm: Callable[..., Document]) -> None:
    """A slice has left its band if the version served enough rows of a phase outside it."""
    found = _left({(1, "calm"): 9_000, (1, "campaign"): 9_000, (2, "campaign"): 9_000}, [alarm(1, "links")])
    assert found == {(1, "links"): (True, True), (1, "markup"): (False, False), (2, "links"): (False, False)}


def test_a_version_answers_for_the_phases_it_saw(alarm: Callable[..., Document]) -> None:
    """Rows of another version and alarms of another kind do not count."""
    found = _left({(1, "calm"): 9_000, (2, "campaign"): 9_000}, [alarm(1, "links", kind="accuracy")])
    assert found[1, "links"] == (False, False)


def test_too_few_rows_leave_it_open(alarm: Callable[..., Document]) -> None:
    """Too few rows leave it open; rows of several phases add up."""
    needed = rows_to_detect(0.08, BAND)
    assert _left({(1, "campaign"): int(3 * needed)}, [])[1, "links"] == (None, False)
    assert _left({(1, "campaign"): int(3 * needed), (1, "calm"): 9_000}, [])[1, "links"] == (None, False)
    assert _left({(1, "campaign"): int(4 * needed) + 1}, [])[1, "links"] == (True, False)
    assert _left({(1, "nearly"): 9_000}, [alarm(1, "links")])[1, "links"] == (None, True)


def test_the_rows_to_detect_equal_the_information_bound() -> None:
    """The number of rows equals the information bound, computed literally."""
    for coverage, edge in ((0.08, 0.025), (0.001, 0.017), (0.0, 0.017)):
        brought = (1 - coverage) * math.log((1 - coverage) / (1 - edge))
        brought += coverage * math.log(coverage / edge) if coverage else 0.0
        assert rows_to_detect(coverage, BAND) == pytest.approx(18.5 / brought)
    assert rows_to_detect(0.02, BAND) == math.inf


def test_coverages_do_not_see_the_label() -> None:
    """Coverages are measured without the label."""
    functions = FunctionSet([template("spam", keyword={"field": "text", "words": ["buy"]})])
    rows = pd.DataFrame({"text": ["buy", "hi", "hi", "buy"], "label": ["ham", "ham", "spam", "spam"]})
    assert dict(coverages(functions, rows, "label")) == {"spam": Rate(2, 4)}
