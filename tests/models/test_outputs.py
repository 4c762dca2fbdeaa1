"""Confidence on a grid, and rates of held-out rows without labels."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import BundleError
from models.outputs import LIMITS, RANGES, OutputRates, count_ranges, low_limit
from sfs.intervals import Rate
from sfs.matrix import SliceMatrix

MEMBER = np.array([[True, False], [True, True], [False, False], [False, True]])
UNKNOWN = np.array([[False, False], [False, False], [True, False], [False, False]])
INSIDE = np.array([[True, True], [False, True], [True, False], [False, True]])
P = np.array([[0.1, 0.9], [0.6, 0.4], [0.2, 0.8], [0.05, 0.95]])


def rates(contents: list[int]) -> OutputRates:
    S = SliceMatrix(("a", "b"), MEMBER & ~UNKNOWN, UNKNOWN)
    return OutputRates.of(P, INSIDE, S, np.array(contents, np.uint64))


@given(confidence=st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=30))
def test_counts_below_a_limit_are_those_of_the_rows(confidence: list[float]) -> None:
    """Counts of the ranges up to a limit are the rows below it; rows without a confidence are not counted."""
    rows = np.array(confidence)
    counts = count_ranges(rows)
    assert len(counts) == RANGES
    below = [int((rows < limit).sum()) for limit in LIMITS]
    assert counts.cumsum()[:-1].tolist() == below
    assert counts.sum() == (~np.isnan(rows)).sum()


@given(confidence=st.lists(st.floats(0.05, 1), min_size=1, max_size=200))
def test_a_tenth_lies_below_the_limit_and_less_below_the_one_before(confidence: list[float]) -> None:
    """Where even the highest limit has fewer rows below it, it is the limit."""
    rows, k = np.array(confidence), low_limit(np.array(confidence))
    shares = [(rows < limit).mean() for limit in LIMITS]
    assert shares[k] >= 0.1 or k == len(LIMITS) - 1
    assert k == 0 or shares[k - 1] < 0.1


def test_disagreement_is_of_known_rows() -> None:
    """A row of unknown membership is in neither count, and repeats of one content are one."""
    assert rates([1, 2, 3, 4]).disagreement == {"a": Rate(1, 3), "b": Rate(1, 4)}
    assert rates([1, 1, 1, 1]).disagreement["b"] == Rate(1, 4, 1)


def test_low_confidence_is_below_the_limit_of_the_rows() -> None:
    """One row of four is below the limit next above it."""
    assert rates([1, 2, 3, 4]).low_confidence == Rate(1, 4)
    assert 0.6 < rates([1, 2, 3, 4]).limit < 0.66


def test_rates_come_back_as_they_were_stored() -> None:
    """Also with an effective n."""
    made = rates([1, 1, 2, 3])
    assert OutputRates.from_json(made.to_json(), ["a", "b"]) == made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"limit": "0.5"}, "impossible"),
        ({"low_confidence": {"count": 5, "n": 4}}, "impossible"),
        ({"low_confidence": {"count": 1.0, "n": 4}}, "impossible"),
        ({"low_confidence": {"count": 1, "n": 4, "independent": 0}}, "impossible"),
        ({"disagreement": {"c": {"count": 1, "n": 4}}}, "impossible"),
        ({"disagreement": ["a"]}, "malformed"),
        ({"low_confidence": {"n": 4}}, "malformed"),
    ],
)
def test_rates_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    """Counts beyond n, of other types, or of slices that the bundle does not have."""
    with pytest.raises(BundleError, match=said):
        OutputRates.from_json(rates([1, 2, 3, 4]).to_json() | change, ["a", "b"])
