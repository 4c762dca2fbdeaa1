"""The shipped model by the scores, and the sentences of the report."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.baselines import MLP, PlainClassifier
from models.batches import FeatureRows, Split
from models.model_selection import (
    Candidate,
    CandidateSpec,
    ModelComparison,
    SelectionScore,
    TrainingTask,
    describe_comparison,
    selection_score,
    train_candidate,
)
from models.slice_residual import MODES, SliceResidualClassifier
from models.trainer_config import TrainerConfig
from sfs.matrix import SliceMatrix

NAMES = tuple(f"s{k}" for k in range(30))


def score(value: float) -> SelectionScore:
    return SelectionScore(value, value, value)


def contest(
    slices: float,
    erm: float,
    weighted: float,
    *,
    form: str = "blend",
    unknown: float = 0.0,
    kept: int = 7,
    rows: int = 100,
) -> ModelComparison:
    plan = CandidateSpec(form, NAMES[:kept], weighting="x3", gated=True)
    winner = Candidate(plan, SliceResidualClassifier(MLP(2, (3,)), 3, NAMES, mode=form, kept=plan.slices), score(0.99))
    plain = PlainClassifier(MLP(2, (3,)))
    peers = (
        Candidate(CandidateSpec("erm", NAMES), plain, score(erm)),
        Candidate(CandidateSpec("erm", NAMES, "x10"), plain, score(weighted)),
    )
    return ModelComparison(winner, score(slices), unknown, *peers, rows)


def valid(members: int = 100) -> Split:
    member = np.zeros((100, 30), dtype=bool)
    member[:members] = True
    return Split(
        FeatureRows(np.zeros((100, 2), dtype=np.float32)),
        np.zeros(100, dtype=np.int64),
        SliceMatrix(NAMES, member),
    )


def said(of: ModelComparison, members: int = 100) -> list[str]:
    return list(describe_comparison(of, valid(members)))


@pytest.mark.parametrize(("erm", "ships"), [(0.905, False), (0.9099, False), (0.9101, True), (0.95, True)])
def test_companion_ships_when_more_than_a_hundredth_better(erm: float, ships: bool) -> None:
    """The margin is .01 above the cross-fitted score, not above the checkpoint's."""
    assert contest(0.9, erm, 0.5).companion_ships == ships


@pytest.mark.parametrize(("rows", "ships"), [(3_000, False), (12_000, False), (13_000, True)])
def test_the_margin_shrinks_with_the_validation_rows(rows: int, ships: bool) -> None:
    """A lead of .0049 is noise on 12,000 rows, where the margin is .005, and counts on a few more."""
    assert contest(0.9, 0.9049, 0.5, rows=rows).companion_ships == ships


def test_a_win_names_form_and_scores() -> None:
    """The winner's form, how many slices it keeps, its weights and all three scores are in one sentence."""
    assert said(contest(0.931, 0.913, 0.917))[0] == (
        "Residual slices (blend, gated to 7 of 30 slices, weights x3, last layer refitted) won on "
        "validation: score 0.931 against 0.913 for ERM and 0.917 for slice-weighted ERM (x10)."
    )


def test_a_loss_says_that_slices_bring_nothing() -> None:
    """When a plain model is shipped, the user reads that slice awareness brings nothing here."""
    lost = contest(0.9, 0.95, 0.93)
    assert lost.form == "companion: ERM"
    assert said(lost)[0].startswith("Slices give no gain: the plain model (ERM) is shipped, ")
    assert "0.950 against 0.900" in said(lost)[0]
    assert contest(0.9, 0.93, 0.95).form == "companion: weighted ERM, weights x10"


def test_no_kept_slice_is_no_win() -> None:
    """Where the gate passes no slice, a better score is the refit's, and a sentence says so."""
    first = said(contest(0.95, 0.9, 0.9, kept=0))[0]
    assert first.startswith("Slices give no gain: none of 30 slices passed the gate.")
    assert "last layer refitted: score 0.950 against 0.900 for ERM" in first


def test_a_tie_promises_no_gain() -> None:
    """Within the margin slices are shipped, with a sentence to expect no more than a plain model."""
    assert "validation shows no gain" in said(contest(0.9, 0.905, 0.8))[0]
    assert said(contest(0.9, 0.905, 0.8))[0].endswith("Expect the accuracy of a plain model.")


@pytest.mark.parametrize(
    ("form", "unknown", "kept", "expected"),
    [
        (
            "blend",
            0.80,
            7,
            "Rows with an unknown membership go to the companion (ERM), which reads no slices.",
        ),
        ("blend", 0.85, 7, "The network replaces an unknown membership by its own estimate."),
        (
            "soft",
            0.80,
            7,
            "Memberships are read in training only: at serving the network predicts them.",
        ),
        (
            "blend",
            0.80,
            0,
            "The model reads no memberships.",
        ),
    ],
)
def test_unknown_rows_are_explained(form: str, unknown: float, kept: int, expected: str) -> None:
    """A sentence explains rows with unknown memberships; imputing wins at an equal score."""
    assert expected in said(contest(0.9, 0.85, 0.8, form=form, unknown=unknown, kept=kept))


def test_small_slices_are_named() -> None:
    """Slices under 25 validation members are counted, the first five named."""
    few = "under 25 validation members, which hardly affect the selection: 30 of 30 (s0, s1, s2, s3, s4, ...)."
    assert any(few in sentence for sentence in said(contest(0.9, 0.8, 0.8), members=24))
    assert not any(few in sentence for sentence in said(contest(0.9, 0.8, 0.8), members=25))


def literal_score(p: np.ndarray, y: np.ndarray, member: np.ndarray) -> float:
    n = len(y)
    right = [int(max(range(p.shape[1]), key=lambda c: p[i, c]) == y[i]) for i in range(n)]
    accuracy = sum(right) / n
    worst = math.inf
    for k in range(member.shape[1]):
        members = [i for i in range(n) if member[i, k]]
        worst = min(worst, (sum(right[i] for i in members) + 25 * accuracy) / (len(members) + 25))
    log_loss = -sum(math.log(max(p[i, y[i]], 1e-300)) for i in range(n)) / n
    return 0.5 * accuracy + 0.5 * (accuracy if worst == math.inf else worst) - 0.001 * min(log_loss, 10)


@given(st.integers(1, 40), st.integers(0, 4), st.integers(2, 4), st.integers(0, 10_000))
def test_score_equals_the_literal_rule(n: int, n_slices: int, n_classes: int, seed: int) -> None:
    """The matrix form gives the rule's number, without slices and with empty ones too."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(n_classes), n)
    y, member = rng.integers(0, n_classes, n), rng.random((n, n_slices)) < rng.random()
    assert selection_score(p, y, member).value == pytest.approx(literal_score(p, y, member))


def test_small_slices_are_drawn_to_the_whole() -> None:
    """One wrong member of a lone slice costs little; 300 cost nearly their share."""
    y = np.zeros(1000, dtype=np.int64)
    few, many = np.zeros((2, 1000, 1), dtype=bool)
    few[0], many[:300] = True, True
    one_wrong = np.tile([0.9, 0.1], (1000, 1))
    one_wrong[0] = [0.1, 0.9]
    all_wrong = np.tile([0.9, 0.1], (1000, 1))
    all_wrong[:300] = [0.1, 0.9]
    assert selection_score(one_wrong, y, few).worst > 0.95
    assert selection_score(all_wrong, y, many).worst < 0.06


def test_log_loss_only_breaks_ties() -> None:
    """A certain mistake costs at most a hundredth through the log loss."""
    score = selection_score(np.array([[1.0, 0.0]]), np.array([1]), np.zeros((1, 0), dtype=bool))
    assert score.value == pytest.approx(-0.01)


@pytest.mark.parametrize("form", ["erm", *MODES])
def test_a_feature_that_no_training_row_has_changes_no_prediction(form: str) -> None:
    """Its weights are 0, those of the others as trained without it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)).astype(np.float32)
    y, S = (X[:, 1] > 0).astype(np.int64), SliceMatrix(["s"], rng.random((200, 1)) < 0.3)
    absent = X * np.array([1, 1, 0, 1], np.float32)

    def trained(rows: np.ndarray) -> Candidate:
        part = Split(FeatureRows(rows), y, S)
        return train_candidate(
            TrainingTask(part, part, 2, (5,), TrainerConfig(n_epochs=2)), CandidateSpec(form, ("s",))
        )

    found, without = trained(absent), trained(np.delete(X, 2, axis=1))
    assert np.array_equal(found.model.predict_proba(X, S), found.model.predict_proba(absent, S))
    assert found.score.value == pytest.approx(without.score.value, abs=1e-6)
    assert found.model.config()["backbone"]["in_features"] == 4
