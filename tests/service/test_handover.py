"""Origin of the listening socket, and what systemd and the next process are told."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import handover
from service.errors import ServiceError
from service.handover import VARIABLE, Listening, Predecessor, Successor, listen, notify_systemd, open_listening
from service.settings.schema import ServeSettings

LISTEN = """
import json, os
from service.errors import ServiceError
from service.handover import open_listening
from service.settings.schema import ServeSettings
try:
    found = open_listening(ServeSettings(host="10.0.0.5", port=1), os.environ)
    print(json.dumps([*found.socket.getsockname(), found.serve.host, found.serve.port, found.given_address,
                      found.socket.get_inheritable(), sorted(name for name in os.environ if "LISTEN" in name)]))
except ServiceError as error:
    print(json.dumps(str(error)))
"""


def activated(root: Path, given: socket.socket, count: str = "1", code: str = LISTEN) -> Any:
    """Return the output of a process to which a socket is passed as systemd does."""
    done = subprocess.run(
        ["bash", "-c", f'exec 3<&{given.fileno()}; LISTEN_PID=$$ exec "$@"', "-", sys.executable, "-c", code],
        env={**os.environ, "LISTEN_FDS": count, "LISTEN_FDNAMES": "slicewatch.socket"},
        cwd=root,
        pass_fds=[given.fileno()],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_socket_of_systemd_is_taken(root: Path) -> None:
    """Its address counts instead of the settings; its variables and descriptor do not reach child processes."""
    with listen(ServeSettings(port=0)) as given:
        port = given.getsockname()[1]
        assert activated(root, given) == ["127.0.0.1", port, "127.0.0.1", port, "", False, []]


def test_several_sockets_of_systemd_are_refused(root: Path) -> None:
    """The error names the number, and the line of the unit."""
    with listen(ServeSettings(port=0)) as given:
        assert activated(root, given, "2").startswith("systemd hands over 2 sockets: use a socket unit with one Listen")


def test_a_unix_socket_of_systemd_is_refused(root: Path, tmp_path: Path) -> None:
    """Clients are known by their address; the error shows a line that works."""
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(tmp_path / "socket"))
        assert "another kind than TCP (AF_UNIX)" in activated(root, given)


def test_variables_for_another_process_are_ignored() -> None:
    """A process that systemd did not start listens by itself."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    found = open_listening(ServeSettings(port=0), environ)
    with found.socket:
        assert (found.by_systemd, found.predecessor, environ) == (False, None, {})


@pytest.fixture
def handed() -> Iterator[Callable[[str, ServeSettings], tuple[Listening, socket.socket]]]:
    """Function that opens the socket of a process with a predecessor, whose own socket and channel it has."""
    used = []

    def open_(address: str, serve: ServeSettings) -> tuple[Listening, socket.socket]:
        first = listen(ServeSettings(port=0))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        text = f"{os.dup(first.fileno())} {theirs.detach()} {address}"
        found = open_listening(serve, {VARIABLE: text})
        used.extend((first, ours, found.socket))
        assert isinstance(found.predecessor, Predecessor)
        found.predecessor.release()
        assert ours.recv(64) == b"serving"
        return found, first

    yield open_
    for each in used:
        each.close()


def test_a_process_takes_the_socket_of_the_one_before(handed: Callable[..., tuple[Listening, socket.socket]]) -> None:
    """The port that was picked stays."""
    found, first = handed("127.0.0.1:0", ServeSettings(port=0))
    assert found.socket.getsockname() == first.getsockname()
    assert found.given_address == "127.0.0.1:0"


def test_a_changed_address_is_opened(handed: Callable[..., tuple[Listening, socket.socket]]) -> None:
    """A process whose settings name another address than those before listens there."""
    found, first = handed("127.0.0.1:4711", ServeSettings(port=0))
    assert found.socket.getsockname() != first.getsockname()


def test_systemd_is_told_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state goes to its socket; without one, and without a listener, nothing happens."""
    path = str(tmp_path / "notify")
    notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    notify_systemd("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        notify_systemd("READY=1")
        assert systemd.recv(64) == b"READY=1"


def test_a_descriptor_that_is_no_socket_is_named() -> None:
    """A variable left over in a shell does not end in a traceback."""
    with pytest.raises(ServiceError, match="descriptor 999999 is no socket handed to this process"):
        open_listening(ServeSettings(), {VARIABLE: "999999 999999 127.0.0.1:8000"})


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that neither loads in time nor ends on SIGTERM takes nothing over."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", code])
    monkeypatch.setattr(handover, "START_SECONDS", 1.0)
    monkeypatch.setattr(handover, "END_SECONDS", 0.1)
    serve = ServeSettings(port=0)
    with listen(serve) as listener:
        successor = Successor(Listening(listener, serve))
        assert not successor.is_loaded([])
        assert not Path(f"/proc/{successor.pid}").exists()
