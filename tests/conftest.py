"""What every test may use, and the rule that nothing is skipped but what lacks the public data."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny networks train fastest, and reproducibly, on one thread."""
    torch.set_num_threads(1)


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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped anything, where SLICEWATCH_FORBID_SKIPS is set and the public data are there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("SLICEWATCH_FORBID_SKIPS") and os.environ.get("SLICEWATCH_TEST_DATA"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"{len(skipped)} skipped tests count as failures here", red=True)
