"""Attention over the experts."""

import math

import pytest
import torch

from models.attention import attend, default_temperature, margin


def test_snorkel_attention_is_the_formula() -> None:
    """softmax over slices of P(member) P(class 1) / t, written out."""
    generator = torch.Generator().manual_seed(0)
    membership, experts = torch.randn(5, 4, generator=generator), torch.randn(5, 4, 2, generator=generator)
    attention = attend("snorkel", membership, experts, 0.7)
    for b in range(5):
        relevance = []
        for s in range(4):
            e0, e1 = (math.exp(v) for v in experts[b, s].tolist())
            relevance.append(1 / (1 + math.exp(-membership[b, s].item())) * e1 / (e0 + e1) / 0.7)
        total = sum(math.exp(r) for r in relevance)
        assert attention[b].tolist() == pytest.approx([math.exp(r) / total for r in relevance], rel=1e-5)


@pytest.mark.parametrize("C", [2, 3, 7])
def test_symmetric_attention_ignores_the_numbering_of_classes(C: int) -> None:
    """Renaming the classes leaves every share as it was."""
    generator = torch.Generator().manual_seed(1)
    membership, experts = torch.randn(6, 5, generator=generator), torch.randn(6, 5, C, generator=generator)
    renamed = experts[..., torch.randperm(C, generator=generator)]
    assert torch.allclose(
        attend("symmetric", membership, experts, 1.0), attend("symmetric", membership, renamed, 1.0)
    )


@pytest.mark.parametrize("kind", ["symmetric", "snorkel"])
def test_shares_sum_to_one(kind) -> None:
    """Every row's attention is a distribution."""
    generator = torch.Generator().manual_seed(2)
    shares = attend(
        kind, torch.randn(3, 9, generator=generator), torch.randn(3, 9, 2, generator=generator), 1.0
    )
    assert torch.allclose(shares.sum(dim=1), torch.ones(3))
    assert (shares > 0).all()


def one_member_of(K: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A row that is in slice 0 (logit 2) and in none of K others (-2), all experts certain of class 0."""
    membership = torch.full((1, K + 1), -2.0)
    membership[0, 0] = 2.0
    return membership, torch.tensor([30.0, 0.0]).expand(1, K + 1, 2)


@pytest.mark.parametrize("K", [1, 5, 100, 300])
def test_one_slice_can_win_at_any_number(K: int) -> None:
    """At the default temperature the one true slice has nine tenths of the attention, also for class 0."""
    share = attend("symmetric", *one_member_of(K), default_temperature("symmetric", K))[0, 0].item()
    assert share == pytest.approx(0.9, abs=0.06)


def test_one_slice_cannot_win_in_snorkels() -> None:
    """There no share is more than e times another: the reason for the default."""
    assert attend("snorkel", *one_member_of(100), 1.0)[0, 0].item() < 0.03


def test_margin_runs_from_chance_to_certainty() -> None:
    """It is 0 at chance and 1 at certainty, for any number of classes."""
    assert margin(torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])).tolist() == pytest.approx([0, 1, 0.5])
    assert margin(torch.full((4,), 0.25)).item() == 0
