"""Search among linear models, trees and networks: the kind that suits the data is shipped."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from models import model_search
from models.base_families import Rows, TreeFamily
from models.base_search import BaseResult, centred_logits, search_bases
from models.batches import FeatureRows, Split
from models.config import LearnerConfig
from models.model_search import network_margin, search_models
from models.model_selection import companion_margin
from models.network_pilot import NetworkPilot, PilotRound
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


def bases(train: Split, valid: Split) -> list[BaseResult]:
    return search_bases(Rows.of(train, valid), train, int(train.y.max()) + 1, 0, lambda stage, share: None)[0]


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
    assert fitted.peers["base"] is fitted.model.base
    assert any("cross-fitted on 1,600 training and validation rows" in sentence for sentence in fitted.sentences)
    assert len({result.name for result in fitted.selection}) == len(fitted.selection)


def test_slices_without_effect_are_left_out() -> None:
    """Of thirty random slices at most three pass the gate."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(900, 3)).astype(np.float32)
    y = (X[:, 0] + 0.3 * rng.normal(size=900) > 0).astype(np.int64)
    S = SliceMatrix([f"s{k}" for k in range(30)], rng.random((900, 30)) < 0.1)
    whole = Split(FeatureRows(X), y, S)
    train, valid = (whole.subset(part) for part in (np.arange(600), np.arange(600, 900)))
    assert all(len(found.kept) <= 3 for found in bases(train, valid))


def test_the_score_is_of_rows_that_neither_base_nor_terms_have_seen() -> None:
    """On labels without a rule, half of them right, trees that learn their rows by heart have no better score."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(800, 5)).astype(np.float32)
    whole = Split(FeatureRows(X), rng.integers(0, 2, 800), SliceMatrix(["s"], rng.random((800, 1)) < 0.3))
    train, valid = (whole.subset(part) for part in (np.arange(500), np.arange(500, 800)))
    (found,) = [found for found in bases(train, valid) if found.base.name == "trees"]
    assert found.score.accuracy < 0.6
    assert found.cross_fitted.accuracy < 0.6
    fitted = found.adapted(found.base.fit(Rows.of(train, valid)))
    own = fitted.predict_proba(whole.X, whole.S).argmax(axis=1) == whole.y
    assert own.mean() > 0.8


def test_copies_of_a_row_are_in_one_fold() -> None:
    """A copy tells the label of a row, which would raise the score."""
    rng = np.random.default_rng(3)
    X = np.repeat(rng.normal(size=(200, 5)), 4, axis=0).astype(np.float32)
    y, groups = np.repeat(rng.integers(0, 2, 200), 4), np.repeat(np.arange(200), 4)
    none = SliceMatrix([], np.zeros((800, 0), bool))
    whole = Split(FeatureRows(X), y, none, groups)
    joined = Rows.of(whole.subset(np.arange(400)), whole.subset(np.arange(400, 800)))
    for fitted, held in joined.folds(0, 3):
        assert not set(groups[fitted]) & set(groups[held])
    found = TreeFamily(2, 0).cross_fit(joined)
    assert found is not None
    P = found[1]
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


def test_the_mean_of_linear_and_trees_is_a_base_where_both_are_good() -> None:
    """On a sum of a line and a square, the mean of both is better than each, and is shipped."""
    rng = np.random.default_rng(9)

    def drawn(n: int) -> Split:
        X = rng.normal(size=(n, 10)).astype(np.float32)
        score = X.sum(axis=1) + 1.5 * (np.abs(X[:, :2]) > 1).sum(axis=1) - 1 + rng.normal(size=n)
        return Split(FeatureRows(X), (score > 0).astype(np.int64), SliceMatrix([], np.zeros((n, 0), bool)))

    train, valid, test = drawn(600), drawn(200), drawn(4000)
    fitted = search_models(QUICK, train, valid, 2)
    assert fitted.form == "mean of linear and trees"
    right = (fitted.model.predict_proba(test.X).argmax(axis=1) == test.y).mean()
    for member in fitted.model.members:
        assert right > (member.predict_proba(test.X).argmax(axis=1) == test.y).mean()


def test_texts_have_no_mean_since_trees_do_not_read_the_features_for_linear_models() -> None:
    """A linear model on wide features is a base alone."""
    rng = np.random.default_rng(10)
    (train, _), (valid, _) = (rows(n, rng) for n in (300, 100))
    train, valid = (replace(part, wide=part.X) for part in (train, valid))
    assert {found.base.name for found in bases(train, valid)} <= {"linear", "trees"}


def test_networks_are_searched_only_where_a_pilot_comes_near() -> None:
    """Labels by a rule that neither lines nor trees learn: a network ships; else its pilot is told as the reason."""
    rng = np.random.default_rng(11)

    def drawn(n: int, *, is_hidden: bool) -> Split:
        X = rng.normal(size=(n, 12)).astype(np.float32)
        noisy = X[:, 0] + 0.5 * rng.normal(size=n)
        score = np.tanh(X @ np.ones(12)) * np.tanh(X @ np.r_[np.ones(6), -np.ones(6)]) if is_hidden else noisy
        return Split(FeatureRows(X), (score > 0).astype(np.int64), SliceMatrix(["s"], rng.random((n, 1)) < 0.3))

    config = LearnerConfig(widths=(32,), n_epochs=12, lr=0.01)
    hidden = search_models(config, drawn(2000, is_hidden=True), drawn(600, is_hidden=True), 2)
    assert any(sentence.startswith("A network is shipped") for sentence in hidden.sentences)
    plain = search_models(QUICK, drawn(500, is_hidden=False), drawn(300, is_hidden=False), 2)
    assert plain.form.startswith(("linear", "trees", "mean"))
    assert any(sentence.startswith("Networks were not searched: in a pilot of 500") for sentence in plain.sentences)
    assert set(plain.peers) <= {"base"}


def test_rounds_of_a_pilot_compare_on_the_rows_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a base fitted on its training rows and scored on its validation rows; the last is that of the search."""
    rng = np.random.default_rng(13)
    (train, _), (valid, _) = (rows(n, rng) for n in (700, 500))
    seen: list[PilotRound] = []

    def passes(pilot: NetworkPilot, rounds: Sequence[Callable[[], PilotRound]]) -> bool:
        seen.extend(make() for make in rounds)
        pilot.last = seen[-1]
        return True

    monkeypatch.setattr(model_search, "ROUNDS", (100, 200))
    monkeypatch.setattr(NetworkPilot, "passes", passes)
    fitted = search_models(replace(QUICK, n_epochs=1, max_search_rows=400), train, valid, 2)
    sizes = [(len(each.task.train), len(each.task.valid), each.is_whole) for each in seen]
    assert sizes == [(100, 100, False), (200, 200, False), (400, 400, True)]
    assert [each.margin for each in seen] == [network_margin(len(each.task.valid), each.sliced) for each in seen]
    assert len({each.sliced for each in seen}) == 3
    told = f"On validation rows alone its score is {seen[-1].sliced:.3f}"
    assert any(sentence.startswith((told, "A network is shipped")) for sentence in fitted.sentences)


def test_no_pilot_is_trained_where_a_network_cannot_be_better_by_enough() -> None:
    """A base with a score near 1 leaves less than the margin; the report says so."""
    rng = np.random.default_rng(12)
    X = rng.normal(size=(900, 3)).astype(np.float32)
    whole = Split(FeatureRows(X), (X[:, 0] > 0).astype(np.int64), SliceMatrix(["s"], rng.random((900, 1)) < 0.3))
    train, valid = (whole.subset(part) for part in (np.arange(500), np.arange(500, 900)))
    fitted = search_models(QUICK, train, valid, 2)
    assert any("on 400 validation rows too little can be gained" in each for each in fitted.sentences)
    few = search_models(QUICK, train, valid.subset(np.arange(299)), 2)
    assert any("299 validation rows are too few to compare them with" in each for each in few.sentences)
    for each in (fitted, few):
        assert all(result.name.startswith(("linear", "trees", "mean")) for result in each.selection)


def test_a_network_has_to_be_better_by_more_on_few_rows() -> None:
    """The margin falls with the root of the validation rows, to that of a companion."""
    margins = [network_margin(n) for n in (100, 400, 2_500, 100_000)]
    assert margins == sorted(margins, reverse=True)
    assert margins[1] == pytest.approx(0.025, abs=1e-4)
    assert margins[3] == pytest.approx(companion_margin(100_000), abs=1e-4)
    near_one = [network_margin(1_000, rival) for rival in (0.5, 0.95, 0.98, 1.0)]
    assert near_one[0] == near_one[1] > near_one[2] > near_one[3] == companion_margin(1_000)
