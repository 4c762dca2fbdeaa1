"""How a request's body is read: once, as plain JSON, and within the time that its clock allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import anyio.to_thread
from starlette.requests import Request

from service.api.fields import BodyT, decoded
from service.api.parts import Parts
from service.api.refusals import TooLarge, UnsupportedMedia
from service.serving.refusals import NoModel

LONG_BYTES = 256 * 1024
"""A longer body is read in a thread."""

T = TypeVar("T")


@dataclass(slots=True)
class Passage:
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


def passage(request: Request) -> Passage:
    """Return what the gate knows of a request."""
    found: Passage = request.scope["state"]["passage"]
    return found


async def read(request: Request, kind: type[BodyT], parts: Parts) -> BodyT:
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
    here = passage(request)
    here.awaited = True
    body = await request.body()
    here.awaited = False
    began = perf_counter()
    value = await aside(request, lambda: decoded(kind, body))
    parts.metrics.stage_took("decode", perf_counter() - began)
    return value


async def aside(request: Request, work: Callable[[], T]) -> T:
    """Return what is made of a request's body: at once, or in a thread where the body is long."""
    if passage(request).body_bytes <= LONG_BYTES:
        return work()
    return await anyio.to_thread.run_sync(work)


def require_rows(request: Request, rows: Sequence[object], most: int, field: str) -> None:
    """Note how many rows are asked for, and refuse more than may be at once.

    Raises
    ------
    TooLarge
        If there are more.
    """
    passage(request).rows = len(rows)
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
