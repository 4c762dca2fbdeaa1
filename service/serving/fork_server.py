"""Process that loads Python functions once, and forks a worker in milliseconds on request.

It has one thread, and imports only what functions need. It ends when the other end of its socket is closed.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import process_time
from typing import Any, NoReturn

from service.errors import traceback_without_values
from service.serving.channel import Channel, ConnectionClosed
from service.serving.confinement import confine
from service.serving.shareable import may_change_its_record, may_share
from sfs.apply import RowEvaluator, format_fault
from sfs.function import SlicingFunction
from sfs.record import Columns
from sfs.registry import FunctionSet
from sfs.template import Template

ANSWER = struct.Struct("<QI")
"""Head of an answer: call, process id of the worker."""
FUNCTION = struct.Struct("<Id")
"""Head of one function's part of an answer: its position among the fingerprints, CPU seconds."""
READY = "ready"
"""Header of a worker's first message."""
UNREADABLE = "unreadable"
"""Header of the answer to a call whose records cannot be parsed."""


def main(descriptor: int) -> NoReturn:
    """Load the functions that the first message names, answer with their fingerprints, then fork workers."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = Channel(socket.socket(fileno=descriptor))
    settings, _ = channel.receive()
    # A file may hang while it is loaded.
    signal.setitimer(signal.ITIMER_REAL, settings["load_seconds"])
    try:
        loaded = FunctionSet.from_files(settings["sources"], votes=True)
        functions = [function for function in loaded if not isinstance(function, Template)]
        fingerprints = {function.name: function.fingerprint for function in functions}
    except Exception as error:
        channel.send({"error": str(error) or type(error).__name__})
        sys.exit(1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    gc.collect()
    gc.freeze()  # otherwise a collection in a worker would copy the pages of everything loaded
    shareable = [function.name for function in functions if may_share(function)]
    reading = frozenset(k for k, function in enumerate(functions) if not may_change_its_record(function))
    channel.send({"fingerprints": fingerprints, "shareable": shareable})
    control = channel.sock
    control.setblocking(True)
    with suppress(OSError):
        while descriptors := socket.recv_fds(control, 1, 1, socket.MSG_CMSG_CLOEXEC)[1]:
            sock = socket.socket(fileno=descriptors[0])
            process = -1
            try:
                process = os.fork()
            except OSError:  # the closed socket signals the failure
                traceback.print_exc()
            if process == 0:
                control.close()
                _run_worker(sock, functions, reading, settings)
            sock.close()
    raise SystemExit


def _run_worker(
    sock: socket.socket,
    functions: Sequence[SlicingFunction],
    reading: frozenset[int],
    settings: Mapping[str, Any],
) -> NoReturn:
    try:
        confine(settings["memory_mb"], network=settings["network"], keep=sock.fileno())
        channel = Channel(sock)
        channel.send(READY)
        serve_calls(channel, functions, reading)
    except ConnectionClosed:
        pass  # the service has ended, or does without this worker
    except BaseException as error:  # a function may raise more than Exception
        sys.stderr.write(f"{traceback_without_values(error)}\n")
    finally:
        os._exit(0)


def serve_calls(channel: Channel, functions: Sequence[SlicingFunction], reading: frozenset[int] = frozenset()) -> None:
    """Serve one call after another, until the other end is closed; functions ``reading`` leave records unchanged.

    The header of a call has its number, ``call``, the positions of its ``functions``, and ``rows`` if its rows are not
    the first of their batch; its body is N records as JSON, or a file has them that comes with the message. The body
    of the answer is `ANSWER`, then for each function `FUNCTION`, N bytes of membership and N of unknown; if any are
    unknown, the header has ``reasons`` and ``fault`` by function.
    """
    with suppress(ConnectionClosed):
        while True:
            header, body = channel.receive()
            if channel.descriptor is not None:
                body = os.pread(channel.descriptor, header["bytes"], 0)  # the position is shared by all workers
                os.close(channel.descriptor)
                channel.descriptor = None
            channel.send(*answer_call(functions, header, body, reading))


def answer_call(
    functions: Sequence[SlicingFunction],
    header: Mapping[str, Any],
    body: bytes,
    reading: frozenset[int] = frozenset(),
) -> tuple[Any, bytes]:
    """Return the answer to a call, as header and body; the records are fresh, and only copied for further functions."""
    parts = [ANSWER.pack(header["call"], os.getpid())]
    try:
        records = Columns(json.loads(body)).records
    except (ValueError, RecursionError):
        return UNREADABLE, parts[0]
    faults: dict[int, Any] = {}
    for k, position in enumerate(header["functions"]):
        began = process_time()
        copies = position not in reading and len(header["functions"]) > 1
        rows = RowEvaluator((functions[position],), len(records), copies=copies)
        rows.evaluate(0, records)
        [results] = rows.results
        if results.reasons:
            fault = None
            if results.first_fault is not None:
                row, error = results.first_fault
                fault = format_fault(header["rows"][row] if "rows" in header else row, error)
            faults[k] = {"reasons": results.reasons, "fault": fault}
        parts.append(FUNCTION.pack(position, process_time() - began))
        parts += ((results.values == 1).tobytes(), results.unknown.tobytes())
    return faults or None, b"".join(parts)
