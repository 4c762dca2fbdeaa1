"""Requests per second and processor time, layer by layer, from a bare ASGI application to ``slicewatch up``.

    python tests/benchmarks/bench_serving.py --out FILE.json

The server has one core and wrk, with one thread and 16 connections, another. Every rung gets the same body, one
record without an id; the rungs take turns, and each figure is a median. While one is measured the others stand
still. First it is checked that the rungs that do the same work give the same answer. Processor time, unlike the
rate, is hardly changed by what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from servers import (
    SERVICE,
    Benchmark,
    Server,
    at_least,
    at_most,
    measure,
    prediction,
    project,
    ratio,
    running,
    same,
    turns,
)

HERE = Path(__file__).parent
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
RAW, BARE, ALONE, WHOLE = "asgi", "endpoint", "model", "up"
SAME = ("functions", "log", "metrics", "up")
TICK_SECONDS = 10
"""How often the monitor counts; what it takes is part of the whole."""
REACH_BARE, REACH_RAW, REACH_US = 0.6, 0.2, 150


def stage(name: str, settings: Path) -> list[str]:
    """Return the command of a rung."""
    if name == WHOLE:
        return [*SERVICE, str(settings)]
    return [sys.executable, str(HERE / "serving_stage.py"), name, str(settings)]


def result(rung: Server, before: Server | None) -> dict[str, Any]:
    """Return a rung's row of results, with the processor time of a request, and what of it the rung adds."""
    added = None if before is None else round(statistics.median(rung.cpu_us) - statistics.median(before.cpu_us))
    return {"name": rung.name, "what": RUNGS[rung.name], **rung.figures(), "added_microseconds": added}


def targets(rungs: dict[str, Server]) -> list[dict[str, Any]]:
    """Return the figures that are to be reached; each is the median over the turns, compared within a turn."""
    whole = rungs[WHOLE]
    pairs = zip(whole.cpu_us, rungs[ALONE].cpu_us, strict=True)
    added = statistics.median(one - other for one, other in pairs)
    return [
        at_least("`slicewatch up` against the bare endpoint", ratio(whole.rates, rungs[BARE].rates), REACH_BARE),
        at_least("`slicewatch up` against the ASGI application", ratio(whole.rates, rungs[RAW].rates), REACH_RAW),
        at_most("CPU time of functions, log, counters and monitor, per request", added, REACH_US, "us"),
    ]


def ladder(options: argparse.Namespace, folder: Path) -> dict[str, Server]:
    """Measure every rung."""
    settings, call = project(folder, options.training_rows), prediction()
    with ExitStack() as stack:
        rungs = {}
        for name in RUNGS:
            command = stage(name, settings)
            rungs[name] = stack.enter_context(running(name, command, call, [options.server_core]))
        answers = {name: call.answer(rungs[name].url)["predictions"][0] for name in SAME}
        same(answers, lambda one, other: {**one, "id": ""} == {**other, "id": ""})
        for rung in rungs.values():
            rung.stand_still()
        for _ in turns(options.rounds):
            for rung in rungs.values():
                whole_tick = rung.name == WHOLE and not options.quick
                seconds = max(options.seconds, TICK_SECONDS) if whole_tick else options.seconds
                measure(rung, call, options.client_core, seconds)
    return rungs


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    benchmark = Benchmark(__doc__)
    options = benchmark.options()
    with tempfile.TemporaryDirectory() as folder:
        rungs = ladder(options, Path(folder))
    results = [result(rung, rungs.get(BEFORE.get(name, ""))) for name, rung in rungs.items()]
    for row in results:
        print(
            f"{row['requests_per_second']:>7,} /s  {row['cpu_microseconds']:>5,} us  "
            f"p99 {row['p99_ms']:>7.2f} ms  {row['what']}"
        )
    return benchmark.finish(options, results, targets(rungs))


if __name__ == "__main__":
    sys.exit(main())
