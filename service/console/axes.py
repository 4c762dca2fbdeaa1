"""Where an axis begins and ends, and where its ticks stand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_DAY = timedelta(days=1)
_TIME_STEPS = tuple(
    timedelta(seconds=each)
    for each in (10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800)
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class ShareAxis:
    """An axis of shares from ``low`` to ``high``, with ticks at both ends."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, share: float) -> float:
        """Return how far up a share stands, from 0 to 1; what is beyond an end stands at it."""
        return min(max((share - self.low) / (self.high - self.low), 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """An axis of time from ``start`` to ``end``, with ticks on round times in UTC."""

    start: datetime
    end: datetime
    ticks: tuple[datetime, ...]
    step: timedelta

    def place(self, at: datetime) -> float:
        """Return how far along a moment stands; 0 is the start, 1 the end."""
        return (at - self.start) / (self.end - self.start)

    def said(self, tick: datetime) -> str:
        """Return the words under a tick: the time, or the day where a day begins."""
        utc = tick.astimezone(UTC)
        if self.step >= _DAY or (utc.hour, utc.minute, utc.second) == (0, 0, 0):
            return f"{utc.day} {utc:%b}"
        return f"{utc:%H:%M:%S}" if self.step < timedelta(minutes=1) else f"{utc:%H:%M}"


def share_axis(shares: Iterable[float]) -> ShareAxis:
    """Return the axis that holds all the shares with about four steps between round ends.

    Examples
    --------
    >>> share_axis([0.12, 0.19]).ticks
    (0.12, 0.14, 0.16, 0.18, 0.2)
    """
    known = list(shares) or [0.0, 1.0]
    low, high = min(known), max(known)
    step = next((each for each in _STEPS if (high - low) / each <= _MOST_TICKS - 1), _STEPS[-1])
    first = max(math.floor(low / step + 1e-9), 0)
    last = min(max(math.ceil(high / step - 1e-9), first + 1), round(1 / step))
    first = min(first, last - 1)
    ticks = tuple(round(n * step, 6) for n in range(first, last + 1))
    return ShareAxis(ticks[0], ticks[-1], ticks)


def time_axis(start: datetime, end: datetime) -> TimeAxis:
    """Return the axis of [start, end] with at most five ticks on round times.

    Examples
    --------
    >>> axis = time_axis(datetime(2026, 5, 1, 12, 7, tzinfo=UTC), datetime(2026, 5, 1, 13, 7, tzinfo=UTC))
    >>> [axis.said(tick) for tick in axis.ticks]
    ['12:15', '12:30', '12:45', '13:00']
    """
    end = max(end, start + timedelta(seconds=10))
    length = end - start
    longest = -(-length // (_MOST_TICKS * _DAY)) * _DAY
    step = next((each for each in _TIME_STEPS if length / each <= _MOST_TICKS), longest)
    first = -((_EPOCH - start) // step)
    last = (end - _EPOCH) // step
    return TimeAxis(start, end, tuple(_EPOCH + n * step for n in range(first, last + 1)), step)
