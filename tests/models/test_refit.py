"""The last-layer refit: its formula, its cross-fitting, and when there is none."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from models.baselines import MLP
from models.batches import FeatureRows, Split
from models.model_selection import selection_score
from models.refit import last_layer_features, refit_last_layer, refit_weights, two_halves
from models.slice_residual import SliceResidualClassifier
from sfs.matrix import SliceMatrix

D, H = 4, 6
NAMES = ("a", "b")


def valid_rows(n: int = 300, num_classes: int = 3, unknown: float = 0.0, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)).astype(np.float32)
    y = np.clip(np.floor(X[:, 0] + num_classes / 2 + 0.3 * rng.normal(size=n)), 0, num_classes - 1)
    missing = rng.random((n, 2)) < unknown
    S = SliceMatrix(NAMES, (rng.random((n, 2)) < 0.3) & ~missing, missing)
    return Split(FeatureRows(X), y.astype(np.int64), S)


def network(num_classes: int = 3, mode: str = "blend") -> SliceResidualClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SliceResidualClassifier(MLP(D, (H,)), H, NAMES, num_classes, mode=mode)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return model.eval()


def literal_weights(y: np.ndarray, member: np.ndarray, power: float) -> np.ndarray:
    n = len(y)
    raw = []
    for i in range(n):
        cells = [n / sum(y == y[i])]
        cells += [n / sum(member[:, k] & (y == y[i])) for k in range(member.shape[1]) if member[i, k]]
        raw.append(max(cells) ** power)
    capped = np.minimum(raw, 50 * min(raw))
    return capped / capped.mean()


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("mode", ["blend", "emb"])
def test_shipped_layer_is_the_standardised_regression(num_classes: int, mode: str) -> None:
    """The layer stored as plain weights predicts like scikit-learn on standardised features."""
    model, valid = network(num_classes, mode), valid_rows(num_classes=num_classes)
    refit = refit_last_layer(model, valid, seed=0)
    features = last_layer_features(model, valid, valid.S)
    standardised = (features - features.mean(axis=0)) / np.where(features.std(axis=0) < 1e-9, 1, features.std(axis=0))
    twin = LogisticRegression(C=refit.strength, max_iter=500)
    twin.fit(standardised, valid.y, sample_weight=literal_weights(valid.y, valid.S.member, refit.power))
    np.testing.assert_allclose(refit.layer.probabilities(features), twin.predict_proba(standardised), atol=1e-3)
    model.attach_refit(refit.layer.weight, refit.layer.bias)
    np.testing.assert_allclose(model.predict_proba(valid.X, valid.S), refit.layer.probabilities(features), atol=1e-4)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weights_equal_the_literal_rule(power: float) -> None:
    """Weights are the power of the rarest cell, capped at 50 times the smallest, with mean 1."""
    valid = valid_rows(150)
    member = valid.S.member.copy()
    member[:, 1] = False
    member[7, 1] = True
    np.testing.assert_allclose(refit_weights(valid.y, member, power), literal_weights(valid.y, member, power))


def test_cross_fitted_score_is_honest_on_noise() -> None:
    """On labels that nothing explains, the cross-fitted accuracy stays near chance; the fit looks better."""
    rng = np.random.default_rng(0)
    base = valid_rows(120, 2)
    noise = Split(base.X, rng.integers(0, 2, 120), base.S)
    model = network(2)
    refit = refit_last_layer(model, noise, seed=0)
    in_sample = selection_score(
        refit.layer.probabilities(last_layer_features(model, noise, noise.S)), noise.y, noise.S.member
    )
    assert refit.score.accuracy < 0.62
    assert in_sample.accuracy > refit.score.accuracy


def test_copies_do_not_flatter_the_cross_fitted_score() -> None:
    """On random labels, rows that occur eight times score lower where their copies stay on one side."""
    grouped, scattered = [], []
    for seed in range(6):
        base = valid_rows(60, 2, seed=seed)
        y = np.random.default_rng(seed + 9).integers(0, 2, 60)
        noise = Split(base.X, y, base.S, np.arange(60)).subset(np.tile(np.arange(60), 8))
        grouped.append(refit_last_layer(network(2), noise, seed=0).score.accuracy)
        alone = Split(noise.X, noise.y, noise.S)
        scattered.append(refit_last_layer(network(2), alone, seed=0).score.accuracy)
    assert np.mean(grouped) < np.mean(scattered) - 0.04


def test_halves_keep_groups_together() -> None:
    """No group is on both sides, and each side has half of a class, within the largest group."""
    random = np.random.default_rng(1)
    groups = random.integers(-5, 40, 300)
    y = (groups % 3 == 0).astype(np.int64)
    first = two_halves(y, random, groups)
    assert all(len(set(first[groups == group])) == 1 for group in groups)
    for c in (0, 1):
        largest = max((groups[y == c] == group).sum() for group in groups[y == c])
        assert abs(int(first[y == c].sum()) - int((~first)[y == c].sum())) <= largest


def test_no_refit_where_a_class_is_one_content() -> None:
    """Copies of one row are no two rows to cross-fit on."""
    valid = valid_rows(60, 2)
    y = (np.arange(60) < 5).astype(np.int64)
    groups = np.where(y == 1, -1, np.arange(60))
    assert refit_last_layer(network(2), Split(valid.X, y, valid.S, groups), seed=0) is None


def test_halves_split_every_class() -> None:
    """Each half has half of every class, within one row, and the same seed the same halves."""
    y = np.array([0] * 9 + [1] * 4 + [2] * 2)
    first = two_halves(y, np.random.default_rng(3))
    assert [int(first[y == c].sum()) for c in range(3)] == [4, 2, 1]
    assert np.array_equal(first, two_halves(y, np.random.default_rng(3)))


@pytest.mark.parametrize("rare", [0, 1])
def test_no_refit_without_two_rows_of_a_class(rare: int) -> None:
    """A class with no or one validation row leaves the network as it is."""
    valid = valid_rows(60, 2)
    y = np.zeros(60, dtype=np.int64)
    y[:rare] = 1
    assert refit_last_layer(network(2), Split(valid.X, y, valid.S), seed=0) is None


def test_unknown_score_is_of_imputed_rows() -> None:
    """With every membership unknown already the scores are one; so they are where none is read."""
    hidden = valid_rows(unknown=1.0)
    refit = refit_last_layer(network(), hidden, seed=0)
    assert refit.score == refit.score_unknown
    soft = refit_last_layer(network(mode="soft"), valid_rows(), seed=0)
    assert soft.score == soft.score_unknown
    blend = refit_last_layer(network(), valid_rows(), seed=0)
    assert blend.score != blend.score_unknown
