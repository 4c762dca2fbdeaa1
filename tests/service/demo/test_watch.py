"""What the service shows, and what is new of it."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from service.demo.watch import Seen, news, read_slices

Document = dict[str, Any]


def _kinds(before: Seen, now: Seen) -> list[tuple[str, Any]]:
    return [(each.kind, each.document.get("id")) for each in news(before, now)]


def test_a_new_alarm_is_news_once(alarm: Callable[..., Document]) -> None:
    """An alarm is told when it comes, and when it is over."""
    one, two = Seen(alarms={1: alarm(1)}), Seen(alarms={1: alarm(1), 2: alarm(2)})
    over = Seen(alarms={1: alarm(1, resolved_at="2026-05-01T13:00:00Z"), 2: alarm(2)})
    assert _kinds(Seen(), two) == [("alarm", 1), ("alarm", 2)]
    assert _kinds(one, two) == [("alarm", 2)]
    assert _kinds(two, over) == [("resolved", 1)]
    assert _kinds(over, over) == []


def test_every_move_of_a_run_is_news(run: Callable[..., Document], decision: Document) -> None:
    """A run is told when it is opened, when its state or attempt changes, and when the gate has spoken."""
    looks = [
        Seen(),
        Seen(runs={1: run()}),
        Seen(runs={1: run(outcome="waiting for labels")}),
        Seen(runs={1: run(state="training")}),
        Seen(runs={1: run(state="training", attempts=1)}),
        Seen(runs={1: run(state="gated", attempts=1, decision=decision)}),
        Seen(runs={1: run(state="held", attempts=1, decision=decision)}),
    ]
    told = [[kind for kind, _ in _kinds(a, b)] for a, b in pairwise(looks)]
    assert told == [["opened"], [], ["run"], ["run"], ["gate", "run"], ["run"]]


def test_what_happened_between_two_looks_is_not_left_out(
    run: Callable[..., Document], decision: Document
) -> None:
    """A run that came to its end between two looks is told with its opening and what the gate said."""
    ended = Seen(version=2, runs={1: run(state="promoted", decision=decision)})
    assert [kind for kind, _ in _kinds(Seen(version=1), ended)] == ["opened", "gate", "run", "version"]


def test_slices_tell_zones_accuracy_and_protection() -> None:
    """A slice that is not watched has no zone, one with too few labels counts none as right."""
    expected = {"value": 0.02, "lower": 0.017, "upper": 0.025}
    links = {
        "name": "links",
        "drift": {"coverage": {"expected": expected, "threshold": 18.5}},
        "members": {"labelled": 40, "accuracy": {"value": 0.5, "count": 20, "n": 40}},
        "metadata": {"protected": True},
    }
    rare = {
        "name": "rare",
        "drift": None,
        "members": {"labelled": 3, "accuracy": {"n": 3, "needed": 20, "reason": "too few"}},
        "metadata": {"protected": False},
    }
    seen = read_slices({"version": 3, "slices": [links, rare]})
    assert (seen.version, seen.protected) == (3, ("links",))
    assert dict(seen.zones) == {"links": {**expected, "threshold": 18.5}}
    assert dict(seen.accuracy) == {"links": (20, 40), "rare": (0, 3)}
