"""Rows per second in batches, and requests per second with Python functions.

    python tests/benchmarks/bench_rows.py --out FILE.json

``slicewatch up``, its processes included, has one core and wrk another. The model is that of the ladder. With
templates it predicts batches of 32 records, and logs the predictions of another server in batches of 100; with three
Python functions in the place of the 50 templates it predicts one record a request, against the bare FastAPI endpoint.
Cases take turns, and each figure is a median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench_serving import BARE, stage
from servers import (
    SERVICE,
    SETTINGS,
    Benchmark,
    Call,
    Server,
    at_least,
    measure,
    prediction,
    project,
    ratio,
    records,
    running,
    sibling,
    turns,
)

BATCH, LOGGED, PYTHON = "batch", "logged", "python"
CASES = {
    BARE: "bare FastAPI endpoint, one record",
    PYTHON: "`/v1/predict`, three Python functions, one record",
    BATCH: "`/v1/predict`, 50 templates, 32 records",
    LOGGED: "`/v1/predictions`, 50 templates, 100 records of another server",
}
REACH_ROWS = {BATCH: 15_000, LOGGED: 20_000}
REACH_PYTHON = 0.4
FUNCTIONS = '''\
from collections import Counter

from sfs import slicing_function


@slicing_function()
def exclaiming(x):
    """Has an exclamation mark."""
    return "!" in x.text


@slicing_function()
def shouting(x):
    """Written in capitals."""
    return x.text.isupper()


@slicing_function()
def monotonous(x):
    """Has a letter that is a seventh of the text."""
    return max(Counter(x.text.replace(" ", "")).values(), default=0) * 7 > len(x.text)
'''


def calls() -> dict[str, Call]:
    """Return what each case is asked."""
    answer = {"label": "ham", "probabilities": {"ham": 0.75, "spam": 0.25}}
    logged = [{"features": record, **answer} for record in records(100)]
    return {
        BARE: prediction(),
        PYTHON: prediction(),
        BATCH: Call("/v1/predict", {"instances": records(32)}, 32),
        LOGGED: Call("/v1/predictions", {"predictions": logged}, 100, connections=8),
    }


def result(case: Server, call: Call) -> dict[str, Any]:
    """Return the row of results of a case."""
    figures = case.figures()
    per_row = statistics.median(case.cpu_us) / call.rows
    rows = {"rows_per_second": round(statistics.median(case.rates) * call.rows), "cpu_per_row": round(per_row, 1)}
    return {"name": case.name, "what": CASES[case.name], **figures, **rows}


def targets(cases: dict[str, Server]) -> list[dict[str, Any]]:
    """Return the figures that are to be reached."""
    asked = calls()
    rows = [
        at_least(CASES[name], statistics.median(cases[name].rates) * asked[name].rows, bound, "rows/s")
        for name, bound in REACH_ROWS.items()
    ]
    what = "three Python functions against the bare endpoint"
    return [*rows, at_least(what, ratio(cases[PYTHON].rates, cases[BARE].rates), REACH_PYTHON)]


def cases(options: argparse.Namespace, folder: Path) -> dict[str, Server]:
    """Measure every case; batches of both kinds go to the same service."""
    settings, asked = project(folder, options.training_rows), calls()
    (folder / "functions.py").write_text(FUNCTIONS)
    python = sibling(settings, PYTHON, SETTINGS.replace("slices.yaml", "functions.py"))
    commands = {
        BARE: stage(BARE, settings),
        PYTHON: [*SERVICE, str(python)],
        BATCH: [*SERVICE, str(settings)],
    }
    with ExitStack() as stack:
        measured = {}
        for name, command in commands.items():
            measured[name] = stack.enter_context(running(name, command, asked[name], [options.server_core]))
        check_functions(asked[PYTHON].answer(measured[PYTHON].url))
        measured[LOGGED] = Server(LOGGED, measured[BATCH].url, measured[BATCH].process)
        for case in measured.values():
            case.stand_still()
        for _ in turns(options.rounds):
            for name, case in measured.items():
                measure(case, asked[name], options.client_core, options.seconds)
    return measured


def check_functions(answer: dict[str, Any]) -> None:
    """Stop if a Python function did not answer: what is unknown takes no time."""
    if unknown := answer["predictions"][0]["unknown_slices"]:
        raise SystemExit(f"the functions {', '.join(unknown)} did not answer")


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    benchmark = Benchmark(__doc__)
    options = benchmark.options()
    with tempfile.TemporaryDirectory() as folder:
        measured = cases(options, Path(folder))
    asked = calls()
    results = [result(case, asked[name]) for name, case in measured.items()]
    for row in results:
        print(
            f"{row['rows_per_second']:>7,} rows/s  {row['cpu_per_row']:>6} us a row  p99 {row['p99_ms']:>7.2f} ms  "
            f"{row['what']}"
        )
    return benchmark.finish(options, results, targets(measured))


if __name__ == "__main__":
    sys.exit(main())
