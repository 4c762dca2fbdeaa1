"""Attacks of strangers on a running service, each as a function that attacks once, for some seconds at most."""

from __future__ import annotations

import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Any
from urllib.parse import quote

from chaos import project

Attack = Callable[["Attacker"], None]

SILENT = 1_050
"""Silent connections: more than the service takes."""
LONG_RECORDS = 16
"""Records of 4 MB that are logged in all: the store keeps them."""
LONG_TEXT = "free money " * 350_000
BATCH = 900
HEAD = "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"


class Attacker:
    """Sender of requests whose answers are counted, and not believed.

    Parameters
    ----------
    port
        Port of the service.
    records
        Records that the model can read.
    seed
        Seed of the choices.
    seconds
        Longest time that it waits for an answer.
    """

    def __init__(self, port: int, records: Sequence[project.Record], seed: int, seconds: float) -> None:
        self.port, self.records, self.seconds = port, records, seconds
        self.draw = random.Random(seed)
        self.numbers = count()
        self.outcomes: dict[str, Counter[str]] = {}
        self.attack = ""

    def run(self, attack: Attack) -> None:
        """Attack once."""
        self.attack = attack.__name__
        attack(self)

    def count(self, outcome: str) -> None:
        """Count an outcome of the current attack."""
        self.outcomes.setdefault(self.attack, Counter())[outcome] += 1

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """Yield a connection from another address of this machine, and count its end without an answer."""
        connection = socket.socket()
        connection.settimeout(self.seconds)
        try:
            with connection:
                with suppress(OSError):  # what is sent fails, too
                    connection.bind(("127.0.0.2", 0))
                    connection.connect(("127.0.0.1", self.port))
                yield connection
        except TimeoutError:
            self.count("given up")
        except OSError:
            self.count("closed")

    def answer(self, connection: socket.socket) -> None:
        """Read an answer to its end, and count its status."""
        data = b""
        while b"\r\n\r\n" not in data and (part := connection.recv(2**16)):
            data += part
        if not data:
            self.count("closed")
            return
        head, _, rest = data.partition(b"\r\n\r\n")
        self.count(head.split(b" ")[1].decode())
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(rest) < length and (part := connection.recv(2**20)):
            rest += part

    def send(self, content: bytes) -> None:
        """Send bytes on a new connection, and read the answer."""
        with self.connection() as connection:
            with suppress(ConnectionError):  # refused before all of it was sent
                connection.sendall(content)
            self.answer(connection)

    def post(self, path: str, sent: Any) -> None:
        """Send JSON."""
        self.send(request(path, json.dumps(sent).encode()))

    def get(self, path: str, method: str = "GET") -> None:
        """Send a request without a body."""
        self.send(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())


def request(path: str, body: bytes) -> bytes:
    """Return a request as bytes."""
    return HEAD.format(path, len(body)).encode() + body


def silent_connections(attacker: Attacker) -> None:
    """Open more connections than the service takes, say nothing, and hold them for a while."""
    with ExitStack() as held:
        for _ in range(SILENT):
            with suppress(OSError):
                address = "127.0.0.1", attacker.port
                connection = socket.create_connection(address, attacker.seconds, ("127.0.0.2", 0))
                held.enter_context(connection)
                attacker.count("opened")
        time.sleep(1)


def endless_headers(attacker: Attacker) -> None:
    """Send one header of 8 MiB at once, and another byte by byte."""
    attacker.send(b"GET / HTTP/1.1\r\nx: " + b"a" * 2**23)
    with attacker.connection() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(20):
            connection.sendall(b"a")
            time.sleep(0.02)


def bodies_of_tokens(attacker: Attacker) -> None:
    """Send bodies of a million values, and one of ten thousand levels."""
    for item in (b"[]", b"1", b'""', b'{"a":1}'):
        inner = b",".join([item] * (3_900_000 // (len(item) + 1)))
        attacker.send(request("/v1/predict", b'{"instances":[{"text":[' + inner + b"]}]}"))
    attacker.send(request("/v1/predict", b'{"instances":' + b"[" * 10_000))


def half_bad_batches(attacker: Attacker) -> None:
    """Send a large batch, half of which the model cannot read."""
    good = [attacker.records[n % len(attacker.records)] for n in range(BATCH)]
    attacker.post("/v1/predict", {"instances": [row if n % 2 else {"text": "x"} for n, row in enumerate(good)]})


def large_batches(attacker: Attacker) -> None:
    """Send a large batch that is right."""
    attacker.post("/v1/predict", {"instances": [attacker.records[n % len(attacker.records)] for n in range(BATCH)]})
    time.sleep(0.2)


def long_records(attacker: Attacker) -> None:
    """Log records of 4 MB, and read pages and reports of them: whole, slowly, and not at all."""
    number = next(attacker.numbers)
    if number < LONG_RECORDS:
        record = {"text": f"{number} {LONG_TEXT}", "video": "a", "likes": 1}
        attacker.post("/v1/predict", {"instances": [record], "ids": [f"long-{number}"]})
    page = b"GET /v1/slices/__all__/records?kind=all&limit=500 HTTP/1.1\r\nhost: localhost\r\n\r\n"
    whole = f"GET /v1/predictions/long-{number % LONG_RECORDS} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    attacker.send(page)
    attacker.send(whole)
    with attacker.connection() as unread, attacker.connection() as slow:
        unread.sendall(whole * 8)
        slow.sendall(whole)
        for _ in range(10):
            slow.recv(1_000)
            time.sleep(0.05)


def reports(attacker: Attacker) -> None:
    """Ask for reports and their pages all the time."""
    attacker.post("/v1/reports", {})
    attacker.get("/v1/reports")
    attacker.get(f"/v1/reports/{attacker.draw.randint(1, 9)}/html")
    time.sleep(0.5)


def slow_template(name: str, k: int = 0, terms: int = 199) -> dict[str, Any]:
    """Return a template of legal patterns, each of some hundred instructions that are all active at once."""
    patterns = [f"(?:a|b)*a[ab{chr(ord('d') + k)}]{{{400 + n}}}c" for n in range(terms)]
    return {"name": name, "any": [{"regex": {"field": "text", "pattern": pattern}} for pattern in patterns]}


def templates(attacker: Attacker) -> None:
    """Add slow and large templates, send a text for them, preview one, and remove them again."""
    text = "".join(attacker.draw.choices("ab", k=100_000))
    record = {"text": text, "video": "a", "likes": 1}
    names = [f"{project.HOSTILE} {k}" for k in range(3)]
    for k, name in enumerate(names):
        attacker.post("/v1/functions", slow_template(name, k))
        attacker.post("/v1/predict", {"instances": [record]})
    attacker.post("/v1/functions/preview", {"function": slow_template("x", 9), "records": [record]})
    for name in names:
        attacker.get(f"/v1/functions/{quote(name)}", "DELETE")


def malformed_bodies(attacker: Attacker) -> None:
    """Send bodies with a few bytes changed, cut or doubled, and with lengths that are wrong."""
    good = [
        ("/v1/predict", {"instances": list(attacker.records[:2]), "ids": ["a", "b"]}),
        ("/v1/labels", {"labels": [{"id": "a", "label": "ham", "observed_at": "2026-05-01T12:00:00Z"}]}),
        ("/v1/functions", {"name": "x", "any": [{"compare": {"field": "likes", "below": 1}}]}),
        ("/v1/models/1/promote", {"reason": 1, "expected": "x"}),
        ("/v1/predictions", {"predictions": [{"features": {}, "label": "ham", "version": 1}]}),
    ]
    values = [b"1e999", b"null", b'"\\ud800"', b'"\\u0000"', b"[" * 50, b"{}", b"\xff", b"9" * 4000]
    for path, body in good:
        content = bytearray(json.dumps(body).encode())
        place = attacker.draw.randrange(1, len(content))
        content[place : place + attacker.draw.randrange(9)] = attacker.draw.choice(values)
        attacker.send(request(path, bytes(content)))
        attacker.send(HEAD.format(path, attacker.draw.choice(["-1", "x", "9" * 30, "4194305", "0x10"])).encode())
    with attacker.connection() as connection:  # goes in the middle of a body
        connection.sendall(request("/v1/predict", b'{"instances": []}')[:-5])


def labels_without_predictions(attacker: Attacker) -> None:
    """Send labels for ids that never come, and of classes that do not exist."""
    ids = [f"never-{attacker.draw.randrange(10**9)}" for _ in range(200)]
    attacker.post("/v1/labels", {"labels": [{"id": id_, "label": "ham"} for id_ in ids]})
    attacker.post("/v1/labels", {"labels": [{"id": id_, "label": id_, "labeller": id_} for id_ in ids]})
    time.sleep(0.3)


def hostile_functions(attacker: Attacker) -> None:
    """Send the records on which Python functions of the project attack."""
    name = attacker.draw.choice([*project.ATTACKS])
    rows = [{"text": project.marked(name), "video": "a", "likes": 1}, *attacker.records[:3]]
    attacker.post("/v1/predict", {"instances": rows})
    time.sleep(0.05)


def names_without_end(attacker: Attacker) -> None:
    """Send paths, methods, versions, hosts and ids of requests that occur once."""
    word = f"{attacker.draw.getrandbits(64):x}"
    for line in (f"GET /v1/slices/{word}", f"GET /{word}", f"BREW{word} /v1/predict", f"GET /v1/predictions/{word}"):
        attacker.send(f"{line} HTTP/1.1\r\nhost: localhost\r\nx-request-id: {word}\r\n\r\n".encode())
    attacker.send(f"GET / HTTP/1.1\r\nhost: {word}.example.com\r\n\r\n".encode())
    attacker.send(f"GET /v1/slices/{word}%0a{word} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    with attacker.connection() as connection:
        connection.sendall(b"GET /v1/slices HTTP/1.1\r\nhost: localhost\r\n\r\n" * 40)
        attacker.answer(connection)
    record = {"features": {"text": word, "video": word, "likes": None}, "label": "ham"}
    version = attacker.draw.randrange(1_000, 2**31)
    attacker.post("/v1/predictions", {"predictions": [{**record, "version": version}]})
    time.sleep(0.2)


ATTACKS: tuple[Attack, ...] = (
    silent_connections,
    endless_headers,
    bodies_of_tokens,
    half_bad_batches,
    large_batches,
    long_records,
    reports,
    templates,
    malformed_bodies,
    labels_without_predictions,
    hostile_functions,
    names_without_end,
)
