"""Job that merges old blocks into longer ones."""

from __future__ import annotations

from datetime import datetime, timedelta

from service.monitor.windows import BLOCK_SECONDS, rolled_before
from service.store.writer import Writer

_MARGIN = timedelta(hours=1)
"""Delay of merging beyond the minimum age of blocks, since ticks and clocks may be late."""


class RollUp:
    """Merges old blocks of the store into longer ones."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def run(self, now: datetime) -> int:
        """Merge, and return the number of merged blocks."""
        merged = 0
        for seconds in BLOCK_SECONDS[1:]:
            before = rolled_before(now - _MARGIN, seconds)
            while part := self._writer.roll_up(before, seconds).result():
                merged += part
        return merged
