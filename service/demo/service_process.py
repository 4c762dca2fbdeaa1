"""The service as a child process: start, wait until ready, restart, stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from service.client import Client, ClientError, NoResponse, NotRunning
from service.errors import ServiceError

HOST = "127.0.0.1"
PATIENCE_SECONDS = 300.0
"""Time without any progress after which something is given up; a busy machine only makes it slow."""

MAX_STARTS = 20

COMMAND = (sys.executable, "-P", "-m", "service")
"""Command line of this program as another process, whatever the current folder contains."""


class ServiceProcess:
    """Service that is kept running on one port, with its standard error in a log.

    Parameters
    ----------
    report
        Takes a message when the service dies and restarts.
    patience_seconds
        Time without progress after which a start or a graceful stop is given up.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        port: int,
        report: Callable[[str], object],
        sleep: Callable[[float], object] = time.sleep,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._patience = patience_seconds
        self._command, self._log, self.port = [*command, "--port", str(port)], log, port
        self._report, self._sleep = report, sleep
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def url(self) -> str:
        """Address of the service."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id; None if it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start the service, and wait until it is ready.

        Raises
        ------
        ServiceError
            If it exits, or is not ready and writes nothing to its log for the time of patience.
        """
        self.starts += 1
        with self._log.open("ab") as log:
            # In a process group of its own: Ctrl+C is for the demo, which then stops the service in order.
            process = self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, process_group=0,
                env=environment(),
            )  # fmt: skip
        written, end = -1, 0.0
        with Client(self.url, timeout_seconds=10.0, retries=0) as client:
            while True:
                with suppress(NotRunning, NoResponse, ClientError):
                    if client.ready().ready:
                        return
                code = process.poll()
                if code is not None:
                    raise ServiceError(
                        [
                            f"the service did not start ({_exit_text(code)}); end of its log:",
                            *last_lines(self._log),
                        ]
                    )
                now, size = time.monotonic(), self._log.stat().st_size
                if size != written:
                    written, end = size, now + self._patience
                elif now >= end:
                    self.stop()
                    raise ServiceError(
                        f"the service is not ready, and its log has not grown for {self._patience:g} s: see {self._log}"
                    )
                self._sleep(0.1)

    def revive(self) -> bool:
        """Restart the service if it has died, and return whether it had.

        Raises
        ------
        ServiceError
            As `start`, and if it keeps dying.
        """
        code = None if self._process is None else self._process.poll()
        if code is None:
            return False
        if self.starts >= MAX_STARTS:
            raise ServiceError(f"the service died {self.starts} times: see {self._log}")
        self._report(f"the service died ({_exit_text(code)}); restarting it in the same folder")
        self.start()
        self._report(f"the service is back, as process {self.pid}")
        return True

    def stop(self) -> int | None:
        """Stop the service gracefully, and return its exit code; None if it never ran."""
        if self._process is None:
            return None
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with closing(socket.create_server((HOST, 0))) as server:
        port: int = server.getsockname()[1]
    return port


def is_free(port: int) -> bool:
    """Return whether nothing listens on a port."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def environment() -> dict[str, str]:
    """Return this process's variables without settings, which the demo has in its file."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWATCH_")}
    return {"OMP_NUM_THREADS": "1", **variables}


def last_lines(log: Path) -> list[str]:
    """Return the last five lines of a log."""
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]


def _exit_text(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
