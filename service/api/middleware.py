"""What every request passes: an id, limits on its body and its time, counters, one line in the log."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from time import perf_counter
from typing import Any

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
from service.api.parts import STOPPING, Parts
from service.api.requests import RequestContext
from service.metrics.exposition import OTHER
from service.serving.errors import DeadlinePassed, Overloaded, Stopping

_access = logging.getLogger("service.access")
_log = logging.getLogger(__name__)

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_SHED_EARLY = frozenset({"/v1/predict", "/v1/predictions"})
GONE = 499
"""Stands in the log for the status of a request whose client left before it had sent its body."""
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked by machines every few seconds; their lines are for debugging."""


class RequestMiddleware:
    """The one middleware, in plain ASGI: each layer of it costs every request.

    Parameters
    ----------
    app
        What is behind it.
    parts
        Limits and counters.
    """

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app, self._parts = app, parts
        limits = parts.limits
        self._most_bytes = max(limits.flight_bytes, limits.body_bytes)
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        here = RequestContext(_id_of(headers), perf_counter())
        scope.setdefault("state", {})["passage"] = here
        sending = _stamped(send, here)
        try:
            if refused := self._refused(scope, headers, here):
                await refused(scope, receive, sending)
            else:
                await self._pass(scope, self._counted(receive, here), sending, here)
        finally:
            self._held_bytes -= here.body_bytes
            self._note(scope, here)

    def _refused(self, scope: Scope, headers: dict[bytes, bytes], here: RequestContext) -> Response | None:
        """Return the refusal of a request that need not be read."""
        error = self._error(scope, headers)
        if error is None:
            return None
        if isinstance(error, Overloaded):
            self._parts.metrics.shed("queue")
        return error_response(error, here.id)

    def _error(self, scope: Scope, headers: dict[bytes, bytes]) -> Exception | None:
        if scope["method"] == "POST" and scope["path"] in _SHED_EARLY and not self._parts.has_room(1):
            if reason := self._parts.problems().get(STOPPING):
                return Stopping(reason)
            return Overloaded("as many rows wait as may: send the request again later")
        length, most = headers.get(b"content-length", b"0"), self._parts.limits.body_bytes
        if not length.isdigit() or len(length) > 18:
            return InvalidRequest([FieldError("", "content-length is a number of bytes")])
        if int(length) > most:
            return _too_long(most)
        if int(length) and self._held_bytes + int(length) > self._most_bytes:
            return _crowded()
        coding = headers.get(b"content-encoding", b"identity").lower()
        return None if coding == b"identity" else UnsupportedMedia("send the body without content-encoding")

    def _counted(self, receive: Receive, here: RequestContext) -> Receive:
        """Return a ``receive`` that refuses a body once it, or all bodies together, are longer than may be."""
        most = self._parts.limits.body_bytes

        async def counted() -> Message:
            message = await receive()
            length = len(message.get("body", b""))
            here.body_bytes += length
            self._held_bytes += length
            if here.body_bytes > most:
                raise _too_long(most)
            if length and self._held_bytes > self._most_bytes:
                raise _crowded()
            return message

        return counted

    async def _pass(self, scope: Scope, receive: Receive, send: Send, here: RequestContext) -> None:
        limit = asyncio.timeout(self._parts.limits.request_seconds)
        try:
            async with limit:
                await self._app(scope, receive, send)
        except ClientDisconnect:
            here.status = GONE
        except Exception as error:
            late = isinstance(error, TimeoutError) and limit.expired()
            if not late:
                _log.exception("a request failed", extra={"request_id": here.id, "path": scope["path"]})
            if here.status:
                raise  # the answer has begun: its connection has to end, so that nobody takes it for whole
            await self._sorry(late, here)(scope, receive, send)

    def _sorry(self, late: bool, here: RequestContext) -> Response:
        seconds = self._parts.limits.request_seconds
        if late and here.awaited:
            return error_response(
                TooSlow(f"the body did not come wholly within {seconds:g} s: send it again"), here.id
            )
        if late:
            self._parts.metrics.shed("deadline")
            message = f"it took longer than {seconds:g} s: send it again, or less at once"
            return error_response(DeadlinePassed(message), here.id)
        return problem(
            INTERNAL_ERROR, f"this is a defect; the log has it under {here.id}", request_id=here.id
        )

    def _note(self, scope: Scope, here: RequestContext) -> None:
        """Count the request, and write its line: what it was, never what it held."""
        unread: str = scope["path"] if scope["path"] in _SHED_EARLY else OTHER
        route: str = getattr(scope.get("route"), "path", unread)
        self._parts.metrics.request_took(route, here.seconds)
        level = logging.DEBUG if route in _QUIET and here.status < 400 else logging.INFO
        if _access.isEnabledFor(level):
            line: dict[str, Any] = {
                "request_id": here.id,
                "method": scope["method"],
                "route": route,
                "status": here.status,
                "ms": round(1000 * here.seconds, 3),
                "rows": here.rows,
            }
            _access.log(level, "request", extra=line)


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def _id_of(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _ID.fullmatch(given) else os.urandom(16).hex()


def _too_long(most: int) -> TooLarge:
    return TooLarge(f"the body has more than {most} bytes: send it in parts")


def _crowded() -> Overloaded:
    return Overloaded(
        "the requests that are being answered are as long as they may be: send this one again later"
    )


def _stamped(send: Send, here: RequestContext) -> Send:
    """Return a ``send`` that notes the status, and adds the headers that every answer has."""
    headers = [(b"x-request-id", here.id.encode()), (b"x-content-type-options", b"nosniff")]

    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            here.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return stamped
