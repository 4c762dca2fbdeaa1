"""Blocks of counts as bytes, for the store and for memory."""

from __future__ import annotations

import json
import math
import zlib
from datetime import datetime
from typing import Any

import numpy as np

from service.events import BlockCounts, Counts

_FORMAT = 1
_COMPRESSION = 1
"""Counts are mostly zeros: the quickest level is dense enough."""


def compress(block: BlockCounts) -> bytes:
    """Return the counts as bytes; series and time are not among them."""
    flat = np.concatenate([array.ravel() for array in block.arrays()])
    width = "<i4" if flat.max(initial=0) < 2**31 else "<i8"
    header = {"format": _FORMAT, "classes": block.classes, "columns": len(block.absent), "dtype": width}
    return zlib.compress(json.dumps(header).encode() + b"\n" + flat.astype(width).tobytes(), _COMPRESSION)


def decompress(
    data: bytes, model: str, version: int, set_hash: str, start: datetime, seconds: int
) -> BlockCounts:
    """Return the block that ``compress`` packed.

    Raises
    ------
    ValueError
        If the bytes are damaged, or of a format that this release does not know.
    """
    try:
        head, _, body = zlib.decompress(data).partition(b"\n")
        header = json.loads(head)
        form = header["format"]
        content = _content(header, body) if form == _FORMAT else None
    except (zlib.error, KeyError, TypeError, ValueError) as problem:
        raise ValueError(
            f"the counts of the block of {model!r} at {start.isoformat()} are damaged: recount it from its rows"
        ) from problem
    if content is None:
        raise ValueError(f"counts of format {form} are of a later release: upgrade, or recount from the rows")
    classes, arrays = content
    return BlockCounts(model, version, set_hash, start, seconds, classes, *arrays)


def _content(header: dict[str, Any], body: bytes) -> tuple[tuple[str, ...], list[Counts]]:
    """Return classes and arrays, or raise ValueError where numbers are missing or left over."""
    classes, columns = tuple(header["classes"]), int(header["columns"])
    by_class = (len(classes), columns)
    square = (len(classes), *by_class)
    shapes = [by_class, by_class, square, square, (columns,)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    flat = np.frombuffer(body, header["dtype"]).astype(np.int64)
    if len(flat) != ends[-1]:
        raise ValueError(f"{ends[-1]} numbers are due, and {len(flat)} are there")
    parts = np.split(flat, ends[:-1])
    return classes, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
