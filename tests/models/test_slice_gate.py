"""The slice gate: how strict it is, and what it lets through."""

import numpy as np
import torch

from models.backbone import MLP
from models.batches import Memberships, Split
from models.rows import FeatureRows
from models.slice_gate import gate_threshold, kept_slices
from models.slice_residual import SliceResidualClassifier
from sfs.matrix import SliceMatrix

N, K = 500, 30


def planted() -> tuple[SliceResidualClassifier, Split]:
    """A network whose slice 4 corrects its members' labels, slice 9 spoils them, and the others add noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 2)).astype(np.float32)
    member = rng.random((N, K)) < 0.2
    y = (X[:, 0] > 0).astype(np.int64) ^ member[:, 4]
    names = [f"slice {k}" for k in range(K)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SliceResidualClassifier(MLP(2, (8,)), 8, names)
        with torch.no_grad():
            for width in (model.backbone.first, model.heads):
                width.weight.normal_(std=0.05), width.bias.zero_()
            model.backbone.first.weight[0], model.backbone.first.weight[1] = torch.eye(2)[0], -torch.eye(2)[0]
            model.backbone.first.weight[2:, 0], model.heads.weight[:, :2] = 0.0, 0.0
            model.heads.weight[0, :2], model.heads.weight[1, :2] = torch.tensor([[-3.0, 3.0], [3.0, -3.0]])
            model.heads.bias[2 + 2 * K :] = -4.0
            model.mix.fill_(4.0)
            model.slope[4], model.slope[9] = -2.0, -2.0
    return model, Split(FeatureRows(X), y, SliceMatrix(names, member))


def literal_keep(model: SliceResidualClassifier, valid: Split) -> tuple[str, ...]:
    """The rule one slice at a time: the network without the slice, by leaving out its residual."""
    X, member = valid.X.take(slice(None)), torch.tensor(valid.S.member, dtype=torch.float32)
    slices = Memberships(member, torch.ones_like(member, dtype=torch.bool))
    with torch.no_grad():
        logits, parts = model(X, slices).double(), model.slice_residuals(X, slices).double()
    rows = np.arange(len(valid))
    kept = []
    for k, name in enumerate(model.kept):
        with_slice = -logits.log_softmax(dim=1).numpy()[rows, valid.y]
        without = -(logits - parts[:, k]).log_softmax(dim=1).numpy()[rows, valid.y]
        gain = without - with_slice
        if gain.sum() > gate_threshold(K) * np.sqrt((gain**2).sum()):
            kept.append(name)
    return tuple(kept)


def test_threshold_lets_about_three_useless_slices_through() -> None:
    """The threshold is the normal quantile of 1 - 3 / K, and never below zero."""
    assert round(gate_threshold(100), 2) == 1.88
    assert round(gate_threshold(21), 2) == 1.07
    assert gate_threshold(2) == gate_threshold(6) == 0.0


def test_useful_slice_stays_and_harmful_one_goes() -> None:
    """The planted slice passes, the spoiling one does not, and of 28 useless ones only a few do."""
    model, valid = planted()
    kept = kept_slices(model, valid)
    assert "slice 4" in kept
    assert "slice 9" not in kept
    assert len(kept) <= 7


def test_gate_equals_the_literal_rule() -> None:
    """Chunks and fused residuals give what the rule gives one slice at a time."""
    model, valid = planted()
    assert kept_slices(model, valid) == literal_keep(model, valid)
