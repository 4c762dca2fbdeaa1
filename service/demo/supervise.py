"""The service as a process of its own: started, waited for, and started again where it has died."""

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

from service.client.calls import Client
from service.client.failures import ClientError, NoAnswer, NotRunning
from service.errors import ServiceError

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 60.0
MOST_STARTS = 20

COMMAND = (sys.executable, "-P", "-m", "service")
"""How this program is called as another process, whatever lies in the current folder."""


class Supervised:
    """A service that is kept running on one port.

    Parameters
    ----------
    command
        Starts it; ``--port`` is added.
    log
        Where its standard error goes.
    port
        Where it listens, the same after every start.
    say
        Told what happens to it.
    sleep
        Waits so many seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        port: int,
        say: Callable[[str], object],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._command, self._log, self.port = [*command, "--port", str(port)], log, port
        self._say, self._sleep = say, sleep
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its process; None where none runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises
        ------
        ServiceError
            If it ends before that, or takes too long.
        """
        self.starts += 1
        with self._log.open("ab") as log:
            # In a group of its own: Ctrl+C is for the demo, which then stops the service in order.
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                process_group=0,
                env=environment(),
            )
        end = time.monotonic() + START_SECONDS
        with Client(self.url, timeout_seconds=10.0, retries=0) as client:
            while not _is_ready(client):
                self._demand(time.monotonic() < end)
                self._sleep(0.1)

    def revive(self) -> bool:
        """Start it again if it has died, and tell whether it had.

        Raises
        ------
        ServiceError
            As ``start``; and if it dies again and again.
        """
        code = None if self._process is None else self._process.poll()
        if code is None:
            return False
        if self.starts >= MOST_STARTS:
            raise ServiceError(f"the service died {self.starts} times: see {self._log}")
        self._say(f"the service has died ({_how(code)}); it is started again in the same folder")
        self.start()
        self._say(f"the service answers again, process {self.pid}")
        return True

    def stop(self) -> int | None:
        """Ask it to end, and return its exit code; None where none ran."""
        if self._process is None:
            return None
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _demand(self, in_time: bool) -> None:
        assert self._process is not None  # noqa: S101 - `start` made it
        code = self._process.poll()
        if code is not None:
            raise ServiceError(
                [f"the service did not start ({_how(code)}); its last words:", *self._last_words()]
            )
        if not in_time:
            self.stop()
            raise ServiceError(f"the service did not answer within {START_SECONDS:g} s: see {self._log}")

    def _last_words(self) -> list[str]:
        return self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with closing(socket.create_server((HOST, 0))) as one:
        port: int = one.getsockname()[1]
    return port


def is_free(port: int) -> bool:
    """Tell whether one could listen on a port."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def environment() -> dict[str, str]:
    """Return this process's variables without settings: the demo's are in its file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWATCH_")}
    return {"OMP_NUM_THREADS": "1", **kept}


def _is_ready(client: Client) -> bool:
    try:
        return client.ready().ready
    except (NotRunning, NoAnswer, ClientError):
        return False


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
