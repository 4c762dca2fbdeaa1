"""The losses against slow literal twins."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from models.errors import ConfigError, DataError
from models.objectives import (
    WEIGHTINGS,
    cell_rarity,
    cross_entropy_with_probs,
    expert_loss,
    indicator_loss,
    row_weights,
    weighted_cross_entropy,
)


def draw(seed: int, B: int, S: int, C: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [B, S, C], classes [B] and a mask [B, S]."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, S, C, generator=generator)
    return logits, torch.randint(C, (B,), generator=generator), torch.rand(B, S, generator=generator) < 0.3


def minus_log_softmax(logits: Tensor, y: int) -> float:
    return math.log(sum(math.exp(v) for v in logits.tolist())) - logits[y].item()


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4), st.integers(2, 4))
def test_expert_loss_equals_its_literal_twin(seed: int, B: int, S: int, C: int) -> None:
    """A mean over the members of each slice, then over the slices that have any."""
    logits, y, mask = draw(seed, B, S, C)
    means = []
    for s in range(S):
        members = [b for b in range(B) if mask[b, s]]
        if members:
            means.append(sum(minus_log_softmax(logits[b, s], int(y[b])) for b in members) / len(members))
    expected = sum(means) / len(means) if means else 0.0
    assert expert_loss(logits, y, mask).item() == pytest.approx(expected, abs=1e-5)


def test_a_slice_without_members_contributes_nothing() -> None:
    """Its logits neither change the loss nor get a gradient, even where they are extreme."""
    logits, y, mask = draw(1, 8, 3, 2)
    mask[:, 1] = False
    logits[:, 1] = 1e6
    logits.requires_grad_()
    loss = expert_loss(logits, y, mask)
    loss.backward()
    assert loss.item() == pytest.approx(expert_loss(logits[:, [0, 2]], y, mask[:, [0, 2]]).item())
    assert logits.grad is not None
    assert logits.grad[:, 1].abs().sum() == 0
    assert logits.grad[:, 0].abs().sum() > 0


def test_slices_do_not_add_up() -> None:
    """A hundred equal slices weigh as much as one."""
    logits, y, mask = draw(2, 20, 1, 3)
    many = expert_loss(logits.expand(20, 100, 3), y, mask.expand(20, 100))
    assert many.item() == pytest.approx(expert_loss(logits, y, mask).item(), rel=1e-5)


def test_unknown_memberships_teach_no_indicator() -> None:
    """They are out of the mean, for any value of member there."""
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    member = torch.tensor([[True, False], [False, True]])
    known = torch.tensor([[True, False], [True, False]])
    loss = indicator_loss(logits, member, known)
    expected = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(0.5))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, 1].abs().sum() == 0


def test_nothing_known_is_zero_loss() -> None:
    """A mean over nothing is zero, not NaN."""
    nothing = torch.zeros(3, 2, dtype=torch.bool)
    assert indicator_loss(torch.randn(3, 2), nothing, nothing).item() == 0
    assert expert_loss(torch.randn(3, 2, 2), torch.zeros(3, dtype=torch.long), nothing).item() == 0
    assert weighted_cross_entropy(torch.randn(3, 2), torch.zeros(3, dtype=torch.long), torch.zeros(3)).item() == 0


def test_weights_multiply_rows() -> None:
    """Each labelled row's loss counts times its weight, divided by the rows; unlabelled ones are out."""
    logits, y, _ = draw(3, 3, 1, 4)
    labelled, weights = torch.tensor([True, True, False]), torch.tensor([2.0, 0.5, 9.0])
    each = [minus_log_softmax(logits[b, 0], int(y[b])) for b in range(3)]
    plain = weighted_cross_entropy(logits[:, 0], y, labelled)
    weighted = weighted_cross_entropy(logits[:, 0], y, labelled, weights=weights)
    assert plain.item() == pytest.approx((each[0] + each[1]) / 2, rel=1e-5)
    assert weighted.item() == pytest.approx((2 * each[0] + 0.5 * each[1]) / 2, rel=1e-5)


def test_probabilities_are_labels_too() -> None:
    """One-hot probabilities give the loss of classes, in every loss."""
    logits, y, mask = draw(4, 6, 2, 3)
    soft = F.one_hot(y, 3).float()
    assert expert_loss(logits, soft, mask).item() == pytest.approx(expert_loss(logits, y, mask).item(), rel=1e-5)
    hard = F.cross_entropy(logits[:, 0], y).item()
    assert cross_entropy_with_probs(logits[:, 0], soft).item() == pytest.approx(hard, rel=1e-5)


def test_cross_entropy_with_probs_is_linear_in_the_target() -> None:
    """A mixture of classes costs the mixture of their costs, times class weights; the mean is over rows."""
    logits, _, _ = draw(5, 4, 1, 3)
    logits = logits[:, 0]
    target = torch.softmax(torch.randn(4, 3, generator=torch.Generator().manual_seed(6)), dim=1)
    weight = torch.tensor([1.0, 2.0, 5.0])
    expected = [
        sum(target[i, c].item() * weight[c].item() * minus_log_softmax(logits[i], c) for c in range(3))
        for i in range(4)
    ]
    assert cross_entropy_with_probs(logits, target, weight, "none").tolist() == pytest.approx(expected, rel=1e-5)
    assert cross_entropy_with_probs(logits, target, weight).item() == pytest.approx(sum(expected) / 4, rel=1e-5)
    assert cross_entropy_with_probs(logits, target, weight, "sum").item() == pytest.approx(sum(expected), rel=1e-5)


def test_an_unknown_reduction_is_refused() -> None:
    """The message names the value and the known ones."""
    with pytest.raises(DataError, match=r"Keyword 'reduction' must be one of \['none', 'mean', 'sum'\], got 'median'"):
        cross_entropy_with_probs(torch.zeros(1, 2), torch.zeros(1, 2), reduction="median")


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
    with pytest.raises(ConfigError, match="unknown weighting 'x4'; known are equal, x3"):
        row_weights("x4", np.zeros(1, dtype=np.int64), np.zeros((1, 0), dtype=bool))
