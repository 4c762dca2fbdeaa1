"""The label model of votes and abstentions: against a slow twin, on functions of one class, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.dawid_skene import DawidSkeneLabelModel
from models.errors import DataError, ModelError
from models.label_model import LabelModel
from models.labelers import MajorityLabelVoter

Votes = NDArray[np.int64]


def keywords(n: int, seed: int = 0) -> tuple[Votes, Votes]:
    """Return votes of six functions of one class each, and true classes, one in four of them 1."""
    random = np.random.default_rng(seed)
    y = (random.random(n) < 0.25).astype(np.int64)
    rates = [(0, 0.6, 0.2), (0, 0.3, 0.1), (0, 0.2, 0.02), (1, 0.5, 0.02), (1, 0.3, 0.1), (1, 0.2, 0.01)]
    L = np.full((n, len(rates)), -1)
    for i, (own, right, wrong) in enumerate(rates):
        L[:, i] = np.where(random.random(n) < np.where(y == own, right, wrong), own, -1)
    return L, y


def twin(L: Votes, truth: Votes, p: list[float], accuracy: float, rows: float) -> NDArray[np.float64]:
    """Return the probabilities of the classes by one loop over rows, functions and classes a step."""
    N, M, C = len(L), L.shape[1], len(p)
    prior = np.zeros((M, C + 1, C))
    for i in range(M):
        for v in range(C):
            for c in range(C):
                right = accuracy if v == c else (1 - accuracy) / (C - 1)
                prior[i, v, c] = (L[:, i] == v).mean() * right / p[c]
        for c in range(C):
            prior[i, :C, c] /= max(prior[i, :C, c].sum() / 0.99, 1)
            prior[i, C, c] = 1 - prior[i, :C, c].sum()
    unlabelled = int((truth < 0).sum())
    weight = min(rows * C / max(unlabelled, 1), 1.0)

    def posterior(given: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros((N, C))
        for n in range(N):
            for c in range(C):
                out[n, c] = p[c]
                for i in range(M):
                    out[n, c] *= max(given[i, L[n, i] if L[n, i] >= 0 else C, c], 1e-6)
            out[n] /= out[n].sum()
        return out

    def counted(of_rows: NDArray[np.float64]) -> NDArray[np.float64]:
        counts, total = rows * prior, np.full(C, rows)
        for n in range(N):
            total = total + of_rows[n]
            for i in range(M):
                counts[i, L[n, i] if L[n, i] >= 0 else C] += of_rows[n]
        return np.asarray(counts / total)

    known = np.where(truth[:, None] >= 0, np.eye(C)[np.maximum(truth, 0)], 0.0)
    given = counted(known)
    for _ in range(200):
        before, given = given, counted(np.where(truth[:, None] >= 0, known, weight * posterior(given)))
        if np.abs(given - before).max() < 1e-6:
            break
    return posterior(given)


@pytest.mark.parametrize("labelled", [0, 30, 60])
def test_it_is_its_slow_twin(labelled: int) -> None:
    """With and without labelled rows, and without others."""
    L, y = keywords(60)
    truth = np.where(np.arange(60) < labelled, y, -1)
    model = DawidSkeneLabelModel()
    model.fit(L, truth, class_balance=[0.75, 0.25])
    expected = twin(L, truth, [0.75, 0.25], 0.9, 10.0)
    assert model.dependencies == ()
    np.testing.assert_allclose(model.predict_proba(L), expected, atol=1e-4)


def test_functions_of_one_class_are_learned_from_abstentions() -> None:
    """Better than the majority without a labelled row, and with some better than the model that ignores abstentions."""
    L, y = keywords(4_000)
    some, p = (L >= 0).any(axis=1), [0.75, 0.25]
    own, taught, other = DawidSkeneLabelModel(), DawidSkeneLabelModel(), LabelModel()
    own.fit(L, class_balance=p)
    taught.fit(L, np.where(np.arange(4_000) < 200, y, -1))
    other.fit(L, class_balance=p)
    majority = MajorityLabelVoter().predict(L, tie_break_policy="random")
    right, right_taught, right_other = (
        (model.predict_proba(L).argmax(axis=1) == y)[some].mean() for model in (own, taught, other)
    )
    assert right > (majority == y)[some].mean()
    assert right_taught > max(right, right_other)


def test_labelled_rows_tell_the_accuracies() -> None:
    """Those of a few hundred rows are near the true ones, where those of no row are near the prior."""
    L, y = keywords(4_000)
    true = np.array([(L[L[:, i] >= 0, i] == y[L[:, i] >= 0]).mean() for i in range(L.shape[1])])
    model, without = DawidSkeneLabelModel(), DawidSkeneLabelModel()
    model.fit(L, np.where(np.arange(4_000) < 800, y, -1))
    without.fit(L)
    assert np.abs(model.get_weights() - true).max() < 0.08
    assert np.abs(model.get_weights() - true).mean() < np.abs(without.get_weights() - true).mean()


def test_the_class_balance_is_that_of_the_labels() -> None:
    """With one more row of each class; given frequencies come first, and without any the classes are equal."""
    L, _ = keywords(100)
    truth = np.full(100, -1)
    truth[:8] = [0, 0, 0, 0, 0, 0, 0, 1]
    model = DawidSkeneLabelModel()
    for options, expected in (
        ({"Y_train": truth}, [0.8, 0.2]),
        ({"Y_train": truth, "class_balance": [3, 2]}, [0.6, 0.4]),
        ({}, [0.5, 0.5]),
    ):
        model.fit(L, **options)  # type: ignore[arg-type]
        np.testing.assert_allclose(model.p, expected)  # type: ignore[arg-type]


def test_duplicates_have_one_vote() -> None:
    """A function that is there three times changes no label."""
    L, _ = keywords(2_000)
    once, thrice = DawidSkeneLabelModel(), DawidSkeneLabelModel()
    once.fit(L)
    repeated = L[:, [0, 1, 2, 3, 4, 5, 3, 3]]
    thrice.fit(repeated)
    assert {(d.first, d.second) for d in thrice.dependencies if d.is_duplicate} >= {(3, 6)} or thrice.dependencies
    agreement = once.predict_proba(L).argmax(axis=1) == thrice.predict_proba(repeated).argmax(axis=1)
    assert agreement.mean() > 0.97


def test_several_classes() -> None:
    """Functions that vote for one of three classes, or for any."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 3_000)
    L = np.full((3_000, 4), -1)
    for k in range(3):
        L[:, k] = np.where(random.random(3_000) < np.where(y == k, 0.6, 0.05), k, -1)
    L[:, 3] = np.where(random.random(3_000) < 0.8, y, random.integers(0, 3, 3_000))
    model = DawidSkeneLabelModel(3)
    model.fit(L)
    assert (model.predict_proba(L).argmax(axis=1) == y).mean() > 0.85
    given = model.get_conditional_probs()
    assert given.shape == (4, 4, 3)
    np.testing.assert_allclose(given.sum(axis=1), 1)
    assert (given[0, [2, 3]] < 0.01).all()  # votes for classes that the first function never names


def test_it_is_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """As arrays, by which another object predicts the same."""
    L, _ = keywords(200)
    model, other = DawidSkeneLabelModel(), DawidSkeneLabelModel()
    with pytest.raises(ModelError, match=r"not fitted yet: call fit\(L_train\)"):
        model.predict_proba(L)
    model.fit(L)
    model.save(tmp_path / "model")
    other.load(tmp_path / "model")
    np.testing.assert_array_equal(other.predict_proba(L), model.predict_proba(L))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda model, L: model.fit(L[:0]), "L_train has no rows"),
        (lambda model, L: model.fit(L, [0, 1]), r"Y_train must have the 20 rows of L_train, got shape \[2\]"),
        (lambda model, L: model.fit(L, np.full(20, 2)), "cardinality 3"),
        (lambda model, L: model.fit(L, class_balance=[1, 0]), r"2 frequencies above 0, got \[1.0, 0.0\]"),
        (lambda model, L: DawidSkeneLabelModel(prior_accuracy=0.5), "above 1 / 2 and below 1, got 0.5"),
        (lambda model, L: DawidSkeneLabelModel(prior_rows=0), "prior_rows must be above 0, got 0"),
        (
            lambda model, L: (model.fit(L), model.predict_proba(L[:, :5])),
            "L has 5 functions, the model was fitted on 6",
        ),
    ],
)
def test_malformed_arguments_are_refused(act, message: str) -> None:  # type: ignore[no-untyped-def]
    """With the value."""
    with pytest.raises(DataError, match=message):
        act(DawidSkeneLabelModel(), keywords(20)[0])
