"""What a retraining speaks to, and how a run is moved on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import Connection

from models.errors import ModelError
from models.registry import CHAMPION, AliasChange, ModelRegistry
from service.decisions import ACTIVE, Alarm, Decision, Outcome, Run, RunState, ToleranceBand
from service.errors import ServiceError
from service.jobs.training.process import RunningTraining, TrainingFailed, TrainingResult, register
from service.monitor.promotion_gate import decide
from service.monitor.retrain_policy import (
    OpenRun,
    RetrainRules,
    Skip,
    SliceEvidence,
    Train,
    Wait,
    after_labels,
    blocking_alarm,
    next_run,
)
from service.store.alarms import alarms
from service.store.audit import tell
from service.store.counts_since import ChangeKey, counts_since
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.runs import active_run, move_run, open_run, runs
from service.store.writer import Writer
from service.views.current import Current, InForce
from sfs.intervals import Rate

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetrainParts:
    """What the job speaks to.

    Parameters
    ----------
    store, writer
        The log, and the runs in it.
    current
        What is in force.
    registry
        Where versions are, and which is champion.
    begin
        Begins to train for a run, in a folder of the attempt's own; the champion's number goes with it.
    finished
        What an attempt came to that was done before a restart; None where it was not.
    zone
        Where the accuracy of a slice may lie, by name; None without a reference.
    ended
        Told every run that has come to its end.
    """

    store: Store
    writer: Writer
    current: Current
    registry: ModelRegistry
    begin: Callable[[Run, int], RunningTraining]
    finished: Callable[[Run], TrainingResult | None]
    zone: Callable[[str], ToleranceBand | None]
    ended: Callable[[Run], object]


@dataclass(frozen=True, slots=True)
class GateRules:
    """What the gate asks of a candidate, and how often training may be begun."""

    margin: float
    minimum_rows: int
    attempts: int


def transition(parts: RetrainParts, run: Run, now: datetime, **changes: Any) -> Run:
    """Move a run on from where it stands, as ``move_run``, and say so. Raises as ``move_run``."""
    moved = parts.writer.submit(
        lambda connection: move_run(connection, run.id, run.state, now, **changes)
    ).result()
    if moved.state != run.state or moved.attempts != run.attempts:
        log_transition(parts, moved)
    return moved


def log_transition(parts: RetrainParts, run: Run) -> None:
    """Say where a run stands now, and count it if that is its end."""
    _log.info("run %d is %s: %s", run.id, run.state, run.outcome or run.reason)
    if run.state not in ACTIVE:
        parts.ended(run)


_END: Mapping[Outcome, RunState] = {"promote": "promoted", "hold": "held", "reject": "rejected"}


def apply_decision(parts: RetrainParts, run: Run, now: datetime) -> None:
    """Do what the gate has decided; a promotion that was done before a restart is not done again."""
    decision = run.decision
    if decision is None or run.candidate is None:
        transition(parts, run, now, state="failed", outcome="the gate's decision is missing")
    elif decision.outcome == "promote":
        _promote(parts, run, run.candidate, decision, now)
    else:
        transition(parts, run, now, state=_END[decision.outcome], outcome="; ".join(decision.reasons))


def _promote(parts: RetrainParts, run: Run, candidate: int, decision: Decision, now: datetime) -> None:
    history = parts.registry.history(CHAMPION)
    reason = f"run {run.id}: {run.reason}"
    done = next((each for each in reversed(history) if _made_by_run(each, run, candidate, reason)), None)
    try:
        if done is None and history and history[-1].version == run.champion:
            done = parts.registry.promote(candidate, expected=history[-1], reason=reason, at=now)
    except ModelError as error:
        if parts.registry.history(CHAMPION) == history:
            transition(
                parts, run, now, state="failed", outcome=f"version {candidate} was not promoted: {error}"
            )
            return
    if done is None:
        there = parts.registry.alias(CHAMPION) or "none"
        said = f"it was compared with version {run.champion}, but version {there} is champion by now"
        transition(
            parts, run, now, state="held", outcome=f"{said}: promote version {candidate} by hand, or not"
        )
        return
    _keep_promoted(parts, run, done, decision, now)


def _made_by_run(change: AliasChange, run: Run, candidate: int, reason: str) -> bool:
    """Tell whether a change was made for a run; another store's run may have had the same number and reason."""
    return change.reason == reason and change.version == candidate and change.at >= run.opened_at


def _keep_promoted(
    parts: RetrainParts, run: Run, change: AliasChange, decision: Decision, now: datetime
) -> None:
    detail = {"reason": change.reason, "sequence": change.sequence}

    def work(connection: Connection) -> Run:
        tell(connection, change.at, "monitor", "model.promoted", f"version {change.version}", detail)
        said = f"version {change.version} is champion: {'; '.join(decision.reasons)}"
        return move_run(connection, run.id, run.state, now, state="promoted", outcome=said)

    log_transition(parts, parts.writer.submit(work).result())


Baseline: TypeAlias = dict[tuple[str, str], Rate]
"""By name and fingerprint of the function: the coverage that is expected."""

DATA_KEY = "baseline"
"""Under which it stands in the data of a run."""


def baseline(
    references: Mapping[str, Rate], moved: Mapping[str, Rate], fingerprints: Mapping[str, str]
) -> Baseline:
    """Return what is expected once a run's version is in force.

    Of a slice that has moved that is what was counted since; of any other what was expected before, for no
    alarm has spoken against it.
    """
    expected = {**references, **{name: rate for name, rate in moved.items() if rate.n}}
    return {(name, fingerprints[name]): rate for name, rate in expected.items() if name in fingerprints}


def to_json(rates: Baseline) -> list[dict[str, Any]]:
    """Return a baseline as JSON values."""
    return [
        {"slice": name, "fingerprint": fingerprint, "count": rate.count, "n": rate.n}
        for (name, fingerprint), rate in rates.items()
    ]


def of_run(run: Run | None) -> Baseline:
    """Return the baseline that a run has left; none where there is no run, or it left none."""
    kept = (run.data or {}).get(DATA_KEY, ()) if run is not None else ()
    return {(each["slice"], each["fingerprint"]): Rate(each["count"], each["n"]) for each in kept}


RETRY_AFTER = timedelta(minutes=1)
"""Between two attempts, times the attempts that there were."""


class TrainingStep:
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
            transition(
                self._parts, run, now, attempts=run.attempts - 1, outcome="it goes on after the restart"
            )

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
            transition(self._parts, run, now, state="failed", outcome=why)
        elif not run.attempts or now >= run.updated_at + RETRY_AFTER * run.attempts:
            self._begin(run, now)

    def _begin(self, run: Run, now: datetime) -> None:
        champion = self._parts.registry.alias(CHAMPION)
        if champion is None:
            why = "there is no champion to compare a candidate with"
            transition(self._parts, run, now, state="failed", outcome=why)
            return
        attempt = run.attempts + 1
        moved = transition(
            self._parts, run, now, state="training", attempts=attempt, champion=champion, outcome=""
        )
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
            transition(self._parts, run, now, state="failed", outcome=why)
        else:
            transition(
                self._parts, run, now, outcome=f"attempt {run.attempts} failed, another follows: {why}"
            )

    def _judge(self, run: Run, result: TrainingResult, in_force: InForce, now: datetime) -> None:
        """Register the candidate, let the gate decide, and keep both with what will be expected of it."""
        candidate = register(self._parts.registry, result.candidate)
        if candidate == run.champion:
            why = f"nothing new to learn from: training gave version {candidate} again, bit for bit"
            transition(self._parts, run, now, state="skipped", candidate=candidate, outcome=why)
            return
        protected = {name for name, each in in_force.metadata.items() if each.protected}
        decision = decide(
            result.pairs, protected, margin=self._gate.margin, minimum_rows=self._gate.minimum_rows
        )
        data: Mapping[str, Any] = {**result.data, DATA_KEY: to_json(self._baseline(in_force))}
        said = f"the gate says {decision.outcome}: {'; '.join(decision.reasons)}"
        kept: dict[str, Any] = {"candidate": candidate, "data": data, "decision": decision, "outcome": said}
        transition(self._parts, run, now, state="gated", **kept)

    def _baseline(self, in_force: InForce) -> Baseline:
        """Return what will be expected of the candidate: of the slices with an alarm, what they became."""
        if in_force.version is None:
            return {}
        with self._parts.store.read() as connection:
            wanted = [
                ChangeKey.of(each)
                for each in alarms(connection, in_force.model, unresolved=True)
                if each.drift.kind == "coverage"
                and in_force.fingerprints.get(each.drift.slice) == each.drift.fingerprint
            ]
            found = counts_since(connection, in_force.model, in_force.version, wanted)
        moved = {each.slice: since.coverage for each, since in found.items()}
        return baseline(in_force.references, moved, in_force.fingerprints)


LABELS_EVERY = timedelta(minutes=1)
"""How often a run that waits counts the labels since the change; it reads every block since."""

_RUNS = 1000  # of the last ones, that the policy looks at


class Retraining:
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

    def __init__(
        self, parts: RetrainParts, rules: RetrainRules, gate: GateRules, automatic: bool = True
    ) -> None:
        self._parts, self._rules, self._automatic = parts, rules, automatic
        self._trainer = TrainingStep(parts, gate)
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
            apply_decision(self._parts, run, now)

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
        if isinstance(found, OpenRun):
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
            transition(
                self._parts,
                run,
                now,
                state="skipped",
                outcome="its alarms were resolved before there were labels",
            )
            return
        if self._counted is None or self._counted[0] != run.id or now >= self._counted[1] + LABELS_EVERY:
            self._counted = run.id, now
            said = after_labels(self._seen(mine, in_force), self._rules, waited=now - run.opened_at)
            if isinstance(said, Skip) and (wrong := blocking_alarm(run, standing)):
                said = Train(f"alarm {wrong.id} says that accuracy suffers")
            self._heed(run, said, now)

    def _heed(self, run: Run, said: Wait | Train | Skip, now: datetime) -> None:
        """Do what the labels say."""
        if isinstance(said, Train):
            transition(self._parts, run, now, state="training", outcome=said.reason)
        elif isinstance(said, Skip):
            transition(self._parts, run, now, state="skipped", outcome=said.reason)
        elif said.reason != run.outcome:
            transition(self._parts, run, now, outcome=said.reason)

    def _seen(self, of: Sequence[Alarm], in_force: InForce) -> list[SliceEvidence]:
        """Return what is known of the slices whose coverage moved."""
        moved = {ChangeKey.of(each): each.drift.direction for each in of if each.drift.kind == "coverage"}
        with self._parts.store.read() as connection:
            found = counts_since(connection, in_force.model, of[0].version, moved)
        return [
            SliceEvidence(
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
