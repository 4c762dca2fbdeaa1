"""Row weights: the five weightings and their edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ConfigError
from models.weights import WEIGHTINGS, cell_rarity, row_weights


def literal_rarity(y: np.ndarray, member: np.ndarray) -> list[float]:
    out = []
    for n in range(len(y)):
        cells = [1.0]
        for k in range(member.shape[1]):
            if member[n, k]:
                cells.append(len(y) / sum(1 for i in range(len(y)) if member[i, k] and y[i] == y[n]))
        out.append(max(cells))
    return out


@given(st.integers(1, 25), st.integers(0, 4), st.integers(0, 10_000))
def test_rarity_equals_the_literal_rule(n: int, n_slices: int, seed: int) -> None:
    """Counting by class gives each row's rarest cell of slice and class."""
    rng = np.random.default_rng(seed)
    y, member = rng.integers(0, 3, n), rng.random((n, n_slices)) < 0.4
    np.testing.assert_allclose(cell_rarity(y, member), literal_rarity(y, member))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_weights_are_positive_with_mean_one(weighting: str, share: float) -> None:
    """Whatever the slices hold, weights are positive and average 1."""
    rng = np.random.default_rng(0)
    weights = row_weights(weighting, rng.integers(0, 2, 400), rng.random((400, 3)) < share)
    assert weights.min() > 0
    assert weights.mean() == pytest.approx(1)


def test_factors_and_caps() -> None:
    """Members count 3 or 10 times as much; rarity is capped at 20, its root at 10."""
    y, member = np.zeros(1000, dtype=np.int64), np.zeros((1000, 1), dtype=bool)
    member[:4] = True  # 250 times rarer than all
    expected = {"equal": 1.0, "x3": 3.0, "x10": 10.0, "root of rarity": 10.0, "rarity": 20.0}
    ratios = {weighting: np.ptp(row_weights(weighting, y, member)) for weighting in WEIGHTINGS}
    found = {w: row_weights(w, y, member)[0] / row_weights(w, y, member)[-1] for w in ratios}
    assert found == pytest.approx(expected)


def test_unknown_weighting_is_refused() -> None:
    """A misspelt weighting names the real ones."""
    with pytest.raises(ConfigError, match="no weighting 'x4'; the weightings are equal, x3"):
        row_weights("x4", np.zeros(1, dtype=np.int64), np.zeros((1, 0), dtype=bool))
