"""Job that advances a retraining run: opened, waiting for labels, training, gated, promoted or not."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection

from models.errors import ModelError, RegistryUnavailable
from models.registry import CHAMPION, AliasChange, ModelRegistry
from service.decisions import ACTIVE, Alarm, AuditEntry, Outcome, Run, RunState
from service.errors import ServiceError
from service.jobs.drift_detection import DriftDetection
from service.jobs.training.process import RunningTraining, TrainingFailed, TrainingLauncher
from service.jobs.training.spec import TrainingResult
from service.metrics.process import ProcessMetrics
from service.monitor.promotion_gate import decide
from service.monitor.retrain_policy import (
    OpenRun,
    RetrainRules,
    Skip,
    SliceEvidence,
    Train,
    after_labels,
    blocking_alarm,
    next_run,
    not_retrained,
)
from service.serving.deployment import Deployment, DeploymentState
from service.serving.references import BASELINE_KEY, Baseline, baseline_to_json, run_baseline
from service.settings.schema import RetrainSettings
from service.store.alarms import alarms
from service.store.audit import record
from service.store.counts_since import ChangeKey, counts_since, coverage_since
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.runs import active_run, move_run, open_run, runs
from service.store.writer import Writer

LABELS_EVERY = timedelta(minutes=1)
"""Interval at which a waiting run counts its labels; every block since the change is read."""

RETRY_AFTER = timedelta(minutes=1)
"""Pause before the next attempt, times the number of attempts."""

_RUNS = 1000  # latest runs that the policy considers
_END: Mapping[Outcome, RunState] = {"promote": "promoted", "hold": "held", "reject": "rejected"}

_log = logging.getLogger(__name__)


class NotRetrained(ServiceError):
    """There is no champion that could be retrained: none was trained, or the model is served elsewhere."""


class Retraining:
    """Advances the one active run of a model by a step per call. For one thread at a time, except `request`.

    Every step is a transaction of its own: after a restart the run continues where it was, and an interrupted
    training is started again.
    """

    def __init__(
        self,
        settings: RetrainSettings,
        deployment: Deployment,
        store: Store,
        writer: Writer,
        registry: ModelRegistry,
        detection: DriftDetection,
        launcher: TrainingLauncher,
        metrics: ProcessMetrics,
    ) -> None:
        self._settings, self._deployment, self._registry = settings, deployment, registry
        self._store, self._writer, self._metrics = store, writer, metrics
        self._detection, self._launcher = detection, launcher
        self._rules = RetrainRules.of(
            new_labels=settings.new_labels,
            cool_down_hours=settings.cool_down_hours,
            runs_a_month=settings.runs_a_month,
            wait_days=settings.wait_days,
            max_age_days=settings.max_age_days,
        )
        self._counted: tuple[int, datetime] | None = None  # the run whose labels were counted last, and when
        self._training: tuple[int, RunningTraining] | None = None  # the run in training
        self._failed: tuple[int, int] | None = None  # run and attempt with an unusable result

    def run(self, now: datetime) -> None:
        """Advance by one step."""
        state = self._deployment.state
        with self._store.read() as connection:
            run = active_run(connection, state.model)
            unresolved = alarms(connection, state.model, unresolved=True)
        if run is None:
            self._kill_training()
            # A newly promoted version is about to become active, with its own references.
            monitored = self._settings.automatic and not state.fault
            if monitored and state.version == self._registry.alias(CHAMPION) is not None:
                self._open_run(state, unresolved, now)
        elif run.state == "waiting_for_labels":
            self._await_labels(run, state, unresolved, now)
        elif run.state == "training":
            self._train(run, state, now)
        else:
            self._apply_decision(run, now)

    def request(self, reason: str, actor: str, now: datetime) -> Run:
        """Open a run on request. Raises RunActive if one is active, and NotRetrained without a champion."""
        model, version = self._deployment.state.model, self._deployment.state.version
        if self._registry.alias(CHAMPION) is None:
            raise NotRetrained(not_retrained(version))
        work = partial(open_run, model=model, state="training", trigger="request", reason=reason, at=now, actor=actor)
        return self._writer.submit(work).result()

    def stop(self, now: datetime) -> None:
        """Kill a running training; the attempt does not count, and is repeated after the next start."""
        with self._store.read() as connection:
            run = active_run(connection, self._deployment.state.model)
        training = self._training
        self._kill_training()
        if training is not None and run is not None and run.state == "training" and run.id == training[0]:
            outcome = "training continues after the restart"
            self._transition(run, now, attempts=run.attempts - 1, outcome=outcome)

    def _open_run(self, state: DeploymentState, unresolved: Sequence[Alarm], now: datetime) -> None:
        with self._store.read() as connection:
            earlier = runs(connection, state.model, limit=_RUNS, whole=False)
        of_version = [alarm for alarm in unresolved if alarm.version == state.version]
        decision = next_run(of_version, earlier, now, self._rules, in_force_since=state.promoted_at)
        if isinstance(decision, OpenRun):
            work = partial(open_run, model=state.model, at=now, **asdict(decision))
            run = self._writer.submit(work).result()
            _log.info("run %d: %s", run.id, run.reason, extra={"state": run.state})

    def _await_labels(self, run: Run, state: DeploymentState, unresolved: Sequence[Alarm], now: datetime) -> None:
        """Count the labels of every slice with a coverage alarm since its change; train, skip or wait."""
        of_run = [alarm for alarm in unresolved if alarm.id in run.alarms]
        if not of_run:
            outcome = "its alarms were resolved before enough labels arrived"
            self._transition(run, now, state="skipped", outcome=outcome)
            return
        counted_run, counted_at = self._counted or (None, now)
        # After the clock was set back, they are counted at once.
        if counted_run == run.id and counted_at <= now < counted_at + LABELS_EVERY:
            return
        self._counted = run.id, now
        moved = {ChangeKey.of(alarm): alarm.drift.direction for alarm in of_run if alarm.drift.kind == "coverage"}
        with self._store.read() as connection:
            counts = counts_since(connection, state.model, of_run[0].version, moved)
        evidence = [
            SliceEvidence(
                key.slice,
                moved[key] or "up",
                since.accuracy.n,
                since.accuracy.count,
                self._detection.accuracy_band(key.slice),
            )
            for key, since in counts.items()
        ]
        decision = after_labels(evidence, self._rules, waited=now - run.opened_at)
        if isinstance(decision, Skip) and (alarm := blocking_alarm(run, unresolved)):
            decision = Train(f"alarm {alarm.id} shows a loss of accuracy")
        if isinstance(decision, Train):
            self._transition(run, now, state="training", outcome=decision.reason)
        elif isinstance(decision, Skip):
            self._transition(run, now, state="skipped", outcome=decision.reason)
        elif decision.reason != run.outcome:
            self._transition(run, now, outcome=decision.reason)

    def _train(self, run: Run, state: DeploymentState, now: datetime) -> None:
        """Start an attempt, poll it, or take its result to the gate."""
        if self._training is not None and self._training[0] == run.id:
            result = self._training[1].poll()
            if result is not None:
                self._training = None
                self._finish_attempt(run, result, state, now)
            return
        self._kill_training()
        if run.attempts and self._failed != (run.id, run.attempts):
            left = self._launcher.result(run)
            if left is not None:  # finished before a restart
                self._finish_attempt(run, left, state, now)
                return
        if run.attempts >= self._settings.attempts:
            outcome = run.outcome or f"training was interrupted {run.attempts} times"
            self._transition(run, now, state="failed", outcome=outcome)
            return
        if run.attempts and now < run.updated_at + RETRY_AFTER * run.attempts:
            return
        champion = self._registry.alias(CHAMPION)
        if champion is None:
            self._transition(run, now, state="failed", outcome="no champion to compare a candidate with")
            return
        run = self._transition(run, now, state="training", attempts=run.attempts + 1, champion=champion, outcome="")
        try:
            self._training = run.id, self._launcher.begin(run, champion)
        except (ServiceError, ModelError, OSError) as error:
            if isinstance(error, StoreError):
                raise
            self._fail_attempt(run, f"training could not start: {error}", now)

    def _kill_training(self) -> None:
        if self._training is not None:
            self._training[1].kill()
            self._training = None

    def _finish_attempt(
        self, run: Run, result: TrainingResult | TrainingFailed, state: DeploymentState, now: datetime
    ) -> None:
        if isinstance(result, TrainingFailed):
            self._fail_attempt(run, result.reason, now)
            return
        try:
            self._judge(run, result, state, now)
        except ModelError as error:
            self._fail_attempt(run, f"the candidate cannot be used: {error}", now)

    def _fail_attempt(self, run: Run, reason: str, now: datetime) -> None:
        """Record the reason; a later step tries again while attempts are left."""
        self._failed = run.id, run.attempts
        if run.attempts >= self._settings.attempts:
            self._transition(run, now, state="failed", outcome=reason)
        else:
            outcome = f"attempt {run.attempts} failed and will be retried: {reason}"
            self._transition(run, now, outcome=outcome)

    def _judge(self, run: Run, result: TrainingResult, state: DeploymentState, now: datetime) -> None:
        """Register the candidate, and record the decision of the gate with the candidate's expected coverage.

        A slice with a coverage alarm is expected to keep its coverage since the change.
        """
        from models.bundle.model_bundle import ModelBundle  # imports torch

        bundle = ModelBundle.load(result.candidate)
        candidate = self._registry.put(bundle)
        if candidate == run.champion:
            outcome = f"nothing new to learn from: training reproduced version {candidate} bit for bit"
            self._transition(run, now, state="skipped", candidate=candidate, outcome=outcome)
            return
        protected = {name for name, metadata in state.metadata.items() if metadata.protected}
        settings = self._settings
        decision = decide(result.pairs, protected, margin=settings.margin, minimum_rows=settings.minimum_rows)
        baseline: Baseline = {}
        if state.version is not None:
            fingerprints = state.fingerprints
            with self._store.read() as connection:
                keys = [
                    ChangeKey.of(alarm)
                    for alarm in alarms(connection, state.model, unresolved=True)
                    if alarm.drift.kind == "coverage" and fingerprints.get(alarm.drift.slice) == alarm.drift.fingerprint
                ]
                moved = coverage_since(connection, state.model, state.version, keys, bundle)
            baseline = run_baseline(state.references, moved, fingerprints)
        self._transition(
            run,
            now,
            state="gated",
            candidate=candidate,
            data={**result.data, BASELINE_KEY: baseline_to_json(baseline)},
            decision=decision,
            outcome=f"gate decision: {decision.outcome}: {'; '.join(decision.reasons)}",
        )

    def _apply_decision(self, run: Run, now: datetime) -> None:
        """Carry out the decision of the gate; a promotion done before a restart is not repeated."""
        decision, candidate = run.decision, run.candidate
        if decision is None or candidate is None:
            self._transition(run, now, state="failed", outcome="the decision of the gate is missing")
            return
        reasons = "; ".join(decision.reasons)
        if decision.outcome != "promote":
            self._transition(run, now, state=_END[decision.outcome], outcome=reasons)
            return
        reason = f"run {run.id}: {run.reason}"
        last: AliasChange | None = None
        done: list[AliasChange] = []
        try:
            last = self._registry.change(CHAMPION)
            # A run of another store may have had the same number and reason: its change is older than this run.
            done = [
                change
                for change in self._registry.readable_history(CHAMPION)
                if change.reason == reason and change.version == candidate and change.at >= run.opened_at
            ]
            if not done and last is not None and last.version == run.champion:
                done = [self._registry.promote(candidate, expected=last, reason=reason, at=now)]
        except RegistryUnavailable as error:  # such as a full disk: the next step tries again
            outcome = f"version {candidate} waits to be promoted: {error}"
            if run.outcome != outcome:
                self._transition(run, now, outcome=outcome)
            return
        except ModelError as error:
            if self._registry.change(CHAMPION) == last:
                outcome = f"version {candidate} was not promoted: {error}"
                self._transition(run, now, state="failed", outcome=outcome)
                return
        if done:
            outcome = f"version {candidate} is champion: {reasons}"
            self._transition(run, now, change=done[-1], state="promoted", outcome=outcome)
        else:
            champion = self._registry.alias(CHAMPION) or "none"
            outcome = (
                f"the candidate was compared with version {run.champion}, but the champion is now version {champion}: "
                f"promote version {candidate} manually, or leave it"
            )
            self._transition(run, now, state="held", outcome=outcome)

    def _transition(self, run: Run, now: datetime, change: AliasChange | None = None, **changes: Any) -> Run:
        """Change a run, with the audit entry of its promotion; raises as `move_run`."""

        def work(connection: Connection) -> Run:
            if change is not None:
                detail = {"reason": change.reason, "sequence": change.sequence}
                record(
                    connection,
                    AuditEntry(change.at, "monitor", "model.promoted", f"version {change.version}", detail),
                )
            return move_run(connection, run.id, run.state, now, **changes)

        moved = self._writer.submit(work).result()
        if moved.state != run.state or moved.attempts != run.attempts:
            level, text = logging.INFO, moved.outcome or moved.reason
            if moved.state == "failed":  # the reason may quote a row
                _log.info("run %d failed: `slicewatch retrain show %d` has the reason", moved.id, moved.id)
                level = logging.DEBUG
            _log.log(level, "run %d is %s: %s", moved.id, moved.state, text)
            if moved.state not in ACTIVE:
                self._metrics.count_retrain(moved.state)
                self._launcher.delete(moved)
        return moved
