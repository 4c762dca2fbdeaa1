"""How a run ends once the gate has spoken."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection

from models.errors import ModelError
from models.registry import CHAMPION, AliasChange
from service.decisions import Decision, Outcome, Run, RunState
from service.jobs.run_parts import RetrainParts, move, say_moved
from service.store.audit import tell
from service.store.runs import move_run

_END: Mapping[Outcome, RunState] = {"promote": "promoted", "hold": "held", "reject": "rejected"}


def conclude(parts: RetrainParts, run: Run, now: datetime) -> None:
    """Do what the gate has decided; a promotion that was done before a restart is not done again."""
    decision = run.decision
    if decision is None or run.candidate is None:
        move(parts, run, now, state="failed", outcome="the gate's decision is missing")
    elif decision.outcome == "promote":
        _promote(parts, run, run.candidate, decision, now)
    else:
        move(parts, run, now, state=_END[decision.outcome], outcome="; ".join(decision.reasons))


def _promote(parts: RetrainParts, run: Run, candidate: int, decision: Decision, now: datetime) -> None:
    history = parts.registry.history(CHAMPION)
    reason = f"run {run.id}: {run.reason}"
    done = next((each for each in reversed(history) if _is_ours(each, run, candidate, reason)), None)
    try:
        if done is None and history and history[-1].version == run.champion:
            done = parts.registry.promote(candidate, expected=history[-1], reason=reason, at=now)
    except ModelError as error:
        if parts.registry.history(CHAMPION) == history:
            move(parts, run, now, state="failed", outcome=f"version {candidate} was not promoted: {error}")
            return
    if done is None:
        there = parts.registry.alias(CHAMPION) or "none"
        said = f"it was compared with version {run.champion}, but version {there} is champion by now"
        move(parts, run, now, state="held", outcome=f"{said}: promote version {candidate} by hand, or not")
        return
    _keep_promoted(parts, run, done, decision, now)


def _is_ours(change: AliasChange, run: Run, candidate: int, reason: str) -> bool:
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

    say_moved(parts, parts.writer.submit(work).result())
