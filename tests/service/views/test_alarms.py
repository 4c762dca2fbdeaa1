"""Alarms, drift statuses, and their sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from service.decisions import AccuracyFall, Alarm, DriftDetected, DriftStatus, FallPart, ToleranceBand
from service.events import NONE_FIRED
from service.serving.deployment import Deployment
from service.store.alarms import open_alarm, resolve_alarm
from service.store.errors import UnknownAlarm
from service.views.alarms import (
    alarm_sentence,
    alarm_view,
    alarms_view,
    drift_sentence,
    drift_view,
    drifts_by_slice,
    labels_at_half,
    pooled_text,
    unresolved_by_slice,
)
from service.views.series import series
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

AT = datetime(2026, 5, 20, 12, 50, tzinfo=UTC)
COVERAGE = DriftStatus(
    "cheap", "f", "coverage", ToleranceBand(Rate(400, 20_000), 0.018, 0.022, 0.1), 9.0, 8.0,
    datetime(2026, 5, 20, 12, 40, tzinfo=UTC), "up", Rate(81, 1000), 0.06, 0.1,
)  # fmt: skip
ACCURACY = replace(
    COVERAGE, kind="accuracy", zone=ToleranceBand(Rate(900, 1000), 0.87, 1.0, 0.01), direction="down",
    observed=Rate(190, 312),
)  # fmt: skip


TARGET = replace(
    ACCURACY, zone=ToleranceBand(Rate(28, 40), 0.75, 1.0, 0.01, 0.75), observed=Rate(4, 33), threshold=18.46
)


@pytest.fixture
def raise_alarm(log: Any) -> Callable[..., Alarm]:
    """Raises an alarm."""

    def raise_(drift: DriftStatus = COVERAGE, model: str = "orders") -> Alarm:
        work = partial(open_alarm, model=model, version=1, detection=DriftDetected(AT, drift))
        alarm: Alarm | None = log.writer.submit(work).result()
        assert alarm is not None
        return alarm

    return raise_


@pytest.fixture
def cheap(deployment: Deployment) -> DriftStatus:
    """Status of a live slice, half way to an alarm."""
    fingerprint = deployment.state.functions.fingerprints["cheap"]
    return DriftStatus("cheap", fingerprint, "coverage", None, 4.0, 8.0, None, None, Rate(3, 9), 0.0, 1.0)


def test_pages_follow_each_other_without_gaps(log: Any, raise_alarm: Callable[..., Alarm]) -> None:
    """A full page with the last alarm has no next page."""
    ids = [raise_alarm(replace(COVERAGE, slice=name)).id for name in ("a", "b", "c", "d")]
    first = alarms_view(log.store, "orders", limit=2)
    assert ([each.id for each in first.items], first.next) == (ids[:1:-1], ids[2])
    second = alarms_view(log.store, "orders", limit=2, before=first.next)
    assert ([each.id for each in second.items], second.next) == (ids[1::-1], None)


def test_alarms_of_other_models_are_hidden(log: Any, raise_alarm: Callable[..., Alarm]) -> None:
    """A store may contain alarms of an earlier model name."""
    other = raise_alarm(model="books")
    assert alarms_view(log.store, "orders").items == ()
    with pytest.raises(UnknownAlarm, match=f"there is no alarm {other.id}; the alarms are listed"):
        alarm_view(log.store, "orders", other.id)
    assert alarm_view(log.store, "books", other.id) == other


def test_an_alarm_about_a_target_says_so() -> None:
    """The expected accuracy is that of the target."""
    assert drift_sentence(TARGET, AT) == (
        "accuracy on cheap is 12.1% of 33 labelled rows since 12:40 UTC, expected at least 75.0% (target)"
    )


def test_a_fall_of_one_class_is_a_recall() -> None:
    """The labels of the class that are wrong, and the highest share; of a group the slice with the most errors."""
    fall = AccuracyFall("spam", 12, 40, 0.04, 1.2)
    assert drift_sentence(replace(ACCURACY, fall=fall), AT) == (
        "recall of spam on cheap fell: 12 of 40 labels wrong since 12:40 UTC, expected at most 4.0%"
    )
    family = replace(ACCURACY, slice="price", kind="family_accuracy")
    parts = FallPart("short", 7, 9), FallPart("cheap", 5, 31)
    assert drift_sentence(replace(family, fall=replace(fall, parts=parts)), AT) == (
        "recall of spam on family price fell: 12 of 40 labels wrong since 12:40 UTC, expected at most 4.0%; "
        "slice short has 7 of the 12 errors"
    )
    of_all = replace(fall, true_class=None, limit=None, parts=parts)
    assert drift_sentence(replace(family, fall=of_all), AT) == (
        "accuracy on family price is 60.9% of 312 labelled rows since 12:40 UTC, expected at least 87.0%; "
        "slice short has 7 of the 12 errors"
    )


def test_a_slice_with_few_labels_says_what_watches_it() -> None:
    """Its families and all traffic; nothing for others."""
    assert pooled_text(ACCURACY) == ""
    few = replace(ACCURACY, pooled=("price", "__all__"))
    assert pooled_text(few) == "few labels: watched with family price, all traffic"


def test_the_labels_to_an_alarm_are_stated_for_half_of_the_limit() -> None:
    """For an accuracy with a limit; not for coverage, nor without a band or a limit above 0."""
    at_half = labels_at_half(TARGET)
    assert at_half is not None
    assert (at_half.accuracy, at_half.labels) == (0.375, 64)
    without = (COVERAGE, replace(TARGET, zone=None), replace(TARGET, zone=ToleranceBand(Rate(0, 0), 0.0, 1.0, 0.01)))
    assert [labels_at_half(drift) for drift in without] == [None] * 3


def test_unresolved_alarms_by_slice(log: Any, raise_alarm: Callable[..., Alarm]) -> None:
    """A slice has alarms of both kinds, newest first; resolved ones are omitted."""
    coverage, accuracy = raise_alarm(), raise_alarm(ACCURACY)
    resolved = raise_alarm(replace(COVERAGE, slice="short"))
    log.writer.submit(partial(resolve_alarm, alarm_id=resolved.id, at=AT, resolution="over")).result()
    assert unresolved_by_slice(log.store, "orders") == {"cheap": (accuracy, coverage)}


def test_a_coverage_alarm_in_a_sentence() -> None:
    """The sentence has the rate, its start, and the expected range."""
    alarm = Alarm(1, "orders", 1, AT, COVERAGE)
    assert alarm_sentence(alarm) == "coverage of cheap is 8.1% since 12:40 UTC, expected 1.8% to 2.2%"


def test_an_accuracy_alarm_in_a_sentence() -> None:
    """The sentence has the number of labelled rows, and no upper limit."""
    assert drift_sentence(ACCURACY, AT) == (
        "accuracy on cheap is 60.9% of 312 labelled rows since 12:40 UTC, expected at least 87.0%"
    )


def test_a_status_without_data_in_a_sentence() -> None:
    """Without rows, a change or a reference, the sentence says so."""
    drift = replace(COVERAGE, zone=None, since=None, direction=None, observed=Rate(0, 0))
    assert drift_sentence(drift, AT) == "coverage of cheap is unknown so far, no reference to compare with"
    drift = replace(drift, kind="accuracy")
    assert drift_sentence(drift, AT).startswith("accuracy on cheap is unknown so far, ")


def test_a_change_of_another_day_has_its_date() -> None:
    """A time alone is on the day of the alarm."""
    drift = replace(COVERAGE, since=AT - timedelta(days=2))
    assert "since 2026-05-18 12:50 UTC" in drift_sentence(drift, AT)


def test_a_slice_without_members_has_a_coverage() -> None:
    """A coverage of 0% is known."""
    drift = replace(COVERAGE, observed=Rate(0, 500), direction="down")
    assert drift_sentence(drift, AT).startswith("coverage of cheap is 0% since 12:40 UTC")


def test_further_rates_in_a_sentence() -> None:
    """Unknown rows name their function, a share of predictions its class; neither has labels to an alarm."""
    unknown, predicted = replace(COVERAGE, kind="unknown"), replace(COVERAGE, kind="predicted", slice="spam")
    of_coverage = drift_sentence(COVERAGE, AT)
    assert drift_sentence(unknown, AT) == of_coverage.replace("coverage of cheap is", "unknown rows of cheap are")
    assert drift_sentence(predicted, AT).startswith("share of predicted class spam is ")
    assert labels_at_half(unknown) is labels_at_half(predicted) is None


@pytest.mark.parametrize(("name", "text"), [(ALL_ROWS, "all traffic"), (NONE_FIRED, "rows in no slice")])
def test_extra_columns_have_names(name: str, text: str) -> None:
    """Sentences have no internal column names."""
    assert drift_sentence(replace(ACCURACY, slice=name), AT).startswith(f"accuracy on {text} is")


def test_no_slice_is_watched_at_first(deployment: Deployment) -> None:
    """There are no drift statuses before the first run of the detectors."""
    assert drift_view(deployment) == ()


def test_slices_nearest_to_an_alarm_come_first(deployment: Deployment, cheap: DriftStatus) -> None:
    """Statuses are in order of their share of the threshold; negative evidence counts as none."""
    near, far = replace(cheap, evidence=7.0, slice="short"), replace(cheap, evidence=-3.0, kind="accuracy")
    deployment.drift_statuses = (far, cheap, near)
    assert drift_view(deployment) == (near, cheap, far)
    assert far.evidence_ratio == 0.0


def test_statuses_by_slice_and_kind(deployment: Deployment, cheap: DriftStatus) -> None:
    """Extra columns, which have no function, have statuses, too."""
    total, accuracy = replace(cheap, slice=ALL_ROWS, fingerprint=None), replace(cheap, kind="accuracy")
    deployment.drift_statuses = (cheap, accuracy, total)
    assert drifts_by_slice(deployment) == {
        "cheap": {"coverage": cheap, "accuracy": accuracy},
        ALL_ROWS: {"coverage": total},
    }


@pytest.mark.parametrize("change", [{"fingerprint": "before"}, {"slice": "gone"}])
def test_statuses_of_other_functions_are_omitted(deployment: Deployment, cheap: DriftStatus, change: Any) -> None:
    """A status belongs to one version of a function; a changed or removed function has none."""
    deployment.drift_statuses = (replace(cheap, **change),)
    assert drifts_by_slice(deployment) == {}


def test_the_alarm_of_a_series_has_its_id(log: Any, deployment: Deployment, raise_alarm: Callable) -> None:
    """An alarm among the events of a slice carries its id; the other events have none."""
    raised = raise_alarm()
    view = series(log.store, deployment, "cheap", until=AT + timedelta(minutes=1), now=AT + timedelta(hours=1))
    assert [event.alarm for event in view.events if event.kind == "alarm"] == [raised.id]
    assert all(event.alarm is None for event in view.events if event.kind != "alarm")
