"""The server process: listens, starts the runtime, and stops it on a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Any, TextIO, cast

import uvicorn
import uvloop
from pythonjsonlogger.json import JsonFormatter

from service.app import create_app
from service.connections import Connections
from service.errors import MisuseError, ServiceError, traceback_without_values
from service.formatting import truncated
from service.runtime.runtime import Runtime
from service.settings.schema import ServeSettings, Settings, address_problem
from sfs.metering import calls_in_progress

BACKLOG = 2048

_log = logging.getLogger(__name__)


def serve(settings: Settings, now: Callable[[], datetime], stream: TextIO, *, debug: bool = False) -> int:
    """Serve until SIGTERM or SIGINT, shut down gracefully, and return 0, or 1 if rows or the store were lost.

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
        If the address is open to other machines, and `insecure` is not set.
    ServiceError
        If the address is taken, or a part cannot start.
    """
    configure(stream, plain=stream.isatty(), level=logging.DEBUG if debug else logging.INFO)
    if problem := address_problem(settings.serve):
        raise MisuseError(problem)
    with listen(settings.serve) as listener:
        runtime = Runtime(settings, now)
        # Uvicorn raises the signal again after it has stopped, which would end this process before the runtime stops.
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda *_: None)
        unwritten = uvloop.run(_serve(runtime, listener))
    code = int(unwritten > 0 or runtime.store.problem is not None)
    if calls_in_progress():  # a template's search; nothing waits for it
        logging.shutdown()
        stream.flush()
        os._exit(code)
    return code


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


async def _serve(runtime: Runtime, listener: socket.socket) -> int:
    drain_seconds = runtime.settings.serve.drain_seconds
    try:
        connections = Connections(runtime.settings.serve, runtime.metrics)
        config = uvicorn.Config(
            create_app(runtime),
            http=cast("type[asyncio.Protocol]", connections.protocol),
            ws="none",  # nothing here speaks it, and it would leave the limits of connections behind
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
            backlog=BACKLOG,
            timeout_keep_alive=cast("int", runtime.settings.serve.idle_seconds),
        )
        server = _Server(config, runtime)
        await asyncio.to_thread(runtime.start)
        # Loaded objects stay: unless frozen, every full collection would traverse all of them, for 200 ms.
        gc.collect()
        gc.freeze()
        url = address(listener)
        for model in runtime.models.values():
            version = model.deployment.state.version
            text = "no version yet" if version is None else f"version {version}"
            _log.info("%s, %s: console and API at %s, metrics at %s/metrics", model.name, text, url, url)
        await server.serve(sockets=[listener])
    finally:
        left = await runtime.stop(drain_seconds)
    _log.info("stopped", extra={"rows_lost": left})
    if problem := runtime.store.problem:
        _log.error("the next start will not find the store as it was: %s", problem)
    return left


class _Server(uvicorn.Server):
    """Server that waits for requests in progress, but for no report or preview."""

    def __init__(self, config: uvicorn.Config, runtime: Runtime) -> None:
        super().__init__(config)
        self._runtime = runtime

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._runtime.begin_stop()
        await super().shutdown(sockets)


def address(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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


class _TracebackFormatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name in `logging`
        """Return a traceback, with the messages of exceptions at level DEBUG only."""
        is_debug = logging.getLogger().isEnabledFor(logging.DEBUG)
        return super().formatException(ei) if is_debug else traceback_without_values(ei[1])


class _JsonFormatter(_TracebackFormatter, JsonFormatter):
    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a record, with long texts cut."""
        limits = {"exc_info": MAX_TRACEBACK_CHARS, "stack_info": MAX_TRACEBACK_CHARS}
        return {
            key: truncated(value, limits.get(key, MAX_FIELD_CHARS)) if isinstance(value, str) else value
            for key, value in super().process_log_record(log_data).items()
        }


class _PlainFormatter(_TracebackFormatter):
    """Plain lines, in which a value cannot begin a line of its own; lines of a traceback are indented."""

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
