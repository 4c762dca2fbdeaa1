"""State that survives a restart."""

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

ADDED = {"name": "three_words", "length": {"field": "text", "unit": "words", "at_most": 3}, "owner": "me"}
SLOW_TICK = {"SLICEWATCH_MONITOR_TICK_SECONDS": 3600}
GAUGES = re.compile(r"slicewatch_slice_(coverage_ratio|accuracy|f1|labelled|known|reference|target|info)")

Record = dict[str, Any]
Counts = dict[str, tuple[int, int, int, int, int]]


class Client:
    """Client that sends comments and labels, and stores the responses."""

    def __init__(self, records: list[Record]) -> None:
        self._rows = enumerate(records)
        self.answers: dict[str, Record] = {}
        self.labels: dict[str, str] = {}
        self.known: dict[str, list[str]] = {}

    def predict(self, running: Any, rows: int) -> None:
        """Send rows, and record the active functions."""
        numbers, records = zip(*(next(self._rows) for _ in range(rows)), strict=True)
        names = [each["name"] for each in running.ask("GET", "/v1/functions").json["functions"]]
        ids = [f"row-{number}" for number in numbers]
        reply = running.ask("POST", "/v1/predict", {"instances": records, "ids": ids})
        assert reply.status == 200
        self.answers.update((each["id"], each) for each in reply.json["predictions"])
        self.known.update((id_, names) for id_ in ids)

    def label(self, running: Any, *, every: int) -> None:
        """Send labels for some of the rows, alternating between the two classes."""
        chosen = [id_ for id_ in self.answers if id_ not in self.labels][::every]
        labels = {id_: ("ham", "spam")[n % 3 == 0] for id_, n in zip(chosen, count(), strict=False)}
        sent = [{"id": id_, "label": label} for id_, label in labels.items()]
        reply = running.ask("POST", "/v1/labels", {"labels": sent})
        assert [each["outcome"] for each in reply.json["labels"]] == ["accepted"] * len(sent)
        self.labels |= labels

    def counts(self) -> Counts:
        """Return the counts of the responses: members, n, unknown, labelled members, and correct members."""
        found: Counts = {}
        for name in {"__all__", *(name for names in self.known.values() for name in names)}:
            of_it = [a for id_, a in self.answers.items() if name == "__all__" or name in self.known[id_]]
            members = [a for a in of_it if name == "__all__" or name in a["slices"]]
            unknown = sum(name in a["unknown_slices"] for a in of_it)
            labelled = [a for a in members if a["id"] in self.labels]
            right = sum(a["label"] == self.labels[a["id"]] for a in labelled)
            found[name] = (len(members), len(of_it) - unknown, unknown, len(labelled), right)
        return found


def shown(running: Any, expected: Counts) -> Counts:
    """Return the same counts as shown by the service; correct rows only where the accuracy is shown."""
    slices = running.slices()
    found: Counts = {}
    for name in expected.keys() & slices.keys():
        each = slices[name]
        accuracy = each["members"]["accuracy"]
        right = accuracy.get("count", expected[name][4])
        members, n = each["coverage"].get("count", 0), each["coverage"]["n"]
        found[name] = (members, n, each["unknown"], each["members"]["labelled"], right)
    return found


def gauges(running: Any) -> dict[str, float]:
    """Return the slice gauges of ``/metrics``."""
    return {name: value for name, value in running.metrics().items() if GAUGES.match(name)}


def test_a_restart_keeps_functions_figures_and_counts(
    up: Callable[..., Any], until: Callable[..., Any], project: Path, records: list[Record]
) -> None:
    """After SIGKILL or SIGTERM: last figures at startup, the added function, and continued counts."""
    client, running = Client(records), up(project)
    client.predict(running, 150)
    client.label(running, every=3)
    assert running.ask("POST", "/v1/functions", ADDED).status == 201
    client.predict(running, 100)
    client.label(running, every=2)
    expected = client.counts()
    until(lambda: shown(running, expected) == expected)
    before = gauges(running)
    assert 'slicewatch_slice_accuracy_ratio{model="comments",slice="__all__",version="1",window="1h"}' in before
    running.kill()

    again = up(project, **SLOW_TICK)
    assert gauges(again) == before
    added = [each for each in again.ask("GET", "/v1/functions").json["functions"] if each["origin"] == "http"]
    assert [each["name"] for each in added] == [ADDED["name"]]
    assert shown(again, expected) == expected
    again.stop()

    last = up(project)
    client.predict(last, 80)
    client.label(last, every=2)
    expected = client.counts()
    assert expected[ADDED["name"]][1] == 180
    until(lambda: shown(last, expected) == expected)
