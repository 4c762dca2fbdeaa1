"""Requests: their context, their bodies read once as plain JSON, and the parameters that routes share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import anyio.to_thread
from fastapi import Path, Query
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from service.api.errors import MAX_ERRORS, FieldError, InvalidRequest, TooLarge, UnsupportedMedia
from service.api.schemas.fields import BodyT
from service.metrics.process import ProcessMetrics
from service.store.engine import READERS

if TYPE_CHECKING:
    from service.metrics.process import StageTimer
    from service.runtime.runtime import Runtime

JSON = "application/json"
"""Content type of bodies."""
_JSON = JSON.encode()

LONG_BYTES = 256 * 1024
"""Longer bodies are parsed in a thread."""
CONTAINER_VALUES = 10
"""Values that a list or an object counts as: it takes far longer to read than a number."""

_SCANNED_BYTES = 2**16

T = TypeVar("T")

Id: TypeAlias = Annotated[int, Path(ge=1, lt=2**53)]
Before: TypeAlias = Annotated[
    int | None, Query(ge=1, lt=2**53, description="`next` of the previous page, to continue there.")
]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=200)]
VersionNumber: TypeAlias = Annotated[int, Path(ge=1, lt=2**31, description="Version of the model.")]


@dataclass(slots=True)
class RequestContext:
    """State of a request on its way through the middleware and a route.

    Parameters
    ----------
    id
        The client's, or generated.
    began
        Start, in seconds of ``perf_counter``.
    headers
        Headers of the request by lower-case name; of repeated ones the last.
    status
        Status of the response; 0 before there is one.
    rows
        Number of rows in the body; 0 if it has none.
    awaiting_body
        Whether the body has not arrived in full.
    body_bytes
        Bytes of the body that have arrived.
    max_values
        Maximum JSON values of the body.
    caller
        Name of the caller; empty without keys.
    queued, timer
        Time at which its rows entered the queue, in seconds of ``perf_counter``, and the times of their batch.
    """

    id: str
    began: float
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    status: int = 0
    rows: int = 0
    awaiting_body: bool = False
    body_bytes: int = 0
    max_values: int = 600_000
    caller: str = ""
    queued: float = 0.0
    timer: StageTimer | None = None

    def enqueue(self) -> float:
        """Note that its rows enter the queue; return the seconds since the start."""
        self.queued = perf_counter()
        return self.queued - self.began

    @property
    def stages(self) -> tuple[list[tuple[str, float, float]], int]:
        """Name, start and end of the stages of its batch, and the rows of that; none before it has a result."""
        if self.timer is None:
            return [], 0
        return [("queue", self.queued, self.timer.began), *self.timer.stages, *self.timer.committed], self.timer.rows


def request_context(request: Request) -> RequestContext:
    """Return the context that the middleware has attached to a request."""
    context: RequestContext = request.scope["state"]["context"]
    return context


def actor_of(request: Request, by: str) -> str:
    """Return the actor for the audit log: the caller; without keys, the name that the body gives, if any."""
    return request_context(request).caller or by or "http"


async def read_body(request: Request, kind: type[BodyT], metrics: ProcessMetrics) -> BodyT:
    """Return the validated body of a request, and time the decoding.

    Raises
    ------
    UnsupportedMedia
        If the content type is not JSON. Pages of other origins can send any other type without a preflight.
    TooLarge
        If the body has too many values.
    InvalidRequest
        If the body is not valid.
    """
    context = request_context(request)
    content_type = context.headers.get(b"content-type", b"")
    if content_type != _JSON and (media := content_type.partition(b";")[0].strip().lower()) != _JSON:
        raise UnsupportedMedia(
            f"content-type of the body is {media.decode('latin-1') or 'missing'}: "
            "send JSON with content-type: application/json"
        )
    context.awaiting_body = True
    body = await _receive_body(request.receive)
    context.awaiting_body = False
    began = perf_counter()
    if len(body) <= LONG_BYTES:
        value = _decode(kind, body, context.max_values)
    else:
        value = await anyio.to_thread.run_sync(_decode, kind, body, context.max_values)
    metrics.observe_stage("decode", perf_counter() - began)
    return value


def _decode(kind: type[BodyT], body: bytes, max_values: int) -> BodyT:
    require_few_values(body, max_values)
    return decode_body(kind, body)


async def _receive_body(receive: Receive) -> bytes:
    """Return a body, which mostly arrives in one message. Raises ClientDisconnect."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def run_off_loop(request: Request, work: Callable[[], T]) -> T:
    """Return the result of work on a request's body; a long body is handled in a thread."""
    if request_context(request).body_bytes <= LONG_BYTES:
        return work()
    return await anyio.to_thread.run_sync(work)


def require_few_values(body: bytes, max_values: int) -> None:
    """Refuse JSON with too many values, which would hold up other requests; the depth is up to the reader.

    Raises
    ------
    TooLarge
        If there are more values than that, a list or an object counting as `CONTAINER_VALUES`.
    """
    if _separators(body) > max_values and _values_outside_strings(body, max_values) > max_values:
        raise TooLarge(
            f"the body has more than {max_values} JSON values, of which a list or an object counts as "
            f"{CONTAINER_VALUES}: split the request, or raise serve.body_values"
        )


def _separators(text: bytes) -> int:
    return text.count(b",") + CONTAINER_VALUES * (text.count(b"[") + text.count(b"{"))


def _values_outside_strings(body: bytes, enough: int) -> int:
    """Return the number of values, or any larger one than ``enough`` once that is reached."""
    plain = body.replace(rb"\\", b"").replace(b'\\"', b"")  # every quote that is left begins or ends a string
    values = in_string = 0
    for start in range(0, len(plain), _SCANNED_BYTES):
        parts = plain[start : start + _SCANNED_BYTES].split(b'"')
        values += _separators(b"".join(parts[in_string::2]))
        in_string ^= (len(parts) - 1) % 2
        if values > enough:
            break
    return values


def decode_body(kind: type[BodyT], body: bytes) -> BodyT:
    """Return a body as a value of its model.

    Raises
    ------
    InvalidRequest
        If it is not JSON, or not valid; the message names the fields.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        count = error.error_count()
        if count > MAX_ERRORS:  # the full list may be larger than the body
            message = f"{count} fields are wrong: compare the request with /openapi.json"
            raise InvalidRequest([FieldError("", message)]) from None
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest(field_errors(errors)) from None


def field_errors(errors: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    r"""Return pydantic's errors with their locations as paths.

    Examples
    --------
    >>> field_errors([{"loc": ("instances", 3, "likes"), "msg": "Input should be a number"}])
    [FieldError(field='instances[3].likes', message='Input should be a number')]
    >>> field_errors([{"loc": ("id",), "msg": r"String should match pattern '^[^\x00-\x1f\x7f]+$'"}])
    [FieldError(field='id', message='control characters are not allowed')]
    """
    return [
        FieldError(
            "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).removeprefix("."),
            "control characters are not allowed"
            if "match pattern '^[^\\x00" in error["msg"]
            else error["msg"].removeprefix("Value error, "),
        )
        for error in errors
    ]


def require_rows(request: Request, rows: Sequence[object], limit: int, field: str) -> None:
    """Record the number of rows of a request. Raises TooLarge if it is above the limit."""
    request_context(request).rows = len(rows)
    if len(rows) > limit:
        raise TooLarge(f"{field} has {len(rows)} items; the maximum is {limit}: split the request")


def require_finite(value: Any, path: str) -> None:
    """Refuse numbers that JSON cannot represent: NaN, and numbers beyond 64-bit floats.

    Parameters
    ----------
    value
        JSON values of any kind and depth.
    path
        Path of the value in the body; empty for the whole body.

    Raises
    ------
    InvalidRequest
        If there is such a number.
    """
    if not _is_finite(value):
        message = "number is not finite; send null for a missing value"
        paths = islice(_non_finite_paths(value, path), MAX_ERRORS)
        raise InvalidRequest([FieldError(found, message) for found in paths])


def require_distinct(ids: Sequence[str | None], field: str, suffix: str = "") -> None:
    """Refuse ids that occur twice in a request. Raises InvalidRequest."""
    present = [id_ for id_ in ids if id_ is not None]
    if len(set(present)) == len(present):
        return
    first: dict[str, int] = {}
    for i, id_ in enumerate(ids):
        if id_ is not None and first.setdefault(id_, i) != i:
            message = f"{id_!r} occurs twice in the request: an id names one record"
            raise InvalidRequest([FieldError(f"{field}[{i}]{suffix}", message)])


def _is_finite(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return isfinite(value)
    if kind is dict:
        return all(map(_is_finite, value.values()))
    return kind is not list or all(map(_is_finite, value))


def _non_finite_paths(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _non_finite_paths(item, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _non_finite_paths(item, f"{path}[{i}]")
    elif not _is_finite(value):
        yield path.removeprefix(".")


class ReadPool:
    """Threads for blocking reads of the store; two connections stay free for pages and repeated answers.

    Parameters
    ----------
    runtime
        Owns the threads.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._threads = runtime.executor("reader", READERS - 2)

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of blocking work."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
