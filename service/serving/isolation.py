"""Python functions in processes of their own, from the service's side: fork server and workers."""

from __future__ import annotations

import fcntl
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
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import clock_gettime, monotonic
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.serving.breaker import Breaker, BreakerLimits
from service.serving.channel import Channel, ConnectionClosed, ProtocolError, pack_encoded
from service.serving.fork_server import ANSWER, FUNCTION, READY, UNREADABLE
from sfs.apply import ABSTAINED
from sfs.record import Columns, Record, Rows, fields_of, is_dataframe

SHARED = ""
"""Name of the worker of the functions that may share one."""

_OPTIONS = ("-P", "-u", "-X", "faulthandler", "-m")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A process that forks should have no other threads."""

_PROCESS_LOST = "process lost"
_WORKER_START_SECONDS = 10.0
"""Timeout for starting a worker, after which the fork server counts as hung."""
_END_SECONDS = 10.0
_MAX_REASON_BYTES = 64 << 10
"""Maximum size of a function's reasons in an answer: a larger JSON text would hold up the service."""
_MAX_FAULT_CHARACTERS = 1000
_INLINE_BYTES = 64 << 10
"""Records of up to this size are sent with the call; larger ones are in a file in memory that all workers read."""
_CALLS_BETWEEN_CHECKS = 256
_READ_SECONDS = 100e-9
"""CPU time for reading a byte of the records, which is no fault of a function."""
_MAX_SECONDS = 1e6  # infinity would break the sums of all
_TO_BITS = bytes([0, *[1] * 255])
_NO_REASONS: Mapping[str, int] = MappingProxyType({})
_call_numbers, _worker_numbers = count(1), count(1)

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
        return fields_of(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


_NOT_JSON_ERRORS = (TypeError, ValueError, RecursionError)
_to_json = json.JSONEncoder(separators=(",", ":"), default=_fields).encode


class FunctionResult(NamedTuple):
    """Result of one function for N rows."""

    member: NDArray[np.bool_]  # [N]
    unknown: NDArray[np.bool_]  # [N]
    reasons: Mapping[str, int]  # unknown rows by reason
    first_fault: str | None  # the row, and the error
    seconds: float  # CPU time

    @property
    def faults(self) -> int:
        """Number of rows that are unknown for any reason except abstaining."""
        return sum(count for reason, count in self.reasons.items() if reason != ABSTAINED)


@dataclass(frozen=True, slots=True)
class NoResult:
    """Reason why a function has no result, and the CPU seconds that it used."""

    reason: str
    seconds: float = 0.0


FunctionOutcome: TypeAlias = FunctionResult | NoResult


class CallRecords:
    """Records of one call, for any number of workers."""

    def __init__(self, records: EncodedRecords) -> None:
        self.number = next(_call_numbers)
        self.rows = records.encoded_rows
        self.read_seconds = _READ_SECONDS * len(records.json)
        self.header = f'{{"call":{self.number}'  # JSON, continued with the functions
        self.body, self.file = records.json, None
        if records.positions is not None:
            self.header += f',"rows":{list(records.positions)}'
        if len(records.json) <= _INLINE_BYTES:
            return
        self.header += f',"bytes":{len(records.json)}'
        self.body, self.file = b"", os.memfd_create("records", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, self.file)
        rest = memoryview(records.json)
        while rest:
            rest = rest[os.write(self.file, rest) :]
        fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)


class Worker:
    """A process that runs functions, and may still be starting. The other end of the socket is its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.forked_at = monotonic()
        self.calls = 0
        self._more_calls = next(_worker_numbers) % _CALLS_BETWEEN_CHECKS  # not all are to be replaced in one batch
        self._call, self._functions = 0, tuple[int, ...]()
        self._channel = Channel(sock, max_bytes=_MAX_REASON_BYTES, one_sender=True)
        self._pidfd: list[int] = []  # empty until the process has started
        self._cpu_clock = 0  # of the process
        self._cpu_seconds_before = 0.0  # before the call
        self._known_seconds = 0.0  # of the last call: reported, and for reading the records
        self.unreported_seconds = 0.0
        """CPU seconds before the call that were not reported: of threads, or of a function that lies."""
        self._first_bytes = 0  # of memory, after some calls
        self._end = weakref.finalize(self, _kill_worker, self._pidfd, self._channel)

    @property
    def is_ready(self) -> bool:
        """Whether the process has reported that it has started."""
        return bool(self._pidfd)

    @property
    def process(self) -> int:
        """Process id; 0 before the process has started."""
        return self._channel.peer or 0

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
        header, _ = self._channel.receive(deadline)
        process = self._channel.peer
        if header != READY or process is None:
            raise ProtocolError("the worker did not report that it is ready")
        try:
            self._pidfd.append(os.pidfd_open(process))
        except OSError as error:
            raise ConnectionClosed(str(error)) from None
        if self._channel.is_closed:  # the process may have ended before, and its id belong to another one
            os.close(self._pidfd.pop())
            raise ConnectionClosed("the worker ended before it was ready")
        self._cpu_clock = ~process << 3 | 2  # as clock_getcpuclockid(3)

    def call(self, functions: tuple[int, ...], records: CallRecords) -> bool:
        """Call functions by position, without waiting; False if the process was lost while it was idle."""
        self.calls += 1
        self._call, self._functions = records.number, functions
        self._channel.max_bytes = len(functions) * (_MAX_REASON_BYTES + 2 * records.rows)
        message = pack_encoded(f'{records.header},"functions":{list(functions)}}}'.encode(), records.body)
        try:
            seconds = clock_gettime(self._cpu_clock) if self._pidfd else 0.0
            self.unreported_seconds = seconds - self._cpu_seconds_before - self._known_seconds
            self._cpu_seconds_before, self._known_seconds = seconds, records.read_seconds
            self._channel.send_packed(message, records.file, deadline=0.0)
        except (ConnectionClosed, TimeoutError, OSError):
            return False
        return True

    def receive(self, rows: int, deadline: float) -> list[FunctionResult] | None:
        """Return the functions' results of the call for N rows; None if its records could not be parsed.

        Raises
        ------
        TimeoutError, ConnectionClosed
            As `Channel.receive`.
        ProtocolError
            If the answer is not one of this process to this call, or more than that.
        """
        if not self._pidfd:
            self.wait_until_ready(deadline)
        header, body = self._channel.receive(deadline)
        unreadable, functions = header == UNREADABLE, self._functions
        size = FUNCTION.size + 2 * rows
        if len(body) != ANSWER.size + (0 if unreadable else len(functions) * size) or self._channel.has_rest:
            raise ProtocolError("the answer has another size")
        if ANSWER.unpack_from(body) != (self._call, self._channel.peer):
            raise ProtocolError("the answer is not to the last call")
        if unreadable:
            return None
        bits = np.frombuffer(body.translate(_TO_BITS), np.bool_)  # of all functions; their heads are not used
        results, reasons, fault, start = [], _NO_REASONS, None, ANSWER.size
        for k, function in enumerate(functions):
            position, seconds = FUNCTION.unpack_from(body, start)
            if position != function or not 0 <= seconds < _MAX_SECONDS:
                raise ProtocolError("the answer is for another function")
            start += size
            member, unknown = bits[start - 2 * rows : start - rows], bits[start - rows : start]
            if header is not None:
                reasons, fault = _unknown_rows(header, k)
            if reasons:
                is_valid = sum(reasons.values()) == np.count_nonzero(unknown) and not (member & unknown).any()
            else:
                is_valid = body.count(0, start - rows, start) == rows
            if not is_valid:
                raise ProtocolError("the answer has other unknown rows than reasons")
            results.append(FunctionResult(member, unknown, reasons, fault, seconds))
            self._known_seconds += seconds
        return results

    def used_seconds(self) -> float:
        """Return the CPU seconds since the call."""
        if not self._pidfd:
            return 0.0
        try:
            return clock_gettime(self._cpu_clock) - self._cpu_seconds_before
        except OSError:  # it has ended
            return 0.0

    def state(self) -> str:
        """Return the state of the process as the kernel shows it; R (running or waiting for a CPU) before its start."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return fields[0] if fields else "R"

    def is_worn(self, limits: BreakerLimits) -> bool:
        """Return whether the process has had its number of calls, or has grown by half of its memory limit."""
        if self.calls >= limits.recycle_calls + self._more_calls:
            return True
        if not self.calls or self.calls % _CALLS_BETWEEN_CHECKS:
            return False
        resident_bytes = int((self._proc("statm").split() or ["0", "0"])[1]) * os.sysconf("SC_PAGE_SIZE")
        self._first_bytes = self._first_bytes or resident_bytes
        return limits.memory_mb is not None and resident_bytes - self._first_bytes > limits.memory_mb * 2**19

    def _proc(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.process}/{name}").read_text()
        except OSError:
            return ""

    def kill(self) -> None:
        """Kill the process."""
        self._end()


def _unknown_rows(header: Any, k: int) -> tuple[Mapping[str, int], str | None]:
    """Return reasons and first fault of a function from an answer's header."""
    try:
        part = header.get(str(k))
        if part is None:
            return {}, None
        reasons, fault = dict(part["reasons"]), part["fault"]
        if all(type(reason) is str and type(rows) is int and rows > 0 for reason, rows in reasons.items()):
            return reasons, None if fault is None else str(fault)[:_MAX_FAULT_CHARACTERS]
    except (AttributeError, TypeError, KeyError, ValueError):
        pass
    raise ProtocolError("the answer has no valid reasons")


def _kill_worker(pidfd: list[int], channel: Channel) -> None:
    channel.close()
    for descriptor in pidfd:
        with suppress(ProcessLookupError):  # the process id may belong to another process by now
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


class WorkerShare(NamedTuple):
    """Functions of a call that run in one worker."""

    key: str  # of the worker
    functions: tuple[int, ...]  # of the call
    positions: tuple[int, ...]  # among the loaded functions; -1 for one that is not loaded


class ForkServer:
    """The process that loads the functions of files and modules, and forks workers; and the keeper above it.

    Attributes
    ----------
    fingerprints
        Fingerprint of each loaded Python function, by name.
    position
        Position of each of them, by name.
    shareable
        Names of those that may share a worker.

    Raises
    ------
    ServiceError
        If the functions cannot be loaded.
    """

    def __init__(self, sources: Sequence[str], limits: BreakerLimits) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, *_OPTIONS, "service.serving.keeper", str(theirs.fileno())]
        path = os.pathsep.join(filter(None, sys.path))  # same module path as this process
        with theirs:
            keeper = subprocess.Popen(  # noqa: S603  # our own module
                command,
                stdin=subprocess.PIPE,  # ends the process when it is closed
                stdout=2,  # output of the functions is not output of the service
                pass_fds=[theirs.fileno()],
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
                start_new_session=True,  # otherwise Ctrl-C would reach it
            )
        self._channel = Channel(ours)
        self._end = weakref.finalize(self, _end_keeper, keeper, self._channel)
        settings = {
            "sources": sources,
            "memory_mb": limits.memory_mb,
            "network": limits.network,
            "load_seconds": limits.load_seconds,
        }
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
        self.position = {name: position for position, name in enumerate(self.fingerprints)}
        self.shareable = frozenset[str](reply["shareable"])
        self._shares: tuple[tuple[str, ...], tuple[WorkerShare, ...]] = ((), ())

    def shares(self, names: tuple[str, ...]) -> tuple[WorkerShare, ...]:
        """Return the workers of functions, the shared one first; those of the last names are kept."""
        if names != self._shares[0]:
            shared = tuple(k for k, name in enumerate(names) if name in self.shareable)
            groups = [(SHARED, shared)] if shared else []
            groups += [(name, (k,)) for k, name in enumerate(names) if name not in self.shareable]
            self._shares = (
                names,
                tuple(WorkerShare(key, at, tuple(self.position.get(names[k], -1) for k in at)) for key, at in groups),
            )
        return self._shares[1]

    def fork(self) -> Worker | None:
        """Request a worker; None if the process is gone, or no more files can be opened."""
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                worker = Worker(ours)
                socket.send_fds(self._channel.sock, [b"\0"], [theirs.fileno()])
        except OSError:
            return None
        return worker

    def kill(self) -> None:
        """Kill the process, all its workers, and the processes that they have started."""
        self._end()


def _end_keeper(keeper: subprocess.Popen[bytes], channel: Channel) -> None:
    channel.close()
    cast("Any", keeper.stdin).close()
    try:
        keeper.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


class Isolation:
    """Keeps workers and a fork server; a lost one is replaced, after a back-off by the clock.

    Functions that may share a worker have the one named `SHARED`; each other function has a worker of its name.
    All methods except `start`, `adopt` and `close` are for one thread.
    """

    def __init__(self, sources: Sequence[str], limits: BreakerLimits, clock: Callable[[], float]) -> None:
        self._sources, self._limits, self._clock = list(sources), limits, clock
        self._server: ForkServer | None = None
        self._workers: dict[str, Worker] = {}
        self._successors: dict[str, Worker] = {}  # of worn workers, until they are ready
        self._breaker = Breaker()
        self._closed = False
        self._lock = threading.Lock()
        self._restart: threading.Thread | None = None

    @property
    def fingerprints(self) -> Mapping[str, str] | None:
        """Fingerprint of each loaded function, by name; None while no process has loaded them."""
        server = self._server
        return None if server is None else server.fingerprints

    def key(self, name: str) -> str:
        """Return the name of the worker that runs a function."""
        server = self._server
        return SHARED if server is not None and name in server.shareable else name

    def position(self, name: str) -> int:
        """Return the position of a loaded function; -1 if none is loaded."""
        server = self._server
        return -1 if server is None else server.position.get(name, -1)

    def shares(self, names: tuple[str, ...]) -> tuple[WorkerShare, ...]:
        """Return the workers of functions; each has its own while none is loaded."""
        server = self._server
        if server is None:
            return tuple(WorkerShare(name, (k,), (-1,)) for k, name in enumerate(names))
        return server.shares(names)

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

    def worker(self, name: str) -> Worker | None:
        """Return a worker by name, which may still be starting; None if there is none."""
        worker = self._workers.get(name)
        if worker is not None and name == SHARED and not (worker.calls + 1) % _CALLS_BETWEEN_CHECKS:
            self._drop_spare()
        if worker is not None and (name in self._successors or worker.is_worn(self._limits)):
            worker = self._succeed(name, worker)
        if worker is None and (worker := self.fork()) is not None:
            self._workers[name] = worker
        return worker

    def _succeed(self, name: str, worker: Worker) -> Worker:
        """Return the successor of a worn worker if it is ready, else the worn one."""
        successor = self._successors.get(name)
        if successor is None:
            if (successor := self.fork()) is not None:
                self._successors[name] = successor
            return worker
        try:
            successor.wait_until_ready(0.0)
        except TimeoutError:
            return worker
        except ConnectionClosed:
            del self._successors[name]
            return worker
        del self._successors[name]
        worker.kill()
        self._workers[name] = successor
        return successor

    def adopt(self, name: str, worker: Worker) -> None:
        """Take a worker for a function that has none at present; end it if the function may share one."""
        if self.key(name) == SHARED:
            worker.kill()
        else:
            self._workers[name] = worker

    def drop(self, name: str) -> None:
        """Kill a worker."""
        worker = self._workers.pop(name, None)
        if worker is None:
            return
        if (successor := self._successors.pop(name, None)) is not None:
            successor.kill()
        try:
            worker.wait_until_ready(0.0)
        except ConnectionClosed:
            pass
        except TimeoutError:
            if monotonic() - worker.forked_at > _WORKER_START_SECONDS:
                self._drop_server()
        worker.kill()

    def _drop_spare(self) -> None:
        """Kill the workers that functions needed while they could not share one."""
        shareable = frozenset[str]() if self._server is None else self._server.shareable
        for name in shareable.intersection(self._workers):
            self.drop(name)

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
        for worker in (*self._workers.values(), *self._successors.values()):
            worker.kill()
        if self._server is not None:
            self._server.kill()
        self._workers, self._successors, self._server = {}, {}, None
        self._breaker = self._breaker.trip(_PROCESS_LOST, self._limits, self._clock())


def start_thread(target: Callable[[], object]) -> threading.Thread | None:
    """Start a daemon thread; None if no more threads can be started."""
    thread = threading.Thread(target=target, name="slicing-functions", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
