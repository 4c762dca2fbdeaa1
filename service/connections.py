"""Connections of the server: their number, in total and per peer, and the size and the time of a request header."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter, deque
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.errors import RETRY_SECONDS, ProblemType, problem
from service.metrics.process import ProcessMetrics
from service.settings.schema import ServeSettings

MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 32
"""Maximum requests of one connection that wait for the answer to an earlier one."""
HEALTH_PATHS = frozenset({b"/healthz", b"/readyz", b"/metrics"})
"""Paths that are answered on a full server, too."""
HEALTH_CONNECTIONS = 64
"""Connections beyond the limit, on which only these paths are answered."""
MAX_UNSENT_BYTES = 256 * 2**20
"""Answers in memory that their clients do not read; beyond it, those that have waited longest for their client go."""
OTHER_FILES = 256
"""File descriptors kept for the store, for child processes and their pipes."""
LOOPBACK = -1
"""The peer of this machine, whose connections are limited in total only: a proxy on it stands for many clients."""

_SWEEP_SECONDS = 1.0
_HEADER_TOO_LARGE = ProblemType(431, "header-too-large", "The request header is too large")
_SERVER_FULL = ProblemType(503, "server-full", "All connections are in use")

_log = logging.getLogger(__name__)


class Connections:
    """Open connections of a server; for one event loop.

    A connection beyond a limit takes the place of the one that has been without a request for the longest time:
    connections that send nothing keep nobody out. Where all are in use, requests are answered with 503, except
    those for health and metrics.

    Parameters
    ----------
    settings
        Limits.
    metrics
        Counts refused requests.
    """

    def __init__(self, settings: ServeSettings, metrics: ProcessMetrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.limit = _file_limit(settings.connections)
        self._open: dict[BoundedProtocol, _Unsent] = {}
        self._waiting: dict[BoundedProtocol, float] = {}  # by deadline of the next header, longest waiting first
        self._by_peer: Counter[int] = Counter()
        self._sweeper: asyncio.TimerHandle | None = None

    def protocol(self, *args: Any, **kwargs: Any) -> asyncio.Protocol:
        """Return the protocol of a new connection; arguments as uvicorn gives them."""
        return BoundedProtocol(self, *args, **kwargs)

    def add(self, connection: BoundedProtocol) -> None:
        """Count a new connection, and close another one or this one beyond a limit."""
        self._open[connection] = _Unsent(0, connection.loop.time())
        self._by_peer[connection.peer] += 1
        self._make_room(connection)
        self.wait(connection, self.settings.stall_seconds)
        if len(self._open) > self.limit + HEALTH_CONNECTIONS:
            self.end(connection)
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(_SWEEP_SECONDS, self._sweep, connection.loop)

    def discard(self, connection: BoundedProtocol) -> None:
        """Forget a closed connection."""
        self._waiting.pop(connection, None)
        if self._open.pop(connection, None) is not None:
            self._by_peer[connection.peer] -= 1
            if not self._by_peer[connection.peer]:
                del self._by_peer[connection.peer]

    def end(self, connection: BoundedProtocol) -> None:
        """Close a connection without waiting for its reader."""
        self.discard(connection)
        connection.transport.abort()

    def wait(self, connection: BoundedProtocol, seconds: float) -> None:
        """Expect the complete header of the next request within a time."""
        if connection in self._open:
            self._waiting[connection] = connection.loop.time() + seconds

    def begin(self, connection: BoundedProtocol, path: bytes) -> bool:
        """Return whether a request whose header is complete is answered; count it otherwise."""
        self._waiting.pop(connection, None)
        if path in HEALTH_PATHS or self._make_room(connection):
            return True
        self.metrics.count_shed("connections")
        return False

    def _make_room(self, connection: BoundedProtocol) -> bool:
        """Close connections that wait for a request, the longest waiting first, while a limit is exceeded."""
        peer = connection.peer
        limit = self.limit if peer == LOOPBACK else self.settings.peer_connections
        while self._by_peer[peer] > limit and (other := self._longest_waiting(peer)):
            self.end(other)
        while len(self._open) > self.limit and (other := self._longest_waiting()):
            self.end(other)
        return len(self._open) <= self.limit and self._by_peer[peer] <= limit

    def _longest_waiting(self, peer: int | None = None) -> BoundedProtocol | None:
        """Return the connection that has waited longest; one whose answer is not sent yet only if all are so."""
        first = None
        for connection in self._waiting:
            if peer in (None, connection.peer):
                if not connection.transport.get_write_buffer_size():
                    return connection
                first = first or connection
        return first

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close connections whose header is late, and those whose answer is not read."""
        now = loop.time()
        for connection in [each for each, deadline in self._waiting.items() if deadline <= now]:
            del self._waiting[connection]
            connection.transport.close()
        held_bytes = 0
        for connection, unsent in sorted(self._open.items(), key=lambda item: -item[1].since):
            size = connection.transport.get_write_buffer_size()
            if size != unsent.size or not size:
                unsent.size, unsent.since = size, now
            held_bytes += size
            if size and (now - unsent.since > self.settings.stall_seconds or held_bytes > MAX_UNSENT_BYTES):
                self.end(connection)
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep, loop) if self._open else None


@dataclass(slots=True)
class _Unsent:
    """Bytes that the peer has not taken, and the time since which it has taken none, in seconds of the loop."""

    size: int
    since: float


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection, with limits on its headers.

    Attributes
    ----------
    peer
        Network address of the other side as a number: of IPv6, the first 64 bits; ``LOOPBACK`` for this machine.
    """

    def __init__(self, connections: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.peer = LOOPBACK
        self._connections, self._served = connections, self.app
        self._in_header, self._header_bytes = True, 0
        self._unanswered: deque[RequestResponseCycle] = deque()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Count the connection."""
        super().connection_made(transport)
        self.peer = LOOPBACK if self.client is None else peer_of(self.client[0])
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell its requests."""
        self._connections.discard(self)
        for cycle in self._unanswered:  # uvicorn tells the last one, which may wait for the others
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes, and refuse a header that is too large before it is complete."""
        for start in range(0, len(data), MAX_HEADER_BYTES):
            part = data[start : start + MAX_HEADER_BYTES]
            self._header_bytes += len(part)
            super().data_received(part)
            if self.transport.is_closing():
                break
            if self._header_bytes > MAX_HEADER_BYTES:
                self.send_400_response("")
                break

    def send_400_response(self, msg: str) -> None:
        """Refuse an invalid header, with 431 if it is too large; without an answer if earlier ones are pending."""
        if not self._unanswered and self._header_bytes > MAX_HEADER_BYTES:
            detail = f"the request header exceeds {MAX_HEADER_BYTES} bytes: send fewer or shorter headers"
            response = problem(_HEADER_TOO_LARGE, detail, headers={"connection": "close"})
            lines = [b"HTTP/1.1 431 Request Header Fields Too Large", *map(b": ".join, response.raw_headers)]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        elif not self._unanswered:
            super().send_400_response(msg)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin a request. Raises ValueError if too many wait already, which ends the connection."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError(f"more than {MAX_PIPELINED} requests wait for an answer")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; fields after a body are not read."""
        if self._in_header:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start to answer the request, with 503 if the server is full. Raises ValueError for a large header."""
        # A part of the header may have arrived with the request before.
        self._header_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("the header is too large")
        self._in_header, self._header_bytes = False, 0
        served = self._connections.begin(self, self.url.partition(b"?")[0])
        self.app = self._served if served else _refuse
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; the rest of the message, such as the sizes of its parts, has the limit of a header."""
        self._header_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the next header."""
        self._in_header = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, if it is not there already."""
        self._unanswered.popleft()
        super().on_response_complete()
        if not self._unanswered:
            settings = self._connections.settings
            self._connections.wait(self, settings.idle_seconds + settings.stall_seconds)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request of a full server."""
    headers = {"connection": "close", "retry-after": str(RETRY_SECONDS)}
    await problem(_SERVER_FULL, "all connections are in use: try again later", headers=headers)(scope, receive, send)


def peer_of(host: str) -> int:
    """Return the peer of an address; all addresses of one IPv6 network of 64 bits are one peer.

    Examples
    --------
    >>> peer_of("127.0.0.1") == peer_of("::1") == LOOPBACK, peer_of("10.0.0.7") == peer_of("::ffff:10.0.0.7")
    (True, True)
    >>> peer_of("2001:db8::1") == peer_of("2001:db8::2")
    True
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # a socket without addresses
        return LOOPBACK
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return LOOPBACK if address.is_loopback else int(address) >> 64
        address = address.ipv4_mapped
    return LOOPBACK if address.is_loopback else int(address)


def _file_limit(connections: int) -> int:
    """Raise this process's limit of open files for a number of connections; return the number that it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + HEALTH_CONNECTIONS + OTHER_FILES
    if 0 <= soft < needed:
        soft = needed if hard < 0 else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if 0 <= soft < needed:
        allowed = max(soft - HEALTH_CONNECTIONS - OTHER_FILES, soft // 2)
        _log.warning("the limit of %d open files allows %d connections, not %d", soft, allowed, connections)
        return allowed
    return connections
