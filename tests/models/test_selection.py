"""The selection score against a literal twin, and at its edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.selection import selection_score


def literal_score(p: np.ndarray, y: np.ndarray, member: np.ndarray) -> float:
    n = len(y)
    right = [int(max(range(p.shape[1]), key=lambda c: p[i, c]) == y[i]) for i in range(n)]
    accuracy = sum(right) / n
    worst = math.inf
    for k in range(member.shape[1]):
        members = [i for i in range(n) if member[i, k]]
        worst = min(worst, (sum(right[i] for i in members) + 25 * accuracy) / (len(members) + 25))
    log_loss = -sum(math.log(max(p[i, y[i]], 1e-300)) for i in range(n)) / n
    return 0.5 * accuracy + 0.5 * (accuracy if worst == math.inf else worst) - 0.001 * min(log_loss, 10)


@given(st.integers(1, 40), st.integers(0, 4), st.integers(2, 4), st.integers(0, 10_000))
def test_score_equals_the_literal_rule(n: int, n_slices: int, n_classes: int, seed: int) -> None:
    """The matrix form gives the rule's number, without slices and with empty ones too."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(n_classes), n)
    y, member = rng.integers(0, n_classes, n), rng.random((n, n_slices)) < rng.random()
    assert selection_score(p, y, member).value == pytest.approx(literal_score(p, y, member))


def test_small_slices_are_drawn_to_the_whole() -> None:
    """One wrong member of a lone slice costs little; 300 cost nearly their share."""
    y = np.zeros(1000, dtype=np.int64)
    few, many = np.zeros((2, 1000, 1), dtype=bool)
    few[0], many[:300] = True, True
    one_wrong = np.tile([0.9, 0.1], (1000, 1))
    one_wrong[0] = [0.1, 0.9]
    all_wrong = np.tile([0.9, 0.1], (1000, 1))
    all_wrong[:300] = [0.1, 0.9]
    assert selection_score(one_wrong, y, few).worst > 0.95
    assert selection_score(all_wrong, y, many).worst < 0.06


def test_log_loss_only_breaks_ties() -> None:
    """A certain mistake costs at most a hundredth through the log loss."""
    score = selection_score(np.array([[1.0, 0.0]]), np.array([1]), np.zeros((1, 0), dtype=bool))
    assert score.value == pytest.approx(-0.01)
