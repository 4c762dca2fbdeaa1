"""Refusal of predictions while the queue is full, before anything is made for the request.

At twice the load that the service can take, more than half of the requests are refused: if a refusal took a third of
the time of an answer, few would be answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from service.api.errors import error_response
from service.api.middleware import QUEUE_FULL, SHED_EARLY, given_id, request_ids
from service.errors import Overloaded
from service.metrics.request_log import LoggedRequest

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

_STATUS = 429
_LINE = b"HTTP/1.1 429 Too Many Requests"
_PLACE = b"{request_id}"

Headers = Sequence[tuple[bytes, bytes]]


class Overload:
    """Answers to requests that a full prediction queue refuses; the same bytes as those of the API.

    Parameters
    ----------
    runtime
        The service.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._ids, self._entering = runtime, request_ids(), 0
        self._paths = {path.encode(): path for path in SHED_EARLY}
        response = error_response(Overloaded(QUEUE_FULL), _PLACE.decode())
        self._body = bytes(response.body).split(_PLACE)
        rest = [header for header in response.raw_headers if header[0] != b"content-length"]
        self._end = b"".join(b"\r\n%s: %s" % header for header in rest)
        self._more_headers: Headers | None = None
        self._start = b""

    def refuses(self, method: bytes, path: bytes) -> bool:
        """Return whether a request is refused now; one that is not needs room from now on."""
        if method != b"POST" or path not in self._paths:
            return False
        if not self._runtime.model.predictions.has_room(1 + self._entering):
            return not self._runtime.is_stopping
        if not self._entering:  # what has arrived in one pass of the event loop enters the queue in the next
            asyncio.get_running_loop().call_soon(self._enter)
        self._entering += 1
        return False

    def _enter(self) -> None:
        self._entering = 0

    def answer(self, path: bytes, headers: Headers, more_headers: Headers) -> bytes:
        """Return the whole answer to a refused request, and count it.

        Parameters
        ----------
        path, headers
            Path and headers of the request.
        more_headers
            Headers of every answer.
        """
        began = perf_counter()
        given = b""
        for name, value in headers:
            if name == b"x-request-id":
                given = value
                break
        id_ = given_id(given) or next(self._ids)
        encoded = id_.encode()
        body = encoded.join(self._body)
        if more_headers is not self._more_headers:  # they change each second
            self._more_headers = more_headers
            self._start = b"\r\n".join([_LINE, *(b"%s: %s" % header for header in more_headers)])
        answer = b"%s\r\ncontent-length: %d%s\r\nx-request-id: %s\r\nx-content-type-options: nosniff\r\n\r\n%s" % (
            self._start, len(body), self._end, encoded, body,
        )  # fmt: skip
        metrics, route, ended = self._runtime.metrics, self._paths[path], perf_counter()
        metrics.count_shed("queue")
        metrics.observe_request(route, ended - began)
        ms = 1000 * (ended - began)
        self._runtime.request_log.add(LoggedRequest(ended, logging.INFO, id_, "POST", route, _STATUS, ms, 0))
        return answer
