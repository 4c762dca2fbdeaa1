"""HTTPS: the service, the commands on its machine, and a restart."""

import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from service.client import Client

Wait = Callable[..., Any]


@pytest.fixture
def certified(project: Path) -> Path:
    """Project whose service has a certificate for another name than that of this machine."""
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=shop.example"
    subprocess.run(["openssl", *words.split(), "-keyout", "key.pem", "-out", "cert.pem"], cwd=project, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (project / "slicewatch.yaml").open("a") as settings:
        settings.write(f"serve: {{port: {port}, tls: {{cert: cert.pem, key: key.pem}}, idle_seconds: 2}}\n")
    return project


def start(project: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start the service; return its process and its log."""
    log = project / "up.log"
    with log.open("wb") as stream:
        command = [Path(sys.executable).with_name("slicewatch"), "up", "--config", project / "slicewatch.yaml"]
        return subprocess.Popen(command, stderr=stream), log


def test_a_stop_waits_for_no_idle_connection(certified: Path, until: Wait) -> None:
    """SIGTERM ends the old process and its successor, also while it tells its clients to close."""
    settings = certified / "slicewatch.yaml"
    settings.write_text(settings.read_text().replace("idle_seconds: 2", "idle_seconds: 3600"))
    process, log = start(certified)
    try:
        found = until(lambda: re.search(r"console and API at (https://127\.0\.0\.1:\d+)", log.read_text()))
        with Client(found[1], ca=certified / "cert.pem", any_name=True) as client:
            until(lambda: client.ready().ready)
        process.send_signal(signal.SIGUSR2)
        until(lambda: told_to_close(found[1], certified))
        process.terminate()
        assert process.wait(300) == 0
    finally:
        process.kill()
        process.wait()


def told_to_close(url: str, project: Path) -> bool:
    """Return whether the service closes a connection that its client would keep."""
    with closing(HTTPSConnection(url.removeprefix("https://"), context=trusting(project))) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().getheader("connection") == "close"


def trusting(project: Path) -> ssl.SSLContext:
    """Return the context of a client that trusts the certificate of a project for any name."""
    trust = ssl.create_default_context(cafile=project / "cert.pem")
    trust.check_hostname = False
    return trust


def test_a_service_with_tls_is_used_and_restarted(certified: Path, command: Callable[..., int], until: Wait) -> None:
    """Its log has the address with https, commands trust its certificate, and a restart closes no connection untold."""
    process, log = start(certified)
    pids = [process.pid]
    try:
        found = until(lambda: re.search(r"console and API at (https://127\.0\.0\.1:(\d+))", log.read_text()))
        with Client(found[1], ca=certified / "cert.pem", any_name=True) as client:
            until(lambda: client.ready().ready)
        assert command(certified, "drift") == 0
        with closing(HTTPSConnection("127.0.0.1", int(found[2]), context=trusting(certified))) as connection:
            process.send_signal(signal.SIGUSR2)
            told = None
            while told is None:
                connection.request("GET", "/healthz")
                answer = connection.getresponse()
                told = answer.getheader("connection")
                assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
            assert told == "close"
        until(lambda: "has taken over" in log.read_text())
        pids.append(int(re.findall(r"process (\d+) has taken over", log.read_text())[0]))
        assert command(certified, "drift") == 0
        assert process.wait() == 0
    finally:
        for pid in pids:
            subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)
        process.wait()
