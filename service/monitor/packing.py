"""Blocks of counts as bytes, for the store and for memory."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

import numpy as np

from service.events import BlockCounts, Counts
from service.monitor.sums import merge

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
    total = PackedSum()
    try:
        total.add(data)
        return total.block(model, version, set_hash, start, seconds)
    except _Damaged as problem:
        raise ValueError(
            f"the counts of the block of {model!r} at {start.isoformat()} are damaged: recount it from its rows"
        ) from problem


class PackedSum:
    """The sum of packed blocks of one series, which is quicker than to unpack each and merge them."""

    def __init__(self) -> None:
        self._by_head: dict[bytes, tuple[_Header, Counts]] = {}

    def add(self, data: bytes) -> None:
        """Take in a block.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of a format that this release does not know.
        """
        try:
            head, _, body = zlib.decompress(data).partition(b"\n")
            header, flat = self._by_head.get(head) or (_header(head), None)
            own = np.frombuffer(body, header.dtype).astype(np.int64)
        except (zlib.error, KeyError, TypeError, ValueError) as problem:
            raise _Damaged("the counts of a block are damaged: recount it from its rows") from problem
        if header.form != _FORMAT:
            raise ValueError(
                f"counts of format {header.form} are of a later release: upgrade, or recount from the rows"
            )
        if len(own) != header.ends[-1]:
            raise _Damaged(f"{header.ends[-1]} numbers are due in a block, and {len(own)} are there")
        self._by_head[head] = header, own if flat is None else flat + own

    def block(self, model: str, version: int, set_hash: str, start: datetime, seconds: int) -> BlockCounts:
        """Return the sum as a block of this series and time; there must be a block in it."""
        parts = [
            BlockCounts(model, version, set_hash, start, seconds, header.classes, *header.arrays(flat))
            for header, flat in self._by_head.values()
        ]
        return parts[0] if len(parts) == 1 else merge(parts)


class _Damaged(ValueError):
    """The bytes of a block are not as they were written."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What stands before the numbers."""

    form: int
    classes: tuple[str, ...]
    dtype: str
    shapes: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]

    def arrays(self, flat: Counts) -> list[Counts]:
        parts = np.split(flat, self.ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def _header(head: bytes) -> _Header:
    content = json.loads(head)
    classes, columns = tuple(content["classes"]), int(content["columns"])
    by_class = (len(classes), columns)
    square = (len(classes), *by_class)
    shapes = (by_class, by_class, square, square, (columns,))
    ends = tuple(accumulate(math.prod(shape) for shape in shapes))
    return _Header(content["format"], classes, content["dtype"], shapes, ends)
