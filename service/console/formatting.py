"""Text of the pages: numbers, times, records, and the labels of states."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from service.decisions import AlarmState, DriftKind, RunState, SliceOutcome, Trigger
from service.events import Estimate, InsufficientData, SliceEstimate, WindowName
from service.formatting import percent, points
from service.views.slices import SliceState
from sfs.function import ALL_ROWS, NO_SLICE
from sfs.intervals import Rate

DisplayState: TypeAlias = SliceState | Literal["few_labels", "not_judged"]
"""State of a slice on the pages; missing labels, missing rows and missing targets have states of their own."""

WINDOWS: dict[WindowName, str] = {
    "5m": "5 min",
    "1h": "1 hour",
    "1d": "1 day",
    "7d": "7 days",
    "since_promotion": "since promotion",
}
STATES: dict[DisplayState, str] = {
    "accuracy_low": "low accuracy",
    "coverage_off": "coverage shifted",
    "unknown_high": "many unknown",
    "too_few": "too few rows",
    "few_labels": "too few labels",
    "not_judged": "no reference",
    "ok": "ok",
}
"""Labels, in order of urgency."""
STATE_MEANINGS: dict[DisplayState, str] = {
    "accuracy_low": "The accuracy interval lies below the target.",
    "coverage_off": "The coverage interval does not overlap the interval of the reference.",
    "unknown_high": "The function returned no result for more than 10% of the rows.",
    "too_few": "The function returned no results in this window.",
    "few_labels": "More labels are needed to estimate the accuracy.",
    "not_judged": "No reference coverage and no target accuracy to compare with.",
    "ok": "No deviation from the reference or the target.",
}
QUIET_STATES: tuple[DisplayState, ...] = ("ok", "not_judged")
"""States that are not shown beside an alarm."""
DRIFT_KINDS: dict[DriftKind, str] = {
    "coverage": "coverage drift",
    "accuracy": "accuracy drop",
    "family_accuracy": "accuracy drop of a family",
    "votes": "accuracy drop of votes",
    "unknown": "unknown rows",
    "predicted": "predicted class",
    "disagreement": "disagreement of the model",
    "confidence": "low confidence",
}
ALARM_STATES: dict[AlarmState, str] = {
    "open": "open",
    "acknowledged": "acknowledged",
    "resolved": "resolved",
}
RUN_STATES: dict[RunState, str] = {
    "waiting_for_labels": "waiting for labels",
    "training": "training",
    "gated": "evaluated",
    "promoted": "promoted",
    "held": "awaiting approval",
    "rejected": "rejected",
    "skipped": "skipped",
    "failed": "failed",
}
RUN_MEANINGS: dict[RunState, str] = {
    "waiting_for_labels": "Training starts when enough labels have arrived.",
    "training": "A candidate is being trained.",
    "gated": "The promotion gate has compared the candidate with the champion.",
    "promoted": "The candidate became the champion.",
    "held": "The candidate needs manual approval.",
    "rejected": "The champion stays in service.",
    "skipped": "No retraining was necessary.",
    "failed": "The run ended without a candidate.",
}
TRIGGERS: dict[Trigger, str] = {
    "coverage": "coverage alarm",
    "accuracy": "accuracy alarm",
    "age": "model age",
    "request": "manual request",
}
OUTCOMES: dict[SliceOutcome, str] = {
    "better": "better",
    "as_good": "as good",
    "no_harm": "no harm detected",
    "worse": "worse",
    "not_verified": "not verified",
}

_UNITS = ((86_400, "day"), (3600, "h"), (60, "min"), (1, "s"))
_SUMMARY_CHARACTERS, _FULL_CHARACTERS = 140, 4000


def slice_title(name: str) -> str:
    """Return the title of a slice.

    Examples
    --------
    >>> slice_title("links"), slice_title("__all__")
    ('links', 'All traffic')
    """
    return {ALL_ROWS: "All traffic", NO_SLICE: "No slice"}.get(name, name)


def percent_range(lower: float, upper: float) -> str:
    """Return two rates as a range.

    Examples
    --------
    >>> percent_range(0.555, 0.9975)
    '55.5–99.75%'
    """
    return f"{percent(lower).removesuffix('%')}–{percent(upper)}"


def interval(estimate: Estimate) -> str:
    """Return the interval of an estimate."""
    return percent_range(estimate.lower, estimate.upper)


def count(n: int) -> str:
    """Return a number with thousands separators.

    Examples
    --------
    >>> count(1234567)
    '1,234,567'
    """
    return f"{n:,}"


def counts(rate: Rate, unit: str = "") -> str:
    """Return the counts of a rate, and its effective n if that is smaller.

    Examples
    --------
    >>> counts(Rate(1204, 2000)), counts(Rate(1204, 2000, 12), "rows")
    ('1,204 of 2,000', '1,204 of 2,000 rows, effective n 12')
    """
    effective = f", effective n {rate.effective_n:,}" if rate.effective_n < rate.n else ""
    return f"{rate.count:,} of {rate.n:,}{unit and ' '}{unit}{effective}"


def needed(missing: InsufficientData, unit: str, last: datetime | None = None) -> str:
    """Return the number of rows or labels that a figure still needs, and the time of the last one before them.

    Examples
    --------
    >>> needed(InsufficientData(12, 20, ""), "labels"), needed(InsufficientData(0, 1, ""), "rows")
    ('12 of 20 labels needed', 'no rows yet')
    >>> needed(InsufficientData(0, 20, ""), "labels", datetime(2026, 5, 1, 12, 34, tzinfo=UTC))
    'no labels since 2026-05-01 12:34:00 UTC'
    """
    if last is not None and not missing.n:
        return f"no {unit} since {utc(last)}"
    counted = f"no {unit} yet" if missing.needed <= 1 else f"{missing.n:,} of {missing.needed:,} {unit} needed"
    return counted if last is None else f"{counted}, the last {utc(last)}"


def applied_rows(estimate: SliceEstimate) -> int:
    """Return the number of rows that the current version of the function was applied to."""
    coverage = estimate.coverage
    return estimate.unknown + (coverage.rate.n if isinstance(coverage, Estimate) else coverage.n)


def unknown_ratio(estimate: SliceEstimate) -> float:
    """Return the fraction of applied rows without a result; 0 if there are none."""
    return estimate.unknown / max(applied_rows(estimate), 1)


def duration(length: timedelta) -> str:
    """Return a length of time in its largest unit.

    Examples
    --------
    >>> duration(timedelta(seconds=7)), duration(timedelta(hours=30)), duration(timedelta(days=3, hours=1))
    ('7 s', '30 h', '3 days')
    """
    seconds = max(int(length.total_seconds()), 0)
    size, unit = next((unit for unit in _UNITS if seconds >= 2 * unit[0]), _UNITS[-1])
    return f"{seconds // size} {unit}{'s' if unit == 'day' else ''}"


def ago(at: datetime, now: datetime) -> str:
    """Return the time that has passed.

    Examples
    --------
    >>> noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    >>> ago(noon, noon + timedelta(minutes=5)), ago(noon, noon)
    ('5 min ago', 'just now')
    """
    return f"{duration(now - at)} ago" if now - at >= timedelta(seconds=1) else "just now"


def signed_points(difference: float) -> str:
    """Return a difference of two rates in percentage points, with a typographic minus.

    Examples
    --------
    >>> signed_points(0.0321), signed_points(-0.004)
    ('+3.2', '−0.4')
    """
    return points(difference).replace("-", "−")


def times_reference(rate: float, reference: float) -> str:
    """Return a rate as a multiple of its reference.

    Examples
    --------
    >>> times_reference(0.081, 0.02), times_reference(0.0, 0.02), times_reference(0.1, 0.0)
    ('4.0 × the reference', 'dropped to zero', 'zero in the reference')
    """
    if not reference:
        return "zero in the reference"
    if not rate:
        return "dropped to zero"
    ratio = rate / reference
    return f"{ratio:.{0 if ratio >= 10 else 1 if ratio >= 1 else 2}f} × the reference"


def quantity(n: float, one: str, many: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> quantity(1.0, "alarm", "alarms"), quantity(0.5, "alarm", "alarms")
    ('1 alarm', '0.5 alarms')
    """
    return f"{n:g} {one if n == 1 else many}"


def name_list(names: Sequence[str], limit: int = 6) -> str:
    """Return names in a sentence, cut after some of them.

    Examples
    --------
    >>> name_list(["a", "b"]), name_list(["a", "b", "c"], 2)
    ('a, b', 'a, b and 1 more')
    """
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def utc(at: datetime) -> str:
    """Return a time with its day.

    Examples
    --------
    >>> utc(datetime(2026, 5, 1, 12, 34, 56, tzinfo=UTC))
    '2026-05-01 12:34:56 UTC'
    """
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def timestamp(at: datetime, now: datetime) -> str:
    """Return a time, with its day unless that is today.

    Examples
    --------
    >>> noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    >>> timestamp(noon, noon + timedelta(hours=1)), timestamp(noon, noon + timedelta(days=1))
    ('12:00:00 UTC', '2026-05-01 12:00:00 UTC')
    """
    at = at.astimezone(UTC)
    return f"{at:%H:%M:%S} UTC" if at.date() == now.astimezone(UTC).date() else utc(at)


def time_range(start: datetime, end: datetime) -> str:
    """Return a time range; a range within one day names the day once.

    Examples
    --------
    >>> time_range(datetime(2026, 5, 1, 12, tzinfo=UTC), datetime(2026, 5, 1, 13, 5, tzinfo=UTC))
    '2026-05-01 12:00:00 to 13:05:00 UTC'
    """
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    form = "%H:%M:%S" if first.date() == last.date() else "%Y-%m-%d %H:%M:%S"
    return f"{first:%Y-%m-%d %H:%M:%S} to {last:{form}} UTC"


@dataclass(frozen=True, slots=True)
class FeaturesText:
    """Features of a record in one line, and in full if the line is cut; ``stored`` is false without features."""

    summary: str
    full: str
    stored: bool


def features_text(features: Mapping[str, Any] | None) -> FeaturesText:
    """Return the features of a record as a table shows them.

    Examples
    --------
    >>> features_text({"text": "hello", "price": 3}).summary
    'text: hello; price: 3'
    """
    if features is None:
        return FeaturesText("not stored", "", False)
    line = "; ".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in features.items()
    )
    if len(line) <= _SUMMARY_CHARACTERS and "\n" not in line:
        return FeaturesText(line, "", True)
    full = json.dumps(features, indent=1, ensure_ascii=False)
    return FeaturesText(truncated(" ".join(line.split()), _SUMMARY_CHARACTERS), truncated(full, _FULL_CHARACTERS), True)


def truncated(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of a text, and its length if it was cut."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"
