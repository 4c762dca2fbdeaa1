"""Watches every slice for drift: what came since the last look goes through the detectors, once."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from service.decisions import Alarm, Drift, Verdict, Zone
from service.events import Estimate, FunctionSetVersion, SliceEstimate
from service.jobs.drift_feed import EVERY_ROW, accuracies, before, coverages
from service.monitor.drift import DriftWatch, Key
from service.monitor.windows import BLOCK_SECONDS, finalised, floor_to
from service.monitor.zones import accuracy_zone, coverage_zone, is_back
from service.store import queries
from service.store.alarms import alarms, open_alarm, resolve_alarm
from service.store.engine import Store
from service.store.evidence import first_labels, last_first_label
from service.store.writer import Writer, keep
from service.views.current import Current, InForce
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

CHECKPOINT = "drift"
"""The name under which the state of the detectors is kept."""

_LABELS = 20_000  # read at once
_REACH = timedelta(days=1)  # how far back a watch begins that was never kept
_RECENT = timedelta(hours=1)  # what has to be back in its zone for an alarm to end by itself

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DriftRules:
    """When a slice counts as moved.

    Parameters
    ----------
    tolerance, accuracy_tolerance
        The relative change of coverage, and the fall of accuracy, that are let pass.
    max_slices
        For how many slices the budget of false alarms is made.
    threshold
        The logarithm at which a detector alarms.
    """

    tolerance: float
    accuracy_tolerance: float
    max_slices: int
    threshold: float


@dataclass(slots=True)
class _Watched:
    """The detectors of one version since it was put in force, and how far they have read."""

    version: int
    promoted_at: datetime | None
    until: datetime
    seq: int
    zones: Mapping[Key, Zone]
    watch: DriftWatch
    zoned: tuple[object, object, str]


class DriftJob:
    """Feeds the detectors of the version in force, opens alarms, and ends those that are over.

    The state of the detectors is committed with the alarms that it led to: after a restart nothing is read
    twice, and nothing is left out. Not to be called from two threads at once.

    Parameters
    ----------
    store, writer
        The log.
    current
        Says what is in force, and is told where the slices stand.
    rules
        When a slice counts as moved.
    show
        Is given the model, where every slice stands, and the alarms that are not resolved.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        current: Current,
        rules: DriftRules,
        show: Callable[[str, Sequence[Drift], Sequence[Alarm]], object],
    ) -> None:
        self._store, self._writer, self._current = store, writer, current
        self._rules, self._show = rules, show
        self._watched: _Watched | None = None

    def step(self, now: datetime) -> None:
        """Take in what is final by now. After an error everything is read from the store the next time.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        try:
            self._step(self._current.in_force, now)
        except BaseException:
            self._watched = None
            raise

    def _step(self, in_force: InForce, now: datetime) -> None:
        if in_force.version is None:
            return
        with self._store.read() as connection:
            watched = self._watched = self._follow(connection, in_force, now)
            verdicts, moved = self._advance(connection, watched, in_force, now)
            standing = alarms(connection, in_force.model, unresolved=True)
        over = [(each, why) for each in standing if (why := self._why_over(each, watched, now))]
        if moved or verdicts or over:
            state = partial(keep, name=CHECKPOINT, at=now, state=_to_state(watched))
            work = partial(_commit, state=state, verdicts=verdicts, over=over, in_force=in_force, now=now)
            standing = self._writer.submit(work).result()
        self._current.drifts = watched.watch.drifts()
        self._show(in_force.model, self._current.drifts, standing)

    def _follow(self, connection: Connection, in_force: InForce, now: datetime) -> _Watched:
        """Return the watch of the version in force, with the zones that are in force."""
        watched, zoned = self._watched, _zoned_by(in_force)
        version, promoted_at = in_force.version, in_force.promoted_at
        if watched is None or (watched.version, watched.promoted_at) != (version, promoted_at):
            return self._restored(connection, in_force) or self._begun(connection, in_force, now)
        if watched.zoned != zoned:
            watched.zones, watched.zoned = self._zones(in_force), zoned
            watched.watch.rezone(watched.zones)
        return watched

    def _restored(self, connection: Connection, in_force: InForce) -> _Watched | None:
        kept = queries.checkpoint(connection, CHECKPOINT)
        if kept is None:
            return None
        try:
            found = json.loads(kept.state)
            promoted_at = found["promoted_at"] and datetime.fromisoformat(found["promoted_at"])
            if (found["version"], promoted_at) != (in_force.version, in_force.promoted_at):
                return None
            zones, until = self._zones(in_force), datetime.fromisoformat(found["until"])
            state = base64.b64decode(found["state"])
            watch = DriftWatch.from_bytes(state, zones, self._rules.threshold)
            zoned = _zoned_by(in_force)
            return _Watched(found["version"], promoted_at, until, found["seq"], zones, watch, zoned)
        except (KeyError, TypeError, ValueError) as error:
            _log.warning("the evidence that was kept is not used, and gathered anew: %s", error)
            return None

    def _begun(self, connection: Connection, in_force: InForce, now: datetime) -> _Watched:
        assert in_force.version is not None  # noqa: S101 - `_step` asked
        since, zones = now - _REACH, self._zones(in_force)
        if in_force.promoted_at is not None:
            since = min(max(in_force.promoted_at, since), now)  # a clock that was set back must not stop it
        return _Watched(
            in_force.version,
            in_force.promoted_at,
            floor_to(since, BLOCK_SECONDS[0]),
            last_first_label(connection, in_force.model, before=since),
            zones,
            DriftWatch(zones, self._rules.threshold),
            _zoned_by(in_force),
        )

    def _zones(self, in_force: InForce) -> dict[Key, Zone]:
        rules, slices = self._rules, self._slices(in_force)
        zones = {}
        for name, fingerprint in in_force.fingerprints.items():
            if name in in_force.references:
                rate = in_force.references[name]
                zones[Key(name, fingerprint, "coverage")] = coverage_zone(rate, rules.tolerance, slices)
            if name in in_force.accuracies:
                rate = in_force.accuracies[name]
                key = Key(name, fingerprint, "accuracy")
                zones[key] = accuracy_zone(rate, rules.accuracy_tolerance, slices)
        if ALL_ROWS in in_force.accuracies:
            rate = in_force.accuracies[ALL_ROWS]
            zones[EVERY_ROW] = accuracy_zone(rate, rules.accuracy_tolerance, slices)
        return zones

    def accuracy_zone(self, name: str) -> Zone | None:
        """Return where the accuracy of a slice may lie; None without a reference."""
        in_force = self._current.in_force
        rate = in_force.accuracies.get(name)
        if rate is None:
            return None
        return accuracy_zone(rate, self._rules.accuracy_tolerance, self._slices(in_force))

    def _slices(self, in_force: InForce) -> int:
        return max(self._rules.max_slices, len(in_force.functions_version.names))

    def _advance(
        self, connection: Connection, watched: _Watched, in_force: InForce, now: datetime
    ) -> tuple[list[Verdict], bool]:
        """Feed what is final, and return the verdicts, and whether anything was fed."""
        until = finalised(now)
        between = queries.counts_between(connection, in_force.model, watched.version, watched.until, until)
        blocks = [block for block in between if block.start >= watched.until and block.end <= until]
        read = first_labels(connection, in_force.model, watched.seq, _LABELS)
        labels = before(read, until)
        of_version = [label for label in labels if label.version == watched.version]
        met = {block.set_hash for block in blocks} | {label.set_hash for label in of_version}
        sets = _sets(connection, met)
        verdicts: list[Verdict] = []
        for counted in (*coverages(blocks, sets), *accuracies(of_version, sets)):
            verdicts += watched.watch.advance(counted)
        if blocks:
            watched.until = max(block.end for block in blocks)
        if labels:
            watched.seq = labels[-1].seq
        return verdicts, bool(blocks or labels)

    def _why_over(self, alarm: Alarm, watched: _Watched, now: datetime) -> str:
        """Return why an alarm is over; nothing while it stands."""
        drift, in_force = alarm.drift, self._current.in_force
        if alarm.version != in_force.version:
            return f"version {in_force.version} was put in force"
        if drift.fingerprint and in_force.fingerprints.get(drift.slice) != drift.fingerprint:
            return "the slice's function was changed or removed"
        if alarm.at + _RECENT > now:
            return ""
        zone = watched.zones.get(Key(drift.slice, drift.fingerprint, drift.kind))
        recent = self._recent(drift)
        if zone is not None and recent is not None and is_back(zone, recent):
            return (
                f"{drift.kind} was {recent.count / recent.n:.3g} in the last hour, which is in its zone again"
            )
        return ""

    def _recent(self, drift: Drift) -> Rate | None:
        """Return the rate of the last hour, where there is one."""
        snapshot = self._current.snapshot
        for each in snapshot.windows["1h"].slices if snapshot is not None else ():
            if (each.slice, each.fingerprint) == (drift.slice, drift.fingerprint):
                estimate = _estimate(each, drift)
                return estimate.rate if isinstance(estimate, Estimate) else None
        return None


def _estimate(each: SliceEstimate, drift: Drift) -> object:
    return each.coverage if drift.kind == "coverage" else each.members.accuracy


def _zoned_by(in_force: InForce) -> tuple[object, object, str]:
    """Return what the zones depend on."""
    return in_force.references, in_force.accuracies, in_force.functions_version.hash


def _sets(connection: Connection, hashes: set[str]) -> Mapping[str, FunctionSetVersion]:
    found = {set_hash: queries.function_set(connection, set_hash) for set_hash in hashes}
    return {set_hash: functions for set_hash, functions in found.items() if functions is not None}


def _to_state(watched: _Watched) -> bytes:
    promoted_at = watched.promoted_at and watched.promoted_at.isoformat()
    return json.dumps(
        {
            "version": watched.version,
            "promoted_at": promoted_at,
            "until": watched.until.isoformat(),
            "seq": watched.seq,
            "state": base64.b64encode(watched.watch.to_bytes()).decode(),
        }
    ).encode()


def _commit(
    connection: Connection,
    state: Callable[[Connection], object],
    verdicts: Sequence[Verdict],
    over: Sequence[tuple[Alarm, str]],
    in_force: InForce,
    now: datetime,
) -> list[Alarm]:
    """Keep the state, and end and open alarms, in one transaction; return those that stand then."""
    state(connection)
    for alarm, why in over:
        resolve_alarm(connection, alarm.id, now, why)
    for verdict in verdicts:
        assert in_force.version is not None  # noqa: S101 - a verdict is about a version
        open_alarm(connection, in_force.model, in_force.version, verdict)
    return alarms(connection, in_force.model, unresolved=True)
