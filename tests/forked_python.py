"""An interpreter for child processes that is forked from a process that has imported their libraries.

Most of the processor time of a short child of the service is the import of torch, pandas and Evidently. The program
`ForkedPython.program` takes the place of ``sys.executable``: it has the arguments, environment, files and process
group that the service gives it, has one of the modules below run by a fork of the server, and ends as that one does.
Anything else is run by the interpreter itself.
"""

from __future__ import annotations

import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

IMPORTED: Mapping[str, Sequence[str]] = {
    "service": ("service.server", "service.runtime.runtime", "models.bundle.model_bundle"),
    "service.jobs.column_report.worker": ("models.bundle.model_bundle", "evidently", "evidently.metrics"),
    "service.jobs.reference.worker": (),
    "service.jobs.template_preview": (),
    "service.jobs.training.worker": ("models.training", "models.paired_comparison", "models.bundle.model_bundle"),
}
"""Modules that are run by a fork, with what each of them imports later."""

SIZE = struct.Struct("<I")
NUMBER = struct.Struct("<i")
"""Process id, and later the exit code."""

PROGRAM = """\
#!/bin/sh
for word; do
  case $word in {modules}) exec {python} -ISs {client} "$@";; esac
done
exec {python} "$@"
"""
CLIENT = """\
import array, json, os, signal, socket, struct, sys
mask = os.umask(0)
os.umask(mask)
words = sys.argv[sys.argv.index("-m") + 1:]
request = json.dumps([words, dict(os.environ), os.getcwd(), mask]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    files = array.array("i", [0, 1, 2])
    server.sendmsg([struct.pack("<I", len(request))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    server.sendall(request)
    process = struct.unpack("<i", server.recv(4))[0]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(process, number))
    code = struct.unpack("<i", server.recv(4))[0]
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class ForkedPython:
    """The server; ``folder`` takes the program and the socket."""

    def __init__(self, folder: Path) -> None:
        self.program, client, address = folder / "python", folder / "client.py", folder / "server"
        client.write_text(CLIENT.format(address=str(address)))
        self.program.write_text(PROGRAM.format(modules="|".join(IMPORTED), python=sys.executable, client=client))
        self.program.chmod(0o755)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(address))
        self._listening.listen(64)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", __file__, str(self._listening.fileno())],
            stdin=subprocess.PIPE,
            env={
                **os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "DO_NOT_TRACK": "1",
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)]),
            },
            pass_fds=[self._listening.fileno()],
        )  # fmt: skip

    def close(self) -> None:
        """End the process."""
        self._listening.close()
        self._process.communicate()


def serve(listening: socket.socket) -> None:
    """Fork a process for every connection, and answer with its exit code, until the standard input is closed."""
    poll, connections = select.poll(), dict[int, tuple[int, socket.socket]]()
    for descriptor in (0, listening.fileno()):
        poll.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == 0:
                return
            if descriptor == listening.fileno():
                connection = listening.accept()[0]
                try:
                    request, files = receive(connection)
                except EOFError:
                    connection.close()
                    continue
                pid = fork(connection, listening, request, files)
                answer(connection, pid)
                child = os.pidfd_open(pid)
                connections[child] = pid, connection
                poll.register(child, select.POLLIN)
            else:
                poll.unregister(descriptor)
                os.close(descriptor)
                pid, connection = connections.pop(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with connection:
                    answer(connection, code)


def answer(connection: socket.socket, number: int) -> None:
    """Send a number to the program, unless it was killed."""
    with suppress(OSError):
        connection.sendall(NUMBER.pack(number))


def receive(connection: socket.socket) -> tuple[list[Any], list[int]]:
    """Return the request of a program, and its three files. Raises EOFError if it was killed before."""
    head, files, *_ = socket.recv_fds(connection, SIZE.size, 3)
    request = bytearray()
    while not head or len(request) < SIZE.unpack(head)[0]:
        part = connection.recv(1 << 16) if head else b""
        if not part:
            for each in files:
                os.close(each)
            raise EOFError("the program was killed before it had sent its request")
        request += part
    return json.loads(request), files


def fork(connection: socket.socket, listening: socket.socket, request: list[Any], files: Sequence[int]) -> int:
    """Import what the requested module needs, fork, and return the process id."""
    words, *rest = request
    module = words[0]
    for name in (module, *IMPORTED[module]):
        if name not in sys.modules:
            import_module(name)
            gc.collect()
            gc.freeze()  # otherwise a collection in a fork would copy the pages of everything imported
    pid = os.fork()
    if not pid:
        listening.close()
        os._exit(run(connection, files, words, *rest))
    for each in files:
        os.close(each)
    return pid


def run(
    connection: socket.socket,
    files: Sequence[int],
    words: list[str],
    environ: Mapping[str, str],
    folder: str,
    mask: int,
) -> int:
    """Run a module in this process, as ``python -P -m`` would, and return its exit code."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Thread(target=end_with_program, args=(connection,), daemon=True).start()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    os.umask(mask)
    sys.path[:] = dict.fromkeys([*filter(None, environ.get("PYTHONPATH", "").split(os.pathsep)), *sys.path])
    sys.argv, sys.orig_argv = words, [sys.executable, "-P", "-m", *words]
    random.seed()
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return exit_code(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def exit_code(code: Any) -> int:
    """Return the exit code of ``sys.exit(code)``."""
    return code if isinstance(code, int) else int(code is not None)


def end_with_program(connection: socket.socket) -> None:
    """Kill this process and its group when the program has been killed."""
    connection.recv(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program of a fork passes it on
    serve(socket.socket(fileno=int(sys.argv[1])))
