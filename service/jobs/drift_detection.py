"""Job that detects drift: feeds the detectors, opens and resolves alarms."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, takewhile

import numpy as np
from sqlalchemy import Connection

from service.decisions import Alarm, DriftDetected, ToleranceBand
from service.events import Estimate, SliceEstimate, Snapshot, WindowName
from service.formatting import percent
from service.jobs.detector_checkpoint import STORED, DetectorCheckpoint, StoredDetectors, rate_key
from service.jobs.drift_observations import (
    EVERY_ROW,
    accuracies,
    coverages,
    feature_content,
    is_final,
    known_sets,
    next_arrivals,
    next_blocks,
    up_to,
)
from service.metrics.gauges import MetricsPage
from service.monitor.drift_detector import DriftDetector, RateKey, log_threshold
from service.monitor.reference_period import ReferencePeriod
from service.monitor.tolerance_band import accuracy_band, coverage_band, is_back_inside, is_outside
from service.monitor.windows import BLOCK_SECONDS, floor_to, watermark
from service.serving.deployment import Deployment, DeploymentState
from service.settings.schema import DriftSettings
from service.store import queries
from service.store.alarms import alarms, open_alarm, resolve_alarm
from service.store.block_store import first_uncounted
from service.store.engine import Store
from service.store.labels import first_labels, last_first_label
from service.store.writer import Writer, save_checkpoint
from sfs.intervals import Rate
from sfs.validation import NO_METADATA

CHECKPOINT = "drift"
"""Name of the checkpoint with the state of the detectors."""

_LABELS = 20_000  # read per run
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
        if state.version is None:
            return
        if state.fault and state.active is None:  # nothing is expected until it is repaired, and then of all its rows
            with self._store.read() as connection:
                unresolved = alarms(connection, state.model, unresolved=True)
            self._deployment.drift_statuses, self._deployment.behind_until = (), None
            self._page.show_drift(state.model, (), unresolved)
            return
        try:
            self._run(state, state.version, now)
        except BaseException:
            self._checkpoint = None
            raise

    def stored_version(self) -> tuple[int, datetime] | None:
        """Return the version of the stored detectors and the start of its traffic; None without them."""
        with self._store.read() as connection:
            checkpoint = queries.checkpoint(connection, CHECKPOINT)
        if checkpoint is not None:
            with suppress(ValueError):  # the next run logs it
                stored = STORED.validate_json(checkpoint.state)
                return None if stored.promoted_at is None else (stored.version, stored.promoted_at)
        return None

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
                checkpoint.bands, checkpoint.band_inputs = self._bands(state, checkpoint.first_labels), inputs
                checkpoint.watch.rezone(checkpoint.bands)
                _log_restarted(checkpoint.watch)
            self._checkpoint = checkpoint
            checkpoint.period.begin(_lacking_accuracy(state, checkpoint.first_labels))
            unresolved = alarms(connection, state.model, unresolved=True)
            checkpoint.set_alarms(unresolved)
            detections, fed = self._feed(connection, checkpoint, state, now)
            watched_until = _watched_until(connection, checkpoint, state.model, now)
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
        if state.is_external:
            counts = {key: len(contents) for key, contents in checkpoint.period.contents.items()}
            self._deployment.record_first_labels(version, checkpoint.first_labels, counts)
        checkpoint.set_alarms(unresolved)
        self._deployment.behind_until = checkpoint.until if checkpoint.is_behind else None
        self.position = checkpoint.until, checkpoint.seq
        self._deployment.drift_statuses = checkpoint.statuses()
        self._page.show_drift(state.model, self._deployment.drift_statuses, unresolved, watched_until)

    def _restore(
        self, connection: Connection, state: DeploymentState, version: int, now: datetime
    ) -> DetectorCheckpoint:
        """Return the stored detectors of a version, or new ones that start at its promotion, at most a day ago."""
        inputs, period = band_inputs(state), ReferencePeriod(self._settings.reference_labels)
        learned: dict[int, dict[RateKey, Rate]] = {}
        earlier: StoredDetectors | None = None
        checkpoint = queries.checkpoint(connection, CHECKPOINT)
        if checkpoint is not None:
            try:
                stored = STORED.validate_json(checkpoint.state)
                learned = {of_version: dict(rates) for of_version, rates in stored.learned}
                if version in learned:
                    learned[version] = learned.pop(version)  # those followed last are kept
                # The first row of an external version may have become known since; its number identifies it.
                if stored.version == version and (state.is_external or stored.promoted_at == state.promoted_at):
                    for key, correct, contents in stored.period:
                        period.correct[key], period.contents[key] = correct, np.frombuffer(contents, "<i8").tolist()
                    bands = self._bands(state, learned.get(version, {}))
                    watch = DriftDetector.from_bytes(stored.state, bands, self._threshold)
                    _log_restarted(watch)
                    standing = dict(stored.standing)
                    row = queries.last_row(connection) if stored.row is None else stored.row
                    return DetectorCheckpoint(
                        version,
                        state.promoted_at,
                        checkpoint.at,
                        stored.until,
                        stored.seq,
                        row,
                        bands,
                        watch,
                        inputs,
                        standing,
                        period=period,
                        learned=learned,
                        is_behind=stored.is_behind,
                    )
                earlier = stored
            except ValueError as error:
                kind = type(error).__name__
                _log.warning("stored drift evidence is damaged (%s): it is gathered from the start", kind)
                _log.debug("the stored drift evidence: %s", error)
        since = now - _LOOK_BACK
        if state.promoted_at is not None:
            since = min(max(state.promoted_at, since), now)  # the clock may have been set back
        seq = last_first_label(connection, state.model, before=since)
        bands = self._bands(state, learned.get(version, {}))
        new = DetectorCheckpoint(
            version,
            state.promoted_at,
            now,
            floor_to(since, BLOCK_SECONDS[0]),
            seq,
            queries.last_row(connection),
            bands,
            DriftDetector(bands, self._threshold),
            inputs,
            period=period,
            learned=learned,
        )
        if state.is_external and checkpoint is not None and earlier is not None:
            new.follow(earlier, checkpoint.at)
        return new

    def _bands(self, state: DeploymentState, first_labels: Mapping[RateKey, Rate]) -> dict[RateKey, ToleranceBand]:
        settings, slices = self._settings, self._slices(state)
        bands = {}
        for name, fingerprint in state.fingerprints.items():
            if rate := state.references.get(name):
                key = RateKey(name, fingerprint, "coverage")
                bands[key] = coverage_band(rate, settings.tolerance, slices)
        for key in _accuracy_keys(state):
            rate = _expected_accuracy(state, first_labels, key)
            target = state.metadata.get(key.slice, NO_METADATA).target
            if rate or target is not None:  # a target is monitored without a reference, too
                bands[key] = accuracy_band(rate or Rate(0, 0), settings.accuracy_tolerance, slices, target)
        return bands

    def _feed(
        self, connection: Connection, checkpoint: DetectorCheckpoint, state: DeploymentState, now: datetime
    ) -> tuple[list[DriftDetected], bool]:
        """Feed the next final blocks and first labels; return the detections, and whether anything was fed."""
        until, bands, model = watermark(now), checkpoint.bands, state.model
        last_row = queries.last_row(connection)
        set_back, checkpoint.at = now < checkpoint.at, now
        if set_back:
            checkpoint.watch.limit_starts(until)
        if not bands and not checkpoint.period.contents:  # nothing is monitored, and these rows are not fed later
            checkpoint.until, checkpoint.row, checkpoint.is_behind = until, last_row, False
            checkpoint.seq = max(checkpoint.seq, last_first_label(connection, model, before=until))
            return [], False
        set_back = set_back and until < checkpoint.until and not checkpoint.is_behind
        if set_back:
            checkpoint.is_behind = True
            if now < checkpoint.until:
                _log.warning(
                    "the clock is behind rows of %s, whose evidence is in: until it gets there, rows are evidence in "
                    "order of arrival",
                    checkpoint.until.isoformat(),
                )
        behind = next_arrivals(connection, checkpoint, model, now) if checkpoint.is_behind else None
        blocks = next_blocks(connection, model, checkpoint.version, checkpoint.until, until)
        arrived = first_labels(connection, model, checkpoint.seq, _LABELS)
        labels = [up_to(label, until) for label in takewhile(lambda label: is_final(label.at, now), arrived)]
        of_version = [label for label in labels if label.version == checkpoint.version]
        hashes = {block.set_hash for block in blocks} | {label.set_hash for label in of_version}
        sets = known_sets(connection, hashes)
        detections: list[DriftDetected] = []
        content = partial(feature_content, connection, state)
        labelled = accuracies(of_version, sets, bands, checkpoint.period, content)
        for observation in chain([behind] if behind else [], coverages(blocks, sets, bands), labelled):
            detections += checkpoint.advance(observation)
            if ended := checkpoint.period.end():
                learned = checkpoint.learned
                learned[checkpoint.version] = learned.pop(checkpoint.version, {}) | ended
                checkpoint.bands = self._bands(state, checkpoint.first_labels)
                checkpoint.watch.rezone(checkpoint.bands)
        if blocks:
            checkpoint.until = max(block.end for block in blocks)
        if not checkpoint.is_behind:
            checkpoint.row = last_row
        if labels:
            checkpoint.seq = labels[-1].seq
        return detections, bool(set_back or behind or blocks or labels)

    def _slices(self, state: DeploymentState) -> int:
        return max(self._settings.max_slices, len(state.functions_version.names))


def _watched_until(connection: Connection, checkpoint: DetectorCheckpoint, model: str, now: datetime) -> datetime:
    """Return the end of the time whose rows the detectors have read; with no block waiting, that of the final rows.

    Rows that are logged with a lag may never belong to a block that the detectors still read.
    """
    since, until = checkpoint.until, watermark(now)
    unread = queries.block_starts(connection, model, checkpoint.version, since, until, 1)
    waits = unread or first_uncounted(connection, model, checkpoint.version, (), since, until)
    return since if waits else max(since, until)


def _log_restarted(watch: DriftDetector) -> None:
    """Log the rates whose evidence began again, the first of them by name."""
    if watch.restarted:
        names = ", ".join(f"{key.kind} of {key.slice}" for key in watch.restarted[:_NAMES_LOGGED])
        more = f", and {len(watch.restarted) - _NAMES_LOGGED:,} more" if len(watch.restarted) > _NAMES_LOGGED else ""
        _log.info("drift evidence is gathered from the start where the tolerance band changed: %s%s", names, more)


def _accuracy_keys(state: DeploymentState) -> list[RateKey]:
    return [EVERY_ROW, *(RateKey(name, fingerprint, "accuracy") for name, fingerprint in state.fingerprints.items())]


def _expected_accuracy(state: DeploymentState, first_labels: Mapping[RateKey, Rate], key: RateKey) -> Rate | None:
    return state.accuracies.get(key.slice) or (first_labels.get(key) if state.is_external else None)


def _lacking_accuracy(state: DeploymentState, first_labels: Mapping[RateKey, Rate]) -> list[RateKey]:
    """Return the rates of an external version without an expected accuracy; none of a local one."""
    keys = _accuracy_keys(state) if state.is_external else []
    return [key for key in keys if _expected_accuracy(state, first_labels, key) is None]


def band_inputs(state: DeploymentState) -> tuple[object, ...]:
    """Return the inputs of the tolerance bands."""
    return state.references, state.accuracies, state.metadata, state.functions_version.hash


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
            return f"version {state.version} {'is followed now' if state.is_external else 'was promoted'}"
        if drift.fingerprint and fingerprints.get(drift.slice) != drift.fingerprint:
            return "the slicing function was changed or removed"
        band = bands.get(rate_key(drift))
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
