"""Scorers, overall and slice by slice."""

import numpy as np
import pytest

from models.errors import DataError
from models.scoring import Scorer, SliceScorer
from sfs.matrix import SliceMatrix

GOLDS = np.array([1, 0, 1, 0])
PREDS = np.array([1, 0, 0, 0])
PROBS = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
S = SliceMatrix(
    ["a", "none", "doubt"],
    np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]], dtype=bool),
    np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]], dtype=bool),
)


def test_metrics_by_name() -> None:
    """A scorer gives each metric it was asked for."""
    assert Scorer(metrics=["accuracy", "f1"]).score(GOLDS, PREDS) == {
        "accuracy": 0.75,
        "f1": pytest.approx(2 / 3),
    }


def test_fbeta_can_be_asked_for() -> None:
    """Scorer(["fbeta"]) always failed in Snorkel."""
    assert Scorer(metrics=["fbeta"]).score(GOLDS, PREDS) == {"fbeta": pytest.approx(2 / 3)}


def test_abstentions_count_for_coverage_only() -> None:
    """Rows whose gold or prediction is -1 are left out, but for coverage, which is over all."""
    scorer = Scorer(metrics=["accuracy", "coverage"])
    assert scorer.score([1, 0, 1, -1], [1, -1, 0, 1]) == {"accuracy": 0.5, "coverage": 0.75}
    assert Scorer(metrics=["accuracy"], abstain_label=None).score([1, -1], [1, -1]) == {"accuracy": 1.0}


def test_all_abstained_is_none() -> None:
    """Where nobody answered there is no accuracy."""
    assert Scorer(metrics=["accuracy"]).score([1, 0], [-1, -1]) == {"accuracy": None}


def test_custom_metrics_see_everything() -> None:
    """A function gets golds, preds and probs unfiltered, and may give several numbers."""
    scorer = Scorer(custom_metric_funcs={"sum": lambda g, p, q: {"golds": sum(g), "preds": sum(p)}})
    assert scorer.score([1, -1], [0, 1]) == {"golds": 0, "preds": 1}


def test_no_labels_at_all_is_an_error() -> None:
    """The message says which input is empty."""
    with pytest.raises(DataError, match="no labels to score: golds is empty"):
        Scorer(metrics=["accuracy"]).score([], [])


def test_a_metric_that_does_not_exist() -> None:
    """It is refused when the scorer is made."""
    with pytest.raises(DataError, match="there is no metric 'acuracy'"):
        Scorer(metrics=["acuracy"])


def test_slices_are_their_known_members() -> None:
    """A failed function's rows are in no slice: in Snorkel they all were."""
    scores = Scorer(metrics=["accuracy"]).score_slices(S, GOLDS, PREDS, PROBS)
    assert scores["overall"] == {"accuracy": 0.75}
    assert scores["a"] == {"accuracy": 1.0}
    assert scores["doubt"] == {"accuracy": 0.5}


def test_an_empty_slice_is_none_and_nan_in_a_frame() -> None:
    """In Snorkel one empty slice ended the call, for every metric."""
    scorer = Scorer(metrics=["accuracy", "f1", "roc_auc"])
    assert scorer.score_slices(S, GOLDS, PREDS, PROBS)["none"] == {
        "accuracy": None,
        "f1": None,
        "roc_auc": None,
    }
    frame = scorer.score_slices(S, GOLDS, PREDS, PROBS, as_dataframe=True)
    assert list(frame.index) == ["overall", "a", "none", "doubt"]
    assert frame.loc["none"].isna().all()


def test_a_recarray_will_do() -> None:
    """Snorkel's shape gives the same scores."""
    scorer = Scorer(metrics=["f1"])
    assert scorer.score_slices(S.to_recarray(), GOLDS, PREDS, PROBS) == scorer.score_slices(
        S, GOLDS, PREDS, PROBS
    )


def test_lengths_must_agree() -> None:
    """The message names every length."""
    with pytest.raises(DataError, match=r"of the same rows, but number \[4, 3, 4, 4\]"):
        Scorer(metrics=["f1"]).score_slices(S, GOLDS[:3], PREDS, PROBS)


def test_a_slice_called_overall_is_refused() -> None:
    """It would hide the score of all rows."""
    with pytest.raises(DataError, match="cannot be called 'overall'"):
        Scorer(metrics=["f1"]).score_slices(S.align(["overall"]), GOLDS, PREDS, PROBS)


def test_a_slice_scorer_scores_chosen_slices() -> None:
    """Names choose and order the slices; a scorer of one's own may come first."""
    scores = SliceScorer(["doubt", "a"]).score_slices(S, GOLDS, PREDS, PROBS)
    assert list(scores) == ["overall", "doubt", "a"]
    assert set(scores["a"]) == {"accuracy", "f1"}
    own = SliceScorer(Scorer(metrics=["f1"]), ["a"]).score_slices(S, GOLDS, PREDS, PROBS, as_dataframe=True)
    assert list(own.columns) == ["f1"]
    assert list(SliceScorer().score_slices(S, GOLDS, PREDS, PROBS)) == ["overall", "a", "none", "doubt"]


def test_a_chosen_slice_must_exist() -> None:
    """The message names it and those there are."""
    with pytest.raises(DataError, match=r"lacks slices \['b'\]; it has \['a', 'none', 'doubt'\]"):
        SliceScorer(["a", "b"]).score_slices(S, GOLDS, PREDS, PROBS)
