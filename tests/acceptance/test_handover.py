"""A restart on SIGUSR2: the next process takes over, and no request fails."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.store.engine import Store
from service.store.tables import label_events, predictions

RATE = 100.0
"""Requests a second; fewer on a machine that does not answer as many."""
CLIENTS = 16
BETWEEN_RESTARTS = 150
RESTARTS = 2

Record = dict[str, Any]
Wait = Callable[..., Any]


class Service:
    """A service with its successors."""

    def __init__(self, running: Any, until: Wait) -> None:
        self.running, self._until = running, until
        self.pids = [running.process.pid]

    def said(self, message: str) -> list[str]:
        """Return the messages of the log that contain a text."""
        return [line["message"] for line in self.running.lines(message) if message in line.get("message", "")]

    def begin(self) -> int:
        """Ask the process that serves for a successor, and return the successor's process id."""
        before = len(self.said("is starting, to take over"))
        os.kill(self.pids[-1], signal.SIGUSR2)
        self._until(lambda: len(self.said("is starting, to take over")) > before)
        return int(self.said("is starting, to take over")[-1].split()[1])

    def ask_in_vain(self, reason: str) -> None:
        """Ask for a successor, and wait for the reason why there is none."""
        os.kill(self.pids[-1], signal.SIGUSR2)
        self._until(lambda: [line for line in self.said("no process can take over") if reason in line])

    def restart(self) -> None:
        """Replace the process that serves."""
        pid = self.begin()
        self.pids.append(pid)
        failures = len(self.said("serves on"))
        self._until(lambda: self.said(f"process {pid} has taken over") or len(self.said("serves on")) > failures)
        assert self.said(f"process {pid} has taken over")

    def end(self) -> None:
        """Kill the process that serves."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.running.process.wait()
        self._until(lambda: not any(map(lives, self.pids)))


def lives(pid: int) -> bool:
    """Return whether a process has not ended; one that nothing waits for has."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.fixture
def service(up: Callable[..., Any], until: Wait, project: Path) -> Iterator[Service]:
    """A running service, which ends with its successors after the test; a failed test shows what they logged."""
    found = Service(up(project, SLICEWATCH_SERVE_IDLE_SECONDS=3600, SLICEWATCH_SERVE_STALL_SECONDS=3600), until)
    yield found
    print(found.running.said())
    found.end()


class OpenLoop:
    """Clients on kept connections that send at a steady rate, whether or not earlier requests are answered."""

    def __init__(self, call: Callable[[], Any], records: list[Record]) -> None:
        self._call, self._records = call, records
        self._over, self._slots, self._start = threading.Event(), count(), time.monotonic()
        self.answered: list[str] = []
        self.labelled: list[str] = []
        self.failed: list[str] = []
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]

    def __enter__(self) -> "OpenLoop":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _client(self) -> None:
        call = self._call()
        while not self._over.is_set():
            slot = next(self._slots)
            self._over.wait(self._start + slot / RATE - time.monotonic())
            began, id_ = time.monotonic(), f"row-{slot}"
            try:
                self._send(call, slot, id_)
            except Exception as error:  # any of them is a failed request
                self.failed.append(f"{id_}: {error!r}")
                call.close()
            self.slowest = max(self.slowest, time.monotonic() - began)
        call.close()

    def _send(self, call: Any, slot: int, id_: str) -> None:
        if slot % 4:
            sent: Record = {"instances": [self._records[slot % len(self._records)]], "ids": [id_]}
            reply, done = call("POST", "/v1/predict", sent), self.answered
        else:
            sent = {"labels": [{"id": id_, "label": "spam", "idempotency_key": id_}]}
            reply, done = call("POST", "/v1/labels", sent), self.labelled
        assert reply.status == 200, reply.body
        done.append(id_)


def test_a_restart_under_load_fails_no_request(
    service: Service, caller: Callable[[int], Any], until: Wait, project: Path, records: list[Record]
) -> None:
    """All requests at 100 a second are answered through two restarts, and each row is in the log once."""
    settings = (project / "slicewatch.yaml").read_text()
    port = service.running.port
    with OpenLoop(lambda: caller(port), records) as load:
        for limit in range(2, 2 + RESTARTS):
            wanted = len(load.answered) + BETWEEN_RESTARTS
            until(lambda wanted=wanted: len(load.answered) >= wanted)
            (project / "slicewatch.yaml").write_text(f"{settings}serve: {{request_rows: {limit}}}\n")
            service.restart()
        wanted = len(load.answered) + BETWEEN_RESTARTS
        until(lambda: len(load.answered) >= wanted)
    print(f"{len(load.answered) + len(load.labelled)} requests, the slowest took {load.slowest:.2f} s")
    assert load.failed == []
    too_many = {"instances": records[: RESTARTS + 2]}
    assert service.running.ask("POST", "/v1/predict", too_many).status in (400, 413, 422)
    assert len({*service.pids}) == RESTARTS + 1
    until(lambda: not any(map(lives, service.pids[:-1])))  # an interpreter needs a while to end
    assert lives(service.pids[-1])
    assert service.running.process.wait() == 0
    os.kill(service.pids[-1], signal.SIGTERM)
    until(lambda: not lives(service.pids[-1]))
    with Store(project / ".slicewatch" / "store.sqlite3") as store, store.read() as connection:
        logged = Counter(connection.scalars(select(predictions.c.id)))
        events = Counter(connection.scalars(select(label_events.c.prediction_id)))
    assert logged == dict.fromkeys(load.answered, 1)
    assert events == dict.fromkeys(load.labelled, 1)


def test_a_connection_between_two_requests_goes_on(
    service: Service, caller: Callable[[int], Any], records: list[Record]
) -> None:
    """The next process answers on the connection that its client has kept."""
    call = caller(service.running.port)
    with socket.create_connection(("127.0.0.1", service.running.port)) as silent:
        assert call("GET", "/healthz").status == 200
        service.restart()
        assert call("POST", "/v1/predict", {"instances": records[:1]}).status == 200
        assert call.opened == 1
        silent.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert silent.recv(1024).startswith(b"HTTP/1.1 200 OK\r\n")
    call.close()


def test_a_successor_that_fails_leaves_the_service_as_it_was(
    service: Service, caller: Callable[[int], Any], until: Wait, project: Path, records: list[Record]
) -> None:
    """It is killed, has wrong settings or no model, or fails once the store is its own: the first process goes on."""
    call, text = caller(service.running.port), (project / "slicewatch.yaml").read_text()
    faults = (None, "serve: {port: -1}", "registry: elsewhere", "clock: missing.json")
    for failures, fault in enumerate(faults, 1):
        if fault:
            (project / "slicewatch.yaml").write_text(f"{text}{fault}\n")
        pid = service.begin()
        if fault is None:
            os.kill(pid, signal.SIGKILL)
        until(lambda failures=failures: len(service.said("serves on")) == failures)
        assert call("POST", "/v1/predict", {"instances": records[:1]}).status == 200
    assert len(service.said("did not take over: this process serves on")) == 1
    assert call.opened == 1
    call.close()
    (project / "slicewatch.yaml").write_text(text)
    service.restart()
    assert service.running.ask("POST", "/v1/predict", {"instances": records[:1]}).status == 200


def test_a_store_out_of_its_place_or_damaged_is_not_handed_over(
    service: Service, until: Wait, project: Path, records: list[Record]
) -> None:
    """The process that has it open serves on; once the store is back, the next one finds every row."""
    sent = {"instances": records[:1], "ids": ["first"]}
    assert service.running.ask("POST", "/v1/predict", sent).status == 200
    store, elsewhere = project / ".slicewatch" / "store.sqlite3", project / "elsewhere.sqlite3"
    store.rename(elsewhere)
    service.ask_in_vain("moved or deleted")
    elsewhere.rename(store)
    until(lambda: service.running.ask("GET", "/readyz").status == 200)
    service.restart()
    assert service.running.ask("GET", "/v1/predictions/first").status == 200
    store.write_bytes(b"\xff" * store.stat().st_size)
    service.ask_in_vain("damaged")
    assert service.running.ask("GET", "/healthz").status == 200


def test_a_process_that_is_not_replaced_waits_for_its_store(
    service: Service, caller: Callable[[int], Any], until: Wait, project: Path, records: list[Record]
) -> None:
    """Another process that holds the lock for a moment does not end the service; connections wait meanwhile."""
    call, text = caller(service.running.port), (project / "slicewatch.yaml").read_text()
    assert call("GET", "/healthz").status == 200
    with (project / ".slicewatch" / "store.sqlite3.lock").open("r+") as lock:
        other = threading.Thread(target=fcntl.flock, args=(lock, fcntl.LOCK_EX))
        other.start()
        (project / "slicewatch.yaml").write_text(f"{text}clock: missing.json\n")
        service.begin()
        until(lambda: service.said("this process cannot serve on yet"))
        other.join()
    assert call("POST", "/v1/predict", {"instances": records[:1]}).status == 200
    assert call.opened == 1
    call.close()


def test_the_command_of_the_documentation_restarts(service: Service, until: Wait, root: Path, project: Path) -> None:
    """It finds the process that has the store, the next one too, and none after a crash."""
    guide = (root / "docs" / "how-to.md").read_text().partition("## Restart without an outage")[2]
    command = "".join(line for line in guide.splitlines(True) if line.startswith("    "))
    for _ in range(2):
        count = len(service.said("has taken over"))
        subprocess.run(["bash", "-ec", command], cwd=project, check=True)
        until(lambda count=count: len(service.said("has taken over")) > count)
        service.pids.append(int(service.said("has taken over")[-1].split()[1]))
    service.end()
    lock = project / ".slicewatch" / "store.sqlite3.lock"
    until(
        lambda: subprocess.run(["flock", "--nonblock", lock, "true"], check=False).returncode == 0
    )  # its children, too
    with subprocess.Popen(["sleep", "600"]) as other:
        lock.write_text(f"{other.pid} 0123 4")
        subprocess.run(["bash", "-ec", command], cwd=project, check=True)
        assert other.poll() is None
        other.kill()


def test_a_stop_also_ends_a_successor_that_is_starting(service: Service, until: Wait) -> None:
    """SIGTERM ends both, with exit code 0."""
    pid = service.begin()
    assert service.running.stop() == 0
    until(lambda: not lives(pid))
    assert not service.said("serves on")


def test_further_signals_start_no_other_process(service: Service) -> None:
    """The first successor takes over, however many signals come until the old process has ended."""
    first = service.running.process
    while first.poll() is None:
        first.send_signal(signal.SIGUSR2)
        time.sleep(0.001)
    (started,) = service.said("is starting, to take over")
    service.pids.append(int(started.split()[1]))
    assert first.returncode == 0
    assert service.running.ask("GET", "/healthz").status == 200


@contextmanager
def slow_client(port: int) -> Iterator[socket.socket]:
    """Yield a connection whose answer waits in the service."""
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # the system keeps little for it
        slow.connect(("127.0.0.1", port))
        slow.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        yield slow


def test_a_client_that_reads_slowly_holds_nobody_up(service: Service) -> None:
    """The next process answers others while it reads its answer, which it gets to the end."""
    port = service.running.port
    with slow_client(port) as slow, socket.create_connection(("127.0.0.1", port)) as trickle:
        header = slow.recv(300)
        trickle.sendall(b"POST /v1/labels HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        service.restart()
        assert service.running.ask("GET", "/healthz").status == 200
        answer = header + b"".join(iter(lambda: slow.recv(65536), b""))
        length = int(re.search(rb"content-length: (\d+)", answer)[1])
        assert len(answer.partition(b"\r\n\r\n")[2]) == length
        print(f"{length} bytes")


def test_a_client_that_reads_slowly_keeps_no_connection_open(service: Service) -> None:
    """The next process closes those that it got, while the first one still sends that answer."""
    port = service.running.port
    with slow_client(port) as slow, socket.create_connection(("127.0.0.1", port), timeout=150) as other:
        slow.recv(300)
        service.restart()
        other.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert b"".join(iter(lambda: other.recv(1024), b"")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert lives(service.pids[0])


def test_another_address_has_no_connections_of_the_old_one(service: Service, project: Path) -> None:
    """A service that is closed to other machines does not answer those that were connected before."""
    with socket.create_connection(("127.0.0.1", service.running.port)) as silent:
        with (project / "slicewatch.yaml").open("a") as settings:
            settings.write("serve: {host: 127.0.0.2}\n")
        service.restart()
        with suppress(ConnectionError):
            silent.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert silent.recv(1024) == b""


def test_a_stop_while_connections_are_accepted_is_not_lost(project: Path) -> None:
    """SIGTERM just before the service is ready ends it."""
    code = (
        "import signal, sys, service.server as server\n"
        "server.notify_systemd = lambda _: signal.raise_signal(signal.SIGTERM)\n"
        "from service.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, "up", "--port", "0", "--config", project / "slicewatch.yaml"]
    assert subprocess.run(words, stderr=subprocess.DEVNULL, check=False, timeout=300).returncode == 0
