"""Comparison of columns in a child process, from rows to page."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from models.config import LearnerConfig, TrainConfig
from models.features import FeatureSpec
from models.training import train
from service.jobs.column_report.process import (
    ReportFailed,
    ReportSpec,
    compare_columns,
    prune,
    render_page,
    report_folder,
)
from service.store.training_rows import TrafficRow
from sfs.registry import FunctionSet

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
LONG_SECONDS = 200.0
SITES = ("home", "shop", "blog")
WORDS = ["good", "bad", "slow", *(f"word{n}" for n in range(60))]
FUNCTIONS = "slices:\n- name: warm\n  compare: {field: heat, above: 0.5}\n"


pytestmark = pytest.mark.usefixtures("forked_children")  # but the comparison of many tests runs a new interpreter


def record(random: np.random.Generator, heat: float = 0.0, words: int = 5) -> dict[str, Any]:
    """Return a record whose heat changes, and whose calm does not."""
    return {
        "text": " ".join(random.choice(WORDS, random.integers(2, words))),
        "heat": float(random.normal(heat)),
        "calm": float(random.normal()),
        "same": 3,
        "site": str(random.choice(SITES)),
    }


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ReportSpec:
    """Live traffic whose heat and texts have changed, half of it without probabilities."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bundle")
    random = np.random.default_rng(0)
    rows = pd.DataFrame([record(random) for _ in range(1800)])
    rows["label"] = np.where(rows["heat"] > 0, "yes", "no")
    kinds = {"text": "text", "heat": "number", "calm": "number", "same": "number", "site": "category"}
    (folder / "slices.yaml").write_text(FUNCTIONS)
    config = TrainConfig(
        name="m",
        label="label",
        features=[FeatureSpec(column, kind) for column, kind in kinds.items()],  # type: ignore[arg-type]
        functions=FunctionSet.from_files([folder / "slices.yaml"]),
        learner=LearnerConfig("erm", widths=(8,), n_epochs=4),
    )
    train(config, rows).save(folder / "bundle")
    live = [
        TrafficRow(AT, 4, "yes", (0.1, 0.9) if i % 2 else None, json.dumps(record(random, heat=1, words=9)), i)
        for i in range(600)
    ]
    return ReportSpec(folder / "bundle", live, functions=[str(folder / "slices.yaml")])


Comparison = tuple[Path, int, int, tuple[Mapping[str, Any], ...]]


@pytest.fixture(scope="module")
def comparison(spec: ReportSpec, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """One comparison for many tests: its folder, reference rows and columns."""
    folder = report_folder(tmp_path_factory.mktemp("store") / "reports", AT)
    return folder, *compare_columns(folder, spec, LONG_SECONDS)


@pytest.fixture
def columns(comparison: Comparison) -> dict[str, Mapping[str, Any]]:
    return {each["column"]: each for each in comparison[3]}


def interpreter(folder: Path, commands: str) -> str:
    """Return a program to run in place of Python."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{commands}\n")
    program.chmod(0o755)
    return str(program)


def test_changed_columns_have_drifted(comparison: Comparison, columns: dict[str, Mapping[str, Any]]) -> None:
    """The changed columns have drifted, the others have not; the sample is the reference."""
    assert comparison[1] > 100
    assert comparison[2] == 600
    assert {name: each["drifted"] for name, each in columns.items()} == {
        "length of text": True,
        "heat": True,
        "calm": False,
        "same": None,
        "site": False,
        "predicted label": True,
        "confidence": True,
    }


def test_every_column_has_its_method_threshold_and_value(columns: dict[str, Mapping[str, Any]]) -> None:
    """A number has means, a category shares, and both a distance."""
    heat, label = columns["heat"], columns["predicted label"]
    assert (heat["method"], heat["kind"]) == ("wasserstein", "number")
    assert heat["value"] == pytest.approx(1, abs=0.25)
    assert heat["mean"] == pytest.approx([0, 1], abs=0.25)
    assert label["method"] == "jensenshannon"
    assert label["shares"]["yes"][1] == 1
    assert all(each["threshold"] > 0 for each in columns.values())


def test_skipped_columns_have_a_reason(columns: dict[str, Mapping[str, Any]]) -> None:
    """A constant column has no value; rows without probabilities have no confidence."""
    assert columns["same"]["value"] is None
    assert columns["same"]["error"] == "every row of both sides has 3.0"
    assert columns["confidence"]["rows"][1] == 300


def test_a_page_is_rendered_once_without_texts(comparison: Comparison) -> None:
    """The folder has the compared columns alone; the page names them, and quotes no record."""
    folder = comparison[0]
    assert [path.name for path in folder.iterdir()] == ["columns.json.gz"]
    page = render_page(folder, LONG_SECONDS)
    text = page.read_text()
    assert "length of text" in text
    assert "good bad" not in text
    assert render_page(folder, LONG_SECONDS, python="/no/such/python") == page


def test_the_folders_are_private(comparison: Comparison) -> None:
    """Other users of the machine cannot read reports."""
    assert [each.stat().st_mode & 0o777 for each in (comparison[0], comparison[0].parent)] == [0o700, 0o700]


def test_the_service_does_not_load_evidently() -> None:
    """Importing the job does not import Evidently."""
    code = "import service.jobs.column_report.job, sys; sys.exit('evidently' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_reason_of_a_child_is_the_message(spec: ReportSpec, tmp_path: Path) -> None:
    """The folder of a failed report is deleted."""
    folder = tmp_path / "a"
    failing = interpreter(tmp_path, f"printf 'no sample' > {folder}/reason.txt; exit 1")
    with pytest.raises(ReportFailed, match=r"^no sample$"):
        compare_columns(folder, spec, LONG_SECONDS, python=failing)
    assert not folder.exists()


def test_a_slow_child_is_killed_with_its_processes(spec: ReportSpec, tmp_path: Path) -> None:
    """After the timeout the child is killed, and so is its own child, which holds a lock here."""
    lock = tmp_path / "lock"
    slow = interpreter(tmp_path, f"flock {lock} sleep 600")
    with pytest.raises(ReportFailed, match=r"^not finished within 0.5 s$"):
        compare_columns(tmp_path / "a", spec, 0.5, python=slow)
    assert subprocess.run(["flock", "-w", "300", str(lock), "true"], check=False).returncode == 0


def test_a_comparison_stops_with_the_service(spec: ReportSpec, tmp_path: Path) -> None:
    """Stopping kills the child."""
    stop = Event()
    stop.set()
    slow = interpreter(tmp_path, "sleep 600")
    with pytest.raises(ReportFailed, match="the service is stopping"):
        compare_columns(tmp_path / "a", spec, LONG_SECONDS, stop=stop, python=slow)


@pytest.mark.parametrize(
    ("script", "error"), [("exit 3", "the report process exited with code 3"), ("exit 0", "No such file")]
)
def test_a_failed_child_is_an_error(spec: ReportSpec, tmp_path: Path, script: str, error: str) -> None:
    """A child that leaves no reason, or no values, has failed."""
    with pytest.raises(ReportFailed, match=error):
        compare_columns(tmp_path / "a", spec, LONG_SECONDS, python=interpreter(tmp_path, script))


def test_a_report_leaves_the_folder_of_another_alone(spec: ReportSpec, tmp_path: Path) -> None:
    """A second report of one time fails, and deletes nothing of the first."""
    (tmp_path / "columns.json.gz").write_text("first")
    with pytest.raises(ReportFailed, match="exists"):
        compare_columns(tmp_path, spec, LONG_SECONDS)
    assert (tmp_path / "columns.json.gz").read_text() == "first"


def test_a_page_that_cannot_be_rendered_is_an_error(tmp_path: Path) -> None:
    """The message is the reason."""
    with pytest.raises(ReportFailed, match="exited with code 3"):
        render_page(tmp_path, LONG_SECONDS, python=interpreter(tmp_path, "exit 3"))


def test_the_reason_of_a_failure_quotes_no_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reason has the kind of the error; output and traceback are logged at level DEBUG."""
    caplog.set_level(logging.DEBUG)
    with gzip.open(tmp_path / "columns.json.gz", "wt") as file:
        json.dump([["heat", True, 0.1, [1.0, 2.0], ["4711-SECRET"]]], file)
    with pytest.raises(ReportFailed, match=r"^\w+$"):
        render_page(tmp_path, LONG_SECONDS)
    assert {each.levelname for each in caplog.records if "4711-SECRET" in each.getMessage()} == {"DEBUG"}


def test_the_latest_reports_are_kept(tmp_path: Path) -> None:
    """Older folders are deleted, and other folders stay."""
    folders = [report_folder(tmp_path, AT + timedelta(seconds=i)) for i in (3, 1, 2)]
    for folder in folders:
        folder.mkdir()
        (folder / "columns.json.gz").touch()
    (tmp_path / "notes").mkdir()
    prune(tmp_path, keep=2)
    assert sorted(tmp_path.iterdir()) == [folders[2], folders[0], tmp_path / "notes"]
    prune(tmp_path / "none")


def test_unfinished_reports_are_deleted(tmp_path: Path) -> None:
    """A killed service leaves folders with texts of records."""
    killed, finished = (report_folder(tmp_path, AT + timedelta(seconds=i)) for i in (2, 1))
    for folder in (killed, finished):
        folder.mkdir()
        (folder / "columns.json.gz").touch()
    (killed / "rows.jsonl").touch()
    prune(tmp_path)
    assert list(tmp_path.iterdir()) == [finished]
