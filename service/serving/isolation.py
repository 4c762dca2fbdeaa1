"""The processes of plain functions kept at hand: a worker to ask, another when it is lost, and a new zygote."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from service.errors import ServiceError
from service.serving.breaker import Breaker, BreakerLimits, Seconds
from service.serving.channel import ConnectionClosed
from service.serving.processes import ForkServer, Worker

_PATIENCE_SECONDS = 10.0
"""When a worker has not begun by then, the zygote is stuck."""
_LOST = "process lost"
_log = logging.getLogger(__name__)


class Isolation:
    """Workers for functions that come from files and modules. All but `start` and `close` is for one thread.

    Parameters
    ----------
    sources
        The files and modules, as `FunctionSet.from_files` takes them.
    limits
        Of the processes.
    clock
        Monotonic seconds, for the time between attempts to start.
    """

    def __init__(self, sources: Sequence[str], limits: BreakerLimits, clock: Callable[[], Seconds]) -> None:
        self._sources, self._limits, self._clock = list(sources), limits, clock
        self._zygote: ForkServer | None = None
        self._worker: Worker | None = None
        self._state = Breaker()
        self._closed = False
        self._changing = threading.Lock()
        self._attempt: threading.Thread | None = None

    @property
    def fingerprints(self) -> Mapping[str, str] | None:
        """Of the functions that were loaded, by name; None while there is no process that has loaded them."""
        zygote = self._zygote
        return None if zygote is None else zygote.fingerprints

    def start(self) -> None:
        """Load the functions, unless they are.

        Raises
        ------
        ServiceError
            If they cannot be loaded.
        """
        if self._zygote is not None:
            return
        zygote = ForkServer(self._sources, self._limits)
        with self._changing:
            if self._closed or self._zygote is not None:
                zygote.end()
                return
            self._zygote = zygote
            self._state = self._state.closed(self._clock())

    def close(self) -> None:
        """End all processes."""
        with self._changing:
            self._closed = True
            self._lose()

    def worker(self, until: Seconds) -> Worker | None:
        """Return a worker that has begun, or None if there is none by then."""
        if self._worker is None:
            self._worker = self.fork()
        if self._worker is None:
            return None
        try:
            self._worker.wait_ready(until)
            return self._worker
        except ConnectionClosed:
            self._worker = None
        except TimeoutError:
            if monotonic() - self._worker.asked_at > _PATIENCE_SECONDS:
                self._give_up()
        return None

    def replace(self) -> None:
        """Kill the worker, and ask for another one."""
        if self._worker is not None:
            self._worker.kill()
        self._worker = self.fork()

    def fork(self) -> Worker | None:
        """Return a worker that may not have begun yet, or None while there is no zygote: it is started again."""
        zygote = self._zygote
        if zygote is None:
            self._start_when_due()
            return None
        worker = zygote.fork()
        if worker is None:
            self._give_up()
        return worker

    def _give_up(self) -> None:
        _log.warning("the process of the slicing functions is lost, and will be started again")
        with self._changing:
            self._lose()

    def _lose(self) -> None:
        if self._worker is not None:
            self._worker.kill()
        if self._zygote is not None:
            self._zygote.end()
        self._worker = self._zygote = None
        self._state = self._state.opened(_LOST, self._limits, self._clock())

    def _start_when_due(self) -> None:
        trying = self._attempt is not None and self._attempt.is_alive()
        if trying or self._closed or (self._state.is_open and not self._state.is_due(self._clock())):
            return
        self._attempt = in_background(self._try_start)

    def _try_start(self) -> None:
        try:
            self.start()
        except (ServiceError, OSError) as error:
            _log.warning("%s", error)
            self._state = self._state.opened(_LOST, self._limits, self._clock())


def in_background(work: Callable[[], object]) -> threading.Thread | None:
    """Do some work in a thread of its own; None if there can be no more threads."""
    thread = threading.Thread(target=work, name="slicing-functions", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
