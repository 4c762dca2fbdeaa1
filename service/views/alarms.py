"""Alarms, incidents and drift statuses, and the sentences that describe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

from service.decisions import AccuracyFall, Alarm, DriftKind, DriftStatus, Incident
from service.events import NONE_FIRED, Snapshot
from service.formatting import limit_text, percent, recall_text
from service.monitor.accuracy_detector import labels_to_alarm
from service.serving.deployment import Deployment
from service.store import alarms as stored_alarms
from service.store import incidents as stored_incidents
from service.store.engine import Store
from service.store.errors import UnknownAlarm, UnknownIncident
from service.views import Page, first_page
from sfs.function import ALL_ROWS

_ALARM_VALUES = 30  # of one alarm in a page


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


def incidents_view(
    store: Store, model: str, *, unresolved: bool = False, before: int | None = None, limit: int = 100
) -> Page[Incident]:
    """Return a page of incidents, or of unresolved ones; ``before`` is ``next`` of the previous page."""
    with store.read() as connection:
        found = stored_incidents.incidents(connection, model, unresolved=unresolved, before=before, limit=limit + 1)
    return first_page(found, limit, attrgetter("id"), lambda incident: _ALARM_VALUES * len(incident.alarms))


def incident_view(store: Store, model: str, id_: int) -> Incident:
    """Return one incident. Raises UnknownIncident if the model has no incident with the id."""
    with store.read() as connection:
        incident = stored_incidents.incident(connection, id_)
    if incident is None or incident.model != model:
        raise UnknownIncident(f"there is no incident {id_}; they are listed under /v1/incidents")
    return incident


def unresolved_by_slice(store: Store, model: str) -> dict[str, tuple[Alarm, ...]]:
    """Return the unresolved alarms of every slice that has any, newest first; others under an empty name."""
    by_slice: dict[str, tuple[Alarm, ...]] = {}
    with store.read() as connection:
        unresolved = stored_alarms.alarms(connection, model, unresolved=True)
    for alarm in unresolved:
        name = alarm.drift.slice if alarm.drift.is_of_slice else ""
        by_slice[name] = (*by_slice.get(name, ()), alarm)
    return by_slice


def drift_view(deployment: Deployment) -> tuple[DriftStatus, ...]:
    """Return the status of every monitored slice, by descending evidence."""
    return tuple(sorted(deployment.drift_statuses, key=lambda row: (-row.evidence_ratio, row.slice, row.kind)))


def drifts_by_slice(deployment: Deployment) -> Mapping[str, Mapping[DriftKind, DriftStatus]]:
    """Return the drift statuses by slice and kind, without those of earlier versions of a function."""
    state = deployment.state
    fingerprints = state.functions.fingerprints | {NONE_FIRED: state.functions_version.hash}
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
    """Return the labels to an alarm at half of the band's lower limit; None for other rates, and without a band."""
    if not drift.is_accuracy or drift.zone is None:
        return None
    accuracy = drift.zone.lower / 2
    labels = labels_to_alarm(drift.zone, accuracy, round(drift.threshold, 1))
    return None if labels is None else LabelsToAlarm(accuracy, labels)


def unknown_since(drift: DriftStatus, snapshot: Snapshot | None) -> datetime | None:
    """Return the time of a rate's last row or label if it had none for an hour; None if it had, or never any."""
    return None if snapshot is None else snapshot.unknown_since(drift.slice, drift.fingerprint, drift.kind)


def alarm_unknown_since(alarm: Alarm, snapshot: Snapshot | None) -> datetime | None:
    """Return the same for an unresolved alarm; None for a resolved one."""
    return None if alarm.state == "resolved" else unknown_since(alarm.drift, snapshot)


def alarm_sentence(alarm: Alarm, unknown_since: datetime | None = None) -> str:
    """Return an alarm as a sentence: the rate and its slice, since when, the expected range, and since when unknown."""
    unknown = "" if unknown_since is None else f"; unknown since {unknown_since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return drift_sentence(alarm.drift, alarm.at) + unknown


def incident_sentence(incident: Incident) -> str:
    """Return an incident as a sentence: the change of its cause, and the number of slices that moved with it."""
    cause, *others = incident.alarms
    moved = sum(alarm.moved.startswith("with ") for alarm in others)
    rest = len(others) - moved
    and_ = [f"{moved} moved with it"] if moved else []
    and_ += [f"{rest} more by {'itself' if rest == 1 else 'themselves'}"] if rest else []
    return "; ".join([alarm_sentence(cause), *and_])


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
    rate, band, name, fall = drift.observed, drift.zone, slice_text(drift.place), drift.fall
    observed = "unknown" if rate.value is None else percent(rate.value)
    if drift.kind == "coverage":
        subject = f"coverage of {name} is {observed}"
    elif drift.kind == "unknown":
        subject = f"unknown rows of {name} are {observed}"
    elif drift.kind == "predicted":
        subject = f"share of predicted class {drift.slice} is {observed}"
    elif drift.kind == "disagreement":
        subject = f"rows of which the model's indicator contradicts {name} are {observed}"
    elif drift.kind == "confidence":
        subject = f"share of predictions with a confidence {drift.slice} is {observed}"
    elif fall is not None and fall.true_class is not None:
        subject = recall_text(fall.true_class, name, fall.errors, fall.labels)
    else:
        of_rows = f" of {rate.n:,} labelled rows" if rate.n else ""
        votes = "the votes of " * (drift.kind == "votes")
        subject = f"accuracy {'of' if votes else 'on'} {votes}{name} is {observed}{of_rows}"
    if drift.since is None:
        since = "so far"
    else:
        start, end = drift.since.astimezone(UTC), at.astimezone(UTC)
        since = f"since {start:%H:%M} UTC" if start.date() == end.date() else f"since {start:%Y-%m-%d %H:%M} UTC"
    if band is None:
        expected = "no reference to compare with"
    elif fall is not None and fall.true_class is not None:
        expected = f"expected at most {percent(fall.limit)}"
    elif drift.is_accuracy:
        expected = f"expected at least {limit_text(band.lower, band.target)}"
    else:
        expected = f"expected {percent(band.lower)} to {percent(band.upper)}"
    return f"{subject} {since}, {expected}{_most(fall)}"


def _most(fall: AccuracyFall | None) -> str:
    """Return the slice with the most errors of a fall in a group; empty without one."""
    if fall is None or not fall.parts:
        return ""
    part = fall.parts[0]
    return f"; slice {part.slice} has {part.errors:,} of the {fall.errors:,} errors"


def pooled_text(drift: DriftStatus) -> str:
    """Return which groups watch a slice with few labels, in words; empty for others."""
    if not drift.pooled:
        return ""
    named = ["all traffic" if name == ALL_ROWS else f"family {name}" for name in drift.pooled]
    return f"few labels: watched with {', '.join(named)}"


def slice_text(name: str) -> str:
    """Return the name of a slice for a sentence, also that of an extra column."""
    return {ALL_ROWS: "all traffic", NONE_FIRED: "rows in no slice"}.get(name, name)
