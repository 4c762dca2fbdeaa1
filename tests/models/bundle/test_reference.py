"""Counts of labelled rows per slice."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle.reference import (
    FamilyCounts,
    SliceCounts,
    counts_from_json,
    counts_to_json,
    family_counts,
    reference_counts,
)
from models.errors import BundleError
from sfs.intervals import Rate
from sfs.matrix import SliceMatrix

MEMBER = [[1, 0], [1, 1], [0, 0], [0, 0], [1, 0], [0, 1]]
UNKNOWN = [[0, 0], [0, 0], [0, 1], [1, 1], [0, 0], [0, 0]]
CONTENTS = [7, 7, 10, 20, 30, 30]
HELD_OUT = [2, 3, 4, 5]


@pytest.fixture
def counts() -> dict[str, SliceCounts]:
    """Six rows of four contents, four of them held out."""
    S = SliceMatrix(["a", "b"], np.array(MEMBER, dtype=bool), np.array(UNKNOWN, dtype=bool))
    true, predicted = ["ham", "ham", "spam", "spam"], ["ham", "spam", "spam", "ham"]
    return reference_counts(S, np.array(CONTENTS, dtype=np.uint64), np.array(HELD_OUT), true, predicted)


def test_coverage_is_counted_on_all_rows_and_accuracy_on_held_out_ones(
    counts: dict[str, SliceCounts],
) -> None:
    """By hand: members, unknowns and contents of all rows; members, correct predictions and contents held out."""
    assert counts == {
        "__all__": SliceCounts(
            *(6, 6, 0, 4, 4, 2, 3, 3, 4),
            (("ham", "ham", 1), ("ham", "spam", 1), ("spam", "ham", 1), ("spam", "spam", 1)),
        ),
        "a": SliceCounts(6, 3, 1, 3, 1, 1, 1, 1, 3, (("spam", "spam", 1),)),
        "b": SliceCounts(6, 2, 2, 2, 1, 0, 1, 1, 2, (("spam", "ham", 1),)),
    }


def test_rates_have_the_counts_of_rows_and_an_effective_n(counts: dict[str, SliceCounts]) -> None:
    """Three of five known rows are members, of three contents; two of four held-out rows are correct."""
    assert counts["a"].coverage == Rate(3, 5, 3)
    assert counts["__all__"].coverage == Rate(6, 6, 4)
    assert counts["__all__"].accuracy == Rate(2, 4, 3)
    assert counts["b"].accuracy == Rate(0, 1)


def test_a_family_has_the_rows_in_any_of_its_slices_once() -> None:
    """Four members of which one is in both slices; the row that is unknown in one and in no other is unknown."""
    S = SliceMatrix(["a", "b"], np.array(MEMBER, dtype=bool), np.array(UNKNOWN, dtype=bool))
    true, predicted = ["ham", "ham", "spam", "spam"], ["ham", "spam", "spam", "ham"]
    prints = {"a": "1", "b": "2", "c": "3"}
    counts = family_counts(
        S, {"both": ["b", "a"]}, prints, np.array(CONTENTS, np.uint64), np.array(HELD_OUT), true, predicted
    )
    pairs = (("spam", "ham", 1), ("spam", "spam", 1))
    assert counts == {"both": FamilyCounts({"b": "2", "a": "1"}, SliceCounts(6, 4, 2, 2, 2, 1, 1, 1, 2, pairs))}
    saved = json.loads(json.dumps({name: asdict(each) for name, each in counts.items()}))
    assert FamilyCounts.from_json(saved, prints) == counts
    with pytest.raises(BundleError, match="'both' is of other functions"):
        FamilyCounts.from_json(saved, {"a": "1", "b": "3"})
    with pytest.raises(BundleError, match="malformed"):
        FamilyCounts.from_json({"both": {"fingerprints": prints}}, prints)


def test_counts_survive_json(counts: dict[str, SliceCounts]) -> None:
    """Counts are read back, for exactly the named slices."""
    saved = json.loads(json.dumps(counts_to_json(counts)))
    assert counts_from_json(saved, ["a", "b"]) == counts
    with pytest.raises(BundleError, match="must hold counts of __all__, a"):
        counts_from_json(saved, ["a"])


def test_counts_of_earlier_versions_are_of_held_out_rows() -> None:
    """Without contents they are taken as all different, and coverage is that of the held-out rows."""
    old = {"n": 50, "member": 10, "unknown": 5, "correct": 4}
    (only,) = counts_from_json({"__all__": old}, []).values()
    assert only == SliceCounts(50, 10, 5, 45, 10, 4, 10, 10, 45)
    assert (only.coverage, only.accuracy) == (Rate(10, 45), Rate(4, 10))


def test_without_a_stored_effective_n_it_is_the_number_of_contents() -> None:
    """Earlier versions counted the contents, but not the rows of each."""
    saved = counts_to_json({"__all__": SliceCounts(50, 10, 5, 40, 9, 4, 3, 2, 30)})
    del saved["__all__"]["held_out_effective_n"], saved["__all__"]["coverage_effective_n"]
    (only,) = counts_from_json(saved, []).values()
    assert (only.coverage, only.accuracy) == (Rate(10, 45, 40), Rate(4, 9, 3))


def test_without_stored_pairs_of_classes_they_are_unknown(counts: dict[str, SliceCounts]) -> None:
    """Earlier versions counted the correct predictions only."""
    saved = counts_to_json(counts)
    for each in saved.values():
        del each["confusion"]
    assert counts_from_json(saved, ["a", "b"]) == {name: replace(each, confusion=()) for name, each in counts.items()}


def test_a_slice_of_one_content_has_the_effective_n_of_its_repeats() -> None:
    """Of 3,000 rows 300 are one content, which alone is a slice; other slices have more independent rows."""
    contents = np.array([0] * 300 + [*range(1, 2701)], dtype=np.uint64)
    member = np.column_stack([contents == 0, contents > 2400, contents % 2 == 1])
    S = SliceMatrix(["campaign", "rare", "odd"], member, np.zeros_like(member))
    counts = reference_counts(S, contents, np.arange(0), [], [])
    rates = [counts[name].coverage for name in ("campaign", "rare", "odd")]
    assert [(rate.count, rate.n, rate.effective_n) for rate in rates] == [
        (300, 3000, 11),
        (300, 3000, 694),
        (1350, 3000, 118),
    ]
    lower, upper = rates[0].interval()
    assert lower < 0.01
    assert upper > 0.3


@pytest.mark.parametrize(
    "values",
    [
        (5, 4, 2, 3, 1, 1, 1, 1, 3),  # more members and unknowns than rows
        (5, 3, 0, 6, 1, 1, 1, 1, 5),  # more contents than rows
        (5, 3, 0, 0, 1, 1, 1, 1, 0),  # rows, but no content
        (5, 3, 0, 5, 4, 1, 1, 1, 5),  # more held-out members than members
        (5, 3, 0, 5, 1, 2, 1, 1, 5),  # more correct than held out
        (5, 3, 0, 5, 2, 1, 3, 1, 5),  # more held-out contents than held-out rows
        (5, 3, 0, 5, 2, 1, 0, 0, 5),
        (5, 3, 0, 5, 3, 1, 2, 3, 5),  # an effective n above the contents
        (5, 3, 0, 5, 3, 1, 2, 0, 5),
        (5, 3, 0, 4, 2, 1, 1, 1, 5),
        (5, 3, 0, 4, 2, 1, 1, 1, 0),
        (5, 3, -1, 5, 2, 1, 1, 1, 5),
        (5, 3, 0, True, 1, 1, 1, 1, 1),
    ],
)
def test_counts_that_cannot_be_are_refused(values: tuple[int, ...]) -> None:
    """Every count fits the others."""
    with pytest.raises(BundleError, match="impossible counts"):
        SliceCounts(*values)


@pytest.mark.parametrize(
    "confusion",
    [
        (("a", "a", 1),),  # fewer than held out
        (("a", "a", 1), ("b", "a", 1), ("a", "b", 1)),  # another number of correct ones
        (("a", "a", 2), ("b", "a", 1), ("b", "c", 0)),
        (("a", "a", 1), ("a", "a", 1), ("b", "a", 1)),
        (("a", "a", 3), ("b", "b", -1), ("b", "a", 1)),
        (("a", "a", 2), ("b", "a", True)),
        (("a", "a", 2), (1, "a", 1)),
    ],
)
def test_pairs_of_classes_that_cannot_be_are_refused(confusion: tuple[tuple[str, str, int], ...]) -> None:
    """They are those of all held-out members, two of three correct, each pair once."""
    assert SliceCounts(5, 3, 0, 5, 3, 2, 3, 3, 5, (("a", "a", 2), ("b", "a", 1))).accuracy == Rate(2, 3)
    with pytest.raises(BundleError, match="impossible counts"):
        SliceCounts(5, 3, 0, 5, 3, 2, 3, 3, 5, confusion)


def test_pairs_of_classes_of_another_form_are_refused(counts: dict[str, SliceCounts]) -> None:
    """Each is two classes and a number."""
    saved = counts_to_json(counts)
    for confusion in (7, [7], [["ham", "ham"]], None):
        saved["a"]["confusion"] = confusion
        with pytest.raises(BundleError, match="holds malformed counts"):
            counts_from_json(saved, ["a", "b"])


@pytest.mark.parametrize("saved", [3, None, [1], {"n": 5}, "abcd"])
def test_what_is_no_counts_is_refused(saved: object) -> None:
    """Values of another kind, and other fields."""
    with pytest.raises(BundleError, match="holds malformed counts"):
        counts_from_json({"__all__": saved}, [])


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans(), st.booleans()), min_size=1))
def test_the_effective_n_is_at_most_the_number_of_contents(rows: list[tuple[int, bool, bool, bool]]) -> None:
    """The value of a rate is that of its rows, its effective n at most their contents, and 0 without rows only."""
    contents, held, right, member = (np.array(column) for column in zip(*rows, strict=True))
    S = SliceMatrix(["s"], member[:, None], np.zeros((len(rows), 1), dtype=bool))
    out = np.flatnonzero(held)
    called = np.where(right[out], "ham", "spam").tolist()
    counts = reference_counts(S, contents.astype(np.uint64), out, ["ham"] * len(out), called)
    for name, chosen in (("__all__", held), ("s", held & member)):
        rate = counts[name].accuracy
        assert (rate.count, rate.n) == (int((right & chosen).sum()), int(chosen.sum()))
        assert (rate.n > 0) <= rate.effective_n <= min(rate.n, len(set(contents[chosen].tolist())))
    assert 1 <= counts["s"].coverage.effective_n <= len(set(contents.tolist()))
