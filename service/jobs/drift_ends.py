"""When an alarm ends by itself, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.decisions import Alarm, Drift, Zone
from service.events import Estimate, SliceEstimate, Snapshot
from service.monitor.drift import Key
from service.monitor.zones import is_back
from service.views.current import InForce
from sfs.intervals import Rate

_RECENT = timedelta(hours=1)  # what has to be back in its zone for an alarm to end by itself

_Slice = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class _Now:
    """What alarms are held against."""

    version: int | None
    fingerprints: Mapping[str, str]
    zones: Mapping[Key, Zone]
    recent: Mapping[_Slice, SliceEstimate]
    at: datetime


def ended(
    standing: Sequence[Alarm],
    in_force: InForce,
    zones: Mapping[Key, Zone],
    snapshot: Snapshot | None,
    now: datetime,
) -> list[tuple[Alarm, str]]:
    """Return the alarms that are over, each with the reason.

    Parameters
    ----------
    standing
        Alarms that are not resolved.
    in_force, zones
        What answers, and where its rates may lie.
    snapshot
        What was seen last; that of another version says nothing.
    """
    recent: dict[_Slice, SliceEstimate] = {}
    if snapshot is not None and (snapshot.model, snapshot.version) == (in_force.model, in_force.version):
        recent = {(each.slice, each.fingerprint): each for each in snapshot.windows["1h"].slices}
    known = _Now(in_force.version, in_force.fingerprints, zones, recent, now)
    return [(each, why) for each in standing if (why := _why(each, known))]


def _why(alarm: Alarm, now: _Now) -> str:
    """Return why an alarm is over; nothing while it stands."""
    drift = alarm.drift
    if alarm.version != now.version:
        return f"version {now.version} was put in force"
    if drift.fingerprint and now.fingerprints.get(drift.slice) != drift.fingerprint:
        return "the slice's function was changed or removed"
    if alarm.at + _RECENT > now.at:
        return ""
    zone = now.zones.get(Key(drift.slice, drift.fingerprint, drift.kind))
    rate = _rate(now.recent.get((drift.slice, drift.fingerprint)), drift)
    if zone is None or rate is None or not is_back(zone, rate):
        return ""
    return f"{drift.kind} was {rate.count / rate.n:.3g} in the last hour, which is in its zone again"


def _rate(seen: SliceEstimate | None, drift: Drift) -> Rate | None:
    if seen is None:
        return None
    estimate = seen.coverage if drift.kind == "coverage" else seen.members.accuracy
    return estimate.rate if isinstance(estimate, Estimate) else None
