"""Requests per second, layer by layer, from a bare ASGI application to ``slicewatch up``.

    python tests/benchmarks/bench_serving.py --out FILE.json

The server has one core and wrk, with one thread and 16 connections, another. Every rung gets the same body, one
record without an id; the rungs take turns, and each figure is a median. While one is measured the others stand
still. First it is checked that the rungs that do the same work give the same answer. Processor time, unlike the
rate, is hardly changed by what else the machine does.
"""

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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_functions import declarations, request_templates

from models.comments.generate import generate
from service.client import Client, NoResponse, NotRunning
from sfs.declarations import to_declaration

HERE = Path(__file__).parent
SEED = 0
TRAINING_ROWS = 2_000
CONNECTIONS = 16
START_SECONDS = 120
RUNGS = {
    "asgi": "ASGI application with a constant response",
    "endpoint": "bare FastAPI endpoint: reads the body, writes the response, no model",
    "declared": "the same with declared body and response, as in the FastAPI documentation",
    "model": "Slicewatch without functions, log and metrics",
    "functions": "+ 50 functions",
    "log": "+ log, committed before the response",
    "metrics": "+ counters",
    "up": "`slicewatch up`: + request log, monitor, schedule",
}
BEFORE = {
    "endpoint": "asgi",
    "declared": "asgi",
    "model": "endpoint",
    "functions": "model",
    "log": "functions",
    "metrics": "log",
    "up": "metrics",
}
"""Above which rung each one stands."""
BARE, ALONE, WHOLE = "endpoint", "model", "up"
TICK_SECONDS = 10
"""How often the monitor counts; what it takes is part of the whole."""
REACH_RATIO, REACH_COST = 0.35, 0.30
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


@dataclass
class Rung:
    """A server at work, and what was measured of it so far."""

    name: str
    url: str
    process: subprocess.Popen[str]
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of one request
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Return the processor time of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stand_still(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def project(folder: Path) -> Path:
    """Train a slice-aware model of 50 slices on generated comments; return the settings file."""
    frame = generate(TRAINING_ROWS, seed=SEED)
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


def record() -> dict[str, Any]:
    """Return the record that is asked about."""
    (row,) = generate(1, seed=SEED + 1).drop(columns=["id", "label"]).fillna(0).to_dict("records")
    return {str(name): value for name, value in row.items()}


@contextmanager
def running(name: str, settings: Path, core: int) -> Iterator[Rung]:
    """Yield a rung that answers."""
    command = [sys.executable, str(HERE / "serving_stage.py"), name, str(settings)]
    if name == WHOLE:
        command = [sys.executable, "-m", "service", "up", "--port", "0", "--config", str(settings)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=said,
            stderr=said,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            yield Rung(name, _address(process, said), process)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait()


def _address(process: subprocess.Popen[str], said: Any) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        said.seek(0)
        if (found := re.search(r"http://127\.0\.0\.1:\d+", said.read())) and _answers(found[0]):
            return found[0]
        time.sleep(0.2)
    said.seek(0)
    raise SystemExit(f"a server of the benchmark did not start: {said.read()[-2000:]}")


def _answers(url: str) -> bool:
    try:
        with Client(url, timeout_seconds=5) as client:
            client.predict([record()])
    except (NotRunning, NoResponse):
        return False
    return True


def check_answers(rungs: dict[str, Rung]) -> None:
    """Stop if rungs that do the same work do not give the same answer."""
    answers = {}
    for name in ("functions", "log", "metrics", "up"):
        with Client(rungs[name].url) as client:
            answer = client.predict([record()]).predictions[0]
        answers[name] = (answer.label, answer.probabilities, answer.slices, answer.unknown_slices)
    if len({repr(answer) for answer in answers.values()}) != 1:
        raise SystemExit(f"the rungs answer differently: {answers}")


def measure(rung: Rung, core: int, script: Path, seconds: int) -> None:
    """Let wrk ask a rung for so many seconds, the whole service for a tick at least, after one to warm up."""
    rung.go_on()
    seconds = max(seconds, TICK_SECONDS) if rung.name == WHOLE else seconds
    wrk = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", "--latency", "-s", str(script)]
    for duration in (1, seconds):
        before = rung.cpu_seconds()
        done = subprocess.run(
            [*wrk, f"-d{duration}s", f"{rung.url}/v1/predict"], capture_output=True, text=True, check=True
        )
    spent = rung.cpu_seconds() - before
    rung.stand_still()
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{rung.name} did not answer every request: {done.stdout}")
    rung.rates.append(float(_found(r"Requests/sec:\s+([\d.]+)", done.stdout)[0]))
    rung.cpu_us.append(1e6 * spent / int(_found(r"(\d+) requests in", done.stdout)[0]))
    rung.p50_ms.append(_milliseconds(*_found(r"50%\s+([\d.]+)(us|ms|s)", done.stdout)))
    rung.p99_ms.append(_milliseconds(*_found(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)))


def _found(pattern: str, text: str) -> tuple[str, ...]:
    if (found := re.search(pattern, text)) is None:
        raise SystemExit(f"wrk said something else: {text}")
    return found.groups()


def _milliseconds(number: str, unit: str) -> float:
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def result(rung: Rung, before: Rung | None) -> dict[str, Any]:
    """Return a rung's row of results, with the processor time of a request, and what of it the rung adds."""
    spent = statistics.median(rung.cpu_us)
    return {
        "name": rung.name,
        "what": RUNGS[rung.name],
        "requests_per_second": round(statistics.median(rung.rates)),
        "lowest": round(min(rung.rates)),
        "highest": round(max(rung.rates)),
        "p50_ms": round(statistics.median(rung.p50_ms), 2),
        "p99_ms": round(statistics.median(rung.p99_ms), 2),
        "cpu_microseconds": round(spent),
        "added_microseconds": None if before is None else round(spent - statistics.median(before.cpu_us)),
    }


def targets(rungs: dict[str, Rung]) -> list[dict[str, Any]]:
    """Return the figures that are to be reached; each is the median over the turns, compared within a turn."""

    def ratio(name: str, other: str) -> float:
        pairs = zip(rungs[name].rates, rungs[other].rates, strict=True)
        return statistics.median(one / two for one, two in pairs)

    whole, cost = ratio(WHOLE, BARE), 1 - ratio(WHOLE, ALONE)
    return [
        {
            "what": "`slicewatch up` against the bare endpoint",
            "value": round(whole, 3),
            "reach": f">= {REACH_RATIO} x",
            "reached": whole >= REACH_RATIO,
        },
        {
            "what": "share of the throughput spent on functions, log, counters and monitor",
            "value": round(cost, 3),
            "reach": f"<= {REACH_COST}",
            "reached": cost <= REACH_COST,
        },
    ]


def ladder(options: argparse.Namespace, folder: Path) -> dict[str, Rung]:
    """Measure every rung."""
    server_core, wrk_core = sorted(os.sched_getaffinity(0))[:2]
    settings, script = project(folder), folder / "ask.lua"
    script.write_text(LUA % json.dumps({"instances": [record()]}))
    with ExitStack() as stack:
        rungs = {}
        for name in RUNGS:
            rungs[name] = stack.enter_context(running(name, settings, server_core))
        check_answers(rungs)
        for rung in rungs.values():
            rung.stand_still()
        for turn in range(options.rounds):
            for rung in rungs.values():
                measure(rung, wrk_core, script, options.seconds)
            print(f"turn {turn + 1} of {options.rounds}", file=sys.stderr)
    return rungs


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each rung")
    parser.add_argument("--seconds", type=int, default=3, help="of each turn")
    options = parser.parse_args()
    if missing := [tool for tool in ("wrk", "taskset") if shutil.which(tool) is None]:
        parser.error(f"install {' and '.join(missing)} first")
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two cores are needed: one for the server, one for wrk")
    with tempfile.TemporaryDirectory() as folder:
        rungs = ladder(options, Path(folder))
    results = [result(rung, rungs.get(BEFORE.get(name, ""))) for name, rung in rungs.items()]
    figures = targets(rungs)
    for row in results:
        print(
            f"{row['requests_per_second']:>7,} /s  {row['cpu_microseconds']:>5,} us  "
            f"p99 {row['p99_ms']:>7.2f} ms  {row['what']}"
        )
    for row in figures:
        print(f"{row['what']}: {row['value']} ({row['reach']}): {'reached' if row['reached'] else 'MISSED'}")
    document = {"seconds": options.seconds, "rounds": options.rounds, "results": results, "targets": figures}
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(not all(row["reached"] for row in figures))


if __name__ == "__main__":
    sys.exit(main())
