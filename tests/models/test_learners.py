"""Fitting of a learner: the winner by data, edge cases, and the sentences of the report."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from models.batches import FeatureRows, Split
from models.config import LearnerConfig
from models.errors import ConfigError, DataError
from models.learners import FitResult, fit_learner, network_from_config
from models.slice_residual import SliceResidualClassifier
from sfs.matrix import SliceMatrix

QUICK = LearnerConfig(widths=(8,), n_epochs=3, lr=0.01)


def geometry(n: int, rng: np.random.Generator) -> tuple[Split, np.ndarray]:
    """A linear rule but for two discs, the functions for which are misplaced; and the true discs."""

    def inside(x: float, y: float, radius: float) -> np.ndarray:
        return ((X - np.array([x, y])) ** 2).sum(axis=1) < radius**2

    X = rng.uniform(-1, 1, (n, 2))
    y = (X[:, 0] > X[:, 1] + 0.25).astype(np.int64)
    true = np.stack([inside(0.25, 0, 0.2), inside(-0.3, -0.5, 0.15)], axis=1)
    y[true[:, 0]], y[true[:, 1]] = 0, 1
    seen = np.stack([inside(0.35, -0.1, 0.2), inside(-0.35, -0.4, 0.15)], axis=1)
    return Split(FeatureRows(X.astype(np.float32)), y, SliceMatrix(["right", "left"], seen)), true


def keyword_text(n: int, rng: np.random.Generator, effect: np.ndarray, n_slices: int = 30) -> tuple[Split, np.ndarray]:
    """Hashed words whose sum decides, turned round by one of three keywords among thirty."""
    words = rng.integers(0, len(effect), (n, 12))
    present = rng.random((n, n_slices)) < 0.03
    texts = [" ".join([f"w{w}" for w in words[i]] + [f"key{k}" for k in np.flatnonzero(present[i])]) for i in range(n)]
    turned = present[:, :3]
    y = ((effect[words].sum(axis=1) > 0) ^ (turned.any(axis=1) & (rng.random(n) < 0.9))).astype(np.int64)
    hashed = HashingVectorizer(n_features=512, norm="l2").transform(texts).astype(np.float32)
    rows = FeatureRows(np.zeros((n, 0), dtype=np.float32), sparse.csr_matrix(hashed))
    return Split(rows, y, SliceMatrix([f"key{k}" for k in range(n_slices)], present)), turned


def simple(n: int = 120, num_classes: int = 2, n_slices: int = 2, share: float = 0.3, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    y = np.clip(np.floor(X[:, 0] + num_classes / 2), 0, num_classes - 1).astype(np.int64)
    return Split(FeatureRows(X), y, SliceMatrix([f"s{k}" for k in range(n_slices)], rng.random((n, n_slices)) < share))


def accuracy(model, rows: Split, judged: np.ndarray | None = None) -> float:
    right = model.predict_proba(rows.X, rows.S).argmax(axis=1) == rows.y
    return right.mean() if judged is None else min(right[judged[:, j]].mean() for j in range(judged.shape[1]))


@pytest.fixture(scope="module")
def text_fit() -> tuple[FitResult, Split, np.ndarray]:
    rng = np.random.default_rng(0)
    effect = rng.normal(size=150)
    (train, _), (valid, _), (test, turned) = (keyword_text(n, rng, effect) for n in (2500, 1000, 4000))
    config = LearnerConfig(widths=(32,), n_epochs=5, lr=0.005, batch_size=128)
    return fit_learner(config, train, valid, 2), test, turned


def test_geometry_lifts_the_flipped_discs() -> None:
    """On the planted geometry the worst disc gains 6 points on ERM and the whole does not lose."""
    rng = np.random.default_rng(2)
    (train, _), (valid, _), (test, true) = (geometry(n, rng) for n in (1000, 600, 6000))
    config = LearnerConfig(widths=(10, 16), n_epochs=20, lr=0.02, batch_size=128, evaluate_every=5)
    fitted = fit_learner(config, train, valid, 2)
    erm = fitted.peers["erm"]
    assert accuracy(fitted.model, test, true) >= accuracy(erm, test, true) + 0.06
    assert accuracy(fitted.model, test) >= accuracy(erm, test) - 0.003
    assert accuracy(fitted.model, test) >= 0.97


def test_keyword_text_lifts_the_worst_slice_by_ten_points(text_fit) -> None:
    """With three of thirty slices turning the label, the worst is far above ERM's, the whole better too."""
    fitted, test, turned = text_fit
    erm = fitted.peers["erm"]
    assert accuracy(fitted.model, test, turned) >= accuracy(erm, test, turned) + 0.10
    assert accuracy(fitted.model, test) >= accuracy(erm, test) + 0.01


def test_three_classes_are_turned_in_a_slice() -> None:
    """Where classes are rotated for members, which no feature shows, slices beat ERM."""

    def turned(n: int, seed: int) -> Split:
        rows = simple(n, num_classes=3, n_slices=3, share=0.1, seed=seed)
        return replace(rows, y=np.where(rows.S.member[:, 0], (rows.y + 1) % 3, rows.y))

    train, valid, test = turned(1500, 0), turned(600, 1), turned(2000, 2)
    fitted = fit_learner(LearnerConfig(widths=(16,), n_epochs=8, lr=0.01), train, valid, 3)
    judged = test.S.member[:, :1]
    assert accuracy(fitted.peers["erm"], test, judged) < 0.3
    assert accuracy(fitted.model, test, judged) > 0.85
    assert accuracy(fitted.model, test) > 0.93


def test_gate_keeps_the_true_slices_among_thirty(text_fit) -> None:
    """The gate keeps the three slices that matter, and few of the other 27."""
    kept = text_fit[0].model.kept
    assert {"key0", "key1", "key2"} <= set(kept)
    assert len(kept) <= 12


def test_user_is_told_what_won_and_by_how_much(text_fit) -> None:
    """The first sentence names the form, the gate, and the scores of the form and of both plain peers."""
    fitted = text_fit[0]
    pattern = r"Residual slices \(.*gated to \d+ of 30 slices.*\) won on validation: "
    pattern += r"score 0\.\d{3} against 0\.\d{3} for ERM and 0\.\d{3} for slice-weighted ERM \(.*\)\."
    assert re.fullmatch(pattern, fitted.sentences[0])
    assert fitted.form in fitted.sentences[0]


def test_every_candidate_is_listed_and_the_winner_is_the_best_with_slices(text_fit) -> None:
    """The selection holds the plain peers, every form, and the refit; names are distinct."""
    names = [result.name for result in text_fit[0].selection]
    assert len(set(names)) == len(names) == 16
    assert names[0] == "ERM"
    assert {"blend", "soft", "emb"} <= set(names)
    assert names[-1].endswith("last layer refitted")
    with_slices = text_fit[0].selection[5:-1]
    assert max(with_slices, key=lambda r: r.score).name.split(",")[0] == names[-1].split(",")[0]


def test_unknown_rows_do_not_fall_below_erm(text_fit) -> None:
    """With half the rows unknown the worst slice is still above ERM's, and with all of them level."""
    fitted, test, turned = text_fit
    half = np.random.default_rng(0).random(len(test)) < 0.5
    S = SliceMatrix(test.S.names, test.S.member & ~half[:, None], np.repeat(half[:, None], 30, axis=1))
    erm = accuracy(fitted.peers["erm"], test, turned)
    assert accuracy(fitted.model, replace(test, S=S), turned) >= erm + 0.03
    nothing = replace(test, S=SliceMatrix.empty(len(test)))
    assert accuracy(fitted.model, nothing, turned) >= erm - 0.02


def test_fitted_model_survives_json_and_state(text_fit) -> None:
    """A fitted network is rebuilt from its configuration and state with equal predictions."""
    fitted, test, _ = text_fit
    again = network_from_config(json.loads(json.dumps(fitted.model.config())))
    again.load_state_dict(fitted.model.state_dict())
    np.testing.assert_array_equal(again.predict_proba(test.X, test.S), fitted.model.predict_proba(test.X, test.S))


@pytest.mark.parametrize("kind", ["slice_residual", "slice_aware"])
def test_same_seed_same_weights(kind: str) -> None:
    """Two fits of one seed are bitwise equal, one of another seed is not; the process's own draws go on."""
    config = replace(QUICK, kind=kind)
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    first, second = (fit_learner(config, simple(), simple(seed=1), 2).model.state_dict() for _ in range(2))
    assert torch.equal(torch.rand(3), drawn)
    other = fit_learner(replace(config, seed=1), simple(), simple(seed=1), 2).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[n], other[n]) for n in first if n in other and first[n].shape == other[n].shape)


def test_without_slices_the_plain_model_is_fitted() -> None:
    """Without slices ERM is shipped, with its peers and a sentence."""
    fitted = fit_learner(QUICK, simple(n_slices=0), simple(n_slices=0, seed=1), 2)
    assert fitted.form == "ERM"
    assert fitted.model is fitted.peers["erm"] is fitted.peers["weighted_erm"]
    assert "Without slices, only a plain model can be fitted." in fitted.sentences


def test_a_slice_network_that_does_not_ship_is_a_peer(text_fit: tuple[FitResult, Split, np.ndarray]) -> None:
    """Where a plain model ships the best network with slices is compared with it; else it is the model itself."""

    def turned(n: int, seed: int, in_slice: bool) -> Split:
        rows = simple(n, seed=seed)
        return replace(rows, y=np.where(rows.S.member[:, 0] & in_slice, 1 - rows.y, rows.y))

    config = replace(QUICK, n_epochs=6, seed=26)
    fitted = fit_learner(config, turned(400, 26, True), turned(150, 126, False), 2)
    assert fitted.form == "companion: ERM"
    assert fitted.model is fitted.peers["erm"]
    assert isinstance(fitted.peers["slice_residual"], SliceResidualClassifier)
    assert set(text_fit[0].peers) == {"erm", "weighted_erm"}


@pytest.mark.parametrize("kind", ["erm", "weighted_erm", "slice_aware"])
def test_other_kinds_are_what_they_are_called(kind: str) -> None:
    """The configured kind is shipped beside both peers, with a sentence."""
    fitted = fit_learner(replace(QUICK, kind=kind), simple(), simple(seed=1), 2)
    assert (fitted.model is fitted.peers["erm"]) == (kind == "erm")
    assert (fitted.model is fitted.peers["weighted_erm"]) == (kind == "weighted_erm")
    assert fitted.model.config()["kind"] == ("slice_aware" if kind == "slice_aware" else "plain")
    assert "is shipped: score" in fitted.sentences[0]
    again = network_from_config(json.loads(json.dumps(fitted.model.config())))
    again.load_state_dict(fitted.model.state_dict())
    X = simple(seed=2).X
    np.testing.assert_array_equal(again.predict_proba(X, None), fitted.model.predict_proba(X, None))


def with_slices(rows: Split, member: np.ndarray, unknown: np.ndarray | None = None) -> Split:
    return replace(rows, S=SliceMatrix([f"s{k}" for k in range(member.shape[1])], member, unknown))


def test_empty_full_and_one_row_slices_are_fitted() -> None:
    """Slices with no member, every row, or a single row break neither the fit nor its predictions."""
    member = np.zeros((120, 3), dtype=bool)
    member[:, 1], member[5, 2] = True, True
    train, valid = with_slices(simple(), member), with_slices(simple(seed=1), member)
    fitted = fit_learner(QUICK, train, valid, 2)
    assert accuracy(fitted.model, valid) > 0.8
    assert any("selection: 2 of 3 (s0, s2)." in said for said in fitted.sentences)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_unknown_memberships_in_training_are_learned_around(share: float) -> None:
    """With some or all memberships unknown in every split the fit works and predictions are finite."""
    rng = np.random.default_rng(0)
    missing = rng.random((120, 2)) < share
    splits = [with_slices(s, s.S.member & ~missing, missing) for s in (simple(), simple(seed=1))]
    fitted = fit_learner(QUICK, *splits, 2)
    assert accuracy(fitted.model, splits[1]) > 0.8


def test_class_absent_from_validation_is_fitted_without_refit() -> None:
    """A class without a validation row leaves the last layer unrefitted, with a sentence."""
    train = simple(300, num_classes=3)
    valid = simple(200, num_classes=3, seed=1)
    valid = valid.subset(np.flatnonzero(valid.y < 2))
    fitted = fit_learner(LearnerConfig(widths=(8,), n_epochs=10, lr=0.01), train, valid, 3)
    assert fitted.model.predict_proba(train.X, train.S).shape == (300, 3)
    assert set(fitted.model.predict_proba(train.X, train.S).argmax(axis=1)) == {0, 1, 2}
    if isinstance(fitted.model, SliceResidualClassifier):
        assert any("The last layer was not refitted" in said for said in fitted.sentences)


def test_validation_slices_are_matched_by_name() -> None:
    """The order of validation's slices does not matter, and a slice it lacks is unknown there."""
    train, valid = simple(), simple(seed=1)
    turned = replace(valid, S=valid.S.align(("s1", "s0")))
    first, second = (fit_learner(QUICK, train, v, 2).model.state_dict() for v in (valid, turned))
    assert all(torch.equal(first[name], second[name]) for name in first)
    lacking = replace(valid, S=SliceMatrix(("s1",), valid.S.member[:, 1:]))
    assert accuracy(fit_learner(QUICK, train, lacking, 2).model, valid) > 0.8


def test_large_data_are_searched_on_a_sample_and_trained_on_all() -> None:
    """The search sees max_search_rows rows, the shipped model all of them, with a sentence."""
    train, valid = simple(400), simple(300, seed=1)
    fitted = fit_learner(replace(QUICK, max_search_rows=150), train, valid, 2)
    assert "The search used 150 of 400 training rows" in fitted.sentences[-1]
    assert accuracy(fitted.model, valid) > 0.85


def test_progress_rises_to_one() -> None:
    """Progress names the stage, never falls, and ends at 1, also where the search runs on a sample."""
    told: list[tuple[str, float]] = []
    config = replace(QUICK, max_search_rows=100)
    fit_learner(config, simple(), simple(seed=1), 2, lambda stage, share: told.append((stage, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert told[-1] == ("done", 1.0)
    assert told[0][0] == "training ERM"
    assert 0 < shares[0] < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kind": "sbl"},
            "unknown learner 'sbl'; known are auto, slice_residual, slice_aware, erm, weighted_erm",
        ),
        ({"widths": ()}, "widths must be at least 1 unit"),
        ({"max_search_rows": 0}, "max_search_rows must be at least 1"),
        ({"n_epochs": 0}, "n_epochs"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    """A wrong kind, width or count is refused when the configuration is made."""
    with pytest.raises(ConfigError, match=message):
        replace(QUICK, **change)


def test_impossible_data_are_refused() -> None:
    """Labels outside the classes, one class only, or features that do not match are named."""
    train, valid = simple(), simple(seed=1)
    with pytest.raises(DataError, match="training labels must be 0 to 1, got 0 to 2"):
        fit_learner(QUICK, simple(num_classes=3), valid, 2)
    with pytest.raises(DataError, match="all training rows have class 0"):
        fit_learner(QUICK, replace(train, y=np.zeros(120, dtype=np.int64)), valid, 2)
    with pytest.raises(DataError, match="3 features, validation rows 2"):
        fit_learner(QUICK, train, replace(valid, X=FeatureRows(np.zeros((120, 2), dtype=np.float32))), 2)
    with pytest.raises(DataError, match="at least two classes, got 1"):
        fit_learner(QUICK, train, valid, 1)


def test_unknown_network_is_refused() -> None:
    """A configuration of another kind is refused with the kinds there are."""
    with pytest.raises(ConfigError, match="unknown network kind 'x'"):
        network_from_config({"kind": "x"})
