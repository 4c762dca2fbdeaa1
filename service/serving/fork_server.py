"""Process that loads Python functions once, and forks a worker in milliseconds on request.

Run as a module with the descriptor of its end of a socket pair. It ends, and kills its workers, when the other end
is closed for any reason. It has one thread, and imports only what functions need.
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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from service.errors import traceback_without_values
from service.serving.channel import Channel, ConnectionClosed
from sfs.apply import RowEvaluator, format_fault
from sfs.function import SlicingFunction
from sfs.record import Columns
from sfs.registry import FunctionSet
from sfs.template import Template

TIMES = struct.Struct("<dd")
"""Time at which a function returned (monotonic), and the time that it took, in seconds."""
UNREADABLE = "unreadable"
"""Header of the answer to a call whose records cannot be parsed."""


def main(descriptor: int) -> NoReturn:
    """Load the functions that the first message names, answer with their fingerprints, then fork workers."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group when the service stops
        signal.signal(number, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=descriptor))
    settings, _ = channel.receive()
    # A file may hang while it is loaded, and the service may end meanwhile, which would go unnoticed here.
    signal.setitimer(signal.ITIMER_REAL, settings["load_seconds"])
    try:
        loaded = FunctionSet.from_files(settings["sources"], votes=True)
        functions = {function.name: function for function in loaded if not isinstance(function, Template)}
        fingerprints = {name: function.fingerprint for name, function in functions.items()}
    except Exception as error:
        channel.send({"error": str(error) or type(error).__name__})
        sys.exit(1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    gc.collect()
    gc.freeze()  # otherwise a collection in a worker would copy the pages of everything loaded
    channel.send({"fingerprints": fingerprints})
    _fork_on_request(channel.sock, functions, settings["memory_mb"])


def _fork_on_request(
    control: socket.socket, functions: Mapping[str, SlicingFunction], memory_mb: float | None
) -> NoReturn:
    """Fork a worker for each pair of socket and eventfd received, until the socket is closed."""
    control.setblocking(True)
    with suppress(OSError):
        while descriptors := socket.recv_fds(control, 1, 2, socket.MSG_CMSG_CLOEXEC)[1]:
            sock, eventfd = socket.socket(fileno=descriptors[0]), descriptors[1]
            process = -1
            try:
                process = os.fork()
            except OSError:  # the closed socket signals the failure
                traceback.print_exc()
            if process == 0:
                control.close()
                _run_worker(sock, eventfd, functions, memory_mb)
            sock.close()
            os.close(eventfd)
    os.killpg(0, signal.SIGKILL)  # the workers, and this process
    raise SystemExit


def _run_worker(
    sock: socket.socket, eventfd: int, functions: Mapping[str, SlicingFunction], memory_mb: float | None
) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a function may have children of its own
        with suppress(OSError):  # out of memory, the kernel should kill this process, not the service
            Path("/proc/self/oom_score_adj").write_text("1000")
        if memory_mb is not None:  # on top of the current address space
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + int(memory_mb * 2**20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        channel = Channel(sock, notify_eventfd=eventfd)
        socket.send_fds(sock, [b"\0"], [os.pidfd_open(os.getpid())])
        channel.notify()
        serve_calls(channel, functions)
    except BaseException as error:  # a function may raise more than Exception
        sys.stderr.write(f"{traceback_without_values(error)}\n")
    finally:
        os._exit(0)


def serve_calls(channel: Channel, functions: Mapping[str, SlicingFunction]) -> None:
    """Serve one call after another, until the other end is closed.

    The header of a call names ``functions``, and has ``positions`` if its rows are not the first of their batch;
    its body is N records as JSON. Each function is answered as soon as it returns: `TIMES`, then N bytes of
    membership and N of unknown; if any are unknown, with ``reasons`` and ``fault`` in the header.
    """
    try:
        while True:
            header, body = channel.receive()
            for answer in call_functions(functions, header, body):
                channel.send(*answer)
            channel.notify()
    except ConnectionClosed:
        return


def call_functions(
    functions: Mapping[str, SlicingFunction], header: Mapping[str, Any], body: bytes
) -> Iterator[tuple[Any, bytes]]:
    """Yield the answer of each function of a call, as header and body."""
    try:
        records = Columns(json.loads(body)).records
    except (ValueError, RecursionError):
        yield UNREADABLE, b""
        return
    for name in header["functions"]:
        rows = RowEvaluator((functions[name],), len(records))
        rows.evaluate(0, records)
        [results] = rows.results
        reply = None
        if results.reasons:
            fault = None
            if results.first_fault is not None:
                row, error = results.first_fault
                fault = format_fault(header["positions"][row] if "positions" in header else row, error)
            reply = {"reasons": results.reasons, "fault": fault}
        times = TIMES.pack(monotonic(), results.seconds)
        yield reply, b"".join((times, (results.values == 1).tobytes(), results.unknown.tobytes()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
