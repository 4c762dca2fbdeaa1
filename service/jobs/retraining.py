"""Moves a retraining on, a step at a look: opened, labels awaited, trained, gated, promoted or not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from models.registry import CHAMPION
from service.decisions import Alarm, Run
from service.jobs.baselines import DATA_KEY, Baseline, baseline, to_json
from service.jobs.run_ends import conclude
from service.jobs.run_parts import GateRules, RetrainParts, move
from service.jobs.since import Since, counted_since
from service.jobs.training import RunningTraining, TrainingFailed, TrainingResult, register
from service.monitor.gate import decide, thinned
from service.monitor.policy import (
    Opening,
    Rules,
    Seen,
    Skip,
    Train,
    Wait,
    labels_verdict,
    next_run,
    urgent,
)
from service.store.alarms import alarms
from service.store.runs import active_run, open_run, runs
from service.views.current import InForce
from sfs.intervals import Rate

_RUNS = 1000  # of the last ones, that the policy looks at

_log = logging.getLogger(__name__)


class RetrainJob:
    """The one run of a model that is not at its end, moved on by every step.

    Every move is a transaction of its own, so that after a restart the run goes on where it stood; a training
    that was cut off is begun again. Not to be called from two threads at once.

    Parameters
    ----------
    parts
        What it speaks to.
    rules, gate
        When to train, and what a candidate has to show.
    """

    def __init__(self, parts: RetrainParts, rules: Rules, gate: GateRules, automatic: bool = True) -> None:
        self._parts, self._rules, self._gate, self._automatic = parts, rules, gate, automatic
        self._training: tuple[int, RunningTraining] | None = None

    def step(self, now: datetime) -> None:
        """Move on by what is possible now.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        in_force = self._parts.current.in_force
        with self._parts.store.read() as connection:
            run = active_run(connection, in_force.model)
            standing = alarms(connection, in_force.model, unresolved=True)
        if run is None:
            self._drop()
            if self._automatic and in_force.promoted_at is not None:
                self._open(in_force, standing, now)
        elif run.state == "waiting_for_labels":
            self._await_labels(run, in_force, standing, now)
        elif run.state == "training":
            self._train(run, in_force, now)
        else:
            conclude(self._parts, run, now)

    def request(self, reason: str, actor: str, now: datetime) -> Run:
        """Open a run because somebody asks for it. Raises RunActive where one goes on."""
        model = self._parts.current.in_force.model
        work = partial(
            open_run, model=model, state="training", trigger="request", reason=reason, at=now, actor=actor
        )
        return self._parts.writer.submit(work).result()

    def stop(self) -> None:
        """End a training that goes on; it is begun again after the next start."""
        self._drop()

    def _open(self, in_force: InForce, standing: Sequence[Alarm], now: datetime) -> None:
        with self._parts.store.read() as connection:
            before = runs(connection, in_force.model, limit=_RUNS)
        found = next_run(standing, before, now, self._rules, in_force_since=in_force.promoted_at)
        if isinstance(found, Opening):
            work = partial(
                open_run,
                model=in_force.model,
                state=found.state,
                trigger=found.trigger,
                reason=found.reason,
                at=now,
                alarms=found.alarms,
                slices=found.slices,
                since=found.since,
            )
            run = self._parts.writer.submit(work).result()
            _log.info("run %d: %s", run.id, run.reason, extra={"state": run.state})

    def _await_labels(self, run: Run, in_force: InForce, standing: Sequence[Alarm], now: datetime) -> None:
        mine = [each for each in standing if each.id in run.alarms]
        if not mine:
            move(
                self._parts,
                run,
                now,
                state="skipped",
                outcome="its alarms were resolved before there were labels",
            )
            return
        said: Wait | Train | Skip
        if wrong := urgent(run, standing):
            said = Train(f"alarm {wrong.id} says that accuracy suffers")
        else:
            said = labels_verdict(self._seen(mine, in_force, now), self._rules, waited=now - run.opened_at)
        if isinstance(said, Train):
            move(self._parts, run, now, state="training", outcome=said.reason)
        elif isinstance(said, Skip):
            move(self._parts, run, now, state="skipped", outcome=said.reason)
        elif said.reason != run.outcome:
            move(self._parts, run, now, outcome=said.reason)

    def _seen(self, of: Sequence[Alarm], in_force: InForce, now: datetime) -> list[Seen]:
        """Return what is known of the slices whose coverage moved."""
        moved = [each for each in of if each.drift.kind == "coverage"]
        found = self._since(moved, in_force, now)
        return [
            Seen(name, each.drift.direction or "up", *_counts(found[name].accuracy), self._parts.zone(name))
            for each in moved
            for name in [each.drift.slice]
        ]

    def _train(self, run: Run, in_force: InForce, now: datetime) -> None:
        if self._training is None or self._training[0] != run.id:
            if run.attempts and (done := self._parts.finished(run)):
                self._judge(run, done, in_force, now)
            else:
                self._begin(run, now)
            return
        polled = self._training[1].poll()
        if isinstance(polled, TrainingFailed):
            self._training = None
            if run.attempts >= self._gate.attempts:
                move(self._parts, run, now, state="failed", outcome=polled.reason)
            else:
                move(
                    self._parts,
                    run,
                    now,
                    outcome=f"attempt {run.attempts} failed, another follows: {polled.reason}",
                )
        elif isinstance(polled, TrainingResult):
            self._training = None
            self._judge(run, polled, in_force, now)

    def _begin(self, run: Run, now: datetime) -> None:
        champion = self._parts.registry.alias(CHAMPION)
        if run.attempts >= self._gate.attempts:
            move(self._parts, run, now, state="failed", outcome=f"training was cut off {run.attempts} times")
        elif champion is None:
            move(
                self._parts,
                run,
                now,
                state="failed",
                outcome="there is no champion to compare a candidate with",
            )
        else:
            moved = move(
                self._parts, run, now, state="training", attempts=run.attempts + 1, champion=champion
            )
            begun = self._parts.begin(moved, champion)
            self._training = (run.id, begun)

    def _judge(self, run: Run, result: TrainingResult, in_force: InForce, now: datetime) -> None:
        """Register the candidate, let the gate decide, and keep both with what will be expected of it."""
        candidate = register(self._parts.registry, result.candidate)
        protected = {name for name, each in in_force.metadata.items() if each.protected}
        decision = decide(
            [thinned(each, result.contents.get(each.slice, each.n)) for each in result.pairs],
            protected,
            margin=self._gate.margin,
            minimum_rows=self._gate.minimum_rows,
        )
        data: dict[str, Any] = {**result.data, DATA_KEY: to_json(self._baseline(in_force, now))}
        move(
            self._parts,
            run,
            now,
            state="gated",
            candidate=candidate,
            data=data,
            decision=decision,
            outcome=f"the gate says {decision.outcome}: {'; '.join(decision.reasons)}",
        )

    def _baseline(self, in_force: InForce, now: datetime) -> Baseline:
        """Return what will be expected of the candidate: of the slices with an alarm, what they became."""
        with self._parts.store.read() as connection:
            standing = alarms(connection, in_force.model, unresolved=True)
        moved = [each for each in standing if each.drift.kind == "coverage"]
        now_seen = {name: each.coverage for name, each in self._since(moved, in_force, now).items()}
        return baseline(in_force.references, now_seen, in_force.fingerprints)

    def _since(self, of: Sequence[Alarm], in_force: InForce, now: datetime) -> dict[str, Since]:
        """Return what was counted of the slices of some alarms since their changes began."""
        found: dict[str, Since] = {}
        with self._parts.store.read() as connection:
            for each in of:
                wanted, since = {each.drift.slice: each.drift.fingerprint}, each.drift.since or each.at
                found |= counted_since(connection, in_force.model, each.version, wanted, since, now)
        return found

    def _drop(self) -> None:
        if self._training is not None:
            self._training[1].kill()
            self._training = None


def attempt_folder(runs_folder: Path, run: Run) -> Path:
    """Return the folder of a run's attempt at training."""
    return runs_folder / f"{run.id:06d}" / f"attempt-{run.attempts}"


def _counts(rate: Rate) -> tuple[int, int]:
    """Return n, then the count."""
    return rate.n, rate.count
