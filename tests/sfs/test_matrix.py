"""Slice matrix: member, not member, unknown."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfs.errors import DuplicateName, SliceError, UnknownName
from sfs.matrix import SliceMatrix

codes = hnp.arrays(np.int64, st.tuples(st.integers(0, 8), st.integers(1, 4)), elements=st.integers(-1, 1))


def matrix_of(code: np.ndarray) -> SliceMatrix:
    return SliceMatrix([f"s{k}" for k in range(code.shape[1])], code == 1, code == -1)


@given(codes)
def test_snorkels_shape_and_back_changes_nothing(code: np.ndarray) -> None:
    """A matrix survives the round trip through a record array of 1, 0 and -1."""
    matrix = matrix_of(code)
    assert SliceMatrix.from_recarray(matrix.to_recarray()) == matrix


@given(codes)
def test_coverage_equals_a_naive_count(code: np.ndarray) -> None:
    """Coverage divides members by the rows of known membership."""
    coverage = matrix_of(code).coverage()
    for k in range(code.shape[1]):
        column = list(code[:, k])
        assert (column.count(1), column.count(1) + column.count(0)) == (
            coverage[f"s{k}"].count,
            coverage[f"s{k}"].n,
        )


def test_unknown_is_neither_member_nor_outside() -> None:
    """One member, one non-member and one unknown give a coverage of one half."""
    matrix = SliceMatrix(["a"], [[True], [False], [False]], [[False], [False], [True]])
    assert matrix.coverage()["a"].value == 0.5


def test_an_empty_slice_matrix_has_a_coverage_of_none() -> None:
    """Without rows, the rate is None instead of NaN."""
    assert SliceMatrix(["a"], np.zeros((0, 1), dtype=bool)).coverage()["a"].value is None


def test_align_orders_by_name_and_leaves_the_absent_unknown() -> None:
    """An absent slice is unknown in every row; the others follow their names."""
    aligned = SliceMatrix(["a", "b"], [[True, False]]).align(["c", "b", "a"])
    assert aligned.member.tolist() == [[False, False, True]]
    assert aligned.unknown.tolist() == [[True, False, False]]


@pytest.mark.parametrize(("rows", "shape"), [(0, r"\(\)"), (True, r"\(\)"), ([[True], [False], [True]], r"\(3, 1\)")])
def test_take_needs_one_dimension(rows: Any, shape: str) -> None:
    """A scalar or a mask of another shape would give arrays that are no matrix; the error names the shape."""
    matrix = SliceMatrix(["a"], [[True], [False], [True]])
    with pytest.raises(SliceError, match=f"a list of positions or a mask .* got an array of shape {shape}"):
        matrix.take(rows)


def test_take_keeps_the_rows_asked_for() -> None:
    """Rows are selected by positions, masks and ranges."""
    matrix = SliceMatrix(["a"], [[True], [False], [True]])
    assert matrix.take([0, 2]).column("a").tolist() == [True, True]
    assert matrix.take(np.array([True, False, True])) == matrix.take([0, 2])
    assert len(matrix.take(slice(0, 2))) == 2


@pytest.mark.parametrize(
    ("names", "member", "unknown", "error", "words"),
    [
        (["a", "a"], [[True, False]], None, DuplicateName, "must be distinct"),
        (["a"], [[True, False]], None, SliceError, r"member must have shape \[N, 1\]"),
        (["a"], [[1]], None, SliceError, "boolean, got int64"),
        (["a"], [[True]], [[True]], SliceError, "both member and unknown"),
        (["a"], [[True]], [[True], [False]], SliceError, "member has shape"),
    ],
)
def test_an_invalid_matrix_is_rejected(names, member, unknown, error, words) -> None:
    """Names, shapes, types and contradictions are validated at construction."""
    with pytest.raises(error, match=words):
        SliceMatrix(names, member, unknown)


def test_a_slice_that_does_not_exist_is_named_with_those_that_do() -> None:
    """The error for an unknown slice lists the slices."""
    with pytest.raises(UnknownName, match="no slice 'x'; the slices are"):
        SliceMatrix(["a"], [[True]]).column("x")


def test_a_record_array_with_other_codes_is_rejected() -> None:
    """Snorkel's recarray has the values 1, 0 and -1 only."""
    S = np.rec.array([(5,)], dtype=[("a", np.int64)])
    with pytest.raises(SliceError, match=r"got 5|got np.int64\(5\)"):
        SliceMatrix.from_recarray(S)


def test_the_arrays_cannot_be_changed_from_outside() -> None:
    """A matrix holds read-only copies of its arguments."""
    given_member = np.array([[True]])
    matrix = SliceMatrix(["a"], given_member)
    given_member[0, 0] = False
    assert matrix.member[0, 0]
    with pytest.raises(ValueError, match="read-only"):
        matrix.member[0, 0] = False


def test_no_slices_is_a_matrix_too() -> None:
    """Rows without slices keep their number in Snorkel's recarray."""
    assert (len(SliceMatrix.empty(3)), SliceMatrix.empty(3).names) == (3, ())
    assert "3 rows" in repr(SliceMatrix.empty(3))
    assert SliceMatrix.empty(3) != SliceMatrix.empty(2)


def test_an_aligned_matrix_lies_by_rows_in_memory() -> None:
    """Otherwise sums over it have other last digits, and a training with the same seed has other weights."""
    S = SliceMatrix(["a", "b", "c"], np.eye(3, dtype=bool)).align(["c", "a"])
    assert S.member.tolist() == [[False, True], [False, False], [True, False]]
    assert S.member.flags.c_contiguous
    assert S.unknown.flags.c_contiguous
