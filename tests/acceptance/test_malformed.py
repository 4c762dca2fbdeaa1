"""Thousands of malformed requests, without keys and with them: prompt, explained rejections without side effects."""

import json
import os
import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import utc_now
from service.client import Client
from service.keys import KeyFile

SEED = 5
REQUESTS = int(os.environ.get("SLICEWATCH_TEST_BODIES", "1000")) // 2
"""Requests to each of both services."""
SENDERS = 6
PATIENCE_SECONDS = 150.0
MEAN_CPU_SECONDS = 0.02
BODY_BYTES = 4 * 2**20
GROWTH_BYTES = 64 * 2**20
"""Maximum growth of the service's memory after the first fifth of the requests."""

Json = Any
GOOD: dict[str, Json] = {
    "/v1/predict": {"instances": [{"text": "hello", "video": "a", "likes": 3}] * 2, "ids": ["a-1", "a-2"]},
    "/v1/predictions": {
        "predictions": [
            {
                "id": "b-1",
                "features": {"text": "hello", "video": "a", "likes": None},
                "label": "spam",
                "probabilities": {"ham": 0.25, "spam": 0.75},
                "predicted_at": "2026-05-01T12:00:00Z",
                "version": 1,
            }
        ]
    },
    "/v1/labels": {
        "labels": [
            {
                "id": "a-1",
                "label": "ham",
                "observed_at": "2026-05-01T12:00:00Z",
                "labeller": "me",
                "idempotency_key": "k",
            }
        ]
    },
    "/v1/functions": {
        "name": "short_one",
        "all": [
            {"length": {"field": "text", "unit": "words", "below": 4}},
            {"not": {"regex": {"field": "text", "pattern": "(?i)a|b"}}},
            {"any": [{"missing": {"field": "likes"}}, {"one_of": {"field": "video", "values": ["a", 1]}}]},
        ],
        "owner": "me",
        "target": 0.9,
    },
    "/v1/functions/preview": {
        "function": {"name": "links", "keyword": {"field": "text", "words": ["http", "www"]}},
        "records": [{"text": "www", "likes": 1}, {"text": None}],
    },
    "/v1/models/1/promote": {"reason": "better", "by": "me", "expected": 1},
    "/v1/models/rollback": {"reason": "worse", "by": "me"},
    "/v1/alarms/1/acknowledge": {"by": "me", "note": "seen"},
    "/v1/alarms/1/resolve": {"by": "me", "note": "gone"},
}
WRONG: tuple[Json, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**30,
    -(10**400),
    1e308,
    "",
    "x",
    " ",
    "\x00",
    "\x7f",
    "a" * 5000,
    "9" * 400,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"b": []}},
    "2026-13-45",
    "0001-01-01T00:00:00+23:59",
    "__all__",
    "(" * 50,
    "(a+)+$",
)
NUMBERS = (
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "-Infinity",
    "1" + "0" * 5000,
    "0." + "1" * 5000,
    "01",
    "1.",
    "+1",
    "-0.0",
)


@dataclass(frozen=True)
class Measured:
    """Service with the outcomes of all requests, its processor time in seconds, and the growth of its memory."""

    service: Any
    token: str | None
    outcomes: list["Outcome"]
    seconds: float
    growth_bytes: int


@dataclass(frozen=True)
class Malformed:
    """Request as bytes, and whether it passes the server's HTTP parser."""

    kind: str
    path: str
    sent: bytes
    framed: bool = True


@dataclass(frozen=True)
class Outcome:
    """Outcome of a request; the status is None if the connection was closed without a response."""

    request: Malformed
    status: int | None
    content_type: str | None


def request(
    path: str, body: bytes, headers: str = "content-type: application/json", length: str | None = None
) -> bytes:
    """Return an HTTP request as bytes."""
    size = str(len(body)) if length is None else length
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        "connection: close",
        f"content-length: {size}",
        headers,
    ]
    return "\r\n".join([line for line in lines if line] + ["", ""]).encode() + body


def chunked(path: str, body: bytes) -> bytes:
    """Return a request with a chunked body; the chunks are used verbatim."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    return (head + "transfer-encoding: chunked\r\n\r\n").encode() + body


def places(value: Json, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    yield place
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*place, key))


def replaced(value: Json, place: tuple[Any, ...], new: Json) -> Json:
    """Return a document with the value at one path replaced."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = replaced(value[place[0]], place[1:], new)
    return copy


def dumped(value: Json) -> bytes:
    return json.dumps(value).encode()


def truncated(draw: random.Random, good: Json) -> bytes:
    text = dumped(good)
    return text[: draw.randrange(len(text))]


def wrongly_typed(draw: random.Random, good: Json) -> bytes:
    return dumped(replaced(good, draw.choice(list(places(good))), draw.choice(WRONG)))


def twice_wrong(draw: random.Random, good: Json) -> bytes:
    once = replaced(good, draw.choice(list(places(good))), draw.choice(WRONG))
    return dumped(replaced(once, draw.choice(list(places(once))), draw.choice(WRONG)))


def nested(draw: random.Random, good: Json) -> bytes:
    depth = draw.choice([20, 100, 150, 200, 300, 1000, 20_000, 200_000])
    start, end = draw.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'{"not":', b"}"), (b'{"all":[', b"]}")])
    inner = start * depth + b"1" + (end * depth if draw.random() < 0.8 else b"")
    return marked(draw, good, inner)


def strange_number(draw: random.Random, good: Json) -> bytes:
    return marked(draw, good, draw.choice(NUMBERS).encode())


def marked(draw: random.Random, good: Json, raw: bytes) -> bytes:
    """Return a document with one value replaced by arbitrary text."""
    place = draw.choice(list(places(good)))
    return dumped(replaced(good, place, "@here@")).replace(b'"@here@"', raw)


def no_utf8(draw: random.Random, good: Json) -> bytes:
    text = bytearray(dumped(good))
    for _ in range(draw.randint(1, 3)):
        text.insert(draw.randrange(len(text)), draw.randrange(0x80, 0x100))
    return bytes(text)


def surrogate(draw: random.Random, good: Json) -> bytes:
    text = dumped(good).decode()
    at = draw.choice([match.start() + 1 for match in re.finditer(r'"[a-z]', text)])
    return (text[:at] + draw.choice(["\\ud800", "\\udfff", "\\u0000", "\\ud800\\ud800"]) + text[at:]).encode()


def doubled_key(draw: random.Random, good: Json) -> bytes:
    key = draw.choice(list(good))
    other = dumped(draw.choice([*WRONG, good[key]]))
    return dumped(good)[:-1] + b"," + dumped(key) + b":" + other + b"}"


def of_no_shape(draw: random.Random, good: Json) -> bytes:
    return draw.choice(
        [
            b"",
            b" ",
            b"\xef\xbb\xbf" + dumped(good),
            dumped(good) * 2,
            b"null",
            b"hello",
            b"\x00" * 9,
            draw.randbytes(200),
            dumped(good).decode().encode("utf-16"),
            b"'" + dumped(good),
            dumped(dumped(good).decode()),
        ]
    )


def too_many(draw: random.Random, good: Json) -> bytes:
    part = draw.choice(list(good))
    value = good[part]
    return dumped({**good, part: (value if isinstance(value, list) else [value]) * draw.choice([501, 10_001])})


BODIES = (
    truncated,
    wrongly_typed,
    wrongly_typed,
    wrongly_typed,
    twice_wrong,
    nested,
    strange_number,
    no_utf8,
    surrogate,
    doubled_key,
    of_no_shape,
    too_many,
)
TYPES = (
    "",
    "content-type:",
    "content-type: text/plain",
    "content-type: application/x-www-form-urlencoded",
    "content-type: ;",
    "content-type: multipart/form-data; boundary=x",
    "content-type: application/json; charset=utf-16",
    "content-type: application/json\r\ncontent-encoding: gzip",
    "content-type: application/json\r\ncontent-encoding: br",
    "content-type: application/json\r\nexpect: 100-continue",
    "content-type: application/json\r\nx-request-id: \t\xff",
)


def wrongly_labelled(draw: random.Random, path: str) -> Malformed:
    """Return a valid body with contradictory headers."""
    return Malformed("headers", path, request(path, dumped(GOOD[path]), draw.choice(TYPES)))


def wrongly_framed(draw: random.Random, path: str) -> Malformed:
    """Return a body with a wrong or invalid length."""
    body = dumped(GOOD[path])
    framed = draw.choice(
        [
            request(path, body, length=length)
            for length in (
                str(len(body) + 7),
                str(len(body) - 7),
                "-1",
                "x",
                "1e3",
                "9" * 30,
                str(BODY_BYTES + 1),
                "",
                "0x10",
                "3, 4",
            )
        ]
        + [
            request(path, body, "content-type: application/json\r\ntransfer-encoding: chunked"),
            chunked(path, b"zz\r\n" + body),
            chunked(path, b"-5\r\n" + body),
            chunked(path, b"ffffffffffffffffff\r\n" + body),
            chunked(path, f"{len(body):x}\r\n".encode() + body),
            chunked(path, b"5\r\n" + body + b"\r\n0\r\n\r\n"),
            request(path, body)[: draw.randrange(20, 100)],
        ]
    )
    return Malformed("framing", path, framed, framed=False)


def too_long(draw: random.Random, path: str) -> Malformed:
    """Return a body over the size limit, without a Content-Length."""
    size = 2**16
    chunk = f"{size:x}\r\n".encode() + b" " * size + b"\r\n"
    return Malformed("length", path, chunked(path, chunk * (BODY_BYTES // size + 2) + b"0\r\n\r\n"), framed=False)


def malformed() -> Iterator[Malformed]:
    """Yield all requests, deterministically."""
    draw = random.Random(SEED)
    for i in range(REQUESTS):
        path = draw.choice(list(GOOD))
        if i % 100 == 0:
            yield too_long(draw, path)
        elif i % 10 == 1:
            yield wrongly_framed(draw, path)
        elif i % 10 == 2:
            yield wrongly_labelled(draw, path)
        else:
            make = draw.choice(BODIES)
            yield Malformed(make.__name__, path, request(path, make(draw, GOOD[path])))


def outcome(port: int, sent: Malformed) -> Outcome:
    """Send a request, close the sending side after a badly framed request, and return the outcome."""
    status = content_type = None
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        with suppress(OSError):  # it may be refused before it was sent wholly
            connection.sendall(sent.sent)
            if not sent.framed:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError, HTTPException), HTTPResponse(connection, method="POST") as response:
            response.begin()
            status, content_type = response.status, response.getheader("content-type")
            response.read()
    return Outcome(sent, status, content_type)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Return the memory of a process in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def authorized(sent: Malformed, token: str) -> Malformed:
    """Return a request with a key."""
    head, _, rest = sent.sent.partition(b"host: localhost\r\n")
    with_key = head + b"host: localhost\r\nauthorization: Bearer " + token.encode() + b"\r\n" + rest
    return replace(sent, sent=with_key if rest else sent.sent)


@pytest.fixture(scope="module", params=["open", "keyed"])
def measured(request: pytest.FixtureRequest, trained: Path, start_shared: Callable[..., Any]) -> Measured:
    """Outcomes for a service without keys, or with some, of which a third of the requests have a valid one.

    A request without an end fails it.
    """
    tokens: list[str] = []

    def prepare(folder: Path) -> None:
        if request.param == "keyed":
            file = KeyFile(folder / ".slicewatch" / "keys.json")
            tokens.append(file.add("all", ("admin",), utc_now()).token)

    service = start_shared(trained, prepare)
    pid, before = service.process.pid, cpu_seconds(service.process.pid)
    sent = list(malformed())
    if tokens:
        head = service_head(tokens[0])
        assert outcome(service.port, Malformed("first", "/v1/models", head)).status == 200  # now it is a key in use
        keys = (tokens[0], "sw_AAAAAAAA_" + 43 * "A", None)
        sent = [each if key is None else authorized(each, key) for each, key in zip(sent, cycle(keys), strict=False)]
    with ThreadPoolExecutor(SENDERS) as senders:
        outcomes = list(senders.map(lambda each: outcome(service.port, each), sent[: REQUESTS // 5]))
        memory = memory_bytes(pid)
        outcomes += senders.map(lambda each: outcome(service.port, each), sent[REQUESTS // 5 :])
    token = tokens[0] if tokens else None
    return Measured(service, token, outcomes, cpu_seconds(pid) - before, memory_bytes(pid) - memory)


def service_head(token: str) -> bytes:
    """Return a valid request with a key."""
    return f"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def outcomes(measured: Measured) -> list[Outcome]:
    """Outcomes of all requests."""
    return measured.outcomes


def test_none_is_answered_by_a_server_error(outcomes: list[Outcome]) -> None:
    """No malformed request gets a 5xx status."""
    assert len(outcomes) == REQUESTS
    failed = [each for each in outcomes if each.status is not None and each.status >= 500]
    print(sorted(Counter((each.request.kind, each.status) for each in outcomes).items(), key=str))
    assert [(each.status, each.request.kind, each.request.sent[:2000]) for each in failed] == []


def test_whole_requests_are_answered(outcomes: list[Outcome]) -> None:
    """Only an incomplete request may get no response."""
    unanswered = [each for each in outcomes if each.status is None and each.request.framed]
    assert [each.request.sent[:2000] for each in unanswered] == []


def test_refusals_are_problems(outcomes: list[Outcome]) -> None:
    """Complete requests are rejected with problem documents."""
    refused = [each for each in outcomes if each.request.framed and (each.status or 0) >= 400]
    kinds = Counter(each.content_type for each in refused)
    assert len(refused) > REQUESTS / 2
    assert kinds.keys() == {"application/problem+json"}


def test_requests_without_a_valid_key_get_nothing_else(measured: Measured) -> None:
    """With keys, two thirds of the requests are refused for that reason alone."""
    refused = Counter(each.status for each in measured.outcomes if each.status in (401, 429))
    framed = sum(each.request.framed for each in measured.outcomes)
    assert (sum(refused.values()) > framed / 2) is (measured.token is not None)


def test_none_is_expensive(measured: Measured) -> None:
    """A malformed request costs less than 20 ms of processor time on average."""
    print(f"{1000 * measured.seconds / REQUESTS:.1f} ms of processor time per request")
    assert 0 < measured.seconds < MEAN_CPU_SECONDS * REQUESTS


def test_memory_is_flat(measured: Measured) -> None:
    """After the first fifth of the requests the service takes little more."""
    print(f"{measured.growth_bytes / 2**20:.1f} MiB after {REQUESTS - REQUESTS // 5} requests")
    assert measured.growth_bytes < GROWTH_BYTES


def test_it_goes_on_as_before(measured: Measured, records: list[dict[str, Any]]) -> None:
    """A valid request is answered afterwards, and the log has no internal errors."""
    assert len(measured.outcomes) == REQUESTS
    with Client(f"http://127.0.0.1:{measured.service.port}", key=measured.token) as client:
        assert len(client.predict(records[:3]).predictions) == 3
    assert [line for line in measured.service.lines() if line["level"] == "ERROR"] == []


def test_a_body_that_does_not_come_is_no_fault_of_the_server(up: Callable[..., Any], project: Any) -> None:
    """A client that stops sending in the middle of a body gets a response other than 5xx at the timeout."""
    running = up(project, SLICEWATCH_SERVE_REQUEST_SECONDS=1)
    sent = request("/v1/predict", b'{"instances": [', length="1000")
    found = outcome(running.port, Malformed("slow", "/v1/predict", sent))
    assert found.status == 408
