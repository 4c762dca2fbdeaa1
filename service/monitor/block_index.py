"""The blocks of one series in memory, packed, with the sums that make any window cheap."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from service.events import BlockCounts
from service.monitor.block_counts import compress, decompress, empty, merge, spanning
from service.monitor.windows import BLOCK_SECONDS, Span

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIZES = (*BLOCK_SECONDS, 86_400)
"""Sizes of the nodes, each a multiple of the one before; a day is only ever a sum."""


class BlockIndex:
    """The blocks of one model version under one function set, by time.

    A window is put together from the largest aligned pieces that fit: days, hours, five minutes, and ten
    seconds at its ends. Sums are made when first asked for and forgotten when a block under them changes,
    so a late label costs the recount of its block and of four sums.

    Parameters
    ----------
    model, version, set_hash
        The series.
    slices
        K, the number of slices in the function set.
    """

    def __init__(self, model: str, version: int, set_hash: str, slices: int) -> None:
        self.series = (model, version, set_hash)
        self._slices = slices
        self._blocks: dict[int, dict[int, bytes]] = {size: {} for size in BLOCK_SECONDS}
        self._sums: dict[int, dict[int, bytes | None]] = {size: {} for size in _SIZES[1:]}

    def put(self, block: BlockCounts) -> None:
        """Take in a block, in place of the one at its time or of the smaller ones that it sums up.

        Raises
        ------
        ValueError
            If the block is of another series, is of no size in which blocks are kept, or is a part of a
            larger block that took its place: that one is to be recounted as a whole.
        """
        start = _since_epoch(block.start)
        if block.series != self.series or len(block.absent) != self._slices + 2:
            raise ValueError(f"a block of {block.series} does not belong to the series {self.series}")
        if block.seconds not in BLOCK_SECONDS or start % block.seconds:
            raise ValueError(f"no block has {block.seconds} s from {block.start.isoformat()}: use roll_up")
        self._refuse_part(start, block.seconds)
        for size in BLOCK_SECONDS[: BLOCK_SECONDS.index(block.seconds)]:
            for part in range(start, start + block.seconds, size):
                self._blocks[size].pop(part, None)
        self._blocks[block.seconds][start] = compress(block)
        for size, sums in self._sums.items():
            for part in range(start - start % size, start + block.seconds, size):
                sums.pop(part, None)

    def total(self, span: Span) -> BlockCounts:
        """Return the counts of all rows in a span; no rows where there is no block.

        Raises
        ------
        ValueError
            If the span does not begin and end at boundaries of 10 s, or of the larger blocks there.
        """
        nodes = [self._unpacked(*node) for node in self._cover(span)]
        found = [node for node in nodes if node is not None]
        total = merge(found) if found else empty(*self.series, self._slices, span.start, 0)
        return spanning(total, span.start, span.end)

    def _cover(self, span: Span) -> Iterator[tuple[int, int]]:
        """Yield start and size of the fewest nodes that make up the span."""
        start, end = _since_epoch(span.start), _since_epoch(span.end)
        if start % _SIZES[0] or end % _SIZES[0]:
            raise ValueError(f"a span begins and ends at multiples of {_SIZES[0]} s, got {span}")
        while start < end:
            size = next(s for s in reversed(_SIZES) if start % s == 0 and start + s <= end)
            self._refuse_part(start, size)
            yield start, size
            start += size

    def _refuse_part(self, start: int, size: int) -> None:
        for larger in (each for each in BLOCK_SECONDS if each > size):
            if start - start % larger in self._blocks[larger]:
                raise ValueError(
                    f"the {size} s from {_moment(start).isoformat()} are part of a block of {larger} s: "
                    f"take all of it"
                )

    def _unpacked(self, start: int, size: int) -> BlockCounts | None:
        """Return the counts of a node, or None if there are none."""
        data = self._packed(start, size)
        return None if data is None else decompress(data, *self.series, _moment(start), size)

    def _packed(self, start: int, size: int) -> bytes | None:
        own = self._blocks.get(size, {}).get(start)
        if own is not None or size == _SIZES[0]:
            return own
        if start not in self._sums[size]:
            self._sums[size][start] = self._summed(start, size)
        return self._sums[size][start]

    def _summed(self, start: int, size: int) -> bytes | None:
        smaller = _SIZES[_SIZES.index(size) - 1]
        parts = [self._unpacked(part, smaller) for part in range(start, start + size, smaller)]
        found = [part for part in parts if part is not None]
        return compress(merge(found)) if found else None


def _since_epoch(at: datetime) -> int:
    """Return whole seconds since 1970, or raise where there is a fraction."""
    seconds, rest = divmod(at - _EPOCH, timedelta(seconds=1))
    if rest:
        raise ValueError(f"blocks and spans begin and end at whole seconds, got {at.isoformat()}")
    return seconds


def _moment(seconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)
