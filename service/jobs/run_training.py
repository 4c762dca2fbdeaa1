"""Trains for a run, as often as may be, and lets the gate decide on what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from models.errors import ModelError
from models.registry import CHAMPION
from service.decisions import Run
from service.errors import ServiceError
from service.jobs.baselines import DATA_KEY, Baseline, baseline, to_json
from service.jobs.run_parts import GateRules, RetrainParts, move
from service.jobs.since import Wanted, counted_since
from service.jobs.training import RunningTraining, TrainingFailed, TrainingResult, register
from service.monitor.gate import decide
from service.store.alarms import alarms
from service.store.errors import StoreError
from service.views.current import InForce

AGAIN = timedelta(minutes=1)
"""Between two attempts, times the attempts that there were."""

_log = logging.getLogger(__name__)


class Trainer:
    """The training of the one run that is in training. Not to be called from two threads at once.

    Parameters
    ----------
    parts
        What it speaks to.
    gate
        What a candidate has to show, and how often training may be begun.
    """

    def __init__(self, parts: RetrainParts, gate: GateRules) -> None:
        self._parts, self._gate = parts, gate
        self._training: tuple[int, RunningTraining] | None = None
        self._failed: tuple[int, int] | None = None  # run and attempt whose result is of no use

    def step(self, run: Run, in_force: InForce, now: datetime) -> None:
        """Begin an attempt, look how it stands, or take what came of it to the gate."""
        if self._training is None or self._training[0] != run.id:
            self.drop()
            self._resume(run, in_force, now)
            return
        polled = self._training[1].poll()
        if polled is not None:
            self._training = None
            self._take(run, polled, in_force, now)

    def stop(self, run: Run | None, now: datetime) -> None:
        """End an attempt because the service stops; it does not count, and is begun again after the start."""
        running = self._training
        self.drop()
        if running is not None and run is not None and run.state == "training" and run.id == running[0]:
            move(self._parts, run, now, attempts=run.attempts - 1, outcome="it goes on after the restart")

    def drop(self) -> None:
        """End what trains for a run that is over."""
        if self._training is not None:
            self._training[1].kill()
            self._training = None

    def _resume(self, run: Run, in_force: InForce, now: datetime) -> None:
        """Take what an attempt left before a restart, or begin the next when it is time."""
        done = self._parts.finished(run) if run.attempts and self._failed != (run.id, run.attempts) else None
        if done is not None:
            self._take(run, done, in_force, now)
        elif run.attempts >= self._gate.attempts:
            why = run.outcome or f"training was cut off {run.attempts} times"
            move(self._parts, run, now, state="failed", outcome=why)
        elif not run.attempts or now >= run.updated_at + AGAIN * run.attempts:
            self._begin(run, now)

    def _begin(self, run: Run, now: datetime) -> None:
        champion = self._parts.registry.alias(CHAMPION)
        if champion is None:
            why = "there is no champion to compare a candidate with"
            move(self._parts, run, now, state="failed", outcome=why)
            return
        attempt = run.attempts + 1
        moved = move(self._parts, run, now, state="training", attempts=attempt, champion=champion, outcome="")
        try:
            self._training = run.id, self._parts.begin(moved, champion)
        except (ServiceError, ModelError, OSError) as error:
            if isinstance(error, StoreError):
                raise
            self._take(moved, TrainingFailed(f"it could not begin: {error}"), None, now)

    def _take(
        self,
        run: Run,
        ended: TrainingResult | TrainingFailed,
        in_force: InForce | None,
        now: datetime,
    ) -> None:
        """Go on with what came of an attempt; where that is nothing, say why, and try again or give up."""
        if isinstance(ended, TrainingResult) and in_force is not None:
            try:
                self._judge(run, ended, in_force, now)
                return
            except ModelError as error:
                ended = TrainingFailed(f"its candidate cannot be used: {error}")
        self._failed = run.id, run.attempts
        why = ended.reason if isinstance(ended, TrainingFailed) else "no version is in force"
        if run.attempts >= self._gate.attempts:
            move(self._parts, run, now, state="failed", outcome=why)
        else:
            move(self._parts, run, now, outcome=f"attempt {run.attempts} failed, another follows: {why}")

    def _judge(self, run: Run, result: TrainingResult, in_force: InForce, now: datetime) -> None:
        """Register the candidate, let the gate decide, and keep both with what will be expected of it."""
        candidate = register(self._parts.registry, result.candidate)
        if candidate == run.champion:
            why = f"nothing new to learn from: training gave version {candidate} again, bit for bit"
            move(self._parts, run, now, state="skipped", candidate=candidate, outcome=why)
            return
        protected = {name for name, each in in_force.metadata.items() if each.protected}
        decision = decide(
            result.pairs, protected, margin=self._gate.margin, minimum_rows=self._gate.minimum_rows
        )
        data: Mapping[str, Any] = {**result.data, DATA_KEY: to_json(self._baseline(in_force))}
        said = f"the gate says {decision.outcome}: {'; '.join(decision.reasons)}"
        kept: dict[str, Any] = {"candidate": candidate, "data": data, "decision": decision, "outcome": said}
        move(self._parts, run, now, state="gated", **kept)

    def _baseline(self, in_force: InForce) -> Baseline:
        """Return what will be expected of the candidate: of the slices with an alarm, what they became."""
        if in_force.version is None:
            return {}
        with self._parts.store.read() as connection:
            wanted = [
                Wanted.of(each)
                for each in alarms(connection, in_force.model, unresolved=True)
                if each.drift.kind == "coverage"
                and in_force.fingerprints.get(each.drift.slice) == each.drift.fingerprint
            ]
            found = counted_since(connection, in_force.model, in_force.version, wanted)
        moved = {each.slice: since.coverage for each, since in found.items()}
        return baseline(in_force.references, moved, in_force.fingerprints)
