"""LFAnalysis against manual counts and a naive reference implementation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sfs.analysis import LFAnalysis, filter_unlabeled_dataframe, redundant_slices, shared_members
from sfs.errors import SliceError
from sfs.function import LabelingFunction

L = np.array([[-1, 0, 0], [-1, -1, -1], [1, 0, -1], [-1, 0, -1], [0, 0, 0], [2, 1, -1]])
Y = np.array([0, 1, 0, 1, 0, 2])
FUNCTIONS = [LabelingFunction(name, lambda x: -1) for name in ("first", "second", "third")]


def test_fractions_of_rows() -> None:
    """Coverage, overlap and conflict are fractions of all rows."""
    analysis = LFAnalysis(L)
    assert analysis.label_coverage() == pytest.approx(5 / 6)
    assert analysis.label_overlap() == pytest.approx(4 / 6)
    assert analysis.label_conflict() == pytest.approx(2 / 6)


def test_fractions_per_function() -> None:
    """Coverage, overlaps and conflicts are computed per function, with smaller denominators if normalized."""
    analysis = LFAnalysis(L)
    assert analysis.lf_coverages() * 6 == pytest.approx([3, 5, 2])
    assert analysis.lf_overlaps() * 6 == pytest.approx([3, 4, 2])
    assert analysis.lf_conflicts() * 6 == pytest.approx([2, 2, 0])
    assert analysis.lf_overlaps(normalize_by_coverage=True) == pytest.approx([1, 4 / 5, 1])
    assert analysis.lf_conflicts(normalize_by_overlaps=True) == pytest.approx([2 / 3, 2 / 4, 0])


def test_polarities_are_the_labels_given() -> None:
    """Each function's labels are sorted, without abstentions."""
    assert LFAnalysis(L).lf_polarities() == [[0, 1, 2], [0, 1], [0]]


@pytest.mark.parametrize("truth", [Y, Y[:, None], Y.astype(float), Y.tolist()])
def test_accuracy_is_over_the_labels_given(truth) -> None:
    """Abstentions count neither as correct nor as incorrect."""
    assert LFAnalysis(L).lf_empirical_accuracies(truth) == pytest.approx([2 / 3, 3 / 5, 1])


def test_a_function_that_never_labels_has_zeros() -> None:
    """A denominator of 0 gives 0 without a warning."""
    analysis = LFAnalysis(np.array([[-1, 0], [-1, 1]]))
    assert analysis.lf_overlaps(normalize_by_coverage=True).tolist() == [0, 0]
    assert analysis.lf_conflicts(normalize_by_overlaps=True).tolist() == [0, 0]
    assert analysis.lf_empirical_accuracies([0, 0]).tolist() == [0, 0.5]


def test_probabilities_are_per_true_label() -> None:
    """The distribution of a function's labels, abstentions first, sums to 1 for every class."""
    P = LFAnalysis(L).lf_empirical_probs(Y, 3)
    assert P.shape == (3, 4, 3)
    assert P.sum(axis=1) == pytest.approx(np.ones((3, 3)))
    assert P[0, :, 0] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert np.isnan(LFAnalysis(L).lf_empirical_probs(Y, 4)[:, :, 3]).all()


def test_the_summary_has_snorkels_columns() -> None:
    """The table has one row per function, and extra columns for true labels and weights."""
    plain = LFAnalysis(L).lf_summary()
    assert list(plain.columns) == ["Polarity", "Coverage", "Overlaps", "Conflicts"]
    assert list(plain.index) == [0, 1, 2]
    full = LFAnalysis(L, FUNCTIONS).lf_summary(Y, est_weights=[0.1, 0.2, 0.3])
    more = ["Correct", "Incorrect", "Emp. Acc.", "Learned Weight"]
    assert list(full.columns) == ["j", "Polarity", "Coverage", "Overlaps", "Conflicts", *more]
    assert list(full.index) == ["first", "second", "third"]
    assert full["j"].tolist() == [0, 1, 2]
    assert full["Correct"].tolist() == [2, 3, 2]
    assert full["Incorrect"].tolist() == [1, 2, 0]


def test_rows_without_a_true_label_are_not_judged() -> None:
    """A true label of -1 counts neither as correct nor as incorrect."""
    summary = LFAnalysis(L).lf_summary(np.array([-1, -1, 0, 1, 0, 2]))
    assert summary["Correct"].tolist() == [2, 2, 1]
    assert summary["Incorrect"].tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((0, 2), int), "at least one row"),
        (np.zeros(3, int), "a matrix"),
        (np.array([[0.5]]), "must contain integers"),
        (np.array([[np.nan]]), "must contain integers"),
        (np.array([["a"]]), "must contain integers"),
        (np.array([[-2]]), "got -2"),
    ],
)
def test_an_invalid_matrix_is_rejected(matrix, message) -> None:
    """L is a non-empty matrix of integers of at least -1."""
    with pytest.raises(SliceError, match=message):
        LFAnalysis(matrix)


def test_sizes_must_agree() -> None:
    """Functions and true labels must have the sizes of the matrix."""
    with pytest.raises(SliceError, match=r"Number of LFs \(2\) and number of LF matrix columns \(3\) are different"):
        LFAnalysis(L, FUNCTIONS[:2])
    with pytest.raises(SliceError, match="Y has 5 labels, but L has 6 rows"):
        LFAnalysis(L).lf_empirical_accuracies(Y[:5])


def test_only_labelled_rows_are_kept() -> None:
    """filter_unlabeled_dataframe drops the rows without labels, whatever the index."""
    frame = pd.DataFrame({"a": range(6)}, index=[5, 5, 1, 0, 1, 2])
    kept, y = filter_unlabeled_dataframe(frame, np.eye(6), L)
    assert kept["a"].tolist() == [0, 2, 3, 4, 5]
    assert np.array_equal(y, np.eye(6)[[0, 2, 3, 4, 5]])


def counted_slowly(matrix):
    """Count overlaps and conflicts of every function, row by row and pair by pair."""
    n, m = matrix.shape
    overlaps, conflicts = [0] * m, [0] * m
    for row in matrix.tolist():
        labels = [value for value in row if value != -1]
        for j in range(m):
            overlaps[j] += row[j] != -1 and len(labels) > 1
            conflicts[j] += row[j] != -1 and len(set(labels)) > 1
    return [count / n for count in overlaps], [count / n for count in conflicts]


@given(arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(0, 4)), elements=st.integers(-1, 2)))
def test_it_equals_its_slow_twin(matrix) -> None:
    """Overlaps and conflicts equal a row-by-row count."""
    analysis = LFAnalysis(matrix)
    overlaps, conflicts = counted_slowly(matrix)
    assert analysis.lf_overlaps() == pytest.approx(overlaps)
    assert analysis.lf_conflicts() == pytest.approx(conflicts)


def test_redundant_slices_are_told_with_the_reason() -> None:
    """Empty, full, near-duplicate and nested slices have a sentence each; others have none."""
    n = np.arange(1000)
    slices = {
        "none": n < 0,
        "all": n >= 0,
        "third": n % 3 == 0,
        "third_but_few": (n % 3 == 0) & (n > 20),
        "sixth": n % 6 == 0,
        "half": n < 500,
        "two_rows": n < 2,
    }
    member = np.stack(list(slices.values()), axis=1)
    told = redundant_slices(list(slices), np.full(len(slices), 1000), shared_members(member))
    assert told == {
        "none": "slice 'none' has no member (1,000 rows)",
        "all": "slice 'all' holds every row (1,000 rows)",
        "third_but_few": "slices 'third' and 'third_but_few' share 327 of 334 members: keep one of them",
        "sixth": "slice 'sixth' lies within 'third': all its 167 members are among the 334 of 'third'",
    }


def test_shared_members_may_be_summed_over_batches() -> None:
    """The counts of batches add up to those of all rows."""
    member = np.random.default_rng(0).random((500, 4)) < 0.4
    assert (shared_members(member[:123]) + shared_members(member[123:]) == shared_members(member)).all()


def test_a_slice_that_is_unknown_everywhere_is_not_called_empty() -> None:
    """Without a known row nothing is said."""
    assert redundant_slices(["a"], np.array([0]), np.array([[0]])) == {}
