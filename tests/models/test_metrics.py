"""Metrics by name, with scikit-learn as the oracle."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from models.errors import DataError
from models.metrics import METRICS, filter_labels, label_array, metric_score

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
    """-1 is no answer."""
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
        (lambda: metric_score([1], [1], metric="f2"), "there is no metric 'f2'; the metrics are accuracy"),
        (
            lambda: metric_score([1], metric="f1"),
            "f1 is computed from golds and preds, and preds were not given",
        ),
        (lambda: metric_score([0, 2], [0, 1], metric="f1"), "f1 is of classes 0 and 1.*use f1_macro"),
        (lambda: metric_score(["a"], ["b"], metric="precision"), "precision is of classes 0 and 1"),
        (lambda: metric_score([0, 1], [0], metric="accuracy"), r"differ in length: \[2, 1\]"),
        (lambda: metric_score([0], probs=np.ones((1, 3)), metric="roc_auc"), "roc_auc is of two classes"),
        (
            lambda: metric_score([0], [0], filter_dict={"gold": [1]}),
            r"can filter golds, preds, probs; it names \['gold'\]",
        ),
        (lambda: label_array([[1, 2]]), r"labels must be \[N\] or \[N, 1\], got \[1, 2\]"),
        (lambda: label_array([0.5]), "whole numbers, got .*0.5"),
    ],
)
def test_what_cannot_be_measured_says_why(call: Callable[[], object], message: str) -> None:
    """One message names the metric and what is wrong."""
    with pytest.raises(DataError, match=message):
        call()


def test_labels_may_be_text_or_columns() -> None:
    """Text stays text, [N, 1] becomes [N], whole floats and booleans become integers."""
    assert label_array(["a", "b"]).tolist() == ["a", "b"]
    assert label_array([[1.0], [0.0]]).tolist() == [1, 0]
    assert label_array([True, False]).dtype == np.int64
