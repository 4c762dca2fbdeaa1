"""Training in a child process: what it leaves, and that it ends."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from models.bundle.model_bundle import ModelBundle
from models.comments.generate import generate
from models.config import LearnerConfig, TrainConfig
from models.features import FeatureSpec
from models.registry import ModelRegistry
from models.training import train
from service.decisions import PairedCounts
from service.errors import ServiceError
from service.jobs.training.process import (
    RunningTraining,
    TrainingFailed,
    TrainingResult,
    begin,
    read_result,
    register,
)
from service.jobs.training.spec import TRAFFIC, TrainingSpec, read_traffic, write_traffic
from sfs.registry import FunctionSet

FEATURES = {"text": "text", "likes": "number"}
LEARNER = {"kind": "erm", "n_epochs": 2, "widths": [8]}
SLICES = "slices:\n  - {name: liked, compare: {field: likes, above: 5}}\n"
ADDED = (
    {"name": "asks", "keyword": {"field": "text", "words": ["please"]}},
    {"name": "liked", "missing": {"field": "likes"}},
    {"name": "nowhere", "missing": {"field": "no such column"}},
)
SECONDS = 120  # a child that is not done by then never will be
SLEEPING = "import time\ntime.sleep(600)\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 comments, a function, a champion trained on them, and traffic of which 3 rows lack the text."""
    folder = tmp_path_factory.mktemp("project")
    rows = generate(600, seed=1)
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
    }
    return TrainingSpec(**{**values, **changes})  # type: ignore[arg-type]


def wait(pid: int) -> None:
    """Wait until a process of ours has ended, without reaping it."""
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
    """Begins trainings, and ends those that still go on."""
    begun = []

    def begin_one(spec: TrainingSpec, **limits: object) -> RunningTraining:
        begun.append(begin(tmp_path / "run" / "attempt-1", spec, **limits))  # type: ignore[arg-type]
        return begun[-1]

    yield begin_one
    for training in begun:
        training.kill()


@pytest.fixture(scope="module")
def done(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunningTraining, TrainingResult]:
    """One training that came to its end, for many tests."""
    usual = os.umask(0o022)
    training = begin(tmp_path_factory.mktemp("run") / "attempt-1", spec_of(project))
    os.umask(usual)
    result = outcome(training)
    assert isinstance(result, TrainingResult), result
    return training, result


def test_a_training_leaves_a_candidate_and_how_it_fares(
    done: tuple[RunningTraining, TrainingResult],
) -> None:
    """Table and traffic are counted, and pairs are of all rows first, then of the slices."""
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


def test_the_candidate_is_a_whole_bundle(done: tuple[RunningTraining, TrainingResult]) -> None:
    """It has the functions of files and the added ones, and its lineage tells the rows of each source."""
    _, result = done
    bundle = ModelBundle.load(result.candidate)
    assert bundle.hash == result.hash
    assert bundle.slice_names == ("liked", "asks")
    assert bundle.lineage["data"] == {"base_rows": 600, "traffic_rows": 200, "traffic_left_out": 3}
    assert bundle.reference["__all__"].n == 800


def test_a_candidate_is_registered_once(done: tuple[RunningTraining, TrainingResult], tmp_path: Path) -> None:
    """Again it is the same version."""
    registry = ModelRegistry(tmp_path, "comments")
    versions = [register(registry, done[1].candidate) for _ in range(2)]
    assert versions == [1, 1]
    assert registry.alias() is None


def test_a_result_is_found_again(done: tuple[RunningTraining, TrainingResult]) -> None:
    """Whoever comes later reads it from the folder; progress says that it is done."""
    training, result = done
    assert read_result(training.folder) == result == training.poll()
    assert training.progress() == ("done", 1.0)


def test_what_a_training_leaves_is_for_nobody_else(done: tuple[RunningTraining, TrainingResult]) -> None:
    """Its folder, and all that is in it, quote what customers wrote."""
    folder = done[0].folder
    left = [folder, *folder.rglob("*")]
    assert {"spec.json", "words.txt", "result.json", "candidate"} <= {each.name for each in left}
    assert [each for each in left if each.stat().st_mode & 0o077] == []


def test_traffic_is_for_nobody_else(tmp_path: Path) -> None:
    """A file that is there already is as closed as a new one."""
    (tmp_path / TRAFFIC).touch(mode=0o644)
    write_traffic(tmp_path / TRAFFIC, [("{}", "spam")])
    assert (tmp_path / TRAFFIC).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_was_there_is_closed(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining]
) -> None:
    """Whoever made it may have left it open."""
    (tmp_path / "run" / "attempt-1").mkdir(parents=True, mode=0o755)
    assert start(spec_of(project)).folder.stat().st_mode & 0o777 == 0o700


CELLS = {"slice": "__all__", "n": 4, "both": 2, "only_champion": 1, "only_candidate": 1, "rows": 5}
RESULT = {"hash": "abc", "data": {}, "cells": [CELLS]}


def without(values: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in values.items() if key != name}


MISFITS = [
    [],
    *(without(RESULT, name) for name in RESULT),
    *({**RESULT, "cells": [without(CELLS, name)]} for name in CELLS if name != "rows"),
    *({**RESULT, name: 7} for name in RESULT),
    *({**RESULT, "cells": cells} for cells in ([7], [{**CELLS, "n": "4"}], [{**CELLS, "n": 3}])),
    {**RESULT, "cells": [{**CELLS, "both": -1}]},
]


@pytest.mark.parametrize("said", MISFITS)
def test_a_result_of_another_version_is_none(tmp_path: Path, said: object) -> None:
    """What cannot be understood is not taken for the end of a training; what is there beside is let be."""
    (tmp_path / "result.json").write_text(json.dumps({**RESULT, "more": 1}))
    assert read_result(tmp_path) == TrainingResult(
        tmp_path / "candidate", "abc", (PairedCounts("__all__", 4, 2, 1, 1),), {}
    )
    (tmp_path / "result.json").write_text(json.dumps(said))
    assert read_result(tmp_path) is None


LEAVING = """
import os
from pathlib import Path
Path({folder!r}, "result.json").write_text('{{"hash": "abc"}}')
Path({folder!r}, "beat.json").write_text('[]')
os._exit(0)
"""


def test_a_training_whose_result_is_not_understood_has_failed(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining]
) -> None:
    """It is said once and for all, and a sign of life that is none is none."""
    folder = tmp_path / "run" / "attempt-1"
    (tmp_path / "slices.py").write_text(LEAVING.format(folder=str(folder)))
    training = start(spec_of(project, functions=(str(tmp_path / "slices.py"),)))
    failed = outcome(training)
    assert failed == TrainingFailed("the training ended, and what it left as its result cannot be read")
    assert training.poll() is failed
    (folder / "beat.json").write_text("[]")
    assert training.progress() == ("starting", 0.0)


def test_a_training_whose_folder_is_gone_has_failed(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining]
) -> None:
    """Nothing is left to quote."""
    (tmp_path / "slices.py").write_text(SLEEPING)
    training = start(spec_of(project, functions=(str(tmp_path / "slices.py"),)))
    os.kill(training.pid, signal.SIGKILL)
    wait(training.pid)
    shutil.rmtree(training.folder)
    assert training.poll() == TrainingFailed("the process of the training ended by signal 9 (Killed)")


def test_rows_that_cannot_be_learned_from_say_why(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining]
) -> None:
    """A table of one class ends with the sentence that `train` gives, and without a candidate."""
    pd.read_csv(project / "rows.csv").assign(label="ham").to_csv(tmp_path / "one.csv", index=False)
    training = start(spec_of(project, data=str(tmp_path / "one.csv"), traffic=None))
    failed = outcome(training)
    assert isinstance(failed, TrainingFailed)
    assert failed.reason.startswith("label column 'label' holds only 'ham'")
    assert read_result(training.folder) is None
    assert not (training.folder / "candidate").exists()


def test_what_nobody_expected_is_quoted(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining]
) -> None:
    """A process that ends by itself leaves its code and its last words."""
    (tmp_path / "slices.py").write_text("import os\nprint('almost there', flush=True)\nos._exit(7)\n")
    failed = outcome(start(spec_of(project, functions=(str(tmp_path / "slices.py"),))))
    assert failed == TrainingFailed(
        "the process of the training ended with code 7; it said last: almost there"
    )


class Clock:
    """Seconds that a test sets."""

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


def test_a_training_that_takes_too_long_is_killed(
    project: Path, start: Callable[..., RunningTraining]
) -> None:
    """Up to the limit it goes on; beyond, it is ended, and says where it was."""
    clock = Clock()
    training = start(spec_of(project), timeout_seconds=60, silence_seconds=1000, clock=clock)
    clock.seconds = 60
    assert training.poll() is None
    clock.seconds = 60.5
    failed = training.poll()
    assert isinstance(failed, TrainingFailed)
    assert failed.reason.startswith("the training took longer than 60 s; it was at 0%: ")
    assert gone(training.pid)
    assert training.poll() is failed


def test_a_training_without_a_sign_of_life_is_killed(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining]
) -> None:
    """A process that is stopped beats no more; before, however long it takes, it goes on."""
    (tmp_path / "slices.py").write_text(SLEEPING)
    clock = Clock()
    spec = spec_of(project, functions=(str(tmp_path / "slices.py"),))
    training = start(spec, timeout_seconds=1000, silence_seconds=20, clock=clock)
    os.kill(training.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, training.pid, os.WSTOPPED | os.WNOWAIT)
    training.poll()  # notes the last beat, if there was one
    clock.seconds = 20
    assert training.poll() is None
    clock.seconds = 21
    failed = training.poll()
    assert isinstance(failed, TrainingFailed)
    assert failed.reason.startswith("the training gave no sign of life for 20 s; it was at 0%: ")
    assert gone(training.pid)


def test_a_training_can_be_ended(project: Path, start: Callable[..., RunningTraining]) -> None:
    """It is gone at once, and stays ended."""
    training = start(spec_of(project))
    training.kill()
    assert gone(training.pid)
    assert training.poll() == TrainingFailed("the training was ended before it was done")


PARENT = """
import json, sys
from pathlib import Path
from service.jobs.training.process import begin
from service.jobs.training.spec import TrainingSpec

training = begin(Path(sys.argv[1]), TrainingSpec(**json.loads(sys.argv[2])))
print(training.pid, flush=True)
sys.stdin.read()
"""


STARTING = """
import subprocess
from pathlib import Path
Path({fifo!r}).write_text(str(subprocess.Popen(["sleep", "600"]).pid))
"""


@pytest.mark.parametrize("by", ["itself", "the kernel"])
def test_what_outlives_a_training_is_ended(
    project: Path, tmp_path: Path, start: Callable[..., RunningTraining], by: str
) -> None:
    """Its process ends, or is killed; what its functions have started goes with it at the next look."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ending = "import os\nos._exit(7)\n" if by == "itself" else SLEEPING
    (tmp_path / "slices.py").write_text(STARTING.format(fifo=str(fifo)) + ending)
    training = start(spec_of(project, functions=[str(tmp_path / "slices.py")]))
    left = int(fifo.read_text())
    descriptor = os.pidfd_open(left)
    try:
        if by == "the kernel":
            os.kill(training.pid, signal.SIGKILL)
        failed = outcome(training)
        assert isinstance(failed, TrainingFailed)
        assert ("code 7" if by == "itself" else "signal 9") in failed.reason
        assert select.select([descriptor], [], [], 5)[0]
    finally:
        os.close(descriptor)
        with suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


def test_a_training_ends_with_its_parent(project: Path, tmp_path: Path) -> None:
    """Its parent is killed, and so it and what its functions have started are gone."""
    fifo, folder = tmp_path / "fifo", tmp_path / "run"
    os.mkfifo(fifo)
    (tmp_path / "slices.py").write_text(STARTING.format(fifo=str(fifo)) + SLEEPING)
    spec = spec_of(project, functions=[str(tmp_path / "slices.py")])
    values = {name: getattr(spec, name) for name in spec.__slots__}
    command = [sys.executable, "-c", PARENT, str(folder), json.dumps(values)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        processes = [int(parent.stdout.readline()), int(fifo.read_text())]
        descriptors = [os.pidfd_open(pid) for pid in processes]
        parent.kill()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], SECONDS)[0]
        os.close(descriptor)


def test_a_folder_that_cannot_be_written_is_an_error(project: Path, tmp_path: Path) -> None:
    """The message names it."""
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match=r"the training in .*file.* cannot begin"):
        begin(tmp_path / "file" / "run", spec_of(project))


def test_what_an_earlier_attempt_left_is_cleared(
    done: tuple[RunningTraining, TrainingResult], project: Path, tmp_path: Path
) -> None:
    """A folder that is used again has no result until there is a new one."""
    for name in ("result.json", "reason.txt"):
        (tmp_path / name).write_bytes((done[0].folder / "result.json").read_bytes())
    training = begin(tmp_path, spec_of(project))
    training.kill()
    assert read_result(tmp_path) is None
    assert not (tmp_path / "reason.txt").exists()


def test_specs_are_read_as_they_were_written(project: Path, tmp_path: Path) -> None:
    """Every field comes back; sequences as lists."""
    spec = spec_of(project)
    spec.write(tmp_path)
    read = TrainingSpec.read(tmp_path)
    assert (read.features, read.learner, read.champion) == (spec.features, spec.learner, spec.champion)
    assert (tuple(read.functions), tuple(read.added)) == (spec.functions, spec.added)


@pytest.mark.parametrize(
    "line", ["[]", '{"features": [], "label": "a"}', '{"features": {}, "label": 1}', "{"]
)
def test_traffic_that_is_none_names_the_line(tmp_path: Path, line: str) -> None:
    """What was written is read; anything else is refused."""
    file = tmp_path / TRAFFIC
    assert write_traffic(file, [('{"text": "é"}', "a b")]) == 1
    assert read_traffic(file) == [({"text": "é"}, "a b")]
    with file.open("a") as more:
        more.write(line + "\n")
    with pytest.raises(ServiceError, match=r"traffic.jsonl, line 2 is no labelled row"):
        read_traffic(file)
