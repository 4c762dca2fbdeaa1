"""Rows per second and memory of `slicewatch apply` on every engine, on the same folder of Parquet files.

    python tests/benchmarks/bench_engines.py --out FILE.json

Comments are generated, with missing, empty and non-ASCII text, missing whole numbers, and a file in which a column has
no value. The functions are templates and plain Python. Every command is a process of its own, from its start to its
end; the memory is that of all its processes, pages that they share counted once. Memberships are compared with those
of the same functions on one data frame in memory. The large folder is applied with the default settings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from pyarrow import parquet

from models.comments.generate import generate
from sfs.apply import apply
from sfs.matrix import SliceMatrix
from sfs.registry import FunctionSet
from sfs.tables import read_table

SEED = 0
FILES = 4
ROW_GROUP = 250_000
WORKERS = 2
MEMORY_MIB = 1024
COMMAND = (sys.executable, "-P", "-m", "service", "apply")
ENGINES: dict[str, tuple[str, ...]] = {
    "local, one process": ("--engine", "local", "--workers", "1"),
    f"local, {WORKERS} processes": ("--engine", "local", "--workers", str(WORKERS)),
    f"dask, {WORKERS} processes": ("--engine", "dask", "--workers", str(WORKERS)),
    f"spark, {WORKERS} threads": ("--engine", "spark", "--workers", str(WORKERS)),
}
PYTHON = """\
from sfs import preprocessor, slicing_function


@preprocessor()
def words(x):
    x.words = x.text.split()
    return x


@slicing_function(pre=[words])
def short_text(x):
    return len(x.words) < 5


@slicing_function()
def shouting(x):
    return x.text.isupper()
"""
YAML = """\
slices:
  - {name: keyword_please, keyword: {field: text, words: [please, plz]}}
  - {name: regex_check_out, regex: {field: text, pattern: "check.*out", ignore_case: true}}
  - {name: short_link, regex: {field: text, pattern: "[0-9A-Za-z_]+[.]ly"}}
  - {name: liked, compare: {field: likes, at_least: 5}}
  - {name: no_video, missing: {field: video}}
"""


def write_rows(folder: Path, rows: int) -> Path:
    """Write generated comments as files of equal length."""
    folder.mkdir()
    draw = np.random.default_rng(SEED)
    comments = generate(20_000, seed=SEED)
    for number in range(FILES):
        frame = comments.iloc[draw.integers(0, len(comments), rows // FILES)].reset_index(drop=True)
        likes = pa.array(draw.poisson(3, len(frame)), pa.int64(), mask=draw.random(len(frame)) < 0.1)
        text = frame["text"].to_numpy(object)
        for odd in (None, "", "ünï日本\U0001f600"):
            text[draw.random(len(frame)) < 0.01] = odd
        video = pa.array(frame["video"].to_numpy(object), pa.string(), from_pandas=True)
        columns = {"text": pa.array(text, pa.string()), "likes": likes}
        columns["video"] = pa.nulls(len(frame)) if number == 1 else video
        parquet.write_table(pa.table(columns), folder / f"part-{number}.parquet", row_group_size=ROW_GROUP)
    return folder


def write_functions(folder: Path) -> list[str]:
    """Write the functions, and return their files."""
    files = {"plain.py": PYTHON, "templates.yaml": YAML}
    for name, text in files.items():
        (folder / name).write_text(text)
    return [str(folder / name) for name in files]


def memory_mib(process: psutil.Process) -> float:
    """Return the memory of a process and its descendants, shared pages counted once."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0.0
    for each in family:
        try:
            total += each.memory_full_info().pss
        except (psutil.Error, OSError):  # it has ended meanwhile
            continue
    return total / 2**20


def run(rows: Path, files: list[str], out: Path | None, *options: str) -> dict[str, Any]:
    """Run the command; return its document, its seconds and its peak memory in MiB."""
    words = [*COMMAND, str(rows), *(word for file in files for word in ("--functions", file)), "--json", *options]
    words += ["--out", str(out)] if out else []
    began, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(words, stdout=output, stderr=subprocess.DEVNULL, cwd=rows.parent) as command:
            family = psutil.Process(command.pid)
            while command.poll() is None:
                peak = max(peak, memory_mib(family))
                time.sleep(0.25)  # reading the memory takes time, too
        seconds = time.perf_counter() - began
        if command.returncode:
            raise SystemExit(f"{' '.join(words)} failed with code {command.returncode}")
        output.seek(0)
        return {"document": json.load(output), "seconds": seconds, "mib": peak}


def reference(rows: Path, files: list[str]) -> SliceMatrix:
    """Return the memberships of the functions on one data frame."""
    functions = FunctionSet.from_files(files)
    frames = [read_table(file) for file in sorted(rows.iterdir())]
    return apply(functions, pd.concat(frames, ignore_index=True))


def is_same(out: Path, expected: SliceMatrix) -> bool:
    """Return whether the written memberships are the expected ones, unknown rows too."""
    written = pa.concat_tables([parquet.read_table(file) for file in sorted(out.glob("*.parquet"))])
    for k, name in enumerate(expected.names):
        column = written[name].combine_chunks()
        unknown = column.is_null().to_numpy(zero_copy_only=False)
        member = column.fill_null(False).to_numpy(zero_copy_only=False)
        if not (np.array_equal(unknown, expected.unknown[:, k]) and np.array_equal(member, expected.member[:, k])):
            return False
    return len(written) == len(expected)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return all results: engines in turn on one folder, then the large folder."""
    files = write_functions(folder)
    rows, one = write_rows(folder / "rows", options.rows), write_rows(folder / "one", FILES)
    expected = reference(rows, files)
    seconds: dict[str, list[float]] = {name: [] for name in ENGINES}
    mib: dict[str, list[float]] = {name: [] for name in ENGINES}
    start: dict[str, list[float]] = {name: [] for name in ENGINES}
    same = dict.fromkeys(ENGINES, True)
    for turn in range(options.rounds):
        for number, (name, words) in enumerate(ENGINES.items()):
            out = folder / f"out-{turn}-{number}"
            measured = run(rows, files, out, *words)
            seconds[name].append(measured["seconds"])
            mib[name].append(measured["mib"])
            start[name].append(run(one, files, None, *words)["seconds"])
            same[name] &= is_same(out, expected)
            for file in out.iterdir():
                file.unlink()
    results = [
        {
            "engine": name,
            "rows_per_second": round(options.rows / statistics.median(seconds[name])),
            "start_seconds": round(statistics.median(start[name]), 1),
            "mib": round(max(mib[name])),
            "identical": same[name],
        }
        for name in ENGINES
    ]
    large = run(write_rows(folder / "large", options.large), files, folder / "out", "--engine", "local")
    return {
        "seed": SEED,
        "rounds": options.rounds,
        "rows": options.rows,
        "functions": len(expected.names),
        "unknown": int(expected.unknown.sum()),
        "results": results,
        "large": {
            "rows": large["document"]["rows"],
            "seconds": round(large["seconds"]),
            "mib": round(large["mib"]),
            "reach_mib": MEMORY_MIB,
            "reached": large["mib"] <= MEMORY_MIB,
        },
    }


def main() -> int:
    """Measure, print and write; 1 when memberships differ or the memory is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--large", type=int, default=10_000_000, help="rows of the folder whose memory is measured")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(options, Path(folder))
    for row in measured["results"]:
        same = "identical" if row["identical"] else "DIFFERENT"
        print(f"{row['engine']:<20} {row['rows_per_second']:>9,} rows/s, {row['mib']:>6,} MiB, {same}")
    large = measured["large"]
    print(f"{large['rows']:,} rows: {large['seconds']:,} s, {large['mib']:,} MiB (at most {large['reach_mib']:,})")
    options.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return int(not (large["reached"] and all(row["identical"] for row in measured["results"])))


if __name__ == "__main__":
    sys.exit(main())
