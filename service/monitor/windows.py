"""Time windows, and the block sizes that make them up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.events import WindowName

BLOCK_SECONDS = (10, 300, 3600)
"""Block sizes: new blocks, after a day, after a week."""

WATERMARK_SECONDS = 30
"""Time after its end during which a block may still receive predictions."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIZE_FROM_AGE = ((7 * 86_400, 3600), (86_400, 300))
"""Age in seconds and the block size from that age on, oldest first."""
_SLIDING: tuple[tuple[WindowName, int], ...] = (("5m", 300), ("1h", 3600), ("1d", 86_400), ("7d", 7 * 86_400))


@dataclass(frozen=True, slots=True)
class Span:
    """Time span [start, end)."""

    start: datetime
    end: datetime


def floor_to(at: datetime, seconds: int) -> datetime:
    """Return the last multiple of ``seconds`` since 1970 that is not after ``at``.

    Examples
    --------
    >>> floor_to(datetime(2026, 5, 1, 12, 0, 19, tzinfo=UTC), 10).second
    10
    """
    step = timedelta(seconds=seconds)
    return _EPOCH + (at - _EPOCH) // step * step


def watermark(at: datetime) -> datetime:
    """Return the moment before which all predictions are logged."""
    return floor_to(at - timedelta(seconds=WATERMARK_SECONDS), BLOCK_SECONDS[0])


def kept_seconds(age_seconds: float) -> int:
    """Return the size of blocks whose end is this old.

    Examples
    --------
    >>> kept_seconds(60), kept_seconds(86_400), kept_seconds(30 * 86_400)
    (10, 300, 3600)
    """
    return next((size for age, size in _SIZE_FROM_AGE if age_seconds >= age), BLOCK_SECONDS[0])


def rolled_before(at: datetime, seconds: int) -> datetime:
    """Return the moment before which blocks have at least this size.

    Examples
    --------
    >>> rolled_before(datetime(2026, 5, 9, tzinfo=UTC), 300).day
    8
    """
    return at - timedelta(seconds=next(age for age, size in _SIZE_FROM_AGE if size == seconds))


def windows(at: datetime, promoted_at: datetime | None) -> dict[WindowName, Span]:
    """Return the windows of a snapshot at ``at``.

    All windows end with the current block, so that no answered row is missing. A sliding window starts at the
    last block boundary that leaves it its full length: a multiple of 10 s, and of 5 min for 7 days, whose
    first blocks have that size. ``since_promotion`` starts with the hour of the promotion, the final size of
    its first block, or with the current hour if the clock was set back since; without a promotion there is no such
    window.
    """
    end = floor_to(at, BLOCK_SECONDS[0]) + timedelta(seconds=BLOCK_SECONDS[0])
    spans = {
        name: Span(floor_to(at - timedelta(seconds=length), kept_seconds(length - 1)), end) for name, length in _SLIDING
    }
    if promoted_at is not None:
        spans["since_promotion"] = Span(floor_to(min(promoted_at, at), BLOCK_SECONDS[-1]), end)
    return spans
