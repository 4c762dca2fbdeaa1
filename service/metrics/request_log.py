"""Log of requests, written in batches by a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter, perf_counter_ns, time_ns
from typing import NamedTuple

_access = logging.getLogger("service.access")

MAX_WAITING = 20_000
"""Maximum number of requests that wait to be written; further ones are dropped and counted."""
_INTERVAL_SECONDS = 0.1
_STOP_SECONDS = 1.0
_ERROR = 400


class LoggedRequest(NamedTuple):
    """A request in the log, without its content; its end in seconds of ``perf_counter``."""

    ended: float
    level: int
    request_id: str
    method: str
    route: str
    status: int
    ms: float
    rows: int
    key: str = ""
    trace_id: str = ""


def unix_offset_ns() -> int:
    """Return the difference between Unix time and ``perf_counter`` now, in nanoseconds."""
    return time_ns() - perf_counter_ns()


class RequestLog:
    """Requests for the logger ``service.access``: one record per batch, with the requests in ``requests``.

    A stream that takes nothing for a while holds up this thread only.

    Parameters
    ----------
    policy
        Requests to log: ``all``, ``errors``, ``none``, or errors and a share of the others.
    count_lost
        Counts requests that were dropped because too many were waiting.
    """

    def __init__(self, policy: str | float, count_lost: Callable[[int], None]) -> None:
        self._share = policy if isinstance(policy, float) else 1.0 if policy == "all" else 0.0
        self._errors = policy != "none"
        self._count_lost = count_lost
        self._waiting: deque[LoggedRequest] = deque()
        self._lock = threading.Lock()
        self._arrived, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, request: LoggedRequest) -> None:
        """Log a request if the policy and the level of the logger want it; never blocks."""
        if random.random() >= self._share and not (self._errors and request.status >= _ERROR):
            return
        if not _access.isEnabledFor(request.level):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._count_lost(1)
            return
        self._waiting.append(request)
        if not self._arrived.is_set():
            self._arrived.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write the requests that are waiting."""
        self._arrived.clear()
        with self._lock:
            requests = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if requests:
                level = max(request.level for request in requests)
                record = _access.makeRecord(_access.name, level, "", 0, "%d requests", (len(requests),), None)
                record.requests, record.written = requests, perf_counter()
                _access.handle(record)

    def stop(self) -> None:
        """Write the waiting requests, and end the thread."""
        self._stopping.set()
        self._arrived.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)
        if self._thread is None or not self._thread.is_alive():  # the stream may take nothing
            self.flush()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._arrived.wait()
            self._stopping.wait(_INTERVAL_SECONDS)
            self.flush()
