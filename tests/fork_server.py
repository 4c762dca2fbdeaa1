"""Process that imports the service once, and forks a process for every ``slicewatch up`` of the tests.

Most of the processor time of a start is the import of its libraries. A forked process has them, and is otherwise one of
its own: environment, arguments, standard error, exit code, and the command that starts a successor.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

POLL_SECONDS = 0.01
FORKED_PYTHON = "SLICEWATCH_TEST_PYTHON"
IMPORTED = ("service.server", "service.runtime.runtime", "models.bundle.model_bundle")


class Forked:
    """Process of a fork server, with the part of the interface of ``subprocess.Popen`` that the tests use."""

    def __init__(self, pid: int, exit_file: Path) -> None:
        self.pid, self._exit_file = pid, exit_file
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self.returncode is None:
            with suppress(FileNotFoundError):
                self.returncode = int(self._exit_file.read_text())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process; ``folder`` takes the exit codes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._forked = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def start(self, command: Sequence[str], log: Path, environ: Mapping[str, str]) -> Forked:
        """Start ``slicewatch``, its standard error appended to a log.

        Parameters
        ----------
        command
            Path of the command, as for a process of its own, and its arguments.
        environ
            All variables of the environment.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._forked += 1
        exit_file = self._folder / str(self._forked)
        print(
            json.dumps([list(command), str(log), dict(environ), str(exit_file)]), file=self._process.stdin, flush=True
        )
        return Forked(int(self._process.stdout.readline()), exit_file)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve() -> None:
    """Fork a process for every line of the standard input, and write the exit code of each to a file."""

    files: dict[int, str] = {}

    def reap(*_: object) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                part = Path(f"{files[ended[0]]}.part")
                part.write_text(str(os.waitstatus_to_exitcode(ended[1])))
                part.rename(files[ended[0]])

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        command, log, environ, file = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            os._exit(run(command, log, environ))
        files[pid] = file
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        print(pid, flush=True)


def run(command: list[str], log: str, environ: dict[str, str]) -> int:
    """Run a command in this process, as ``slicewatch`` would, and return its exit code."""
    from service.__main__ import main

    with Path(os.devnull).open("r+b") as nothing, Path(log).open("ab") as errors:
        for stream, number in ((nothing, 0), (nothing, 1), (errors, 2)):
            os.dup2(stream.fileno(), number)
    sys.argv, sys.orig_argv = command, [sys.executable, *command]
    sys.executable = os.environ[FORKED_PYTHON]  # of the children of the service
    os.environ.clear()
    os.environ.update(environ)
    random.seed()
    try:
        return main(command[1:])
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    for name in IMPORTED:
        import_module(name)
    serve()
