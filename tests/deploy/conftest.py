"""Real Prometheus and Alertmanager on test targets, and the dashboard's queries as Grafana sends them."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeVar

import httpx
import pytest
import yaml
from factories import PATIENT

T = TypeVar("T")
Series = list[dict[str, object]]
PATIENCE_SECONDS = 300.0
ALL = ".+"


class Prometheus:
    """Running Prometheus server."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._began = time.time()

    def ask(self, path: str, **asked: object) -> object:
        """Return the data of a response; raise on an invalid query."""
        answer = self._client.get(f"/api/v1/{path}", params=asked).json()
        assert answer["status"] == "success", f"{asked}: {answer['error']}"
        return answer["data"]

    def query(self, expr: str) -> Series:
        """Return the current value of an expression."""
        return self.ask("query", query=expr)["result"]

    def values(self, expr: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the current values of an expression by these labels, which must be unique."""
        rows = self.query(expr)
        found = {tuple(row["metric"].get(name, "") for name in labels): float(row["value"][1]) for row in rows}
        assert len(found) == len(rows), f"{expr}: several series for one {labels}"
        return found

    def over_time(self, expr: str) -> Series:
        """Return the values of an expression for every second since the server started."""
        end = time.time()
        start = end - int(end - self._began)
        return self.ask("query_range", query=expr, start=start, end=end, step=1)["result"]


def until(look: Callable[[], T], what: str) -> T:
    """Poll until the result is truthy, and return it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"no {what} in {PATIENCE_SECONDS:.0f} s"
        Event().wait(0.1)
    return found


@pytest.fixture(scope="session")
def settled() -> Callable[[Callable[[], T], str], T]:
    """Poll with a deadline."""
    return until


@pytest.fixture(scope="session")
def deploy(root: Path) -> Path:
    """Folder of the deployment files."""
    return root / "deploy"


@pytest.fixture(scope="session")
def prometheus(
    deploy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[Prometheus]]:
    """Run a server with the shipped configuration, rules and alerts on the given scrape ports until the block ends."""

    def start(*ports: int, told: int | None = None) -> AbstractContextManager[Prometheus]:
        folder = tmp_path_factory.mktemp("prometheus")
        quick(deploy / "prometheus", folder, ports, told)
        return running(folder)

    return start


def quick(source: Path, folder: Path, ports: tuple[int, ...], told: int | None) -> None:
    """Write the shipped files with test targets, and with intervals of seconds.

    With an Alertmanager, alerts are pending for seconds, too.
    """
    config = yaml.safe_load((source / "prometheus.yml").read_text())
    config["alerting"]["alertmanagers"][0]["static_configs"] = [
        {"targets": [] if told is None else [f"127.0.0.1:{told}"]}
    ]
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    for name in config["rule_files"]:
        rules = yaml.safe_load((source / name).read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            if told is not None and "for" in rule:
                rule["for"] = "3s"
        groups = [{key: value for key, value in group.items() if key != "interval"} for group in rules["groups"]]
        (folder / name).write_text(yaml.safe_dump({"groups": groups}))


@contextmanager
def running(folder: Path) -> Iterator[Prometheus]:
    """Run a server on a free port until the block ends."""
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--rules.alert.resend-delay=2s",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    with listening(command, folder) as client:
        yield Prometheus(client)


@contextmanager
def listening(command: list[str], folder: Path) -> Iterator[httpx.Client]:
    """Run a program of the Prometheus project on a free port until the block ends; yield a client."""
    port = any_port()
    log = folder / "log"
    command = [*command, f"--web.listen-address=127.0.0.1:{port}"]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=folder, stdout=output, stderr=output) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client,
    ):

        def ready() -> bool:
            assert process.poll() is None, f"{command[0]} ended: {log.read_text()}"
            try:
                return client.get("/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(ready, command[0])
            yield client
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def alertmanager(
    deploy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], AbstractContextManager[httpx.Client]]:
    """Run an Alertmanager with the shipped configuration that notifies a URL within seconds, until the block ends."""

    def start(url: str) -> AbstractContextManager[httpx.Client]:
        folder = tmp_path_factory.mktemp("alertmanager")
        config = yaml.safe_load((deploy / "alertmanager" / "alertmanager.yml").read_text())
        config["route"] |= {"group_wait": "1s", "group_interval": "2s"}
        for route in config["route"]["routes"]:
            route["group_wait"] = "5s"
        config["receivers"][0]["webhook_configs"][0]["url"] = url
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
        command = [
            "prometheus-alertmanager",
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]
        return listening(command, folder)

    return start


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[httpx.Client]]:
    """Run ``slicewatch up`` on a project, with some settings, until the block ends; yield a client."""
    return up


@contextmanager
def up(folder: Path, **settings: str) -> Iterator[httpx.Client]:
    log = folder / "log"
    command = [os.environ["SLICEWATCH_TEST_PYTHON"], "-m", "service", "up", "--port", "0"]
    command += ["--config", str(folder / "slicewatch.yaml")]
    environ = {**os.environ, **PATIENT, **settings}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environ) as process,
    ):

        def address() -> str:
            assert process.poll() is None, log.read_text()
            said = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
            return said[0] if said else ""

        try:
            with httpx.Client(base_url=until(address, "address"), timeout=150) as client:
                until(lambda: client.get("/readyz").status_code == 200, "readiness")
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0, log.read_text()


@dataclass(frozen=True, slots=True)
class Receiver:
    """Webhook receiver and its notifications."""

    url: str
    received: list[dict[str, object]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Webhook receiver that stores all notifications."""
    received: list[dict[str, object]] = []
    with PageServer(("127.0.0.1", 0), hook(received)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield Receiver(f"http://127.0.0.1:{server.server_address[1]}/", received)
        server.shutdown()
        thread.join()


def hook(received: list[dict[str, object]]) -> type[BaseHTTPRequestHandler]:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Hook


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Find a free port."""
    return any_port


def any_port() -> int:
    """Return a port that is free on every address, and that the system gives to no client meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)  # Linux gives clients ports from 32,768 on
        with socket.socket() as bound, suppress(OSError):
            bound.bind(("", port))
            return port


@pytest.fixture(scope="session")
def page_server() -> Callable[[Callable[[], bytes]], AbstractContextManager[int]]:
    """Serve a metrics page, rendered at every scrape, until the block ends; yield the port."""
    return serve_page


@contextmanager
def serve_page(page: Callable[[], bytes]) -> Iterator[int]:
    with PageServer(("127.0.0.1", 0), handler(page)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


class PageServer(ThreadingHTTPServer):
    """HTTP server that does not print aborted scrapes into the output of other tests."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def handler(page: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = page()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Page


@dataclass(frozen=True, slots=True)
class Query:
    """Query of the dashboard."""

    panel: str
    column: str
    expr: str
    instant: bool

    def filled(self, **chosen: str) -> str:
        """Return the expression as Grafana sends it; raise on an unknown variable."""
        times = {"__rate_interval": "5s", "__range": "1m"}
        known: Mapping[str, str] = {
            **dict.fromkeys(("job", "instance", "version", "slice"), ALL),
            **times,
            **chosen,
        }
        return re.sub(r"\$(\w+)", lambda found: known[found[1]], self.expr)


@pytest.fixture(scope="session")
def dashboard(deploy: Path) -> dict[str, object]:
    """Committed dashboard."""
    return json.loads((deploy / "grafana" / "dashboards" / "slices.json").read_text())


@pytest.fixture(scope="session")
def queries(dashboard: Mapping[str, object]) -> list[Query]:
    """All queries of the dashboard's panels and annotations."""
    asked = [
        Query(panel["title"], name_of(panel, target), target["expr"], target["instant"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    marks = dashboard["annotations"]["list"]
    return [*asked, *(Query("annotation", mark["name"], mark["expr"], False) for mark in marks)]


def name_of(panel: Mapping[str, object], target: Mapping[str, object]) -> str:
    """Return the name of the result in its panel: a column, or a legend."""
    if panel["type"] != "table":
        return target["legendFormat"]
    renamed = panel["transformations"][-1]["options"]["renameByName"]
    return renamed.get(f"Value #{target['refId']}", "facts")


class Refused(Exception):
    """Error of Helm about the values of a chart."""


class HelmChart:
    """The shipped chart, rendered by Helm as the release slicewatch in the namespace shop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rendered(self, **values: object) -> dict[str, Any]:
        """Return the files by path, and the messages of the linter; raise on values that Helm refuses."""
        script = Path(__file__).with_name("render_chart.py")
        command = [sys.executable, str(script), str(self.folder)]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(done.stderr)
        return json.loads(done.stdout)

    def objects(self, **values: object) -> list[dict[str, Any]]:
        """Return all objects; raise on values that Helm refuses."""
        files = self.rendered(**values)["files"]
        texts = [text for path, text in files.items() if path.endswith(".yaml")]
        return [found for text in texts for found in yaml.safe_load_all(text) if found]

    def object(self, kind: str, **values: object) -> dict[str, Any]:
        """Return the only object of a kind."""
        (found,) = (each for each in self.objects(**values) if each["kind"] == kind)
        return found


@pytest.fixture(scope="session")
def helm_chart(deploy: Path) -> HelmChart:
    """The shipped chart."""
    return HelmChart(deploy / "helm" / "slicewatch")


@pytest.fixture(scope="session")
def refused() -> type[Refused]:
    """Error of Helm about the values of a chart."""
    return Refused
