"""Ratios, differences and long texts as messages, tables and pages show them."""

from __future__ import annotations

from datetime import datetime, timedelta


def percent(ratio: float | None) -> str:
    """Return a ratio as a percentage; digits are added near 0 and 1 so that it never rounds to none or all.

    Examples
    --------
    >>> percent(0.1234), percent(0.9996), percent(0.00042), percent(1.0), percent(1e-7), percent(None)
    ('12.3%', '99.960%', '0.042%', '100%', '<0.001%', '-')
    """
    if ratio is None:
        return "-"
    if ratio in (0.0, 1.0):
        return f"{ratio:.0%}"
    from_edge = 100 * min(ratio, 1 - ratio)
    if 0 < from_edge < 0.001:
        return "<0.001%" if ratio < 0.5 else ">99.999%"
    digits = 1 if from_edge >= 0.95 else 2 if from_edge >= 0.095 else 3
    return f"{100 * ratio:.{digits}f}%"


def percent_of(count: int, n: int, unit: str) -> str:
    """Return a rate with its counts.

    Examples
    --------
    >>> percent_of(900, 1200, "labels"), percent_of(0, 0, "rows")
    ('75.0% (900 of 1,200 labels)', 'unknown (no rows)')
    """
    return f"{percent(count / n)} ({count:,} of {n:,} {unit})" if n else f"unknown (no {unit})"


def limit_text(limit: float | None, target: float | None) -> str:
    """Return the lower limit of an accuracy, marked where it is the target of the slice.

    Examples
    --------
    >>> limit_text(0.38, None), limit_text(0.75, 0.75)
    ('38.0%', '75.0% (target)')
    """
    return percent(limit) if target is None else f"{percent(limit)} (target)"


def recall_text(true_class: str, place: str, errors: int, labels: int) -> str:
    """Return the recall of a class that fell, in words.

    Examples
    --------
    >>> recall_text("spam", "links", 12, 40)
    'recall of spam on links fell: 12 of 40 labels wrong'
    """
    return f"recall of {true_class} on {place} fell: {errors:,} of {labels:,} labels wrong"


def points(difference: float) -> str:
    """Return a difference of two ratios in percentage points, with its sign.

    Examples
    --------
    >>> points(0.0321), points(-0.004), points(-0.0001)
    ('+3.2', '-0.4', '0.0')
    """
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def step_text(seconds: float, at: datetime) -> str:
    """Return a step of the clock by these seconds, to a time in UTC, in words.

    Examples
    --------
    >>> step_text(90.0, datetime(2026, 5, 1, 12))
    'the clock was set ahead by 0:01:30, to 2026-05-01 12:00:00 UTC'
    """
    direction, by = "ahead" if seconds > 0 else "back", timedelta(seconds=round(abs(seconds)))
    return f"the clock was set {direction} by {by}, to {at:%Y-%m-%d %H:%M:%S} UTC"


def truncated(text: str, max_chars: int) -> str:
    """Return a text, cut to a maximum length.

    Examples
    --------
    >>> truncated("subscribe", 6), truncated("click", 6)
    ('sub...', 'click')
    """
    return text if len(text) <= max_chars else f"{text[: max_chars - 3]}..."
