"""The listening socket, and its handover from one process to the next: connections wait meanwhile, none is refused."""

from __future__ import annotations

import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic

from models.registry import ModelRegistry
from service.errors import ServiceError
from service.settings.schema import ServeSettings, Settings
from sfs.registry import FunctionSet

BACKLOG = 2048
START_SECONDS, END_SECONDS = 600.0, 60.0
"""Time for a successor to load, and then to serve, and time to end after SIGTERM; beyond it, it is killed."""
VARIABLE = "SLICEWATCH_HANDOVER"
"""Variable by which a process gives the next one its socket: two descriptors, and the address in the settings."""

_FIRST_OF_SYSTEMD = 3
_SOCKETS_IN_A_MESSAGE = 200  # Linux allows 253
_POLL_SECONDS = 0.2
_LOADED, _EMPTY, _SOCKETS, _BEGIN, _SERVING = b"loaded", b"empty", b"sockets", b"begin", b"serving"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that listens, and its origin.

    Attributes
    ----------
    socket
        The socket.
    serve
        Settings with its address.
    by_systemd
        Whether systemd opened it; then the address in the settings does not count.
    predecessor
        The process that still serves on it; None if there is none.
    """

    socket: socket.socket
    serve: ServeSettings
    by_systemd: bool = False
    predecessor: Predecessor | None = None

    @property
    def given_address(self) -> str:
        """The address in the settings; empty if systemd gave another."""
        return "" if self.by_systemd else _address_text(self.serve)


def open_listening(serve: ServeSettings, environ: MutableMapping[str, str]) -> Listening:
    """Return the socket that systemd or an earlier process handed to this one, else a new one.

    Parameters
    ----------
    serve
        Settings; a process whose address has changed opens a socket of its own.
    environ
        Environment of the process; its variables about sockets are removed.

    Raises
    ------
    ServiceError
        If the address is taken, or systemd hands over anything but one TCP socket.
    """
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    process, count, _ = (environ.pop(name, "") for name in names)
    if text := environ.pop(VARIABLE, ""):
        number, channel, address = text.split(" ", 2)
        same_address = address in ("", _address_text(serve))
        predecessor, listener = Predecessor(_inherit(int(channel)), same_address), _inherit(int(number))
        if same_address:
            serve = serve if address else _at(serve, listener)
            return Listening(listener, serve, by_systemd=not address, predecessor=predecessor)
        listener.close()
        return Listening(listen(serve), serve, predecessor=predecessor)
    if process != str(os.getpid()):
        return Listening(listen(serve), serve)
    if count != "1":
        raise ServiceError(f"systemd hands over {count or 'no'} sockets: use a socket unit with one ListenStream=")
    listener = _inherit(_FIRST_OF_SYSTEMD)
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or listener.type != socket.SOCK_STREAM:
        raise ServiceError(
            f"systemd hands over a socket of another kind than TCP ({listener.family.name}): "
            "use a socket unit with an address and a port, as ListenStream=127.0.0.1:8000"
        )
    return Listening(listener, _at(serve, listener), by_systemd=True)


def listen(serve: ServeSettings) -> socket.socket:
    """Return a socket that listens on the configured address.

    Raises
    ------
    ServiceError
        If the address is taken, or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in serve.host else socket.AF_INET
    try:
        return socket.create_server((serve.host, serve.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {serve.host} port {serve.port}: {error.strerror or error}; "
            "choose another address with --host and --port, or serve.host and serve.port"
        ) from None


def _inherit(descriptor: int) -> socket.socket:
    """Return a socket that the parent process has left open; its own children do not get it."""
    try:
        inherited = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ServiceError(f"descriptor {descriptor} is no socket handed to this process: {error.strerror}") from None
    inherited.set_inheritable(False)
    return inherited


def _at(serve: ServeSettings, listener: socket.socket) -> ServeSettings:
    host, port = listener.getsockname()[:2]
    return replace(serve, host=host, port=port)


def _address_text(serve: ServeSettings) -> str:
    return f"{serve.host}:{serve.port}"


def notify_systemd(state: str) -> None:
    """Tell systemd the state of the service, if it asks for it (``sd_notify(3)``)."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
                notified.sendto(state.encode(), f"\0{path[1:]}" if path.startswith("@") else path)
        except OSError as error:
            _log.warning("systemd could not be told %r: %s", state, error.strerror)


class Predecessor:
    """The process that serves until this one is loaded.

    Parameters
    ----------
    channel
        Connection to it.
    same_address
        Whether it has the same address: if not, its clients may not be those of this process.
    """

    def __init__(self, channel: socket.socket, same_address: bool) -> None:
        self._channel, self._same_address = channel, same_address

    def replace(self, settings: Settings) -> list[socket.socket]:
        """Load functions and champion, then wait until the predecessor has closed the store.

        Returns the connections that wait for their next request; none if the address is another one.

        Raises
        ------
        SliceError, BundleError, RegistryError
            If functions or the champion cannot be loaded: the predecessor serves on.
        ServiceError
            If it has ended.
        """
        FunctionSet.from_files(settings.functions, votes=True)
        registry = ModelRegistry(settings.registry, name=settings.name)
        has_model = registry.alias() is not None
        if has_model:
            registry.get()
        connections: list[socket.socket] = []
        with suppress(OSError):
            self._channel.send(_LOADED if has_model else _EMPTY)
            while True:
                word, descriptors, *_ = socket.recv_fds(self._channel, 64, _SOCKETS_IN_A_MESSAGE)
                for descriptor in descriptors:
                    connections.append(socket.socket(fileno=descriptor))
                    if not self._same_address:
                        connections.pop().close()
                if word == _BEGIN:
                    return connections
                if not word:
                    break
        raise ServiceError("the process to replace has ended: start the service as usual")

    def release(self) -> None:
        """Report that this process serves."""
        with suppress(OSError):
            self._channel.send(_SERVING)
        self._channel.close()


class Successor:
    """A process with the same command that is to replace this one.

    Parameters
    ----------
    listening
        The socket that it gets.

    Attributes
    ----------
    serves
        Whether it has taken over.
    """

    def __init__(self, listening: Listening) -> None:
        self.serves = False
        # Connections are open twice for a moment.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors = listening.socket.fileno(), theirs.fileno()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, *sys.orig_argv[1:]],
                stdin=subprocess.DEVNULL,
                env={**os.environ, VARIABLE: " ".join([*map(str, descriptors), listening.given_address])},
                pass_fds=descriptors,
            )
        self._channel.settimeout(_POLL_SECONDS)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def is_loaded(self, stops: Sequence[int], *, has_model: bool = False) -> bool:
        """Return whether it has loaded everything, once it has, or has ended; a signal to stop ends it.

        Parameters
        ----------
        stops
            Signals to stop that this process has received.
        has_model
            Whether this process predicts: then a successor without a version ends.
        """
        return self._says((_LOADED,) if has_model else (_LOADED, _EMPTY), stops)

    def take_over(self, connections: Sequence[socket.socket], stops: Sequence[int]) -> None:
        """Hand over connections that wait for a request, and return once it serves, or has ended.

        This process has closed the store. Parameters as above.
        """
        try:
            for start in range(0, len(connections), _SOCKETS_IN_A_MESSAGE):
                part = [each.fileno() for each in connections[start : start + _SOCKETS_IN_A_MESSAGE]]
                socket.send_fds(self._channel, [_SOCKETS], part)
            if not stops:
                self._channel.send(_BEGIN)
        except OSError:
            self.end()
            return
        self.serves = self._says((_SERVING,), stops)
        if self.serves:
            notify_systemd(f"MAINPID={self.pid}\nREADY=1")
            self._channel.close()

    def end(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._process.kill()
        self._process.wait()

    def _says(self, expected: Sequence[bytes], stops: Sequence[int]) -> bool:
        deadline = monotonic() + START_SECONDS
        while not stops and monotonic() < deadline:
            with suppress(TimeoutError):
                try:
                    word = self._channel.recv(64)
                except ConnectionError:
                    word = b""
                if word in expected:
                    return True
                break
        self.end()
        return False
