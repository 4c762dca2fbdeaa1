"""Voters, and what all labelers share."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.errors import DataError, ModelError
from models.label_model import LabelModel
from models.labelers import BaseLabeler, MajorityClassVoter, MajorityLabelVoter, RandomVoter

L = np.array([[0, 1, 1], [0, 1, -1], [-1, -1, -1], [2, 2, 0]])


@settings(deadline=None)
@given(votes=arrays.arrays(np.int64, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=st.integers(-1, 2)))
def test_a_majority_is_counted_row_by_row(votes: np.ndarray[Any, Any]) -> None:
    """Classes with the most votes share the probability."""
    found = MajorityLabelVoter(3).predict_proba(votes)
    for row, probs in zip(votes.tolist(), found.tolist(), strict=True):
        counts = [row.count(label) for label in range(3)]
        expected = [float(count == max(counts)) for count in counts]
        assert probs == pytest.approx([each / sum(expected) for each in expected])


def test_a_tie_is_broken_as_asked() -> None:
    """No label by default; else a class by the row's position, or by chance."""
    voter = MajorityLabelVoter(3)
    assert voter.predict(L).tolist() == [1, -1, -1, 2]
    labels, probs = voter.predict(L, return_probs=True, tie_break_policy="random")
    assert labels[[0, 3]].tolist() == [1, 2]
    assert labels[1] in (0, 1)
    assert probs.tolist() == voter.predict_proba(L).tolist()
    drawn = voter.predict(np.tile([[0, 1]], (100, 1)), tie_break_policy="true-random")
    assert set(drawn.tolist()) == {0, 1}


def test_a_score_is_of_the_rows_with_a_label(caplog: pytest.LogCaptureFixture) -> None:
    """Ties count as wrong only if they are broken; a warning says so."""
    voter = MajorityLabelVoter(3)
    with caplog.at_level(logging.WARNING):
        assert voter.score(L, [1, 0, 0, 2]) == {"accuracy": 1.0}
    assert "tie_break_policy='random'" in caplog.text
    caplog.clear()
    scores = voter.score(L, [1, 2, 2, 0], metrics=["accuracy", "coverage"], tie_break_policy="random")
    assert set(scores) == {"accuracy", "coverage"}
    assert scores["accuracy"] < 1
    assert not caplog.text


def test_the_most_frequent_class_needs_no_votes() -> None:
    """Classes that are as frequent share the probability."""
    voter = MajorityClassVoter(3)
    with pytest.raises(ModelError, match="call fit"):
        voter.predict_proba(L)
    voter.fit([5, 2, 5])
    assert voter.predict_proba(L).tolist() == [[0.5, 0, 0.5]] * 4
    with pytest.raises(DataError, match="the class balance has 2 entries, the voter has 3 classes"):
        voter.fit([0.5, 0.5])
    with pytest.raises(DataError, match="of finite numbers"):
        voter.fit([0.5, np.nan, 1])


def test_chance_is_a_distribution() -> None:
    """It is another one at each call, without a seed."""
    voter = RandomVoter(3)
    first = voter.predict_proba(L)
    assert first.sum(axis=1) == pytest.approx(1)
    assert not np.array_equal(first, voter.predict_proba(L))
    assert np.array_equal(*(RandomVoter(3, seed=1).predict_proba(L) for _ in range(2)))


def test_voters_that_ignore_votes_take_any() -> None:
    """Those of more classes than they have are no error, as in Snorkel."""
    voter = MajorityClassVoter()
    voter.fit([0.8, 0.2])
    assert voter.predict_proba([[3, -1], [0, 1]]).tolist() == [[1, 0], [1, 0]]
    assert RandomVoter().predict_proba([[3, -1], [0, 1]]).shape == (2, 2)


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        ([0, 1], r"L must be \[rows, functions\].* got \[2\]"),
        (np.zeros((2, 0)), r"at least one function"),
        ([[0.5, 1]], "must be integers"),
        ([[np.nan, 1]], "must be integers"),
        ([[np.inf, 1]], "must be finite"),
        ([["0", "1"]], "must be integers"),
        ([[-2, 1]], "the vote -2"),
        ([[0, 2]], "L has cardinality 3, cardinality=2 passed in"),
    ],
)
def test_what_are_no_votes_is_refused(votes: Any, said: str) -> None:
    """Shape, kind and range are named."""
    with pytest.raises(DataError, match=said):
        MajorityLabelVoter().predict_proba(votes)


def test_one_class_is_none() -> None:
    """There is nothing to tell apart."""
    with pytest.raises(DataError, match="at least 2 classes, got cardinality 1"):
        MajorityLabelVoter(cardinality=1)


def test_what_was_learned_is_read_again(tmp_path: Path) -> None:
    """A file is of one kind of labeler, and of no other kind of file."""
    voter, model = MajorityClassVoter(3), LabelModel(3)
    voter.fit([1, 2, 3])
    rng = np.random.default_rng(0)
    votes = rng.integers(-1, 3, (500, 4))
    model.fit(votes)
    other: BaseLabeler
    for labeler, other in ((voter, MajorityClassVoter(2)), (model, LabelModel())):
        labeler.save(tmp_path / "folder" / "labeler")
        other.load(tmp_path / "folder" / "labeler")
        assert other.cardinality == 3
        assert np.array_equal(other.predict_proba(votes), labeler.predict_proba(votes))
    with pytest.raises(ModelError, match=r"labeler is of LabelModel, not of MajorityClassVoter$"):
        voter.load(tmp_path / "folder" / "labeler")
    LabelModel(5).save(tmp_path / "unfitted")
    other.load(tmp_path / "unfitted")
    with pytest.raises(ModelError, match="was not fitted yet"):
        other.predict_proba(votes)
    (tmp_path / "pickle").write_bytes(b"\x80\x04}.")
    with pytest.raises(ModelError, match="is no saved labeler"):
        voter.load(tmp_path / "pickle")
