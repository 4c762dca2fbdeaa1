"""Connections of the server: their number, in total and per peer, and the size and the time of a request header."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import ssl
from collections import Counter, deque
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.errors import RETRY_SECONDS, ProblemType, problem
from service.metrics.process import ProcessMetrics
from service.overload import Overload
from service.runtime.access import LOOPBACK, peer_of
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

DETACH_SECONDS = 1.0
"""Time for a connection at a handover to complete a header that has begun."""

_SWEEP_SECONDS, _DETACH_POLL_SECONDS, _SHUTDOWN_SECONDS = 1.0, 0.005, 1.0
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
    overload
        Answers requests while the prediction queue is full; None to leave that to the application.
    tls
        Certificate; None for HTTP without TLS.
    """

    def __init__(
        self,
        settings: ServeSettings,
        metrics: ProcessMetrics,
        overload: Overload | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.settings, self.metrics, self.overload, self.tls = settings, metrics, overload, tls
        self.limit = _file_limit(settings.connections)
        self._open: dict[_Connection, None] = {}  # in order of arrival
        self._unsent: dict[_Connection, _Unsent] = {}
        self._waiting: dict[_Connection, float] = {}  # by deadline of the next header, longest waiting first
        self._by_peer: Counter[int] = Counter()
        self._sweeper: asyncio.TimerHandle | None = None
        self.detached: list[socket.socket] | None = None
        self.is_ending = False

    def protocol(self, *args: Any, **kwargs: Any) -> asyncio.Protocol:
        """Return the protocol of a new connection; arguments as uvicorn gives them."""
        protocol = BoundedProtocol(self, *args, **kwargs)
        return protocol if self.tls is None else _Handshake(self, self.tls, protocol)

    def add(self, connection: _Connection) -> None:
        """Count a new connection, and close another one or this one beyond a limit."""
        self._open[connection] = None
        self._by_peer[connection.peer] += 1
        self._make_room(connection)
        self.wait(connection, self.settings.stall_seconds)
        if len(self._open) > self.limit + HEALTH_CONNECTIONS:
            self.end(connection)
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(_SWEEP_SECONDS, self._sweep, connection.loop)

    def discard(self, connection: _Connection) -> None:
        """Forget a closed connection."""
        self._waiting.pop(connection, None)
        if connection in self._open:
            del self._open[connection]
            self._by_peer[connection.peer] -= 1
            if not self._by_peer[connection.peer]:
                del self._by_peer[connection.peer]

    def end(self, connection: _Connection) -> None:
        """Close a connection without waiting for its reader."""
        self.discard(connection)
        connection.transport.abort()

    def wait(self, connection: _Connection, seconds: float) -> None:
        """Expect the complete header of the next request within a time."""
        self._waiting.pop(connection, None)  # to the end of the order
        if connection in self._open:
            self._waiting[connection] = connection.loop.time() + seconds

    def begin(self, connection: _Connection, path: bytes) -> bool:
        """Return whether a request whose header is complete is answered; count it otherwise."""
        self._waiting.pop(connection, None)
        if path in HEALTH_PATHS or self._make_room(connection):
            return True
        self.metrics.count_shed("connections")
        return False

    async def announce_end(self) -> None:
        """With TLS, close each connection with its next answer, until older ones are told or are idle too long.

        Their keys are in this process, so they cannot be detached.
        """
        self.is_ending = self.tls is not None
        if self.is_ending:
            await asyncio.sleep(self.settings.idle_seconds)

    async def detach(self) -> list[socket.socket]:
        """Detach each connection from its protocol once it waits for a request, and return their sockets.

        Connections stay for which this is not possible. The server waits only for those with a request in progress: an
        answer that is read slowly is sent to its end meanwhile, and a body that is slow to arrive is not awaited.
        """
        loop = asyncio.get_running_loop()
        start, self.detached = loop.time(), []
        while self._open and loop.time() < start + self.settings.drain_seconds:
            for connection in list(self._open):
                connection.detach()
            if loop.time() >= start + DETACH_SECONDS and not any(each.is_working for each in self._open):
                break
            await asyncio.sleep(_DETACH_POLL_SECONDS)
        for connection in list(self._open):
            connection.leave()
        return self.detached

    async def sent(self, seconds: float) -> None:
        """Wait until all answers are sent, at most for a time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open:
                    await asyncio.sleep(_DETACH_POLL_SECONDS)

    def _make_room(self, connection: _Connection) -> bool:
        """Close connections that wait for a request, the longest waiting first, while a limit is exceeded."""
        peer = connection.peer
        limit = self.limit if peer == LOOPBACK else self.settings.peer_connections
        while self._by_peer[peer] > limit and (other := self._longest_waiting(peer)):
            self.end(other)
        while len(self._open) > self.limit and (other := self._longest_waiting()):
            self.end(other)
        return len(self._open) <= self.limit and self._by_peer[peer] <= limit

    def _longest_waiting(self, peer: int | None = None) -> _Connection | None:
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
        unsent = self._unsent
        self._unsent = {
            each: unsent[each] if each in unsent and unsent[each].size == size else _Unsent(size, now)
            for each in reversed(self._open)
            if (size := each.transport.get_write_buffer_size())  # of few connections
        }
        held_bytes = 0
        for connection, (size, since) in sorted(self._unsent.items(), key=lambda item: -item[1].since):
            held_bytes += size
            if now - since > self.settings.stall_seconds or held_bytes > MAX_UNSENT_BYTES:
                self.end(connection)
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep, loop) if self._open else None


class _Unsent(NamedTuple):
    """Bytes that the peer has not taken, and the time since which it has taken none, in seconds of the loop."""

    size: int
    since: float


class JoinedWrites:
    """Transport that sends the parts written in one pass of the loop at once: mostly a header and its body.

    Parameters
    ----------
    transport, loop
        The transport that sends them, and its loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send a part in this pass of the loop."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send everything, and close the connection."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection is closed, or about to be."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that the peer has not taken."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._parts))

    def _flush(self) -> None:
        if self._parts:
            data, self._parts = b"".join(self._parts), []
            if not self._transport.is_closing():
                self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


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
        self.handshake: _Handshake | None = None
        self._connections, self._served = connections, self.app
        self._in_header, self._in_message, self._refused, self._header_bytes = True, False, False, 0
        self._unanswered: deque[RequestResponseCycle] = deque()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Count the connection."""
        if self.handshake is not None:
            self._connections.discard(self.handshake)
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", JoinedWrites(transport, self.loop))
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
        self._in_message = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; fields after a body are not read."""
        if self._in_header:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start to answer the request, with 503 if the server is full. Raises ValueError for a large header."""
        # A part of the header may have arrived with the request before.
        self._header_bytes = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("the header is too large")
        self._in_header, self._header_bytes = False, 0
        path = self.url.partition(b"?")[0]
        if self._is_refused(path):
            return
        served = self._connections.begin(self, path)
        self.app = self._served if served else _refuse
        super().on_headers_complete()
        if self._connections.is_ending:
            self.cycle.keep_alive = False
        self._unanswered.append(self.cycle)

    def _is_refused(self, path: bytes) -> bool:
        """Answer a request at once if the queue is full; the rest of it is not kept, and has the time of a header."""
        overload = self._connections.overload
        if overload is None or self._unanswered or not overload.refuses(self.parser.get_method(), path):
            return False
        if self.expect_100_continue or self._connections.is_ending or not self.parser.should_keep_alive():
            return False  # rare: left to the application
        self._refused = True
        self.transport.write(overload.answer(path, self.headers, self.server_state.default_headers))
        self._connections.wait(self, self._connections.settings.stall_seconds)
        return True

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; the rest of the message, such as the sizes of its parts, has the limit of a header."""
        self._header_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the next header."""
        self._in_header, self._in_message = True, False
        if self._refused:
            self._refused = False
            self._expect_request()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, if it is not there already."""
        self._unanswered.popleft()
        super().on_response_complete()
        if not self._unanswered:
            self._expect_request()

    def _expect_request(self) -> None:
        settings = self._connections.settings
        self._connections.wait(self, settings.idle_seconds + settings.stall_seconds)
        if self._connections.detached is not None:
            self.loop.call_soon(self.detach)  # after the answer is sent, and before the next request is read

    @property
    def is_working(self) -> bool:
        """Whether a request is complete and has no answer yet, other than one that its client does not read."""
        return len(self._unanswered) > (not self._in_header) and not self.flow.write_paused

    def leave(self) -> None:
        """Close the connection once its answer is sent, without the server; a request in progress goes on."""
        if not self.is_working:
            self.connections.discard(self)
            if self._unanswered:
                self._connections.end(self)
            else:
                self.transport.close()

    def detach(self) -> None:
        """Leave the socket to the next process, if the connection waits for a request and has no state here."""
        busy = self._in_message or self._unanswered or self.transport.get_write_buffer_size()
        if busy or self.scheme == "https" or self.transport.is_closing() or self._connections.detached is None:
            return
        with suppress(OSError):  # too many open files: tried again when others are closed
            self._connections.detached.append(duplicate(self.transport))
            self.flow.pause_reading()  # the next bytes are for the other process
            self._connections.end(self)


class _Handshake(asyncio.Protocol):
    """TLS handshake on a new connection, which counts as one whose header is awaited."""

    def __init__(self, connections: Connections, tls: ssl.SSLContext, protocol: BoundedProtocol) -> None:
        self._connections, self._tls, self._protocol, self.loop = connections, tls, protocol, protocol.loop
        self.transport = self  # until there is one with TLS
        protocol.handshake = self

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Count the connection, and begin."""
        self.peer = peer_of(str((transport.get_extra_info("peername") or ("",))[0]))
        self._socket = duplicate(transport)
        transport.abort()
        handshake = self.loop.connect_accepted_socket(
            lambda: self._protocol, self._socket, ssl=self._tls, ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            ssl_handshake_timeout=self._connections.settings.stall_seconds,
        )  # fmt: skip
        self._task = self.loop.create_task(handshake)
        self._task.add_done_callback(self._end)
        self._connections.add(self)

    def abort(self) -> None:
        """Close the connection."""
        self._task.cancel()

    close = leave = abort
    is_working = False

    def get_write_buffer_size(self) -> int:
        """Return 0: no answer waits."""
        return 0

    def detach(self) -> None:
        """Stay in this process."""

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._connections.discard(self)
        if task.cancelled() or task.exception() is not None:
            self._socket.close()


_Connection: TypeAlias = BoundedProtocol | _Handshake


def duplicate(transport: asyncio.Transport) -> socket.socket:
    """Return another descriptor of a connection, which stays open when its transport is closed."""
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request of a full server."""
    headers = {"connection": "close", "retry-after": str(RETRY_SECONDS)}
    await problem(_SERVER_FULL, "all connections are in use: try again later", headers=headers)(scope, receive, send)


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
