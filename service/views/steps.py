"""How long the steps of a series are."""

from __future__ import annotations

from datetime import datetime

from service.monitor.windows import kept_seconds

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
STEPS = (
    *(10, 30, _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 7 * _DAY),
)
"""Seconds that people read easily; every one from a size of blocks upwards is a multiple of that size."""


def step_seconds(since: datetime, until: datetime, points: int, now: datetime) -> int:
    """Return the seconds of a step that cuts a time into about so many, and no block that is kept there.

    Examples
    --------
    >>> from datetime import UTC
    >>> day, next_day = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 2, tzinfo=UTC)
    >>> step_seconds(day, next_day, 60, next_day), step_seconds(day, next_day, 60, datetime(2026, 6, 1, tzinfo=UTC))
    (1800, 3600)
    """
    least = max((until - since).total_seconds() / points, kept_seconds((now - since).total_seconds()))
    week = STEPS[-1]
    return next((step for step in STEPS if step >= least), -int(-least // week) * week)
