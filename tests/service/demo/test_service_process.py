"""The service as a child process."""

import signal
from collections.abc import Callable

import pytest

from service.demo.service_process import ServiceProcess, free_port, is_free
from service.errors import ServiceError

Make = Callable[..., ServiceProcess]


def test_a_service_that_was_killed_is_started_again(
    service_process: Make, kill: Callable, starts: Callable[[], int], printed: list[str]
) -> None:
    """Killed with SIGKILL, it answers again at the same address, and a message says so."""
    service = service_process()
    service.start()
    assert not service.revive()
    before = service.pid
    kill(service)
    assert service.pid is None
    assert service.revive()
    assert service.pid not in (None, before)
    assert starts() == 2
    assert "killed by SIGKILL" in printed[0]


def test_a_failed_start_has_the_end_of_the_log(service_process: Make) -> None:
    """The end of its log is in the error."""
    service = service_process("import sys; sys.exit('no champion')")
    with pytest.raises(ServiceError, match=r"did not start \(exit code 1\).*no champion"):
        service.start()


def test_a_start_without_progress_is_given_up(service_process: Make) -> None:
    """A process that is not ready and writes nothing is stopped; one that exits is not waited for."""
    service = service_process("import threading; threading.Event().wait()", patience_seconds=0.0)
    with pytest.raises(ServiceError, match="its log has not grown for 0 s"):
        service.start()
    assert service.pid is None


def test_stopping_waits_for_the_end(service_process: Make) -> None:
    """stop() returns once it has exited; one that never ran has nothing to stop."""
    service = service_process()
    assert service.stop() is None
    service.start()
    assert service.stop() == -signal.SIGTERM
    assert is_free(service.port)


def test_a_taken_port_is_not_free(service_process: Make) -> None:
    """A port with a listener is taken."""
    service = service_process()
    service.start()
    assert not is_free(service.port)
    assert is_free(free_port())
