"""The server process: listens, starts the runtime, and stops it on a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from time import monotonic, perf_counter, sleep
from typing import Any, TextIO, cast

import uvicorn
import uvloop
from pydantic_core import to_json
from pythonjsonlogger.json import JsonFormatter

from service.app import create_app
from service.connections import Connections
from service.errors import MisuseError, traceback_without_values
from service.formatting import truncated
from service.handover import BACKLOG, Listening, Successor, notify_systemd, open_listening
from service.keys import KeyFile
from service.overload import Overload
from service.runtime.runtime import Runtime
from service.settings.schema import Settings, address_problem
from service.store.errors import StoreError
from service.tls import load_context
from sfs.metering import calls_in_progress

REOPEN_SECONDS, _REOPEN_POLL_SECONDS = 60.0, 1.0
"""Time in which a process that no successor has replaced has to get its store, functions and champion again."""

_log = logging.getLogger(__name__)


def serve(settings: Settings, now: Callable[[], datetime], stream: TextIO, *, debug: bool = False) -> int:
    """Serve until SIGTERM or SIGINT, shut down gracefully, and return 0, or 1 if rows or the store were lost.

    On SIGUSR2 a successor with the same command takes over; until it serves, or if it fails, this process serves.

    Parameters
    ----------
    settings
        Settings of the project.
    now
        Current time, UTC.
    stream
        Receives the log: plain lines on a terminal, JSON elsewhere.
    debug
        Whether to log at level DEBUG, with the messages of exceptions, which may quote records.

    Raises
    ------
    MisuseError
        If the address is open to other machines, and there are no keys, or the certificate is not valid.
    ServiceError
        If the address is taken, or a part cannot start.
    """
    configure(stream, plain=stream.isatty(), level=logging.DEBUG if debug else logging.INFO)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    keys = KeyFile(settings.keys_file)
    has_keys = bool(keys.read())
    if settings.serve.keys is not None and keys.stamp() is None:
        raise MisuseError(
            f"serve.keys: there is no file {keys.path}: add a key with `slicewatch keys add NAME --scope SCOPE`, or "
            "remove the setting"
        )
    if problem := address_problem(settings.serve, has_keys=has_keys):
        raise MisuseError(problem)
    tls = None if settings.serve.tls is None else load_context(settings.serve.tls, now)
    listening = open_listening(settings.serve, os.environ)
    with listening.socket:
        settings = replace(settings, serve=listening.serve)
        if problem := address_problem(settings.serve, has_keys=has_keys):  # of a socket unit
            raise MisuseError(problem)
        waiting = [] if listening.predecessor is None else listening.predecessor.replace(settings)
        stops: list[int] = []
        runtime = Runtime(settings, now)
        while True:
            # Uvicorn raises the signal again after it has stopped, which would end this process before the runtime.
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, lambda signum, _: stops.append(signum))
            unwritten, successor, waiting = uvloop.run(_serve(runtime, listening, tls, waiting, stops))
            if successor is None or successor.serves or stops:
                break
            _log.error("process %d did not take over: this process serves on", successor.pid)
            runtime = _reopened(settings, now, stops)
    for connection in waiting:
        connection.close()
    code = int(unwritten > 0 or runtime.store.problem is not None)
    if calls_in_progress():  # a template's search; nothing waits for it
        logging.shutdown()
        stream.flush()
        os._exit(code)
    return code


def _reopened(settings: Settings, now: Callable[[], datetime], stops: list[int]) -> Runtime:
    """Return a runtime like the one that no successor has replaced; connections wait while it cannot be had.

    A process of the successor may hold the store for a moment. Raises the error of the last attempt.
    """
    end = monotonic() + REOPEN_SECONDS
    while True:
        try:
            if not settings.store.exists():
                raise StoreError(f"{settings.store} is missing: move it back")
            return Runtime(settings, now)
        except Exception as error:
            if stops or monotonic() > end:
                raise
            _log.error("this process cannot serve on yet, and tries again: %s", error)
            sleep(_REOPEN_POLL_SECONDS)


async def _serve(
    runtime: Runtime,
    listening: Listening,
    tls: ssl.SSLContext | None,
    waiting: list[socket.socket],
    stops: list[int],
) -> tuple[int, Successor | None, list[socket.socket]]:
    """Serve, and return the rows lost, the successor, and the connections that wait for their next request."""
    drain_seconds = runtime.settings.serve.drain_seconds
    try:
        connections = Connections(runtime.settings.serve, runtime.metrics, Overload(runtime), tls)
        config = uvicorn.Config(
            create_app(runtime),
            http=cast("type[asyncio.Protocol]", connections.protocol),
            ws="none",  # nothing here speaks it, and it would leave the limits of connections behind
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # any client of this machine could name another address as its own
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
            backlog=BACKLOG,
            timeout_keep_alive=cast("int", runtime.settings.serve.idle_seconds),
        )
        server = _Server(config, runtime, connections, listening, waiting, stops)
        await asyncio.to_thread(runtime.start)
        # Loaded objects stay: unless frozen, every full collection would traverse all of them, for 200 ms.
        gc.unfreeze()  # those of a runtime that no successor has replaced
        gc.collect()
        gc.freeze()
        url = address(listening.socket, "http" if tls is None else "https")
        for model in runtime.models.values():
            version = model.deployment.state.version
            text = "no version yet" if version is None else f"version {version}"
            _log.info("%s, %s: console and API at %s, metrics at %s/metrics", model.name, text, url, url)
        await server.serve(sockets=[listening.socket.dup()])  # uvicorn closes it, and another process goes on with it
    finally:
        left = await runtime.stop(drain_seconds)
    _log.info("stopped", extra={"rows_lost": left})
    if problem := runtime.store.problem:
        _log.error("the next start will not find the store as it was: %s", problem)
    if (successor := server.successor) is not None:
        await asyncio.to_thread(successor.end if problem else partial(successor.take_over, server.waiting, stops))
        if successor.serves:
            _log.info("process %d has taken over", successor.pid)
            for shared in (listening.socket, *server.waiting):  # else none of them ends before this process
                shared.close()
            await connections.sent(drain_seconds)
    await runtime.stop_traces()
    return left, successor, server.waiting


class _Server(uvicorn.Server):
    """Server that waits for requests in progress, but for no report or preview, and can be replaced by another one."""

    def __init__(
        self,
        config: uvicorn.Config,
        runtime: Runtime,
        connections: Connections,
        listening: Listening,
        waiting: list[socket.socket],
        stops: list[int],
    ) -> None:
        super().__init__(config)
        self._runtime, self._connections, self._listening, self._stops = runtime, connections, listening, stops
        self.waiting = waiting
        self.successor: Successor | None = None
        self._replacing: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and take those of an earlier process."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGUSR2, lambda *_: loop.call_soon_threadsafe(self._begin_replacement))
        waiting, self.waiting = self.waiting, []
        for connection in waiting:
            with suppress(OSError):  # its client has left
                await loop.connect_accepted_socket(self._protocol, connection)
        if self._listening.predecessor is not None:
            self._listening.predecessor.release()
        else:
            notify_systemd("READY=1")
        self.should_exit |= bool(self._stops)  # a signal may have come since

    def _protocol(self) -> asyncio.Protocol:
        return self._connections.protocol(
            config=self.config, server_state=self.server_state, app_state={}, _loop=asyncio.get_running_loop()
        )

    def _begin_replacement(self) -> None:
        if self.successor is None and (self._replacing is None or self._replacing.done()):
            self._replacing = asyncio.create_task(self._replace())

    async def _replace(self) -> None:
        """Start a successor, and stop serving once it is loaded."""
        if problem := await self._obstacle():
            _log.error("no process can take over, and this process serves on: %s", problem)
            return
        try:
            successor = await asyncio.to_thread(Successor, self._listening)
        except OSError as error:
            _log.error("no process could be started to take over: %s", error)
            return
        _log.info("process %d is starting, to take over", successor.pid)
        has_model = self._runtime.model.deployment.state.active is not None
        if not await asyncio.to_thread(successor.is_loaded, self._captured_signals, has_model=has_model):
            if not self._captured_signals:
                reason = (
                    "ended before it was loaded, or found no version" if has_model else "ended before it was loaded"
                )
                _log.error("process %d %s: this process serves on", successor.pid, reason)
        elif problem := await self._obstacle():
            await asyncio.to_thread(successor.end)
            _log.error("process %d can no longer take over, and this process serves on: %s", successor.pid, problem)
        else:
            self.successor = successor
            await self._connections.announce_end()
            self.should_exit = True

    async def _obstacle(self) -> str | None:
        """Return the reason why another process could not open the keys or the store, or would not find all rows."""
        runtime = self._runtime
        stored = await asyncio.to_thread(runtime.store.probe)
        return runtime.access.look(perf_counter()) or stored or runtime.writer.refusal

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the requests in progress, and keep the other connections for a successor."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self._runtime.begin_stop()
        if self._replacing is not None and self.successor is None:
            await self._replacing  # it ends the process that it has started
        if self.successor is not None and not self._captured_signals:
            for server in self.servers:
                server.close()
            end = monotonic() + self._runtime.settings.serve.drain_seconds
            self.waiting = await self._connections.detach()
            self.config.timeout_graceful_shutdown = max(1, round(end - monotonic()))
        await super().shutdown(sockets)


def address(listener: socket.socket, scheme: str = "http") -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


_QUIET = ("apscheduler", "alembic", "uvicorn")
"""Loggers of libraries that log every step; only their warnings are kept."""
_STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


def configure(stream: TextIO, *, plain: bool, level: int = logging.INFO) -> None:
    """Write all log records of the process to a stream, and remove earlier handlers.

    Parameters
    ----------
    stream
        Receives the lines.
    plain
        Whether to write plain lines; otherwise JSON with ``time``, ``level``, ``logger``, ``message``, and
        the extra fields of the record, such as ``request_id``.
    level
        Minimum level. Above DEBUG, tracebacks have the kinds of exceptions without their messages.
    """
    handler = logging.StreamHandler(stream)
    formatter: logging.Formatter
    if plain:
        formatter = _PlainFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    else:
        names = {"levelname": "level", "name": "logger"}
        template = "%(levelname)s %(name)s %(message)s"
        formatter = _JsonFormatter(template, rename_fields=names, timestamp="time")
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


MAX_FIELD_CHARS, MAX_TRACEBACK_CHARS = 2_000, 20_000
"""Maximum lengths of a message or field of a record, and of a traceback: clients choose parts of them."""


def request_lines(record: logging.LogRecord) -> list[dict[str, Any]]:
    """Return the fields of the requests in a record of the request log; empty for other records."""
    written: float = getattr(record, "written", 0.0)
    return [
        {
            "level": logging.getLevelName(request.level),
            "logger": record.name,
            "message": "request",
            "request_id": request.request_id,
            "method": request.method,
            "route": request.route,
            "status": request.status,
            "ms": round(request.ms, 3),
            "rows": request.rows,
            **({"key": request.key} if request.key else {}),
            **({"trace_id": request.trace_id} if request.trace_id else {}),
            "time": datetime.fromtimestamp(record.created - written + request.ended, UTC).isoformat(),
        }
        for request in getattr(record, "requests", ())
    ]


class _TracebackFormatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name in `logging`
        """Return a traceback, with the messages of exceptions at level DEBUG only."""
        is_debug = logging.getLogger().isEnabledFor(logging.DEBUG)
        return super().formatException(ei) if is_debug else traceback_without_values(ei[1])


class _JsonFormatter(_TracebackFormatter, JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line of JSON, or as one line for each of its requests."""
        if lines := request_lines(record):
            return "\n".join(to_json(line).decode() for line in lines)
        return super().format(record)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a record, with long texts cut."""
        limits = {"exc_info": MAX_TRACEBACK_CHARS, "stack_info": MAX_TRACEBACK_CHARS}
        return {
            key: truncated(value, limits.get(key, MAX_FIELD_CHARS)) if isinstance(value, str) else value
            for key, value in super().process_log_record(log_data).items()
        }


class _PlainFormatter(_TracebackFormatter):
    """Plain lines, in which a value cannot begin a line of its own; lines of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line, or as one line for each of its requests."""
        names = {"time": "created", "level": "levelname", "logger": "name", "message": "msg"}
        lines = []
        for line in request_lines(record):
            fields = {names.get(key, key): value for key, value in line.items()}
            created = datetime.fromisoformat(line["time"]).timestamp()
            lines.append(logging.makeLogRecord({**fields, "created": created}))
        return "\n".join(super(_PlainFormatter, self).format(each) for each in lines or [record])

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in `logging`
        """Return one record as a line, with its extra fields as ``name=value``."""
        record.message = one_line(record.message)
        extra = [f"{key}={one_line(str(value))}" for key, value in vars(record).items() if key not in _STANDARD_FIELDS]
        return " ".join([super().formatMessage(record), *extra])

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name in `logging`
        """Return an indented traceback."""
        text = truncated(super().formatException(ei), MAX_TRACEBACK_CHARS)
        return "\n".join(f"    {one_line(line)}" for line in text.split("\n"))


def one_line(text: str) -> str:
    """Return a text with control characters and line separators escaped, cut to the length of a field.

    Examples
    --------
    >>> one_line("a\\nb"), len(one_line("a" * 9_000))
    ('a\\\\nb', 2000)
    """
    text = truncated(text, MAX_FIELD_CHARS)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
