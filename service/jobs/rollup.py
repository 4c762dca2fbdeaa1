"""What keeps the store small."""

from __future__ import annotations

from datetime import datetime, timedelta

from service.monitor.windows import BLOCK_SECONDS, rolled_before
from service.store.writer import Writer

_SPARE = timedelta(hours=1)
"""Blocks stay as they are for so much longer than they must: ticks and clocks may be late."""


def roll_up(writer: Writer, now: datetime) -> int:
    """Merge the blocks of the store that are old enough into longer ones, and return how many were taken in.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    return sum(_rolled_up(writer, now - _SPARE, seconds) for seconds in BLOCK_SECONDS[1:])


def _rolled_up(writer: Writer, at: datetime, seconds: int) -> int:
    taken, before = 0, rolled_before(at, seconds)
    while part := writer.roll_up(before, seconds).result():
        taken += part
    return taken
