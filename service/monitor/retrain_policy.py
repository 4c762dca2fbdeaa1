"""Retraining policy: when to open a run, and when a run stops waiting for labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from service.decisions import ACTIVE, Alarm, Direction, Run, ToleranceBand, Trigger
from service.formatting import limit_text, percent, percent_of, recall_text
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

MINIMUM_REFERENCE_ROWS = 30
"""Effective n of the reference that a comparison of accuracy needs."""

_MONTH = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class RetrainRules:
    """Limits of retraining.

    Parameters
    ----------
    new_labels
        Labelled members since the change that every slice with risen coverage needs.
    cool_down
        Minimum time between the end of a training and the next run.
    runs_a_month
        Maximum trainings in any 30 days.
    wait
        Maximum wait for labels.
    max_age
        Age at which a version is retrained without an alarm; None for never.
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
        """Return the rules in the units of the settings."""
        max_age = None if max_age_days is None else timedelta(days=max_age_days)
        cool_down, wait = timedelta(hours=cool_down_hours), timedelta(days=wait_days)
        return cls(new_labels, cool_down, runs_a_month, wait, max_age)


@dataclass(frozen=True, slots=True)
class OpenRun:
    """Open this run now."""

    state: Literal["waiting_for_labels", "training"]
    trigger: Trigger
    reason: str
    alarms: tuple[int, ...] = ()
    slices: tuple[str, ...] = ()
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """Open a run later; ``until`` is None if another run has to end first."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SliceEvidence:
    """Slice whose coverage changed, with its labelled members since then and the correct predictions among them.

    ``zone`` is the tolerance band of its accuracy; None without a reference.
    """

    slice: str
    direction: Direction
    labelled: int
    right: int
    zone: ToleranceBand | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for labels; ``labelled`` holds the labels of every slice with risen coverage."""

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


def not_retrained(version: int | None) -> str:
    """Return the reason why a model without a champion is not retrained; ``version`` is that served elsewhere.

    Examples
    --------
    >>> not_retrained(7).partition(":")[0]
    'version 7 is served elsewhere'
    """
    if version is None:
        return "there is no champion to retrain: train a first version with `slicewatch train`"
    return (
        f"version {version} is served elsewhere: train it there, and log the predictions of the new version under a "
        "number of its own"
    )


def next_run(
    alarms: Sequence[Alarm],
    runs: Sequence[Run],
    now: datetime,
    rules: RetrainRules,
    *,
    in_force_since: datetime | None = None,
) -> OpenRun | Deferred | None:
    """Return the run that the alarms, or the age of the champion, call for; None without a cause.

    An accuracy alarm goes straight to training, and its run answers the coverage alarms of its slices too.
    Coverage alarms alone open one run, which waits for labels. Every alarm is answered once, by any run that
    names it and did not end ``failed``. After a failure it calls for another run when the cool-down is over;
    so does an accuracy alarm whose candidate was held or rejected, because more labels arrive. Every run but
    a skipped one, which trained nothing, starts a cool-down and counts towards the budget, requested runs
    included.

    Parameters
    ----------
    alarms
        Alarms of a model; resolved ones are ignored, and so are those that stand alone.
    runs
        Its runs, in any order: at least those of the last 30 days, of ``rules.max_age``, and those that
        answered the unresolved alarms.
    in_force_since
        Promotion of the champion; None ignores its age.

    Examples
    --------
    >>> next_run([], [], datetime(2026, 1, 1), RetrainRules.of()) is None
    True
    """
    wanted = _wanted_run(alarms, runs, now, rules, in_force_since)
    if wanted is None:
        return None
    if active := next((run for run in runs if run.state in ACTIVE), None):
        return Deferred(f"run {active.id} is {active.state.replace('_', ' ')}")
    trained = sorted((run for run in runs if run.state != "skipped"), key=lambda run: run.updated_at)
    if trained and (until := trained[-1].updated_at + rules.cool_down) > now:
        last = trained[-1]
        return Deferred(f"cool-down until {_time(until)} after run {last.id} ({last.state})", until)
    month = [run for run in trained if run.updated_at + _MONTH > now]
    if len(month) >= rules.runs_a_month:
        free_at = month[-rules.runs_a_month].updated_at + _MONTH if rules.runs_a_month else None
        return Deferred(f"budget exhausted: {len(month)} of {rules.runs_a_month} runs in 30 days", free_at)
    return wanted


def _wanted_run(
    alarms: Sequence[Alarm],
    runs: Sequence[Run],
    now: datetime,
    rules: RetrainRules,
    in_force_since: datetime | None,
) -> OpenRun | None:
    """Return the run to open, regardless of other runs."""
    unanswered = []
    for alarm in sorted(alarms, key=lambda alarm: alarm.id):
        # A candidate that was not promoted leaves the accuracy as it was.
        retried = ("failed", "held", "rejected") if alarm.drift.is_accuracy else ("failed",)
        answered = any(alarm.id in run.alarms and run.state not in retried for run in runs)
        if alarm.state != "resolved" and not answered and not alarm.drift.stands_alone:
            unanswered.append(alarm)
    if inaccurate := {name for alarm in unanswered if alarm.drift.is_accuracy for name in alarm.drift.slices}:
        return _answer("training", "accuracy", [a for a in unanswered if inaccurate & {*a.drift.slices}])
    if unanswered:
        return _answer("waiting_for_labels", "coverage", unanswered)
    if rules.max_age is None or in_force_since is None:
        return None
    retrained = [run.updated_at for run in runs if run.state in ("promoted", "held", "rejected")]
    if max([in_force_since, *retrained]) + rules.max_age > now:
        return None
    age, maximum = (_days(span) for span in (now - in_force_since, rules.max_age))
    return OpenRun("training", "age", f"the champion is {age} old (maximum {maximum})")


def _answer(state: Literal["waiting_for_labels", "training"], trigger: Trigger, alarms: Sequence[Alarm]) -> OpenRun:
    return OpenRun(
        state,
        trigger,
        "; ".join(alarm_summary(alarm) for alarm in alarms),
        tuple(alarm.id for alarm in alarms),
        tuple(dict.fromkeys(name for alarm in alarms for name in alarm.drift.slices)),
        min(alarm.drift.since or alarm.at for alarm in alarms),
    )


def alarm_summary(alarm: Alarm) -> str:
    """Return an alarm in words: rate, slice, size and start of the change, and the expected range."""
    drift, band = alarm.drift, alarm.drift.zone
    since, fall = _time(drift.since or alarm.at), drift.fall
    if fall is not None and fall.true_class is not None:
        limit = "" if fall.limit is None else f", expected at most {percent(fall.limit)}"
        return f"{recall_text(fall.true_class, drift.place, fall.errors, fall.labels)} since {since}{limit}"
    verb = "changed" if drift.direction is None else {"up": "rose", "down": "fell"}[drift.direction]
    unit = "rows" if drift.kind == "coverage" else "labels"
    observed = percent_of(drift.observed.count, drift.observed.n, unit)
    if band is None:
        expected = ""
    elif band.upper >= 1:
        expected = f", expected at least {limit_text(band.lower, band.target)}"
    else:
        expected = f", expected {percent(band.lower)} to {percent(band.upper)}"
    return f"{drift.rate} of {drift.slice} {verb} to {observed} since {since}{expected}"


def blocking_alarm(run: Run, alarms: Iterable[Alarm]) -> Alarm | None:
    """Return an unresolved accuracy alarm of a slice of the run, or of all rows: its change is not benign."""
    slices = {*run.slices, ALL_ROWS}
    for alarm in alarms:
        is_of_model = alarm.drift.is_accuracy and not alarm.drift.stands_alone
        if alarm.state != "resolved" and is_of_model and slices & {*alarm.drift.slices}:
            return alarm
    return None


def after_labels(slices: Sequence[SliceEvidence], rules: RetrainRules, *, waited: timedelta) -> Wait | Train | Skip:
    """Return the next step of a run that waits for labels.

    A slice with fallen coverage needs no labels: it has fewer rows, on which the model is as good as before.
    For a slice with risen coverage the accuracy since the change is checked once it has ``rules.new_labels``.
    The change is benign unless the labels show, at one-sided 95%, an accuracy below the reference minus its
    tolerance. The reference is taken as it is: its uncertainty widens the band that alarms, and would here
    excuse a real loss. Without enough reference rows the change cannot be called benign, and the run trains.
    After ``rules.wait`` the slices with enough labels decide alone; if none of them lost accuracy, the run
    ends for lack of labels.

    Parameters
    ----------
    slices
        Slices of the run's coverage alarms.
    rules
        Number of labels, and maximum wait.
    waited
        Time since the run was opened.
    """
    risen = [evidence for evidence in slices if evidence.direction == "up"]
    if not risen:
        names = ", ".join(evidence.slice for evidence in slices)
        return Skip(f"benign: coverage only fell ({names}), which needs no retraining")
    labelled = [evidence for evidence in risen if evidence.labelled >= rules.new_labels]
    missing = "; ".join(
        f"{evidence.slice} has {evidence.labelled:,} of {rules.new_labels:,} labels"
        for evidence in risen
        if evidence not in labelled
    )
    if missing and waited <= rules.wait:
        return Wait(f"waiting for labels: {missing}", tuple((evidence.slice, evidence.labelled) for evidence in risen))
    if harmed := [evidence for evidence in labelled if not _is_unharmed(evidence)]:
        return Train("; ".join(map(_accuracy_summary, harmed)))
    if missing:
        return Skip(f"too few labels after {_days(rules.wait)}: {missing}")
    return Skip("benign: " + "; ".join(map(_accuracy_summary, labelled)))


def _is_unharmed(evidence: SliceEvidence) -> bool:
    if evidence.zone is None or evidence.zone.reference.effective_n < MINIMUM_REFERENCE_ROWS:
        return False
    reference = evidence.zone.reference
    _, highest = Rate(evidence.right, evidence.labelled).interval(0.9)  # its upper limit is one-sided 95%
    return highest >= reference.count / reference.n - evidence.zone.tolerance


def _accuracy_summary(evidence: SliceEvidence) -> str:
    observed = percent_of(evidence.right, evidence.labelled, "labels")
    reference = "no reference"
    if evidence.zone is not None and evidence.zone.reference.n:
        rate = evidence.zone.reference
        effective = f", effective n {rate.effective_n:,}" if rate.effective_n < rate.n else ""
        reference = f"reference {percent_of(rate.count, rate.n, 'held-out rows')}{effective}"
    return f"accuracy on {evidence.slice} is {observed} since the change, {reference}"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):.3g} days"
