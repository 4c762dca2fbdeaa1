"""Processes that are kept at hand."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from service.errors import ServiceError
from service.serving.breaker import BreakerLimits
from service.serving.function_call import STARTING, FunctionCall, records_of
from service.serving.isolation import Isolation
from service.serving.processes import FunctionResult

Eventually = Callable[[Callable[[], bool]], None]
LIMITS = BreakerLimits(back_off_seconds=10)


@pytest.fixture
def own(file: Path, clock: Any) -> Iterator[Isolation]:
    """Processes of one test, which it may kill."""
    isolation = Isolation([str(file)], LIMITS, clock)
    isolation.start()
    yield isolation
    isolation.close()


def asked(isolation: Isolation, name: str = "odd", **record: Any) -> FunctionResult | str:
    """Return what a function says of one record, or why nothing."""
    question = FunctionCall([name], [60], records_of([{"n": 1, **record}]), monotonic() + 60)
    outcome = question.put(isolation).outcomes[0]
    return outcome if isinstance(outcome, FunctionResult) else outcome.reason


def processes_of(isolation: Isolation, note: Path) -> tuple[int, int]:
    """Return the numbers of a worker and of the zygote."""
    assert isinstance(asked(isolation, "notes", note=str(note)), FunctionResult)
    worker, zygote = map(int, note.read_text().split())
    return worker, zygote


def test_one_worker_is_asked_again_and_again(own: Isolation, tmp_path: Path) -> None:
    """Nothing is forked as long as all goes well."""
    note = tmp_path / "note"
    assert processes_of(own, note) == processes_of(own, note)


def test_a_worker_lost_while_it_was_idle_is_nobodys_fault(
    own: Isolation, tmp_path: Path, alive: Callable[[int], bool], eventually: Eventually
) -> None:
    """The kernel takes one when memory runs out: another answers the same batch."""
    worker, _ = processes_of(own, tmp_path / "note")
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: not alive(worker))
    assert isinstance(asked(own), FunctionResult)
    assert processes_of(own, tmp_path / "note")[0] != worker


def test_a_zygote_that_is_lost_is_started_again(
    own: Isolation, tmp_path: Path, clock: Any, eventually: Eventually, alive: Callable[[int], bool]
) -> None:
    """After the back-off, off the request path; until then functions are unknown."""
    worker, zygote = processes_of(own, tmp_path / "note")
    os.killpg(zygote, signal.SIGKILL)
    eventually(lambda: not alive(worker) and not alive(zygote))
    # a socket may outlive its process for a moment
    eventually(lambda: asked(own) == STARTING and own.fingerprints is None)
    assert asked(own) == STARTING
    clock.seconds += LIMITS.back_off_seconds
    assert asked(own) == STARTING
    eventually(lambda: own.fingerprints is not None)
    assert isinstance(asked(own), FunctionResult)


def test_a_worker_outlives_its_zygote(
    own: Isolation, tmp_path: Path, eventually: Eventually, alive: Callable[[int], bool]
) -> None:
    """As long as no other one is needed, nobody notices."""
    _, zygote = processes_of(own, tmp_path / "note")
    os.kill(zygote, signal.SIGKILL)
    eventually(lambda: not alive(zygote))
    assert isinstance(asked(own), FunctionResult)


def test_files_that_cannot_be_loaded_are_tried_again_after_the_back_off(
    tmp_path: Path, clock: Any, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is written to the log each time."""
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    isolation = Isolation([str(path)], LIMITS, clock)
    with pytest.raises(ServiceError, match="ZeroDivisionError"):
        isolation.start()
    with caplog.at_level(logging.WARNING):
        assert asked(isolation) == STARTING
        eventually(lambda: "ZeroDivisionError" in caplog.text)
    path.write_text("from sfs.function import slicing_function\n@slicing_function()\ndef odd(x): return True")

    def loaded() -> bool:
        clock.seconds += LIMITS.back_off_seconds
        asked(isolation)
        return isolation.fingerprints is not None

    eventually(loaded)
    isolation.close()


def test_nothing_is_started_after_the_end(own: Isolation, tmp_path: Path) -> None:
    """Closing ends every process, and may be repeated."""
    own.close()
    own.close()
    assert asked(own) == STARTING
    own.start()
    assert own.fingerprints is None
