"""Whether the story happened: what did not, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from service.demo.script import Goal
from service.demo.truth import Standing
from service.demo.watch import Document

PATH = ("waiting_for_labels", "training", "gated", "promoted")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it all.

    Parameters
    ----------
    run
        The retraining that the story is about, as it ended or stands; None where there was none.
    states
        Those that it went through.
    standings
        Which slices left their zones, and which were alarmed.
    before, after
        How right the model was on the goal's slice from the change until it was retrained, and since: right and
        labelled.
    log
        What is wrong with the log.
    calm_alarms
        Slices that alarmed before anything changed.
    """

    run: Document | None
    states: Sequence[str] = ()
    standings: Sequence[Standing] = ()
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    log: Sequence[str] = ()
    calm_alarms: Collection[str] = ()


def failures(result: Result, goal: Goal | None) -> list[str]:
    """Return what should have happened and did not; nothing where the story happened.

    With a goal a run has to end in a promotion that brings it. Without one it may also be held because a
    protected slice could not be verified.
    """
    found = [*_run_failures(result, goal), *_alarm_failures(result.standings), *result.log]
    if result.calm_alarms:
        found.append(f"alarms while nothing had changed: {', '.join(sorted(result.calm_alarms))}")
    return found + ([] if goal is None else _goal_failures(result, goal))


def _run_failures(result: Result, goal: Goal | None) -> Iterator[str]:
    run = result.run
    if run is None:
        yield "no retraining was begun"
    elif run["state"] == "promoted":
        missing = [state for state in PATH if state not in result.states] if goal else []
        if missing:
            yield f"run {run['id']} was promoted, and was never {', '.join(missing)}"
    elif goal is not None or not _is_unverified(run):
        yield f"run {run['id']} is {run['state']}: {run['outcome'] or run['reason']}"


def _is_unverified(run: Document) -> bool:
    """Tell whether a run is held because something could not be verified, and nothing was shown to be worse."""
    return run["state"] == "held" and (run["decision"] or {}).get("outcome") == "hold"


def _alarm_failures(standings: Sequence[Standing]) -> Iterator[str]:
    for each in standings:
        if each.left and not each.alarmed:
            yield f"{each.slice} left its zone under version {each.version} and no alarm was raised"
        if each.alarmed and each.left is False:
            yield f"{each.slice} was alarmed under version {each.version} and had not left its zone"


def _goal_failures(result: Result, goal: Goal) -> list[str]:
    found = []
    (right, n), (right_after, n_after) = result.before, result.after
    if not n or right > goal.at_most_before * n:
        found.append(
            f"before, accuracy on {goal.slice} was {share(right, n)}, not at most {goal.at_most_before}"
        )
    if n_after < goal.labelled:
        found.append(f"only {n_after} of {goal.labelled} labels on {goal.slice} came after the promotion")
    elif right_after < goal.at_least_after * n_after:
        said = f"after, accuracy on {goal.slice} is {share(right_after, n_after)}"
        found.append(f"{said}, not at least {goal.at_least_after}")
    return found


def share(count: int, n: int) -> str:
    """Return a rate with its counts.

    Examples
    --------
    >>> share(9, 12), share(0, 0)
    ('75.0 % (9 of 12)', 'not known (0 of 0)')
    """
    return f"{f'{100 * count / n:.1f} %' if n else 'not known'} ({count:,} of {n:,})"
