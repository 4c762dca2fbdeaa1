"""Alarms and drift statuses, and the sentence that describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from service.decisions import Alarm, DriftKind, DriftStatus
from service.events import NONE_FIRED
from service.formatting import limit_text, percent
from service.monitor.drift_detector import labels_to_alarm
from service.serving.deployment import Deployment
from service.store import alarms as stored_alarms
from service.store.engine import Store
from service.store.errors import UnknownAlarm
from service.views import Page, first_page
from sfs.function import ALL_ROWS


def alarms_view(
    store: Store, model: str, *, unresolved: bool = False, before: int | None = None, limit: int = 100
) -> Page[Alarm]:
    """Return a page of alarms, or of unresolved ones; ``before`` is ``next`` of the previous page."""
    with store.read() as connection:
        alarms = stored_alarms.alarms(connection, model, unresolved=unresolved, before=before, limit=limit + 1)
    return first_page(alarms, limit, lambda alarm: alarm.id)


def alarm_view(store: Store, model: str, id_: int) -> Alarm:
    """Return one alarm. Raises UnknownAlarm if the model has no alarm with the id."""
    with store.read() as connection:
        alarm = stored_alarms.alarm(connection, id_)
    if alarm is None or alarm.model != model:
        raise UnknownAlarm(f"there is no alarm {id_}; the alarms are listed under /v1/alarms")
    return alarm


def unresolved_by_slice(store: Store, model: str) -> dict[str, tuple[Alarm, ...]]:
    """Return the unresolved alarms of every slice that has any, newest first."""
    by_slice: dict[str, tuple[Alarm, ...]] = {}
    with store.read() as connection:
        unresolved = stored_alarms.alarms(connection, model, unresolved=True)
    for alarm in unresolved:
        by_slice[alarm.drift.slice] = (*by_slice.get(alarm.drift.slice, ()), alarm)
    return by_slice


def drift_view(deployment: Deployment) -> tuple[DriftStatus, ...]:
    """Return the status of every monitored slice, by descending evidence."""
    return tuple(sorted(deployment.drift_statuses, key=lambda row: (-row.evidence_ratio, row.slice, row.kind)))


def drifts_by_slice(deployment: Deployment) -> Mapping[str, Mapping[DriftKind, DriftStatus]]:
    """Return the drift statuses by slice and kind, without those of earlier versions of a function."""
    fingerprints = deployment.state.functions.fingerprints
    by_slice: dict[str, dict[DriftKind, DriftStatus]] = {}
    for status in deployment.drift_statuses:
        if status.fingerprint == fingerprints.get(status.slice):
            by_slice.setdefault(status.slice, {})[status.kind] = status
    return by_slice


@dataclass(frozen=True, slots=True)
class LabelsToAlarm:
    """Number of labels, about, that an alarm takes once the accuracy has fallen to ``accuracy``."""

    accuracy: float
    labels: int


def labels_at_half(drift: DriftStatus) -> LabelsToAlarm | None:
    """Return the labels to an alarm at half of the band's lower limit; None for coverage, and without a band."""
    if drift.kind == "coverage" or drift.zone is None:
        return None
    accuracy = drift.zone.lower / 2
    labels = labels_to_alarm(drift.zone, accuracy, drift.threshold)
    return None if labels is None else LabelsToAlarm(accuracy, labels)


def alarm_sentence(alarm: Alarm) -> str:
    """Return an alarm as a sentence: the rate and its slice, since when, and the expected range."""
    return drift_sentence(alarm.drift, alarm.at)


def drift_sentence(drift: DriftStatus, at: datetime) -> str:
    """Return a drift status as a sentence; ``at`` is its time, and dates are omitted on the same day.

    Examples
    --------
    >>> from service.decisions import ToleranceBand
    >>> from sfs.intervals import Rate
    >>> band = ToleranceBand(Rate(400, 20_000), 0.018, 0.022, 0.1)
    >>> since, at = datetime(2026, 5, 1, 12, 40, tzinfo=UTC), datetime(2026, 5, 1, 12, 50, tzinfo=UTC)
    >>> drift = DriftStatus("links", "f", "coverage", band, 9.0, 8.0, since, "up", Rate(81, 1000), 0.06, 0.1)
    >>> drift_sentence(drift, at)
    'coverage of links is 8.1% since 12:40 UTC, expected 1.8% to 2.2%'
    """
    rate, band, name = drift.observed, drift.zone, slice_text(drift.slice)
    observed = "unknown" if rate.value is None else percent(rate.value)
    if drift.kind == "coverage":
        subject = f"coverage of {name} is {observed}"
    else:
        of_rows = f" of {rate.n:,} labelled rows" if rate.n else ""
        subject = f"accuracy on {name} is {observed}{of_rows}"
    if drift.since is None:
        since = "so far"
    else:
        start, end = drift.since.astimezone(UTC), at.astimezone(UTC)
        since = f"since {start:%H:%M} UTC" if start.date() == end.date() else f"since {start:%Y-%m-%d %H:%M} UTC"
    if band is None:
        expected = "no reference to compare with"
    elif drift.kind == "accuracy":
        expected = f"expected at least {limit_text(band.lower, band.target)}"
    else:
        expected = f"expected {percent(band.lower)} to {percent(band.upper)}"
    return f"{subject} {since}, {expected}"


def slice_text(name: str) -> str:
    """Return the name of a slice for a sentence, also that of an extra column."""
    return {ALL_ROWS: "all traffic", NONE_FIRED: "rows in no slice"}.get(name, name)
