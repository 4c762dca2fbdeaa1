"""When an alarm ends by itself, and why."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, groupby

import numpy as np
from sqlalchemy import Connection

from service.decisions import Alarm, DriftDetected, DriftKind, DriftStatus, ToleranceBand
from service.events import BlockCounts, Estimate, FunctionSetVersion, SliceEstimate, Snapshot
from service.monitor.block_counts import unpack
from service.monitor.drift_detector import DriftWatch, Observation, RateKey
from service.monitor.tolerance_band import accuracy_band, coverage_band, is_back_inside
from service.monitor.windows import BLOCK_SECONDS, finalised, floor_to
from service.store import queries
from service.store.alarms import alarms, open_alarm, resolve_alarm
from service.store.block_store import first_uncounted
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.first_labels import FirstLabel, first_labels, last_first_label
from service.store.writer import Writer, save_checkpoint
from service.views.current import Current, InForce
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

_RECENT = timedelta(hours=1)  # what has to be back in its zone for an alarm to end by itself

_Slice = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class _Context:
    """What alarms are held against."""

    version: int | None
    fingerprints: Mapping[str, str]
    zones: Mapping[RateKey, ToleranceBand]
    recent: Mapping[_Slice, SliceEstimate]
    at: datetime


def resolved_alarms(
    standing: Sequence[Alarm],
    in_force: InForce,
    zones: Mapping[RateKey, ToleranceBand],
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
    known = _Context(in_force.version, in_force.fingerprints, zones, recent, now)
    return [(each, why) for each in standing if (why := _resolution(each, known))]


def _resolution(alarm: Alarm, now: _Context) -> str:
    """Return why an alarm is over; nothing while it stands."""
    drift = alarm.drift
    if alarm.version != now.version:
        return f"version {now.version} was put in force"
    if drift.fingerprint and now.fingerprints.get(drift.slice) != drift.fingerprint:
        return "the slice's function was changed or removed"
    if alarm.at + _RECENT > now.at:
        return ""
    zone = now.zones.get(RateKey(drift.slice, drift.fingerprint, drift.kind))
    rate = _rate(now.recent.get((drift.slice, drift.fingerprint)), drift)
    if zone is None or rate is None or not is_back_inside(zone, rate):
        return ""
    return f"{drift.kind} was {rate.count / rate.n:.3g} in the last hour, which is in its zone again"


def _rate(seen: SliceEstimate | None, drift: DriftStatus) -> Rate | None:
    if seen is None:
        return None
    estimate = seen.coverage if drift.kind == "coverage" else seen.members.accuracy
    return estimate.rate if isinstance(estimate, Estimate) else None


Sets = Mapping[str, FunctionSetVersion]

EVERY_ROW = RateKey(ALL_ROWS, None, "accuracy")
"""The accuracy of all rows; their coverage is 1."""

_PART = BLOCK_SECONDS[-1] // BLOCK_SECONDS[0]  # moments that are read at once: an hour of the shortest blocks


def next_blocks(
    connection: Connection, model: str, version: int, since: datetime, until: datetime
) -> list[BlockCounts]:
    """Return the blocks of a model version that come next, in order of time; all of them after a few calls.

    Blocks from the first on that does not count all of its rows wait until it does.

    Parameters
    ----------
    since
        The end of what was read before; what begins earlier is passed over.
    until
        The moment before which rows are final; what reaches beyond it waits.
    """
    starts = queries.block_starts(connection, model, version, since, until, _PART + 1)
    if len(starts) > _PART:
        until = floor_to(starts[-1], BLOCK_SECONDS[-1])  # no block reaches over a full hour
    reaching = queries.counts_between(connection, model, version, since, until) if starts else []
    blocks = [block for block in reaching if block.start >= since]
    until = first_uncounted(connection, model, version, blocks, since, until) or until
    # A long block that has to wait takes with it the short ones of other function sets at its time.
    until = min([until, *(block.start for block in blocks if block.end > until)])
    return [block for block in blocks if block.end <= until]


def known_sets(connection: Connection, hashes: Iterable[str]) -> Sets:
    """Return what set hashes stand for.

    Raises
    ------
    StoreError
        If one was never recorded.
    """
    sets = {}
    for set_hash in hashes:
        functions = queries.function_set(connection, set_hash)
        if functions is None:
            raise StoreError(
                f"function set {set_hash!r} is not in the store, but rows are that were counted with it: "
                "restore the store from a backup, or put these functions in force once, which records them"
            )
        sets[set_hash] = functions
    return sets


def coverages(
    blocks: Iterable[BlockCounts], sets: Sets, watched: Container[RateKey]
) -> Iterator[Observation]:
    """Yield the members and known rows of every slice that is watched, block by block, in order of time.

    Blocks of one time under several function sets are one; a slice is the same where its function is.
    """
    columns = {set_hash: _columns(functions, "coverage", watched) for set_hash, functions in sets.items()}
    for (start, end), together in groupby(blocks, key=lambda block: (block.start, block.end)):
        counts: dict[RateKey, Rate] = {}
        for block in together:
            known, member = (block.n - block.unknown).tolist(), block.member.tolist()
            for k, key in columns[block.set_hash]:
                _add(counts, key, member[k], known[k])
        yield Observation(start, end, counts)


def accuracies(
    labels: Iterable[FirstLabel], sets: Sets, watched: Container[RateKey]
) -> Iterator[Observation]:
    """Yield the right and labelled members of every slice that is watched.

    They are counted by the 10 seconds in which their labels arrived.
    """
    columns = {set_hash: _columns(functions, "accuracy", watched) for set_hash, functions in sets.items()}
    for start, together in groupby(labels, key=lambda label: floor_to(label.at, BLOCK_SECONDS[0])):
        counts: dict[RateKey, Rate] = {}
        by_set = sorted(together, key=lambda label: label.set_hash)
        for set_hash, group in groupby(by_set, key=lambda label: label.set_hash):
            _count_labels(counts, list(group), len(sets[set_hash].names), columns[set_hash])
        yield Observation(start, start + timedelta(seconds=BLOCK_SECONDS[0]), counts)


def arrived_before(labels: Sequence[FirstLabel], until: datetime) -> list[FirstLabel]:
    """Return the labels up to the first that arrived at ``until`` or later."""
    found: list[FirstLabel] = []
    for label in labels:
        if label.at >= until:
            break
        found.append(label)
    return found


def _columns(
    functions: FunctionSetVersion, kind: DriftKind, watched: Container[RateKey]
) -> list[tuple[int, RateKey]]:
    """Return the columns of a function set whose slices are watched."""
    pairs = zip(functions.names, functions.fingerprints, strict=True)
    keys = (RateKey(name, fingerprint, kind) for name, fingerprint in pairs)
    return [(k, key) for k, key in enumerate(keys) if key in watched]


def _count_labels(
    counts: dict[RateKey, Rate],
    labels: Sequence[FirstLabel],
    slices: int,
    columns: Sequence[tuple[int, RateKey]],
) -> None:
    member = unpack([label.member for label in labels], slices)
    right = np.array([label.label == label.predicted for label in labels], np.bool_)
    _add(counts, EVERY_ROW, int(right.sum()), len(labels))
    of_slices, right_of_slices = member.sum(axis=0).tolist(), (member & right[:, None]).sum(axis=0).tolist()
    for k, key in columns:
        _add(counts, key, right_of_slices[k], of_slices[k])


def _add(counts: dict[RateKey, Rate], key: RateKey, count: int, n: int) -> None:
    there = counts.get(key)
    counts[key] = Rate(count, n) if there is None else Rate(there.count + count, there.n + n)


CHECKPOINT = "drift"
"""The name under which the state of the detectors is kept."""

_REACH = timedelta(days=1)  # how far back a watch begins that was never kept

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class DetectorCheckpoint:
    """The detectors of one version since it was put in force, and how far they have read.

    Parameters
    ----------
    version, promoted_at
        Which version, and since when.
    until, seq
        The end of the last block, and the last first label, that were read.
    zones
        What is watched, and where each rate may lie.
    watch
        The detectors.
    zoned
        What the zones were made from.
    """

    version: int
    promoted_at: datetime | None
    until: datetime
    seq: int
    zones: Mapping[RateKey, ToleranceBand]
    watch: DriftWatch
    zoned: tuple[object, object, str]

    def is_of(self, in_force: InForce) -> bool:
        """Tell whether this is the version in force, and was not put in force again since."""
        return (self.version, self.promoted_at) == (in_force.version, in_force.promoted_at)

    def rezone(self, in_force: InForce, zones: Mapping[RateKey, ToleranceBand]) -> None:
        """Go on with the zones that are in force."""
        self.zones, self.zoned = zones, band_inputs(in_force)
        self.watch.rezone(zones)

    def pass_over(self, connection: Connection, model: str, until: datetime) -> None:
        """Leave unread what came before a moment."""
        self.until = max(self.until, until)
        self.seq = max(self.seq, last_first_label(connection, model, before=until))

    def to_bytes(self) -> bytes:
        """Return the state, as ``restore`` reads it."""
        return json.dumps(
            {
                "version": self.version,
                "promoted_at": self.promoted_at and self.promoted_at.isoformat(),
                "until": self.until.isoformat(),
                "seq": self.seq,
                "state": base64.b64encode(self.watch.to_bytes()).decode(),
            }
        ).encode()


def restore(
    connection: Connection, in_force: InForce, zones: Mapping[RateKey, ToleranceBand], threshold: float
) -> DetectorCheckpoint | None:
    """Return the watch of the version in force as it was kept; None where none was."""
    kept = queries.checkpoint(connection, CHECKPOINT)
    if kept is None:
        return None
    try:
        found = json.loads(kept.state)
        promoted_at = found["promoted_at"] and datetime.fromisoformat(found["promoted_at"])
        if (found["version"], promoted_at) != (in_force.version, in_force.promoted_at):
            return None
        until, state = datetime.fromisoformat(found["until"]), base64.b64decode(found["state"])
        watch = DriftWatch.from_bytes(state, zones, threshold)
        return DetectorCheckpoint(
            found["version"], promoted_at, until, found["seq"], zones, watch, band_inputs(in_force)
        )
    except (KeyError, TypeError, ValueError) as error:
        _log.warning("the evidence that was kept is not used, and gathered anew: %s", error)
        return None


def start(
    connection: Connection,
    in_force: InForce,
    zones: Mapping[RateKey, ToleranceBand],
    threshold: float,
    now: datetime,
) -> DetectorCheckpoint:
    """Return a watch that begins where the version was put in force, but not long ago."""
    assert in_force.version is not None  # noqa: S101 - without one there is nothing to watch
    since = now - _REACH
    if in_force.promoted_at is not None:
        since = min(max(in_force.promoted_at, since), now)  # a clock that was set back must not stop it
    return DetectorCheckpoint(
        in_force.version,
        in_force.promoted_at,
        floor_to(since, BLOCK_SECONDS[0]),
        last_first_label(connection, in_force.model, before=since),
        zones,
        DriftWatch(zones, threshold),
        band_inputs(in_force),
    )


def band_inputs(in_force: InForce) -> tuple[object, object, str]:
    """Return what the zones depend on."""
    return in_force.references, in_force.accuracies, in_force.functions_version.hash


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


class DriftDetection:
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
        show: Callable[[str, Sequence[DriftStatus], Sequence[Alarm]], object],
    ) -> None:
        self._store, self._writer, self._current = store, writer, current
        self._rules, self._show = rules, show
        self._watched: DetectorCheckpoint | None = None

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
        over = resolved_alarms(standing, in_force, watched.zones, self._current.snapshot, now)
        if moved or verdicts or over:
            state = partial(save_checkpoint, name=CHECKPOINT, at=now, state=watched.to_bytes())
            work = partial(_commit, state=state, verdicts=verdicts, over=over, in_force=in_force, now=now)
            standing = self._writer.submit(work).result()
        self._current.drifts = watched.watch.drifts()
        self._show(in_force.model, self._current.drifts, standing)

    def _follow(self, connection: Connection, in_force: InForce, now: datetime) -> DetectorCheckpoint:
        """Return the watch of the version in force, with the zones that are in force."""
        watched, threshold = self._watched, self._rules.threshold
        if watched is None or not watched.is_of(in_force):
            zones = self._zones(in_force)
            kept = restore(connection, in_force, zones, threshold)
            return kept or start(connection, in_force, zones, threshold, now)
        if watched.zoned != band_inputs(in_force):
            watched.rezone(in_force, self._zones(in_force))
        return watched

    def _zones(self, in_force: InForce) -> dict[RateKey, ToleranceBand]:
        rules, slices = self._rules, self._slices(in_force)
        zones = {}
        for name, fingerprint in in_force.fingerprints.items():
            if name in in_force.references:
                rate = in_force.references[name]
                zones[RateKey(name, fingerprint, "coverage")] = coverage_band(rate, rules.tolerance, slices)
            if name in in_force.accuracies:
                rate = in_force.accuracies[name]
                key = RateKey(name, fingerprint, "accuracy")
                zones[key] = accuracy_band(rate, rules.accuracy_tolerance, slices)
        if ALL_ROWS in in_force.accuracies:
            rate = in_force.accuracies[ALL_ROWS]
            zones[EVERY_ROW] = accuracy_band(rate, rules.accuracy_tolerance, slices)
        return zones

    def accuracy_band(self, name: str) -> ToleranceBand | None:
        """Return where the accuracy of a slice may lie; None without a reference."""
        in_force = self._current.in_force
        rate = in_force.accuracies.get(name)
        if rate is None:
            return None
        return accuracy_band(rate, self._rules.accuracy_tolerance, self._slices(in_force))

    def _slices(self, in_force: InForce) -> int:
        return max(self._rules.max_slices, len(in_force.functions_version.names))

    def _advance(
        self, connection: Connection, watched: DetectorCheckpoint, in_force: InForce, now: datetime
    ) -> tuple[list[DriftDetected], bool]:
        """Feed what is final, or the first part of it; return the verdicts, and whether anything was fed."""
        model, version, until = in_force.model, watched.version, finalised(now)
        if not watched.zones:
            watched.pass_over(connection, model, until)
            return [], False
        blocks = next_blocks(connection, model, version, watched.until, until)
        labels = arrived_before(first_labels(connection, model, watched.seq, _LABELS), until)
        of_version = [label for label in labels if label.version == version]
        met = {block.set_hash for block in blocks} | {label.set_hash for label in of_version}
        sets, zones = known_sets(connection, met), watched.zones
        verdicts: list[DriftDetected] = []
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
    verdicts: Sequence[DriftDetected],
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
