"""Stand-ins for the service: a process that only answers /readyz, a client without a server, and documents."""

import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from service.client import LabelItem, LabelResponse, PredictionResponse, Predictions
from service.demo.scenario import Labelling, Learning, Phase, Scenario
from service.demo.service_process import ServiceProcess, free_port

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


class Printed(list[str]):
    """Lines of output."""

    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def printed() -> Printed:
    """Collects lines of output."""
    return Printed()


@pytest.fixture
def service_process(tmp_path: Path, printed: Printed) -> Iterator[Callable[..., ServiceProcess]]:
    """Makes a service process: one that is ready, or one with the given code."""
    made: list[ServiceProcess] = []

    def make(code: str = FAKE, **options: Any) -> ServiceProcess:
        program = tmp_path / "fake.py"
        program.write_text(textwrap.dedent(code))
        command = [sys.executable, str(program), str(tmp_path / "starts")]
        made.append(ServiceProcess(command, tmp_path / "log", free_port(), printed, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def kill() -> Callable[[ServiceProcess], None]:
    """Kills a service process with SIGKILL, and returns once it is dead."""

    def kill_and_wait(service: ServiceProcess) -> None:
        pid = service.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    return kill_and_wait


@pytest.fixture
def starts(tmp_path: Path) -> Callable[[], int]:
    """Returns how often the fake service was started."""
    return lambda: len((tmp_path / "starts").read_text())


@pytest.fixture
def at() -> datetime:
    """A time."""
    return datetime(2026, 5, 1, 12, 40, tzinfo=UTC)


@pytest.fixture
def alarm() -> Callable[..., Document]:
    """Makes the document of an alarm."""

    def make(id_: int = 1, slice_: str = "links", **changes: Any) -> Document:
        document = {
            "id": id_,
            "slice": slice_,
            "kind": "coverage",
            "version": 1,
            "evidence": 19.2,
            "threshold": 18.5,
            "at": "2026-05-01T12:40:00Z",
            "sentence": f"coverage of {slice_} is 8.1% since 12:40 UTC, expected 1.7% to 2.5%",
            "resolved_at": None,
            "resolution": "",
        }
        return document | changes

    return make


@pytest.fixture
def run() -> Callable[..., Document]:
    """Makes the document of a retraining run."""

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
    """The document of a gate decision."""
    rate = {"value": 0.5, "count": 10, "n": 20}
    links = {"slice": "links", "protected": True, "n": 20, "champion": rate, "candidate": rate}
    limits = {"difference": 0.0, "lower": -0.1, "upper": 0.1, "outcome": "not_verified"}
    return {"outcome": "hold", "slices": [links | limits]}


class StubClient:
    """Answers like the service, and records the calls in order."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.now = now
        self.version = 1
        self.documents: Document = {"alarms": [], "runs": [], "slices": []}

    def predict(self, records: list[Document], ids: list[str]) -> Predictions:
        self.calls += [("predict", id_) for id_ in ids]
        self.records = records
        answers = [PredictionResponse(id_, "ham", None, ("links",), (), self.version, False) for id_ in ids]
        return Predictions("comments", self.version, tuple(answers))

    def label(self, items: list[LabelItem]) -> list[LabelResponse]:
        self.calls += [("label", each["id"]) for each in items]
        predicted = {id_ for kind, id_ in self.calls if kind == "predict"}
        return [LabelResponse(each["id"], "accepted" if each["id"] in predicted else "pending") for each in items]

    def slices(self, window: str) -> Document:
        at = self.now().isoformat()
        return {"version": self.version, "at": at, "slices": self.documents["slices"]}

    def alarms(self, state: str) -> Document:
        return {"alarms": self.documents["alarms"]}

    def runs(self) -> Document:
        return {"runs": self.documents["runs"]}

    def run(self, id_: int) -> Document:
        (found,) = [each for each in self.documents["runs"] if each["id"] == id_]
        return dict(found)

    def retrain(self, reason: str, by: str) -> None:
        self.calls.append(("retrain", by))


class StubRetryingClient:
    """Calls the stub, which always answers."""

    def __init__(self, client: StubClient) -> None:
        self.client = client

    def call(self, request: Callable[[StubClient], Any]) -> Any:
        return request(self.client)

    call_if_available = call


class Clock:
    """Clock that only a sleep advances; the service's runs 60 times as fast."""

    def __init__(self, start: datetime) -> None:
        self.start, self.seconds = start, 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=60 * self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def client(clock: Clock) -> StubClient:
    """Client without a server, whose snapshots are always new."""
    return StubClient(clock.now)


@pytest.fixture
def retrying_client(client: StubClient) -> StubRetryingClient:
    """Retrying client over the stub."""
    return StubRetryingClient(client)


@pytest.fixture
def clock(at: datetime) -> Clock:
    """Injected clock."""
    return Clock(at)


@pytest.fixture
def scenario() -> Scenario:
    """Scenario of 120 rows in two phases, all labelled."""
    rows = pd.DataFrame(
        {"text": ["hi", None] * 600, "likes": [1.0, float("nan")] * 600, "label": ["ham", "spam"] * 600}
    )
    return Scenario(
        title="a test",
        phases=(Phase("calm", "as ever", 0), Phase("campaign", "more links", 70)),
        rows_a_second=50.0,
        goal=None,
        length=120,
        learning=Learning({"text": "text"}, "erm", 1, 64, 0, 5),
        labelling=Labelling(share=1.0, first_minutes=0.5, last_minutes=2, early=0.2, twice=0.2, corrected=0.2),
        base=lambda: rows,
        rows=lambda start, n: rows.iloc[[k % len(rows) for k in range(start, start + n)]],
        sample=lambda phase: rows,
        step_rows=200,
    )
