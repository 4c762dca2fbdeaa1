"""Peers of the learner: their formulas on few rows, and one interface."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from last_layer_peers import (
    AutomaticFeatureReweighting,
    ClassBalancedLastLayer,
    DeepFeatureReweighting,
    Layer,
    SelectiveFinetuning,
    afr_weights,
    cell_weights,
    class_weights,
    disagreements,
    hidden,
    logistic_layer,
    moved_layer,
)
from learner_cells import CellFolder, CellName, bare
from learner_peers import (
    Attention,
    Deeper,
    Erm,
    ErmGrid,
    GroupDRO,
    JustTrainTwice,
    LastTraining,
    Peer,
    WeightedErm,
    WorstClassSelection,
    error_weights,
)
from learner_setups import SetUp, geometry, spurious
from network_stack import GroupWeights, NetworkStack, RowWeights, StackTraining, WorstClass, WorstSlice
from sklearn.linear_model import LogisticRegression

from models.baselines import MLP, PlainClassifier
from models.batches import Batch, Memberships, shuffled_batches
from models.config import LearnerConfig
from models.trainer import fit, seeded

RECIPE = LearnerConfig(widths=(6, 5), n_epochs=4, lr=0.02, batch_size=50, l2=0.001, seed=3)


@pytest.fixture(scope="module")
def setup() -> SetUp:
    return geometry(1, sizes=(300, 200, 400))


def test_a_stack_trains_as_the_product_does(setup: SetUp) -> None:
    """Each setting of a stack has the weights that the trainer of the product gives with that rate and penalty."""
    train = setup.train
    weights = np.stack([np.ones(300), np.linspace(0.5, 1.5, 300)])
    training = StackTraining(RECIPE, 2, (1.0, 0.5), (0.001, 0.0), seed=3)
    stacked = training.run(train, setup.valid, RowWeights(weights))
    for setting, (lr, l2) in enumerate(((0.02, 0.001), (0.01, 0.0))):
        with seeded(3):
            network = PlainClassifier(MLP(2, (6, 5)), 2)

        def batches(generator: torch.Generator, setting: int = setting) -> list[Batch]:
            nothing, out = Memberships(torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.bool)), []
            for at in shuffled_batches(300, 50, generator):
                weight = torch.from_numpy(weights[setting, at]).float()
                y = torch.from_numpy(train.y[at])
                out.append(Batch(train.X.take(at), y, nothing, weight, torch.zeros(len(at), dtype=torch.bool)))
            return out

        config = LearnerConfig(n_epochs=4, lr=lr, l2=l2, seed=3).trainer_config
        fit(network, batches, network.loss, config)
        said = stacked.network(4, setting).predict_proba(setup.test.X)
        np.testing.assert_allclose(said, network.predict_proba(setup.test.X), atol=1e-4)


def test_few_active_features_give_the_same_logits() -> None:
    """Columns that are 0 in a batch may be left out of the product."""
    stack = NetworkStack(12, (4,), 3, 2, seed=0)
    X = torch.zeros(5, 12)
    X[:, 2:5] = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    said = stack.logits(X)
    for setting in range(2):
        network = stack.network(stack.flat[setting])
        torch.testing.assert_close(said[setting], network(X))


def test_group_weights_after_one_step() -> None:
    """GroupDRO multiplies q by exp(step size * mean group loss) and normalises, then weighs the group losses by q."""
    groups = np.array([[True, False, True], [True, False, False], [False, True, False], [False, True, True]])
    used = np.array([[True, True, False], [False, True, True]])
    weights = GroupWeights(groups, used, [0.5, 2.0])
    losses = torch.tensor([[1.0, 3.0, 0.0, 1.0], [0.0, 0.0, 4.0, 2.0]])
    said = weights.loss(losses, torch.arange(4))
    a, b = 0.5 * math.exp(0.5 * 2.0), 0.5 * math.exp(0.5 * 0.5)
    c, d = 0.5 * math.exp(2.0 * 3.0), 0.5 * math.exp(2.0 * 1.0)
    np.testing.assert_allclose(weights.q.numpy(), [[a / (a + b), b / (a + b), 0], [0, c / (c + d), d / (c + d)]], 1e-5)
    assert said.tolist() == pytest.approx([(2 * a + 0.5 * b) / (a + b), (3 * c + d) / (c + d)], rel=1e-5)


def test_a_group_without_a_row_in_the_batch_has_no_loss() -> None:
    """An absent group keeps its weight before the normalisation."""
    weights = GroupWeights(np.eye(2, dtype=bool), np.ones((1, 2), dtype=bool), [1.0])
    said = weights.loss(torch.tensor([[2.0]]), torch.tensor([0]))
    share = math.exp(2.0) / (math.exp(2.0) + 1)
    assert weights.q[0].tolist() == pytest.approx([share, 1 - share])
    assert said.item() == pytest.approx(2 * share)


def test_jtt_weighs_errors_as_if_repeated() -> None:
    """A wrong row counts its factor times, and the mean weight is 1."""
    said = error_weights(np.array([True, False, False, False]), 5.0)
    np.testing.assert_allclose(said, [5 / 2, 1 / 2, 1 / 2, 1 / 2])


def test_jtt_finds_the_errors_of_the_early_networks(setup: SetUp) -> None:
    """The weights of a peer with a factor of 1 are those of ERM, and larger factors change what is trained."""
    grid = ErmGrid(RECIPE)
    peer = JustTrainTwice(RECIPE, grid)
    peer.factors = (1.0, 50.0)
    checkpoints = peer.trained(setup.train, setup.valid, 2, 3)
    erm = grid.trained(setup.train, setup.valid, 2, 3)
    np.testing.assert_allclose(checkpoints.probabilities[4][0], erm.probabilities[4][0], atol=1e-4)
    assert np.abs(checkpoints.probabilities[4][1] - erm.probabilities[4][0]).max() > 0.05


def test_afr_weights() -> None:
    """They are exp(-gamma p of the right class), divided by the size of the class, with sum 1."""
    P, y = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]), np.array([0, 0, 1])
    raw = [math.exp(-2 * 0.9) / 2, math.exp(-2 * 0.4) / 2, math.exp(-2 * 0.8)]
    np.testing.assert_allclose(afr_weights(P, y, 2.0), np.array(raw) / sum(raw))


def test_afr_stays_near_the_layer_of_erm() -> None:
    """The moved layer has no gradient of weighted loss plus penalty, and a large penalty keeps the start."""
    rng = np.random.default_rng(0)
    Z, y, start = rng.normal(size=(40, 3)), rng.integers(0, 2, 40), Layer(rng.normal(size=(2, 3)), np.zeros(2))
    weights = rng.random(40) / 40
    found = moved_layer(Z, y, weights, start, 0.2)
    error = weights[:, None] * (found.probabilities(Z) - np.eye(2)[y])
    np.testing.assert_allclose(error.T @ Z + 2 * 0.2 * (found.weight - start.weight), 0, atol=1e-4)
    np.testing.assert_allclose(error.sum(axis=0) + 2 * 0.2 * found.bias, 0, atol=1e-4)
    assert np.abs(found.weight - start.weight).max() > 1e-3
    np.testing.assert_allclose(moved_layer(Z, y, weights, start, 1e6).weight, start.weight, atol=1e-5)


def test_afr_refits_on_rows_that_it_has_held_out(setup: SetUp) -> None:
    """A fifth of the training rows, none of which the network has seen."""
    kept, checkpoints = AutomaticFeatureReweighting(RECIPE).trained(setup.train, setup.valid, 2, 3)
    held = np.random.default_rng(3).random(300) < 0.2
    np.testing.assert_array_equal(kept.y, setup.train.y[held])
    rest = setup.train.subset(np.flatnonzero(~held))
    again = StackTraining(RECIPE, 2, [1.0], [0.0], 3).run(rest, setup.valid, RowWeights(np.ones((1, len(rest)))))
    np.testing.assert_array_equal(checkpoints.probabilities[4], again.probabilities[4])


def test_self_chooses_rows_by_their_divergence() -> None:
    """The rows with the largest KL(early || late) are chosen; it is not symmetric."""
    early = np.array([[0.5, 0.5], [0.99, 0.01], [0.5, 0.5], [0.3, 0.7]])
    late = np.array([[0.99, 0.01], [0.5, 0.5], [0.6, 0.4], [0.3, 0.7]])
    assert disagreements(early, late, 1).tolist() == [0]
    assert disagreements(late, early, 1).tolist() == [1]
    assert disagreements(early, late, 3).tolist() == [0, 1, 2]


def test_weights_of_classes_and_cells() -> None:
    """Classes weigh the same; a cell is a class, or a slice and a class, and the rarest of a row counts."""
    y = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(class_weights(y), [2 / 3, 2 / 3, 2 / 3, 2])
    member = np.array([[True], [False], [False], [False]])
    raw = np.array([4.0, 4 / 3, 4 / 3, 4.0]) ** 0.5
    np.testing.assert_allclose(cell_weights(y, member, 0.5), raw / raw.mean())


def test_a_refitted_layer_is_that_of_scikit_learn() -> None:
    """On raw hidden units it gives what the regression gives on standardised ones, weights and all."""
    rng = np.random.default_rng(1)
    Z, y, weights = 3 + 2 * rng.normal(size=(60, 4)), rng.integers(0, 2, 60), rng.random(60)
    scaled = (Z - Z.mean(axis=0)) / Z.std(axis=0)
    regression = LogisticRegression(C=0.1, max_iter=500).fit(scaled, y, sample_weight=weights)
    said = logistic_layer(Z, y, weights, 0.1).probabilities(Z)
    np.testing.assert_allclose(said, regression.predict_proba(scaled), atol=1e-6)


def test_a_layer_on_a_network_predicts_from_its_hidden_units(setup: SetUp) -> None:
    """The network of before is as it was."""
    network = ErmGrid(RECIPE).trained(setup.train, setup.valid, 2, 3).network(1)
    before = network.predict_proba(setup.test.X)
    layer = Layer(np.arange(10.0).reshape(2, 5), np.array([0.5, -0.5]))
    said = layer.put_on(network).predict_proba(setup.test.X)
    np.testing.assert_allclose(said, layer.probabilities(hidden(network, setup.test.X)), atol=1e-5)
    np.testing.assert_array_equal(network.predict_proba(setup.test.X), before)


def test_criteria(setup: SetUp) -> None:
    """Worst-class selection looks at classes alone, all others at slices, too."""
    valid = setup.valid
    P = np.eye(2)[valid.y]
    wrong = np.flatnonzero(valid.S.member[:, 0])[:5]
    P[wrong] = 1 - P[wrong]
    recalls = [1 - np.mean(np.isin(np.flatnonzero(valid.y == c), wrong)) for c in (0, 1)]
    assert WorstClass(valid).score(P) == pytest.approx(min(recalls))
    assert WorstSlice(valid).score(np.eye(2)[valid.y]) > WorstSlice(valid).score(P)


def test_the_best_checkpoint_is_chosen(setup: SetUp) -> None:
    """Its score is the highest of all epochs and settings, and its network has that score."""
    checkpoints = ErmGrid(RECIPE).trained(setup.train, setup.valid, 2, 3)
    criterion = WorstSlice(setup.valid)
    every = [criterion.score(P.astype(float)) for epoch in checkpoints.probabilities.values() for P in epoch]
    chosen = checkpoints.best(criterion)
    assert chosen.score == max(every)
    assert criterion.score(chosen.network.predict_proba(setup.valid.X)) == pytest.approx(chosen.score, abs=1e-6)
    assert len(every) == 4 * 15


def test_trainings_are_kept_for_the_same_rows_only(setup: SetUp) -> None:
    """Other memberships of the same rows use the same training; another seed or other rows do not."""
    last: LastTraining[str] = LastTraining()
    assert last.get(setup.train, setup.valid, 1) is None
    last.put(setup.train, setup.valid, 1, "trained")
    other = geometry(1, sizes=(300, 200, 400))
    assert last.get(setup.train, setup.valid, 1) == "trained"
    assert last.get(setup.train, setup.valid, 2) is None
    assert last.get(other.train, setup.valid, 1) is None


@pytest.mark.parametrize("name", ["geometry", "spurious"])
def test_every_peer_has_the_same_interface(name: str) -> None:
    """Each is fitted and predicts without memberships, with probabilities, twice the same."""
    small = geometry(2, sizes=(300, 200, 300)) if name == "geometry" else spurious(2, sizes=(300, 200, 300))
    grid = ErmGrid(RECIPE)
    peers: list[Peer] = [Erm(grid), WorstClassSelection(grid), WeightedErm(RECIPE), GroupDRO(RECIPE)]
    peers += [JustTrainTwice(RECIPE, grid), Deeper(RECIPE), DeepFeatureReweighting(grid), Attention(RECIPE)]
    peers += [ClassBalancedLastLayer(grid), SelectiveFinetuning(grid), AutomaticFeatureReweighting(RECIPE)]
    assert len({peer.name for peer in peers}) == 11
    for peer in peers:
        said = peer.fit(small.train, small.valid, 2, 3).predict_proba(small.test.X, small.test.S)
        assert said.shape == (300, 2)
        np.testing.assert_allclose(said.sum(axis=1), 1)
        again = peer.fit(small.train, small.valid, 2, 3).predict_proba(small.test.X)
        np.testing.assert_array_equal(said, again)


def test_cells_are_kept_by_the_code_that_they_depend_on(tmp_path: Path) -> None:
    """A finished cell is found again; comments and docstrings do not matter, statements do."""
    cells, name = CellFolder(tmp_path / "cells"), CellName("SMS", 0.2, 7, "ERM")
    assert cells.read(name) is None
    cells.write(name, {"overall": 0.5})
    assert cells.read(name) == {"overall": 0.5}
    assert cells.read(CellName("SMS", 0.2, 8, "ERM")) is None
    code = {
        cells.path(CellName("SMS", 0.2, 7, each)).stem[-12:] for each in ("ERM", "default", "attention over slices")
    }
    assert len(code) == 3
    assert bare("def f():\n    '''Say.'''\n    return 1") == bare("def f():  # said\n    return 1")
    assert bare("def f():\n    return 1") != bare("def f():\n    return 2")
