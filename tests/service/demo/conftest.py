"""A service that is none: it listens, says that it is ready, and counts; and what such a one would tell."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from service.client.answers import LabelAnswer, LabelItem, PredictionAnswer, Predictions
from service.demo.script import Labelling, Learning, Phase, Script
from service.demo.supervise import Supervised, free_port

Document = dict[str, Any]

FAKE = """\
import http.server, json, pathlib, sys

starts = pathlib.Path(sys.argv[1])
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"ready": true}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

http.server.HTTPServer(("127.0.0.1", int(sys.argv[3])), Handler).serve_forever()
"""


class Said(list[str]):
    """The lines that were told."""

    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def said() -> Said:
    """Takes lines."""
    return Said()


@pytest.fixture
def supervised(tmp_path: Path, said: Said) -> Iterator[Callable[..., Supervised]]:
    """Makes a supervised process: one that answers, or one of the given code."""
    made: list[Supervised] = []

    def make(code: str = FAKE) -> Supervised:
        script = tmp_path / "fake.py"
        script.write_text(textwrap.dedent(code))
        command = [sys.executable, str(script), str(tmp_path / "starts")]
        made.append(Supervised(command, tmp_path / "log", free_port(), said))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def starts(tmp_path: Path) -> Callable[[], int]:
    """Returns how often the fake service was started."""
    return lambda: len((tmp_path / "starts").read_text())


@pytest.fixture
def at() -> datetime:
    """Returns a moment."""
    return datetime(2026, 5, 1, 12, 40, tzinfo=UTC)


@pytest.fixture
def alarm() -> Callable[..., Document]:
    """Makes an alarm as the service tells it."""

    def make(id_: int = 1, slice_: str = "links", **changes: Any) -> Document:
        document = {
            "id": id_,
            "slice": slice_,
            "kind": "coverage",
            "version": 1,
            "evidence": 19.2,
            "threshold": 18.5,
            "at": "2026-05-01T12:40:00Z",
            "sentence": f"{slice_} holds 8.1 % of rows since 12:40 UTC, expected 1.7 to 2.5 %",
            "resolved_at": None,
            "resolution": "",
        }
        return document | changes

    return make


@pytest.fixture
def run() -> Callable[..., Document]:
    """Makes a retraining as the service tells it."""

    def make(id_: int = 1, state: str = "waiting_for_labels", **changes: Any) -> Document:
        document = {
            "id": id_,
            "state": state,
            "trigger": "coverage",
            "reason": "links moved",
            "outcome": "",
            "attempts": 0,
            "champion": None,
            "candidate": None,
            "decision": None,
            "data": None,
            "updated_at": f"2026-05-01T12:40:00Z {state}",
        }
        return document | changes

    return make


@pytest.fixture
def decision() -> Document:
    """Returns what the gate said, slice by slice."""
    rate = {"value": 0.5, "count": 10, "n": 20}
    links = {"slice": "links", "protected": True, "n": 20, "champion": rate, "candidate": rate}
    limits = {"difference": 0.0, "lower": -0.1, "upper": 0.1, "outcome": "not_verified"}
    return {"outcome": "hold", "slices": [links | limits]}


class StubClient:
    """Answers as the service would, and keeps what it was asked, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.version = 1
        self.documents: Document = {"alarms": [], "runs": [], "slices": []}

    def predict(self, records: list[Document], ids: list[str]) -> Predictions:
        self.calls += [("predict", id_) for id_ in ids]
        self.records = records
        answers = [PredictionAnswer(id_, "ham", None, ("links",), (), self.version, False) for id_ in ids]
        return Predictions("comments", self.version, tuple(answers))

    def label(self, items: list[LabelItem]) -> list[LabelAnswer]:
        self.calls += [("label", each["id"]) for each in items]
        predicted = {id_ for kind, id_ in self.calls if kind == "predict"}
        return [
            LabelAnswer(each["id"], "accepted" if each["id"] in predicted else "pending") for each in items
        ]

    def slices(self, window: str) -> Document:
        return {"version": self.version, "slices": self.documents["slices"]}

    def alarms(self, state: str) -> Document:
        return {"alarms": self.documents["alarms"]}

    def runs(self) -> Document:
        return {"runs": self.documents["runs"]}

    def run(self, id_: int) -> Document:
        (found,) = [each for each in self.documents["runs"] if each["id"] == id_]
        return dict(found)

    def retrain(self, reason: str, by: str) -> None:
        self.calls.append(("retrain", by))


class StubDelivery:
    """Delivers at once."""

    def __init__(self, client: StubClient) -> None:
        self.client = client

    def ask(self, call: Callable[[StubClient], Any]) -> Any:
        return call(self.client)

    look = ask


class Clock:
    """Time that passes when somebody waits, on a clock 60 times as fast."""

    def __init__(self, start: datetime) -> None:
        self.start, self.seconds = start, 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=60 * self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def client() -> StubClient:
    """Returns a service that is none."""
    return StubClient()


@pytest.fixture
def delivery(client: StubClient) -> StubDelivery:
    """Returns what speaks to it."""
    return StubDelivery(client)


@pytest.fixture
def clock(at: datetime) -> Clock:
    """Returns the time."""
    return Clock(at)


@pytest.fixture
def script() -> Script:
    """Returns a script of 120 rows (more are there), two phases, and labels for all."""
    rows = pd.DataFrame(
        {"text": ["hi", None] * 600, "likes": [1.0, float("nan")] * 600, "label": ["ham", "spam"] * 600}
    )
    return Script(
        title="a test",
        phases=(Phase("calm", "as ever", 0), Phase("campaign", "more links", 70)),
        rows_a_second=50.0,
        goal=None,
        length=120,
        learning=Learning({"text": "text"}, "erm", 1, 0, 5),
        labelling=Labelling(
            share=1.0, first_minutes=0.5, last_minutes=2, early=0.2, twice=0.2, corrected=0.2
        ),
        base=lambda: rows,
        rows=lambda start, n: rows.iloc[start : start + n],
        sample=lambda phase: rows,
    )
