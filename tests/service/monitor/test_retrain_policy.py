"""The retraining policy."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from scipy import stats

from service.decisions import AccuracyFall, Alarm, DriftStatus, FallPart, Run, ToleranceBand
from service.monitor.retrain_policy import (
    Deferred,
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
from sfs.function import NO_SLICE
from sfs.intervals import Rate

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RULES = RetrainRules.of()
COVERAGE = ToleranceBand(Rate(200, 10_000), 0.015, 0.025, 0.1)
ACCURACY = ToleranceBand(Rate(950, 1000), 0.92, 1.0, 0.01)


def alarm(number: int, name: str = "links", kind: str = "coverage", **changes: Any) -> Alarm:
    observed = Rate(400, 5000) if kind == "coverage" else Rate(116, 200)
    direction = changes.pop("direction", "up" if kind == "coverage" else "down")
    since = changes.pop("since", NOW - 2 * HOUR)
    zone = changes.pop("zone", COVERAGE if kind == "coverage" else ACCURACY)
    observed = changes.pop("observed", observed)
    drift = DriftStatus(name, "f", kind, zone, 20.0, 19.0, since, direction, observed, 0.0, 1.0)  # type: ignore[arg-type]
    return Alarm(number, "spam", 1, NOW - HOUR, drift, **changes)


def run(number: int, state: str = "promoted", ago: timedelta = 2 * DAY, **changes: Any) -> Run:
    at = NOW - ago
    return Run(number, "spam", state, "coverage", "", at, at, **changes)  # type: ignore[arg-type]


def next_of(alarms: list[Alarm], runs: list[Run] | None = None, rules: RetrainRules = RULES, **age: Any) -> Any:
    return next_run(alarms, runs or [], NOW, rules, **age)


# --- which run is opened -----------------------------------------------------------------------------------


def test_nothing_is_asked_for_without_a_cause() -> None:
    """Without an alarm or excessive age no run starts, regardless of earlier runs."""
    assert next_of([]) is None
    assert next_of([], [run(1, ago=HOUR)]) is None


def test_a_coverage_alarm_opens_a_run_that_waits_for_labels() -> None:
    """The reason has the slice, the observed rate with n, its start, and the expected range."""
    assert next_of([alarm(7)]) == OpenRun(
        "waiting_for_labels",
        "coverage",
        "coverage of links rose to 8.0% (400 of 5,000 rows) since 2026-03-10 10:00:00 UTC, expected 1.5% to 2.5%",
        (7,),
        ("links",),
        NOW - 2 * HOUR,
    )


def test_a_slice_that_fell_opens_a_run_too() -> None:
    """Fallen coverage opens a run that waits as well."""
    opening = next_of([alarm(7, direction="down", observed=Rate(0, 5000))])
    assert opening.state == "waiting_for_labels"
    assert opening.reason.startswith("coverage of links fell to 0% (0 of 5,000 rows)")


def test_an_accuracy_alarm_goes_straight_to_training() -> None:
    """An accuracy alarm has labels already."""
    assert next_of([alarm(3, kind="accuracy")]) == OpenRun(
        "training",
        "accuracy",
        "accuracy of links fell to 58.0% (116 of 200 labels) since 2026-03-10 10:00:00 UTC, expected at least 92.0%",
        (3,),
        ("links",),
        NOW - 2 * HOUR,
    )


def test_one_run_answers_all_coverage_alarms() -> None:
    """The run starts from the earliest change, with one sentence per alarm and every slice once."""
    early = alarm(2, "short", since=NOW - 5 * HOUR)
    opening = next_of([alarm(4), early])
    assert (opening.alarms, opening.slices, opening.since) == ((2, 4), ("short", "links"), NOW - 5 * HOUR)
    assert [each.split()[2] for each in opening.reason.split("; ")] == ["short", "links"]


def test_an_accuracy_alarm_takes_the_coverage_alarms_of_its_slices_along() -> None:
    """Coverage alarms of other slices wait for labels."""
    standing = [alarm(1), alarm(2, "short"), alarm(3, kind="accuracy")]
    opening = next_of(standing)
    assert (opening.state, opening.alarms, opening.slices) == ("training", (1, 3), ("links",))
    left = next_of(standing, [run(1, ago=2 * DAY, alarms=(1, 3))])
    assert (left.state, left.alarms) == ("waiting_for_labels", (2,))


def test_a_family_is_trained_for_its_slices_with_errors() -> None:
    """The reason is the recall; coverage alarms of these slices are answered, too, and hold no benign end."""
    fall = AccuracyFall("spam", 12, 40, 0.04, 1.0, (FallPart("links", 9, 20), FallPart("short", 0, 20)))
    family = alarm(7, "f", "family_accuracy", zone=ACCURACY)
    family = replace(family, drift=replace(family.drift, fall=fall))
    opening = next_of([family, alarm(8), alarm(9, "short")])
    assert (opening.state, opening.trigger, opening.alarms, opening.slices) == (
        *("training", "accuracy"),
        *((7, 8), ("links",)),
    )
    assert opening.reason.startswith(
        "recall of spam on family f fell: 12 of 40 labels wrong since 2026-03-10 10:00:00 UTC, expected at most 4.0%; "
    )
    assert blocking_alarm(run(1, slices=("links",)), [family]) == family
    assert blocking_alarm(run(1, slices=("short",)), [family]) is None


def test_an_alarm_without_a_time_of_change_counts_from_when_it_was_raised() -> None:
    """The alarm's time replaces a missing start."""
    opening = next_of([alarm(1, since=None, direction=None, zone=None, observed=Rate(0, 0))])
    assert opening.since == NOW - HOUR
    assert opening.reason == "coverage of links changed to unknown (no rows) since 2026-03-10 11:00:00 UTC"


@pytest.mark.parametrize("state", ["open", "acknowledged"])
def test_an_alarm_that_is_known_still_asks(state: str) -> None:
    """An acknowledged alarm is not over."""
    assert isinstance(next_of([alarm(1, state=state)]), OpenRun)


def test_a_resolved_alarm_asks_for_nothing() -> None:
    """A resolved alarm opens no run."""
    assert next_of([alarm(1, state="resolved")]) is None


@pytest.mark.parametrize("state", ["held", "rejected", "failed"])
def test_bad_accuracy_asks_again_where_nothing_took_over(state: str) -> None:
    """An accuracy alarm opens another run after the cool-down, unless its run was skipped."""
    wrong = alarm(3, kind="accuracy")
    assert isinstance(next_of([wrong], [run(1, state, HOUR, alarms=(3,))]), Deferred)
    assert isinstance(next_of([wrong], [run(1, state, alarms=(3,))]), OpenRun)
    assert next_of([wrong], [run(1, "skipped", alarms=(3,))]) is None


@pytest.mark.parametrize("state", ["promoted", "held", "rejected", "skipped"])
def test_an_answered_alarm_asks_for_nothing(state: str) -> None:
    """A coverage alarm is answered once, however its run ended."""
    assert next_of([alarm(1)], [run(1, state, alarms=(1,))]) is None


def test_an_alarm_whose_run_failed_asks_again() -> None:
    """A failed run answers nothing, but starts the cool-down."""
    assert isinstance(next_of([alarm(1)], [run(1, "failed", 25 * HOUR, alarms=(1,))]), OpenRun)
    assert next_of([alarm(1)], [run(1, "failed", 23 * HOUR, alarms=(1,))]) == Deferred(
        "cool-down until 2026-03-10 13:00:00 UTC after run 1 (failed)", NOW + HOUR
    )


# --- age ---------------------------------------------------------------------------------------------------

AGING = RetrainRules.of(max_age_days=30)


def test_a_version_that_is_too_old_is_trained_anew() -> None:
    """The run opens on the day the version reaches the maximum age."""
    assert next_of([], rules=AGING, in_force_since=NOW - 30 * DAY + HOUR) is None
    assert next_of([], rules=AGING, in_force_since=NOW - 31 * DAY) == OpenRun(
        "training", "age", "the champion is 31 days old (maximum 30 days)"
    )


def test_age_is_of_no_account_unless_it_is_asked_for() -> None:
    """Without a maximum age or a promotion, age opens no run."""
    assert next_of([], in_force_since=NOW - 1000 * DAY) is None
    assert next_of([], rules=AGING) is None


def test_age_does_not_ask_again_for_as_long() -> None:
    """A candidate that was not promoted postpones the next run by the maximum age."""
    old = NOW - 90 * DAY
    assert next_of([], [run(1, "rejected", 5 * DAY)], AGING, in_force_since=old) is None
    assert isinstance(next_of([], [run(1, "rejected", 31 * DAY)], AGING, in_force_since=old), OpenRun)
    assert isinstance(next_of([], [run(1, "failed", 5 * DAY)], AGING, in_force_since=old), OpenRun)


def test_alarms_come_before_age() -> None:
    """An alarm takes precedence over age."""
    assert next_of([alarm(1)], rules=AGING, in_force_since=NOW - 90 * DAY).trigger == "coverage"


# --- what stands against it --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["waiting_for_labels", "training", "gated"])
def test_one_run_at_a_time(state: str) -> None:
    """The reason names the active run; the time of its end is unknown."""
    assert next_of([alarm(1)], [run(4, state)]) == Deferred(f"run 4 is {state.replace('_', ' ')}")


@pytest.mark.parametrize("state", ["promoted", "held", "rejected", "failed"])
def test_every_training_starts_the_cool_down(state: str) -> None:
    """The cool-down starts at the end of the run."""
    assert next_of([alarm(1)], [run(9, state, 10 * HOUR), run(8, ago=9 * DAY)]) == Deferred(
        f"cool-down until 2026-03-11 02:00:00 UTC after run 9 ({state})", NOW + 14 * HOUR
    )
    assert isinstance(next_of([alarm(1)], [run(9, state, DAY)]), OpenRun)


def test_a_skipped_run_costs_nothing() -> None:
    """A skipped run trained nothing: no cool-down, no budget."""
    skipped = [run(number, "skipped", HOUR) for number in range(20)]
    assert isinstance(next_of([alarm(1)], skipped), OpenRun)


def test_the_budget_of_a_month_is_kept() -> None:
    """Failed runs count; a place is free when the oldest run is 30 days old."""
    month = [run(number, "failed" if number % 2 else "held", (3 * number + 2) * DAY) for number in range(8)]
    assert next_of([alarm(1)], month) == Deferred("budget exhausted: 8 of 8 runs in 30 days", NOW + 30 * DAY - 23 * DAY)
    assert isinstance(next_of([alarm(1)], month[:7]), OpenRun)
    assert isinstance(next_of([alarm(1)], [*month[:7], run(99, "held", 31 * DAY)]), OpenRun)


def test_more_runs_than_the_budget_wait_until_enough_of_them_are_old() -> None:
    """Requested runs may exceed the budget; the next run waits until enough runs are old."""
    month = [run(number, "held", (number + 2) * DAY) for number in range(5)]
    assert next_of([alarm(1)], month, RetrainRules.of(runs_a_month=3)).until == NOW + 30 * DAY - 4 * DAY


def test_a_budget_of_none_waits_for_ever() -> None:
    """A budget of 0 has no end."""
    assert next_of([alarm(1)], rules=RetrainRules.of(runs_a_month=0)) == Deferred(
        "budget exhausted: 0 of 0 runs in 30 days"
    )


def test_rules_are_built_from_the_numbers_of_the_settings() -> None:
    """Every setting has its own unit."""
    rules = RetrainRules.of(new_labels=5, cool_down_hours=2, runs_a_month=3, wait_days=0.5, max_age_days=4)
    assert rules == RetrainRules(5, 2 * HOUR, 3, 12 * HOUR, 4 * DAY)


# --- waiting for labels ------------------------------------------------------------------------------------

WAITING = run(1, "waiting_for_labels", slices=("links",))


def test_an_accuracy_alarm_of_the_slice_ends_the_waiting() -> None:
    """An accuracy alarm of all rows does too."""
    assert blocking_alarm(WAITING, [alarm(1), alarm(2, kind="accuracy")]) == alarm(2, kind="accuracy")
    assert blocking_alarm(WAITING, [alarm(3, "__all__", "accuracy")]) == alarm(3, "__all__", "accuracy")


def test_other_alarms_do_not_hurry_a_run() -> None:
    """Coverage alarms, other slices and resolved alarms do not block."""
    other = [alarm(1), alarm(2, "short", "accuracy"), alarm(3, kind="accuracy", state="resolved")]
    assert blocking_alarm(WAITING, other) is None


def evidence(name: str = "links", labelled: int = 200, right: int = 190, **changes: Any) -> SliceEvidence:
    return replace(SliceEvidence(name, "up", labelled, right, ACCURACY), **changes)


def next_step(*slices: SliceEvidence, waited: timedelta = DAY) -> Wait | Train | Skip:
    return after_labels(slices, RULES, waited=waited)


def test_labels_are_waited_for() -> None:
    """The reason names the missing labels, the counts all slices."""
    assert next_step(evidence(labelled=120, right=100), evidence("short")) == Wait(
        "waiting for labels: links has 120 of 200 labels", (("links", 120), ("short", 200))
    )


def test_a_slice_that_fell_needs_no_labels() -> None:
    """Alone it ends the run; next to a risen slice it is ignored."""
    fell = evidence("gone", labelled=0, right=0, direction="down")
    assert next_step(fell, replace(fell, slice="too")) == Skip(
        "benign: coverage only fell (gone, too), which needs no retraining"
    )
    assert next_step(fell, evidence(right=100)) == Train(
        "accuracy on links is 50.0% (100 of 200 labels) since the change, reference 95.0% (950 of 1,000 held-out rows)"
    )


def test_accuracy_that_did_not_suffer_is_benign() -> None:
    """The limit is the one-sided 95% test against the reference minus the tolerance."""
    assert next_step(evidence(right=182)) == Skip(
        "benign: accuracy on links is 91.0% (182 of 200 labels) since the change, "
        "reference 95.0% (950 of 1,000 held-out rows)"
    )
    assert isinstance(next_step(evidence(right=181)), Train)
    assert stats.binomtest(182, 200, 0.94, "less").pvalue > 0.05 > stats.binomtest(181, 200, 0.94, "less").pvalue


def test_what_a_small_reference_leaves_open_excuses_nothing() -> None:
    """The wide band of a small reference does not excuse a loss that the labels show."""
    small = ToleranceBand(Rate(38, 40), 0.69, 1.0, 0.01)
    assert isinstance(next_step(evidence(right=140, zone=small)), Train)
    assert isinstance(next_step(evidence(right=188, zone=small)), Skip)


def test_below_thirty_rows_there_is_nothing_to_compare_with() -> None:
    """A reference of less than 30 rows never makes a change benign."""
    few = ToleranceBand(Rate(10, 29), 0.2, 1.0, 0.02)
    assert isinstance(next_step(evidence(zone=few)), Train)
    assert isinstance(next_step(evidence(zone=replace(few, reference=Rate(10, 30)))), Skip)
    assert isinstance(next_step(evidence(zone=replace(few, reference=Rate(1_000, 3_000, 29)))), Train)


def test_a_reason_has_the_counts_of_the_reference_as_they_were_counted() -> None:
    """The effective n decides, and is shown beside them."""
    repeated = ToleranceBand(Rate(2_600, 3_076, 3_070), 0.8, 1.0, 0.01)
    outcome = next_step(evidence(right=100, zone=repeated))
    assert outcome.reason.endswith("reference 84.5% (2,600 of 3,076 held-out rows), effective n 3,070")


def test_one_slice_that_suffered_is_enough_to_train() -> None:
    """The reason names only that slice."""
    assert next_step(evidence("short"), evidence(right=116)) == Train(
        "accuracy on links is 58.0% (116 of 200 labels) since the change, reference 95.0% (950 of 1,000 held-out rows)"
    )


def test_a_slice_without_a_reference_is_trained_for() -> None:
    """Without a reference the change cannot be called benign."""
    assert next_step(evidence(zone=None)) == Train(
        "accuracy on links is 95.0% (190 of 200 labels) since the change, no reference"
    )


def test_waiting_has_an_end() -> None:
    """After the maximum wait the run ends for lack of labels."""
    few = evidence(labelled=120, right=20)
    assert isinstance(next_step(few, waited=14 * DAY), Wait)
    assert next_step(few, waited=14 * DAY + HOUR) == Skip("too few labels after 14 days: links has 120 of 200 labels")


def test_after_the_wait_the_slices_with_labels_decide() -> None:
    """A harmed slice trains; else missing labels are the reason to end."""
    few = evidence("short", labelled=20, right=0)
    late = 15 * DAY
    assert next_step(few, evidence(right=100), waited=DAY) == Wait(
        "waiting for labels: short has 20 of 200 labels", (("short", 20), ("links", 200))
    )
    assert isinstance(next_step(few, evidence(right=100), waited=late), Train)
    assert next_step(few, evidence(), waited=late) == Skip("too few labels after 14 days: short has 20 of 200 labels")


@pytest.mark.parametrize(("name", "kind"), [("links", "unknown"), ("spam", "predicted"), (NO_SLICE, "coverage")])
def test_alarms_that_stand_alone_open_no_run(name: str, kind: str) -> None:
    """Unknown rows, predicted classes and rows in no slice are no reason to retrain, also beside one."""
    assert next_of([alarm(1, name, kind)]) is None
    assert next_of([alarm(1, name, kind), alarm(2)]).alarms == (2,)
