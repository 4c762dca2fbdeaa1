"""Training in a child process: its results, its failures and its end."""

import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from models.bundle.model_bundle import ModelBundle
from models.comments.generate import generate
from models.config import LearnerConfig, TrainConfig
from models.features import FeatureSpec
from models.training import train
from service.decisions import PairedCounts
from service.errors import ServiceError
from service.jobs.child_process import ChildProcess
from service.jobs.training.process import (
    RunningTraining,
    TrainingFailed,
    start_training,
)
from service.jobs.training.spec import (
    TRAFFIC,
    TrainingResult,
    TrainingSpec,
    read_result,
    read_spec,
    read_traffic,
    result_to_json,
    write_spec,
    write_traffic,
)
from sfs.registry import FunctionSet

FEATURES = {"text": "text", "likes": "number"}
LEARNER = {"kind": "erm", "n_epochs": 2, "widths": [8]}
SLICES = "slices:\n  - {name: liked, compare: {field: likes, above: 5}}\n"
ADDED = (
    {"name": "asks", "keyword": {"field": "text", "words": ["please"]}},
    {"name": "liked", "missing": {"field": "likes"}},
    {"name": "nowhere", "missing": {"field": "no such column"}},
)
SECONDS = 600  # a child that takes longer hangs
SLEEPING = "import time\ntime.sleep(600)\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 comments, a function, a champion trained on them, and traffic of which 3 rows lack the text."""
    folder = tmp_path_factory.mktemp("project")
    rows = generate(600, seed=1).assign(at=pd.date_range("2026-02-16", periods=600, freq="h"))
    rows.to_csv(folder / "rows.csv", index=False)
    (folder / "slices.yaml").write_text(SLICES)
    features = tuple(FeatureSpec(*each) for each in FEATURES.items())
    learner = LearnerConfig(**{**LEARNER, "widths": (8,)})
    functions = FunctionSet.from_files([folder / "slices.yaml"])
    train(TrainConfig("label", features, functions, learner, "comments"), rows).save(folder / "champion")
    records = generate(200, seed=2).to_dict("records")
    lines = [({"text": each["text"], "likes": int(k)}, each["label"]) for k, each in enumerate(records)]
    lines += [({"likes": 3}, "spam")] * 3
    write_traffic(folder / TRAFFIC, [(json.dumps(record), label) for record, label in lines])
    return folder


def spec_of(project: Path, **changes: object) -> TrainingSpec:
    values = {
        "name": "comments",
        "label": "label",
        "features": FEATURES,
        "data": str(project / "rows.csv"),
        "functions": (str(project / "slices.yaml"),),
        "added": ADDED,
        "learner": LEARNER,
        "traffic": str(project / TRAFFIC),
        "champion": str(project / "champion"),
        "time": "at",
        "time_zone": "Europe/Berlin",
    }
    return TrainingSpec(**{**values, **changes})  # type: ignore[arg-type]


def wait(pid: int) -> None:
    """Wait for the end of a process without reaping it."""
    descriptor = os.pidfd_open(pid)
    try:
        assert select.select([descriptor], [], [], SECONDS)[0]
    finally:
        os.close(descriptor)


def outcome(training: RunningTraining) -> TrainingResult | TrainingFailed | None:
    wait(training.pid)
    return training.poll()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningTraining]]:
    """Starts trainings, and kills those that still run."""
    started = []

    def start_one(spec: TrainingSpec, **limits: object) -> RunningTraining:
        started.append(start_training(tmp_path / "run" / "attempt-1", spec, **limits))  # type: ignore[arg-type]
        return started[-1]

    yield start_one
    for training in started:
        training.kill()


@pytest.fixture(scope="module")
def done(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunningTraining, TrainingResult]:
    """One finished training, for many tests."""
    usual = os.umask(0o022)
    training = start_training(tmp_path_factory.mktemp("run") / "attempt-1", spec_of(project))
    os.umask(usual)
    result = outcome(training)
    assert isinstance(result, TrainingResult), result
    return training, result


def test_a_training_counts_its_rows_and_pairs(
    done: tuple[RunningTraining, TrainingResult],
) -> None:
    """Rows of the table and of traffic are counted; pairs are of all rows first, then of the slices."""
    _, result = done
    data = result.data
    assert (data["base_rows"], data["traffic_rows"], data["traffic_left_out"]) == (600, 200, 3)
    assert 0 < data["held_out_traffic_rows"] < data["held_out_rows"] < 160
    assert data["held_out_contents"] <= data["contents"] <= 800
    assert data["functions_set_aside"] == ["nowhere"]
    assert data["seconds"] > 0
    assert [each.slice for each in result.pairs] == ["__all__", "liked", "asks"]
    assert result.pairs[0].n == data["held_out_contents"]
    assert all(isinstance(each, PairedCounts) and each.candidate.n == each.n for each in result.pairs)


def test_the_candidate_is_a_complete_bundle(done: tuple[RunningTraining, TrainingResult]) -> None:
    """It has the functions of files and the added ones, and its lineage counts the rows of each source."""
    _, result = done
    bundle = ModelBundle.load(result.candidate)
    assert bundle.slice_names == ("liked", "asks")
    assert bundle.lineage["data"] == {"base_rows": 600, "traffic_rows": 200, "traffic_left_out": 3}
    assert bundle.reference["__all__"].n == 800


def test_the_candidate_has_the_season_of_the_rows_with_a_time(done: tuple[RunningTraining, TrainingResult]) -> None:
    """The rows of the table have one, those of the log do not."""
    season = ModelBundle.load(done[1].candidate).season
    assert season is not None
    assert (season.zone, sum(season.rows)) == ("Europe/Berlin", 600)


def test_a_result_can_be_read_again(done: tuple[RunningTraining, TrainingResult]) -> None:
    """The folder has the result, and a last heartbeat."""
    training, result = done
    assert read_result(training.folder) == result == training.poll()
    heartbeat = json.loads((training.folder / "heartbeat.json").read_text())
    assert (heartbeat["stage"], heartbeat["share"]) == ("done", 1.0)


def test_the_files_of_a_training_are_private(done: tuple[RunningTraining, TrainingResult]) -> None:
    """The folder and its files may quote customers."""
    folder = done[0].folder
    left = [folder, *folder.rglob("*")]
    assert {"spec.json", "result.json", "candidate"} <= {each.name for each in left}
    assert [each for each in left if each.stat().st_mode & 0o077] == []


def test_the_traffic_file_is_private(tmp_path: Path) -> None:
    """An existing file gets the mode of a new one."""
    (tmp_path / TRAFFIC).touch(mode=0o644)
    write_traffic(tmp_path / TRAFFIC, [("{}", "spam")])
    assert (tmp_path / TRAFFIC).stat().st_mode & 0o777 == 0o600


def test_an_existing_folder_becomes_private(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining]
) -> None:
    """Its mode is changed."""
    (tmp_path / "run" / "attempt-1").mkdir(parents=True, mode=0o755)
    assert start(spec_of(project)).folder.stat().st_mode & 0o777 == 0o700


PAIRS = {"slice": "__all__", "n": 4, "both": 2, "only_champion": 1, "only_candidate": 1}
RESULT = {"candidate": "/moved/candidate", "data": {}, "pairs": [PAIRS]}


def without(values: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in values.items() if key != name}


MISFITS = [
    [],
    *(without(RESULT, name) for name in RESULT),
    *({**RESULT, "pairs": [without(PAIRS, name)]} for name in PAIRS),
    *({**RESULT, name: 7} for name in RESULT),
    *({**RESULT, "pairs": pairs} for pairs in ([7], [{**PAIRS, "n": "4"}], [{**PAIRS, "n": 3}])),
    {**RESULT, "pairs": [{**PAIRS, "both": -1}]},
    {"hash": "abc", "data": {}, "cells": [{**PAIRS, "rows": 5}]},  # of an earlier release
]


@pytest.mark.parametrize("content", MISFITS)
def test_a_result_of_another_release_is_ignored(tmp_path: Path, content: object) -> None:
    """An unreadable result counts as none; unknown fields are ignored."""
    (tmp_path / "result.json").write_text(json.dumps({**RESULT, "more": 1}))
    result = read_result(tmp_path)
    assert result == TrainingResult(tmp_path / "candidate", (PairedCounts("__all__", 4, 2, 1, 1),), {})
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert read_result(tmp_path) is None


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], RunningTraining]]:
    """Starts trainings whose process runs a script in place of the worker."""
    monkeypatch.syspath_prepend(tmp_path)
    started = []

    def start_script(script: str) -> RunningTraining:
        (tmp_path / "scripted_worker.py").write_text(script)
        process = ChildProcess("scripted_worker", folder=tmp_path)
        started.append(RunningTraining(tmp_path, process, SECONDS, SECONDS, lambda: 0.0))
        return started[-1]

    yield start_script
    for training in started:
        training.kill()


def test_an_unreadable_result_is_a_failure(tmp_path: Path, scripted: Callable[[str], RunningTraining]) -> None:
    """The failure is final; an unreadable heartbeat is ignored."""
    (tmp_path / "heartbeat.json").write_text("[]")
    training = scripted("import sys\nsys.stdin.read()\n")
    assert training.poll() is None
    (tmp_path / "result.json").write_text('{"pairs": []}')
    training = scripted("")
    failed = outcome(training)
    assert failed == TrainingFailed("the training process exited, but its result cannot be read")
    assert training.poll() is failed


def test_a_training_without_its_folder_has_failed(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining]
) -> None:
    """The reason names the signal."""
    (tmp_path / "slices.py").write_text(SLEEPING)
    training = start(spec_of(project, functions=(str(tmp_path / "slices.py"),)))
    os.kill(training.pid, signal.SIGKILL)
    wait(training.pid)
    shutil.rmtree(training.folder)
    assert training.poll() == TrainingFailed("the training process was killed by signal 9 (Killed)")


@pytest.mark.usefixtures("forked_children")
def test_unusable_rows_are_a_failure(project: Path, tmp_path: Path, start: Callable[..., RunningTraining]) -> None:
    """A table of one class fails with the message of `train`, and without a candidate."""
    pd.read_csv(project / "rows.csv").assign(label="ham").to_csv(tmp_path / "one.csv", index=False)
    training = start(spec_of(project, data=str(tmp_path / "one.csv"), traffic=None))
    failed = outcome(training)
    assert isinstance(failed, TrainingFailed)
    assert failed.reason.startswith("label column 'label' holds only 'ham'")
    assert read_result(training.folder) is None
    assert not (training.folder / "candidate").exists()


def test_an_unexpected_exit_quotes_the_output(scripted: Callable[[str], RunningTraining]) -> None:
    """The reason has the exit code and the last lines of the output."""
    failed = outcome(scripted("import os\nprint(*'abc', 'almost there', sep='\\n', flush=True)\nos._exit(7)\n"))
    assert failed == TrainingFailed("the training process exited with code 7; its last output: b / c / almost there")


@pytest.mark.usefixtures("forked_children")
def test_an_unexpected_error_is_a_failure_without_its_message(
    project: Path, start: Callable[..., RunningTraining], caplog: pytest.LogCaptureFixture
) -> None:
    """The message, which may quote a row, is in the traceback that is logged at level DEBUG."""
    caplog.set_level(logging.DEBUG)
    failed = outcome(start(spec_of(project, learner={"kind": "erm", "4711-SECRET": 1}, traffic=None)))
    assert failed == TrainingFailed("unexpected TypeError; SLICEWATCH_DEBUG=1 logs the traceback: please report it")
    assert {each.levelname for each in caplog.records if "4711-SECRET" in each.getMessage()} == {"DEBUG"}


class Clock:
    """Settable seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_training_that_takes_too_long_is_killed(project: Path, start: Callable[..., RunningTraining]) -> None:
    """It runs up to the timeout; the reason has the last progress."""
    clock = Clock()
    training = start(spec_of(project), timeout_seconds=60, silence_seconds=1000, clock=clock)
    clock.seconds = 60
    assert training.poll() is None
    clock.seconds = 60.5
    failed = training.poll()
    assert isinstance(failed, TrainingFailed)
    assert failed.reason.startswith("the training took longer than 60 s; last progress: ")
    assert gone(training.pid)
    assert training.poll() is failed


def test_a_training_without_heartbeats_is_killed(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining]
) -> None:
    """A suspended process sends no heartbeat."""
    (tmp_path / "slices.py").write_text(SLEEPING)
    clock = Clock()
    spec = spec_of(project, functions=(str(tmp_path / "slices.py"),))
    training = start(spec, timeout_seconds=1000, silence_seconds=20, clock=clock)
    os.kill(training.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, training.pid, os.WSTOPPED | os.WNOWAIT)
    training.poll()  # reads the last beat, if any
    clock.seconds = 20
    assert training.poll() is None
    clock.seconds = 21
    failed = training.poll()
    assert isinstance(failed, TrainingFailed)
    assert failed.reason.startswith("the training sent no heartbeat for 20 s; last progress: ")
    assert gone(training.pid)


def test_a_training_can_be_killed(project: Path, start: Callable[..., RunningTraining]) -> None:
    """Its process is gone at once."""
    training = start(spec_of(project))
    training.kill()
    assert gone(training.pid)
    assert training.poll() == TrainingFailed("the training was stopped")


PARENT = """
import json, sys
from dataclasses import replace
from pathlib import Path
from service.jobs.training.process import start_training
from service.jobs.training.spec import TrainingSpec

values = json.loads(sys.argv[2])
training = start_training(Path(sys.argv[1]), TrainingSpec(**values | {"functions": (), "added": ()}))
print(training.pid, flush=True)
sys.stdin.read()
"""


def test_a_training_ends_with_its_parent(project: Path, tmp_path: Path) -> None:
    """Killing the parent kills the training process."""
    spec = spec_of(project)
    values = json.dumps({name: getattr(spec, name) for name in spec.__slots__})
    command = [sys.executable, "-c", PARENT, str(tmp_path / "run"), values]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        descriptor = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert select.select([descriptor], [], [], SECONDS)[0]
    os.close(descriptor)


def test_an_unwritable_folder_is_an_error(project: Path, tmp_path: Path) -> None:
    """The message names the folder."""
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match=r"the training in .*file.* cannot start"):
        start_training(tmp_path / "file" / "run", spec_of(project))


def test_results_of_an_earlier_attempt_are_deleted(
    done: tuple[RunningTraining, TrainingResult], project: Path, tmp_path: Path
) -> None:
    """A reused folder has no result until there is a new one."""
    for name in ("result.json", "reason.txt"):
        (tmp_path / name).write_bytes((done[0].folder / "result.json").read_bytes())
    training = start_training(tmp_path, spec_of(project))
    training.kill()
    assert read_result(tmp_path) is None
    assert not (tmp_path / "reason.txt").exists()


def test_specs_and_results_survive_the_round_trip(project: Path, tmp_path: Path) -> None:
    """Every field is equal after reading."""
    for spec in (
        spec_of(project),
        replace(spec_of(project), data="caf\udce9.csv"),
    ):  # a path that is not UTF-8
        write_spec(tmp_path, spec)
        assert read_spec(tmp_path) == spec
    result = TrainingResult(tmp_path / "candidate", (PairedCounts("a", 4, 1, 1, 1),), {"seconds": 1.5})
    (tmp_path / "result.json").write_text(result_to_json(result))
    assert read_result(tmp_path) == result


@pytest.mark.parametrize("line", ["[]", '{"features": [], "label": "a"}', '{"features": {}, "label": 1}', "{"])
def test_malformed_traffic_is_an_error(tmp_path: Path, line: str) -> None:
    """The message names the line."""
    file = tmp_path / TRAFFIC
    assert write_traffic(file, [('{"text": "é"}', "a b")]) == 1
    assert read_traffic(file) == [({"text": "é"}, "a b")]
    with file.open("a") as more:
        more.write(line + "\n")
    with pytest.raises(ServiceError, match=r"traffic.jsonl, line 2: not a labelled row"):
        read_traffic(file)
