"""The service as a process of its own."""

import os
import signal
from collections.abc import Callable

import pytest

from service.client.calls import Client
from service.client.failures import ClientError, NotRunning
from service.demo.deliver import Delivery
from service.demo.supervise import Supervised, free_port, is_free
from service.errors import ServiceError

Make = Callable[..., Supervised]


def _killed(service: Supervised) -> None:
    pid = service.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_service_that_was_killed_is_started_again(
    supervised: Make, starts: Callable[[], int], said: list[str]
) -> None:
    """Killed with -9, it answers again under the same address, and that is told."""
    service = supervised()
    service.start()
    assert not service.revive()
    before = service.pid
    _killed(service)
    assert service.pid is None
    assert service.revive()
    assert service.pid not in (None, before)
    assert starts() == 2
    assert "killed by SIGKILL" in said[0]


def test_a_call_outlives_a_kill(supervised: Make, starts: Callable[[], int]) -> None:
    """What is asked while the service is dead is answered by the next one."""
    service = supervised()
    service.start()
    delivery = Delivery(service)
    _killed(service)
    answers = []

    def call(client: Client) -> bool:
        if not answers:
            answers.append("asked")
            raise NotRunning("nothing listens")
        return client.ready().ready

    assert delivery.ask(call)
    assert starts() == 2
    delivery.close()


def test_one_that_does_not_start_says_why(supervised: Make) -> None:
    """Its last words are in the error."""
    service = supervised("import sys; sys.exit('no champion')")
    with pytest.raises(ServiceError, match=r"did not start \(exit code 1\).*no champion"):
        service.start()


def test_stopping_waits_for_the_end(supervised: Make) -> None:
    """It is asked to end, and has ended then; one that never ran has nothing to stop."""
    service = supervised()
    assert service.stop() is None
    service.start()
    assert service.stop() == -signal.SIGTERM
    assert is_free(service.port)


def test_a_taken_port_is_not_free(supervised: Make) -> None:
    """Where something listens no other can."""
    service = supervised()
    service.start()
    assert not is_free(service.port)
    assert is_free(free_port())


def test_busy_answers_are_asked_again(supervised: Make) -> None:
    """What the service cannot take now is sent again; what it refuses is not."""
    waits: list[float] = []
    delivery = Delivery(supervised(), sleep=waits.append)
    answers = [ClientError(429, "busy"), ClientError(503, "busy"), ClientError(422, "wrong")]

    def call(client: Client) -> bool:
        raise answers.pop(0)

    with pytest.raises(ClientError, match="422"):
        delivery.ask(call)
    assert len(waits) == 2


def test_what_is_not_there_yet_is_none(supervised: Make) -> None:
    """Before the first snapshot there is nothing to see, and nobody waits for it."""
    delivery = Delivery(supervised())
    answers = [ClientError(503, "no snapshot"), ClientError(404, "nothing"), ClientError(409, "wrong")]

    def call(client: Client) -> bool:
        raise answers.pop(0)

    assert delivery.look(call) is None
    assert delivery.look(call) is None
    with pytest.raises(ClientError, match="409"):
        delivery.look(call)
