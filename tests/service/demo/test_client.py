"""Client of the demo: calls over restarts, and events between two polls."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from service.client import Client, ClientError, NotRunning
from service.demo.client import RetryingClient, ServiceState, events_between, read_slices
from service.demo.service_process import ServiceProcess

Make = Callable[..., ServiceProcess]
Document = dict[str, Any]


def _kinds(before: ServiceState, now: ServiceState) -> list[tuple[str, Any]]:
    return [(each.kind, each.document.get("id")) for each in events_between(before, now)]


def test_an_alarm_is_one_event(alarm: Callable[..., Document]) -> None:
    """An alarm is reported when it is raised, and when it is resolved."""
    one, two = ServiceState(alarms={1: alarm(1)}), ServiceState(alarms={1: alarm(1), 2: alarm(2)})
    over = ServiceState(alarms={1: alarm(1, resolved_at="2026-05-01T13:00:00Z"), 2: alarm(2)})
    assert _kinds(ServiceState(), two) == [("alarm", 1), ("alarm", 2)]
    assert _kinds(one, two) == [("alarm", 2)]
    assert _kinds(two, over) == [("resolved", 1)]
    assert _kinds(over, over) == []


def test_every_move_of_a_run_is_an_event(run: Callable[..., Document], decision: Document) -> None:
    """A run is reported when it opens, when its state or attempt changes, and when the gate decides."""
    polls = [
        ServiceState(),
        ServiceState(runs={1: run()}),
        ServiceState(runs={1: run(outcome="waiting for labels")}),
        ServiceState(runs={1: run(state="training")}),
        ServiceState(runs={1: run(state="training", attempts=1)}),
        ServiceState(runs={1: run(state="gated", attempts=1, decision=decision)}),
        ServiceState(runs={1: run(state="held", attempts=1, decision=decision)}),
    ]
    kinds = [[kind for kind, _ in _kinds(a, b)] for a, b in pairwise(polls)]
    assert kinds == [["opened"], [], ["run"], ["run"], ["gate", "run"], ["run"]]


def test_nothing_between_two_polls_is_lost(run: Callable[..., Document], decision: Document) -> None:
    """A run that came to its end between two polls is reported with its opening and the gate's decision."""
    ended = ServiceState(version=2, runs={1: run(state="promoted", decision=decision)})
    assert [kind for kind, _ in _kinds(ServiceState(version=1), ended)] == [
        "opened",
        "gate",
        "run",
        "version",
    ]


def test_slices_have_bands_and_accuracies() -> None:
    """A slice that is not monitored has no band; one with too few labels has no correct rows."""
    expected = {"value": 0.02, "lower": 0.017, "upper": 0.025}
    links = {
        "name": "links",
        "drift": {"coverage": {"expected": expected, "threshold": 18.5}},
        "members": {"labelled": 40, "accuracy": {"value": 0.5, "count": 20, "n": 40}},
    }
    rare = {
        "name": "rare",
        "drift": None,
        "members": {"labelled": 3, "accuracy": {"n": 3, "needed": 20, "reason": "too few"}},
    }
    bands, accuracy = read_slices({"version": 3, "slices": [links, rare]})
    assert bands == {"links": {**expected, "threshold": 18.5}}
    assert accuracy == {"links": (20, 40), "rare": (0, 3)}


def test_a_call_outlives_a_kill(service_process: Make, kill: Callable, starts: Callable[[], int]) -> None:
    """A call during a restart is answered after it."""
    service = service_process()
    service.start()
    client = RetryingClient(service)
    kill(service)
    answers = []

    def request(client: Client) -> bool:
        if not answers:
            answers.append("asked")
            raise NotRunning("nothing listens")
        return client.ready().ready

    assert client.call(request)
    assert starts() == 2
    client.close()


def test_busy_responses_are_retried(service_process: Make) -> None:
    """A busy response is retried; an error is not."""
    waits: list[float] = []
    client = RetryingClient(service_process(), sleep=waits.append)
    answers = [ClientError(429, "busy"), ClientError(503, "busy"), ClientError(422, "wrong")]

    def request(client: Client) -> bool:
        raise answers.pop(0)

    with pytest.raises(ClientError, match="422"):
        client.call(request)
    assert len(waits) == 2


def test_an_unavailable_result_is_none(service_process: Make) -> None:
    """Before the first snapshot a result is None at once; other errors are raised."""
    client = RetryingClient(service_process())
    answers = [ClientError(503, "no snapshot"), ClientError(404, "nothing"), ClientError(409, "wrong")]

    def request(client: Client) -> bool:
        raise answers.pop(0)

    assert client.call_if_available(request) is None
    assert client.call_if_available(request) is None
    with pytest.raises(ClientError, match="409"):
        client.call_if_available(request)
