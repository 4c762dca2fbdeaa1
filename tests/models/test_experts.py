"""Experts evaluated together equal experts evaluated one by one."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.experts import FullExperts, LowRankExperts, attend, default_temperature, margin
from models.trainer import seeded

B, S, H, C = 7, 4, 6, 3


def make(kind: str) -> tuple[LowRankExperts | FullExperts, nn.Linear, Tensor, Tensor]:
    """Experts with weights far from their start, a head, representations and attention."""
    with seeded(0):
        experts = FullExperts(S, H) if kind == "full" else LowRankExperts(S, H, 2)
        for parameter in experts.parameters():
            nn.init.normal_(parameter)
        return experts, nn.Linear(H, C), torch.randn(B, H), torch.softmax(torch.randn(B, S), dim=1)


def one_by_one(experts: LowRankExperts | FullExperts, z: Tensor) -> Tensor:
    """r_s = W_s z + b_s for one slice and one row at a time."""
    out = torch.empty(len(z), S, H)
    for b in range(len(z)):
        for s in range(S):
            if isinstance(experts, FullExperts):
                W, bias = experts.weight[s * H : (s + 1) * H], experts.bias[s * H : (s + 1) * H]
            else:
                own = slice(s * experts.rank, (s + 1) * experts.rank)
                W, bias = torch.eye(H) + experts.up[own].T @ experts.down[own], experts.bias[s]
            out[b, s] = W @ z[b] + bias
    return out


@pytest.mark.parametrize("kind", ["low", "full"])
def test_fused_equals_one_by_one(kind: str) -> None:
    """Representations, logits and mixture equal those of separate linear maps."""
    experts, head, z, attention = make(kind)
    codes, slow = experts.codes(z), one_by_one(experts, z)
    assert torch.allclose(experts.represent(z), slow, atol=1e-5)
    assert torch.allclose(experts.logits(z, codes, head), head(slow), atol=1e-5)
    mixed = (attention.unsqueeze(2) * slow).sum(dim=1)
    assert torch.allclose(experts.mixture(z, codes, attention), mixed, atol=1e-5)


def test_low_rank_starts_near_the_plain_network() -> None:
    """Before training every expert is close to the shared representation itself."""
    with seeded(1):
        experts, z = LowRankExperts(S, 64, 8), torch.randn(B, 64)
    assert (experts.represent(z) - z.unsqueeze(1)).norm() < 0.1 * z.norm()


@pytest.mark.parametrize("kind", ["low", "full"])
def test_no_rows_is_no_error(kind: str) -> None:
    """An empty batch has an empty output."""
    experts, head, z, attention = make(kind)
    codes = experts.codes(z[:0])
    assert experts.logits(z[:0], codes, head).shape == (0, S, C)
    assert experts.mixture(z[:0], codes, attention[:0]).shape == (0, H)


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
    assert torch.allclose(attend("symmetric", membership, experts, 1.0), attend("symmetric", membership, renamed, 1.0))


@pytest.mark.parametrize("kind", ["symmetric", "snorkel"])
def test_shares_sum_to_one(kind) -> None:
    """Every row's attention is a distribution."""
    generator = torch.Generator().manual_seed(2)
    shares = attend(kind, torch.randn(3, 9, generator=generator), torch.randn(3, 9, 2, generator=generator), 1.0)
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
