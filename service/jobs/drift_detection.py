"""Job that detects drift: feeds the detectors, opens and resolves alarms."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import chain

import numpy as np
from sqlalchemy import Connection

from models.outputs import nearest_limit
from service.decisions import RATES, Alarm, DriftDetected, DriftKind, RateKey, ToleranceBand
from service.events import NONE_FIRED, Estimate, SliceEstimate, Snapshot, WindowName
from service.formatting import percent
from service.jobs.accuracy_references import accuracy_references, family_rates, lacking_accuracy, monitored_votes
from service.jobs.detector_checkpoint import STORED, DetectorCheckpoint, StoredDetectors, expected_rates, rate_key
from service.jobs.drift_observations import (
    LOW_CONFIDENCE,
    LabelCounter,
    coverages,
    feature_content,
    known_sets,
    next_arrivals,
    next_blocks,
    up_to,
)
from service.metrics.gauges import MetricsPage
from service.monitor.accuracy_detector import AccuracyDetector, LabelledBlock, Pairs, pairs_of
from service.monitor.drift_detector import DriftDetector, Observation, log_threshold
from service.monitor.live_baseline import NO_REFERENCE, Limits, LiveBaseline, named_zone
from service.monitor.reference_period import ReferencePeriod
from service.monitor.season import WEEK_HOURS, TableProfile
from service.monitor.tolerance_band import accuracy_band, coverage_band, recovery
from service.monitor.windows import BLOCK_SECONDS, floor_to, watermark
from service.serving.deployment import Deployment, DeploymentState
from service.settings.schema import DriftSettings
from service.store import queries
from service.store.alarms import accepted_alarms, adopt_alarms, alarms, open_alarm, resolve_alarm
from service.store.block_store import first_uncounted
from service.store.engine import Store
from service.store.labels import first_labels, first_unsettled, last_first_label
from service.store.writer import Writer, save_checkpoint
from sfs.intervals import Rate

CHECKPOINT = "drift"
"""Name of the checkpoint with the state of the detectors."""

_LABELS = 20_000  # read per run
_LOOK_BACK = timedelta(days=1)  # maximum look-back for a version without stored detectors
_RECENT: dict[WindowName, str] = {"1h": "hour", "1d": "day", "7d": "week"}
"""Windows of a snapshot, as in `RECENT`."""

_OF_VERSION: tuple[DriftKind, ...] = ("predicted", "disagreement", "confidence")
"""Rates of a model's outputs: another version has others."""

_NEW = timedelta(minutes=1)  # a run that failed is made up for
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
        self._settings, self._settling = settings, timedelta(hours=settings.settling_hours)
        self._checkpoint: DetectorCheckpoint | None = None
        self.position: tuple[datetime, int] | None = None
        """End of the rows, and number of the last first label, that the detectors have read; None before."""

    def run(self, now: datetime) -> None:
        """Feed the next part of the final rows and labels; after an error the next run restores the checkpoint."""
        state = self._deployment.state
        if state.version is None:
            return
        if state.fault and state.active is None:  # nothing is expected until it is repaired, and then of all its rows
            self._deployment.drift_statuses, self._deployment.behind_until = (), None
            self.restore()
            return
        try:
            self._run(state, state.version, now)
        except BaseException:
            self._checkpoint = None
            raise

    def restore(self) -> None:
        """Publish the unresolved alarms: the first run may take long, and no alert is to resolve until it ends."""
        model = self._deployment.state.model
        with self._store.read() as connection:
            unresolved = alarms(connection, model, unresolved=True)
        self._page.show_drift(model, (), unresolved)

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
                checkpoint.band_inputs = inputs
                self._rezone(checkpoint, state)
                _log_restarted(checkpoint.watch.restarted + checkpoint.accuracy.restarted)
            self._checkpoint = checkpoint
            checkpoint.period.begin(lacking_accuracy(state, checkpoint.first_labels))
            unresolved = alarms(connection, state.model, unresolved=True)
            accepted = accepted_alarms(connection, state.model)
            if accepted:
                self._adopt(connection, checkpoint, state, accepted)
            checkpoint.set_alarms(unresolved)
            detections, fed = self._feed(connection, checkpoint, state, now)
            watched_until = _watched_until(connection, checkpoint, state.model, now)
        over = resolved_alarms(unresolved, state, checkpoint, self._deployment.snapshot)
        if fed or detections or over or accepted:

            def commit(connection: Connection) -> list[Alarm]:
                save_checkpoint(connection, CHECKPOINT, now, checkpoint.to_bytes())
                if accepted:
                    adopt_alarms(connection, [alarm.id for alarm in accepted])
                for alarm, reason in over:
                    resolve_alarm(connection, alarm.id, now, reason)
                for detection in detections:
                    open_alarm(connection, state.model, version, detection)
                return alarms(connection, state.model, unresolved=True)

            unresolved = self._writer.submit(commit).result()
        if state.is_external:
            counts = {key: len(contents) for key, contents in checkpoint.period.contents.items()}
            rates = {key: rate for key, (rate, _) in checkpoint.first_labels.items()}
            self._deployment.record_first_labels(version, rates, counts)
        checkpoint.set_alarms(unresolved)
        self._deployment.behind_until = checkpoint.until if checkpoint.is_behind else None
        self.position = checkpoint.until, checkpoint.seq
        self._deployment.drift_statuses = checkpoint.statuses()
        self._page.show_drift(state.model, self._deployment.drift_statuses, unresolved, watched_until)

    def _restore(
        self, connection: Connection, state: DeploymentState, version: int, now: datetime
    ) -> DetectorCheckpoint:
        """Return the stored detectors of a version, or new ones that start at its promotion, at most a day ago."""
        checkpoint = queries.checkpoint(connection, CHECKPOINT)
        learned: dict[int, dict[RateKey, tuple[Rate, Pairs]]] = {}
        earlier: StoredDetectors | None = None
        if checkpoint is not None:
            try:
                stored = STORED.validate_json(checkpoint.state)
                learned = {of_version: expected_rates(rates) for of_version, rates in stored.learned}
                if version in learned:
                    learned[version] = learned.pop(version)  # those followed last are kept
                # The first row of an external version may have become known since; its number identifies it.
                if stored.version == version and (state.is_external or stored.promoted_at == state.promoted_at):
                    return self._continued(connection, state, stored, checkpoint.at, learned)
                earlier = stored
            except ValueError as error:
                kind = type(error).__name__
                _log.warning("stored drift evidence is damaged (%s): it is gathered from the start", kind)
                _log.debug("the stored drift evidence: %s", error)
        new = self._begun(connection, state, version, now, learned, earlier)
        if state.is_external and checkpoint is not None and earlier is not None:
            new.follow(earlier, checkpoint.at)
        return new

    def _continued(
        self,
        connection: Connection,
        state: DeploymentState,
        stored: StoredDetectors,
        at: datetime,
        learned: dict[int, dict[RateKey, tuple[Rate, Pairs]]],
    ) -> DetectorCheckpoint:
        """Return the stored detectors. Raises ValueError if they are damaged."""
        accepted, version = expected_rates(stored.accepted), stored.version
        bands = self._bands(state, accepted)
        baseline = self._baseline(state, bands, stored.baseline)
        watch = DriftDetector.from_bytes(stored.state, bands, self._threshold(bands), baseline)
        start = watermark(at) - self._settling  # of rates that are new
        accuracy = self._accuracy(state, learned.get(version, {}), accepted, start)
        if stored.accuracy is not None:  # of this release
            accuracy.resume(stored.accuracy)
        _log_restarted(watch.restarted + accuracy.restarted)
        return DetectorCheckpoint(
            version,
            state.promoted_at,
            at,
            stored.until,
            stored.seq,
            queries.last_row(connection) if stored.row is None else stored.row,
            bands,
            watch,
            accuracy,
            baseline,
            band_inputs(state),
            dict(stored.standing),
            period=stored.gathered(self._settings.reference_labels),
            learned=learned,
            accepted=accepted,
            is_behind=stored.is_behind,
        )

    def _begun(
        self,
        connection: Connection,
        state: DeploymentState,
        version: int,
        now: datetime,
        learned: dict[int, dict[RateKey, tuple[Rate, Pairs]]],
        earlier: StoredDetectors | None,
    ) -> DetectorCheckpoint:
        """Return new detectors, with the live baseline and the dispersion of labels of those of an earlier version."""
        since = now - _LOOK_BACK
        if state.promoted_at is not None:
            since = min(max(state.promoted_at, since), now)  # the clock may have been set back
        bands = self._bands(state, {})
        of_version = [key for key in bands if key.kind in _OF_VERSION]
        baseline = self._baseline(state, bands, None if earlier is None else earlier.baseline, of_version)
        accuracy = self._accuracy(state, learned.get(version, {}), {}, since)
        if earlier is not None:  # the promotion of a version that answers an alarm takes the rate since as normal
            moved = {key.slice for key, _ in earlier.standing if key.kind == "coverage"}
            references = {key: band.reference for key, band in zip(baseline.keys, baseline.references, strict=True)}
            moved_keys = (key for key in references if key.kind == "coverage" and key.slice in moved)
            baseline.rebase({key: references[key] for key in moved_keys})
            if earlier.accuracy is not None:
                with suppress(ValueError):
                    accuracy.resume(earlier.accuracy, evidence=False)
        return DetectorCheckpoint(
            version,
            state.promoted_at,
            now,
            floor_to(since, BLOCK_SECONDS[0]),
            last_first_label(connection, state.model, before=since),
            queries.last_row(connection),
            bands,
            DriftDetector(bands, self._threshold(bands), baseline),
            accuracy,
            baseline,
            band_inputs(state),
            period=ReferencePeriod(self._settings.reference_labels),
            learned=learned,
        )

    def _bands(
        self, state: DeploymentState, accepted: Mapping[RateKey, tuple[Rate, Pairs]]
    ) -> dict[RateKey, ToleranceBand]:
        """Return the tolerance bands of all rates but accuracies."""
        settings, slices, bands = self._settings, self._slices(state), {}
        expected = {
            RateKey(name, fingerprint, "coverage"): state.references.get(name)
            for name, fingerprint in state.fingerprints.items()
        }
        for key, reference in (expected | _stream_rates(state, settings.streams)).items():
            rate = accepted[key][0] if key in accepted else reference
            bands[key] = coverage_band(rate, settings.tolerance, slices) if rate else NO_REFERENCE
        return bands

    def _accuracy(
        self,
        state: DeploymentState,
        first_labels: Mapping[RateKey, tuple[Rate, Pairs]],
        accepted: Mapping[RateKey, tuple[Rate, Pairs]],
        start: datetime,
    ) -> AccuracyDetector:
        """Return new detectors of accuracies."""
        references = accuracy_references(state, self._settings, first_labels if state.is_external else {}, accepted)
        families = {
            key: [RateKey(*pair, "accuracy") for pair in own.items()] for key, own in family_rates(state).items()
        }
        return AccuracyDetector(references, families, state.classes, self._settings, start)

    def _threshold(self, bands: Mapping[RateKey, ToleranceBand]) -> float:
        return log_threshold(max(self._settings.max_slices, len(bands)), self._settings.false_alarms_a_month)

    def _baseline(
        self,
        state: DeploymentState,
        bands: Mapping[RateKey, ToleranceBand],
        stored: bytes | None,
        without: Sequence[RateKey] = (),
    ) -> LiveBaseline:
        """Return the live baseline of all rates, continued from the stored one, except for some."""
        settings = self._settings
        zone = named_zone(settings.time_zone)
        table = _table_profile(state, [*bands], settings.time_zone)
        baseline = LiveBaseline([*bands], [*bands.values()], settings.tolerance, settings.swing, zone, table)
        if stored is not None:
            try:
                baseline.resume(LiveBaseline.from_bytes(stored), without)
            except ValueError as error:
                _log.warning("%s", error)
        return baseline

    def _rezone(self, checkpoint: DetectorCheckpoint, state: DeploymentState) -> None:
        """Compute the bands again, and continue with the live baseline."""
        checkpoint.bands = self._bands(state, checkpoint.accepted)
        earlier = checkpoint.baseline
        checkpoint.baseline = self._baseline(state, checkpoint.bands, None)
        checkpoint.baseline.resume(earlier)
        checkpoint.watch.rezone(checkpoint.bands, checkpoint.baseline)
        checkpoint.watch.threshold = self._threshold(checkpoint.bands)
        self._expect(checkpoint, state, watermark(checkpoint.at) - self._settling)

    def _expect(self, checkpoint: DetectorCheckpoint, state: DeploymentState, start: datetime) -> None:
        """Compute the expected accuracies again, and continue with the evidence; new rates start at a time."""
        before = checkpoint.accuracy
        checkpoint.accuracy = self._accuracy(state, checkpoint.first_labels, checkpoint.accepted, start)
        checkpoint.accuracy.resume(before)

    def _adopt(
        self, connection: Connection, checkpoint: DetectorCheckpoint, state: DeploymentState, accepted: Sequence[Alarm]
    ) -> None:
        """Expect the rates since the changes of accepted alarms; those of other versions are ignored."""
        rates: dict[RateKey, Rate] = {}
        for drift in (alarm.drift for alarm in accepted if alarm.version == checkpoint.version):
            key = rate_key(drift)
            rates[key] = checkpoint.standing.get(key, drift.observed)
            checkpoint.accepted[key] = rates[key], ()
            if drift.is_accuracy and drift.since is not None:
                checkpoint.accepted[key] = self._accepted(connection, checkpoint, state, key, drift.since)
        self._rezone(checkpoint, state)
        checkpoint.watch.restart(rates)
        checkpoint.accuracy.restart(rates)
        checkpoint.baseline.rebase(rates)

    def _accepted(
        self,
        connection: Connection,
        checkpoint: DetectorCheckpoint,
        state: DeploymentState,
        key: RateKey,
        since: datetime,
    ) -> tuple[Rate, Pairs]:
        """Return the last labels of a rate since a change, also by class."""
        seq = last_first_label(connection, state.model, before=since)
        last = checkpoint.seq + 1
        labels = first_labels(connection, state.model, seq, _LABELS, self._settling, before=last)
        labels = [label for label in labels if label.version == checkpoint.version]
        sets = known_sets(connection, {label.set_hash for label in labels})
        counter = LabelCounter(sets, state.classes, family_rates(state), votes=self._votes(state))
        blocks = [block.counts[key] for block in counter.blocks(labels) if key in block.counts]
        confusion = np.sum([np.zeros((len(state.classes),) * 2, np.int64), *blocks], axis=0)
        return Rate(int(confusion.trace()), int(confusion.sum())), pairs_of(confusion, state.classes)

    def _feed(
        self, connection: Connection, checkpoint: DetectorCheckpoint, state: DeploymentState, now: datetime
    ) -> tuple[list[DriftDetected], bool]:
        """Feed the next final blocks and first labels; return the detections, and whether anything was fed."""
        until, bands, model = watermark(now), checkpoint.bands, state.model
        settled = until - self._settling
        last_row = queries.last_row(connection)
        set_back, checkpoint.at = now < checkpoint.at, now
        if set_back:
            checkpoint.watch.limit_starts(until)
            checkpoint.accuracy.limit_starts(until)
        is_idle = not bands and not checkpoint.accuracy.watches and not checkpoint.period.contents
        if is_idle:  # nothing is monitored, and these rows are not fed later
            checkpoint.until, checkpoint.row, checkpoint.is_behind = until, last_row, False
            checkpoint.seq = max(checkpoint.seq, last_first_label(connection, model, before=settled))
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
        waiting = first_unsettled(connection, model, checkpoint.seq, settled, now)
        arrived = first_labels(connection, model, checkpoint.seq, _LABELS, self._settling, waiting)
        labels = [up_to(label, until) for label in arrived]
        of_version = [label for label in labels if label.version == checkpoint.version]
        hashes = {block.set_hash for block in blocks} | {label.set_hash for label in of_version}
        sets = known_sets(connection, hashes)
        detections: list[DriftDetected] = []
        content = partial(feature_content, connection, state)
        votes = self._votes(state)
        counter = LabelCounter(sets, state.classes, family_rates(state), checkpoint.period, content, votes)
        live, labelled = coverages(blocks, sets, bands), counter.blocks(of_version)
        parts: Iterator[Observation | LabelledBlock] = chain([behind] if behind else [], live, labelled)
        for block in parts:
            detections += checkpoint.advance(block)
            if ended := checkpoint.period.end():
                learned = checkpoint.learned
                learned[checkpoint.version] = learned.pop(checkpoint.version, {}) | ended
                self._expect(checkpoint, state, block.start)
        if blocks:
            checkpoint.until = max(block.end for block in blocks)
        if not checkpoint.is_behind:
            checkpoint.row = last_row
        if labels:
            checkpoint.seq = labels[-1].seq
        return detections, bool(set_back or behind or blocks or labels)

    def _votes(self, state: DeploymentState) -> dict[RateKey, str]:
        return {key: voted for key, (voted, _) in monitored_votes(state, self._settings).items()}

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


def _log_restarted(restarted: Sequence[RateKey]) -> None:
    """Log the rates whose evidence began again, the first of them by name."""
    if restarted:
        names = ", ".join(f"{RATES[key.kind]} of {key.slice}" for key in restarted[:_NAMES_LOGGED])
        more = f", and {len(restarted) - _NAMES_LOGGED:,} more" if len(restarted) > _NAMES_LOGGED else ""
        _log.info("drift evidence is gathered from the start where the tolerance band changed: %s%s", names, more)


def _stream_rates(state: DeploymentState, streams: Sequence[str]) -> dict[RateKey, Rate | None]:
    """Return the further rates to monitor, with those of the held-out rows; None where live traffic alone teaches."""
    rates: dict[RateKey, Rate | None] = {}
    for stream in streams:
        if stream == "no_slice":
            rates[RateKey(NONE_FIRED, state.functions_version.hash, "coverage")] = None
        elif stream == "unknown":
            rates |= {RateKey(name, print_, "unknown"): None for name, print_ in state.fingerprints.items()}
        elif stream == "predicted":
            rates |= {RateKey(name, None, "predicted"): None for name in state.classes}
        elif stream == "disagreement":
            rates |= _disagreement(state)
        elif stream == "confidence" and state.classes:
            rates |= _low_confidence(state)
    return rates


def _disagreement(state: DeploymentState) -> dict[RateKey, Rate | None]:
    """Return the disagreement of every slice with an indicator."""
    if state.active is None:
        return {}
    names, outputs = state.active.indicated(), state.active.bundle.outputs
    expected = {} if outputs is None else outputs.disagreement
    return {RateKey(name, state.fingerprints[name], "disagreement"): _informative(expected.get(name)) for name in names}


def _low_confidence(state: DeploymentState) -> dict[RateKey, Rate | None]:
    """Return the share below the limit of the version; without held-out rows, halfway from chance to certainty."""
    outputs = None if state.active is None else state.active.bundle.outputs
    if outputs is None:
        return {LOW_CONFIDENCE[nearest_limit((1 + 1 / len(state.classes)) / 2)]: None}
    return {LOW_CONFIDENCE[nearest_limit(outputs.limit)]: _informative(outputs.low_confidence)}


def _table_profile(state: DeploymentState, keys: Sequence[RateKey], zone: str) -> TableProfile | None:
    """Return the season of the training table; None if it has none in this time zone."""
    season = None if state.active is None else state.active.bundle.season
    if state.active is None or season is None or season.zone != zone:
        return None
    trained = state.active.bundle.function_fingerprints
    members, rows = np.zeros((2, WEEK_HOURS, len(keys)), np.float32)
    dispersion = np.ones(len(keys))
    for k, key in enumerate(keys):
        if key.kind == "coverage" and key.slice in season.members and trained[key.slice] == key.fingerprint:
            members[:, k], dispersion[k] = season.members[key.slice], season.dispersion[key.slice]
            rows[:, k] = np.subtract(season.rows, season.unknown.get(key.slice, 0))
    return TableProfile.of(members, rows, dispersion)


def _informative(rate: Rate | None) -> Rate | None:
    return rate if rate is not None and rate.is_informative else None


def band_inputs(state: DeploymentState) -> tuple[object, ...]:
    """Return the inputs of the tolerance bands."""
    return state.references, state.accuracies, state.class_counts, state.metadata, state.functions_version.hash


def resolved_alarms(
    unresolved: Sequence[Alarm],
    state: DeploymentState,
    checkpoint: DetectorCheckpoint,
    snapshot: Snapshot | None,
) -> list[tuple[Alarm, str]]:
    """Return the alarms to resolve, with the reasons.

    An alarm is resolved once another version is active, its function has changed, its target was lowered below
    the rate, or removed, its rate is no longer monitored, or is back within its tolerance band in windows of
    ``_RECENT`` that began after the alarm. Only new rows or labels show that: a window that slides past the last of
    them does not. A snapshot of another version is ignored; none has rates of outputs.
    """
    fingerprints = state.fingerprints | {NONE_FIRED: state.functions_version.hash}
    families = {key.slice: key.fingerprint for key in family_rates(state)}
    recent: list[tuple[str, datetime, Limits, dict[tuple[str, str | None], SliceEstimate]]] = []
    if unresolved and snapshot is not None and (snapshot.model, snapshot.version) == (state.model, state.version):
        for name, span in _RECENT.items():
            window = snapshot.windows[name]
            rows = {(row.slice, row.fingerprint): row for row in window.slices}
            limits = checkpoint.baseline.limits_over(window.start, snapshot.at)
            recent.append((span, window.start, limits, rows))

    def resolution(alarm: Alarm) -> str:
        drift = alarm.drift
        if alarm.version != state.version:
            return f"version {state.version} {'is followed now' if state.is_external else 'was promoted'}"
        current = families if drift.kind == "family_accuracy" else fingerprints
        if drift.fingerprint and current.get(drift.slice) != drift.fingerprint:
            which = {"family_accuracy": "a slicing function of the family", "votes": "the labelling function"}
            return f"{which.get(drift.kind, 'the slicing function')} was changed or removed"
        band = checkpoint.band(rate_key(drift))
        if band is None and drift.stands_alone:
            return "the rate is no longer monitored"
        target = None if drift.zone is None else drift.zone.target
        if target is not None and (band is None or (band.target != target and drift.upper >= band.lower)):
            return f"the target of {percent(target)} was lowered or removed"
        if drift.is_accuracy:
            return checkpoint.accuracy.recovery(alarm)
        seen_at = None if snapshot is None else snapshot.last_evidence(drift.slice, drift.fingerprint, drift.kind)
        if snapshot is None or seen_at is None or seen_at < snapshot.at - _NEW:
            return ""

        def rates() -> Iterator[tuple[str, ToleranceBand, Rate]]:
            for span, start, limits, slices in recent:
                estimates = slices.get((drift.slice, None if drift.slice == NONE_FIRED else drift.fingerprint))
                if band is None or estimates is None or start < alarm.at:
                    return
                if (rate := _rate_in(estimates, drift.kind)) is not None:
                    yield span, checkpoint.watch.band(rate_key(drift), limits) or band, rate

        return recovery(drift.rate, rates())

    return [(alarm, reason) for alarm in unresolved if (reason := resolution(alarm))]


def _rate_in(row: SliceEstimate, kind: DriftKind) -> Rate | None:
    """Return the counts of a rate in a row of a snapshot; None if they are not there, or too few."""
    if kind in _OF_VERSION:
        return None
    if kind == "unknown":
        return Rate(row.unknown, row.unknown + (row.coverage.rate.n if isinstance(row.coverage, Estimate) else 0))
    return row.coverage.rate if isinstance(row.coverage, Estimate) else None
