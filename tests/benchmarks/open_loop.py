"""HTTP client that keeps its own schedule: a slow answer does not delay the next request.

A latency runs from the time for which a request was scheduled, so that waiting before the request was sent is part
of it (no coordinated omission). One thread sends whole requests that were encoded before, and polls without sleeping:
it needs a core of its own, and says how late it was itself.
"""

from __future__ import annotations

import gc
import resource
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

LATE_SECONDS = 0.001
"""Delay of a request behind its schedule from which it counts as late."""
PATIENCE_SECONDS = 20.0
_EVENTS = 64


@dataclass(frozen=True)
class Outcome:
    """What became of N requests.

    Parameters
    ----------
    scheduled, sent, answered
        Seconds since the start float[N]; infinite where a request was not sent, or not answered.
    status
        Status of the answers int[N]; 0 where there was none.
    """

    scheduled: Times
    sent: Times
    answered: Times
    status: NDArray[np.int64]

    @property
    def late_share(self) -> float:
        """Share of the requests that the client did not send within a millisecond of their time."""
        return float((self.sent - self.scheduled > LATE_SECONDS).mean())

    def with_status(self, status: int) -> NDArray[np.int64]:
        """Return the numbers of the requests with an answer of that status."""
        return np.flatnonzero(self.status == status)

    def latency_ms(self, quantile: float, status: int | None = None) -> float:
        """Return a quantile of the latencies with a status; without one, a refused request never was answered."""
        seconds = np.where(self.status == (status or 200), self.answered - self.scheduled, np.inf)
        chosen = seconds if status is None else seconds[self.with_status(status)]
        return 1e3 * float(np.quantile(chosen, quantile, method="higher")) if len(chosen) else 0.0

    def per_second(self, status: int, seconds: float) -> float:
        """Return the answers with a status in the first seconds, per second."""
        return float((self.answered[self.with_status(status)] <= seconds).sum() / seconds)


def poisson(rate: float, seconds: float, seed: Any) -> Times:
    """Return the times of independent arrivals at a rate per second."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.exponential(1 / rate, size=int(2 * rate * seconds) + 50))
    return times[times < seconds]


def offer(
    address: tuple[str, int], request: Callable[[int], bytes], scheduled: Times, connections: int, seconds: float
) -> Outcome:
    """Send requests at their times over keep-alive connections, one at a time on each.

    Parameters
    ----------
    address
        Host and port.
    request
        Maps the number of a request to its bytes.
    scheduled
        Times in seconds, ascending; all 0 for as many as the connections carry.
    connections
        Number of connections. A request that finds none free is late.
    seconds
        Time after which nothing is sent.
    """
    return _Client(address, request, scheduled, connections).run(seconds)


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    number: int = -1  # of the request that waits for an answer
    received: bytes = b""


@dataclass
class _Client:
    address: tuple[str, int]
    request: Callable[[int], bytes]
    scheduled: Times
    connections: int
    idle: list[_Connection] = field(default_factory=list)
    by_descriptor: dict[int, _Connection] = field(default_factory=dict)
    poller: select.epoll = field(default_factory=select.epoll)

    def run(self, seconds: float) -> Outcome:
        n, hard = len(self.scheduled), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.sent, self.answered, self.status = [np.inf] * n, [np.inf] * n, [0] * n
        self.next, self.waiting = 0, 0
        for _ in range(self.connections):
            self._connect()
        gc.collect()
        gc.disable()
        try:
            self._loop(seconds)
        finally:
            gc.enable()
            self.poller.close()
            for connection in self.by_descriptor.values():
                connection.socket.close()
        sent, answered, status = np.array(self.sent), np.array(self.answered), np.array(self.status, dtype=np.int64)
        return Outcome(self.scheduled, sent, answered, status)

    def _loop(self, seconds: float) -> None:
        times, idle, poll = self.scheduled.tolist(), self.idle, self.poller.poll
        self.start = start = perf_counter()
        n, last, end = len(times), seconds + LATE_SECONDS, seconds + PATIENCE_SECONDS
        while True:
            now = perf_counter() - start
            while self.next < n and times[self.next] <= now < last and idle:
                self._send(idle.pop())
                now = perf_counter() - start
            if now > end or (not self.waiting and (now >= last or self.next == n)):
                return
            for descriptor, _ in poll(0, _EVENTS):
                self._receive(self.by_descriptor[descriptor])

    def _send(self, connection: _Connection) -> None:
        number = connection.number = self.next
        self.next += 1
        self.waiting += 1
        self.sent[number] = perf_counter() - self.start
        with suppress(OSError):  # the end of a closed connection is read next
            connection.socket.send(self.request(number))

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._replace(connection)
            return
        received = connection.received = connection.received + data if connection.received else data
        head = received.find(b"\r\n\r\n")
        at = received.find(b"content-length: ", 0, head)
        if head < 0 or len(received) < head + 4 + int(received[at + 16 : received.find(b"\r", at)]):
            return
        number = connection.number
        self.status[number] = int(received[9:12])
        self.answered[number] = perf_counter() - self.start
        self.waiting -= 1
        connection.number, connection.received = -1, b""
        if b"connection: close" in received[:head].lower():
            self._replace(connection)
        else:
            self.idle.append(connection)

    def _connect(self) -> None:
        opened = socket.create_connection(self.address)
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self.by_descriptor[opened.fileno()] = _Connection(opened)
        self.poller.register(opened, select.EPOLLIN)
        self.idle.append(connection)

    def _replace(self, connection: _Connection) -> None:
        """Open a connection in the place of a closed one; a request on it has no answer."""
        del self.by_descriptor[connection.socket.fileno()]
        if connection.number >= 0:
            self.waiting -= 1
        elif connection in self.idle:
            self.idle.remove(connection)
        connection.socket.close()
        self._connect()
