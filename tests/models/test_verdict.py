"""What is shipped, by the scores, and what the user is told."""

import numpy as np
import pytest

from models.backbone import MLP
from models.baselines import PlainClassifier
from models.batches import Split
from models.candidates import Candidate, Plan
from models.refit import LastLayer, Refit
from models.rows import FeatureRows
from models.selection import Score
from models.slice_residual import SliceResidualClassifier
from models.verdict import Contest, residual_sentences
from sfs.matrix import SliceMatrix

NAMES = tuple(f"s{k}" for k in range(30))


def score(value: float) -> Score:
    return Score(value, value, value)


def contest(
    slices: float,
    erm: float,
    weighted: float,
    *,
    form: str = "blend",
    unknown: float = 0.0,
    kept: int = 7,
    rows: int = 100,
) -> Contest:
    plan = Plan(form, NAMES[:kept], weighting="x3", gated=True)
    winner = Candidate(
        plan, SliceResidualClassifier(MLP(2, (3,)), 3, NAMES, mode=form, kept=plan.slices), score(0.99)
    )
    refit = Refit(LastLayer(np.zeros((2, 5)), np.zeros(2)), 0.1, 0.5, score(slices), score(unknown))
    plain = PlainClassifier(MLP(2, (3,)))
    peers = (
        Candidate(Plan("erm", NAMES), plain, score(erm)),
        Candidate(Plan("erm", NAMES, "x10"), plain, score(weighted)),
    )
    return Contest(winner, refit, unknown, *peers, rows)


def valid(members: int = 100) -> Split:
    member = np.zeros((100, 30), dtype=bool)
    member[:members] = True
    return Split(
        FeatureRows(np.zeros((100, 2), dtype=np.float32)),
        np.zeros(100, dtype=np.int64),
        SliceMatrix(NAMES, member),
    )


def said(of: Contest, members: int = 100) -> list[str]:
    return list(residual_sentences(of, valid(members)))


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
    assert said(lost)[0].startswith("Slice awareness brings nothing here: the plain model (ERM) is shipped.")
    assert "0.950 against 0.900" in said(lost)[0]
    assert contest(0.9, 0.93, 0.95).form == "companion: weighted ERM, weights x10"


def test_no_kept_slice_is_no_win() -> None:
    """Where the gate lets no slice through, a better score is the refit's, and the user is told so."""
    first = said(contest(0.95, 0.9, 0.9, kept=0))[0]
    assert first.startswith("Slice awareness brings nothing here: none of 30 slices earned a place.")
    assert "last layer refitted: score 0.950 against 0.900 for ERM" in first


def test_a_tie_promises_no_gain() -> None:
    """Within the margin slices are shipped, and the user is told to expect no more than a plain model."""
    assert "validation shows no gain" in said(contest(0.9, 0.905, 0.8))[0]
    assert said(contest(0.9, 0.905, 0.8))[0].endswith("Expect a plain model's accuracy.")


@pytest.mark.parametrize(
    ("form", "unknown", "kept", "expected"),
    [
        (
            "blend",
            0.80,
            7,
            "Rows with an unknown membership go to the companion (ERM), which reads no slices.",
        ),
        ("blend", 0.85, 7, "Where a membership is unknown, the network answers with its own estimate of it."),
        (
            "soft",
            0.80,
            7,
            "Memberships are read in training only: at serving the network predicts them itself.",
        ),
        (
            "blend",
            0.80,
            0,
            "Memberships are not read.",
        ),
    ],
)
def test_unknown_rows_are_explained(form: str, unknown: float, kept: int, expected: str) -> None:
    """The user reads who answers rows with unknown memberships; imputing wins at an equal score."""
    assert expected in said(contest(0.9, 0.85, 0.8, form=form, unknown=unknown, kept=kept))


def test_small_slices_are_named() -> None:
    """Slices under 25 validation members are counted, the first five named."""
    few = "30 of 30 slices have under 25 validation members (s0, s1, s2, s3, s4, ...)"
    assert any(few in sentence for sentence in said(contest(0.9, 0.8, 0.8), members=24))
    assert not any(few in sentence for sentence in said(contest(0.9, 0.8, 0.8), members=25))
