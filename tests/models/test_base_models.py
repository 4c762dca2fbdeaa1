"""Linear models and trees as networks, and the adapter on them: equal to scikit-learn's, and to the formula."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from models.batches import FeatureRows
from models.errors import ConfigError, DataError, ModelError
from models.features import FeatureSpec, Featurizer
from models.inference import inference
from models.learners import network_from_config
from models.linear_classifier import LinearClassifier
from models.slice_adapter import AdapterTerms, SliceAdapter
from models.soft_voting import SoftVotingClassifier
from models.tree_classifier import BoostedDraft, TreeClassifier, TreeSettings
from sfs.matrix import SliceMatrix

RNG = np.random.default_rng(0)
DENSE = RNG.normal(size=(400, 3)).astype(np.float32) * np.array([1, 20, 0.1], np.float32)
SPARSE = sparse.random(400, 30, 0.1, format="csr", random_state=0, dtype=np.float32)
X = FeatureRows(DENSE, SPARSE)
TREES = TreeSettings(12, 7, 0.2)


def labels(num_classes: int) -> np.ndarray:
    return np.digitize(DENSE[:, 0] + np.sin(DENSE[:, 1] / 10), np.linspace(-0.7, 0.7, num_classes - 1)).astype(np.int64)


def reloaded(model: torch.nn.Module) -> torch.nn.Module:
    again = network_from_config(json.loads(json.dumps(model.config())))
    again.load_state_dict(model.state_dict())
    return again


@pytest.mark.parametrize("num_classes", [2, 4])
def test_a_linear_model_is_the_logistic_regression(num_classes: int) -> None:
    """Probabilities are scikit-learn's, with numbers scaled to one deviation for the penalty."""
    y = labels(num_classes)
    model = LinearClassifier.fit(X, y, num_classes, 3.0)
    scale = DENSE.std(axis=0, dtype=np.float64)
    columns = sparse.hstack([SPARSE.astype(float), DENSE / scale]).tocsr()
    expected = LogisticRegression(C=3.0, max_iter=300, tol=1e-3).fit(columns, y).predict_proba(columns)
    assert np.allclose(model.predict_proba(X), expected, atol=1e-3)
    assert np.array_equal(reloaded(model).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_trees_are_those_of_scikit_learn(num_classes: int) -> None:
    """The nodes give the same probabilities as scikit-learn's own prediction."""
    y = labels(num_classes)
    model = TreeClassifier.fit(X, y, num_classes, TREES, 0)
    columns = np.concatenate([SPARSE.toarray(), DENSE], axis=1)
    expected = HistGradientBoostingClassifier(
        learning_rate=0.2, max_iter=12, max_leaf_nodes=7, early_stopping=False, random_state=0
    ).fit(columns, y)
    assert np.allclose(model.predict_proba(X), expected.predict_proba(columns), atol=1e-6)
    assert np.array_equal(reloaded(model).predict_proba(X), model.predict_proba(X))


def test_trees_are_fitted_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of several threads would depend on the machine; the limit ends with the fit."""
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads as threads

    seen: list[int] = []
    original = HistGradientBoostingClassifier.fit
    monkeypatch.setattr(
        HistGradientBoostingClassifier,
        "fit",
        lambda self, *arguments, **options: seen.append(threads()) or original(self, *arguments, **options),
    )
    with threadpool_limits(2, user_api="openmp"):
        TreeClassifier.fit(X, labels(2), 2, TREES, 0)
        assert (seen, threads()) == ([1], 2)


@pytest.mark.parametrize(
    "fit", [lambda y: LinearClassifier.fit(X, y, 4, 1.0), lambda y: TreeClassifier.fit(X, y, 4, TREES, 0)]
)
def test_a_class_without_a_row_is_improbable(fit) -> None:
    """A fold may lack a rare class."""
    P = fit(np.where(labels(4) == 2, 3, labels(4))).predict_proba(X)
    assert P.shape == (400, 4)
    assert P[:, 2].max() < 0.01
    assert np.allclose(P.sum(axis=1), 1)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("kind", ["linear", "trees"])
def test_an_adapter_changes_the_logits_of_members(kind: str, num_classes: int) -> None:
    """Members have slope and offset, others and rows with an unknown kept slice the base; another slice nothing."""
    y = labels(num_classes)
    base = (
        LinearClassifier.fit(X, y, num_classes, 1.0)
        if kind == "linear"
        else TreeClassifier.fit(X, y, num_classes, TREES, 0)
    )
    adapter = SliceAdapter(base, ("a", "b", "c"), ("a", "c"))
    slope, offset = np.array([0.5, -1.0]), RNG.normal(size=(2, num_classes))
    adapter.set_terms(slope, offset)
    member, unknown = RNG.random((400, 3)) < 0.4, RNG.random((400, 3)) < 0.1
    S = SliceMatrix(("a", "b", "c"), member & ~unknown, unknown)
    logits = inference(base).logits(X, slice(0, 400)).astype(np.float64)
    logits -= logits.mean(axis=1, keepdims=True)
    inside = S.member[:, [0, 2]] & ~unknown[:, [0, 2]].any(axis=1, keepdims=True)
    logits = logits * (1 + inside @ slope)[:, None] + inside @ offset
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for model in (adapter, reloaded(adapter)):
        assert np.allclose(model.predict_proba(X, S), expected, atol=1e-5)
        assert np.allclose(model.predict_proba(X), base.predict_proba(X), atol=1e-6)
    P, indicated = inference(adapter).predict_indicated(X, S)
    assert np.allclose(P, expected, atol=1e-5)
    assert indicated.shape == (400, 0)


def test_terms_find_planted_ones() -> None:
    """A slice whose labels are turned round has a slope near -2, one whose first class is doubled an offset."""
    rng = np.random.default_rng(1)
    base = np.stack([np.zeros(40_000), 2 * rng.normal(size=40_000)], axis=1)
    base -= base.mean(axis=1, keepdims=True)
    member = rng.random((40_000, 3)) < [0.2, 0.2, 0.2]
    true = base * (1 - 2 * member[:, :1]) + member[:, 1:2] * np.array([0.5, -0.5])
    y = (rng.random(40_000) < 1 / (1 + np.exp(true[:, 0] - true[:, 1]))).astype(np.int64)
    terms = AdapterTerms(base, member, y, 1.0)
    assert np.allclose(terms.slope, [-2, 0, 0], atol=0.1)
    assert np.allclose(terms.offset, [[0, 0], [0.5, -0.5], [0, 0]], atol=0.1)
    gains, errors = terms.gains(base, member, y)
    assert (gains > 3 * errors).tolist() == [True, True, False]


def test_other_features_and_damaged_trees_are_refused() -> None:
    """Rows need the features of the training; nodes cannot lead back, nor out of the tree."""
    model = TreeClassifier.fit(X, labels(2), 2, TREES, 0)
    with pytest.raises(DataError, match="the model reads 33 features, these rows have 3"):
        model.predict_proba(FeatureRows(DENSE))
    inner = int(torch.nonzero(model.feature >= 0)[0])
    for name, place, value in (
        ("branches", (inner, 0), inner),
        ("branches", (inner, 1), model.n_nodes),
        ("feature", inner, 33),
        ("root", 0, -1),
        ("of_class", 0, 2),
    ):
        damaged = reloaded(model)
        getattr(damaged, name)[place] = value
        with pytest.raises(ModelError, match="nodes, features or classes that they do not have"):
            damaged.predict_proba(X)


def test_a_tree_as_deep_as_it_has_nodes_is_refused() -> None:
    """It would make every prediction as slow."""
    n = 200
    deep = TreeClassifier(33, 2, 1, n)
    deep.feature[: n - 1] = 0
    deep.branches[:, :] = torch.arange(1, n + 1, dtype=torch.int32).clamp(max=n - 1)[:, None]
    with pytest.raises(ModelError, match="a tree is deeper than 64 nodes"):
        deep.predict_proba(X)


def test_an_adapter_needs_a_base_and_its_own_slices() -> None:
    """A network of another kind is no base, and a kept slice is one of the training's."""
    base = {"kind": "linear", "in_features": 2, "num_classes": 2}
    with pytest.raises(ConfigError, match="no base of kind 'slice_adapter'; known are linear, soft_voting, trees"):
        network_from_config({"kind": "slice_adapter", "base": {"kind": "slice_adapter"}, "slices": [], "kept": []})
    with pytest.raises(ConfigError, match="keeps slices that it does not have: b"):
        network_from_config({"kind": "slice_adapter", "base": base, "slices": ["a"], "kept": ["b"]})
    with pytest.raises(ConfigError, match="kept slices must be distinct, got a, a"):
        network_from_config({"kind": "slice_adapter", "base": base, "slices": ["a"], "kept": ["a", "a"]})
    with pytest.raises(ConfigError, match="slices must be lists of names"):
        network_from_config({"kind": "slice_adapter", "base": base, "slices": ["a"], "kept": "a"})


@pytest.mark.parametrize("num_classes", [2, 4])
def test_soft_voting_is_the_mean_of_probabilities(num_classes: int) -> None:
    """The mean is of probabilities, not of logits, and stays itself when saved; an adapter takes it as a base."""
    y = labels(num_classes)
    members = [LinearClassifier.fit(X, y, num_classes, 1.0), TreeClassifier.fit(X, y, num_classes, TREES, 0)]
    model = SoftVotingClassifier(members)
    expected = np.mean([member.predict_proba(X) for member in members], axis=0)
    assert np.allclose(model.predict_proba(X), expected, atol=1e-6)
    assert np.array_equal(reloaded(model).predict_proba(X), model.predict_proba(X))
    adapter = SliceAdapter(model, ("s",), ())
    assert np.array_equal(reloaded(adapter).predict_proba(X), adapter.predict_proba(X))


def test_soft_voting_needs_members_of_one_shape() -> None:
    """No member, two shapes, and a member of another kind are refused."""
    for members in ([], [LinearClassifier(2), LinearClassifier(3)]):
        with pytest.raises(ConfigError, match="the same numbers of features"):
            SoftVotingClassifier(members)
    with pytest.raises(ConfigError, match="no member of kind 'plain'; known are linear, trees"):
        network_from_config({"kind": "soft_voting", "members": [{"kind": "plain"}]})


@pytest.mark.parametrize("num_classes", [2, 4])
def test_a_draft_is_the_model_before_it_is_kept_as_arrays(num_classes: int) -> None:
    """Both predict the same, whatever columns are constant; an absent class has hardly a probability."""
    y = labels(num_classes)
    constant = FeatureRows(np.concatenate([np.ones((400, 2), np.float32), DENSE], axis=1))
    draft = BoostedDraft(constant, y, num_classes + 1, TREES, 0)
    assert draft.read.tolist() == [2, 3, 4]
    P = draft.predict_proba(constant)
    assert np.allclose(
        P[:, :num_classes], TreeClassifier.fit(constant, y, num_classes, TREES, 0).predict_proba(constant), atol=1e-6
    )
    assert P[:, num_classes].max() < 1e-4


def test_a_draft_of_settings_has_half_the_trees_at_twice_the_rate() -> None:
    """The sum of the steps stays the same."""
    assert TreeSettings(100, 31, 0.1).draft == TreeSettings(50, 31, 0.2)
    assert TreeSettings(1, 31, 0.8).draft == TreeSettings(1, 31, 1.0)


def test_trees_read_a_category_as_one_number() -> None:
    """The place of its one, which any part of the rows keeps; the trees are those on that number, also when saved."""
    rng = np.random.default_rng(3)
    names = rng.choice(["ad", "be", "ce", "de", None], 500, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    frame = pd.DataFrame({"price": rng.normal(size=500), "country": names, "age": rng.normal(size=500)})
    y = (np.isin(names, ["ad", "ce"]) ^ (frame.price.to_numpy() > 0.5)).astype(np.int64)
    specs = [FeatureSpec("price", "number"), FeatureSpec("country", "category"), FeatureSpec("age", "number")]
    rows = Featurizer(specs).fit(frame).transform(frame)
    assert rows.one_hot == ((0, 6),)
    ranks = {name: rank for rank, name in enumerate(frame.country.value_counts().index, 1)} | {None: 6}
    codes = np.array([ranks[name] for name in names], float)
    assert rows.coded(slice(0, 500), rows.one_hot)[:, -1].tolist() == codes.tolist()
    part = rows.subset(np.arange(100)).followed_by(rows.subset(np.arange(100, 500)))
    assert np.array_equal(part.coded(slice(0, 500), part.one_hot), rows.coded(slice(0, 500), rows.one_hot))
    model = TreeClassifier.fit(part, y, 2, TREES, 0)
    dense = np.column_stack([rows.take(slice(0, 500)).numpy()[:, [6, 8]], codes])
    expected = TreeClassifier.fit(FeatureRows(dense.astype(np.float32)), y, 2, TREES, 0)
    assert np.allclose(model.predict_proba(rows), expected.predict_proba(FeatureRows(dense.astype(np.float32))))
    assert np.array_equal(reloaded(model).predict_proba(rows), model.predict_proba(rows))


def test_trees_of_many_rows_are_not_stopped() -> None:
    """On labels by chance scikit-learn would stop beyond 10,000 rows; a class may have one row."""
    rng = np.random.default_rng(4)
    rows, y = FeatureRows(rng.normal(size=(10_500, 2)).astype(np.float32)), rng.integers(0, 2, 10_500)
    y[7] = 2
    draft = BoostedDraft(rows, y, 3, TreeSettings(30, 4, 0.9), 0)
    assert draft.boosting.n_iter_ == 30
    assert draft.predict_proba(rows).shape == (10_500, 3)


def test_trees_of_rows_without_their_categories_are_refused_or_read() -> None:
    """Columns of categories are those of the model, whatever the rows tell; a configuration without them has none."""
    rng = np.random.default_rng(5)
    block = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 300)]
    known = FeatureRows(block, one_hot=((0, 4),))
    model = TreeClassifier.fit(known, block.argmax(axis=1) % 2, 2, TREES, 0)
    assert np.array_equal(model.predict_proba(FeatureRows(block)), model.predict_proba(known))
    shape = model.config()
    with pytest.raises(ModelError, match="do not have"):
        inference(TreeClassifier.from_config(shape | {"one_hot": [[0, 9]]}))
    del shape["one_hot"]
    assert TreeClassifier.from_config(shape).one_hot == ()
