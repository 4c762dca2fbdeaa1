"""Soak: honest clients beside promotions, changes of templates and the attacks of strangers.

    PYTHONPATH=tests python -m chaos.soak --minutes 15 --out FILE.json

Starts ``slicewatch up`` on a project of its own. Every answer to an honest client is compared with the right one;
attackers may be refused. At the end the service is stopped, and the store is compared with the answers. Ends with 1,
and names the violations, if an honest request failed, an answer was wrong, something acknowledged is not in the store
once, a process was left, the log is longer than its requests explain, or memory grew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from chaos import project
from chaos.attacks import ATTACKS, Attacker
from chaos.clients import Caller, Extras, Findings, Operator
from sqlalchemy import func, select

from service.monitor.block_counts import unpack_bitmaps
from service.serving.prediction_factory import names_of
from service.store import queries
from service.store.engine import Store
from service.store.tables import label_events, predictions

CALLERS = 3
"""Honest clients: with the batches of two attackers their rows fit into the queue of the service."""
KINDS = ("small", "batch", "labels", "read back", "page", "promotion", "template")
"""Requests of honest clients, of each of which one has to be answered."""
MARK = "SOAK_RUN"
"""Variable of the environment by which every process of a run is found."""
MIB = 2**20
START_SECONDS, STOP_SECONDS = 300.0, 300.0


@dataclass(frozen=True)
class Patience:
    """How long a request may take: to the service, to honest clients and to attackers, in seconds."""

    service: int
    honest: float
    attackers: float


USUAL, SLOW_MACHINE = Patience(10, 60.0, 5.0), Patience(120, 300.0, 30.0)
CYCLE_SECONDS = 180.0
SAMPLE_SECONDS = 5.0
MEMORY_MINUTES = 5.0
"""Shorter runs do not judge memory."""
MAX_GROWTH, MAX_GROWTH_BYTES = 0.05, 10 * MIB
LOG_BYTES, LOG_BYTES_PER_REQUEST = MIB, 600
"""Bound of the log: a line of 300 bytes a request, and warnings."""


@dataclass
class Service:
    """The service as a process, and its log."""

    folder: Path
    patience: Patience
    process: subprocess.Popen[bytes] = field(init=False)
    port: int = field(init=False)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        command = [
            sys.executable,
            "-m",
            "service",
            "up",
            "--port",
            "0",
            "--config",
            str(self.folder / "slicewatch.yaml"),
        ]
        seconds = {"SLICEWATCH_SERVE_REQUEST_SECONDS": str(self.patience.service)}
        seconds["SLICEWATCH_SERVE_DRAIN_SECONDS"] = str(2 * self.patience.service)  # as by default
        environ = project.environ(**seconds, **{MARK: self.mark})
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL, env=environ)
        self._wait(lambda: re.search(r"console and API at http://127\.0\.0\.1:(\d+)", self.log.read_text("utf-8")))
        address = re.search(r"console and API at http://127\.0\.0\.1:(\d+)", self.log.read_text("utf-8"))
        assert address is not None
        self.port = int(address[1])
        self._wait(lambda: self.get("/v1/slices?window=1h")[0] == 200)  # the first snapshot

    @property
    def log(self) -> Path:
        """The log."""
        return self.folder / "up.log"

    def _wait(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + START_SECONDS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise SystemExit(f"the service did not start:\n{self.log.read_text('utf-8')[-5000:]}")
            time.sleep(0.1)

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of an answer; status 0 without one."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=self.patience.honest)
        with closing(connection), suppress(OSError, HTTPException):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        return 0, b""

    def left(self) -> list[int]:
        """Return every running process that this run has started."""
        entry, found = f"{MARK}={self.mark}".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if entry in path.read_bytes().split(b"\0") and _is_running(int(path.parent.name)):
                    found.append(int(path.parent.name))
        return found

    def stop(self) -> int | None:
        """Send SIGTERM, and return the exit code; None if it had to be killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return None


def _is_running(pid: int) -> bool:
    return _fields(pid)[0] not in "ZX"


def _fields(pid: int) -> list[str]:
    """Return the fields of a process from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@dataclass
class Memory:
    """Resident memory of the service and of its processes for functions in bytes, and its CPU time, sampled."""

    pid: int
    seconds: float
    times: list[float] = field(default_factory=list)
    serving: list[int] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, until: threading.Event) -> None:
        """Sample until the end."""
        while not until.wait(self.seconds):
            with suppress(OSError, StopIteration):
                functions = [pid for pid, is_function in _descendants(self.pid) if is_function]
                sizes = [_resident(pid) for pid in functions]
                self.serving.append(_resident(self.pid))
                self.functions.append(sum(sizes))
                self.processes.append(len(sizes))
                self.times.append(time.monotonic())
                self.cpu.append(sum(map(float, _fields(self.pid)[11:13])) / os.sysconf("SC_CLK_TCK"))

    def growth(self, sizes: Sequence[int]) -> tuple[float, float]:
        """Return by how many bytes a straight line through the last two thirds of the samples rises, and its start."""
        first = len(sizes) // 3
        times, values = np.array(self.times[first:]), np.array(sizes[first:], float)
        slope, start = np.polyfit(times - times[0], values, 1)
        return float(slope * (times[-1] - times[0])), float(start)


def _descendants(pid: int, is_function: bool = False) -> Iterator[tuple[int, bool]]:
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, tasks.read_text().split()):
                below = is_function or b"service.serving.keeper" in Path(f"/proc/{child}/cmdline").read_bytes()
                yield child, below
                yield from _descendants(child, below)


def _resident(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError, StopIteration):
        status = Path(f"/proc/{pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
    return 0


class Stages:
    """Which attacks run when: in half of every cycle each alone, then all at once."""

    def __init__(self, seconds: float) -> None:
        cycle = min(CYCLE_SECONDS, seconds)
        self._alone, self._cycle, self._began = cycle / 2 / len(ATTACKS), cycle, time.monotonic()

    def is_on(self, attack: int) -> bool:
        """Return whether an attack runs now."""
        now = (time.monotonic() - self._began) % self._cycle
        return now > self._cycle / 2 or int(now / self._alone) == attack


def run_attacks(attacker: Attacker, number: int, stages: Stages, until: threading.Event) -> None:
    """Attack again and again while it is the turn of this attack."""
    while not until.wait(0.02):
        if stages.is_on(number):
            attacker.run(ATTACKS[number])


def soak(service: Service, truth: project.Truth, seconds: float, findings: Findings) -> tuple[Memory, list[Attacker]]:
    """Let everything run for a while, and then end it, the attackers last."""
    calm, over = threading.Event(), threading.Event()
    patience = service.patience
    memory = Memory(service.process.pid, min(SAMPLE_SECONDS, seconds / 20))
    extras, stages = Extras(truth), Stages(seconds)
    names = [f"client{k}" for k in range(CALLERS)]
    callers = [Caller(name, service.port, findings, patience.honest, truth=truth, extras=extras) for name in names]
    pause = min(2.0, seconds / 20)
    operator = Operator("operator", service.port, findings, patience.honest, extras=extras, pause=pause)
    attackers = [Attacker(service.port, truth.records, k, patience.attackers) for k in range(len(ATTACKS))]
    honest = [threading.Thread(target=each.run, args=[calm]) for each in (*callers, operator)]
    others = [threading.Thread(target=memory.run, args=[over])]
    for number, attacker in enumerate(attackers):
        others.append(threading.Thread(target=run_attacks, args=[attacker, number, stages, over]))
    for thread in (*honest, *others):
        thread.start()
    end = time.monotonic() + seconds
    last = end + START_SECONDS  # a slow machine is given time for a request of every kind
    while service.process.poll() is None and (now := time.monotonic()) < last:
        if now >= end and all(findings.requests[kind] for kind in KINDS):
            break
        time.sleep(0.2)
    for threads, event in ((honest, calm), (others, over)):
        event.set()
        for thread in threads:
            thread.join()
    return memory, attackers


def store_problems(folder: Path, findings: Findings) -> list[str]:
    """Compare the store with the answers, and return the differences."""
    wrong: Counter[str] = Counter()
    p, path = predictions.c, folder / ".slicewatch/store.sqlite3"
    with closing(sqlite3.connect(path)) as plain:
        if (check := plain.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
            wrong[f"integrity_check: {check}"] += 1
    with Store(path) as store, store.read() as connection:
        names = {each.hash: each.names for each in queries.all_function_sets(connection)}

        @cache
        def slices_of(bitmap: bytes, set_hash: str) -> frozenset[str]:
            found = names[set_hash]
            return frozenset(names_of(unpack_bitmaps([bitmap], len(found)), found)[0])

        logged: Counter[str] = Counter()
        query = select(p.id, p.version, p.label, p.member, p.unknown, p.set_hash)
        for id_, version, label, member, unknown, set_hash in connection.execute(query):
            if (known := findings.predictions.get(id_)) is not None:
                logged[id_] += 1
                found = version, label, slices_of(member, set_hash), slices_of(unknown, set_hash)
                wrong["predictions in the store that differ"] += found != (
                    known.version,
                    known.label,
                    known.slices,
                    known.unknown,
                )
        wrong["acknowledged predictions that are not in the store"] = len(findings.predictions.keys() - logged.keys())
        wrong["predictions that are in the store twice"] = sum(n > 1 for n in logged.values())
        labels = queries.labels(connection, project.NAME, findings.labels)
        wrong["acknowledged labels that do not count"] = sum(
            labels.get(id_) != label for id_, label in findings.labels.items()
        )
        events = connection.scalar(
            select(func.count()).select_from(label_events).where(label_events.c.prediction_id.like("client%"))
        )
        wrong["label events too many or too few"] = abs((events or 0) - findings.label_events)
    return [f"{n} {what}" for what, n in wrong.items() if n]


def violations(
    service: Service, code: int | None, left: Sequence[int], findings: Findings, memory: Memory, minutes: float
) -> list[str]:
    """Return everything that must not be."""
    out = [f"{n} {kind} requests of honest clients failed" for kind, n in findings.failed.items()]
    out += [f"{n} wrong statements: {kind}" for kind, n in findings.wrong.items()]
    for kind in KINDS:
        if not findings.requests[kind]:
            out.append(f"no {kind} request was answered: the run proves nothing about them")
    if code != 0:
        out.append(f"exit code {code} after SIGTERM")
    if left:
        out.append(f"{len(left)} processes were left")
    lines = [json.loads(line) for line in service.log.read_text("utf-8").splitlines() if line.startswith("{")]
    if [line["rows_lost"] for line in lines if line["message"] == "stopped"] != [0]:
        out.append("the log does not end with 0 lost rows")
    errors = Counter(line["message"] for line in lines if line["level"] in ("ERROR", "CRITICAL"))
    out += [f"{n} errors in the log: {message[:300]}" for message, n in errors.items()]
    requests, size = sum(line["message"] == "request" for line in lines), service.log.stat().st_size
    if size > LOG_BYTES + LOG_BYTES_PER_REQUEST * requests:
        out.append(f"the log of {requests} requests has {size} bytes")
    out += store_problems(service.folder, findings)
    if minutes >= MEMORY_MINUTES:
        for name, sizes in (("the service", memory.serving), ("the functions", memory.functions)):
            grown, start = memory.growth(sizes)
            if grown > max(MAX_GROWTH * start, MAX_GROWTH_BYTES):
                out.append(f"memory of {name} grew by {grown / MIB:.0f} MiB from {start / MIB:.0f} MiB")
    return out


def figures(service: Service, findings: Findings, memory: Memory, attackers: Sequence[Attacker]) -> dict[str, Any]:
    """Return the figures of a run."""
    times = sorted(findings.seconds) or [0.0]

    def of_thirds(sizes: Sequence[int]) -> dict[str, float]:
        n = max(1, len(sizes) // 10)
        third = len(sizes) // 3
        parts = {"start": sizes[:n], "after_a_third": sizes[third : third + n], "end": sizes[-n:]}
        return {name: round(statistics.median(part or [0]) / MIB, 1) for name, part in parts.items()} | {
            "most": round(max(sizes, default=0) / MIB, 1),
            "rise_of_the_last_two_thirds": round(memory.growth(sizes)[0] / MIB, 1),
        }

    store = service.folder / ".slicewatch/store.sqlite3"
    return {
        "requests": dict(findings.requests),
        "failed": sum(findings.failed.values()),
        "wrong": sum(findings.wrong.values()),
        "reconnected": findings.reconnected,
        "predictions": len(findings.predictions),
        "labels": findings.label_events,
        "memberships": findings.memberships,
        "unknown": dict(findings.unknown),
        "small_request_ms": {
            "p50": round(1000 * times[len(times) // 2], 1),
            "p99": round(1000 * times[int(len(times) * 0.99)], 1),
            "max": round(1000 * times[-1], 1),
        },
        "memory_mib": {"service": of_thirds(memory.serving), "functions": of_thirds(memory.functions)},
        "processes_of_functions": {"start": memory.processes[0], "end": memory.processes[-1]},
        "cpu_share": round((memory.cpu[-1] - memory.cpu[0]) / (memory.times[-1] - memory.times[0]), 2),
        "store_mib": round(store.stat().st_size / MIB, 1),
        "log_kib": round(service.log.stat().st_size / 1024, 1),
        "attacks": {name: dict(counts) for attacker in attackers for name, counts in attacker.outcomes.items()},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak, print and write its figures, and return 1 after a violation."""
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="length of the traffic (default: 15)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the project in this new folder, and keep it")
    parser.add_argument("--slow-machine", action="store_true", help="give requests two minutes, not ten seconds")
    args = parser.parse_args(argv)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary) / "project"
        project.make(folder)
        truth, findings = project.Truth.of(folder), Findings()
        service = Service(folder, SLOW_MACHINE if args.slow_machine else USUAL)
        try:
            memory, attackers = soak(service, truth, 60 * args.minutes, findings)
            code = service.stop()
        finally:
            left = service.left()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            service.process.wait()
        found = violations(service, code, left, findings, memory, args.minutes)
        result = figures(service, findings, memory, attackers) | {"violations": found, "examples": findings.examples}
    result = {"minutes": args.minutes} | result
    text = json.dumps(result, indent=1)
    if args.out is not None:
        args.out.write_text(text + "\n", "utf-8")
    print(text)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
