"""Servers that are measured, each a process pinned to its cores, and wrk, which asks them."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bench_functions import declarations, request_templates

from models.comments.generate import generate
from sfs.declarations import to_declaration

SEED = 0
TRAINING_ROWS = 2_000
CONNECTIONS = 16
START_SECONDS, STOP_SECONDS = 120, 60
SETTINGS = """\
name: comments
data: comments.csv
label: label
features: {text: text, likes: number, video: category}
functions: slices.yaml
learner: {kind: slice_residual, epochs: 3, hidden: [32]}
"""
LUA = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[%s]==]
"""
SERVICE = (sys.executable, "-m", "service", "up", "--port", "0", "--config")
"""Command of the whole service; its last argument is the settings file."""


class Call(NamedTuple):
    """A request that a server is asked again and again, the rows in it, and the connections that ask."""

    path: str
    body: Any
    rows: int = 1
    connections: int = CONNECTIONS

    def answer(self, url: str) -> Any:
        """Return the body of one response; SystemExit unless its status is 200."""
        status, body = post(url, self)
        if status != 200:
            raise SystemExit(f"{url}{self.path} answered {status}: {body[:1000]!r}")
        return json.loads(body)


@dataclass
class Server:
    """A server at work, and what was measured of it so far, a figure per turn."""

    name: str
    url: str
    process: subprocess.Popen[str]
    rates: list[float] = field(default_factory=list)  # requests per second
    cpu_us: list[float] = field(default_factory=list)  # of one request
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Return the processor time so far of the process and of those that it started."""
        return sum(_cpu_seconds(pid) for pid in family(self.process.pid))

    def stand_still(self) -> None:
        """Stop it, and the processes that it started, until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Terminate it; kill the processes that it started and left."""
        pids = family(self.process.pid)
        self.go_on()
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in family(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def figures(self) -> dict[str, Any]:
        """Return the medians over the turns, with the lowest and the highest rate."""
        return {
            "requests_per_second": round(statistics.median(self.rates)),
            "lowest": round(min(self.rates)),
            "highest": round(max(self.rates)),
            "p50_ms": round(statistics.median(self.p50_ms), 2),
            "p99_ms": round(statistics.median(self.p99_ms), 2),
            "cpu_microseconds": round(statistics.median(self.cpu_us)),
        }


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    pids = [pid]
    for each in pids:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):  # it has ended meanwhile
                pids += map(int, children.read_text().split())
    return pids


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of those that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # it has ended, and is part of the process that waited for it
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def project(folder: Path, rows: int = TRAINING_ROWS) -> Path:
    """Train a slice-aware model of 50 slices on generated comments; return the settings file."""
    frame = generate(rows, seed=SEED)
    frame.to_csv(folder / "comments.csv", index=False)
    templates = request_templates(declarations(frame, 50))
    document = {"slices": [to_declaration(each) for each in templates]}
    (folder / "slices.yaml").write_text(json.dumps(document))
    file = folder / "slicewatch.yaml"
    file.write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-m", "service", "train", "--config", file], stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise SystemExit("the model of the benchmark could not be trained")
    return file


def sibling(settings: Path, name: str, text: str) -> Path:
    """Return a settings file of the same project with other text, and with a store of its own."""
    file = settings.with_name(f"{name}.yaml")
    file.write_text(f"{text}store: {name}.sqlite3\n")
    return file


def records(n: int = 1) -> list[dict[str, Any]]:
    """Return the records that are asked about, none of them in the training data."""
    rows = generate(n, seed=SEED + 1).drop(columns=["id", "label"]).fillna(0).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def prediction() -> Call:
    """Return the request for one record without an id."""
    return Call("/v1/predict", {"instances": records()})


@contextmanager
def running(
    name: str, command: Sequence[str], call: Call, cores: Sequence[int], env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Yield a server that answers, pinned to cores; it ends with the block, and with it what it started.

    Its address is the one that it prints, or the last argument of the command.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), *command],
            stdout=said,
            stderr=said,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )
        server = Server(name, "", process)
        try:
            server.url = _address(server, call, said)
            yield server
        finally:
            server.end()


def _address(server: Server, call: Call, said: Any) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        said.seek(0)
        text = f"{said.read()}\n{server.process.args[-1]}"  # type: ignore[index]
        for url in re.findall(r"http://127\.0\.0\.1:\d+", text):
            if _answers(url, call):
                return str(url)
        time.sleep(0.2)
    said.seek(0)
    raise SystemExit(f"{server.name} of the benchmark did not start: {said.read()[-2000:]}")


def _answers(url: str, call: Call) -> bool:
    try:
        return post(url, call)[0] == 200
    except (OSError, HTTPException):
        return False


def post(url: str, call: Call) -> tuple[int, bytes]:
    """Return status and body of one response."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("POST", call.path, json.dumps(call.body), {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def measure(server: Server, call: Call, core: int, seconds: int) -> None:
    """Let wrk ask a server for a number of seconds, after one to warm up; then it stands still.

    Where nothing at all was answered, as on a busy machine, it is asked for longer.
    """
    server.go_on()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA % json.dumps(call.body))
        script.flush()
        wrk = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{call.connections}", "--latency", "--timeout", "30s"]
        answered = 0
        for duration in (1, seconds, 4 * seconds, 16 * seconds):
            before = server.cpu_seconds()
            done = subprocess.run(
                [*wrk, "-s", script.name, f"-d{duration}s", f"{server.url}{call.path}"],
                capture_output=True,
                text=True,
                check=True,
            )
            warm, answered = answered, int(_found(r"(\d+) requests in", done.stdout)[0])
            if warm and answered:
                break
        else:
            raise SystemExit(f"{server.name} answered no request in {duration} s")
    spent = server.cpu_seconds() - before
    server.stand_still()
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{server.name} did not answer every request: {done.stdout}")
    server.rates.append(float(_found(r"Requests/sec:\s+([\d.]+)", done.stdout)[0]))
    server.cpu_us.append(1e6 * spent / answered)
    server.p50_ms.append(_milliseconds(*_found(r"50%\s+([\d.]+)(us|ms|s)", done.stdout)))
    server.p99_ms.append(_milliseconds(*_found(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)))


def _found(pattern: str, text: str) -> tuple[str, ...]:
    if (found := re.search(pattern, text)) is None:
        raise SystemExit(f"wrk said something else: {text}")
    return found.groups()


def _milliseconds(number: str, unit: str) -> float:
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def ratio(figures: Sequence[float], others: Sequence[float]) -> float:
    """Return the median over the turns of one figure against another of the same turn."""
    return statistics.median(one / other for one, other in zip(figures, others, strict=True))


def at_least(what: str, value: float, bound: float, unit: str = "x") -> dict[str, Any]:
    """Return a figure that is to be reached."""
    return {"what": what, "value": shown(value, unit), "reach": f">= {bound:,} {unit}", "reached": value >= bound}


def at_most(what: str, value: float, bound: float, unit: str = "x") -> dict[str, Any]:
    """Return a figure that is not to be exceeded."""
    return {"what": what, "value": shown(value, unit), "reach": f"<= {bound:,} {unit}", "reached": value <= bound}


def shown(value: float, unit: str) -> str:
    """Return a figure with its unit, to three digits or a whole number."""
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


class Benchmark:
    """Command line, cores and results of a benchmark of servers; two cores are needed, and wrk.

    Parameters
    ----------
    description
        The help text.
    rounds, seconds
        Turns of each measurement by default, and the seconds of one.
    """

    def __init__(self, description: str | None, rounds: int = 5, seconds: int = 3) -> None:
        self.parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
        self.parser.add_argument("--rounds", type=int, default=rounds, help="turns of each")
        self.parser.add_argument("--seconds", type=int, default=seconds, help="of each turn")
        self.parser.add_argument("--quick", action="store_true", help="one turn of a second: does it all run?")

    def options(self) -> argparse.Namespace:
        """Return the options, with ``server_core`` and ``client_core``, and the rows of ``project``."""
        options = self.parser.parse_args()
        if missing := [tool for tool in ("wrk", "taskset") if shutil.which(tool) is None]:
            self.parser.error(f"install {' and '.join(missing)} first")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            self.parser.error("two cores are needed: one for the server, one for the client")
        options.server_core, options.client_core = cores[:2]
        options.training_rows = TRAINING_ROWS
        if options.quick:
            options.rounds, options.seconds, options.training_rows = 1, 1, 400
        return options

    def finish(self, options: argparse.Namespace, results: Any, targets: list[dict[str, Any]], **more: Any) -> int:
        """Print the targets and write everything; return 1 when one is missed."""
        for row in targets:
            print(f"{row['what']}: {row['value']} ({row['reach']}): {'reached' if row['reached'] else 'MISSED'}")
        document = {
            "seconds": options.seconds,
            "rounds": options.rounds,
            "results": results,
            "targets": targets,
            **more,
        }
        options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return int(not all(row["reached"] for row in targets))


def turns(rounds: int) -> Iterator[int]:
    """Yield the number of each turn, and say when it is over."""
    for turn in range(rounds):
        yield turn
        print(f"turn {turn + 1} of {rounds}", file=sys.stderr)


def same(answers: Mapping[str, Any], equal: Callable[[Any, Any], bool]) -> None:
    """Stop if servers that do the same work do not give the same answer."""
    first, *others = answers.values()
    if not all(equal(first, other) for other in others):
        raise SystemExit(f"the servers answer differently: {dict(answers)}")
