"""Slices of overlap and conflict of labelling functions."""

import pickle

import numpy as np
import pandas as pd
import pytest

from sfs import (
    LabelingFunction,
    LFAnalysis,
    PandasLFApplier,
    PandasSFApplier,
    apply,
    conflict_slice,
    labeling_function,
    overlap_slice,
    preprocessor,
)
from sfs.apply import apply_with_stats
from sfs.checks import check_function
from sfs.errors import DuplicateName, InvalidFunction
from sfs.function import LabelingFunctionSlice, SlicingFunction
from sfs.registry import FunctionSet

FILE = """
from sfs import conflict_slice, labeling_function, overlap_slice


@labeling_function()
def loud(x):
    return 1 if x.text.isupper() else -1


@labeling_function()
def song(x):
    return 0 if "song" in x.text.lower() else -1


disputed = conflict_slice([loud, song], "disputed", owner="trust")
both = overlap_slice([loud, song])
"""


def voter(name: str, key: str = "") -> LabelingFunction:
    """Return a function that votes as a field of the row says; a text there is an error."""
    return LabelingFunction(name, lambda x: x[key or name] + 0)


VOTERS = [voter("a"), voter("b"), voter("c")]


def test_shares_are_those_of_the_analysis() -> None:
    """On random votes, coverages are the overlap and conflict of ``LFAnalysis``."""
    votes = pd.DataFrame(np.random.default_rng(3).integers(-1, 3, (400, 3)), columns=list("abc"))
    S = PandasSFApplier([overlap_slice(VOTERS), conflict_slice(VOTERS)]).apply(votes)
    analysis = LFAnalysis(PandasLFApplier(VOTERS).apply(votes))

    assert S["label_overlap"].mean() == analysis.label_overlap()
    assert S["label_conflict"].mean() == analysis.label_conflict()
    assert 0 < analysis.label_conflict() < analysis.label_overlap() < 1


@pytest.mark.parametrize(
    ("votes", "overlap", "conflict"),
    [
        ((-1, -1, -1), False, False),
        ((2, -1, -1), False, False),
        ((2, 2, -1), True, False),
        ((2, 1, -1), True, True),
        (("fails", 1, 1), True, None),
        (("fails", 1, 0), True, True),
        (("fails", 1, -1), None, None),
        (("fails", -1, -1), False, False),
        (("fails", "fails", -1), None, None),
    ],
)
def test_a_fault_is_unknown_where_it_could_decide(votes: tuple, overlap: bool | None, conflict: bool | None) -> None:
    """A function that fails leaves a membership that the others decide."""
    S = apply([overlap_slice(VOTERS), conflict_slice(VOTERS)], [dict(zip("abc", votes, strict=True))])

    expected = [overlap, conflict]
    assert S.member[0].tolist() == [each is True for each in expected]
    assert S.unknown[0].tolist() == [each is None for each in expected]


def test_the_fault_is_that_of_the_function() -> None:
    """Statistics name the exception of the labelling function."""
    (stats,) = apply_with_stats([conflict_slice(VOTERS)], [{"a": "fails", "b": 1, "c": -1}]).stats

    assert stats.unknown == {"TypeError": 1}
    assert "TypeError" in str(stats.first_fault)


def test_a_shared_preprocessor_runs_once_for_a_row() -> None:
    """Functions see the same prepared row, and no change of another function."""
    calls = []

    @preprocessor()
    def counted(x):
        calls.append(1)
        x.n = len(x.text)
        return x

    @labeling_function(pre=[counted])
    def one(x):
        x.n = -5
        return 0

    @labeling_function(pre=[counted])
    def two(x):
        return 1 if x.n == 4 else -1

    assert conflict_slice([one, two])({"text": "four"})
    assert len(calls) == 1


def test_functions_are_part_of_the_fingerprint() -> None:
    """Another function, and another one of the two slices, has another fingerprint."""
    a, b, c = VOTERS
    prints = {
        conflict_slice([a, b]).fingerprint,
        conflict_slice([a, c]).fingerprint,
        conflict_slice([a, LabelingFunction("b", lambda x: -1)]).fingerprint,
        overlap_slice([a, b], "label_conflict").fingerprint,
    }
    assert len(prints) == 4
    assert conflict_slice([a, b]).fingerprint == conflict_slice(iter([a, b])).fingerprint


def test_a_file_has_them_as_slices(tmp_path) -> None:
    """They are slices of model and traffic, with name, metadata and description, and reach other processes."""
    path = tmp_path / "votes.py"
    path.write_text(FILE)
    functions = FunctionSet.from_file(path)
    rows = [{"text": "SONG"}, {"text": "LOUD"}, {"text": "a song"}]

    assert functions.names == ("disputed", "label_overlap")
    disputed = functions["disputed"]
    assert (disputed.metadata.owner, disputed.metadata.description) == (
        "trust",
        "Labelling functions vote for different classes: loud, song.",
    )
    again = pickle.loads(pickle.dumps(disputed))  # noqa: S301  # our own bytes
    assert again.fingerprint == disputed.fingerprint == FunctionSet.from_file(path)["disputed"].fingerprint
    assert [again(row) for row in rows] == [True, False, False]
    assert {check.name for check in check_function(disputed, rows) if not check.passed} == {"total"}
    assert FunctionSet.from_files([path], votes=True).names == ("disputed", "label_overlap", "loud", "song")


def test_the_budget_is_the_sum_of_the_functions() -> None:
    """A budget that is given goes before it, and without any there is none."""
    slow, fast, plain = (LabelingFunction(n, len, budget_ms=ms) for n, ms in (("s", 20), ("f", 2), ("p", None)))

    budgets = [
        conflict_slice([slow, fast, plain]).budget_ms,
        conflict_slice([slow, fast], budget_ms=3).budget_ms,
        overlap_slice(VOTERS).budget_ms,
    ]
    assert budgets == [22, 3, None]


@pytest.mark.parametrize(
    ("functions", "error", "message"),
    [
        ([VOTERS[0]], InvalidFunction, "'label_conflict' needs two labelling functions or more, got 1"),
        (VOTERS[0], InvalidFunction, "expected a list of functions, got a single function"),
        ([*VOTERS, len], InvalidFunction, "expected a LabelingFunction, got"),
        ([*VOTERS, SlicingFunction("s", len)], InvalidFunction, "'s' of 'label_conflict' is a slicing function"),
        (
            [*VOTERS, LabelingFunctionSlice(voter("d"))],
            InvalidFunction,
            "'d' of 'label_conflict' is a slicing",
        ),
        ([*VOTERS, voter("a", "b")], DuplicateName, "2 operators with name a"),
    ],
)
def test_what_cannot_vote_is_refused(functions: list, error: type[Exception], message: str) -> None:
    """The message says what is expected."""
    with pytest.raises(error, match=message):
        conflict_slice(functions)
