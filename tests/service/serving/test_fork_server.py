"""Calls as served by a worker, without its process."""

import json
import os
import socket
import threading
from typing import Any

import numpy as np

from service.serving.channel import Channel
from service.serving.fork_server import ANSWER, FUNCTION, UNREADABLE, answer_call, serve_calls
from sfs.function import SlicingFunction

FUNCTIONS = (
    SlicingFunction("odd", lambda x: x.n % 2 == 1),
    SlicingFunction("root", lambda x: x.n**0.5 > 1 if x.n >= 0 else 1 / 0),
    SlicingFunction("shy", lambda x: -1),
)
BODY = json.dumps([{"n": 1}, {"n": -1}, {"n": 4}]).encode()


def parts(body: bytes) -> list[tuple[int, list[list[int]]]]:
    """Return position, memberships and unknown rows of each function of an answer."""
    size, out = FUNCTION.size + 2 * 3, []
    for start in range(ANSWER.size, len(body), size):
        values = np.frombuffer(body, np.uint8, 6, start + FUNCTION.size).reshape(2, -1).tolist()
        out.append((FUNCTION.unpack_from(body, start)[0], values))
    return out


def call(*functions: int, **header: Any) -> tuple[Any, bytes]:
    return answer_call(FUNCTIONS, {"call": 7, "functions": functions, **header}, BODY)


def test_an_answer_has_memberships_and_unknown_rows() -> None:
    """A header only if some are unknown."""
    header, body = call(0, 1, 2)
    assert parts(body) == [
        (0, [[1, 1, 0], [0, 0, 0]]),
        (1, [[0, 0, 1], [0, 1, 0]]),
        (2, [[0, 0, 0], [1, 1, 1]]),
    ]
    assert header == {
        1: {"reasons": {"ZeroDivisionError": 1}, "fault": "row 1: ZeroDivisionError: division by zero"},
        2: {"reasons": {"abstained": 3}, "fault": None},
    }
    assert call(0)[0] is None


def test_only_functions_that_may_change_containers_get_copies() -> None:
    """And only if others read the records; copies take time."""
    seen: list[Any] = []
    functions = [SlicingFunction(name, lambda x: seen.append(x.tags) or True) for name in ("one", "other")]
    body = b'[{"tags":["a"]}]'

    def differ(reading: frozenset[int], *called: int) -> bool:
        seen.clear()
        answer_call(functions, {"call": 1, "functions": [*called]}, body, reading)
        return len({id(tags) for tags in seen}) > 1

    assert differ(frozenset(), 0, 1)
    assert not differ(frozenset((0, 1)), 0, 1)


def test_an_answer_names_call_and_process() -> None:
    """And each of its parts the function, with its CPU time."""
    body = call(2, 0)[1]
    assert ANSWER.unpack_from(body) == (7, os.getpid())
    assert [position for position, _ in parts(body)] == [2, 0]
    assert FUNCTION.unpack_from(body, ANSWER.size)[1] >= 0


def test_a_fault_has_the_position_in_the_batch() -> None:
    """Also if rows of the batch were left out."""
    header, _ = call(1, rows=[3, 5, 9])
    assert header[0]["fault"].startswith("row 5: ")


def test_unreadable_records_have_no_memberships() -> None:
    """The answer blames no function."""
    deep = b"[" * 100_000 + b"]" * 100_000
    for body in (b"[{]", deep):
        header, answer = answer_call(FUNCTIONS, {"call": 1, "functions": [0]}, body)
        assert (header, len(answer)) == (UNREADABLE, ANSWER.size)


def test_calls_are_served_until_the_socket_is_closed() -> None:
    """One after another."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve_calls, args=(Channel(theirs), FUNCTIONS))
    thread.start()
    channel = Channel(ours)
    for number in (1, 2):
        channel.send({"call": number, "functions": [0]}, BODY)
        answer = channel.receive()[1]
        assert (parts(answer)[0][1][0], ANSWER.unpack_from(answer)[0]) == ([1, 1, 0], number)
    channel.close()
    thread.join(300)
    theirs.close()
    assert not thread.is_alive()
