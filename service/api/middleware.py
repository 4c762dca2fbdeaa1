"""Request middleware: id, limits, metrics, access log."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from time import perf_counter
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
from service.runtime.runtime import STOPPING

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

_access = logging.getLogger("service.access")
_log = logging.getLogger(__name__)

MAX_IN_FLIGHT_BYTES = 64 * 2**20
SHORT_BODY_BYTES = 64 * 1024
RESERVED_SHARE = 1 / 4
"""Share of the bodies in flight that is kept for short ones: a few long ones that arrive slowly block nobody."""

CLIENT_CLOSED_REQUEST = 499
"""Logged status of a request whose client disconnected before it had sent its body."""

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_SHED_EARLY = frozenset({"/v1/predict", "/v1/predictions"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # polled by machines; logged at level DEBUG


class RequestMiddleware:
    """Middleware of the API, a single layer in plain ASGI, since each layer slows every request.

    Parameters
    ----------
    app
        The application behind it.
    runtime
        Limits and counters.
    max_in_flight_bytes
        Maximum total size of the bodies of all requests in progress; one body of the maximum size always fits.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime, max_in_flight_bytes: int = MAX_IN_FLIGHT_BYTES) -> None:
        self._app, self._runtime, self._limits = app, runtime, runtime.settings.serve
        self._max_in_flight_bytes = max(max_in_flight_bytes, self._limits.body_bytes)
        self._in_flight_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        id_ = request_id.decode() if _ID.fullmatch(request_id) else os.urandom(16).hex()
        context = RequestContext(id_, perf_counter(), max_values=self._limits.body_values)
        scope.setdefault("state", {})["context"] = context
        send = _with_headers(send, context)
        try:
            if (error := self._refusal(scope, headers)) is not None:
                if isinstance(error, Overloaded):
                    self._runtime.metrics.count_shed("queue")
                await error_response(error, context.id)(scope, receive, send)
            else:
                await self._handle(scope, self._bounded(receive, context), send, context)
        finally:
            self._in_flight_bytes -= context.body_bytes
            self._record(scope, context)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Exception | None:
        """Return the error for a request refused before its body is read."""
        early = scope["method"] == "POST" and scope["path"] in _SHED_EARLY
        if early and not self._runtime.model.predictions.has_room(1):
            if reason := self._runtime.problems().get(STOPPING):
                return Stopping(reason)
            return Overloaded("the prediction queue is full: try again later")
        length, limit = headers.get(b"content-length", b"0"), self._limits.body_bytes
        if not length.isdigit() or len(length) > 18:
            return InvalidRequest([FieldError("", "content-length must be a number of bytes")])
        if int(length) > limit:
            return _too_large(limit)
        if int(length) and self._in_flight_bytes + int(length) > self._in_flight_limit(int(length)):
            return _too_much_in_flight()
        coding = headers.get(b"content-encoding", b"identity").lower()
        return None if coding == b"identity" else UnsupportedMedia("send the body without content-encoding")

    def _bounded(self, receive: Receive, context: RequestContext) -> Receive:
        """Return a ``receive`` that raises once the body, or all bodies in flight, exceed their limit."""
        limit = self._limits.body_bytes

        async def bounded() -> Message:
            message = await receive()
            length = len(message.get("body", b""))
            context.body_bytes += length
            self._in_flight_bytes += length
            if context.body_bytes > limit:
                raise _too_large(limit)
            if length and self._in_flight_bytes > self._in_flight_limit(context.body_bytes):
                raise _too_much_in_flight()
            return message

        return bounded

    def _in_flight_limit(self, length: int) -> float:
        """Return the maximum size of all bodies in flight at which one of a length is taken."""
        limit = self._max_in_flight_bytes
        return limit if length <= SHORT_BODY_BYTES else max(limit * (1 - RESERVED_SHARE), self._limits.body_bytes)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        timeout = asyncio.timeout(self._limits.request_seconds)
        try:
            async with timeout:
                await self._app(scope, receive, send)
        except ClientDisconnect:
            context.status = CLIENT_CLOSED_REQUEST
        except Exception as error:
            timed_out = isinstance(error, TimeoutError) and timeout.expired()
            if not timed_out:
                _log.exception("request failed", extra={"request_id": context.id, "path": scope["path"]})
            if context.status:
                raise  # the response has begun: closing the connection shows that it is incomplete
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
        unrouted: str = scope["path"] if scope["path"] in _SHED_EARLY else OTHER
        route: str = getattr(scope.get("route"), "path", unrouted)
        self._runtime.metrics.observe_request(route, context.seconds)
        level = logging.DEBUG if route in _QUIET and context.status < 400 else logging.INFO
        if _access.isEnabledFor(level):
            fields: dict[str, Any] = {
                "request_id": context.id,
                "method": scope["method"] if scope["method"] in _METHODS else OTHER,
                "route": route,
                "status": context.status,
                "ms": round(1000 * context.seconds, 3),
                "rows": context.rows,
            }
            _access.log(level, "request", extra=fields)


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
