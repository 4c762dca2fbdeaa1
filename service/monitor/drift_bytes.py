"""Where the detectors stand, as bytes, so that a restart forgets no evidence."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from service.decisions import Zone
from service.monitor.detector import Standing
from sfs.intervals import Rate

_FORMAT = 1
"""To be raised whenever arrays or alternatives change: evidence against others is worth nothing."""
_COMPRESSION = 1


class Kept(NamedTuple):
    """The K rates that are watched, their zones, and where their detectors stand."""

    keys: Sequence[Sequence[Any]]
    zones: Sequence[Zone]
    standing: Standing


def pack(kept: Kept) -> bytes:
    """Return bytes of which ``unpack`` makes the same, to the last bit."""
    zones = [(z.reference.count, z.reference.n, z.lower, z.upper, z.tolerance) for z in kept.zones]
    header = {"format": _FORMAT, "keys": kept.keys, "zones": zones}
    body = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in kept.standing.arrays())
    return zlib.compress(json.dumps(header).encode() + b"\n" + body, _COMPRESSION)


def unpack(data: bytes) -> Kept:
    """Return what was packed.

    Raises
    ------
    ValueError
        If the bytes are damaged, or of a format that this release does not know.
    """
    try:
        head, _, body = zlib.decompress(data).partition(b"\n")
        header = json.loads(head)
        form = header["format"]
        if form == _FORMAT:
            zones = tuple(Zone(Rate(count, n), *limits) for count, n, *limits in header["zones"])
            return Kept(header["keys"], zones, _standing(body, len(zones)))
    except (zlib.error, KeyError, TypeError, ValueError) as problem:
        raise ValueError("the state of the drift watch is damaged: begin a new watch") from problem
    raise ValueError(f"the state of the drift watch has format {form}, not {_FORMAT}: begin a new watch")


def _standing(body: bytes, keys: int) -> Standing:
    """Return the arrays; ValueError if the bytes are fewer or more than theirs."""
    standing = Standing.fresh(keys)
    place = 0
    for array in standing.arrays():
        flat = np.frombuffer(body, array.dtype.newbyteorder("<"), array.size, place)
        array[...] = flat.reshape(array.shape)
        place += array.nbytes
    if place != len(body):
        raise ValueError(f"{place} bytes are due, and {len(body)} are there")
    return standing
