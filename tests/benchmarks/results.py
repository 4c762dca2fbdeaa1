"""Run every benchmark, one after the other, and write docs/results.md.

    python tests/benchmarks/results.py --peer-python PATH --out docs/results.md [--data FOLDER] [--seeds 10]

The peer interpreter has Snorkel 0.10.0. FOLDER holds the public data sets (docs/data.md); without it the parts
that need them are left as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
SECTIONS = ("functions", "epoch", "tutorial", "learner", "serving", "drift")


def run(script: str, *arguments: str) -> None:
    """Run one benchmark; a figure that is missed is written down, a failure stops everything."""
    done = subprocess.run([sys.executable, str(HERE / script), *arguments], check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{script} failed with exit code {done.returncode}")


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def verdict(reached: bool) -> str:
    return "yes" if reached else "**no**"


def functions(options: argparse.Namespace, folder: Path) -> str:
    """Slicing functions against Snorkel's applier."""
    out = folder / "functions.json"
    run("bench_functions.py", "--peer-python", options.peer_python, "--out", str(out))
    rows = json.loads(out.read_text())["results"]
    compared = [
        (
            row["what"],
            f"{row['ours_rows_per_second']:,}",
            f"{row['snorkel_rows_per_second']:,}",
            f"{row['ratio']} x",
            f">= {row['reach']} x",
            verdict(row["reached"]),
        )
        for row in rows
        if "ratio" in row
    ]
    alone = [
        (row["what"], f"{row['microseconds_per_row']} us", f"<= {row['reach']} us", verdict(row["reached"]))
        for row in rows
        if "ratio" not in row
    ]
    head = ("functions", "Slicewatch, rows/s", "Snorkel, rows/s", "ratio", "target", "met")
    return (
        "100,000 generated comments, one thread each, alternating runs, medians of five; the answers are\n"
        "equal. With 300 functions Snorkel gets 2,000 rows: its rate does not depend on the number of rows.\n\n"
        f"{markdown(head, compared)}\n\nOn the request path, per row:\n\n"
        f"{markdown(('measurement', 'time', 'target', 'met'), alone)}"
    )


def epoch(options: argparse.Namespace, folder: Path) -> str:
    """One training epoch against Snorkel's classifier."""
    out = folder / "epoch.json"
    run("bench_epoch.py", "--peer-python", options.peer_python, "--out", str(out))
    rows = [
        (
            str(row["slices"]),
            row["experts"],
            f"{row['ours_seconds']:.3f} s",
            f"{row['peer_seconds']:.3f} s",
            f"{row['ratio']} x",
            f">= {row['reach']} x" if row["reach"] else "",
            verdict(row["ratio"] >= row["reach"]) if row["reach"] else "",
        )
        for row in json.loads(out.read_text())["results"]
    ]
    head = ("slices", "experts", "Slicewatch", "Snorkel", "ratio", "target", "met")
    return (
        "`SliceAwareClassifier`, n = 1,586, d = 2,000, h = 256, batch 64, one thread each, alternating\n"
        "epochs, medians of five. Full rank is Snorkel's own network: with the same weights both return the\n"
        "same probabilities.\n\n" + markdown(head, rows)
    )


def tutorial(options: argparse.Namespace, folder: Path) -> str | None:
    """The tutorial's split over the seeds."""
    if not options.data:
        return None
    out = folder / "tutorial.md"
    run(
        "bench_tutorial.py",
        "--data",
        str(options.data / "youtube-spam"),
        "--seeds",
        str(options.seeds),
        "--out",
        str(out),
    )
    return out.read_text().strip()


def learner(options: argparse.Namespace, folder: Path) -> str | None:
    """The learners on planted geometry, keyword text, and text messages."""
    if not options.data:
        return None
    out = folder / "learner"
    names = "geometry K=2,keyword text K=100,SMS"
    arguments = ("--first-seed", "200", "--seeds", str(options.seeds), "--set-ups", names)
    run("bench_learner.py", *arguments, "--data", str(options.data), "--out", str(out))
    return (
        "Accuracy in %, mean over seeds not used for any selection, with its 95 % t interval; worst and mean over\n"
        "the true slices. In geometry two small discs contradict a line; in keyword text 4 of 100 slices do; SMS\n"
        "is the UCI collection.\n\n" + out.with_suffix(".md").read_text().strip()
    )


def serving(_options: argparse.Namespace, folder: Path) -> str:
    """Requests per second, layer by layer."""
    out = folder / "serving.json"
    run("bench_serving.py", "--out", str(out))
    measured = json.loads(out.read_text())
    rows = [
        (
            row["what"],
            f"{row['requests_per_second']:,} ({row['lowest']:,} to {row['highest']:,})",
            f"{row['p50_ms']} ms",
            f"{row['p99_ms']} ms",
            f"{row['cpu_microseconds']:,} us",
            "" if row["added_microseconds"] is None else f"{row['added_microseconds']:+,} us",
        )
        for row in measured["results"]
    ]
    head = ("layer", "requests/s", "p50", "p99", "CPU time", "added")
    figures = [(row["what"], f"{row['value']}", row["reach"], verdict(row["reached"])) for row in measured["targets"]]
    return (
        "`POST /v1/predict` with one comment of four fields, over 16 connections; a connection sends the next request\n"
        "after the response to the last (wrk, one thread). The server has one core, wrk another. The model is\n"
        "slice-aware (`slice_residual`), trained on 2,000 generated comments with the 50 functions, all templates.\n"
        f"The layers take turns of {measured['seconds']} s (the last one of a whole tick, 10 s); medians of "
        f"{measured['rounds']}, with the\nlowest and highest rate. CPU time is that of the server process per "
        "request; added is the difference from the\nlayer below.\n\n"
        f"{markdown(head, rows)}\n\n{markdown(('measurement', 'value', 'target', 'met'), figures)}"
    )


def drift(_options: argparse.Namespace, folder: Path) -> str:
    """How soon a changed coverage alarms."""
    out = folder / "drift.json"
    run("bench_drift.py", "--out", str(out))
    measured = json.loads(out.read_text())
    rows = [
        (
            f"{row['coverage']:.1%} x {row['ratio']:g}",
            f"{row['mean_rows']:,}",
            f"{row['p95_rows']:,}",
            f"{row['missed']}",
            f"{row['bound_rows']:,}",
            f"{row['times_bound']}",
            f"<= {row['reach_rows']:,}",
            verdict(row["reached"]),
        )
        for row in measured["delays"]
    ]
    head = ("coverage", "mean", "95 %", "missed", "log c / KL", "mean / bound", "target", "met")
    cost = measured["cost"]
    costs = [("per block", f"{cost['block_ms']} ms", f"<= {cost['reach_ms']} ms", verdict(cost["reached"]))]
    return (
        f"Rows from the change of a slice's coverage to its alarm, over {measured['streams']} simulated streams "
        f"per row of the table. Blocks have\n{measured['block_rows']:,} independent rows, the reference has "
        f"{measured['reference_rows']:,}; the tolerance is {measured['tolerance']:.0%}; the budget is "
        f"{measured['false_alarms_a_month']:g} false alarm\nper month over {measured['slices']:,} slices, half of "
        "it for coverage. log c / KL is the bound for a detector that knows both\nrates and has no tolerance. A "
        "slice of 0.2 % has 400 members in the reference: their uncertainty is wider than\nthe tolerance, so small "
        f"changes take longer to detect.\n\n{markdown(head, rows)}\n\n"
        f"Drift detection over {measured['slices']:,} slices:\n\n"
        f"{markdown(('measurement', 'time', 'target', 'met'), costs)}"
    )


TITLES: dict[str, tuple[str, Callable[[argparse.Namespace, Path], str | None]]] = {
    "functions": ("Slicing functions against Snorkel", functions),
    "epoch": ("Training epoch against Snorkel", epoch),
    "tutorial": ("The tutorial's split", tutorial),
    "learner": ("Slice-aware and plain learners", learner),
    "serving": ("Requests per second, layer by layer", serving),
    "drift": ("Rows until the alarm of a changed slice", drift),
}


def machine() -> str:
    """Return what the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    return f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}"


def kept(page: Path) -> dict[str, str]:
    """Return the sections that a page already has, by title."""
    if not page.exists():
        return {}
    parts = page.read_text().split("\n## ")[1:]
    return {title: body.strip() for title, _, body in (part.partition("\n") for part in parts)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="an interpreter that has Snorkel 0.10.0")
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--data", type=Path, default=os.environ.get("SLICEWATCH_TEST_DATA"), help="public data")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, help="leave the others as they were")
    options = parser.parse_args()
    options.data = Path(options.data) if options.data else None
    sections: dict[str, Any] = kept(options.out)
    for name in options.only:
        title, measure = TITLES[name]
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(options, Path(folder))
        if measured:
            sections[title] = f"{measured}\n\nMeasured on {machine()}."
    head = "# Results\n\nGenerated by `make bench`; no figure is edited by hand. Missed targets are marked."
    ordered = [f"## {title}\n\n{sections[title]}" for title, _ in TITLES.values() if title in sections]
    options.out.write_text("\n\n".join([head, *ordered]) + "\n")


if __name__ == "__main__":
    main()
