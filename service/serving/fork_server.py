"""The process that loads plain functions once, and forks a worker in milliseconds whenever one is needed.

It is run as a module with the number of its end of a socket pair. It ends when the other end is closed, however
that came about, and takes its workers with it. It has one thread, and does not import what functions do not.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from service.serving.channel import Channel, ConnectionClosed
from sfs.apply import RowEvaluator, RowResults, format_fault
from sfs.function import SlicingFunction
from sfs.record import Columns
from sfs.registry import FunctionSet
from sfs.template import Template


def main(descriptor: int) -> NoReturn:
    """Load what the first message asks for, say what was loaded, and fork a worker for each socket that comes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes, to make the service stop orderly
        signal.signal(number, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=descriptor))
    settings, _ = channel.receive()
    # A file may never be loaded to its end, and the service be gone, which nobody here would notice.
    signal.setitimer(signal.ITIMER_REAL, settings["load_seconds"])
    try:
        functions = plain_functions(settings["sources"])
        fingerprints = {name: each.fingerprint for name, each in functions.items()}
    except Exception as error:
        channel.send({"error": str(error) or type(error).__name__})
        sys.exit(1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    gc.collect()
    gc.freeze()  # or a collection in a worker would copy the pages of all that was loaded
    channel.send({"fingerprints": fingerprints})
    _fork_on_demand(channel.sock, functions, settings["memory_mb"])


def plain_functions(sources: Iterable[str]) -> dict[str, SlicingFunction]:
    """Return the functions of files and modules that are no templates, by name."""
    loaded = FunctionSet.from_files(sources, votes=True)
    return {each.name: each for each in loaded if not isinstance(each, Template)}


def _fork_on_demand(
    control: socket.socket, functions: Mapping[str, SlicingFunction], memory_mb: float | None
) -> NoReturn:
    control.setblocking(True)
    while descriptors := _received(control):
        sock, bell = socket.socket(fileno=descriptors[0]), descriptors[1]
        process = -1
        try:
            process = os.fork()
        except OSError:  # the closed socket tells that there is no worker
            traceback.print_exc()
        if process == 0:
            control.close()
            _become_worker(sock, bell, functions, memory_mb)
        sock.close()
        os.close(bell)
    os.killpg(0, signal.SIGKILL)  # the workers, and this process
    raise SystemExit


def _received(control: socket.socket) -> list[int]:
    """Return socket and bell of the next worker, or nothing when nobody will ask for one any more."""
    with suppress(OSError):
        return socket.recv_fds(control, 1, 2, socket.MSG_CMSG_CLOEXEC)[1]
    return []


def _become_worker(
    sock: socket.socket, bell: int, functions: Mapping[str, SlicingFunction], memory_mb: float | None
) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a function may have children of its own
        with suppress(OSError):  # if memory runs out, the kernel should take this process, not the service
            Path("/proc/self/oom_score_adj").write_text("1000")
        if memory_mb is not None:
            _limit_memory(memory_mb)
        channel = Channel(sock, rings=bell)
        socket.send_fds(sock, [b"\0"], [os.pidfd_open(os.getpid())])
        channel.ring()
        work(channel, functions)
    except BaseException:  # a function raised what is no Exception
        traceback.print_exc()
    finally:
        os._exit(0)


def _limit_memory(memory_mb: float) -> None:
    """Let the process take so much more address space than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(memory_mb * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


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
    except ConnectionClosed:
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
    asked = RowEvaluator((function,), len(records))
    asked.evaluate(0, records)
    [given] = asked.results
    header = {"reasons": given.reasons, "fault": _fault(given, positions)} if given.reasons else None
    times = TIMES.pack(monotonic(), given.seconds)
    return header, b"".join((times, (given.values == 1).tobytes(), given.unknown.tobytes()))


def _fault(given: RowResults, positions: list[int] | None) -> str | None:
    if given.first_fault is None:
        return None
    row, error = given.first_fault
    return format_fault(row if positions is None else positions[row], error)


if __name__ == "__main__":
    main(int(sys.argv[1]))
