"""Cells of our learners in the benchmark: what they measure is that of the models."""

from dataclasses import replace

import numpy as np
import pytest
from learner_setups import SetUp, geometry, keyword_text, with_flips
from our_learners import NetworkFamily, adapted, measured, true_share

from models.base_search import centred_logits
from models.baselines import MLP
from models.batches import FeatureRows
from models.linear_classifier import LinearClassifier
from models.slice_adapter import SliceAdapter
from models.slice_residual import SliceResidualClassifier
from sfs.matrix import SliceMatrix


class Labels:
    """A model that predicts the labels it was given, but for the rows of a slice."""

    def __init__(self, setup: SetUp, wrong: int) -> None:
        self.P = np.eye(2)[setup.test.y ^ setup.judged[:, wrong]]

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> np.ndarray:
        return self.P


def test_accuracy_of_judged_slices() -> None:
    """Errors in one slice alone are counted in it, in those that overlap, and overall."""
    setup = geometry(0, sizes=(100, 100, 2_000))
    said = measured(Labels(setup, 1), setup, setup.test.X, setup.test.S)
    assert said["overall"] == pytest.approx(1 - setup.judged[:, 1].mean())
    assert said["slices"][1] == 0
    assert said["slices"][0] == 1


def test_flips_keep_rows_and_judged_slices() -> None:
    """A share of memberships is turned round in all parts, the same for the same seed; the rest is as it was."""
    setup = geometry(0, sizes=(2_000, 2_000, 2_000))
    flipped, again = (with_flips(setup, 0.2, 5) for _ in range(2))
    for part in ("train", "valid", "test"):
        before, after = getattr(setup, part), getattr(flipped, part)
        assert np.mean(before.S.member ^ after.S.member) == pytest.approx(0.2, abs=0.02)
        assert (after.S.member == getattr(again, part).S.member).all()
        assert after.X is before.X
    assert flipped.judged is setup.judged
    assert with_flips(setup, 0.0, 5) is setup


def test_share_of_the_true_slice() -> None:
    """Of a network it is of the absolute residual, of an adapter of the change of logits, over true members."""
    setup = keyword_text(0, 6, sizes=(50, 50, 400))
    names = setup.test.S.names
    X = setup.test.X
    adapter = SliceAdapter(LinearClassifier(X.shape[1]), names, names)
    offset = np.zeros((6, 2))
    offset[:, 0], offset[4, 0] = 1, 3  # word_4 is not a true slice
    adapter.set_terms(np.zeros(6), offset)
    base = centred_logits(adapter.base.predict_proba(X))
    np.testing.assert_allclose(base, 0, atol=1e-6)
    member = setup.test.S.member
    parts = member @ np.array([1, 1, 1, 1, 3, 1])
    expected = [np.mean(1 / parts[member[:, k]]) for k in range(4)]
    assert true_share(adapter, X, setup) == pytest.approx(np.mean(expected))
    network = SliceResidualClassifier(MLP(X.shape[1], (4,)), 4, names, mode="blend", kept=names[:4])
    network.heads.weight.data[2:10] = 0
    network.heads.bias.data[2:10] = 1.0
    trust = 1 / (1 + np.exp(-1))
    gates = trust * member[:, :4] + (1 - trust) / 2
    expected = [np.mean((gates[:, k] / gates.sum(axis=1))[member[:, k]]) for k in range(4)]
    assert true_share(network.eval(), X, setup) == pytest.approx(np.mean(expected), rel=1e-3)
    assert true_share(LinearClassifier(X.shape[1]), X, setup) is None


def test_a_network_is_a_frozen_base() -> None:
    """With functions that see what it is blind to, the adapter raises the worst slice; the base is as it was."""
    setup = geometry(3, sizes=(1_500, 600, 4_000))
    setup = replace(setup, recipe=replace(setup.recipe, widths=(2,), n_epochs=20))
    cell = adapted(NetworkFamily(2, setup.recipe), setup)
    assert "adapted" in cell["form"]
    assert min(cell["slices"]) > min(cell["base"]["slices"]) + 0.05
    family = NetworkFamily(2, setup.recipe)
    alone = family.fit(setup.train.X, setup.train.y, 0.0)
    said = [network.predict_proba(setup.test.X) for _, network in family.candidates(setup.train.X, setup.train.y)]
    np.testing.assert_allclose(said[0], alone.predict_proba(setup.test.X), atol=1e-4)
    assert np.abs(said[0] - said[-1]).max() > 0.01
