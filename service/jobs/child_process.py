"""A module of the product run in a child process, seen from both sides.

The child leads a session of its own, has private output, and ends with its parent: its standard input is a pipe
that is never written to and closes when the parent ends.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import IO

from service.serving.confinement import take_priority_of_parent

NICENESS = 10
GRACE_SECONDS = 60.0
"""Grace period after its timeout, before a child ends itself."""

_OUTPUT_BYTES = 4000
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ChildProcess:
    """Child process; it and its descendants are killed at the latest when this object is deleted.

    Parameters
    ----------
    module, arguments
        Run by ``python -P -m``; calls `attach_to_parent` first.
    folder
        Private folder that holds the output, in a file without a name.
    environment
        Variables in addition to those of this process.
    python
        Interpreter; by default that of this process.

    Attributes
    ----------
    pid
        Number of the process and of its group.
    output
        The last 4,000 bytes that it printed, once it was killed.
    """

    def __init__(
        self,
        module: str,
        *arguments: str | Path | float,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        python: str | None = None,
    ) -> None:
        path = os.pathsep.join(filter(None, sys.path))  # same module path as this process
        with ExitStack() as undo:
            output = undo.enter_context(TemporaryFile(dir=folder))
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [python or sys.executable, "-P", "-m", module, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **_ENVIRONMENT, **(environment or {}), "PYTHONPATH": path},
                start_new_session=True,  # or Ctrl-C would reach it
                umask=0o077,
            )
            undo.pop_all()
        self.pid, self.output = self._process.pid, ""
        self._end = weakref.finalize(self, _end, self._process, output)

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None until `kill` was called."""
        return self._process.returncode

    def wait(self, seconds: float = 0.0) -> bool:
        """Wait for the end of the process, and return whether it has ended; call `kill` then."""
        if self._process.returncode is not None:
            return True
        descriptor = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(1000 * seconds))
        finally:
            os.close(descriptor)

    def kill(self) -> None:
        """Kill the process, unless it has ended, and its descendants, which may outlive it."""
        self.output = self._end() or self.output

    def describe_exit(self) -> str:
        """Return how the process ended, to follow its name in a sentence."""
        code = self._process.returncode
        if code is None or code >= 0:
            return f"exited with code {code}"
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"


def _end(process: subprocess.Popen[bytes], output: IO[bytes]) -> str:
    """Kill the group of a process, release its resources, and return the end of its output."""
    with suppress(ProcessLookupError):  # not reaped yet, so that the number is still its own
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    with output:
        output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_BYTES))
        return output.read().decode(errors="replace").strip()


def attach_to_parent(timeout_seconds: float) -> None:
    """Make this child yield to the service, and end with it or after a timeout. Call before slow imports."""
    for number in (signal.SIGINT, signal.SIGTERM):  # may reach all processes; the service ends this one
        signal.signal(number, signal.SIG_IGN)
    # A user's function may hold the interpreter lock for ever; without a parent, only the kernel can end that.
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds + GRACE_SECONDS)
    Thread(target=_end_with_parent, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    take_priority_of_parent(NICENESS)
    with suppress(OSError):  # if memory runs out, the kernel should kill this process rather than the service
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


def write_atomically(file: Path, text: str) -> None:
    """Replace a file as a whole: a reader never sees half of it."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
