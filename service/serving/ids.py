"""Identifiers of our own making, in the order of their time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
RANDOM_BYTES = 10
"""Random bytes that an identifier takes, of which it keeps 74 bits."""


def uuid7(at: datetime, random: bytes) -> str:
    """Return a UUID of version 7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits.

    Parameters
    ----------
    at
        Its time, with a time zone.
    random
        10 random bytes.

    Examples
    --------
    >>> uuid7(datetime(2026, 5, 1, tzinfo=UTC), bytes(10))
    '019de0d5-c800-7000-8000-000000000000'
    """
    bits = int.from_bytes(random[:RANDOM_BYTES], "big")
    high, low = bits >> 62 & 0xFFF, bits & (1 << 62) - 1
    number = (at - _EPOCH) // _MILLISECOND << 80 | 7 << 76 | high << 64 | 2 << 62 | low
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7s(at: datetime, count: int, draw: Callable[[int], bytes]) -> list[str]:
    """Return identifiers of one time; ``draw`` gives that many random bytes, as ``os.urandom`` does."""
    drawn = draw(RANDOM_BYTES * count)
    return [uuid7(at, drawn[i * RANDOM_BYTES : (i + 1) * RANDOM_BYTES]) for i in range(count)]
