"""Request middleware: id, limits, deadline, metrics, request log."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.access import Guard
from service.api.errors import (
    INTERNAL_ERROR,
    FieldError,
    InvalidRequest,
    TooLarge,
    TooSlow,
    UnsupportedMedia,
    error_response,
    problem,
)
from service.api.requests import RequestContext
from service.errors import DeadlinePassed, Overloaded, Stopping
from service.metrics.exposition import OTHER
from service.metrics.request_log import LoggedRequest
from service.runtime.runtime import STOPPING

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

_log = logging.getLogger(__name__)

MAX_IN_FLIGHT_BYTES = 64 * 2**20
SHORT_BODY_BYTES = 64 * 1024
RESERVED_SHARE = 1 / 4
"""Share of the bodies in flight that is kept for short ones: a few long ones that arrive slowly block nobody."""

CLIENT_CLOSED_REQUEST = 499
"""Logged status of a request whose client disconnected before it had sent its body."""

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
SHED_EARLY = frozenset({"/v1/predict", "/v1/predictions"})
"""Paths whose POST requests are refused unread while the prediction queue is full."""
QUEUE_FULL = "the prediction queue is full: try again later"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # polled by machines; logged at level DEBUG


class InFlight:
    """Bodies of all requests in progress: their total size, and its limit.

    Parameters
    ----------
    body_bytes
        Maximum size of one body, which always fits.
    max_bytes
        Maximum total size.
    """

    def __init__(self, body_bytes: int, max_bytes: int = MAX_IN_FLIGHT_BYTES) -> None:
        self.bytes, self._body_bytes, self._max_bytes = 0, body_bytes, max(max_bytes, body_bytes)

    def exceeds(self, length: int, further: int = 0) -> bool:
        """Return whether a body of a length cannot be taken, of which further bytes are still to come."""
        limit: float = self._max_bytes
        if length > SHORT_BODY_BYTES:
            limit = max(limit * (1 - RESERVED_SHARE), self._body_bytes)
        return self.bytes + further > limit


class Deadlines:
    """Deadlines of requests, which all have the same time, with one timer for all of them; for one event loop.

    Parameters
    ----------
    seconds
        Time of a request.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._open: dict[Deadline, None] = {}  # those of requests in progress, in order
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # kept: each look-up is a call of the system in Python 3.11

    def begin(self) -> Deadline:
        """Return the deadline of the current task; the task is cancelled at that time unless it ended before."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        deadline = Deadline(self._open, asyncio.current_task(loop), loop.time() + self.seconds)
        self._open[deadline] = None
        if self._timer is None:
            self._timer = loop.call_at(deadline.at, self._expire)
        return deadline

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        while (first := next(iter(self._open), None)) is not None and first.at <= loop.time():
            first.expire()
        self._timer = None if first is None else loop.call_at(first.at, self._expire)


class Deadline:
    """Time at which a task is cancelled, in seconds of the loop, unless it ended before."""

    __slots__ = ("_open", "_task", "at", "is_past")

    def __init__(self, open_: dict[Deadline, None], task: asyncio.Task[object] | None, at: float) -> None:
        self._open, self._task, self.at, self.is_past = open_, task, at, False

    def expire(self) -> None:
        """Cancel the task."""
        del self._open[self]
        if self._task is not None:
            self.is_past = True
            self._task.cancel()

    def end(self) -> bool:
        """End it; return whether the task was cancelled by this deadline alone."""
        self._open.pop(self, None)
        return self.is_past and self._task is not None and self._task.uncancel() <= 0


class RequestMiddleware:
    """Middleware of the API, a single layer in plain ASGI, since each layer slows every request.

    Parameters
    ----------
    app
        The application behind it.
    runtime
        Limits, counters and logs.
    in_flight
        Bodies of all requests.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime, in_flight: InFlight) -> None:
        self._app, self._runtime, self._limits = app, runtime, runtime.settings.serve
        self._in_flight, self._deadlines = in_flight, Deadlines(self._limits.request_seconds)
        self._ids = request_ids()
        self._guard = Guard(runtime)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        id_ = given_id(headers.get(b"x-request-id", b"")) or next(self._ids)
        context = RequestContext(id_, perf_counter(), headers, max_values=self._limits.body_values)
        scope.setdefault("state", {})["context"] = context
        send = _with_headers(send, context)
        try:
            if (refused := self._guard.refuse(scope, headers, context)) is not None:
                await refused(scope, receive, send)
            elif (error := self._refusal(scope, headers)) is not None:
                if isinstance(error, Overloaded):
                    self._runtime.metrics.count_shed("queue")
                await error_response(error, context.id)(scope, receive, send)
            else:
                await self._handle(scope, self._bounded(receive, context), send, context)
        finally:
            self._in_flight.bytes -= context.body_bytes
            self._record(scope, context)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Exception | None:
        """Return the error for a request refused before its body is read."""
        early = scope["path"] in SHED_EARLY and scope["method"] == "POST"
        if early and not self._runtime.model.predictions.has_room(1):
            if self._runtime.is_stopping:
                return Stopping(self._runtime.problems()[STOPPING])
            return Overloaded(QUEUE_FULL)
        header, limit = headers.get(b"content-length", b"0"), self._limits.body_bytes
        if not header.isdigit() or len(header) > 18:
            return InvalidRequest([FieldError("", "content-length must be a number of bytes")])
        if (length := int(header)) > limit:
            return _too_large(limit)
        if length and self._in_flight.exceeds(length, length):
            return _too_much_in_flight()
        coding = headers.get(b"content-encoding")
        if coding is None or coding.lower() == b"identity":
            return None
        return UnsupportedMedia("send the body without content-encoding")

    def _bounded(self, receive: Receive, context: RequestContext) -> Receive:
        """Return a ``receive`` that raises once the body, or all bodies in flight, exceed their limit."""
        limit, in_flight = self._limits.body_bytes, self._in_flight

        async def bounded() -> Message:
            message = await receive()
            if length := len(message.get("body", b"")):
                context.body_bytes += length
                in_flight.bytes += length
                if context.body_bytes > limit:
                    raise _too_large(limit)
                if in_flight.exceeds(context.body_bytes):
                    raise _too_much_in_flight()
            return message

        return bounded

    async def _handle(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        deadline, timed_out = self._deadlines.begin(), False
        try:
            try:
                await self._app(scope, receive, send)
            finally:
                timed_out = deadline.end()
        except ClientDisconnect:
            context.status = CLIENT_CLOSED_REQUEST
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not timed_out:
                raise
            if not timed_out:
                _log.exception("request failed", extra={"request_id": context.id, "path": scope["path"]})
            if context.status:  # the response has begun: closing the connection shows that it is incomplete
                raise (TimeoutError() if timed_out else error) from None
            await self._failure(timed_out, context)(scope, receive, send)

    def _failure(self, timed_out: bool, context: RequestContext) -> Response:
        seconds = self._limits.request_seconds
        if timed_out and context.awaiting_body:
            message = f"the body did not arrive within {seconds:g} s: send it again"
            return error_response(TooSlow(message), context.id)
        if timed_out:
            self._runtime.metrics.count_shed("deadline")
            message = f"the request took longer than {seconds:g} s: try again, or send fewer rows at once"
            return error_response(DeadlinePassed(message), context.id)
        message = f"internal error; see request id {context.id} in the log"
        return problem(INTERNAL_ERROR, message, request_id=context.id)

    def _record(self, scope: Scope, context: RequestContext) -> None:
        """Count the request, and log it without its content."""
        unrouted: str = scope["path"] if scope["path"] in SHED_EARLY else OTHER
        route: str = getattr(scope.get("route"), "path", unrouted)
        ended = perf_counter()
        seconds = ended - context.began
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        level = logging.DEBUG if route in _QUIET and context.status < 400 else logging.INFO
        request = LoggedRequest(
            ended, level, context.id, method, route, context.status, 1000 * seconds, context.rows, context.caller
        )
        if (traces := self._runtime.traces) is not None and route not in _QUIET:
            parent = traces.sampled(context.headers)
            if parent is not None:
                request = request._replace(trace_id=traces.record(parent, request, *context.stages))
        self._runtime.metrics.observe_request(route, seconds, request)
        self._runtime.request_log.add(request)


def given_id(value: bytes) -> str | None:
    """Return the id that a client gave to its request, None for one that is not plain."""
    return value.decode() if value and _ID.fullmatch(value) else None


def request_ids() -> Iterator[str]:
    """Yield random ids of 128 bits; a call of the system for each would let other threads go first."""
    while True:
        digits = os.urandom(4096).hex()
        yield from (digits[at : at + 32] for at in range(0, len(digits), 32))


def _with_headers(send: Send, context: RequestContext) -> Send:
    """Return a ``send`` that records the status, and adds the headers of every response."""
    headers = [(b"x-request-id", context.id.encode()), (b"x-content-type-options", b"nosniff")]

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return with_headers


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body exceeds {limit} bytes: split the request")


def _too_much_in_flight() -> Overloaded:
    return Overloaded("the requests in progress have reached their total body size: try again later")
