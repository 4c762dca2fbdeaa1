"""One performance, on a clock that stands unless somebody waits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.demo.play import Clocks, Play, states
from service.demo.script import Goal, Script
from service.demo.traffic import Traffic

Document = dict[str, Any]


@pytest.fixture
def play(script: Script, delivery: Any, clock: Any, said: list[str]) -> Callable[..., Play]:
    """Makes the performance of a script."""

    def make(goal: Goal | None = None) -> Play:
        played = replace(script, goal=goal, length=None if goal else script.length)
        traffic = Traffic(played, 3, delivery, clock.now)
        clocks = Clocks(clock.now, lambda: clock.seconds, clock.sleep)
        return Play(played, traffic, delivery, clocks, said)

    return make


def test_all_is_sent_at_its_speed_and_counted(
    play: Callable[..., Play], client: Any, clock: Any, run: Callable[..., Document]
) -> None:
    """120 rows at 50 a second take two seconds and more; each is counted under its phase and version."""
    client.documents["runs"] = [run(state="promoted")]
    performance = play()
    assert performance.until_told(60.0)
    assert performance.served == {(1, "calm"): 70, (1, "campaign"): 50}
    assert len([kind for kind, _ in client.calls if kind == "predict"]) == 120
    assert clock.seconds >= 2.4


def test_the_change_has_its_time(play: Callable[..., Play], client: Any, clock: Any, said: list[str]) -> None:
    """The first change is noted when its phase begins, and both phases are told."""
    performance = play()
    performance.until_told(3.0)
    assert performance.changed_at is not None
    assert clock.start < performance.changed_at < clock.now()
    assert [line[7:] for line in said if "TRAFFIC" in line] == [
        "TRAFFIC, calm: as ever.",
        "TRAFFIC, campaign: more links.",
    ]


def test_a_story_that_does_not_end_is_given_up(play: Callable[..., Play], client: Any, clock: Any) -> None:
    """Without a retraining there is no end; the limit is one."""
    assert not play(Goal("links", 0.6, 0.85, 300)).until_told(0.5)
    assert clock.seconds < 1.5


def test_training_is_asked_for_once(
    play: Callable[..., Play], client: Any, run: Callable[..., Document]
) -> None:
    """Where all labels have come and nothing was trained, a person would ask for it."""
    client.documents["runs"] = [run(state="skipped", outcome="benign")]
    assert not play().until_told(20.0)
    assert [call for call in client.calls if call[0] == "retrain"] == [("retrain", "demo")]


def test_with_a_goal_the_labels_after_the_promotion_are_waited_for(
    play: Callable[..., Play], client: Any, run: Callable[..., Document]
) -> None:
    """The story is over when the promoted version has its labels, and not before."""
    client.version = 2
    client.documents["runs"] = [run(state="promoted", candidate=2)]
    client.documents["slices"] = [_slice("links", 299)]
    assert not play(Goal("links", 0.6, 0.85, 300)).until_told(1.2)
    client.documents["slices"] = [_slice("links", 300)]
    assert play(Goal("links", 0.6, 0.85, 300)).until_told(60.0)


def test_zones_are_those_of_their_version(play: Callable[..., Play], client: Any, clock: Any) -> None:
    """What is shown while one version takes over from another is kept for neither."""
    performance = play(Goal("links", 0.6, 0.85, 300))
    for version, upper in ((1, 0.2), (1, 0.2), (1, 0.9), (2, 0.9), (2, 0.3), (2, 0.3)):
        client.version, client.documents["slices"] = version, [_slice("links", 5, upper)]
        performance.until_told(clock.seconds + 0.5)
    assert {version: zones["links"]["upper"] for version, zones in performance.zones.items()} == {
        1: 0.2,
        2: 0.3,
    }


def test_states_are_read_from_the_audit(delivery: Any, client: Any) -> None:
    """A run's states are those of the audit, page by page, oldest first."""
    pages = {
        None: ([("run.gated", "run 1", {}), ("run.opened", "run 2", {"state": "training"})], 7),
        7: ([("run.training", "run 1", {}), ("run.opened", "run 1", {"state": "waiting_for_labels"})], None),
    }

    def audit(before: int | None) -> Document:
        entries, following = pages[before]
        names = ("action", "subject", "detail")
        return {"entries": [dict(zip(names, each, strict=True)) for each in entries], "next": following}

    client.audit = audit
    assert states(delivery, 1) == ["waiting_for_labels", "training", "gated"]


def _slice(name: str, labelled: int, upper: float = 0.2) -> Document:
    return {
        "name": name,
        "drift": {"coverage": {"expected": {"lower": 0.1, "upper": upper}, "threshold": 18.5}},
        "members": {"labelled": labelled, "accuracy": {"count": labelled, "n": labelled}},
        "metadata": {"protected": False},
    }
