"""Blocks of counts as bytes, for the store and for memory."""

from __future__ import annotations

import json
import zlib
from datetime import datetime

import numpy as np

from service.events import BlockCounts

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
        flat = np.frombuffer(body, header["dtype"]).astype(np.int64)
        known = header["format"] == _FORMAT
    except (zlib.error, KeyError, TypeError, ValueError) as problem:
        raise ValueError(
            f"the counts of the block of {model!r} at {start.isoformat()} are damaged: recount it from its rows"
        ) from problem
    if not known:
        raise ValueError(f"counts of format {header['format']} are of a later release: upgrade, or recount")
    classes, columns = tuple(header["classes"]), int(header["columns"])
    flats = np.split(flat, np.cumsum(_sizes(len(classes), columns))[:-1])
    side = (len(classes), columns)
    shapes = [side, side, (len(classes), *side), (len(classes), *side), (columns,)]
    arrays = [part.reshape(shape) for part, shape in zip(flats, shapes, strict=True)]
    return BlockCounts(model, version, set_hash, start, seconds, classes, *arrays)


def _sizes(classes: int, columns: int) -> list[int]:
    """Return how many numbers each array of a block has."""
    return [classes * columns] * 2 + [classes * classes * columns] * 2 + [columns]
