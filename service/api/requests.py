"""How a request's body is read: once, as plain JSON, and within the time that its clock allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from time import perf_counter
from typing import Annotated, Any, TypeAlias, TypeVar

import anyio.to_thread
from fastapi import Path, Query
from pydantic import (
    ValidationError,
)
from starlette.requests import Request

from service.api.errors import MOST_ERRORS, FieldError, InvalidRequest, TooLarge, UnsupportedMedia
from service.api.parts import Parts
from service.api.schemas.fields import BodyT
from service.serving.errors import NoModel
from service.store.engine import READERS

LONG_BYTES = 256 * 1024
"""A longer body is read in a thread."""

T = TypeVar("T")


@dataclass(slots=True)
class RequestContext:
    """What is known of a request while it passes through.

    Parameters
    ----------
    id
        The client's, or made for it.
    began
        Seconds of ``perf_counter``.
    status
        Of the answer; 0 before there is one.
    rows
        How many rows it asked for; 0 for other requests.
    awaited
        Whether its body is still to come.
    body_bytes
        How much of its body came so far.
    """

    id: str
    began: float
    status: int = 0
    rows: int = 0
    awaited: bool = False
    body_bytes: int = 0

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return perf_counter() - self.began


def request_context(request: Request) -> RequestContext:
    """Return what the gate knows of a request."""
    found: RequestContext = request.scope["state"]["passage"]
    return found


async def read_body(request: Request, kind: type[BodyT], parts: Parts) -> BodyT:
    """Return the body of a request as a value of its kind, and time how long that took.

    Raises
    ------
    UnsupportedMedia
        If it does not say that it is JSON. Pages of other origins can send anything else without asking.
    InvalidRequest
        If it is not of the kind.
    """
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != "application/json":
        raise UnsupportedMedia(
            f"the body's content-type is {sent or 'missing'}: send JSON with content-type: application/json"
        )
    here = request_context(request)
    here.awaited = True
    body = await request.body()
    here.awaited = False
    began = perf_counter()
    value = await run_off_loop(request, lambda: decode_body(kind, body))
    parts.metrics.stage_took("decode", perf_counter() - began)
    return value


async def run_off_loop(request: Request, work: Callable[[], T]) -> T:
    """Return what is made of a request's body: at once, or in a thread where the body is long."""
    if request_context(request).body_bytes <= LONG_BYTES:
        return work()
    return await anyio.to_thread.run_sync(work)


def require_rows(request: Request, rows: Sequence[object], most: int, field: str) -> None:
    """Note how many rows are asked for, and refuse more than may be at once.

    Raises
    ------
    TooLarge
        If there are more.
    """
    request_context(request).rows = len(rows)
    if len(rows) > most:
        raise TooLarge(
            f"{field} has {len(rows)} items and at most {most} may be sent at once: send them in parts"
        )


def require_classes(parts: Parts) -> tuple[str, ...]:
    """Return the classes that are known, of which there are some.

    Raises
    ------
    NoModel
        If there are none: any text would become one, and figures take memory by the square of the classes.
    """
    classes = parts.classes()
    if not classes:
        raise NoModel(
            "no classes are known here: set `classes` in slicewatch.yaml, or train a model with `slicewatch train`"
        )
    return classes


def decode_body(kind: type[BodyT], body: bytes) -> BodyT:
    """Return a body as a value of its kind.

    Raises
    ------
    InvalidRequest
        If it is not JSON, or not of the kind; the message names the fields.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(_field_error(error)) from None


def require_finite(value: Any, place: str) -> None:
    """Refuse numbers that JSON does not have: NaN, or beyond 64-bit floats.

    Parameters
    ----------
    value
        JSON values of any kind and depth.
    place
        Where they are in the body; empty for the whole of it.

    Raises
    ------
    InvalidRequest
        If there is such a number.
    """
    if _is_finite(value):
        return
    message = "a number is finite, this one is not; send null for a missing one"
    raise InvalidRequest([FieldError(found, message) for found in islice(_places(value, place), MOST_ERRORS)])


def require_distinct(ids: Sequence[str | None], field: str, part: str = "") -> None:
    """Refuse ids that occur twice in one request.

    Raises
    ------
    InvalidRequest
        If there are such.
    """
    given = [each for each in ids if each is not None]
    if len(set(given)) == len(given):
        return
    first: dict[str, int] = {}
    for i, each in enumerate(ids):
        if each is not None and first.setdefault(each, i) != i:
            message = f"{each!r} is there twice in the request: an id names one record"
            raise InvalidRequest([FieldError(f"{field}[{i}]{part}", message)])


def _is_finite(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return isfinite(value)
    if kind is dict:
        return all(map(_is_finite, value.values()))
    return kind is not list or all(map(_is_finite, value))


def _places(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _places(each, f"{place}.{key}")
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from _places(each, f"{place}[{i}]")
    elif not _is_finite(value):
        yield place.removeprefix(".")


def _field_error(error: ValidationError) -> list[FieldError]:
    count = error.error_count()
    if count > MOST_ERRORS:  # the list of them all may be larger than the body
        return [FieldError("", f"{count} fields are wrong: compare the request with /openapi.json")]
    return field_errors(error.errors(include_url=False, include_context=False, include_input=False))


def field_errors(errors: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """Return pydantic's errors with their places as paths.

    Examples
    --------
    >>> field_errors([{"loc": ("instances", 3, "likes"), "msg": "Input should be a number"}])
    [FieldError(field='instances[3].likes', message='Input should be a number')]
    """
    return [FieldError(_path(each["loc"]), each["msg"].removeprefix("Value error, ")) for each in errors]


def _path(place: Sequence[int | str]) -> str:
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in place).removeprefix(".")


AT_ONCE = READERS - 2
"""Reads at once; the other connections are for pages, and for answers that were given before."""


class ReadPool:
    """Threads that read; one whose answer nobody waits for any more is busy until it has read."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="reader")

    async def run(self, work: Callable[[], T]) -> T:
        """Return what some blocking work returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


Id: TypeAlias = Annotated[int, Path(ge=1, lt=2**53)]
Before: TypeAlias = Annotated[
    int | None, Query(ge=1, lt=2**53, description="The ``next`` of a page, to go on there.")
]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=200)]
Number: TypeAlias = Annotated[int, Path(ge=1, lt=2**31, description="Of the version.")]
