"""Python functions in processes of their own, from the service's side: fork server, workers, calls."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.serving.breaker import SLOW, Breaker, BreakerLimits
from service.serving.channel import Channel, ConnectionClosed
from service.serving.fork_server import TIMES, UNREADABLE
from sfs.apply import ABSTAINED
from sfs.record import Columns, Record, Rows, is_dataframe

OUT_OF_TIME = "out of time"
DIED = "process died"
NOT_JSON = "not JSON"
STARTING = "isolation starting"

_OPTIONS = ("-P", "-u", "-X", "faulthandler", "-m")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A process that forks should have no other threads."""

_PROCESS_LOST = "process lost"
_WORKER_START_SECONDS = 10.0
"""Timeout for starting a worker, after which the fork server counts as hung."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedRecords:
    """N records, encoded for a worker."""

    json: bytes  # array of those that can be encoded
    positions: tuple[int, ...] | None  # of these records; None for all
    rows: int  # N

    @property
    def encoded_rows(self) -> int:
        """Number of records that can be encoded."""
        return self.rows if self.positions is None else len(self.positions)


def encode_records(rows: Rows) -> EncodedRecords:
    """Return N rows encoded for a worker; rows that JSON cannot hold are left out.

    Examples
    --------
    >>> encode_records([{"a": 1}, {"a": {2}}, {"a": None}])
    EncodedRecords(json=b'[{"a":1},{"a":null}]', positions=(0, 2), rows=3)
    """
    records = Columns(rows).records if is_dataframe(rows) else list(rows)
    try:
        return EncodedRecords(_to_json(records).encode(), None, len(records))
    except _NOT_JSON_ERRORS:
        texts = {}
        for position, record in enumerate(records):
            with suppress(*_NOT_JSON_ERRORS):
                texts[position] = _to_json(record)
        return EncodedRecords(f"[{','.join(texts.values())}]".encode(), tuple(texts), len(records))


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, Record):
        return value.__dict__
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


_NOT_JSON_ERRORS = (TypeError, ValueError, RecursionError)
_to_json = json.JSONEncoder(separators=(",", ":"), default=_fields).encode


@dataclass(frozen=True, slots=True)
class FunctionResult:
    """Result of one function for N rows."""

    member: NDArray[np.bool_]  # [N]
    unknown: NDArray[np.bool_]  # [N]
    reasons: Mapping[str, int]  # unknown rows by reason
    first_fault: str | None  # the row, and the error
    seconds: float
    finished_at: float  # monotonic

    @property
    def faults(self) -> int:
        """Number of rows that are unknown for any reason except abstaining."""
        return sum(count for reason, count in self.reasons.items() if reason != ABSTAINED)


@dataclass(frozen=True, slots=True)
class NoResult:
    """Reason why a function has no result, and the seconds spent waiting for it."""

    reason: str
    seconds: float = 0.0


FunctionOutcome: TypeAlias = FunctionResult | NoResult


class Worker:
    """A forked worker process, which may still be starting; it sets the eventfd once it has answered."""

    def __init__(self, sock: socket.socket, eventfd: int) -> None:
        self.eventfd = eventfd
        self.forked_at = monotonic()
        self._channel = Channel(sock, wait_eventfd=eventfd)
        self._pidfd: list[int] = []  # empty until the process has started
        self._end = weakref.finalize(self, _kill_worker, self._pidfd, self._channel, eventfd)

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until the process has started.

        Raises
        ------
        TimeoutError
            If it has not by the deadline.
        ConnectionClosed
            If it never will.
        """
        if self._pidfd:
            return
        if not self._channel.wait(deadline):
            raise TimeoutError
        try:
            _, descriptors, _, _ = socket.recv_fds(self._channel.sock, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise ConnectionClosed(str(error)) from None
        if not descriptors:
            raise ConnectionClosed("the worker ended before it was ready")
        self._pidfd += descriptors

    def call(self, names: Sequence[str], records: bytes, positions: Sequence[int] | None, deadline: float) -> None:
        """Send a JSON array of records to functions, which run one after another. Raises as `Channel.send`."""
        header: dict[str, Any] = {"functions": list(names)}
        if positions is not None:
            header["positions"] = list(positions)
        self._channel.send(header, records, deadline=deadline)

    def receive(self, rows: int, deadline: float) -> FunctionResult | None:
        """Return the next function's result for N rows; None for all of them if the records could not be parsed.

        Raises as `Channel.receive`.
        """
        header, body = self._channel.receive(deadline)
        if header == UNREADABLE:
            return None
        if len(body) != TIMES.size + 2 * rows:
            raise ConnectionClosed(f"the worker sent {len(body)} bytes for {rows} rows")
        finished_at, seconds = TIMES.unpack_from(body)
        bits = np.frombuffer(body, np.uint8, offset=TIMES.size) != 0  # [2 * N]
        reasons, fault = (header["reasons"], header["fault"]) if header else ({}, None)
        return FunctionResult(bits[:rows], bits[rows:], reasons, fault, seconds, finished_at)

    def kill(self) -> None:
        """Kill the process."""
        self._end()


def _kill_worker(pidfd: list[int], channel: Channel, eventfd: int) -> None:
    channel.close()
    os.close(eventfd)
    for descriptor in pidfd:
        with suppress(ProcessLookupError):  # the process id may belong to another process by now
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


class ForkServer:
    """The process that loads the functions of files and modules, and forks workers.

    Attributes
    ----------
    fingerprints
        Fingerprint of each loaded Python function, by name.

    Raises
    ------
    ServiceError
        If the functions cannot be loaded.
    """

    def __init__(self, sources: Sequence[str], limits: BreakerLimits) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, *_OPTIONS, "service.serving.fork_server", str(theirs.fileno())]
        path = os.pathsep.join(filter(None, sys.path))  # same module path as this process
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # our own module
                command,
                stdin=subprocess.DEVNULL,
                stdout=2,  # output of the functions is not output of the service
                pass_fds=[theirs.fileno()],
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
                start_new_session=True,  # otherwise Ctrl-C would reach it
            )
        self._channel = Channel(ours)
        self._end = weakref.finalize(self, _kill_fork_server, process, self._channel)
        settings = {"sources": sources, "memory_mb": limits.memory_mb, "load_seconds": limits.load_seconds}
        try:
            self._channel.send(settings)
            reply, _ = self._channel.receive(monotonic() + limits.load_seconds)
        except TimeoutError:
            reply = {"error": f"not loaded within {limits.load_seconds:g} s"}
        except ConnectionClosed:
            reply = {"error": "the process ended; see its output on standard error"}
        if "error" in reply:
            self.kill()
            raise ServiceError(f"cannot load the slicing functions in a process of their own: {reply['error']}")
        self.fingerprints = cast("Mapping[str, str]", reply["fingerprints"])

    def fork(self) -> Worker | None:
        """Request a worker; None if the process is gone, or no more files can be opened."""
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                worker = Worker(ours, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
                socket.send_fds(self._channel.sock, [b"\0"], [theirs.fileno(), worker.eventfd])
        except OSError:
            return None
        return worker

    def kill(self) -> None:
        """Kill the process and all its workers."""
        self._end()


def _kill_fork_server(process: subprocess.Popen[bytes], channel: Channel) -> None:
    channel.close()
    with suppress(ProcessLookupError):  # its id is not reused before `wait`; the workers are in its group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Isolation:
    """Keeps a worker and a fork server ready; a lost one is replaced, after a back-off by the clock.

    All methods except `start` and `close` are for one thread.
    """

    def __init__(self, sources: Sequence[str], limits: BreakerLimits, clock: Callable[[], float]) -> None:
        self._sources, self._limits, self._clock = list(sources), limits, clock
        self._server: ForkServer | None = None
        self._worker: Worker | None = None
        self._breaker = Breaker()
        self._closed = False
        self._lock = threading.Lock()
        self._restart: threading.Thread | None = None

    @property
    def fingerprints(self) -> Mapping[str, str] | None:
        """Fingerprint of each loaded function, by name; None while no process has loaded them."""
        server = self._server
        return None if server is None else server.fingerprints

    def start(self) -> None:
        """Load the functions, unless they are loaded.

        Raises
        ------
        ServiceError
            If they cannot be loaded.
        """
        if self._server is not None:
            return
        server = ForkServer(self._sources, self._limits)
        with self._lock:
            if self._closed or self._server is not None:
                server.kill()
                return
            self._server = server
            self._breaker = self._breaker.close(self._clock())

    def close(self) -> None:
        """Kill all processes."""
        with self._lock:
            self._closed = True
            self._kill_all()

    def worker(self, deadline: float) -> Worker | None:
        """Return a worker that is ready, or None if there is none by the deadline."""
        if self._worker is None:
            self._worker = self.fork()
        if self._worker is None:
            return None
        try:
            self._worker.wait_until_ready(deadline)
            return self._worker
        except ConnectionClosed:
            self._worker = None
        except TimeoutError:
            if monotonic() - self._worker.forked_at > _WORKER_START_SECONDS:
                self._drop_server()
        return None

    def replace_worker(self) -> None:
        """Kill the worker, and request another one."""
        if self._worker is not None:
            self._worker.kill()
        self._worker = self.fork()

    def fork(self) -> Worker | None:
        """Return a worker that may still be starting; without a fork server return None, and restart it when due."""
        server = self._server
        if server is None:
            restarting = self._restart is not None and self._restart.is_alive()
            back_off = self._breaker.is_open and not self._breaker.is_due(self._clock())
            if not (restarting or back_off or self._closed):
                self._restart = start_thread(self._try_start)
            return None
        worker = server.fork()
        if worker is None:
            self._drop_server()
        return worker

    def _try_start(self) -> None:
        try:
            self.start()
        except (ServiceError, OSError) as error:
            _log.warning("%s", error)
            self._breaker = self._breaker.trip(_PROCESS_LOST, self._limits, self._clock())

    def _drop_server(self) -> None:
        _log.warning("lost the process of the slicing functions; restarting it")
        with self._lock:
            self._kill_all()

    def _kill_all(self) -> None:
        if self._worker is not None:
            self._worker.kill()
        if self._server is not None:
            self._server.kill()
        self._worker = self._server = None
        self._breaker = self._breaker.trip(_PROCESS_LOST, self._limits, self._clock())


def start_thread(target: Callable[[], object]) -> threading.Thread | None:
    """Start a daemon thread; None if no more threads can be started."""
    thread = threading.Thread(target=target, name="slicing-functions", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


@dataclass(slots=True)
class FunctionCall:
    """A call of K functions on N records; after the run it has their outcomes, in order.

    If the call runs out of time, ``heaviest`` is the position of the function that used the largest part of its
    allowance.
    """

    names: Sequence[str]
    allowances: Sequence[float]  # seconds
    records: EncodedRecords
    deadline: float  # of the whole call, monotonic
    outcomes: list[FunctionOutcome] = field(default_factory=list)
    heaviest: int | None = None

    def run(self, isolation: Isolation) -> None:
        """Call all functions; after one that hangs, or ends its process, another worker continues."""
        while left := len(self.names) - len(self.outcomes):
            if monotonic() >= self.deadline:
                self.outcomes += [NoResult(OUT_OF_TIME)] * left
            elif (worker := isolation.worker(self.deadline)) is None:
                self.outcomes += [NoResult(STARTING)] * left
            elif not (self._send(worker) and self._receive(worker)):
                isolation.replace_worker()

    def run_on(self, worker: Worker) -> None:
        """Call the functions in one worker; without an outcome if it is lost before the call."""
        with suppress(ConnectionClosed, TimeoutError):
            worker.wait_until_ready(self.deadline)
            if self._send(worker):
                self._receive(worker)

    def _send(self, worker: Worker) -> bool:
        """Send the functions that have no outcome yet; False if the worker was lost while it was idle."""
        names, records = self.names[len(self.outcomes) :], self.records
        try:
            worker.call(names, records.json, records.positions, self.deadline)
        except (ConnectionClosed, TimeoutError):
            return False
        return True

    def _receive(self, worker: Worker) -> bool:
        """Receive outcomes; False if the worker died, or has to be killed, before it has sent them all."""
        since, poll_seconds = monotonic(), min(self.allowances)
        while (k := len(self.outcomes)) < len(self.names):
            deadline = min(since + self.allowances[k], self.deadline)
            poll = monotonic() + poll_seconds  # the eventfd is set after the last result only
            try:
                result = worker.receive(self.records.encoded_rows, min(deadline, poll))
            except ConnectionClosed:
                self.outcomes.append(NoResult(DIED, monotonic() - since))
                return False
            except TimeoutError:
                if (now := monotonic()) < deadline:
                    continue
                self.outcomes.append(NoResult(SLOW, now - since))
                if deadline == self.deadline:  # interrupted for the time that all of them took together
                    pairs = zip(self.outcomes, self.allowances, strict=False)
                    used = [outcome.seconds / allowance for outcome, allowance in pairs]
                    self.heaviest = used.index(max(used))
                    if self.heaviest != k:
                        self.outcomes[k] = NoResult(OUT_OF_TIME, now - since)
                return False
            if result is None:
                self.outcomes += [NoResult(NOT_JSON)] * (len(self.names) - k)
            else:
                self.outcomes.append(result)
                since = result.finished_at
        return True
