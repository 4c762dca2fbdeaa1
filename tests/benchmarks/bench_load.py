"""Latency at half and 70 % of the capacity, and the answers at twice the capacity, with requests on a schedule.

    python tests/benchmarks/bench_load.py --out FILE.json

``slicewatch up`` with 50 functions, log and monitor has one core, and the client another. In each turn the capacity
is measured first, with 64 connections that always wait for an answer; then requests arrive independently at 50, 70 and
200 % of it. Latencies run from the time for which a request was scheduled. A run in which the client itself was late
is discarded and repeated. After the last turn the service is killed, and the ids in its log are compared with those
of the answers.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from bench_serving import RAW, stage
from open_loop import Outcome, Times, offer, poisson
from servers import (
    SERVICE,
    SETTINGS,
    Benchmark,
    Server,
    at_least,
    at_most,
    prediction,
    project,
    records,
    running,
    sibling,
    turns,
)

LOADS = (0.5, 0.7, 2.0)
QUEUE_ROWS = 256
SERVE = f"serve: {{connections: 4000, queue_rows: {QUEUE_ROWS}}}\n"
CAPACITY_CONNECTIONS, CONNECTIONS = 64, 2_000
CLIENT_RATE = 10_000
"""Requests per second that the client must be able to send on its schedule."""
MAX_LATE_SHARE, TRIES = 0.01, 5
REACH_P99_MS = {0.5: 5.0, 0.7: 25.0}
REACH_GOODPUT, REACH_REFUSED_MS = 0.8, 5.0


class Requests:
    """Encoded requests for one record with an id of their own each.

    Parameters
    ----------
    url
        Of the server.
    run
        Text in the ids that sets the requests of one run apart.
    """

    def __init__(self, url: str, run: str) -> None:
        self.run = run
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = parts.hostname, parts.port
        body = json.dumps({"instances": records(), "ids": [self.id(0)]}, separators=(",", ":"))
        head = (
            f"POST /v1/predict HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body.encode())}\r\n\r\n"
        )
        before, _, after = (head + body).partition(self.id(0))
        self.before, self.after = f"{before}{run}-".encode(), after.encode()

    def id(self, number: int) -> str:
        """Return the id of a request."""
        return f"{self.run}-{number:08d}"

    def __call__(self, number: int) -> bytes:
        """Return the bytes of a request."""
        return b"%s%08d%s" % (self.before, number, self.after)


@dataclass
class Level:
    """The runs at one load, a figure per turn."""

    load: float
    offered: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)  # with 200, per second
    refused: list[float] = field(default_factory=list)  # with 429, per second
    goodput: list[float] = field(default_factory=list)  # share of the capacity answered with 200
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    refused_p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of an offered request
    other: int = 0  # answers with another status, and none

    def add(self, outcome: Outcome, capacity: float, seconds: float, cpu_seconds: float = 0.0) -> None:
        """Note one run. Below the capacity every request must be answered: one that was not takes for ever."""
        status = 200 if self.load > 1 else None
        self.offered.append(len(outcome.sent) / seconds)
        self.answered.append(outcome.per_second(200, seconds))
        self.refused.append(outcome.per_second(429, seconds))
        self.goodput.append(self.answered[-1] / capacity)
        self.p50_ms.append(outcome.latency_ms(0.5, status))
        self.p99_ms.append(outcome.latency_ms(0.99, status))
        self.refused_p99_ms.append(outcome.latency_ms(0.99, 429))
        self.cpu_us.append(1e6 * cpu_seconds / len(outcome.sent))
        self.other += int((~np.isin(outcome.status, (200, 429)) & np.isfinite(outcome.sent)).sum())

    def figures(self) -> dict[str, Any]:
        """Return the medians over the turns."""
        return {
            "load": self.load,
            "offered_per_second": round(statistics.median(self.offered)),
            "answered_per_second": round(statistics.median(self.answered)),
            "refused_per_second": round(statistics.median(self.refused)),
            "p50_ms": round(statistics.median(self.p50_ms), 2),
            "p99_ms": round(statistics.median(self.p99_ms), 2),
            "refused_p99_ms": round(statistics.median(self.refused_p99_ms), 2),
            "cpu_microseconds": round(statistics.median(self.cpu_us)),
            "other": self.other,
        }


@dataclass
class Punctual:
    """Runs of the client, each repeated until the client was in time.

    Parameters
    ----------
    tries
        Runs before the benchmark ends without a result; the last run counts all the same where it is 1.
    """

    tries: int
    late: list[float] = field(default_factory=list)
    """Share of late requests of each run that counts."""
    discarded: int = 0

    def run(self, attempt: Callable[[int], Outcome]) -> Outcome:
        """Return the first outcome in which the client was in time; SystemExit if there is none."""
        for number in range(self.tries):
            outcome = attempt(number)
            if outcome.late_share <= MAX_LATE_SHARE or self.tries == 1:
                self.late.append(outcome.late_share)
                return outcome
            self.discarded += 1
            print(f"discarded a run: the client sent {outcome.late_share:.1%} of its requests late", file=sys.stderr)
        raise SystemExit(f"the client was late in {self.tries} runs: the machine is too busy to measure")


def difference(acknowledged: Iterable[str], refused: Iterable[str], logged: set[str]) -> dict[str, int]:
    """Return how many acknowledged ids are not in the log, and how many refused ones are."""
    return {"lost": len(set(acknowledged) - logged), "refused_in_log": len(set(refused) & logged)}


def logged_ids(store: Path) -> set[str]:
    """Return the ids in the log of a service that has ended."""
    with closing(sqlite3.connect(store)) as connection:
        return {row for (row,) in connection.execute("SELECT id FROM predictions")}


def check_client(url: str, punctual: Punctual, seconds: int) -> dict[str, Any]:
    """Return what the client reaches against a server that does nothing."""
    requests = Requests(url, "client")
    times = poisson(CLIENT_RATE, seconds, 0)
    outcome = punctual.run(lambda _: offer(requests.address, requests, times, CAPACITY_CONNECTIONS, seconds))
    return {
        "sent_per_second": round(len(outcome.sent) / seconds),
        "late_share": round(outcome.late_share, 5),
        "p99_lag_ms": round(1e3 * float(np.quantile(outcome.sent - outcome.scheduled, 0.99)), 3),
    }


def measure_loads(
    options: argparse.Namespace, server: Server, punctual: Punctual
) -> tuple[list[Level], list[float], list[str], list[str]]:
    """Return the levels, the capacities, and the acknowledged and the refused ids."""
    levels = [Level(load) for load in LOADS]
    capacities: list[float] = []
    acknowledged: list[str] = []
    refused: list[str] = []
    spent: list[float] = []  # processor seconds of each run

    def run(name: str, times: Times, connections: int) -> Outcome:
        requests, before = Requests(server.url, name), server.cpu_seconds()
        outcome = offer(requests.address, requests, times, connections, options.seconds)
        spent.append(server.cpu_seconds() - before)
        acknowledged.extend(map(requests.id, outcome.with_status(200)))
        refused.extend(map(requests.id, outcome.with_status(429)))
        return outcome

    for turn in turns(options.rounds):
        full = run(f"capacity{turn}", np.zeros(CLIENT_RATE * options.seconds), CAPACITY_CONNECTIONS)
        capacity = full.per_second(200, options.seconds)
        if not capacity:
            raise SystemExit(f"nothing was answered in {options.seconds} s")
        capacities.append(capacity)
        for level in levels:

            def attempt(number: int, level: Level = level, turn: int = turn, capacity: float = capacity) -> Outcome:
                seed = [turn, number, round(100 * level.load)]
                name = "load" + "-".join(map(str, seed))
                return run(name, poisson(level.load * capacity, options.seconds, seed), CONNECTIONS)

            outcome = punctual.run(attempt)
            level.add(outcome, capacity, options.seconds, spent[-1])
    return levels, capacities, acknowledged, refused


def targets(levels: Sequence[Level], lost: dict[str, int]) -> list[dict[str, Any]]:
    """Return the figures that are to be reached; medians over the turns."""
    by_load = {level.load: level for level in levels}
    over = by_load[2.0]
    return [
        *(
            at_most(f"p99 at {load:.0%} of the capacity", statistics.median(by_load[load].p99_ms), bound, "ms")
            for load, bound in REACH_P99_MS.items()
        ),
        at_least("answered at 200 %, of the capacity", statistics.median(over.goodput), REACH_GOODPUT),
        at_most("p99 of a refusal at 200 %", statistics.median(over.refused_p99_ms), REACH_REFUSED_MS, "ms"),
        at_most("requests answered neither 200 nor 429, at any load", sum(level.other for level in levels), 0, "rows"),
        at_most("acknowledged, and not in the log after a kill", lost["lost"], 0, "rows"),
        at_most("refused, and in the log all the same", lost["refused_in_log"], 0, "rows"),
    ]


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    benchmark = Benchmark(__doc__, seconds=5)
    options = benchmark.options()
    punctual = Punctual(1 if options.quick else TRIES)
    with tempfile.TemporaryDirectory() as name:
        settings, call, cores = project(Path(name), options.training_rows), prediction(), [options.server_core]
        os.sched_setaffinity(0, {options.client_core})
        with running(RAW, stage(RAW, settings), call, cores) as raw:
            client = check_client(raw.url, punctual, options.seconds)
        settings = sibling(settings, "load", SETTINGS + SERVE)
        with running("slicewatch", [*SERVICE, str(settings)], call, cores) as server:
            levels, capacities, acknowledged, refused = measure_loads(options, server, punctual)
            server.process.kill()
            server.process.wait()
        lost = difference(acknowledged, refused, logged_ids(settings.with_name("load.sqlite3")))
    results = [level.figures() for level in levels]
    capacity = round(statistics.median(capacities))
    print(f"client: {client['sent_per_second']:,} /s, {client['late_share']:.2%} late; capacity {capacity:,} /s")
    for row in results:
        print(
            f"{row['load']:>5.0%}  {row['offered_per_second']:>7,} /s offered  "
            f"{row['answered_per_second']:>7,} answered  p50 {row['p50_ms']:>7.2f} ms  p99 {row['p99_ms']:>7.2f} ms  "
            f"{row['refused_per_second']:>6,} refused, p99 {row['refused_p99_ms']:>7.2f} ms  "
            f"{row['cpu_microseconds']:>4} us"
        )
    return benchmark.finish(
        options,
        results,
        targets(levels, lost),
        client=client,
        capacity_per_second=capacity,
        queue_rows=QUEUE_ROWS,
        acknowledged=len(acknowledged),
        late_share=round(max(punctual.late), 4),
        discarded=punctual.discarded,
    )


if __name__ == "__main__":
    sys.exit(main())
