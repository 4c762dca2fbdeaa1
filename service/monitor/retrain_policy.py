"""What the retraining policy goes by, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from service.decisions import ACTIVE, Alarm, Direction, Run, ToleranceBand, Trigger
from sfs.function import ALL_ROWS
from sfs.intervals import Rate


@dataclass(frozen=True, slots=True)
class RetrainRules:
    """What is waited for, and how often training is let happen.

    Parameters
    ----------
    new_labels
        Labelled members since the change that every risen slice needs.
    cool_down
        The least time between the end of one training and the opening of the next run.
    runs_a_month
        Trainings in any 30 days.
    wait
        How long labels are waited for.
    max_age
        Age at which a version is replaced though nothing is wrong; None for never.
    """

    new_labels: int
    cool_down: timedelta
    runs_a_month: int
    wait: timedelta
    max_age: timedelta | None = None

    @classmethod
    def of(
        cls,
        *,
        new_labels: int = 200,
        cool_down_hours: float = 24.0,
        runs_a_month: int = 8,
        wait_days: float = 14.0,
        max_age_days: float | None = None,
    ) -> RetrainRules:
        """Return the rules as settings name them."""
        return cls(
            new_labels,
            timedelta(hours=cool_down_hours),
            runs_a_month,
            timedelta(days=wait_days),
            None if max_age_days is None else timedelta(days=max_age_days),
        )


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run to open now, as the store takes it."""

    state: Literal["waiting_for_labels", "training"]
    trigger: Trigger
    reason: str
    alarms: tuple[int, ...] = ()
    slices: tuple[str, ...] = ()
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """A run is asked for, but not now; ``until`` is None where another run has to end first."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SliceEvidence:
    """What is known of a slice whose coverage moved.

    Parameters
    ----------
    slice, direction
        Which, and where its coverage went.
    labelled, right
        Members that were labelled since the change, and those of them that the model got right.
    zone
        Where its accuracy may lie; None without a reference.
    """

    slice: str
    direction: Direction
    labelled: int
    right: int
    zone: ToleranceBand | None

    @property
    def accuracy(self) -> Rate:
        """How often the model was right since the change."""
        return Rate(self.right, self.labelled)


@dataclass(frozen=True, slots=True)
class Wait:
    """Not enough labels yet: how many each risen slice has."""

    reason: str
    labelled: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Train:
    """Train now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Skip:
    """End the run without training."""

    reason: str


def alarm_summary(alarm: Alarm) -> str:
    """Return what an alarm says, as part of a sentence: which slice, which rate, how far, since when."""
    drift = alarm.drift
    went = "moved" if drift.direction is None else {"up": "rose", "down": "fell"}[drift.direction]
    unit = "rows" if drift.kind == "coverage" else "labels"
    observed = "no rows" if drift.observed.value is None else share(drift.observed, unit)
    zone = drift.zone
    expected = "" if zone is None else f", expected {percent(zone.lower)} to {percent(zone.upper)}"
    return (
        f"{drift.kind} of {drift.slice} {went} to {observed} since {clock(drift.since or alarm.at)}{expected}"
    )


def accuracy_summary(name: str, observed: Rate, zone: ToleranceBand | None) -> str:
    """Return how right the model is on a slice since a change, against what is expected."""
    before = "no accuracy to compare with"
    if zone is not None and zone.reference.n:
        before = f"{share(zone.reference, 'held-out rows')} before"
    return f"accuracy of {name} since the change is {share(observed, 'labels')}, {before}"


def share(rate: Rate, unit: str) -> str:
    """Return a rate with its counts."""
    return f"{percent(rate.value or 0.0)} ({rate.count:,} of {rate.n:,} {unit})"


def percent(value: float) -> str:
    """Return a share as a percentage of three digits."""
    return f"{value * 100:.3g} %"


def clock(at: datetime) -> str:
    """Return a time to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def days(span: timedelta) -> str:
    """Return a span of time in days."""
    return f"{span / timedelta(days=1):.3g} days"


FEWEST_ROWS = 30
"""Rows of reference below which its accuracy is nothing to compare with."""

_MONTH = timedelta(days=30)


def next_run(
    alarms: Sequence[Alarm],
    runs: Sequence[Run],
    now: datetime,
    rules: RetrainRules,
    *,
    in_force_since: datetime | None = None,
) -> OpenRun | Deferred | None:
    """Return the run that the alarms, or the age of the version in force, ask for; None where nothing does.

    An accuracy alarm goes straight to training, and its run answers the coverage alarms of its slices too. Of
    coverage alarms alone one run is opened, which waits for labels. Each alarm is answered once: by any run
    that names it and did not end ``failed``. After a failure it asks again, once the cool-down is over; so does
    an accuracy alarm whose candidate was held or rejected, for labels go on coming.
    A run that was skipped trained nothing: it starts no cool-down and takes nothing from the budget. All other
    runs do, those that people asked for among them.

    Parameters
    ----------
    alarms
        The alarms of a model; resolved ones are passed over.
    runs
        Its runs, in any order: at least those of the last 30 days, of ``rules.max_age``, and those that
        answered the unresolved alarms.
    now
        The time.
    rules
        What is let happen.
    in_force_since
        When the version in force was promoted; None leaves its age out.

    Examples
    --------
    >>> next_run([], [], datetime(2026, 1, 1), RetrainRules.of()) is None
    True
    """
    opening = _alarms_to_answer(alarms, runs, now, rules, in_force_since)
    return None if opening is None else _deferred_by(runs, now, rules) or opening


def blocking_alarm(run: Run, alarms: Iterable[Alarm]) -> Alarm | None:
    """Return the accuracy alarm that stands against calling what a run is about benign, if any.

    It is about a slice of the run, or about the whole traffic's accuracy.
    """
    about = {*run.slices, ALL_ROWS}
    return next(
        (
            alarm
            for alarm in alarms
            if alarm.state != "resolved" and alarm.drift.kind == "accuracy" and alarm.drift.slice in about
        ),
        None,
    )


def after_labels(
    slices: Sequence[SliceEvidence], rules: RetrainRules, *, waited: timedelta
) -> Wait | Train | Skip:
    """Return what a run that waits for labels does next.

    A slice whose coverage fell needs no labels: there are fewer rows of it, and what the model knew of them
    still holds. Of a slice that rose the accuracy since the change is looked at once it has
    ``rules.new_labels``. It did not suffer when the labels do not speak, at one-sided 95 %, for less than the
    reference less its tolerance. The reference is taken as it is: what it leaves open widens the zone that
    alarms, and would here excuse a real loss. With few rows of reference, or none, nothing can be shown, and
    training is the answer. After ``rules.wait`` the slices that have enough labels decide alone; where these did not
    suffer the run ends for want of labels.

    Parameters
    ----------
    slices
        Those of the run's coverage alarms.
    rules
        How many labels, and how long they are waited for.
    waited
        Since the run was opened.
    """
    risen = [each for each in slices if each.direction == "up"]
    if not risen:
        fallen = ", ".join(each.slice for each in slices)
        return Skip(f"benign: only fewer rows than expected, of {fallen}: there is nothing to learn from")
    known = [each for each in risen if each.labelled >= rules.new_labels]
    suffered = [each for each in known if not _unharmed(each)]
    if len(known) < len(risen) and waited <= rules.wait:
        return _wait(risen, rules)
    if suffered:
        return Train("; ".join(_accuracy(each) for each in suffered))
    if len(known) < len(risen):
        short = "; ".join(_labelled(each, rules) for each in risen if each not in known)
        return Skip(f"no labels: after {days(rules.wait)} {short}")
    return Skip("benign: " + "; ".join(_accuracy(each) for each in known))


def _alarms_to_answer(
    alarms: Sequence[Alarm],
    runs: Sequence[Run],
    now: datetime,
    rules: RetrainRules,
    in_force_since: datetime | None,
) -> OpenRun | None:
    """Return the run that is asked for, whether it may be opened now or not."""
    open_ = sorted(
        (each for each in alarms if each.state != "resolved" and not _is_answered(each, runs)),
        key=lambda each: each.id,
    )
    wrong = {each.drift.slice for each in open_ if each.drift.kind == "accuracy"}
    if wrong:
        return _answering("training", "accuracy", [each for each in open_ if each.drift.slice in wrong])
    if open_:
        return _answering("waiting_for_labels", "coverage", open_)
    return _overdue(runs, now, rules, in_force_since)


def _is_answered(alarm: Alarm, runs: Sequence[Run]) -> bool:
    """Tell whether a run has answered an alarm; what nobody took over leaves an accuracy as bad as it was."""
    unanswering = ("failed",) if alarm.drift.kind == "coverage" else ("failed", "held", "rejected")
    return any(alarm.id in run.alarms and run.state not in unanswering for run in runs)


def _answering(
    state: Literal["waiting_for_labels", "training"], trigger: Trigger, alarms: Sequence[Alarm]
) -> OpenRun:
    return OpenRun(
        state,
        trigger,
        "; ".join(alarm_summary(each) for each in alarms),
        tuple(each.id for each in alarms),
        tuple(dict.fromkeys(each.drift.slice for each in alarms)),
        min(each.drift.since or each.at for each in alarms),
    )


def _overdue(
    runs: Sequence[Run], now: datetime, rules: RetrainRules, in_force_since: datetime | None
) -> OpenRun | None:
    """Return a run for a version that is too old, unless one has been tried within the same time."""
    if rules.max_age is None or in_force_since is None:
        return None
    tried = [run.updated_at for run in runs if run.state in ("promoted", "held", "rejected")]
    if max([in_force_since, *tried]) + rules.max_age > now:
        return None
    age = days(now - in_force_since)
    return OpenRun("training", "age", f"the version in force is {age} old, of at most {days(rules.max_age)}")


def _deferred_by(runs: Sequence[Run], now: datetime, rules: RetrainRules) -> Deferred | None:
    """Return what stands against opening a run now."""
    active = next((run for run in runs if run.state in ACTIVE), None)
    if active is not None:
        return Deferred(f"run {active.id} is {active.state.replace('_', ' ')}")
    trained = sorted((run for run in runs if run.state != "skipped"), key=lambda run: run.updated_at)
    if trained and trained[-1].updated_at + rules.cool_down > now:
        last = trained[-1]
        cooled = last.updated_at + rules.cool_down
        return Deferred(f"cool-down until {clock(cooled)}: run {last.id} ended {last.state}", cooled)
    month = [run for run in trained if run.updated_at + _MONTH > now]
    if len(month) >= rules.runs_a_month:
        until = month[-rules.runs_a_month].updated_at + _MONTH if rules.runs_a_month else None
        return Deferred(f"budget: {len(month)} runs in 30 days, of at most {rules.runs_a_month}", until)
    return None


def _unharmed(seen: SliceEvidence) -> bool:
    if seen.zone is None or seen.zone.reference.n < FEWEST_ROWS:
        return False
    reference = seen.zone.reference
    _, most = seen.accuracy.interval(0.9)  # its upper limit is one-sided 95 %
    return most >= reference.count / reference.n - seen.zone.tolerance


def _wait(risen: Sequence[SliceEvidence], rules: RetrainRules) -> Wait:
    short = "; ".join(_labelled(each, rules) for each in risen if each.labelled < rules.new_labels)
    return Wait(f"waiting for labels: {short}", tuple((each.slice, each.labelled) for each in risen))


def _labelled(seen: SliceEvidence, rules: RetrainRules) -> str:
    return f"{seen.slice} has {seen.labelled:,} of {rules.new_labels:,} labels"


def _accuracy(seen: SliceEvidence) -> str:
    return accuracy_summary(seen.slice, seen.accuracy, seen.zone)
