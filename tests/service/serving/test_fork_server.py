"""Calls as served by a worker, without its process."""

import json
import socket
import threading
from typing import Any

import numpy as np

from service.serving.channel import Channel
from service.serving.fork_server import TIMES, UNREADABLE, call_functions, serve_calls
from sfs.function import SlicingFunction

FUNCTIONS = {
    "odd": SlicingFunction("odd", lambda x: x.n % 2 == 1),
    "root": SlicingFunction("root", lambda x: x.n**0.5 > 1 if x.n >= 0 else 1 / 0),
    "shy": SlicingFunction("shy", lambda x: -1),
}
BODY = json.dumps([{"n": 1}, {"n": -1}, {"n": 4}]).encode()


def bits(body: bytes) -> list[list[int]]:
    """Return membership and unknown of an answer's body."""
    return np.frombuffer(body, np.uint8, offset=TIMES.size).reshape(2, -1).tolist()


def call(names: list[str], **header: Any) -> list[tuple[Any, bytes]]:
    return list(call_functions(FUNCTIONS, {"functions": names, **header}, BODY))


def test_each_function_has_an_answer_of_its_own() -> None:
    """Memberships and unknowns by row; a header only if some are unknown."""
    [odd, root, shy] = call(["odd", "root", "shy"])
    assert (odd[0], bits(odd[1])) == (None, [[1, 1, 0], [0, 0, 0]])
    assert bits(root[1]) == [[0, 0, 1], [0, 1, 0]]
    assert root[0] == {
        "reasons": {"ZeroDivisionError": 1},
        "fault": "row 1: ZeroDivisionError: division by zero",
    }
    assert (shy[0], bits(shy[1])) == ({"reasons": {"abstained": 3}, "fault": None}, [[0, 0, 0], [1, 1, 1]])


def test_a_fault_has_the_position_in_the_batch() -> None:
    """Also if rows of the batch were left out."""
    [(header, _)] = call(["root"], positions=[3, 5, 9])
    assert header["fault"].startswith("row 5: ")


def test_unreadable_records_have_one_answer() -> None:
    """It blames no function."""
    deep = b"[" * 100_000 + b"]" * 100_000
    for body in (b"[{]", deep):
        answers = list(call_functions(FUNCTIONS, {"functions": ["odd", "shy"]}, body))
        assert answers == [(UNREADABLE, b"")]


def test_calls_are_served_until_the_socket_is_closed() -> None:
    """One after another."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve_calls, args=(Channel(theirs), FUNCTIONS))
    thread.start()
    channel = Channel(ours)
    for _ in range(2):
        channel.send({"functions": ["odd", "odd"]}, BODY)
        assert [bits(channel.receive()[1])[0] for _ in range(2)] == [[1, 1, 0]] * 2
    channel.close()
    thread.join(20)
    theirs.close()
    assert not thread.is_alive()
