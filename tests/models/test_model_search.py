"""Search among linear models, trees and networks: the kind that suits the data is shipped."""

from dataclasses import replace

import numpy as np
import pytest

from models.base_search import LinearFamily, Rows, TreeFamily, centred_logits, fit_base
from models.batches import FeatureRows, Split
from models.config import LearnerConfig
from models.model_search import search_models
from models.slice_adapter import SliceAdapter
from sfs.matrix import SliceMatrix

QUICK = LearnerConfig(widths=(8,), n_epochs=3, lr=0.01)
NAMES = ("turned", "random")


def rows(n: int, rng: np.random.Generator, *, curved: bool = False) -> tuple[Split, np.ndarray]:
    """A linear or a chequered rule, turned round where a random tenth is marked by a function; and the mark."""
    X = rng.uniform(-1, 1, (n, 10)).astype(np.float32)
    score = np.sin(4 * X[:, 0]) * np.sin(4 * X[:, 1]) if curved else X.sum(axis=1)
    member = rng.random((n, 2)) < 0.1
    y = ((score > 0) ^ member[:, 0]).astype(np.int64)
    return Split(FeatureRows(X), y, SliceMatrix(NAMES, member)), member[:, 0]


@pytest.mark.parametrize(("curved", "family"), [(False, "linear"), (True, "trees")])
def test_the_family_that_suits_the_rule_is_shipped_with_the_slice(curved: bool, family: str) -> None:
    """Rows of the turned slice, all wrong without it, are right."""
    rng = np.random.default_rng(0)
    (train, _), (valid, _), (test, turned) = (rows(n, rng, curved=curved) for n in (1200, 400, 3000))
    fitted = search_models(QUICK, train, valid, 2)
    assert fitted.form.startswith(f"{family}, ")
    assert "turned" in fitted.model.kept
    right = fitted.model.predict_proba(test.X, test.S).argmax(axis=1) == test.y
    alone = fitted.model.base.predict_proba(test.X).argmax(axis=1) == test.y
    assert right[turned].mean() > 0.8
    assert alone[turned].mean() < 0.3
    assert right.mean() > alone.mean() + 0.05
    assert {"erm"} <= set(fitted.peers)
    assert any("cross-fitted validation score" in sentence for sentence in fitted.sentences)
    assert len({result.name for result in fitted.selection}) == len(fitted.selection)


def test_slices_without_effect_are_left_out() -> None:
    """Of thirty random slices at most three pass the gate."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(900, 3)).astype(np.float32)
    y = (X[:, 0] + 0.3 * rng.normal(size=900) > 0).astype(np.int64)
    S = SliceMatrix([f"s{k}" for k in range(30)], rng.random((900, 30)) < 0.1)
    whole = Split(FeatureRows(X), y, S)
    train, valid = (whole.subset(part) for part in (np.arange(600), np.arange(600, 900)))
    joined = Rows.of(train, valid, whole.X)
    found = fit_base(LinearFamily(2, 0), joined, lambda: joined, lambda stage, share: None)
    assert found is not None
    assert len(found.kept) <= 3


def test_the_score_is_of_rows_that_neither_base_nor_terms_have_seen() -> None:
    """On labels without a rule, half of them right, trees that learn their rows by heart have no better score."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(800, 5)).astype(np.float32)
    whole = Split(FeatureRows(X), rng.integers(0, 2, 800), SliceMatrix(["s"], rng.random((800, 1)) < 0.3))
    train, valid = (whole.subset(part) for part in (np.arange(500), np.arange(500, 800)))
    joined = Rows.of(train, valid, whole.X)
    found = fit_base(TreeFamily(2, 0), joined, lambda: joined, lambda stage, share: None)
    assert found is not None
    assert found.score.accuracy < 0.6
    own = found.model.predict_proba(whole.X, whole.S).argmax(axis=1) == whole.y
    assert own.mean() > 0.8


def test_copies_of_a_row_are_in_one_fold() -> None:
    """A copy tells the label of a row, which would raise the score."""
    rng = np.random.default_rng(3)
    X = np.repeat(rng.normal(size=(200, 5)), 4, axis=0).astype(np.float32)
    y, groups = np.repeat(rng.integers(0, 2, 200), 4), np.repeat(np.arange(200), 4)
    none = SliceMatrix([], np.zeros((800, 0), bool))
    whole = Split(FeatureRows(X), y, none, groups)
    joined = Rows.of(whole.subset(np.arange(400)), whole.subset(np.arange(400, 800)), whole.X)
    for fitted, held in joined.folds(0):
        assert not set(groups[fitted]) & set(groups[held])
    P = TreeFamily(2, 0).out_of_fold(joined, TreeFamily(2, 0).choose(joined)[0])
    assert (P.argmax(axis=1) == y).mean() < 0.6


def test_the_same_seed_gives_the_same_model_and_a_sample_is_searched() -> None:
    """Chance is that of the seed; beyond the largest search a sample chooses, and all rows are fitted."""
    rng = np.random.default_rng(4)
    (train, _), (valid, _) = (rows(n, rng) for n in (600, 200))
    config = replace(QUICK, max_search_rows=300, n_epochs=1)
    first, second = (search_models(config, train, valid, 2) for _ in range(2))
    assert first.form == second.form
    assert np.array_equal(first.model.predict_proba(train.X, train.S), second.model.predict_proba(train.X, train.S))
    assert first.selection == second.selection


def test_an_unknown_membership_neither_trains_nor_changes_a_row() -> None:
    """A row with an unknown kept slice is as without slices, in the terms and in the prediction."""
    rng = np.random.default_rng(5)
    (train, _), (valid, _) = (rows(n, rng) for n in (1200, 400))
    hidden = rng.random((1200, 2)) < 0.2
    S = SliceMatrix(NAMES, train.S.member & ~hidden, hidden)
    fitted = search_models(QUICK, replace(train, S=S), valid, 2)
    assert isinstance(fitted.model, SliceAdapter)
    lacking = hidden[:, [NAMES.index(name) for name in fitted.model.kept]].any(axis=1)
    P, base = fitted.model.predict_proba(train.X, S), fitted.model.base.predict_proba(train.X)
    assert np.allclose(P[lacking], base[lacking], atol=1e-6)


def test_a_rare_class_does_not_stop_the_search() -> None:
    """With fewer rows of a class than folds, a fold lacks it."""
    rng = np.random.default_rng(6)
    (train, _), (valid, _) = (rows(n, rng) for n in (300, 100))
    y = train.y.copy()
    y[:2] = 2
    fitted = search_models(QUICK, replace(train, y=y), valid, 3)
    assert fitted.model.predict_proba(valid.X, valid.S).shape == (100, 3)


def test_a_class_whose_rows_are_copies_of_one_does_not_stop_the_search() -> None:
    """The fold that holds them is fitted on one class; of a sample without them, only networks are searched."""
    rng = np.random.default_rng(7)
    (train, _), (valid, _) = (rows(n, rng) for n in (200, 80))
    y, groups = np.zeros(200, np.int64), np.arange(200)
    y[:20], groups[:20] = 1, 0
    copies = Split(train.X, y, train.S, groups)
    held = Split(valid.X, np.zeros(80, np.int64), valid.S, np.arange(1_000, 1_080))
    fitted = search_models(QUICK, copies, held, 2)
    assert fitted.model.predict_proba(valid.X, valid.S).shape == (80, 2)
    one = replace(copies, y=np.r_[np.ones(1, np.int64), np.zeros(199, np.int64)])
    sampled = search_models(replace(QUICK, max_search_rows=5), one, held, 2)
    assert {"linear", "trees"}.isdisjoint(word for result in sampled.selection for word in result.name.split(","))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_a_few_rows_are_enough(n: int) -> None:
    """Classes of fewer rows than folds, and a validation row, make a model."""
    rng = np.random.default_rng(8)
    (train, _), (valid, _) = (rows(m, rng) for m in (n, 1))
    fitted = search_models(QUICK, replace(train, y=np.arange(n) % 2), valid, 2)
    assert np.allclose(fitted.model.predict_proba(train.X, train.S).sum(axis=1), 1)


def test_logits_of_certain_probabilities_are_finite() -> None:
    """A probability of 0 has a finite logit; the logits of a row sum to 0."""
    logits = centred_logits(np.array([[0.0, 1.0], [0.5, 0.5]]))
    assert np.isfinite(logits).all()
    assert np.allclose(logits.sum(axis=1), 0)
