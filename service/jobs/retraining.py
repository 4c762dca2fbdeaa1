"""Moves a retraining on, a step at a look: opened, labels awaited, trained, gated, promoted or not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from models.registry import CHAMPION
from service.decisions import Alarm, Run
from service.jobs.run_ends import conclude
from service.jobs.run_parts import GateRules, RetrainParts, move
from service.jobs.run_training import Trainer
from service.jobs.since import Wanted, counted_since
from service.monitor.policy import labels_verdict, next_run, urgent
from service.monitor.policy_values import Opening, Rules, Seen, Skip, Train, Wait
from service.store.alarms import alarms
from service.store.runs import active_run, open_run, runs
from service.views.current import InForce

LABELS_EVERY = timedelta(minutes=1)
"""How often a run that waits counts the labels since the change; it reads every block since."""

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
        self._parts, self._rules, self._automatic = parts, rules, automatic
        self._trainer = Trainer(parts, gate)
        self._counted: tuple[int, datetime] | None = None  # for which run labels were counted, and when

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
            self._trainer.drop()
            # a version that was promoted a moment ago answers in a moment, with references of its own
            if self._automatic and in_force.version == self._parts.registry.alias(CHAMPION) is not None:
                self._open(in_force, standing, now)
        elif run.state == "waiting_for_labels":
            self._await_labels(run, in_force, standing, now)
        elif run.state == "training":
            self._trainer.step(run, in_force, now)
        else:
            conclude(self._parts, run, now)

    def request(self, reason: str, actor: str, now: datetime) -> Run:
        """Open a run because somebody asks for it. Raises RunActive where one goes on."""
        model = self._parts.current.in_force.model
        work = partial(
            open_run, model=model, state="training", trigger="request", reason=reason, at=now, actor=actor
        )
        return self._parts.writer.submit(work).result()

    def stop(self, now: datetime) -> None:
        """End a training that goes on; it is begun again after the next start."""
        with self._parts.store.read() as connection:
            run = active_run(connection, self._parts.current.in_force.model)
        self._trainer.stop(run, now)

    def _open(self, in_force: InForce, standing: Sequence[Alarm], now: datetime) -> None:
        with self._parts.store.read() as connection:
            before = runs(connection, in_force.model, limit=_RUNS, whole=False)
        mine = [each for each in standing if each.version == in_force.version]
        found = next_run(mine, before, now, self._rules, in_force_since=in_force.promoted_at)
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
        if self._counted is None or self._counted[0] != run.id or now >= self._counted[1] + LABELS_EVERY:
            self._counted = run.id, now
            said = labels_verdict(self._seen(mine, in_force), self._rules, waited=now - run.opened_at)
            if isinstance(said, Skip) and (wrong := urgent(run, standing)):
                said = Train(f"alarm {wrong.id} says that accuracy suffers")
            self._heed(run, said, now)

    def _heed(self, run: Run, said: Wait | Train | Skip, now: datetime) -> None:
        """Do what the labels say."""
        if isinstance(said, Train):
            move(self._parts, run, now, state="training", outcome=said.reason)
        elif isinstance(said, Skip):
            move(self._parts, run, now, state="skipped", outcome=said.reason)
        elif said.reason != run.outcome:
            move(self._parts, run, now, outcome=said.reason)

    def _seen(self, of: Sequence[Alarm], in_force: InForce) -> list[Seen]:
        """Return what is known of the slices whose coverage moved."""
        moved = {Wanted.of(each): each.drift.direction for each in of if each.drift.kind == "coverage"}
        with self._parts.store.read() as connection:
            found = counted_since(connection, in_force.model, of[0].version, moved)
        return [
            Seen(
                each.slice,
                moved[each] or "up",
                since.accuracy.n,
                since.accuracy.count,
                self._parts.zone(each.slice),
            )
            for each, since in found.items()
        ]


def attempt_folder(runs_folder: Path, run: Run) -> Path:
    """Return the folder of a run's attempt at training."""
    return runs_folder / f"{run.id:06d}" / f"attempt-{run.attempts}"
