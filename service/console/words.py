"""Figures in words: shares, intervals, counts, ages and times, as they stand on the pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from service.events import Estimate, InsufficientData

_AGES = ((86_400, "day"), (3600, "h"), (60, "min"), (1, "s"))


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds something to nothing, or nearly all to all.

    Examples
    --------
    >>> percent(0.1234), percent(0.9996), percent(0.00042), percent(1.0), percent(0.0), percent(1e-7)
    ('12.3%', '99.960%', '0.042%', '100%', '0%', '<0.001%')
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    from_edge = 100 * min(share, 1 - share)
    if from_edge < 0.001:
        return "<0.001%" if share < 0.5 else ">99.999%"
    digits = 1 if from_edge >= 0.95 else 2 if from_edge >= 0.095 else 3
    return f"{100 * share:.{digits}f}%"


def limits(estimate: Estimate) -> str:
    """Return the interval of an estimate.

    Examples
    --------
    >>> from sfs.intervals import Rate
    >>> limits(Estimate(Rate(9, 10), 0.555, 0.9975, "clopper-pearson"))
    '55.5–99.75%'
    """
    return f"{percent(estimate.lower).removesuffix('%')}–{percent(estimate.upper)}"


def count(n: int) -> str:
    """Return a number of rows.

    Examples
    --------
    >>> count(1234567)
    '1,234,567'
    """
    return f"{n:,}"


def out_of(estimate: Estimate) -> str:
    """Return what a share was counted from.

    Examples
    --------
    >>> from sfs.intervals import Rate
    >>> out_of(Estimate(Rate(1204, 2000), 0.5, 0.6, "clopper-pearson"))
    '1,204 of 2,000'
    """
    return f"{count(estimate.rate.count)} of {count(estimate.rate.n)}"


def needed(missing: InsufficientData, unit: str) -> str:
    """Return how far a figure is from being given.

    Examples
    --------
    >>> needed(InsufficientData(12, 20, ""), "labels"), needed(InsufficientData(0, 1, ""), "rows")
    ('12 of 20 labels needed', 'no rows yet')
    """
    if missing.needed <= 1:
        return f"no {unit} yet"
    return f"{count(missing.n)} of {count(missing.needed)} {unit} needed"


def duration(span: timedelta) -> str:
    """Return a length of time in its largest unit.

    Examples
    --------
    >>> duration(timedelta(seconds=7)), duration(timedelta(hours=30)), duration(timedelta(days=3, hours=1))
    ('7 s', '30 h', '3 days')
    """
    seconds = max(int(span.total_seconds()), 0)
    size, unit = next((each for each in _AGES if seconds >= 2 * each[0]), _AGES[-1])
    return f"{seconds // size} {unit}{'s' if unit == 'day' else ''}"


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago a moment was.

    Examples
    --------
    >>> noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    >>> ago(noon, noon + timedelta(minutes=5)), ago(noon, noon)
    ('5 min ago', 'just now')
    """
    return f"{duration(now - at)} ago" if now - at >= timedelta(seconds=1) else "just now"


def points(difference: float) -> str:
    """Return a difference of two shares in percentage points, with its sign.

    Examples
    --------
    >>> points(0.0321), points(-0.004), points(-0.0001)
    ('+3.2', '−0.4', '0.0')
    """
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def times(share: float, reference: float) -> str:
    """Return how large a share is beside another.

    Examples
    --------
    >>> times(0.081, 0.02), times(0.0, 0.02), times(0.1, 0.0)
    ('4.0 × the reference', 'none of the reference', 'new: the reference has none')
    """
    if reference == 0:
        return "new: the reference has none" if share else "none, as in the reference"
    if share == 0:
        return "none of the reference"
    ratio = share / reference
    return (
        f"{ratio:.0f} × the reference"
        if ratio >= 10
        else f"{ratio:.{1 if ratio >= 1 else 2}f} × the reference"
    )


def of_many(n: float, one: str, many: str) -> str:
    """Return a number with what is counted.

    Examples
    --------
    >>> of_many(1.0, "alarm", "alarms"), of_many(0.5, "alarm", "alarms")
    ('1 alarm', '0.5 alarms')
    """
    return f"{n:g} {one if n == 1 else many}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names in a sentence; of many, the first ones and how many more.

    Examples
    --------
    >>> listed(["a", "b"]), listed(["a", "b", "c"], 2)
    ('a, b', 'a, b and 1 more')
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def utc(at: datetime) -> str:
    """Return a moment to the second.

    Examples
    --------
    >>> utc(datetime(2026, 5, 1, 12, 34, 56, tzinfo=UTC))
    '2026-05-01 12:34:56 UTC'
    """
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def when(at: datetime, now: datetime) -> str:
    """Return a moment to the second, without the day where it is today.

    Examples
    --------
    >>> noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    >>> when(noon, noon + timedelta(hours=1)), when(noon, noon + timedelta(days=1))
    ('12:00:00 UTC', '2026-05-01 12:00:00 UTC')
    """
    same_day = at.astimezone(UTC).date() == now.astimezone(UTC).date()
    return f"{at.astimezone(UTC):%H:%M:%S} UTC" if same_day else utc(at)


def span(start: datetime, end: datetime) -> str:
    """Return a span of time, its day said once if it has only one.

    Examples
    --------
    >>> span(datetime(2026, 5, 1, 12, tzinfo=UTC), datetime(2026, 5, 1, 13, 5, tzinfo=UTC))
    '2026-05-01 12:00:00 to 13:05:00 UTC'
    """
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    form = "%H:%M:%S" if first.date() == last.date() else "%Y-%m-%d %H:%M:%S"
    return f"{first:%Y-%m-%d %H:%M:%S} to {last:{form}} UTC"
