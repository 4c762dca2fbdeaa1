"""A zygote and its workers, the processes in which plain functions run, from the service's side."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.serving.breaker import BreakerLimits, Seconds
from service.serving.channel import Channel, ConnectionClosed
from service.serving.fork_server import TIMES, UNREADABLE
from sfs.apply import ABSTAINED

_OPTIONS = ("-P", "-u", "-X", "faulthandler", "-m")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A process that forks should have no other threads."""


class Unreadable(Exception):
    """A worker could not read the records."""


@dataclass(frozen=True, slots=True)
class FunctionResult:
    """What a function said of N rows.

    Parameters
    ----------
    member, unknown
        bool[N].
    reasons
        How many rows are unknown for which reason.
    fault
        The first row at which it failed, and why.
    seconds
        Time it took.
    at
        When it had answered (monotonic).
    """

    member: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    reasons: Mapping[str, int]
    fault: str | None
    seconds: Seconds
    at: Seconds

    @property
    def faults(self) -> int:
        """How many rows are unknown for another reason than that the function abstained."""
        return sum(count for reason, count in self.reasons.items() if reason != ABSTAINED)


class Worker:
    """One worker: a process that was asked for, and that may not have begun yet.

    Parameters
    ----------
    sock
        The service's end of its socket.
    bell
        What it rings when it has answered.
    """

    def __init__(self, sock: socket.socket, bell: int) -> None:
        self.bell = bell
        self._channel = Channel(sock, hears=bell)
        self._process: list[int] = []  # its descriptor, once known
        self.asked_at = monotonic()
        self._end = weakref.finalize(self, _kill, self._process, self._channel, bell)

    def wait_ready(self, until: Seconds) -> None:
        """Wait until the process has begun.

        Raises
        ------
        TimeoutError, HungUp
            If it has not by then; if it never will.
        """
        if self._process:
            return
        if not self._channel.wait(until):
            raise TimeoutError
        try:
            _, descriptors, _, _ = socket.recv_fds(self._channel.sock, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise ConnectionClosed(str(error)) from None
        if not descriptors:
            raise ConnectionClosed("it ended before it began")
        self._process += descriptors

    def ask(self, names: Sequence[str], text: bytes, positions: Sequence[int] | None, until: Seconds) -> None:
        """Send records as JSON for functions to be asked about, one after another; raises as `Channel.send`."""
        header: dict[str, Any] = {"functions": list(names)}
        if positions is not None:
            header["positions"] = list(positions)
        self._channel.send(header, text, until=until)

    def said(self, rows: int, until: Seconds) -> FunctionResult:
        """Return what the next of the functions said.

        Raises
        ------
        TimeoutError, HungUp
            As `Channel.receive`.
        Unreadable
            If the records could not be read.
        """
        header, body = self._channel.receive(until)
        if header == UNREADABLE:
            raise Unreadable
        if len(body) != TIMES.size + 2 * rows:
            raise ConnectionClosed(f"it answered {len(body)} bytes for {rows} rows")
        at, seconds = TIMES.unpack_from(body)
        bits = np.frombuffer(body, np.uint8, offset=TIMES.size) != 0  # [2 * N]
        reasons, fault = (header["reasons"], header["fault"]) if header else ({}, None)
        return FunctionResult(bits[:rows], bits[rows:], reasons, fault, seconds, at)

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._end()


def _kill(process: list[int], channel: Channel, bell: int) -> None:
    channel.close()
    os.close(bell)
    for descriptor in process:
        with suppress(ProcessLookupError):  # by descriptor, as the number may be another process's by now
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


class ForkServer:
    """The process that loads the functions and forks workers.

    Parameters
    ----------
    sources
        The files and modules that the functions come from.
    limits
        Of its loading, and of its workers.

    Attributes
    ----------
    fingerprints
        Of the plain functions that it loaded, by name.

    Raises
    ------
    ServiceError
        If they cannot be loaded.
    """

    def __init__(self, sources: Sequence[str], limits: BreakerLimits) -> None:
        process, self._channel = _start()
        self._end = weakref.finalize(self, _terminate, process, self._channel)
        try:
            self.fingerprints = self._load(sources, limits)
        except ServiceError:
            self.end()
            raise

    def _load(self, sources: Sequence[str], limits: BreakerLimits) -> Mapping[str, str]:
        asked = {"sources": sources, "memory_mb": limits.memory_mb, "load_seconds": limits.load_seconds}
        try:
            self._channel.send(asked)
            said, _ = self._channel.receive(monotonic() + limits.load_seconds)
        except TimeoutError:
            said = {"error": f"they were not loaded within {limits.load_seconds:g} s"}
        except ConnectionClosed:
            said = {"error": "the process ended; its last words are on standard error"}
        if "error" in said:
            raise ServiceError(
                f"the slicing functions cannot be loaded in a process of their own: {said['error']}"
            )
        return cast("Mapping[str, str]", said["fingerprints"])

    def fork(self) -> Worker | None:
        """Ask for a worker; None if the zygote is gone, or no more files can be opened."""
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                worker = Worker(ours, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
                socket.send_fds(self._channel.sock, [b"\0"], [theirs.fileno(), worker.bell])
        except OSError:
            return None
        return worker

    def end(self) -> None:
        """End the process and all its workers."""
        self._end()


def _start() -> tuple[subprocess.Popen[bytes], Channel]:
    ours, theirs = socket.socketpair()
    path = os.pathsep.join(filter(None, sys.path))  # so that modules are found where they are found here
    with theirs:
        process = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, *_OPTIONS, "service.serving.fork_server", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what functions print is no output of the service
            pass_fds=[theirs.fileno()],
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
            start_new_session=True,  # or Ctrl-C would reach it
        )
    return process, Channel(ours)


def _terminate(process: subprocess.Popen[bytes], channel: Channel) -> None:
    channel.close()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers are of its group, whose number is taken until then
    process.wait()
