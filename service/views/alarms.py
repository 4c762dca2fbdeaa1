"""Alarms, newest first, and what each says in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from service.decisions import Alarm, DriftKind, DriftStatus
from service.events import NONE_FIRED
from service.serving.deployment import Deployment
from service.store import alarms as kept
from service.store.engine import Store
from service.store.errors import UnknownAlarm
from sfs.function import ALL_ROWS


@dataclass(frozen=True, slots=True)
class AlarmsView:
    """Some alarms, newest first; those before the last one follow, if ``next`` says so."""

    alarms: tuple[Alarm, ...]
    next: int | None


def alarms_view(
    store: Store, model: str, *, unresolved: bool = False, before: int | None = None, limit: int = 100
) -> AlarmsView:
    """Return a page of alarms.

    Parameters
    ----------
    unresolved
        Leave out those that have ended.
    before
        Only those with a lower id: the ``next`` of the page before.
    limit
        How many at most.
    """
    with store.read() as connection:
        found = kept.alarms(connection, model, unresolved=unresolved, before=before, limit=limit + 1)
    return AlarmsView(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)


def alarm_view(store: Store, model: str, id_: int) -> Alarm:
    """Return one alarm.

    Raises
    ------
    UnknownAlarm
        If the model has none with the id.
    """
    with store.read() as connection:
        found = kept.alarm(connection, id_)
    if found is None or found.model != model:
        raise UnknownAlarm(f"there is no alarm {id_}; the alarms are listed under /v1/alarms")
    return found


def unresolved_by_slice(store: Store, model: str) -> dict[str, tuple[Alarm, ...]]:
    """Return the alarms that have not ended, by slice."""
    by_slice: dict[str, tuple[Alarm, ...]] = {}
    with store.read() as connection:
        standing = kept.alarms(connection, model, unresolved=True)
    for each in standing:
        by_slice[each.drift.slice] = (*by_slice.get(each.drift.slice, ()), each)
    return by_slice


def alarm_sentence(alarm: Alarm) -> str:
    """Return what an alarm says: which slice, what was seen since when, and what was expected."""
    return drift_sentence(alarm.drift, alarm.at)


def drift_sentence(drift: DriftStatus, at: datetime) -> str:
    """Return where a slice stands, as seen at a time.

    Examples
    --------
    >>> from service.decisions import ToleranceBand
    >>> from sfs.intervals import Rate
    >>> zone = ToleranceBand(Rate(400, 20_000), 0.018, 0.022, 0.1)
    >>> since, at = datetime(2026, 5, 1, 12, 40, tzinfo=UTC), datetime(2026, 5, 1, 12, 50, tzinfo=UTC)
    >>> moved = DriftStatus("links", "f", "coverage", zone, 9.0, 8.0, since, "up", Rate(81, 1000), 0.06, 0.1)
    >>> drift_sentence(moved, at)
    'links holds 8.1 % of rows since 12:40 UTC, expected 1.8 to 2.2 %'
    """
    since = "so far" if drift.since is None else f"since {_when(drift.since, at)}"
    return f"{_seen(drift)} {since}, {_expected(drift)}"


def share_text(share: float) -> str:
    """Return a share in percent, with as many digits as keep it from looking like none or all.

    Examples
    --------
    >>> share_text(0.081), share_text(0.00042), share_text(0.9996), share_text(1.0), share_text(0.0)
    ('8.1 %', '0.042 %', '99.960 %', '100 %', '0 %')
    """
    return f"{_digits(share)} %"


def slice_text(name: str) -> str:
    """Return what a slice is called in a sentence."""
    return {ALL_ROWS: "the whole traffic", NONE_FIRED: "no slice"}.get(name, name)


def _seen(drift: DriftStatus) -> str:
    rate, name = drift.observed, slice_text(drift.slice)
    if drift.kind == "coverage":
        return f"{name} holds {'nothing' if rate.value is None else share_text(rate.value)} of rows"
    said = "not known" if rate.value is None else share_text(rate.value)
    return f"accuracy on {name} is {said} of {rate.n:,} labelled rows"


def _expected(drift: DriftStatus) -> str:
    zone = drift.zone
    if zone is None:
        return "with nothing to compare it with"
    if drift.kind == "accuracy":
        return f"expected at least {share_text(zone.lower)}"
    return f"expected {_digits(zone.lower)} to {share_text(zone.upper)}"


def _when(moment: datetime, at: datetime) -> str:
    there, here = moment.astimezone(UTC), at.astimezone(UTC)
    return f"{there:%H:%M} UTC" if there.date() == here.date() else f"{there:%Y-%m-%d %H:%M} UTC"


def _digits(share: float) -> str:
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}"
    from_edge = 100 * min(share, 1 - share)
    if from_edge < 0.001:
        return "<0.001" if share < 0.5 else ">99.999"
    digits = 1 if from_edge >= 0.95 else 2 if from_edge >= 0.095 else 3
    return f"{100 * share:.{digits}f}"


@dataclass(frozen=True, slots=True)
class DriftView:
    """What the detectors say of the version in force; no version where none is."""

    model: str
    version: int | None
    drifts: tuple[DriftStatus, ...]


def drift_view(deployment: Deployment) -> DriftView:
    """Return where every watched slice stands, those nearest to an alarm first."""
    state = deployment.state
    nearest = sorted(
        deployment.drift_statuses, key=lambda each: (-each.evidence_ratio, each.slice, each.kind)
    )
    return DriftView(state.model, state.version, tuple(nearest))


def drifts_by_slice(deployment: Deployment) -> Mapping[str, Mapping[DriftKind, DriftStatus]]:
    """Return what the detectors say of each slice by kind, where the function is still the one in force."""
    prints = deployment.state.functions.fingerprints
    found: dict[str, dict[DriftKind, DriftStatus]] = {}
    for each in deployment.drift_statuses:
        if each.fingerprint == prints.get(each.slice):
            found.setdefault(each.slice, {})[each.kind] = each
    return found
