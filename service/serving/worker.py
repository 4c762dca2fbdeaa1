"""The inside of a worker, a process that asks plain functions about rows and may be killed at any moment."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

from service.serving.channel import Channel, HungUp
from sfs.function import SlicingFunction
from sfs.record import Columns
from sfs.rowwise import Answers, RowFunctions, fault_text

TIMES = struct.Struct("<dd")
"""When a function had answered (monotonic), and how long it took, in seconds."""
UNREADABLE = "unreadable"
"""The header that answers a job whose records cannot be read."""


def work(channel: Channel, functions: Mapping[str, SlicingFunction]) -> None:
    """Do one job after another, until nobody is at the other end.

    A job's header names ``functions``, and ``positions`` where its rows are not the first of their batch; its
    body holds the N records as JSON. Each function is answered as soon as it has returned: `TIMES`, then N
    bytes of membership and N of unknown; where some are, the header tells ``reasons`` and ``fault``.
    """
    try:
        while True:
            header, body = channel.receive()
            for answer in answers(functions, header, body):
                channel.send(*answer)
            channel.ring()
    except HungUp:
        return


def answers(
    functions: Mapping[str, SlicingFunction], header: Mapping[str, Any], body: bytes
) -> Iterator[tuple[Any, bytes]]:
    """Yield what each function of a job answers, as header and body."""
    try:
        records = Columns(json.loads(body)).records
    except (ValueError, RecursionError):
        yield UNREADABLE, b""
        return
    for name in header["functions"]:
        yield _answer(functions[name], records, header.get("positions"))


def _answer(
    function: SlicingFunction, records: list[Any], positions: list[int] | None
) -> tuple[dict[str, Any] | None, bytes]:
    asked = RowFunctions((function,), len(records))
    asked.ask(0, records)
    [given] = asked.answers
    header = {"reasons": given.reasons, "fault": _fault(given, positions)} if given.reasons else None
    times = TIMES.pack(monotonic(), given.seconds)
    return header, b"".join((times, (given.values == 1).tobytes(), given.unknown.tobytes()))


def _fault(given: Answers, positions: list[int] | None) -> str | None:
    if given.first_fault is None:
        return None
    row, error = given.first_fault
    return fault_text(row if positions is None else positions[row], error)
