"""Reports per slice, and comparisons of two models."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from models.errors import DataError
from models.slice_report import slice_differences, slice_report
from sfs.function import ALL_ROWS
from sfs.intervals import Rate
from sfs.matrix import SliceMatrix

CLASSES = ("ham", "spam")
TRUTH = ["spam", "ham", "spam", "ham"]
SAID = ["spam", "ham", "ham", "ham"]
S = SliceMatrix(
    ["first", "none", "doubt"],
    np.array([[1, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]], dtype=bool),
    np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]], dtype=bool),
)


def test_a_report_has_counts_and_intervals() -> None:
    """Overall and per slice: rows, accuracy, F1 of the second class, coverage, unknown."""
    report = slice_report(TRUTH, SAID, S, CLASSES)
    assert [row.name for row in report.rows] == [ALL_ROWS, "first", "none", "doubt"]
    assert report.overall.accuracy == Rate(3, 4)
    assert report["first"].accuracy == Rate(2, 3)
    assert report["first"].f1 == pytest.approx(2 / 3)
    assert report["first"].coverage == Rate(3, 4)
    assert (report["doubt"].n, report["doubt"].coverage, report["doubt"].unknown) == (2, Rate(2, 2), 2)


def test_rates_of_a_report_have_the_effective_n_of_the_contents() -> None:
    """Coverage and accuracy count the rows, and their intervals are those of the contents."""
    report = slice_report(TRUTH, SAID, S, CLASSES, np.array([7, 7, 7, 8]))
    assert report["first"].coverage == Rate(3, 4, 2)
    assert report["first"].accuracy == Rate(2, 3, 1)
    assert report["doubt"].coverage == Rate(2, 2)


def test_a_slice_without_members_is_a_value() -> None:
    """Its accuracy and F1 are None, and its interval is everything."""
    row = slice_report(TRUTH, SAID, S, CLASSES)["none"]
    assert (row.n, row.accuracy.value, row.f1) == (0, None, None)
    assert row.metrics().accuracy_upper == 1.0


def test_f1_without_positives_is_none() -> None:
    """Without a true or predicted positive there is no F1, though accuracy is 1."""
    report = slice_report(["ham"], ["ham"], SliceMatrix.empty(1), CLASSES)
    assert (report.overall.f1, report.overall.accuracy.value) == (None, 1.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=15))
def test_many_classes_have_macro_f1(rows: list[tuple[str, str]]) -> None:
    """For three classes F1 is the mean over the classes that occur, as scikit-learn's."""
    truth, said = zip(*rows, strict=True)
    report = slice_report(truth, said, SliceMatrix.empty(len(rows)), "abc")
    assert report.overall.f1 == pytest.approx(f1_score(truth, said, average="macro", zero_division=0.0))


def test_reports_are_json_frames_and_text() -> None:
    """All three forms agree; the text is aligned and has a line per slice."""
    report = slice_report(TRUTH, SAID, S, CLASSES)
    assert json.loads(json.dumps(report.to_json()))[1]["slice"] == "first"
    assert report.to_frame().loc["first", "n"] == 3
    lines = report.to_text().splitlines()
    assert lines[0].split("  ")[0] == "slice"
    assert len(lines) == 5
    assert "0.094 to 0.992" in lines[2]
    assert lines[3].split() == ["none", "0", "0.000", "0", "-", "-", "-"]


def test_a_report_names_the_slices_it_has() -> None:
    """Asking for another is an error with the names."""
    with pytest.raises(DataError, match="no slice 'x'; the report has"):
        slice_report(TRUTH, SAID, S, CLASSES)["x"]


def test_labels_must_be_classes_and_lengths_agree() -> None:
    """A stray label is named with its row; lengths are given."""
    with pytest.raises(DataError, match="row 1: the predicted label 'eggs' is not among the classes"):
        slice_report(TRUTH, ["spam", "eggs", "ham", "ham"], S, CLASSES)
    with pytest.raises(DataError, match="has 4 rows, but the labels have"):
        slice_report(TRUTH[:3], SAID[:3], S, CLASSES)
    with pytest.raises(DataError, match="has 4 rows, but the labels have"):
        slice_differences(TRUTH, SAID[:2], SAID, S)


def test_two_models_are_compared_row_by_row() -> None:
    """The difference is the first's accuracy minus the second's, from rows that one alone has right."""
    overall, first, none, doubt = slice_differences(TRUTH, TRUTH, SAID, S)
    assert (overall.slice, overall.n, overall.only_first) == (ALL_ROWS, 4, 1)
    assert overall.difference == pytest.approx(0.25)
    assert first.difference == pytest.approx(1 / 3)
    assert (none.difference, none.difference_lower) == (None, None)
    assert doubt.n == 2


def test_two_equal_models_are_no_evidence() -> None:
    """Without a row that tells them apart the difference is 0, inside its interval."""
    for row in slice_differences(TRUTH, SAID, SAID, S):
        assert (row.only_first, row.only_second) == (0, 0)
        assert row.n == 0 or row.difference_lower < row.difference == 0 < row.difference_upper


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans(), st.booleans()), min_size=1))
def test_repeats_widen_intervals_and_leave_values(rows: list[tuple[int, bool, bool, bool]]) -> None:
    """The effective n is at most the number of contents; accuracies and differences are those of the rows."""
    contents, one, other, inside = (np.array(column) for column in zip(*rows, strict=True))
    truth = ["spam"] * len(rows)
    first, second = (["spam" if right else "ham" for right in each] for each in (one, other))
    S = SliceMatrix(["s"], inside[:, None], np.zeros((len(rows), 1), dtype=bool))
    plain, counted = slice_report(truth, first, S, CLASSES), slice_report(truth, first, S, CLASSES, contents)
    for before, row, chosen in zip(plain.rows, counted.rows, (inside | True, inside), strict=True):
        metrics, wide = before.metrics(), row.metrics()
        assert (wide.n, wide.accuracy) == (metrics.n, metrics.accuracy)
        assert wide.independent_n <= len(set(contents[chosen].tolist())) <= max(wide.n, 0)
        assert wide.accuracy_lower <= metrics.accuracy_lower + 1e-9
        assert wide.accuracy_upper >= metrics.accuracy_upper - 1e-9
    narrow = slice_differences(truth, first, second, S)
    for before, row in zip(narrow, slice_differences(truth, first, second, S, contents), strict=True):
        assert (row.n, row.only_first, row.difference) == (before.n, before.only_first, before.difference)


def test_one_content_has_an_interval_of_one_row() -> None:
    """A hundred rows of one content say as little as one row, in the accuracy and in the difference."""
    contents, truth, first, second = np.zeros(100), ["spam"] * 100, ["spam"] * 100, ["ham"] * 100
    everywhere = SliceMatrix.empty(100)
    report = slice_report(truth, first, everywhere, CLASSES, contents)
    assert report.overall.accuracy.interval() == Rate(1, 1).interval()
    assert "effective n" in report.to_text()
    (row,) = slice_differences(truth, first, second, everywhere, contents)
    (single,) = slice_differences(truth[:1], first[:1], second[:1], SliceMatrix.empty(1))
    assert (row.difference_lower, row.difference_upper) == (single.difference_lower, single.difference_upper)
