"""Watches every slice for drift: what came since the last look goes through the detectors, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain

from sqlalchemy import Connection

from service.decisions import Alarm, Drift, Verdict, Zone
from service.jobs.drift_ends import ended
from service.jobs.drift_feed import EVERY_ROW, accuracies, before, coverages, known_sets, next_blocks
from service.jobs.drift_state import CHECKPOINT, Watched, begun, restored, zoned_by
from service.monitor.drift import Key
from service.monitor.windows import finalised
from service.monitor.zones import accuracy_zone, coverage_zone
from service.store.alarms import alarms, open_alarm, resolve_alarm
from service.store.engine import Store
from service.store.evidence import first_labels
from service.store.writer import Writer, keep
from service.views.current import Current, InForce
from sfs.function import ALL_ROWS

_LABELS = 20_000  # read at once


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
        self._watched: Watched | None = None

    def step(self, now: datetime) -> None:
        """Take in what is final by now, or the first part of it; after an error the next time reads it anew.

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
        over = ended(standing, in_force, watched.zones, self._current.snapshot, now)
        if moved or verdicts or over:
            state = partial(keep, name=CHECKPOINT, at=now, state=watched.to_bytes())
            work = partial(_commit, state=state, verdicts=verdicts, over=over, in_force=in_force, now=now)
            standing = self._writer.submit(work).result()
        self._current.drifts = watched.watch.drifts()
        self._show(in_force.model, self._current.drifts, standing)

    def _follow(self, connection: Connection, in_force: InForce, now: datetime) -> Watched:
        """Return the watch of the version in force, with the zones that are in force."""
        watched, threshold = self._watched, self._rules.threshold
        if watched is None or not watched.is_of(in_force):
            zones = self._zones(in_force)
            kept = restored(connection, in_force, zones, threshold)
            return kept or begun(connection, in_force, zones, threshold, now)
        if watched.zoned != zoned_by(in_force):
            watched.rezone(in_force, self._zones(in_force))
        return watched

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
        self, connection: Connection, watched: Watched, in_force: InForce, now: datetime
    ) -> tuple[list[Verdict], bool]:
        """Feed what is final, or the first part of it; return the verdicts, and whether anything was fed."""
        model, version, until = in_force.model, watched.version, finalised(now)
        if not watched.zones:
            watched.pass_over(connection, model, until)
            return [], False
        blocks = next_blocks(connection, model, version, watched.until, until)
        labels = before(first_labels(connection, model, watched.seq, _LABELS), until)
        of_version = [label for label in labels if label.version == version]
        met = {block.set_hash for block in blocks} | {label.set_hash for label in of_version}
        sets, zones = known_sets(connection, met), watched.zones
        verdicts: list[Verdict] = []
        for counted in chain(coverages(blocks, sets, zones), accuracies(of_version, sets, zones)):
            verdicts += watched.watch.advance(counted)
        if blocks:
            watched.until = max(block.end for block in blocks)
        if labels:
            watched.seq = labels[-1].seq
        return verdicts, bool(blocks or labels)


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
