"""Fixtures of the acceptance tests: ``slicewatch up`` as a separate process, on a project trained once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from factories import PATIENT
from fork_server import Forked, ForkServer

from service.__main__ import main, utc_now

ROWS = 600
START_SECONDS = 300.0
COMMAND = Path(sys.executable).with_name("slicewatch")
ADDRESS = re.compile(r"console and API at http://(?:127\.0\.0\.1|0\.0\.0\.0):(\d+)")

Record = dict[str, Any]

SETTINGS = """\
name: comments
data: comments.csv
label: label
features: {text: text, video: category, likes: number}
functions: [slices.py, slices.yaml]
learner: {kind: erm, epochs: 1, hidden: [8]}
monitor: {tick_seconds: 0.5, minimum_labels: 5}
"""


def until(what: Callable[[], Any], seconds: float = 300.0) -> Any:
    """Poll until the result is truthy, more rarely the longer it takes, and return it; fail at the deadline."""
    began = time.monotonic()
    while not (answer := what()):
        waited = time.monotonic() - began
        assert waited < seconds, f"still {answer!r} after {seconds:g} s"
        time.sleep(min(0.02 + waited / 50, 0.2))
    return answer


@dataclass(frozen=True)
class Reply:
    """HTTP response with its complete body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """HTTP client on one keep-alive connection; not thread-safe."""

    def __init__(self, port: int, timeout: float = 150.0) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.opened = 0  # connections

    def __call__(self, method: str, path: str, sent: Any = None) -> Reply:
        body = None if sent is None else json.dumps(sent)
        headers = {} if body is None else {"content-type": "application/json"}
        self.opened += self._connection.sock is None
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())

    def close(self) -> None:
        self._connection.close()


@dataclass
class Running:
    """Running service: process, port and log."""

    process: Forked
    log: Path
    said_before: int
    port: int = field(init=False)

    def __post_init__(self) -> None:
        self.port = int(until(self._address, START_SECONDS).group(1))
        until(self._answers, START_SECONDS)

    def _address(self) -> re.Match[str] | None:
        found = ADDRESS.search(self.said())
        assert found or self.process.poll() is None, self.said()
        return found

    def _answers(self) -> bool:
        with suppress(ConnectionRefusedError):
            return self.ask("GET", "/healthz").status == 200
        return False

    def said(self) -> str:
        """Return the standard error output so far."""
        return self.log.read_bytes()[self.said_before :].decode(errors="replace")

    def lines(self, text: str = "") -> list[Record]:
        """Return the whole log entries that contain a text; the log is JSON because stderr is not a terminal."""
        whole, _, _unfinished = self.said().rpartition("\n")
        return [json.loads(line) for line in whole.split("\n") if line.startswith("{") and text in line]

    def ask(self, method: str, path: str, sent: Any = None) -> Reply:
        """Send one request on a new connection."""
        caller = Caller(self.port)
        try:
            return caller(method, path, sent)
        finally:
            caller.close()

    def slices(self, window: str = "since_promotion") -> dict[str, Any]:
        """Return the figures of every slice by name; empty before the first snapshot."""
        reply = self.ask("GET", f"/v1/slices?window={window}")
        return {each["name"]: each for each in reply.json["slices"]} if reply.status == 200 else {}

    def metrics(self) -> dict[str, float]:
        """Return the value of every series of ``/metrics``."""
        text = self.ask("GET", "/metrics").body.decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, value in pairs}

    def descendants(self) -> set[int]:
        """Return the process ids of all descendants."""
        return set(_descendants(self.process.pid))

    def kill(self) -> None:
        """Send SIGKILL, and wait until all descendants have exited."""
        others = self.descendants()
        self.process.kill()
        self.process.wait()
        until(lambda: not any(map(_lives, others)))

    def stop(self, seconds: float = 300.0) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def _descendants(pid: int) -> Iterator[int]:
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, tasks.read_text().split()):
                yield child
                yield from _descendants(child)


def _lives(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


Up = Callable[..., Running]
Fails = Callable[..., tuple[int, str]]


def variables(**settings: object) -> dict[str, str]:
    """Return the environment of this process with the given settings only."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWATCH_")}
    return mine | PATIENT | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in settings.items()}


def start(forks: ForkServer, folder: Path, *options: str, **settings: object) -> Running:
    """Start the service of a project on a free port."""
    log = folder / "up.log"
    log.touch()
    said_before = log.stat().st_size
    command = [str(COMMAND), "up", "--port", "0", "--config", str(folder / "slicewatch.yaml"), *options]
    process = forks.start(command, log, variables(**settings))
    try:
        return Running(process, log, said_before)
    except BaseException:
        process.kill()
        process.wait()
        raise


def ended(running: Running) -> None:
    """Kill a service if it is still running."""
    if running.process.poll() is None:
        running.kill()


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Process whose forks are the services: it has imported their libraries."""
    server = ForkServer(tmp_path_factory.mktemp("exits"))
    yield server
    server.close()


@pytest.fixture
def up(forks: ForkServer) -> Iterator[Up]:
    """Function that starts a service; services are killed after the test."""
    started: list[Running] = []

    def up(folder: Path, *options: str, **settings: object) -> Running:
        started.append(start(forks, folder, *options, **settings))
        return started[-1]

    yield up
    for running in started:
        ended(running)


@pytest.fixture
def refused_up() -> Fails:
    """Function that runs ``slicewatch up`` until it exits, and returns exit code and standard error."""

    def run(folder: Path, *options: str) -> tuple[int, str]:
        command = [COMMAND, "up", "--config", folder / "slicewatch.yaml", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, env=variables())
        return done.returncode, done.stderr

    return run


@pytest.fixture(scope="session", name="until")
def until_() -> Callable[..., Any]:
    """Function that polls with a deadline."""
    return until


@pytest.fixture(scope="session")
def caller() -> type[Caller]:
    """Class of HTTP clients."""
    return Caller


@pytest.fixture
def command() -> Callable[..., int]:
    """Function that runs another command on a project, and returns its exit code."""
    return run_command


def run_command(folder: Path, *argv: object, **settings: object) -> int:
    environ = {name: str(value) for name, value in settings.items()}
    with redirect_stdout(StringIO()):
        words = [*map(str, argv), "--config", str(folder / "slicewatch.yaml")]
        return main(words, now=utc_now, environ=environ)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only project of ``slicewatch init``, with fewer rows."""
    folder = tmp_path_factory.mktemp("comments")
    with redirect_stdout(StringIO()):
        assert main(["init", str(folder)], now=utc_now, environ={}) == 0
    table = folder / "comments.csv"
    table.write_text("".join(table.read_text().splitlines(True)[: ROWS + 1]))
    (folder / "slicewatch.yaml").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="session")
def trained(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only project, trained once."""
    folder = shutil.copytree(untrained, tmp_path_factory.mktemp("trained") / "comments")
    assert run_command(folder, "train") == 0
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """Copy of the trained project."""
    return shutil.copytree(trained, tmp_path / "comments")


@pytest.fixture(scope="session")
def records(untrained: Path) -> list[Record]:
    """Comments in the form of a client's records."""
    table = pd.read_csv(untrained / "comments.csv", usecols=["text", "video", "likes"])
    found: list[Record] = json.loads(table.to_json(orient="records"))
    return found


@pytest.fixture(scope="module")
def start_shared(forks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Function that starts a module-wide service on a prepared copy of a project, with some settings."""
    started: list[Running] = []

    def shared(project: Path, prepare: Callable[[Path], object], **settings: object) -> Running:
        folder = shutil.copytree(project, tmp_path_factory.mktemp("shared") / "comments")
        prepare(folder)
        started.append(start(forks, folder, **settings))
        return started[-1]

    yield shared
    for service in started:
        ended(service)


@pytest.fixture(scope="session")
def running(forks: ForkServer, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Service shared by all tests that leave its state unchanged."""
    service = start(forks, shutil.copytree(trained, tmp_path_factory.mktemp("running") / "comments"))
    yield service
    ended(service)
