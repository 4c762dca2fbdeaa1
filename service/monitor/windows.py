"""Windows of time, and which sizes of blocks they are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.events import BlockCounts, WindowName
from service.monitor.block_counts import merge, spanning

BLOCK_SECONDS = (10, 300, 3600)
"""The sizes of blocks: as made, after a day, after a week."""

WATERMARK_SECONDS = 30
"""How long after its end a block may still get predictions."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEPT = ((7 * 86_400, 3600), (86_400, 300))
"""Age in seconds from which a block is kept in a size, oldest first."""
_SLIDING: tuple[tuple[WindowName, int], ...] = (("5m", 300), ("1h", 3600), ("1d", 86_400), ("7d", 7 * 86_400))


@dataclass(frozen=True, slots=True)
class Span:
    """The time from ``start`` up to, and without, ``end``."""

    start: datetime
    end: datetime


def floor_to(at: datetime, seconds: int) -> datetime:
    """Return the last multiple of so many seconds, counted from 1970 in UTC, that is not after ``at``.

    Examples
    --------
    >>> floor_to(datetime(2026, 5, 1, 12, 0, 19, tzinfo=UTC), 10).second
    10
    """
    step = timedelta(seconds=seconds)
    return _EPOCH + (at - _EPOCH) // step * step


def finalised(at: datetime) -> datetime:
    """Return the moment before which no prediction is missing any more."""
    return floor_to(at - timedelta(seconds=WATERMARK_SECONDS), BLOCK_SECONDS[0])


def kept_seconds(age_seconds: float) -> int:
    """Return the size in which a block is kept whose end is so old.

    Examples
    --------
    >>> kept_seconds(60), kept_seconds(86_400), kept_seconds(30 * 86_400)
    (10, 300, 3600)
    """
    return next((size for age, size in _KEPT if age_seconds >= age), BLOCK_SECONDS[0])


def rolled_before(at: datetime, seconds: int) -> datetime:
    """Return the moment before which blocks are kept in a size beyond the first, or in a larger one.

    Examples
    --------
    >>> rolled_before(datetime(2026, 5, 9, tzinfo=UTC), 300).day
    8
    """
    return at - timedelta(seconds=next(age for age, size in _KEPT if size == seconds))


def windows(at: datetime, promoted_at: datetime | None) -> dict[WindowName, Span]:
    """Return the windows that a tick at ``at`` shows.

    All end with the block that is being filled, so that nothing that was answered is left out. A sliding
    window begins at the last block boundary that leaves it its full length: 10 s, and 5 min for the 7 days,
    whose first blocks are of that size. ``since_promotion`` begins with the hour of the promotion, for in the
    end that is the size of its first block; without a promotion there is no such window.
    """
    end = floor_to(at, BLOCK_SECONDS[0]) + timedelta(seconds=BLOCK_SECONDS[0])
    spans = {
        name: Span(floor_to(at - timedelta(seconds=length), kept_seconds(length - 1)), end)
        for name, length in _SLIDING
    }
    if promoted_at is not None:
        spans["since_promotion"] = Span(floor_to(promoted_at, BLOCK_SECONDS[-1]), end)
    return spans


def roll_up(blocks: Iterable[BlockCounts], seconds: int) -> list[BlockCounts]:
    """Return blocks of the given size that count the same rows, by series and time.

    Raises
    ------
    ValueError
        If a block reaches over a boundary of the new size.
    """
    groups: dict[tuple[tuple[str, int, str], datetime], list[BlockCounts]] = {}
    for block in blocks:
        start = floor_to(block.start, seconds)
        if block.end > start + timedelta(seconds=seconds):
            raise ValueError(
                f"a block of {block.seconds} s at {block.start.isoformat()} does not fit into one of {seconds} s"
            )
        groups.setdefault((block.series, start), []).append(block)
    return [
        spanning(merge(group), start, start + timedelta(seconds=seconds))
        for (_, start), group in sorted(groups.items(), key=lambda item: item[0])
    ]


def age_out(blocks: Iterable[BlockCounts], at: datetime) -> list[BlockCounts]:
    """Return the blocks in the sizes in which they are kept at ``at``, by series and time.

    A larger block replaces smaller ones once all of its time is old enough, so every window of ``windows``
    at this time or later begins at a boundary of what is kept.
    """
    kept: list[BlockCounts] = []
    by_size: dict[int, list[BlockCounts]] = {}
    for block in blocks:
        size = next((s for s in reversed(BLOCK_SECONDS) if _is_due(block, s, at)), block.seconds)
        by_size.setdefault(size, []).append(block)
    for size, group in by_size.items():
        kept += roll_up(group, size)
    return sorted(kept, key=lambda block: (block.series, block.start))


def _is_due(block: BlockCounts, seconds: int, at: datetime) -> bool:
    """Tell whether the block of that size around this one is old enough to take its place."""
    end = floor_to(block.start, seconds) + timedelta(seconds=seconds)
    return block.seconds <= seconds <= kept_seconds((at - end).total_seconds())
