"""Blocks of one series in memory, packed, with cached sums."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from service.events import BlockCounts
from service.monitor.block_counts import compress, decompress, empty, merge, spanning
from service.monitor.windows import BLOCK_SECONDS, Span

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIZES = (*BLOCK_SECONDS, 86_400)
"""Node sizes in seconds, each a multiple of the previous one; a day is always a sum."""


class BlockIndex:
    """Blocks of one model version and function set, by time.

    A window is the sum of the largest aligned nodes that fit: days, hours, five minutes, and ten seconds at
    its ends. Sums are computed on first use and dropped when a block under them changes, so a late label
    costs the recount of its block and of a few sums.

    Parameters
    ----------
    model, version, set_hash
        The series.
    slices
        K, the number of functions in the set.
    """

    def __init__(self, model: str, version: int, set_hash: str, slices: int) -> None:
        self.series = (model, version, set_hash)
        self._slices = slices
        self._blocks: dict[int, dict[int, bytes]] = {size: {} for size in BLOCK_SECONDS}
        self._sums: dict[int, dict[int, bytes | None]] = {size: {} for size in _SIZES[1:]}
        self._days: set[int] = set()  # with blocks; an empty day is not searched

    def put(self, block: BlockCounts) -> None:
        """Add a block, replacing the block at its time or the smaller ones that it sums up.

        Raises
        ------
        ValueError
            If the block is of another series or of an unknown size, or is part of a larger block.
        """
        start, seconds = _since_epoch(block.start), block.seconds
        if block.series != self.series or len(block.absent) != self._slices + 2:
            raise ValueError(f"a block of {block.series} does not belong to the series {self.series}")
        if seconds not in BLOCK_SECONDS or start % seconds:
            raise ValueError(
                f"invalid block of {seconds} s from {block.start.isoformat()}: blocks have {BLOCK_SECONDS} s and "
                "start at a multiple of their size"
            )
        self._refuse_part(start, seconds)
        for size in BLOCK_SECONDS[: BLOCK_SECONDS.index(seconds)]:
            for part in range(start, start + seconds, size):
                self._blocks[size].pop(part, None)
        self._blocks[seconds][start] = compress(block)
        self._days.add(start - start % _SIZES[-1])
        for size, sums in self._sums.items():
            for part in range(start - start % size, start + seconds, size):
                sums.pop(part, None)

    def total(self, span: Span) -> BlockCounts:
        """Return the counts of all rows in a span.

        Raises
        ------
        ValueError
            If the span does not start and end at multiples of 10 s, or cuts a larger block.
        """
        start, end = _since_epoch(span.start), _since_epoch(span.end)
        if start % _SIZES[0] or end % _SIZES[0]:
            raise ValueError(f"a span starts and ends at multiples of {_SIZES[0]} s, got {span}")
        nodes = []
        while start < end:
            size = next(s for s in reversed(_SIZES) if start % s == 0 and start + s <= end)
            self._refuse_part(start, size)
            nodes.append(self._node(start, size))
            start += size
        blocks = [node for node in nodes if node is not None]
        total = merge(blocks) if blocks else empty(*self.series, self._slices, span.start, 0)
        return spanning(total, span.start, span.end)

    def whole(self, span: Span) -> Span:
        """Return the span, extended to the blocks that it cuts: they were merged while the clock was ahead."""
        start, end = _since_epoch(span.start), _since_epoch(span.end)
        for size in BLOCK_SECONDS[1:]:
            if start - start % size in self._blocks[size]:
                start -= start % size
            if end - end % size in self._blocks[size]:
                end += -end % size
        return Span(_moment(start), _moment(end))

    def _refuse_part(self, start: int, size: int) -> None:
        for larger in BLOCK_SECONDS:
            if larger > size and start - start % larger in self._blocks[larger]:
                raise ValueError(
                    f"the {size} s from {_moment(start).isoformat()} are part of a block of {larger} s: use all of it"
                )

    def _node(self, start: int, size: int) -> BlockCounts | None:
        """Return the counts of a node; None without blocks."""
        if start - start % _SIZES[-1] not in self._days:
            return None
        data = self._blocks.get(size, {}).get(start)
        if data is None and size > _SIZES[0]:
            if start not in self._sums[size]:
                smaller = _SIZES[_SIZES.index(size) - 1]
                parts = [self._node(part, smaller) for part in range(start, start + size, smaller)]
                blocks = [part for part in parts if part is not None]
                self._sums[size][start] = compress(merge(blocks)) if blocks else None
            data = self._sums[size][start]
        return None if data is None else decompress(data, *self.series, _moment(start), size)


def _since_epoch(at: datetime) -> int:
    seconds, rest = divmod(at - _EPOCH, timedelta(seconds=1))
    if rest:
        raise ValueError(f"blocks and spans start and end at whole seconds, got {at.isoformat()}")
    return seconds


def _moment(seconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)
