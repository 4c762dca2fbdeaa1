"""Reports on columns, from rows to page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
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
from service.decisions import DriftReport
from service.jobs.column_report.columns import PredictedRow
from service.jobs.column_report.job import ReportPageMissing, ReportSpec, folder_of, html, make_report, prune
from sfs.registry import FunctionSet

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
LONG_SECONDS = 200.0
SITES = ("home", "shop", "blog")
FUNCTIONS = "slices:\n- name: warm\n  compare: {field: heat, above: 0.5}\n"


def record(random: np.random.Generator, heat: float = 0.0, words: int = 5) -> dict[str, Any]:
    """Return a record whose heat moves, and whose calm never does."""
    return {
        "text": " ".join(random.choice(["good", "bad", "slow"], random.integers(2, words))),
        "heat": float(random.normal(heat)),
        "calm": float(random.normal()),
        "same": 3,
        "site": str(random.choice(SITES)),
    }


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ReportSpec:
    """Live traffic whose heat and texts have moved, half of it without probabilities."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bundle")
    random = np.random.default_rng(0)
    rows = pd.DataFrame([record(random) for _ in range(2500)])
    rows["label"] = np.where(rows["heat"] > 0, "yes", "no")
    kinds = {"text": "text", "heat": "number", "calm": "number", "same": "number", "site": "category"}
    (folder / "slices.yaml").write_text(FUNCTIONS)
    config = TrainConfig(
        name="m",
        label="label",
        features=[FeatureSpec(column, kind) for column, kind in kinds.items()],  # type: ignore[arg-type]
        functions=FunctionSet.from_files([folder / "slices.yaml"]),
        learner=LearnerConfig(n_epochs=2),
    )
    train(config, rows).save(folder / "bundle")
    live = [
        PredictedRow(record(random, heat=1, words=9), "yes", (0.1, 0.9) if i % 2 else None)
        for i in range(600)
    ]
    times = {"at": AT, "start": AT - timedelta(hours=1), "end": AT}
    return ReportSpec("m", 4, folder / "bundle", rows=live, sources=[str(folder / "slices.yaml")], **times)


@pytest.fixture(scope="module")
def made(spec: ReportSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DriftReport]:
    """A report, and its folder."""
    folder = folder_of(tmp_path_factory.mktemp("store") / "reports", AT)
    return folder, make_report(folder, spec, LONG_SECONDS)


@pytest.fixture
def columns(made: tuple[Path, DriftReport]) -> dict[str, Mapping[str, Any]]:
    return {each["column"]: each for each in made[1].columns}


def interpreter(folder: Path, commands: str) -> str:
    """Return a program that is run instead of Python."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{commands}\n")
    program.chmod(0o755)
    return str(program)


def test_a_report_tells_what_was_compared(made: tuple[Path, DriftReport]) -> None:
    """A report has the rows of both sides, and no error."""
    report = replace(made[1], columns=())
    assert report.reference_rows > 100
    assert report == DriftReport(
        id=0,
        model="m",
        version=4,
        at=AT,
        start=AT - timedelta(hours=1),
        end=AT,
        reference_rows=report.reference_rows,
        current_rows=600,
        columns=(),
    )


def test_what_moved_is_named_and_what_did_not_is_not(columns: dict[str, Mapping[str, Any]]) -> None:
    """The columns that moved have drifted, the calm ones have not."""
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
    """A number has means, a category shares; both have the distance that was measured."""
    heat, label = columns["heat"], columns["predicted label"]
    assert (heat["method"], heat["kind"]) == ("wasserstein", "number")
    assert heat["value"] == pytest.approx(1, abs=0.25)
    assert heat["mean"] == pytest.approx([0, 1], abs=0.25)
    assert label["method"] == "jensenshannon"
    assert label["shares"]["yes"][1] == 1
    assert all(each["threshold"] > 0 for each in columns.values())


def test_what_cannot_be_compared_says_why(columns: dict[str, Mapping[str, Any]]) -> None:
    """A constant column has no value but a reason, and rows without probabilities are not in the confidence."""
    assert columns["same"]["value"] is None
    assert columns["same"]["error"] == "every row of both sides has 3.0"
    assert columns["confidence"]["rows"][1] == 300


def test_a_page_is_made_once_of_what_was_kept(made: tuple[Path, DriftReport]) -> None:
    """The page names the columns; it is not made again, and no text of a record is kept for it."""
    folder = made[0]
    assert [path.name for path in folder.iterdir()] == ["columns.json.gz"]
    page = html(folder, LONG_SECONDS)
    text = page.read_text()
    assert "length of text" in text
    assert "good bad" not in text
    assert html(folder, LONG_SECONDS, python="/no/such/python") == page


def test_what_is_kept_is_for_nobody_else(made: tuple[Path, DriftReport]) -> None:
    """Other accounts of the machine can look into no report."""
    assert [each.stat().st_mode & 0o777 for each in (made[0], made[0].parent)] == [0o700, 0o700]


def test_the_service_does_not_load_evidently() -> None:
    """Whoever makes reports has loaded nothing of Evidently."""
    code = "import service.jobs.column_report.job, sys; sys.exit('evidently' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_broken_bundle_is_a_reason(spec: ReportSpec, tmp_path: Path) -> None:
    """A bundle that cannot be loaded gives a report that says so, and leaves no folder."""
    report = make_report(tmp_path / "a", replace(spec, bundle=tmp_path), LONG_SECONDS)
    assert "bundle" in report.error
    assert (report.columns, list(tmp_path.iterdir())) == ((), [])


def test_few_predictions_are_a_reason(spec: ReportSpec, tmp_path: Path) -> None:
    """With few predictions nothing is started."""
    report = make_report(tmp_path / "a", replace(spec, rows=spec.rows[:7]), 1, python="/no/such/python")
    assert report.error == "there are 7 predictions to compare, and 30 are needed"


def test_what_is_too_slow_is_killed_with_all_that_it_started(spec: ReportSpec, tmp_path: Path) -> None:
    """At the timeout the child goes, and so do its children, one of which holds a lock here."""
    lock = tmp_path / "lock"
    slow = interpreter(tmp_path, f"flock {lock} sleep 600")
    report = make_report(tmp_path / "a", spec, 0.5, python=slow)
    assert report.error == "it was not made within 0.5 s"
    assert subprocess.run(["flock", "-w", "20", str(lock), "true"], check=False).returncode == 0


def test_a_report_is_stopped_with_the_service(spec: ReportSpec, tmp_path: Path) -> None:
    """Whoever stops the service need not wait for a report."""
    stop = Event()
    stop.set()
    slow = interpreter(tmp_path, "sleep 600")
    report = make_report(tmp_path / "a", spec, LONG_SECONDS, stop=stop, python=slow)
    assert report.error == "it was stopped, as the service is"


@pytest.mark.parametrize(
    ("python", "error"), [("exit 3", "its process ended with code 3"), ("exit 0", "No such file")]
)
def test_a_child_that_fails_is_a_reason(spec: ReportSpec, tmp_path: Path, python: str, error: str) -> None:
    """However the child ends, the job goes on."""
    report = make_report(tmp_path / "a", spec, LONG_SECONDS, python=interpreter(tmp_path, python))
    assert error in report.error


def test_rows_that_cannot_be_written_are_a_reason(spec: ReportSpec, tmp_path: Path) -> None:
    """A value that is no JSON is named."""
    rows = [PredictedRow({"x": object()}, "yes", None)] * 40
    assert "JSON" in make_report(tmp_path / "a", replace(spec, rows=rows), LONG_SECONDS).error


def test_a_report_leaves_the_folder_of_another_alone(spec: ReportSpec, tmp_path: Path) -> None:
    """A second report of one moment fails, and takes nothing from the first."""
    (tmp_path / "columns.json.gz").write_text("first")
    assert "exists" in make_report(tmp_path, spec, LONG_SECONDS).error
    assert (tmp_path / "columns.json.gz").read_text() == "first"


def test_a_page_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    """What is no longer kept, or fails, is an error to show."""
    with pytest.raises(ReportPageMissing, match="the page of this report is gone: those of the last 20"):
        html(tmp_path / "gone", 1)
    (tmp_path / "columns.json.gz").write_bytes(b"")
    with pytest.raises(ReportPageMissing, match="could not be made: its process ended with code 3"):
        html(tmp_path, LONG_SECONDS, python=interpreter(tmp_path, "exit 3"))


def test_the_last_reports_are_kept(tmp_path: Path) -> None:
    """Older folders go, and what is no report's stays."""
    folders = [folder_of(tmp_path, AT + timedelta(seconds=i)) for i in (3, 1, 2)]
    for folder in folders:
        folder.mkdir()
        (folder / "columns.json.gz").touch()
    (tmp_path / "notes").mkdir()
    prune(tmp_path, keep=2)
    assert sorted(tmp_path.iterdir()) == [folders[2], folders[0], tmp_path / "notes"]
    prune(tmp_path / "none")


def test_what_was_left_unfinished_is_removed(tmp_path: Path) -> None:
    """What a service that was killed left behind, with the texts of its records, goes with the next report."""
    killed, finished = (folder_of(tmp_path, AT + timedelta(seconds=i)) for i in (2, 1))
    for folder in (killed, finished):
        folder.mkdir()
        (folder / "columns.json.gz").touch()
    (killed / "rows.jsonl").touch()
    prune(tmp_path)
    assert list(tmp_path.iterdir()) == [finished]
