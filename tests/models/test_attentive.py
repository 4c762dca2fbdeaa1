"""The slice-aware classifier behind the interface of the other learners."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.attentive import AttentiveClassifier
from models.backbone import MLP
from models.batches import Batch, Memberships
from models.seeding import seeded
from sfs.matrix import SliceMatrix

NAMES = ("a", "b")


def batch(weight: Tensor) -> Batch:
    """Eight rows with two slices, some memberships unknown."""
    with seeded(1):
        member, known = torch.rand(8, 2) < 0.5, torch.rand(8, 2) < 0.8
        slices = Memberships((member & known).float(), known)
        return Batch(torch.randn(8, 3), torch.arange(8) % 2, slices, weight, torch.zeros(8, dtype=torch.bool))


def network() -> AttentiveClassifier:
    with seeded(2):
        return AttentiveClassifier(MLP(3, (4,)), NAMES)


def test_the_loss_is_the_slice_aware_one() -> None:
    """With equal weights it is the loss of the network inside, given the same memberships."""
    model, rows = network(), batch(torch.ones(8))
    S = SliceMatrix(NAMES, rows.slices.member.bool().numpy(), ~rows.slices.known.numpy())
    expected = model.network.loss(rows.X, rows.y, S)
    np.testing.assert_allclose(model.loss(rows).item(), expected.item(), rtol=1e-6)


def test_row_weights_count_in_the_task() -> None:
    """Weights change the loss by exactly what they change the mean cross entropy of the prediction."""
    model, weight = network(), torch.tensor([3.0, 0.5, 0.5, 0, 1, 1, 1, 1])
    rows = batch(weight)
    each = functional.cross_entropy(model(rows.X), rows.y, reduction="none")
    difference = model.loss(rows) - model.loss(batch(torch.ones(8)))
    np.testing.assert_allclose(difference.item(), ((weight - 1) * each).mean().item(), rtol=1e-4)
