"""Experts evaluated together equal experts evaluated one by one."""

import pytest
import torch
from torch import Tensor, nn

from models.experts import FullExperts, LowRankExperts
from models.seeding import seeded

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
    """Representations, the head's answers, and the mixture are those of separate linear maps."""
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
    """An empty batch has an empty answer."""
    experts, head, z, attention = make(kind)
    codes = experts.codes(z[:0])
    assert experts.logits(z[:0], codes, head).shape == (0, S, C)
    assert experts.mixture(z[:0], codes, attention[:0]).shape == (0, H)
