"""Estimates from counts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import anytime
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from service.events import Estimate, InsufficientData, IntervalMethod, SliceEstimate
from service.monitor.block_counts import empty
from service.monitor.estimates import EstimateConfig, estimates, f1
from sfs.function import ALL_ROWS
from sfs.intervals import Rate, clopper_pearson

ANY = EstimateConfig(minimum_labels=1)


def by_name(
    traffic: Any, rows: list[Any], judging: EstimateConfig = ANY, method: IntervalMethod = "clopper-pearson"
) -> dict[str, SliceEstimate]:
    figures = estimates(traffic.block_of(rows), traffic.sets["first"], method, judging)
    return {each.slice: each for each in figures}


def rows_of(traffic: Any, n: int, correct: int, **states: str) -> list[Any]:
    return [traffic.row(f"{states}{i}", called="x", label="x" if i < correct else "y", **states) for i in range(n)]


def test_slices_come_in_order_then_the_extra_columns(traffic: Any) -> None:
    """The slices of the set come first, with their fingerprints; the extra columns have none."""
    figures = by_name(traffic, [traffic.row("1")])
    assert [(each.slice, each.fingerprint) for each in figures.values()] == [
        ("a", "1"),
        ("b", "1"),
        ("c", "1"),
        ("__none__", None),
        ("__all__", None),
    ]


def test_unknown_rows_are_out_of_the_coverage(traffic: Any) -> None:
    """Coverage has the rows of known membership as its n; unknown rows are counted separately."""
    rows = [traffic.row("1", a="in"), traffic.row("2"), traffic.row("3", a="unknown")]
    figure = by_name(traffic, rows)["a"]
    assert isinstance(figure.coverage, Estimate)
    assert (figure.coverage.rate, figure.unknown, figure.absent) == (Rate(1, 2), 1, 0)
    assert figure.coverage.value == 0.5


def test_a_slice_that_is_never_known_has_no_coverage(traffic: Any) -> None:
    """Without known membership there is a reason in place of a coverage."""
    coverage = by_name(traffic, [traffic.row("1", a="unknown")])["a"].coverage
    assert coverage == InsufficientData(0, 1, "0 rows of known membership in this window; at least 1 needed")


def test_a_window_without_rows_gives_reasons_only(traffic: Any) -> None:
    """Without rows every figure is a reason."""
    block = empty("m", 3, "first", 3, traffic.at, 10)
    for each in estimates(block, traffic.sets["first"], "clopper-pearson", ANY):
        for figure in (each.coverage, each.members.accuracy, each.members.f1, each.complement.accuracy):
            assert isinstance(figure, InsufficientData)


@pytest.mark.parametrize(("method", "interval"), [("clopper-pearson", clopper_pearson), ("anytime", anytime)])
def test_intervals_are_those_of_the_method(traffic: Any, method: IntervalMethod, interval: Any) -> None:
    """Coverage and accuracy have the interval of the given method and confidence."""
    rows = rows_of(traffic, 30, 27, a="in") + rows_of(traffic, 10, 5)
    figure = by_name(traffic, rows, EstimateConfig(1, None, 0.9), method)["a"]
    for share, rate in ((figure.coverage, Rate(30, 40)), (figure.members.accuracy, Rate(27, 30))):
        assert isinstance(share, Estimate)
        assert (share.rate, share.method) == (rate, method)
        assert (share.lower, share.upper) == pytest.approx(interval(rate.count, rate.n, 0.9))


def test_members_and_complement_share_the_labelled_rows_that_are_known(traffic: Any) -> None:
    """Labelled rows of unknown membership are neither members nor complement."""
    rows = rows_of(traffic, 6, 5, a="in") + rows_of(traffic, 4, 1) + rows_of(traffic, 3, 3, a="unknown")
    figures = by_name(traffic, rows)
    accuracies = [each.accuracy for each in (figures["a"].members, figures["a"].complement)]
    assert [each.rate for each in accuracies if isinstance(each, Estimate)] == [Rate(5, 6), Rate(1, 4)]
    assert figures[ALL_ROWS].members.labelled == 13
    assert figures[ALL_ROWS].complement.labelled == 0


@pytest.mark.parametrize("n", [19, 20])
def test_few_labels_give_a_reason(traffic: Any, n: int) -> None:
    """Below the minimum the reason for missing accuracy and F1 has the number of labels."""
    members = by_name(traffic, rows_of(traffic, n, 9, a="in"), EstimateConfig(20))["a"].members
    assert members.labelled == n
    reason = InsufficientData(19, 20, "19 labelled rows in this window; at least 20 needed")
    assert (members.accuracy == reason) == (members.f1 == reason) == (n == 19)


def test_without_a_minimum_one_label_is_needed(traffic: Any) -> None:
    """A minimum of 0 still needs one label."""
    accuracy = by_name(traffic, [traffic.row("1", a="in")], EstimateConfig(0))["a"].members.accuracy
    assert accuracy == InsufficientData(0, 1, "0 labelled rows in this window; at least 1 needed")


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_f1_equals_that_of_scikit_learn(traffic: Any, data: st.DataObject) -> None:
    """F1 of one class, and the mean over classes, equal those of scikit-learn."""
    rows = data.draw(traffic.histories())
    day = traffic.at.replace(hour=0, minute=0, second=0, microsecond=0)
    block = traffic.block_of(rows, day, 86_400)
    pairs = [(row.label, row.prediction.label) for row in rows if row.label is not None]
    true, called = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    one, over = f1(block.confusion, block.classes, "x")[-1], f1(block.confusion, block.classes)[-1]
    expected = f1_score(true, called, average="macro") if pairs else None
    assert over == (None if expected is None else pytest.approx(expected))
    occurs = "x" in {*true, *called}
    assert one == (pytest.approx(f1_score(true, called, labels=["x"], average=None)[0]) if occurs else None)


def test_f1_of_a_class_that_does_not_occur_is_not_given(traffic: Any) -> None:
    """Without the positive class there is an accuracy, and a reason in place of the F1."""
    members = by_name(traffic, rows_of(traffic, 5, 5, a="in"), EstimateConfig(1, "spam"))["a"].members
    assert isinstance(members.accuracy, Estimate)
    assert members.f1 == InsufficientData(5, 5, "no row is labelled or predicted as 'spam'")


def test_absent_rows_are_told_from_failures(traffic: Any) -> None:
    """Rows from before the function existed are not failures."""
    block = traffic.block_of([traffic.row("1", a="unknown"), traffic.row("2")])
    aged = replace(block, absent=np.array([1, 0, 0, 0, 0]))
    figure = estimates(aged, traffic.sets["first"], "clopper-pearson", ANY)[0]
    assert (figure.unknown, figure.absent) == (0, 1)


def test_counts_of_another_set_are_refused(traffic: Any) -> None:
    """Counts are read by their own set only."""
    block = traffic.block_of([traffic.row("1")])
    with pytest.raises(ValueError, match="remap them first"):
        estimates(block, traffic.sets["edited"], "clopper-pearson", ANY)
