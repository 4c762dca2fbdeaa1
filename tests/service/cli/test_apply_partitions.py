"""``slicewatch apply`` on folders of Parquet files, on every engine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
from factories import PATIENT
from nasty_table import write_nasty_folder, write_nasty_functions

PARTS = 6

GATED = """
from pathlib import Path
from time import monotonic, sleep

from sfs import slicing_function

HERE = Path({folder!r})


@slicing_function()
def big(x):
    if x.row == 0:
        with (HERE / "computed").open("a") as log:
            log.write(f"{{x.part}}\\n")
        end = monotonic() + 600
        while x.part >= 2 and not (HERE / "open").exists() and monotonic() < end:
            sleep(0.01)
    return x.row > 1
"""


def write_parts(folder: Path) -> Path:
    """Write files of three rows that know their part."""
    folder.mkdir()
    for part in range(PARTS):
        pd.DataFrame({"part": part, "row": range(3)}).to_parquet(folder / f"part-{part}.parquet")
    return folder


def slicewatch(*argv: object) -> list[str]:
    """Return the command in a process of its own."""
    return [sys.executable, "-P", "-m", "service", *map(str, argv)]


def lines(file: Path) -> list[str]:
    """Return the lines of a file, none if it is absent."""
    return file.read_text().split() if file.exists() else []


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most five minutes."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def kill_all(running: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(running.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    running.kill()
    running.wait()


def test_a_killed_run_goes_on(cli: Callable, tmp_path: Path) -> None:
    """After SIGKILL in the middle, with two workers, finished partitions are not computed again."""
    folder, functions = write_parts(tmp_path / "rows"), tmp_path / "gated.py"
    functions.write_text(GATED.format(folder=str(tmp_path)))
    words = ["apply", folder, "--functions", functions, "--out", tmp_path / "out", "--config", tmp_path / "none.yaml"]
    computed = tmp_path / "computed"
    running = subprocess.Popen(slicewatch(*words, "--workers", 2), env={**os.environ, **PATIENT})
    try:
        # Two parts are finished, and the workers are within the next two.
        wait_until(lambda: len(lines(computed)) == 4 or running.poll() is not None)
        wait_until(lambda: len(list((tmp_path / "out").glob("*.parquet"))) == 2)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert sorted(lines(computed)) == ["0", "1", "2", "3"]
    (tmp_path / "open").touch()
    # The workers end with the pipe, after the partition that they compute; only then the folder is complete for sure.
    wait_until(lambda: len(list((tmp_path / "out").glob("*.parquet"))) == 4)
    answer = cli(*words, "--json", "--workers", 1)
    told = json.loads(answer.out)
    assert told["partitions"] == {"computed": 2, "resumed": 4}
    assert sorted(lines(computed)) == ["0", "1", "2", "3", "4", "5"]
    assert (told["rows"], told["slices"][0]["members"]) == (18, 6)
    rows = pd.concat(pd.read_parquet(file) for file in sorted((tmp_path / "out").iterdir()))
    assert rows["big"].tolist() == [False, False, True] * PARTS


def test_a_run_that_is_killed_with_its_worker_computes_only_what_lacks(cli: Callable, tmp_path: Path) -> None:
    """Without other processes the partition in the middle is computed again, and no other."""
    folder, functions = write_parts(tmp_path / "rows"), tmp_path / "gated.py"
    functions.write_text(GATED.format(folder=str(tmp_path)))
    words = ["apply", folder, "--functions", functions, "--out", tmp_path / "out", "--config", tmp_path / "none.yaml"]
    computed = tmp_path / "computed"
    running = subprocess.Popen(slicewatch(*words, "--workers", 1), env={**os.environ, **PATIENT})
    try:
        wait_until(lambda: len(lines(computed)) == 3 or running.poll() is not None)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    left = [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    assert len(left) == 1  # of the partition in the middle
    (tmp_path / "open").touch()
    told = json.loads(cli(*words, "--json", "--workers", 1).out)
    assert told["partitions"] == {"computed": 4, "resumed": 2}
    assert sorted(lines(computed)) == ["0", "1", "2", "2", "3", "4", "5"]
    assert len(list((tmp_path / "out").iterdir())) == PARTS


@pytest.mark.parametrize("engine", ["dask", "spark"])
def test_a_cluster_that_is_killed_goes_on(tmp_path: Path, engine: str) -> None:
    """After SIGKILL of the command with its scheduler and workers, finished partitions are not computed again."""
    folder, functions = write_parts(tmp_path / "rows"), tmp_path / "gated.py"
    functions.write_text(GATED.format(folder=str(tmp_path)))
    words = ["apply", folder, "--functions", functions, "--out", tmp_path / "out", "--config", tmp_path / "none.yaml"]
    words += ["--engine", engine, "--workers", 1, "--json"]
    computed, environ = tmp_path / "computed", {**os.environ, **PATIENT}
    with (tmp_path / "errors").open("w") as errors:
        running = subprocess.Popen(slicewatch(*words), env=environ, stderr=errors)
    try:
        wait_until(lambda: len(lines(computed)) == 3 or running.poll() is not None)
        assert running.poll() is None, (tmp_path / "errors").read_text()
    finally:
        kill_all(running)
    first = lines(computed)
    assert len(first) == 3
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 2
    (tmp_path / "open").touch()
    done = subprocess.run(slicewatch(*words), env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["partitions"] == {"computed": 4, "resumed": 2}
    assert (told["rows"], told["slices"][0]["members"]) == (18, 6)
    again = lines(computed)[3:]
    assert sorted(again) == sorted({*map(str, range(PARTS))} - {*first[:2]})
    rows = pd.concat(pd.read_parquet(file) for file in sorted((tmp_path / "out").glob("*.parquet")))
    assert rows["big"].tolist() == [False, False, True] * PARTS


def test_a_folder_has_the_counts_of_its_rows(cli: Callable, tmp_path: Path) -> None:
    """Text and JSON have the counts, the reasons, the partitions, and the first fault with its file."""
    frame, files = write_nasty_folder(tmp_path / "rows"), write_nasty_functions(tmp_path)
    functions = [word for file in files for word in ("--functions", file)]
    words = ["apply", tmp_path / "rows", *functions, "--config", tmp_path / "none.yaml", "--workers", 1]
    answer = cli(*words, "--out", tmp_path / "out")
    assert (answer.code, answer.err) == (0, "")
    assert f"{len(frame)} rows in 6 partitions, written to {tmp_path / 'out'}" in answer.out
    assert "nested_one: first fault at part-0.parquet, row 2: TypeError" in answer.out
    again = cli(*words, "--out", tmp_path / "out")
    assert "53 rows in 6 partitions, 6 of them by an earlier run" in again.out
    told = json.loads(cli(*words, "--json").out)
    assert (told["rows"], told["out"], told["partitions"]) == (53, None, {"computed": 6, "resumed": 0})
    junk = next(each for each in told["slices"] if each["slice"] == "junk")
    assert junk["reasons"] == {"junk answer": 17, "KeyError": 4, "abstained": 15}


def test_dask_starts_a_cluster_of_its_own(tmp_path: Path) -> None:
    """The command runs on a process that it starts and ends, and prints one document."""
    folder, functions = write_parts(tmp_path / "rows"), tmp_path / "prints.py"
    functions.write_text(
        "from sfs import slicing_function\n\n\n"
        "@slicing_function()\ndef prints(x):\n    print('a row')\n    return x.row > 1\n"
    )
    words = ["apply", folder, "--functions", functions, "--out", tmp_path / "out", "--json"]
    words += ["--engine", "dask", "--workers", 1]
    done = subprocess.run(slicewatch(*words), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"], told["slices"][0]["members"]) == (18, 6)
    assert told["partitions"] == {"computed": 6, "resumed": 0}


def test_spark_without_java_says_how_to_install_it(
    cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without Java, and a wrong JAVA_HOME, have one line and code 1."""
    folder = write_parts(tmp_path / "rows")
    functions = tmp_path / "slices.yaml"
    functions.write_text("slices:\n  - {name: big, compare: {field: row, above: 1}}\n")
    words = ["apply", folder, "--functions", functions, "--config", tmp_path / "none.yaml", "--engine", "spark"]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    answer = cli(*words)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("slicewatch: error: no Java: Spark needs Java 17 or later: install it")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert f"no Java at {tmp_path / 'jdk'}" in cli(*words).err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{rows}", "--with-split", "--out", "{folder}/out"], "--with-split is for one file with --engine local"),
        (["{rows}", "--with-predictions", "--out", "{folder}/out"], "--with-predictions is for one file"),
        (["{rows}", "--format", "csv"], "--format csv: a folder and other engines read Parquet"),
        (["{rows}", "--cluster", "tcp://127.0.0.1:1"], "--cluster is the address of a cluster: add --engine"),
        (["{rows}", "--out", "{rows}/sliced"], "overlap: results need a folder of their own"),
        (["{data}", "--workers", "2"], "--workers and --cluster are for a folder"),
        (["{data}", "--engine", "dask"], "--engine dask reads Parquet"),
        (["{folder}/empty"], "is a folder: pass a file of rows, a folder of Parquet files, or"),
    ],
)
def test_misuse_of_partitions_writes_nothing(
    cli: Callable, project: Path, table_file: Path, options: list[str], message: str
) -> None:
    """Misuse ends with code 2 and a reason."""
    folder = project.parent
    rows = write_parts(folder / "rows")
    (folder / "empty").mkdir()
    given = [option.format(rows=rows, data=table_file, folder=folder) for option in options]
    answer = cli("apply", *given, "--config", project)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert not (folder / "out").exists()
    assert sorted(path.name for path in rows.iterdir()) == [f"part-{part}.parquet" for part in range(PARTS)]


def test_an_address_without_a_scheduler_is_an_error(tmp_path: Path) -> None:
    """The message has the address, and the code is that of a failure."""
    folder, functions = write_parts(tmp_path / "rows"), tmp_path / "slices.yaml"
    functions.write_text("slices:\n  - {name: big, compare: {field: row, above: 1}}\n")
    words = ["apply", folder, "--functions", functions, "--engine", "dask", "--cluster", "tcp://127.0.0.1:1"]
    environ = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "0.1s"}
    done = subprocess.run(slicewatch(*words), cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no Dask scheduler at tcp://127.0.0.1:1" in done.stderr
