"""Job that detects drift: feeds the detectors, opens and resolves alarms."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain, groupby, takewhile

import numpy as np
from pydantic import Base64Bytes, TypeAdapter
from sqlalchemy import Connection

from service.decisions import Alarm, DriftDetected, DriftKind, DriftStatus, ToleranceBand
from service.events import BlockCounts, Estimate, FunctionSetVersion, SliceEstimate, Snapshot, WindowName
from service.formatting import percent
from service.metrics.gauges import MetricsPage
from service.monitor.block_counts import unpack_bitmaps
from service.monitor.drift_detector import DriftDetector, Observation, RateKey, log_threshold
from service.monitor.tolerance_band import accuracy_band, coverage_band, is_back_inside, is_outside
from service.monitor.windows import BLOCK_SECONDS, floor_to, watermark
from service.serving.deployment import Deployment, DeploymentState
from service.settings.schema import DriftSettings
from service.store import queries
from service.store.alarms import alarms, changed_further, open_alarm, resolve_alarm
from service.store.block_store import first_uncounted
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.labels import FirstLabel, first_labels, last_first_label
from service.store.writer import Writer, save_checkpoint
from sfs.function import ALL_ROWS
from sfs.intervals import Rate, anytime_arrays
from sfs.validation import NO_METADATA

CHECKPOINT = "drift"
"""Name of the checkpoint with the state of the detectors."""

EVERY_ROW = RateKey(ALL_ROWS, None, "accuracy")
"""Accuracy of all rows; their coverage is 1."""

_LABELS = 20_000  # read per run
_BLOCK_STARTS = BLOCK_SECONDS[-1] // BLOCK_SECONDS[0]  # read at once: an hour of the shortest blocks
_LOOK_BACK = timedelta(days=1)  # maximum look-back for a version without stored detectors
_RECENT: dict[WindowName, str] = {"1h": "hour", "1d": "day", "7d": "week"}
"""Windows in which a rate that is back in its band resolves its alarm, if they began after it; shortest first."""

_NAMES_LOGGED = 5

_log = logging.getLogger(__name__)


class DriftDetection:
    """Feeds the detectors of the active version, opens and resolves alarms.

    The state of the detectors is committed together with the alarms that follow from it: after a restart
    no row is fed twice, and none is left out. For one thread at a time.
    """

    def __init__(
        self,
        deployment: Deployment,
        store: Store,
        writer: Writer,
        page: MetricsPage,
        settings: DriftSettings,
    ) -> None:
        self._deployment, self._store, self._writer, self._page = deployment, store, writer, page
        self._settings = settings
        self._threshold = log_threshold(settings.max_slices, settings.false_alarms_a_month)
        self._checkpoint: DetectorCheckpoint | None = None
        self.position: tuple[datetime, int] | None = None
        """End of the rows, and number of the last first label, that the detectors have read; None before."""

    def run(self, now: datetime) -> None:
        """Feed the next part of the final rows and labels; after an error the next run restores the checkpoint."""
        state = self._deployment.state
        if state.version is None or (state.fault and state.active is None):  # its references are missing for a while
            return
        try:
            self._run(state, state.version, now)
        except BaseException:
            self._checkpoint = None
            raise

    def accuracy_band(self, name: str) -> ToleranceBand | None:
        """Return the tolerance band of a slice's accuracy; None without a reference."""
        state = self._deployment.state
        rate = state.accuracies.get(name)
        if rate is None:
            return None
        return accuracy_band(rate, self._settings.accuracy_tolerance, self._slices(state))

    def _run(self, state: DeploymentState, version: int, now: datetime) -> None:
        checkpoint, inputs = self._checkpoint, band_inputs(state)
        owner = version, state.promoted_at
        with self._store.read() as connection:
            if checkpoint is None or (checkpoint.version, checkpoint.promoted_at) != owner:
                checkpoint = self._restore(connection, state, version, now)
            elif checkpoint.band_inputs != inputs:
                checkpoint.bands, checkpoint.band_inputs = self._bands(state), inputs
                checkpoint.watch.rezone(checkpoint.bands)
                _log_restarted(checkpoint.watch)
            self._checkpoint = checkpoint
            unresolved = alarms(connection, state.model, unresolved=True)
            checkpoint.set_alarms(unresolved)
            detections, fed = _feed(connection, checkpoint, state.model, now)
        over = resolved_alarms(unresolved, state, checkpoint.bands, self._deployment.snapshot)
        if fed or detections or over:

            def commit(connection: Connection) -> list[Alarm]:
                save_checkpoint(connection, CHECKPOINT, now, checkpoint.to_bytes())
                for alarm, reason in over:
                    resolve_alarm(connection, alarm.id, now, reason)
                for detection in detections:
                    open_alarm(connection, state.model, version, detection)
                return alarms(connection, state.model, unresolved=True)

            unresolved = self._writer.submit(commit).result()
        checkpoint.set_alarms(unresolved)
        self.position = checkpoint.until, checkpoint.seq
        self._deployment.drift_statuses = checkpoint.statuses()
        self._page.show_drift(state.model, self._deployment.drift_statuses, unresolved, checkpoint.until)

    def _restore(
        self, connection: Connection, state: DeploymentState, version: int, now: datetime
    ) -> DetectorCheckpoint:
        """Return the stored detectors of a version, or new ones that start at its promotion, at most a day ago."""
        bands, inputs = self._bands(state), band_inputs(state)
        checkpoint = queries.checkpoint(connection, CHECKPOINT)
        if checkpoint is not None:
            try:
                stored = _STORED.validate_json(checkpoint.state)
                if (stored.version, stored.promoted_at) == (version, state.promoted_at):
                    watch = DriftDetector.from_bytes(stored.state, bands, self._threshold)
                    _log_restarted(watch)
                    standing = dict(stored.standing)
                    return DetectorCheckpoint(
                        version, state.promoted_at, stored.until, stored.seq, bands, watch, inputs, standing
                    )
            except ValueError as error:
                kind = type(error).__name__
                _log.warning("stored drift evidence is damaged (%s): it is gathered from the start", kind)
                _log.debug("the stored drift evidence: %s", error)
        since = now - _LOOK_BACK
        if state.promoted_at is not None:
            since = min(max(state.promoted_at, since), now)  # the clock may have been set back
        until = floor_to(since, BLOCK_SECONDS[0])
        seq = last_first_label(connection, state.model, before=since)
        watch = DriftDetector(bands, self._threshold)
        return DetectorCheckpoint(version, state.promoted_at, until, seq, bands, watch, inputs)

    def _bands(self, state: DeploymentState) -> dict[RateKey, ToleranceBand]:
        settings, slices = self._settings, self._slices(state)
        bands = {}
        for name, fingerprint in state.fingerprints.items():
            if rate := state.references.get(name):
                key = RateKey(name, fingerprint, "coverage")
                bands[key] = coverage_band(rate, settings.tolerance, slices)
            rate, target = state.accuracies.get(name), state.metadata.get(name, NO_METADATA).target
            if rate or target is not None:  # a target is monitored without a reference, too
                key = RateKey(name, fingerprint, "accuracy")
                bands[key] = accuracy_band(rate or Rate(0, 0), settings.accuracy_tolerance, slices, target)
        if rate := state.accuracies.get(ALL_ROWS):
            bands[EVERY_ROW] = accuracy_band(rate, settings.accuracy_tolerance, slices)
        return bands

    def _slices(self, state: DeploymentState) -> int:
        return max(self._settings.max_slices, len(state.functions_version.names))


@dataclass(slots=True)
class DetectorCheckpoint:
    """Detectors of one version since its promotion, and their read position.

    ``until`` and ``seq`` are the end of the last block, and the number of the last first label, that were read;
    ``bands`` were computed from ``band_inputs``. ``standing`` has the counts of rates with an unresolved alarm
    since the start of its change; their detectors have restarted.
    """

    version: int
    promoted_at: datetime | None
    until: datetime
    seq: int
    bands: Mapping[RateKey, ToleranceBand]
    watch: DriftDetector
    band_inputs: tuple[object, ...]
    standing: dict[RateKey, Rate] = field(default_factory=dict)
    alarmed: dict[RateKey, DriftStatus] = field(default_factory=dict)  # at their unresolved alarms

    def advance(self, observation: Observation) -> list[DriftDetected]:
        """Feed the detectors, and return the detections."""
        for key in self.standing.keys() & observation.counts.keys():
            rate = observation.counts[key]
            _add(self.standing, key, rate.count, rate.n)
        detections = self.watch.advance(observation)
        for drift in (detection.drift for detection in detections):
            key = _key(drift)
            if key not in self.alarmed or changed_further(self.alarmed[key], drift):  # a new alarm
                self.standing[key], self.alarmed[key] = drift.observed, drift
        return detections

    def set_alarms(self, unresolved: Iterable[Alarm]) -> None:
        """Set the unresolved alarms, and forget the counts of all others."""
        of_version = (alarm.drift for alarm in unresolved if alarm.version == self.version)
        self.alarmed = {_key(drift): drift for drift in of_version}
        for key in self.standing.keys() - self.alarmed.keys():
            del self.standing[key]

    def statuses(self) -> tuple[DriftStatus, ...]:
        """Return the state of every rate; one with an unresolved alarm has its rate since the change of the alarm."""

        def status(drift: DriftStatus) -> DriftStatus:
            key = _key(drift)
            if key not in self.standing:
                return drift
            alarm, observed = self.alarmed[key], self.standing[key]
            lower, upper = anytime_arrays(np.array([observed.count]), np.array([observed.n]))
            return replace(
                drift,
                evidence=max(alarm.evidence, drift.evidence),
                since=alarm.since,
                direction=alarm.direction,
                observed=observed,
                lower=float(lower[0]),
                upper=float(upper[0]),
            )

        return tuple(map(status, self.watch.drifts()))

    def to_bytes(self) -> bytes:
        """Return the state for the store."""
        standing = list(self.standing.items())
        stored = _Stored(self.version, self.promoted_at, self.until, self.seq, self.watch.to_bytes(), standing)
        return _STORED.dump_json(stored)


@dataclass(frozen=True, slots=True)
class _Stored:
    version: int
    promoted_at: datetime | None
    until: datetime
    seq: int
    state: Base64Bytes
    standing: list[tuple[RateKey, Rate]] = field(default_factory=list)


def _log_restarted(watch: DriftDetector) -> None:
    """Log the rates whose evidence began again, the first of them by name."""
    if watch.restarted:
        names = ", ".join(f"{key.kind} of {key.slice}" for key in watch.restarted[:_NAMES_LOGGED])
        more = f", and {len(watch.restarted) - _NAMES_LOGGED:,} more" if len(watch.restarted) > _NAMES_LOGGED else ""
        _log.info("drift evidence is gathered from the start where the tolerance band changed: %s%s", names, more)


def _key(drift: DriftStatus) -> RateKey:
    return RateKey(drift.slice, drift.fingerprint, drift.kind)


_STORED = TypeAdapter(_Stored)


def _feed(
    connection: Connection, checkpoint: DetectorCheckpoint, model: str, now: datetime
) -> tuple[list[DriftDetected], bool]:
    """Feed the next final blocks and first labels; return the detections, and whether anything was fed."""
    until, bands = watermark(now), checkpoint.bands
    if not bands:  # without a reference nothing is monitored, and these rows are not fed later
        checkpoint.until = max(checkpoint.until, until)
        checkpoint.seq = max(checkpoint.seq, last_first_label(connection, model, before=until))
        return [], False
    blocks = next_blocks(connection, model, checkpoint.version, checkpoint.until, until)
    arrived = first_labels(connection, model, checkpoint.seq, _LABELS)
    labels = list(takewhile(lambda label: label.at < until, arrived))
    of_version = [label for label in labels if label.version == checkpoint.version]
    hashes = {block.set_hash for block in blocks} | {label.set_hash for label in of_version}
    sets = known_sets(connection, hashes)
    detections: list[DriftDetected] = []
    for observation in chain(coverages(blocks, sets, bands), accuracies(of_version, sets, bands)):
        detections += checkpoint.advance(observation)
    if blocks:
        checkpoint.until = max(block.end for block in blocks)
    if labels:
        checkpoint.seq = labels[-1].seq
    return detections, bool(blocks or labels)


def band_inputs(state: DeploymentState) -> tuple[object, ...]:
    """Return the inputs of the tolerance bands."""
    return state.references, state.accuracies, state.metadata, state.functions_version.hash


def next_blocks(
    connection: Connection, model: str, version: int, since: datetime, until: datetime
) -> list[BlockCounts]:
    """Return the next blocks of a model version, in order of time; repeated calls return all of them.

    Blocks that start before ``since``, the end of the blocks already read, are skipped. Blocks that reach beyond
    ``until``, the time before which rows are final, wait. If a block does not count all of its rows yet, it and
    every later one wait until it does.
    """
    starts = queries.block_starts(connection, model, version, since, until, _BLOCK_STARTS + 1)
    if len(starts) > _BLOCK_STARTS:
        until = floor_to(starts[-1], BLOCK_SECONDS[-1])  # no block reaches over a full hour
    reaching = queries.counts_between(connection, model, version, since, until) if starts else []
    blocks = [block for block in reaching if block.start >= since]
    until = first_uncounted(connection, model, version, blocks, since, until) or until
    # A long block that has to wait holds back the short ones of other function sets at its time.
    until = min([until, *(block.start for block in blocks if block.end > until)])
    return [block for block in blocks if block.end <= until]


def known_sets(connection: Connection, hashes: Iterable[str]) -> dict[str, FunctionSetVersion]:
    """Return the function sets with these hashes; StoreError if one was never recorded."""
    sets = {}
    for set_hash in hashes:
        functions = queries.function_set(connection, set_hash)
        if functions is None:
            raise StoreError(
                f"function set {set_hash!r} is not in the store, but rows counted with it are: "
                "restore the store from a backup, or activate these functions once, which records them"
            )
        sets[set_hash] = functions
    return sets


def coverages(
    blocks: Iterable[BlockCounts], sets: Mapping[str, FunctionSetVersion], watched: Container[RateKey]
) -> Iterator[Observation]:
    """Yield members, known and unknown rows of every monitored slice, block by block, in order of time.

    Blocks of the same time under several function sets are added; a slice is the same if its function is.
    """
    columns = {set_hash: _columns(functions, "coverage", watched) for set_hash, functions in sets.items()}
    for (start, end), group in groupby(blocks, key=lambda block: (block.start, block.end)):
        counts: dict[RateKey, Rate] = {}
        unknown: dict[RateKey, int] = {}
        for block in group:
            not_known, member = block.unknown.tolist(), block.member.tolist()
            for k, key in columns[block.set_hash]:
                _add(counts, key, member[k], block.n - not_known[k])
                if not_known[k]:
                    unknown[key] = unknown.get(key, 0) + not_known[k]
        yield Observation(start, end, counts, unknown)


def accuracies(
    labels: Iterable[FirstLabel], sets: Mapping[str, FunctionSetVersion], watched: Container[RateKey]
) -> Iterator[Observation]:
    """Yield correct and labelled members of every monitored slice, per 10 seconds of label arrival."""
    columns = {set_hash: _columns(functions, "accuracy", watched) for set_hash, functions in sets.items()}
    for start, arrived in groupby(labels, key=lambda label: floor_to(label.at, BLOCK_SECONDS[0])):
        counts: dict[RateKey, Rate] = {}
        by_set = sorted(arrived, key=lambda label: label.set_hash)
        for set_hash, group in groupby(by_set, key=lambda label: label.set_hash):
            rows = list(group)
            member = unpack_bitmaps([label.member for label in rows], len(sets[set_hash].names))  # [N, K]
            correct = np.array([label.label == label.predicted for label in rows], np.bool_)
            _add(counts, EVERY_ROW, int(correct.sum()), len(rows))
            n, right = member.sum(axis=0).tolist(), (member & correct[:, None]).sum(axis=0).tolist()
            for k, key in columns[set_hash]:
                _add(counts, key, right[k], n[k])
        yield Observation(start, start + timedelta(seconds=BLOCK_SECONDS[0]), counts)


def _columns(functions: FunctionSetVersion, kind: DriftKind, watched: Container[RateKey]) -> list[tuple[int, RateKey]]:
    """Return the monitored columns of a function set."""
    pairs = zip(functions.names, functions.fingerprints, strict=True)
    keys = (RateKey(name, fingerprint, kind) for name, fingerprint in pairs)
    return [(k, key) for k, key in enumerate(keys) if key in watched]


def _add(counts: dict[RateKey, Rate], key: RateKey, count: int, n: int) -> None:
    counts[key] = counts.get(key, Rate(0, 0)) + Rate(count, n)


def resolved_alarms(
    unresolved: Sequence[Alarm],
    state: DeploymentState,
    bands: Mapping[RateKey, ToleranceBand],
    snapshot: Snapshot | None,
) -> list[tuple[Alarm, str]]:
    """Return the alarms to resolve, with the reasons.

    An alarm is resolved once another version is active, its function has changed, its target was lowered below
    the rate, or removed, or its rate is back within its tolerance band. For that it has to be demonstrably inside
    over a window of ``_RECENT`` that began after the alarm, and in no shorter one demonstrably outside: a small
    slice has few labels an hour. A snapshot of another version is ignored.
    """
    fingerprints = state.fingerprints
    recent: list[tuple[str, datetime, dict[tuple[str, str | None], SliceEstimate]]] = []
    if unresolved and snapshot is not None and (snapshot.model, snapshot.version) == (state.model, state.version):
        for name, span in _RECENT.items():
            window = snapshot.windows[name]
            recent.append((span, window.start, {(row.slice, row.fingerprint): row for row in window.slices}))

    def resolution(alarm: Alarm) -> str:
        drift = alarm.drift
        if alarm.version != state.version:
            return f"version {state.version} was promoted"
        if drift.fingerprint and fingerprints.get(drift.slice) != drift.fingerprint:
            return "the slicing function was changed or removed"
        band = bands.get(_key(drift))
        target = None if drift.zone is None else drift.zone.target
        if target is not None and (band is None or (band.target != target and drift.upper >= band.lower)):
            return f"the target of {percent(target)} was lowered or removed"
        for span, start, slices in recent:
            estimates = slices.get((drift.slice, drift.fingerprint))
            if band is None or estimates is None or start < alarm.at:
                return ""
            estimate = estimates.coverage if drift.kind == "coverage" else estimates.members.accuracy
            if not isinstance(estimate, Estimate):
                continue
            rate = estimate.rate
            if is_back_inside(band, rate):
                back = (
                    "within its tolerance band" if band.target is None else f"at its target of {percent(band.target)}"
                )
                return f"{drift.kind} was {rate.count / rate.n:.3g} in the last {span}, back {back}"
            if is_outside(band, rate):
                return ""
        return ""

    return [(alarm, reason) for alarm in unresolved if (reason := resolution(alarm))]
