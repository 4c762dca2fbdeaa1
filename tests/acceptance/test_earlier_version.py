"""Compatibility with a project of release 0.1.0: same responses, and continued operation."""

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from earlier_version import EXPECTED, OPENED, RECORDS, Ask, answers_of, differences, unpack, with_changes


def test_answers_are_those_of_the_earlier_version(up: Callable[..., Any], tmp_path: Path) -> None:
    """Figures, records, functions, models, alarms, runs, audit, gauges, predictions and labels are the same."""
    running = up(unpack(tmp_path), SLICEWATCH_DRIFT_SWING=0)  # as there was none
    found = answers_of(asking(running))
    expected = with_changes(json.loads(lzma.decompress(EXPECTED.read_bytes())))
    assert list(differences(expected, found)) == []
    assert running.stop() == 0


def test_the_project_goes_on(up: Callable[..., Any], until: Callable[..., Any], tmp_path: Path) -> None:
    """Predictions, labels, counts, promotion and rollback work, and survive a restart."""
    folder = unpack(tmp_path, OPENED, 1.0)
    soon = {"SLICEWATCH_MONITOR_TICK_SECONDS": 0.5, "SLICEWATCH_RETRAIN_CHECK_SECONDS": 0.5}
    running = up(folder, **soon)
    until(lambda: "__all__" in running.slices())
    before = figures(running)
    assert before[0] > 0

    ids = [f"next-{n}" for n in range(len(RECORDS))]
    answer = running.ask("POST", "/v1/predict", {"instances": RECORDS, "ids": ids}).json
    assert answer["model"] == {"name": "tickets", "version": 2}
    labels = [{"id": each["id"], "label": each["label"]} for each in answer["predictions"]]
    outcomes = running.ask("POST", "/v1/labels", {"labels": labels}).json["labels"]
    assert {each["outcome"] for each in outcomes} == {"accepted"}
    after = tuple(n + len(RECORDS) for n in before)
    until(lambda: figures(running) == after)

    for path, version in (("/v1/models/3/promote", 3), ("/v1/models/rollback", 2)):
        assert running.ask("POST", path, {"by": "ada"}).status == 200
        until(lambda version=version: answering(running) == version)
    until(lambda: running.ask("GET", "/v1/slices").json["version"] == 2)
    until(lambda: running.ask("GET", "/v1/runs/4").json["state"] == "skipped")  # a promotion ends its alarms
    kept = lasting(running)
    assert running.stop() == 0

    again = up(folder, **soon)
    assert lasting(again) == kept
    assert answering(again) == 2
    again.kill()


def lasting(running: Any) -> list[Any]:
    """Return the persistent state: functions without health, runs, and the audit log."""
    functions = running.ask("GET", "/v1/functions").json["functions"]
    for each in functions:
        del each["health"]
    return [functions, running.ask("GET", "/v1/runs").json, running.ask("GET", "/v1/audit").json]


def figures(running: Any) -> tuple[int, int, int]:
    """Return the numbers of rows, labelled rows and correct labelled rows since the promotion."""
    each = running.slices()["__all__"]
    return each["coverage"]["n"], each["members"]["labelled"], each["members"]["accuracy"]["count"]


def answering(running: Any) -> int:
    """Return the version of a prediction."""
    version: int = running.ask("POST", "/v1/predict", {"instances": RECORDS[:1]}).json["model"]["version"]
    return version


def asking(running: Any) -> Ask:
    """Return a function that sends requests to a running service."""

    def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        reply = running.ask(method, path, body)
        return reply.status, reply.json if reply.body[:1] == b"{" else reply.body.decode()

    return ask


@pytest.mark.parametrize(
    ("expected", "found", "wanted"),
    [
        ({"a": 1.0}, {"a": 1.0000001}, []),
        ({"a": 1}, {"a": 2}, [".a: 2, not 1"]),
        ({"a": 1}, {"b": 1}, [".a: missing", ".b: new"]),
        ({"reason": "one text"}, {"reason": "another text"}, []),
        ({"reason": "word"}, {"reason": "text of words"}, [".reason: 'text of words', not 'word'"]),
        ([1], [1, 2], [": 2 entries, not 1"]),
        (["2026-03-05T11:10:00Z"], ["2026-03-05T11:10:00.000001+00:00"], []),
        (True, 1, [": 1, not True"]),
    ],
)
def test_differences_are_reported(expected: Any, found: Any, wanted: list[str]) -> None:
    """The comparison ignores prose, rounding and microseconds only."""
    assert list(differences(expected, found)) == wanted
