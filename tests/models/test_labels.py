"""Labels, probabilities, and buckets of rows."""

import logging

import numpy as np
import pytest

from models.errors import DataError
from models.labels import get_label_buckets, get_label_instances, preds_to_probs, probs_to_preds


def test_buckets_hold_positions() -> None:
    """Each combination of labels has the positions of its rows, in order."""
    buckets = get_label_buckets(np.array([1, 1, 1, 0]), np.array([1, 1, -1, -1]))
    assert {bucket: rows.tolist() for bucket, rows in buckets.items()} == {
        (1, 1): [0, 1],
        (1, -1): [2],
        (0, -1): [3],
    }


def test_buckets_of_text_and_of_three_label_sets() -> None:
    """Classes may be text, and there may be any number of label sets."""
    buckets = get_label_buckets(["spam", "ham"], [1, 0], [[1.0], [0.0]])
    assert list(buckets) == [("spam", 1, 1), ("ham", 0, 0)]


def test_buckets_need_equal_lengths() -> None:
    """The lengths are named."""
    with pytest.raises(DataError, match=r"of one length, got lengths \[1, 2\]"):
        get_label_buckets([1], [1, 2])


def test_instances_are_rows_of_x() -> None:
    """The rows of one bucket come back, and for a bucket without rows none, with a warning."""
    x = np.array([["a", "1"], ["b", "2"], ["c", "3"]])
    assert get_label_instances((1, 0), x, [1, 1, 1], [1, 0, 0]).tolist() == [["b", "2"], ["c", "3"]]


def test_a_bucket_without_rows_warns(caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to return, and that is said."""
    with caplog.at_level(logging.WARNING):
        assert len(get_label_instances((7,), np.zeros((2, 1)), [1, 0])) == 0
    assert "no row has the labels (7,)" in caplog.text


def test_instances_say_what_does_not_fit() -> None:
    """Labels per bucket, and rows, must agree."""
    with pytest.raises(DataError, match="names 2 labels, but 1 label sets were given"):
        get_label_instances((1, 0), np.zeros(2), [1, 0])
    with pytest.raises(DataError, match="x has 3 rows and the first label set 2"):
        get_label_instances((1,), np.zeros(3), [1, 0])


def test_ties_are_broken_by_position_as_in_snorkel() -> None:
    """Fifty-fifty rows give Snorkel's sequence."""
    assert probs_to_preds(np.full((12, 2), 0.5)).tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1]


def test_clear_rows_are_the_largest() -> None:
    """Rows without a tie do not ask the policy; a difference within the tolerance is a tie."""
    probs = np.array([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4], [0.3, 0.3, 0.4]])
    assert probs_to_preds(probs, "abstain").tolist() == [0, -1, 2]
    assert probs_to_preds(probs, "abstain", tol=0.2).tolist() == [0, -1, -1]
    assert probs_to_preds(probs, "true-random")[1] in (1, 2)


def test_probabilities_that_are_none() -> None:
    """One class, or a policy that does not exist, is refused."""
    with pytest.raises(DataError, match=r"two classes or more, got \[3, 1\]"):
        probs_to_preds(np.ones((3, 1)))
    with pytest.raises(DataError, match="must be random, true-random or abstain, got 'coin'"):
        probs_to_preds(np.full((1, 2), 0.5), "coin")  # type: ignore[arg-type]


def test_predictions_become_probabilities() -> None:
    """One-hot rows, also from [N, 1]."""
    assert preds_to_probs([[1], [0]], 3).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("bad", [-1, 2])
def test_predictions_must_be_classes(bad: int) -> None:
    """An abstained vote has no probability."""
    with pytest.raises(DataError, match=f"prediction {bad} is none of the classes 0 to 1"):
        preds_to_probs([0, bad], 2)
