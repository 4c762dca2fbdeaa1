"""Child processes: their output, their end, and the end of everything they started."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.jobs.child_process import NICENESS, ChildProcess

SECONDS = 600  # a child that takes longer hangs

START_SLEEP = """
import os, subprocess, sys
from pathlib import Path
from service.jobs.child_process import attach_to_parent
attach_to_parent(600)
Path(sys.argv[1]).write_text(str(subprocess.Popen(["sleep", "600"]).pid))
"""
SHOW_PRIORITY = """
import os
from pathlib import Path
from service.jobs.child_process import attach_to_parent
attach_to_parent(600)
autogroup = Path("/proc/self/autogroup")
print(os.nice(0), autogroup.read_text().split()[-1] if autogroup.exists() else None)
"""
WAIT_FOR_EVER = "import signal\nwhile True: signal.pause()\n"

PARENT = """
import sys
from pathlib import Path
from service.jobs.child_process import ChildProcess
folder = Path(sys.argv[1]).parent
sys.path.append(str(folder))
child = ChildProcess("child", sys.argv[1], folder=folder)
print(child.pid, flush=True)
sys.stdin.read()
"""

Start = Callable[..., ChildProcess]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a script as a child, and kills it after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    children = []

    def start_script(script: str, *arguments: object, **options: object) -> ChildProcess:
        (tmp_path / "child.py").write_text(script)
        children.append(ChildProcess("child", *arguments, folder=tmp_path, **options))  # type: ignore[arg-type]
        return children[-1]

    yield start_script
    for child in children:
        child.kill()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Returns the descriptor of the process that a child has started, and kills it after the test."""
    os.mkfifo(tmp_path / "fifo")
    descriptors: list[int] = []

    def read() -> int:
        descriptors.append(os.pidfd_open(int((tmp_path / "fifo").read_text())))
        return descriptors[-1]

    yield read
    for each in descriptors:
        if not has_ended(each, 0):
            signal.pidfd_send_signal(each, signal.SIGKILL)
        os.close(each)


def has_ended(descriptor: int, seconds: float = SECONDS) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def test_a_child_yields_the_processor_to_the_service(start: Start) -> None:
    """Its niceness is higher by ten, and so is that of its session, between which Linux divides the processor first."""
    children, autogroup = [start(SHOW_PRIORITY) for _ in range(3)], Path("/proc/self/autogroup")
    of_parent = int(autogroup.read_text().rpartition(" ")[2] or 0) if autogroup.exists() else None
    session = None if of_parent is None else min(of_parent + NICENESS, 19)
    for child in children:
        assert child.wait(SECONDS)
        child.kill()
        assert child.output == f"{min(os.nice(0) + NICENESS, 19)} {session}"


def test_a_child_has_arguments_environment_and_output(start: Start, tmp_path: Path) -> None:
    """Its output of both kinds can be read once it was killed; the file has no name."""
    script = "import os, sys\nprint(sys.argv[1:], os.environ['KEY'], flush=True)\nsys.exit('oh no')\n"
    child = start(script, "a", 1.5, environment={"KEY": "value"})
    assert child.wait(SECONDS)
    assert (child.output, child.exit_code) == ("", None)
    child.kill()
    assert (child.output, child.exit_code) == ("['a', '1.5'] value\noh no", 1)
    assert child.describe_exit() == "exited with code 1"
    assert {each.name for each in tmp_path.iterdir()} - {"__pycache__"} == {"child.py"}
    assert child.wait()


def test_the_end_of_a_long_output_is_kept(start: Start) -> None:
    """Bytes that are no text are replaced."""
    child = start("import os\nos.write(1, b'x' * 10_000 + b'\\xffend')\n")
    assert child.wait(SECONDS)
    child.kill()
    assert len(child.output) <= 4000
    assert child.output.endswith("x\ufffdend")


def test_a_killed_child_names_the_signal(start: Start) -> None:
    """A second call of `kill` has no effect."""
    child = start(WAIT_FOR_EVER)
    assert not child.wait(0.01)
    for _ in range(2):
        child.kill()
    assert child.describe_exit() == "was killed by signal 9 (Killed)"


def test_an_interpreter_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """Nothing is left open."""
    with pytest.raises(FileNotFoundError, match="no/such"):
        ChildProcess("child", folder=tmp_path, python="/no/such/python")


@pytest.mark.parametrize("end", ["exit", "kill", "delete"])
def test_processes_that_a_child_started_are_killed_with_it(
    start: Start, tmp_path: Path, sleeper: Callable[[], int], end: str
) -> None:
    """They do not outlive a child that exits, is killed, or whose object is deleted."""
    script = START_SLEEP + (WAIT_FOR_EVER if end != "exit" else "os._exit(7)")
    (tmp_path / "child.py").write_text(script)
    child = ChildProcess("child", tmp_path / "fifo", folder=tmp_path)
    started = sleeper()
    if end == "exit":
        assert child.wait(SECONDS)
        assert not has_ended(started, 0)
    if end == "delete":
        del child
    else:
        child.kill()
        assert child.exit_code == (7 if end == "exit" else -signal.SIGKILL)
    assert has_ended(started)


def test_a_child_and_its_processes_end_with_the_parent(
    start: Start, tmp_path: Path, sleeper: Callable[[], int]
) -> None:
    """Even a parent that was killed leaves nothing running; signals to stop are left to the parent."""
    (tmp_path / "child.py").write_text(START_SLEEP + WAIT_FOR_EVER)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "fifo")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        child, started = os.pidfd_open(pid), sleeper()
        os.kill(pid, signal.SIGTERM)
        assert not has_ended(child, 0)
        parent.kill()
    assert has_ended(child)
    assert has_ended(started)
    os.close(child)
