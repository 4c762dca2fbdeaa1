"""The sentences of the retraining policy: rates, times, and what an alarm says."""

from __future__ import annotations

from datetime import datetime, timedelta

from service.decisions import Alarm, Zone
from sfs.intervals import Rate


def told(alarm: Alarm) -> str:
    """Return what an alarm says, as part of a sentence: which slice, which rate, how far, since when."""
    drift = alarm.drift
    went = "moved" if drift.direction is None else {"up": "rose", "down": "fell"}[drift.direction]
    unit = "rows" if drift.kind == "coverage" else "labels"
    observed = "no rows" if drift.observed.value is None else share(drift.observed, unit)
    zone = drift.zone
    expected = "" if zone is None else f", expected {percent(zone.lower)} to {percent(zone.upper)}"
    return (
        f"{drift.kind} of {drift.slice} {went} to {observed} since {clock(drift.since or alarm.at)}{expected}"
    )


def accuracy_told(name: str, observed: Rate, zone: Zone | None) -> str:
    """Return how right the model is on a slice since a change, against what is expected."""
    before = "no accuracy to compare with"
    if zone is not None and zone.reference.n:
        before = f"{share(zone.reference, 'held-out rows')} before"
    return f"accuracy of {name} since the change is {share(observed, 'labels')}, {before}"


def share(rate: Rate, unit: str) -> str:
    """Return a rate with its counts."""
    return f"{percent(rate.value or 0.0)} ({rate.count:,} of {rate.n:,} {unit})"


def percent(value: float) -> str:
    """Return a share as a percentage of three digits."""
    return f"{value * 100:.3g} %"


def clock(at: datetime) -> str:
    """Return a time to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def days(span: timedelta) -> str:
    """Return a span of time in days."""
    return f"{span / timedelta(days=1):.3g} days"
