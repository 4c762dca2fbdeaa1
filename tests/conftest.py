"""What every test may use, and the rule that nothing is skipped but what lacks the public data."""

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
import torch
from forked_python import ForkedPython
from hypothesis import settings
from tqdm import tqdm
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent
LEAK_SECONDS = 120.0
"""Time for threads and processes of a test to end, on a machine that does other things, too."""

ONE_PROCESS = (
    "tests/acceptance/test_faulty_functions.py",
    "tests/acceptance/test_keys.py",
    "tests/acceptance/test_malformed.py",
    "tests/acceptance/test_served_elsewhere.py",
    "tests/deploy/test_end_to_end.py",
    "tests/deploy/test_queries.py",
    "tests/service/console/test_browser.py",
    "tests/service/jobs/column_report/test_process.py",
    "tests/service/jobs/training/test_process.py",
    "tests/service/monitor/test_drift_detector_traffic.py",
    "tests/sfs/test_dask.py",
    "tests/sfs/test_spark.py",
    "tests/test_docs.py",
)
"""Modules whose fixtures take longest: their tests run in one process."""

SLOWEST = (
    "tests/service/monitor/test_drift_detector_traffic.py",
    "tests/acceptance/test_demo_kills.py",
    "tests/acceptance/test_demo.py",
    "tests/deploy/test_drift_end_to_end.py",
    "tests/chaos/test_soak.py",
    "tests/acceptance/test_handover.py",
    "tests/acceptance/test_ends.py",
    "tests/acceptance/test_openapi.py",
    "tests/acceptance/test_served_elsewhere.py",
    "tests/acceptance/test_hostile_templates.py",
    *ONE_PROCESS,
)
"""Modules whose tests take longest, or are taken together: they begin first, so that the others fill the gaps."""

FORKED_PYTHON = "SLICEWATCH_TEST_PYTHON"
"""Variable with the interpreter whose children are forked: one for all processes of a run."""
forked_python = pytest.StashKey[ForkedPython]()

settings.register_profile("patient", deadline=None)  # an example may take any time on a busy machine
settings.load_profile("patient")


class Scheduling(LoadScopeScheduling):
    """Distribution of the tests over processes: one by one, but for the modules that share slow fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module in ONE_PROCESS else nodeid


def pytest_configure(config: pytest.Config) -> None:
    """Start the process that forks children, in the process that starts the others."""
    if not hasattr(config, "workerinput"):
        config.stash[forked_python] = ForkedPython(Path(tempfile.mkdtemp(prefix="forked-")))
        os.environ[FORKED_PYTHON] = str(config.stash[forked_python].program)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process that forks children."""
    if forked_python in config.stash:
        config.stash[forked_python].close()
        shutil.rmtree(config.stash[forked_python].program.parent)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Look for no doctests in modules of tests, which have none: every process of a run collects all of them."""
    found = yield
    is_test = file_path.name.startswith("test_")
    return [each for each in found if not (is_test and type(each).__name__ == "DoctestModule")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest modules first."""
    place = {module: n for n, module in reversed([*enumerate(SLOWEST)])}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(SLOWEST)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Return the distribution of the tests, in the order of the collection."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def process_wide() -> None:
    """Set what belongs to the whole process: one thread for torch, and the helpers of libraries.

    Tiny networks train fastest, and reproducibly, on one thread. The monitor thread of tqdm and the resource
    tracker of multiprocessing would otherwise start in some test, and outlive it.
    """
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0
    resource_tracker.ensure_running()


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the public data sets, which SLICEWATCH_TEST_DATA names; the test is skipped without it."""
    folder = os.environ.get("SLICEWATCH_TEST_DATA")
    if not folder:
        pytest.skip("SLICEWATCH_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture
def forked_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of the service are forked from a process that has imported their libraries."""
    monkeypatch.setattr(sys, "executable", os.environ[FORKED_PYTHON])


def threads() -> set[threading.Thread]:
    """Return the running threads that a test could have started."""
    return {each for each in threading.enumerate() if type(each).__name__ != "_DummyThread"}


def children() -> set[int]:
    """Return the child processes of this one."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            found |= {int(each) for each in (task / "children").read_text().split()}
    return found


@pytest.fixture(autouse=True)
def nothing_outlives_the_test() -> Iterator[None]:
    """Fail a test that leaves a thread or a child process; those of fixtures with a wider scope were there before."""
    before = threads(), children()
    yield
    deadline = time.monotonic() + LEAK_SECONDS
    while (left := (threads() - before[0], children() - before[1])) != (set(), set()):
        if time.monotonic() > deadline:
            pytest.fail(f"the test left threads {left[0] or 'none'} and child processes {left[1] or 'none'}")
        time.sleep(0.01)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped anything, where SLICEWATCH_FORBID_SKIPS is set and the public data are there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("SLICEWATCH_FORBID_SKIPS") and os.environ.get("SLICEWATCH_TEST_DATA"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"{len(skipped)} skipped tests count as failures here", red=True)
