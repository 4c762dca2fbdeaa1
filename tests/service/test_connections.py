"""Limits of connections: their number, and the size and time of request headers."""

import asyncio
import json
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.connections import (
    HEALTH_CONNECTIONS,
    LOOPBACK,
    MAX_HEADER_BYTES,
    MAX_PIPELINED,
    MAX_UNSENT_BYTES,
    OTHER_FILES,
    Connections,
    peer_of,
)
from service.metrics.process import ProcessMetrics
from service.settings.schema import ServeSettings

GET = b"GET /v1/slices HTTP/1.1\r\nhost: localhost\r\n\r\n"
HEALTH = GET.replace(b"/v1/slices", b"/healthz?x=1")
CHUNKED = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"
SLOW = GET.replace(b"/v1/slices", b"/slow")
SECONDS = 300


class Wire(asyncio.Transport):
    """The server's side of a connection, as the event loop would give it."""

    def __init__(self, connections: Connections, server: "Server", host: str) -> None:
        super().__init__({"peername": (host, 4711), "sockname": ("127.0.0.1", 80)})
        self.received, self.unread, self.ended, self.lost = b"", 0, asyncio.Event(), False
        loop = asyncio.get_running_loop()
        self._protocol: Any = connections.protocol(
            config=server.config, server_state=server.state, app_state={}, _loop=loop
        )
        self._protocol.connection_made(self)

    def send(self, data: bytes) -> None:
        """Receive bytes from the client."""
        assert not self.ended.is_set()
        self._protocol.data_received(data)

    def write(self, data: Any) -> None:
        if self.lost:
            raise RuntimeError("the transport is closed")  # as of uvloop
        self.received += data

    def close(self) -> None:
        if not self.ended.is_set() and not self.unread:
            self.abort()

    def abort(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        self._protocol.connection_lost(None)
        self.lost = True

    def is_closing(self) -> bool:
        return self.ended.is_set()

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""

    @property
    def status(self) -> int | None:
        """Status of the first response."""
        return int(self.received.split(b" ")[1]) if self.received else None


class FullQueue:
    """Refuses predictions while it is full."""

    is_full = False

    def refuses(self, method: bytes, path: bytes) -> bool:
        return self.is_full and (method, path) == (b"POST", b"/v1/predict")

    def answer(self, path: bytes, headers: Any, more_headers: Any) -> bytes:
        return b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


class Server:
    """An application behind the limits; requests of ``/slow`` wait for an event."""

    def __init__(self, **limits: Any) -> None:
        self.metrics = ProcessMetrics("m", log_queue_rows=lambda: 0)
        self.overload = FullQueue()
        self.connections = Connections(ServeSettings(**limits), self.metrics, self.overload)
        self.config = uvicorn.Config(self.app, interface="asgi3", lifespan="off", log_config=None, ws="none")
        self.config.load()
        self.state = ServerState()
        self.release, self.busy = asyncio.Event(), False
        self.header_names: list[set[bytes]] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            self.busy = True
            await self.release.wait()
        while (await receive()).get("more_body"):
            pass
        self.header_names.append({name for name, _ in scope["headers"]})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def protocol(self) -> asyncio.Protocol:
        """Return the protocol of a real connection."""
        loop = asyncio.get_running_loop()
        return self.connections.protocol(config=self.config, server_state=self.state, app_state={}, _loop=loop)

    def connect(self, host: str = "127.0.0.1") -> Wire:
        return Wire(self.connections, self, host)

    async def asked(self, data: bytes, host: str = "127.0.0.1") -> int | None:
        """Return the status of the answer on a new connection."""
        wire = self.connect(host)
        wire.send(data)
        await settle()
        return wire.status

    @property
    def refused(self) -> float:
        lines = self.metrics.text().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if 'shed_total{reason="connections"}' in line)


async def settle() -> None:
    """Let everything run that is ready."""
    for _ in range(20):
        await asyncio.sleep(0)


def drive(story: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function; a timeout fails the test."""

    async def limited() -> None:
        await asyncio.wait_for(story(), SECONDS)

    asyncio.run(limited())


def test_silent_connections_keep_nobody_out() -> None:
    """Beyond the limit, the one that has been silent for the longest time makes room."""

    async def story() -> None:
        server = Server(connections=5)
        silent = [server.connect() for _ in range(8)]
        await settle()
        assert [wire.ended.is_set() for wire in silent] == [True] * 3 + [False] * 5
        assert await server.asked(GET) == 200
        assert server.refused == 0

    drive(story)


def test_a_full_server_answers_for_its_health() -> None:
    """While every connection is in use, other requests get a 503, which is counted."""

    async def story() -> None:
        server = Server(connections=2)
        busy = [server.connect() for _ in range(2)]
        for wire in busy:
            wire.send(SLOW)
        await settle()
        assert [await server.asked(data) for data in (HEALTH, GET, HEALTH)] == [200, 503, 200]
        refused = server.connect()
        refused.send(GET)
        await settle()
        assert b"\r\nretry-after: 1\r\n" in refused.received
        assert json.loads(refused.received.partition(b"\r\n\r\n")[2])["type"].endswith(":server-full")
        assert server.refused == 2
        server.release.set()
        await settle()
        assert [wire.status for wire in busy] == [200, 200]
        assert await server.asked(GET) == 200

    drive(story)


def test_the_lane_of_health_cannot_be_taken_by_silence() -> None:
    """The connections beyond the limit give way to one another as well."""

    async def story() -> None:
        server = Server(connections=1)
        server.connect().send(SLOW)
        silent = [server.connect() for _ in range(HEALTH_CONNECTIONS + 5)]
        assert await server.asked(HEALTH) == 200
        assert sum(not wire.ended.is_set() for wire in silent) < HEALTH_CONNECTIONS
        server.release.set()

    drive(story)


def test_an_idle_connection_gives_way_before_one_that_works() -> None:
    """A request in progress is never cut off for a new connection."""

    async def story() -> None:
        server = Server(connections=2)
        busy, idle = server.connect(), server.connect()
        busy.send(SLOW)
        idle.send(GET)
        await settle()
        assert await server.asked(GET) == 200
        assert (idle.ended.is_set(), busy.ended.is_set()) == (True, False)
        server.release.set()
        await settle()
        assert busy.status == 200

    drive(story)


def test_a_client_whose_request_is_refused_is_not_silent() -> None:
    """While the queue is full, a connection that has sent nothing makes room before it."""

    async def story() -> None:
        server = Server(connections=2)
        refused, silent = server.connect(), server.connect()
        server.overload.is_full = True
        refused.send(GET.replace(b"GET /v1/slices", b"POST /v1/predict"))
        await settle()
        assert refused.status == 429
        server.connect()
        assert (refused.ended.is_set(), silent.ended.is_set()) == (False, True)

    drive(story)


def test_a_connection_whose_answer_is_still_sent_gives_way_last() -> None:
    """A client that reads a long answer slowly gets it whole while others wait for a request."""

    async def story() -> None:
        server = Server(connections=3, peer_connections=2)
        reading, idle = (server.connect("10.0.0.7") for _ in range(2))
        for wire in (reading, idle):
            wire.send(GET)
            await settle()
        reading.unread = 10**6
        for host in ("10.0.0.7", "10.0.0.8", "10.0.0.9"):
            server.connect(host)
        assert (reading.ended.is_set(), idle.ended.is_set()) == (False, True)

    drive(story)


def test_fields_after_a_body_are_no_headers_of_the_request() -> None:
    """They are not read: a proxy has checked the header only."""

    async def story() -> None:
        server = Server()
        assert await server.asked(CHUNKED + b"0\r\nx-forwarded-for: 10.0.0.1\r\n\r\n") == 200
        assert server.header_names == [{b"host", b"transfer-encoding"}]

    drive(story)


def test_one_machine_cannot_take_all_connections() -> None:
    """Beyond its share its own silent connections give way, and its requests get a 503; others are answered."""

    async def story() -> None:
        server = Server(connections=100, peer_connections=2)
        silent = [server.connect("10.0.0.7") for _ in range(3)]
        assert [wire.ended.is_set() for wire in silent] == [True, False, False]
        for wire in silent[1:]:
            wire.send(SLOW)
        assert await server.asked(GET, "10.0.0.7") == 503
        assert await server.asked(HEALTH, "10.0.0.7") == 200
        assert await server.asked(GET, "10.0.0.8") == 200
        many = [server.connect("127.0.0.1") for _ in range(20)]
        assert not any(wire.ended.is_set() for wire in many)
        server.release.set()
        await settle()
        assert await server.asked(GET, "10.0.0.7") == 200

    drive(story)


@pytest.mark.parametrize(
    ("host", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.7", "10.0.0.7", True),
        ("::ffff:127.0.0.1", "::1", True),
        ("10.0.0.7", "10.0.0.8", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_a_machine_is_known_by_its_network(host: str, other: str, same: bool) -> None:
    """In IPv6 it has a network of its own, and any number of addresses."""
    assert (peer_of(host) == peer_of(other)) is same


def test_a_socket_without_an_address_is_local() -> None:
    """It has no network behind it."""
    assert peer_of("") == LOOPBACK


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET / HTTP/1.1\r\nx: " + b"a" * MAX_HEADER_BYTES + b"\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nx: "] + [b"a" * 4096] * 16,
        [b"GET /" + b"a" * 70_000],
        [b"GET / HTTP/1.1\r\n", *[b"a: b\r\n" * 1000] * 11],
        [CHUNKED + b"0\r\nx: ", *[b"a" * 60_000] * 2],
        [CHUNKED + b"0\r\n", *[b"a: b\r\n" * 10_000] * 2],
        [CHUNKED + b"1;", *[b"a" * 60_000] * 2],
    ],
)
def test_a_header_that_is_too_large_is_refused_before_it_is_complete(parts: list[bytes]) -> None:
    """The connection ends; whatever is large, also between the parts of a body and after it."""

    async def story() -> None:
        wire = Server().connect()
        for part in parts:
            assert not wire.ended.is_set()
            wire.send(part)
        assert wire.ended.is_set()

    drive(story)


def test_the_response_names_the_limit_of_a_header() -> None:
    """It is a problem document with status 431."""

    async def story() -> None:
        wire = Server().connect()
        wire.send(b"GET / HTTP/1.1\r\nx: " + b"a" * MAX_HEADER_BYTES)
        head, _, body = wire.received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 431 Request Header Fields Too Large"
        assert {b"content-type: application/problem+json", b"content-length: %d" % len(body)} <= {*lines}
        assert json.loads(body)["detail"] == "the request header exceeds 65536 bytes: send fewer or shorter headers"

    drive(story)


def test_a_large_body_is_no_header() -> None:
    """Nor is a request that follows it at once."""

    async def story() -> None:
        wire = Server().connect()
        head = b"POST / HTTP/1.1\r\nx: " + b"a" * 60_000 + b"\r\ncontent-length: 300000\r\n\r\n"
        for _ in range(3):
            wire.send(head + b"b" * 300_000)
            await settle()
        wire.send(GET)
        await settle()
        assert wire.received.count(b"HTTP/1.1 200 OK") == 4
        assert not wire.ended.is_set()

    drive(story)


def test_an_invalid_request_is_a_400() -> None:
    """As before."""

    async def story() -> None:
        assert await Server().asked(b"nonsense\r\n\r\n") == 400

    drive(story)


def test_requests_that_follow_at_once_are_answered_in_order_up_to_a_limit() -> None:
    """More of them than the limit end the connection: each takes memory."""

    async def story() -> None:
        server = Server()
        patient, greedy = server.connect(), server.connect()
        patient.send(GET * MAX_PIPELINED)
        await settle()
        greedy.send(SLOW + GET * (MAX_PIPELINED + 1))
        server.release.set()
        while patient.received.count(b"200 OK") < MAX_PIPELINED:
            await asyncio.sleep(0)
        assert greedy.ended.is_set()
        assert not greedy.received.startswith(b"HTTP/1.1 400")  # which would seem to answer the first request
        assert not patient.ended.is_set()

    drive(story)


def test_the_end_of_a_connection_reaches_the_request_that_others_wait_for(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is written to a closed connection, which would be an error in the log for every such client."""

    async def story() -> None:
        server = Server()
        for requests in (1, 2, MAX_PIPELINED + 2):
            wire = server.connect()
            wire.send(SLOW + GET * (requests - 1))
            await settle()
            wire.close()
            await settle()
            assert wire.lost
        server.release.set()
        await settle()
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    drive(story)


def test_a_header_that_does_not_come_ends_the_connection() -> None:
    """Whether nothing was sent, or a part of the header; a request in progress goes on."""

    async def story() -> None:
        server = Server(stall_seconds=0.1, idle_seconds=0.1)
        busy, silent, partial, idle = (server.connect() for _ in range(4))
        busy.send(SLOW)
        partial.send(GET[:30])
        idle.send(GET)
        for wire in (silent, partial, idle):
            await wire.ended.wait()
        assert not busy.ended.is_set()
        server.release.set()
        await settle()
        assert busy.status == 200

    drive(story)


def test_an_answer_that_is_not_read_ends_the_connection() -> None:
    """Its bytes would stay in memory; while some are read, it goes on."""

    async def story() -> None:
        server = Server(stall_seconds=0.1)
        stalled, reading = server.connect(), server.connect()
        for wire in (stalled, reading):
            wire.unread = 10**6
            wire.send(GET)
        while not stalled.ended.is_set():
            reading.unread -= 1
            await asyncio.sleep(0.01)
        assert not reading.ended.is_set()

    drive(story)


def test_unread_answers_have_a_limit_together() -> None:
    """Beyond it, those whose clients have read nothing for the longest time end; others stay."""

    async def story() -> None:
        server = Server()
        wires = [server.connect() for _ in range(4)]
        for wire in wires[1:]:
            wire.unread = MAX_UNSENT_BYTES // 2
            wire.send(GET)
        while not (ended := [wire.ended.is_set() for wire in wires]).count(True):
            wires[3].unread -= 1
            await asyncio.sleep(0.01)
        assert (ended[0], ended[3], any(ended[1:3])) == (False, False, True)

    drive(story)


def test_a_connection_is_not_handed_to_another_protocol() -> None:
    """An offer to speak WebSocket is ignored, and the request is answered."""

    async def story() -> None:
        upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n"
        assert await Server().asked(GET[:-2] + upgrade) == 200

    drive(story)


class Real:
    """A client on a real connection of a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, data: bytes) -> bytes:
        """Send bytes, and return the answer."""
        self._writer.write(data)
        return await self.answer()

    async def answer(self) -> bytes:
        return await self._reader.readuntil(b"ok")

    async def close(self) -> bool:
        """Close it; return whether the server had closed it before."""
        self._writer.write_eof()
        ended = not await self._reader.read()
        self._writer.close()
        return ended


async def listening(server: Server) -> tuple[asyncio.Server, Callable[[], Awaitable[Real]]]:
    """Return a listener of a server, and a function that opens a connection to it."""
    listener = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)

    async def connect() -> Real:
        return Real(*await asyncio.open_connection(*listener.sockets[0].getsockname()))

    return listener, connect


def test_connections_between_requests_are_answered_by_the_next_server() -> None:
    """Silent ones, used ones, and one in a request, which is answered first; each stays open for its client."""

    async def story() -> None:
        first, second, loop = Server(), Server(), asyncio.get_running_loop()
        listener, connect = await listening(first)
        async with listener:
            silent, used, chunked, busy = [await connect() for _ in range(4)]
            await used.ask(GET)
            await chunked.ask(CHUNKED + b"0\r\n\r\n")
            answer = asyncio.create_task(busy.ask(SLOW))
            while not first.busy:
                await asyncio.sleep(0)
            detaching = asyncio.create_task(first.connections.detach())
            while len(first.connections.detached or ()) < 3:
                await asyncio.sleep(0)
            first.release.set()
            sockets = await detaching
            assert b"200 OK" in await answer
        assert len(sockets) == 4
        for each in sockets:
            await loop.connect_accepted_socket(second.protocol, each)
        for client in (silent, used, chunked, busy):
            assert b"200 OK" in await client.ask(GET)
            assert await client.close()
        assert len(second.header_names) == 4

    drive(story)


def test_a_header_that_has_begun_stays_with_its_server() -> None:
    """Its first bytes have been read there, so it is answered there, if its end comes within a second."""

    async def story() -> None:
        server = Server()
        listener, connect = await listening(server)
        async with listener:
            begun = await connect()
            await begun.ask(GET + GET[:20])
            detaching = asyncio.create_task(server.connections.detach())
            while server.connections.detached is None:
                await asyncio.sleep(0)
            assert b"200 OK" in await begun.ask(GET[20:])
            (socket,) = await detaching
            socket.close()
            assert await begun.close()

    drive(story)


def test_a_slow_client_delays_no_handover() -> None:
    """One that does not read its answer gets it later, and a body that is slow to arrive is not awaited."""

    async def story() -> None:
        server = Server()
        reading, sending = server.connect(), server.connect()
        reading.unread = 10
        reading.send(GET)
        sending.send(CHUNKED)
        await settle()
        assert await server.connections.detach() == []
        assert (reading.ended.is_set(), sending.ended.is_set()) == (False, True)
        assert server.state.connections == set()
        reading.unread = 0
        reading.close()
        await server.connections.sent(SECONDS)
        assert reading.status == 200

    drive(story)


@pytest.fixture
def few_files() -> Iterator[int]:
    """A soft limit of open files below what the connections need; set back after the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_is_raised_for_the_connections(few_files: int) -> None:
    """As far as the system allows; otherwise there are fewer connections."""
    metrics = ProcessMetrics("m", log_queue_rows=lambda: 0)
    assert Connections(ServeSettings(connections=500), metrics).limit == 500
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 500 + HEALTH_CONNECTIONS + OTHER_FILES
    assert Connections(ServeSettings(connections=few_files), metrics).limit < few_files


def test_connections_are_handed_over_within_the_limit_of_open_files(few_files: int) -> None:
    """Each is open twice for a moment, which is waited for."""

    async def story() -> None:
        server = Server()
        listener, connect = await listening(server)
        async with listener:
            clients = [await connect() for _ in range(40)]
            for client in clients:
                await client.ask(GET)
            probe = os.dup(0)
            os.close(probe)
            resource.setrlimit(resource.RLIMIT_NOFILE, (probe + 4, few_files))
            sockets = await server.connections.detach()
        assert len(sockets) == 40
        for each in sockets:
            each.close()
        assert all([await client.close() for client in clients])

    drive(story)


PREDICT = b"POST /v1/predict?a=b HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n"


def test_a_full_queue_refuses_before_the_body_is_there() -> None:
    """The rest of the request is not kept, and the connection serves the next one."""

    async def story() -> None:
        server = Server()
        wire = server.connect()
        server.overload.is_full = True
        wire.send(PREDICT + b"ab")
        await settle()
        assert wire.received.startswith(b"HTTP/1.1 429 ")
        assert server.header_names == []
        wire.send(b"cd" + PREDICT + b"abcd")
        await settle()
        assert wire.received.count(b"HTTP/1.1 429 ") == 2
        server.overload.is_full = False
        wire.send(PREDICT + b"abcd")
        await settle()
        assert wire.received.endswith(b"ok")
        assert len(server.header_names) == 1

    drive(story)


def test_a_full_queue_leaves_other_requests_to_the_application() -> None:
    """Other paths, connections that end with the request, and requests behind one that is not answered."""

    async def story() -> None:
        server = Server()
        server.overload.is_full = True
        assert await server.asked(GET) == 200
        last = PREDICT.replace(b"\r\nhost", b"\r\nconnection: close\r\nhost")
        assert await server.asked(last + b"abcd") == 200
        assert await server.asked(PREDICT.replace(b"\r\nhost", b"\r\nexpect: 100-continue\r\nhost") + b"abcd") == 100
        wire = server.connect()
        wire.send(SLOW + PREDICT + b"abcd")
        await settle()
        assert wire.received == b""
        server.release.set()
        await settle()
        assert wire.received.count(b"HTTP/1.1 200 ") == 2

    drive(story)


def test_a_refused_body_that_does_not_come_ends_its_connection() -> None:
    """It has the time of a header."""

    async def story() -> None:
        server = Server(stall_seconds=0.01)
        server.overload.is_full = True
        wire = server.connect()
        wire.send(PREDICT + b"ab")
        await wire.ended.wait()

    drive(story)


def test_header_and_body_of_an_answer_are_written_at_once() -> None:
    """A call of the system for each part would take as long as the request."""

    async def story() -> None:
        server = Server()
        wire = server.connect()
        parts: list[bytes] = []
        wire.write = parts.append  # type: ignore[method-assign]
        wire.send(GET)
        await settle()
        (answer,) = parts
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\nok")

    drive(story)
