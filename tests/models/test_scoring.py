"""Scorers, overall and slice by slice."""

import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from models.errors import DataError
from models.scoring import (
    METRICS,
    Scorer,
    SliceScorer,
    filter_labels,
    get_label_buckets,
    get_label_instances,
    label_array,
    metric_score,
    metrics_dict_to_dataframe,
    preds_to_probs,
    probs_to_preds,
    to_int_label_array,
)
from sfs.errors import SliceError
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
    """A scorer returns every configured metric."""
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
    """Where every row abstained there is no accuracy."""
    assert Scorer(metrics=["accuracy"]).score([1, 0], [-1, -1]) == {"accuracy": None}


def test_custom_metrics_see_everything() -> None:
    """A function gets golds, preds and probs unfiltered, and may give several numbers."""
    scorer = Scorer(custom_metric_funcs={"sum": lambda g, p, q: {"golds": sum(g), "preds": sum(p)}})
    assert scorer.score([1, -1], [0, 1]) == {"golds": 0, "preds": 1}


def test_no_labels_at_all_is_an_error() -> None:
    """The message names the empty input."""
    with pytest.raises(DataError, match="Cannot score empty labels"):
        Scorer(metrics=["accuracy"]).score([], [])


def test_a_metric_that_does_not_exist() -> None:
    """It is refused when the scorer is made."""
    with pytest.raises(DataError, match="Unrecognized metric: acuracy; known are"):
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
    assert scorer.score_slices(S.to_recarray(), GOLDS, PREDS, PROBS) == scorer.score_slices(S, GOLDS, PREDS, PROBS)


def test_lengths_must_agree() -> None:
    """The message names every length."""
    with pytest.raises(DataError, match=r"must have the same number of elements, got \[4, 3, 4, 4\]"):
        Scorer(metrics=["f1"]).score_slices(S, GOLDS[:3], PREDS, PROBS)


def test_a_slice_called_overall_is_refused() -> None:
    """It would hide the score of all rows."""
    with pytest.raises(DataError, match="the slice name 'overall' is reserved"):
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


BINARY: dict[str, Callable[..., float]] = {
    "accuracy": oracle.accuracy_score,
    "precision": lambda g, p: oracle.precision_score(g, p, zero_division=0.0),
    "recall": lambda g, p: oracle.recall_score(g, p, zero_division=0.0),
    "f1": lambda g, p: oracle.f1_score(g, p, zero_division=0.0),
    "fbeta": lambda g, p: oracle.fbeta_score(g, p, beta=1.0, zero_division=0.0),
    "f1_micro": lambda g, p: oracle.f1_score(g, p, average="micro"),
    "f1_macro": lambda g, p: oracle.f1_score(g, p, average="macro", zero_division=0.0),
}
pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=12)


@pytest.mark.parametrize("name", BINARY)
@given(rows=pairs)
def test_two_classes_agree_with_the_oracle(name: str, rows: list[tuple[int, int]]) -> None:
    """Every metric of two classes is scikit-learn's, on any labels."""
    golds, preds = np.array(rows).T
    assert metric_score(golds, preds, metric=name) == pytest.approx(BINARY[name](golds, preds))


@pytest.mark.parametrize("name", ["accuracy", "f1_micro", "f1_macro"])
@given(rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_many_classes_agree_with_the_oracle(name: str, rows: list[tuple[int, int]]) -> None:
    """So are those of many classes."""
    golds, preds = np.array(rows).T
    assert metric_score(golds, preds, metric=name) == pytest.approx(BINARY[name](golds, preds))


def test_correlation_and_area() -> None:
    """Matthews' coefficient and the area under the curve, on one example each."""
    golds, preds = [0, 1, 1, 0, 1], [0, 1, 0, 0, 1]
    assert metric_score(golds, preds, metric="matthews_corrcoef") == pytest.approx(2 / 3)
    probs = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.6, 0.4], [0.1, 0.9]])
    assert metric_score(golds, probs=probs, metric="roc_auc") == pytest.approx(5 / 6)


def test_fbeta_has_a_beta() -> None:
    """Snorkel's fbeta could only fail: beta is 1 unless given."""
    golds, preds = [1, 1, 0, 0], [1, 0, 1, 1]
    assert metric_score(golds, preds, metric="fbeta") == metric_score(golds, preds, metric="f1")
    assert metric_score(golds, preds, metric="fbeta", beta=2.0) == pytest.approx(
        oracle.fbeta_score(golds, preds, beta=2)
    )


def test_three_filters_at_once() -> None:
    """Rows that any of the three filters names are left out of all three label sets."""
    labels = {
        "golds": np.array([0, -1, 1, 1]),
        "preds": np.array([0, 1, -1, 1]),
        "probs": np.array([0.0, 0.1, 0.2, 0.9]),
    }
    kept = filter_labels(labels, {"golds": [-1], "preds": [-1], "probs": [0.9]})
    assert {name: values.tolist() for name, values in kept.items()} == {
        "golds": [0],
        "preds": [0],
        "probs": [0.0],
    }


def test_coverage_is_the_share_that_answered() -> None:
    """-1 is an abstention."""
    assert metric_score(preds=[0, -1, 1, -1], metric="coverage") == 0.5


@pytest.mark.parametrize("name", METRICS)
def test_no_rows_is_none(name: str) -> None:
    """A metric over nothing is None, not an error and not a number."""
    assert metric_score([], [], np.zeros((0, 2)), metric=name) is None


def test_area_with_one_class_is_none() -> None:
    """There is no curve where all labels are one class."""
    assert metric_score([1, 1], probs=np.array([[0.2, 0.8], [0.6, 0.4]]), metric="roc_auc") is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metric_score([1], [1], metric="f2"),
            r"The metric you provided \(f2\) is not currently implemented; known are accuracy",
        ),
        (
            lambda: metric_score([1], metric="f1"),
            "Metric f1 requires access to preds: pass golds and preds",
        ),
        (
            lambda: metric_score([0, 2], [0, 1], metric="f1"),
            r"f1 not supported for multiclass\. Try f1_micro or f1_macro instead",
        ),
        (lambda: metric_score(["a"], ["b"], metric="precision"), "precision not supported for multiclass"),
        (lambda: metric_score([0, 1], [0], metric="accuracy"), r"differ in length: \[2, 1\]"),
        (
            lambda: metric_score([0], probs=np.ones((1, 3)), metric="roc_auc"),
            r"Metric roc_auc is currently only defined for binary problems: .* got \[1, 3\]",
        ),
        (
            lambda: metric_score([0], [0], filter_dict={"gold": [1]}),
            r"must only include keys in \['golds', 'preds', 'probs'\]; it names \['gold'\]",
        ),
        (
            lambda: label_array([[1, 2]]),
            r"could not be converted to 1d np\.array: labels must be \[N\] or \[N, 1\], got \[1, 2\]",
        ),
        (lambda: label_array([0.5]), "Input contains at least one non-integer value, .*0.5"),
    ],
)
def test_what_cannot_be_measured_says_why(call: Callable[[], object], message: str) -> None:
    """The message names the metric and the fault."""
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        ("accuracy", {"normalize": False}),
        ("accuracy", {"sample_weight": [1, 2, 3, 4]}),
        ("precision", {"pos_label": 0}),
        ("recall", {"pos_label": 0, "zero_division": 1.0}),
        ("recall", {"average": "macro"}),
        ("f1", {"pos_label": 0}),
        ("fbeta", {"beta": 2.0, "pos_label": 0}),
        ("matthews_corrcoef", {"sample_weight": [1, 2, 3, 4]}),
        ("roc_auc", {"max_fpr": 0.5}),
    ],
)
def test_options_are_those_of_scikit_learn(metric: str, options: dict) -> None:
    """They reach its function, as they do from Snorkel; weights are filtered with their rows."""
    function = getattr(oracle, METRICS[metric].scikit)
    given = PROBS[:, 1] if metric == "roc_auc" else PREDS
    expected = pytest.approx(function(GOLDS, given, **options))
    assert metric_score(GOLDS, PREDS, PROBS, metric, **options) == expected
    golds, preds, probs = [*GOLDS, -1], [*PREDS, 1], np.vstack([PROBS, [0, 1]])
    more = {name: [*values, 5] if name == "sample_weight" else values for name, values in options.items()}
    assert metric_score(golds, preds, probs, metric, {"golds": [-1]}, **more) == expected


def test_several_values_are_an_array() -> None:
    """Without an average, there is a value for each class; one class has no area, with options too."""
    assert metric_score(GOLDS, PREDS, metric="recall", average=None).shape == (2,)
    assert metric_score([1, 1], probs=PROBS[:2], metric="roc_auc", max_fpr=0.5) is None


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("f1_macro", {"pos_label": 0}, "Metric f1_macro takes no options, got pos_label"),
        ("coverage", {"normalize": False}, "Metric coverage takes no options"),
        ("accuracy", {"bogus": 1}, "Metric accuracy with the options bogus.*unexpected keyword"),
        ("precision", {"pos_label": 7}, "Metric precision with the options pos_label"),
    ],
)
def test_options_that_a_metric_does_not_take_are_refused(metric: str, options: dict, message: str) -> None:
    """The message names the metric and the option."""
    with pytest.raises(DataError, match=message):
        metric_score(GOLDS, PREDS, PROBS, metric, **options)


def test_memberships_without_names_are_refused() -> None:
    """A plain matrix would have lost all slices: an array of no slices is a record array still."""
    scorer = Scorer(metrics=["accuracy"])
    for plain in (S.member.astype(int), S.member, np.zeros((4, 0)), [[1, 0, 1]] * 4, pd.DataFrame(S.to_recarray())):
        for scores in (scorer.score_slices, SliceScorer(scorer).score_slices):
            with pytest.raises(SliceError, match="record array with the name of every slice"):
                scores(plain, GOLDS, PREDS, PROBS)
    assert list(scorer.score_slices(SliceMatrix.empty(4).to_recarray(), GOLDS, PREDS, PROBS)) == ["overall"]


def test_labels_may_be_text_or_columns() -> None:
    """Text stays text, [N, 1] becomes [N], whole floats and booleans become integers."""
    assert label_array(["a", "b"]).tolist() == ["a", "b"]
    assert label_array([[1.0], [0.0]]).tolist() == [1, 0]
    assert label_array([True, False]).dtype == np.int64


def test_buckets_hold_positions() -> None:
    """Each combination of labels has the positions of its rows, in order."""
    buckets = get_label_buckets(np.array([1, 1, 1, 0]), np.array([1, 1, -1, -1]))
    assert {bucket: rows.tolist() for bucket, rows in buckets.items()} == {
        (1, 1): [0, 1],
        (1, -1): [2],
        (0, -1): [3],
    }


def test_buckets_of_text_and_of_three_label_sets() -> None:
    """Classes may be text, and there may be any number of label sets."""
    buckets = get_label_buckets(["spam", "ham"], [1, 0], [[1.0], [0.0]])
    assert list(buckets) == [("spam", 1, 1), ("ham", 0, 0)]


def test_buckets_need_equal_lengths() -> None:
    """The lengths are named."""
    with pytest.raises(DataError, match=r"must all have the same number of elements.*got lengths \[1, 2\]"):
        get_label_buckets([1], [1, 2])


def test_instances_are_rows_of_x() -> None:
    """The rows of one bucket come back, and for a bucket without rows none, with a warning."""
    x = np.array([["a", "1"], ["b", "2"], ["c", "3"]])
    assert get_label_instances((1, 0), x, [1, 1, 1], [1, 0, 0]).tolist() == [["b", "2"], ["c", "3"]]


def test_a_bucket_without_rows_warns(caplog: pytest.LogCaptureFixture) -> None:
    """The result is empty, with a warning."""
    with caplog.at_level(logging.WARNING):
        assert len(get_label_instances((7,), np.zeros((2, 1)), [1, 0])) == 0
    assert "no row has the labels (7,)" in caplog.text


def test_instances_say_what_does_not_fit() -> None:
    """Labels per bucket, and rows, must agree."""
    with pytest.raises(
        DataError, match=r"Number of lists must match the amount of labels in bucket \(1, 0\): 2, there are 1"
    ):
        get_label_instances((1, 0), np.zeros(2), [1, 0])
    with pytest.raises(
        DataError, match="does not match number of elements in at least one label list: x has 3, the first list 2"
    ):
        get_label_instances((1,), np.zeros(3), [1, 0])


def test_ties_are_broken_by_position_as_in_snorkel() -> None:
    """Fifty-fifty rows give Snorkel's sequence."""
    assert probs_to_preds(np.full((12, 2), 0.5)).tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1]


def test_clear_rows_are_the_largest() -> None:
    """The policy applies to ties only; a difference within the tolerance is a tie."""
    probs = np.array([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4], [0.3, 0.3, 0.4]])
    assert probs_to_preds(probs, "abstain").tolist() == [0, -1, 2]
    assert probs_to_preds(probs, "abstain", tol=0.2).tolist() == [0, -1, -1]
    assert probs_to_preds(probs, "true-random")[1] in (1, 2)


def test_probabilities_that_are_none() -> None:
    """One class, or a policy that does not exist, is refused."""
    with pytest.raises(DataError, match=r"for at least 2 classes, \[N, C\], got \[3, 1\]"):
        probs_to_preds(np.ones((3, 1)))
    with pytest.raises(DataError, match="tie_break_policy=coin policy not recognized"):
        probs_to_preds(np.full((1, 2), 0.5), "coin")  # type: ignore[arg-type]


def test_predictions_become_probabilities() -> None:
    """One-hot rows, also from [N, 1]."""
    assert preds_to_probs([[1], [0]], 3).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(("bad", "vote"), [(-1, "abstained vote"), (2, "vote 2")])
def test_predictions_must_be_classes(bad: int, vote: str) -> None:
    """An abstained vote has no probability."""
    with pytest.raises(DataError, match=f"Could not convert {vote} to probability: the classes are 0 to 1"):
        preds_to_probs([0, bad], 2)


def test_scores_become_a_frame() -> None:
    """A row for each key; a label may contain slashes."""
    frame = metrics_dict_to_dataframe({"task_slice:a/b_pred/data/test/f1": 0.5, "task/data/test/f1": None})
    assert frame.columns.tolist() == ["label", "dataset", "split", "metric", "score"]
    assert frame["label"].tolist() == ["task_slice:a/b_pred", "task"]
    assert frame["score"].tolist()[0] == 0.5


def test_labels_become_whole_numbers() -> None:
    """Flat, or in their own shape."""
    flat = [to_int_label_array(np.array(values)).tolist() for values in ([[1.0], [0.0]], [[1, 0]], [[1]], 1)]
    assert flat == [[1, 0], [1, 0], [1], [1]]
    kept = to_int_label_array(np.array([[1.0, 0.0]]), flatten_vector=False)
    assert (kept.dtype, kept.tolist()) == (np.int64, [[1, 0]])
    with pytest.raises(DataError, match="could not be converted to 1d"):
        to_int_label_array(np.ones((2, 2)))


def test_an_absent_label_set_stays_absent() -> None:
    """None is returned for None, with a filter and without."""
    given = {"golds": np.array([-1, 0]), "preds": None}
    assert filter_labels(given, {"golds": [-1], "preds": [-1]})["preds"] is None
    assert filter_labels(given, {}) == given
