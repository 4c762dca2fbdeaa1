"""The process that serves: it listens, starts the service, and stops it when told to."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable
from datetime import datetime
from typing import TextIO

import uvicorn
import uvloop

from service.app.build import build
from service.app.service import Service
from service.errors import MisuseError, ServiceError
from service.runtime.logs import configure
from service.settings.address import address_problem
from service.settings.project import Settings
from service.settings.sections import ServeSettings

BACKLOG = 2048
MOST_CONNECTIONS = 1000
"""Beyond it the server answers 503 itself; it has no other defence against clients that never finish."""

_log = logging.getLogger(__name__)


def serve(settings: Settings, now: Callable[[], datetime], stream: TextIO) -> int:
    """Serve until SIGTERM or SIGINT, finish what is in hand, and return how it ended: 0, or 1 if rows were lost.

    Parameters
    ----------
    settings
        The project's.
    now
        The time, UTC.
    stream
        Where the log is written: plain lines to a terminal, JSON elsewhere.

    Raises
    ------
    MisuseError
        If the address is not this machine's alone, and that was not asked for.
    ServiceError
        If the address is taken, or a part cannot start.
    """
    configure(stream, plain=stream.isatty())
    if problem := address_problem(settings.serve):
        raise MisuseError(problem)
    with listening(settings.serve) as listener:
        service = build(settings, now)
        # The server hands the signal on after it has stopped, where it would end this process unfinished.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, _ignore)
        left = uvloop.run(_serve(service, listener, settings.serve))
    return int(left > 0)


def listening(serve: ServeSettings) -> socket.socket:
    """Return a socket that listens where the settings say.

    Raises
    ------
    ServiceError
        If the address is taken or is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in serve.host else socket.AF_INET
    try:
        return socket.create_server((serve.host, serve.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {serve.host} port {serve.port}: {error.strerror or error}; "
            "choose another with --port, or serve.host and serve.port"
        ) from None


async def _serve(service: Service, listener: socket.socket, serve: ServeSettings) -> int:
    config = uvicorn.Config(
        service.asgi,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(serve.drain_seconds)),
        backlog=BACKLOG,
        limit_concurrency=MOST_CONNECTIONS,
    )
    server = uvicorn.Server(config)
    try:
        await asyncio.to_thread(service.start)
        # What is loaded stays: without this, every full collection would look through all of it, for 200 ms.
        gc.collect()
        gc.freeze()
        in_force = service.switchboard.current.in_force
        where = address(listener)
        version = "no version yet" if in_force.version is None else f"version {in_force.version}"
        _log.info(
            "%s, %s: console and API at %s, metrics at %s/metrics", in_force.model, version, where, where
        )
        await server.serve(sockets=[listener])
    finally:
        left = await service.stop(serve.drain_seconds)
    _log.info("stopped", extra={"rows_lost": left})
    return left


def address(listener: socket.socket) -> str:
    """Return the URL under which a socket listens.

    Examples
    --------
    >>> with socket.create_server(("127.0.0.1", 0)) as one:
    ...     address(one).startswith("http://127.0.0.1:")
    True
    """
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _ignore(*_: object) -> None:
    """Let the signal pass."""
