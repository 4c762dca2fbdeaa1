"""Label models on votes whose accuracies are known."""

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.errors import DataError, ModelError
from models.label_model import LabelModel, TripletLabelModel, estimate_class_balance
from models.labelers import MajorityLabelVoter
from models.trainer import set_seed

Array = NDArray[Any]
MODELS = [LabelModel, TripletLabelModel]
ROWS, FUNCTIONS = 20_000, 10
SNORKELS = [  # options, accuracies, probabilities of the second class
    ({"lr": 0.01}, [1.0, 0.88424, 0.15801, 1.0], [0.5, 6e-05, 1.0, 0.06456, 0.00025, 0.99997]),
    ({"optimizer": "sgd", "n_epochs": 500}, [1.0, 0.88569, 0.15777, 1.0], [0.5, 6e-05, 1.0, 0.06368, 0.00023, 0.99997]),
    (
        {"optimizer": "adam", "lr": 0.02, "n_epochs": 50, "l2": 0.1},
        [1.0, 0.90859, 0.1534, 0.97493],
        [0.5, 0.00019, 1.0, 0.26579, 0.00072, 0.99999],
    ),
    (
        {"lr_scheduler": "linear", "n_epochs": 200, "class_balance": [0.6, 0.4], "prec_init": 0.8},
        [1.0, 0.88256, 0.15472, 1.0],
        [0.4, 0.0, 0.99944, 0.00074, 0.0, 0.99796],
    ),
]


def votes_of(classes: int, seed: int = 0, *, one_class: bool = False, rows: int = ROWS) -> tuple[Array, Array, Array]:
    """Return votes of independent functions, the true classes, and their frequencies.

    Each votes for every class, or for one alone, as keywords do.
    """
    rng = np.random.default_rng([seed, classes, one_class])
    p = rng.dirichlet(np.full(classes, 8.0))
    y = rng.choice(classes, rows, p=p)
    accuracy, coverage = rng.uniform(0.6, 0.9, FUNCTIONS), rng.uniform(0.2, 0.6, FUNCTIONS)
    votes = np.full((rows, FUNCTIONS), -1)
    for i in range(FUNCTIONS):
        if one_class:
            own = i % classes
            rate = np.where(
                y == own, min(0.9, coverage[i] * accuracy[i] / p[own] / 2), coverage[i] * 0.1 / (1 - p[own])
            )
            votes[:, i] = np.where(rng.random(rows) < rate, own, -1)
        else:
            wrong = (y + rng.integers(1, classes, rows)) % classes
            vote = np.where(rng.random(rows) < accuracy[i], y, wrong)
            votes[:, i] = np.where(rng.random(rows) < coverage[i], vote, -1)
    return votes, y, p


def true_mu(votes: Array, y: Array, classes: int) -> Array:
    """Return the frequency of each vote of each function by class."""
    return np.array(
        [[[(votes[y == c, i] == v).mean() for c in range(classes)] for v in range(classes)] for i in range(FUNCTIONS)]
    )


def accuracies(votes: Array, y: Array) -> Array:
    return np.array([(votes[:, i] == y)[votes[:, i] >= 0].mean() for i in range(votes.shape[1])])


@pytest.mark.parametrize("one_class", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", MODELS)
def test_accuracies_are_learned_from_agreements(kind: type[Any], classes: int, one_class: bool) -> None:
    """Accuracies within .03 and probabilities of votes within .06 in the mean, as of Snorkel's own tests."""
    votes, y, p = votes_of(classes, one_class=one_class)
    model = kind(classes)
    model.fit(votes, class_balance=p)
    assert np.abs(model.get_weights() - accuracies(votes, y)).mean() < 0.03
    found = model.get_conditional_probs()
    assert found.shape == (FUNCTIONS, classes + 1, classes)
    assert (found >= 0).all()
    assert np.abs(found[:, 1:] - true_mu(votes, y, classes)).mean() < 0.06
    assert model.dependencies == ()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("classes", [2, 4])
def test_labels_are_better_than_a_majority(kind: type[Any], classes: int) -> None:
    """By a point and more, on the rows that have a vote; probabilities are calibrated within two points."""
    votes, y, p = votes_of(classes)
    some = (votes >= 0).any(axis=1)
    model = kind(classes)
    model.fit(votes, class_balance=p)
    labels, probs = model.predict(votes, return_probs=True, tie_break_policy="random")
    majority = MajorityLabelVoter(classes).predict(votes, tie_break_policy="random")
    assert (labels == y)[some].mean() > (majority == y)[some].mean() + 0.01
    assert probs.max(axis=1)[some].mean() == pytest.approx((labels == y)[some].mean(), abs=0.02)
    assert probs[~some] == pytest.approx(np.tile(p, (int((~some).sum()), 1)))


@pytest.mark.parametrize("kind", MODELS)
def test_a_label_is_that_of_naive_bayes(kind: type[Any]) -> None:
    """By the rule itself, for a row; what abstains says nothing."""
    votes, _, p = votes_of(3)
    model = kind(3)
    model.fit(votes, class_balance=p)
    given = model.get_conditional_probs()
    for row in votes[:20]:
        expected = p.copy()
        for i, vote in enumerate(row.tolist()):
            if vote >= 0:
                expected = expected * given[i, vote + 1]
        assert model.predict_proba(row[None])[0] == pytest.approx(expected / expected.sum())


@pytest.mark.parametrize("kind", MODELS)
def test_a_duplicate_is_reported_and_has_no_second_vote(kind: type[Any], caplog: pytest.LogCaptureFixture) -> None:
    """Accuracies and labels are those without it."""
    votes, y, p = votes_of(2)
    alone, model = kind(), kind()
    alone.fit(votes, class_balance=p)
    with caplog.at_level(logging.WARNING):
        model.fit(np.column_stack([votes, votes[:, 3]]), class_balance=p)
    (found,) = model.dependencies
    assert (found.first, found.second, found.is_duplicate) == (3, 10, True)
    assert "labeling functions 3 and 10 are duplicates" in caplog.text
    assert np.abs(model.get_weights() - accuracies(np.column_stack([votes, votes[:, 3]]), y)).mean() < 0.03
    both = model.predict_proba(np.column_stack([votes, votes[:, 3]]))
    assert np.abs(both - alone.predict_proba(votes)).mean() < 0.02


@pytest.mark.parametrize("kind", MODELS)
def test_dependent_functions_do_not_spoil_the_others(kind: type[Any], caplog: pytest.LogCaptureFixture) -> None:
    """One that copies another on six rows of ten, and two such pairs, are found; independent ones are not."""
    votes, y, p = votes_of(2, 4)
    rng = np.random.default_rng(3)
    more = [np.where(rng.random(ROWS) < 0.6, votes[:, k], votes[:, k + 1]) for k in (0, 4)]
    every = np.column_stack([votes, *more])
    model = kind()
    with caplog.at_level(logging.WARNING):
        model.fit(every, class_balance=p)
    found = {(each.first, each.second) for each in model.dependencies}
    assert {(0, 10), (4, 11)} <= found <= {(0, 10), (1, 10), (4, 11), (5, 11)}
    assert "depend on each other" in caplog.text
    assert np.abs(model.get_weights() - accuracies(every, y)).mean() < 0.04


def test_given_dependencies_are_left_out() -> None:
    """They take the place of those that are found."""
    votes, _, p = votes_of(2)
    votes = np.column_stack([votes, votes[:, 3]])
    found, given, none = TripletLabelModel(), TripletLabelModel(), TripletLabelModel()
    found.fit(votes, class_balance=p)
    given.fit(votes, class_balance=p, deps=[(10, 3)])
    none.fit(votes, class_balance=p, deps=[])
    assert np.array_equal(found.get_weights(), given.get_weights())
    assert none.get_weights()[3] > found.get_weights()[3] + 0.1
    for pair in ((3, 3), (0, 11), (-1, 2)):
        with pytest.raises(DataError, match="deps must be pairs of different columns from 0 to 10"):
            given.fit(votes, deps=[pair])


@pytest.mark.parametrize("one_class", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_class_balance_is_given_counted_or_estimated(classes: int, one_class: bool) -> None:
    """Equal without any; an estimate is within four points of the true one."""
    votes, y, p = votes_of(classes, 1, one_class=one_class)
    model = LabelModel(classes)
    for balance, dev, expected in (
        (None, None, np.full(classes, 1 / classes)),
        (None, y, np.bincount(y) / ROWS),
        (p * 7, y, p),
    ):
        model.fit(votes, dev, balance)
        assert model.p == pytest.approx(expected)
    model.fit(votes, class_balance="estimated")
    assert model.p == pytest.approx(estimate_class_balance(votes, classes))
    assert model.p == pytest.approx(p, abs=0.04)


@pytest.mark.parametrize("kind", MODELS)
def test_hundreds_of_functions_give_numbers(kind: type[Any]) -> None:
    """Also where a product of probabilities would be 0: functions that vote rarely, and all at once."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    votes = np.where(rng.random((500, 300)) < 0.7, y[:, None], 1 - y[:, None])
    seldom = np.where(rng.random((500, 300)) < 0.1, votes, -1)
    for learned in (votes, seldom):
        model = kind()
        model.fit(learned)
        probs = model.predict_proba(votes)
        assert np.isfinite(probs).all()
        assert (probs.argmax(axis=1) == y).all()


@pytest.mark.parametrize("kind", MODELS)
def test_functions_that_never_meet_are_taken_for_better_than_chance(kind: type[Any]) -> None:
    """Nothing can be learned of them; their votes still count."""
    for functions in (3, 60):
        votes = np.full((100 * functions, functions), -1)
        for i in range(functions):
            votes[100 * i : 100 * i + 100, i] = i % 2
        model = kind()
        model.fit(votes)
        assert model.predict(votes).tolist() == [i // 100 % 2 for i in range(100 * functions)]
        assert np.isfinite(model.get_weights()).all()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", MODELS)
def test_functions_that_vote_on_the_same_rows_are_better_than_chance(kind: type[Any], groups: int) -> None:
    """All on one half of the rows, or three on either half: abstentions that depend on each other turn no sign."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 6_000)
    votes = np.where(rng.random((6_000, 6)) < np.linspace(0.7, 0.9, 6), y[:, None], 1 - y[:, None])
    half = rng.random(6_000) < 0.5
    votes[half, :3] = -1
    votes[half if groups == 1 else ~half, 3:] = -1
    some = (votes >= 0).any(axis=1)
    model = kind()
    model.fit(votes, deps=[])
    labels = model.predict(votes, tie_break_policy="random")
    assert (labels == y)[some].mean() > 0.7
    assert (model.get_conditional_probs() >= 0).all()


@pytest.mark.parametrize("kind", MODELS)
def test_a_function_that_never_votes_has_no_accuracy(kind: type[Any]) -> None:
    """And changes nothing."""
    votes, _, p = votes_of(2, rows=3_000)
    with_silent = np.column_stack([votes, np.full(3_000, -1)])
    alone, model = kind(), kind()
    alone.fit(votes, class_balance=p)
    model.fit(with_silent, class_balance=p)
    assert np.isnan(model.get_weights()[-1])
    assert model.get_weights()[:-1] == pytest.approx(alone.get_weights(), abs=1e-4)
    assert model.predict_proba(with_silent) == pytest.approx(alone.predict_proba(votes), abs=1e-3)


def test_snorkels_options_are_taken() -> None:
    """Without those of its gradient descent the seed has no effect; what is no option is refused."""
    votes, _, p = votes_of(2, rows=2_000)
    first, second = LabelModel(cardinality=2, verbose=True, device="cpu"), LabelModel()
    first.fit(L_train=votes, class_balance=p, n_epochs=500, log_freq=100, seed=123)
    second.fit(votes, class_balance=p)
    assert np.array_equal(first.get_weights(), second.get_weights())
    closed, same = TripletLabelModel(), TripletLabelModel()
    closed.fit(votes, lr=0.01, optimizer="sgd")
    same.fit(votes)
    assert np.array_equal(closed.get_weights(), same.get_weights())
    with pytest.raises(TypeError, match="unexpected keyword argument 'epochs'"):
        first.fit(votes, epochs=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'prec_init'"):
        TripletLabelModel().fit(votes, prec_init=0.7)


def patterned_votes() -> np.ndarray:
    """600 rows of four functions, of which one votes for all rows, without chance."""
    at = np.arange(600)
    y = (at * 7 % 11 < 5).astype(int)
    columns = []
    for k, (wrong, silent) in enumerate([(1, 4), (2, 3), (3, 5), (1, 2)]):
        vote = np.where(at * (2 * k + 3) % 7 < wrong, 1 - y, y)
        columns.append(np.where(at * (k + 5) % 13 < silent, -1, vote))
    return np.column_stack(columns)


@pytest.mark.parametrize(("options", "weights", "probs"), SNORKELS)
def test_options_of_gradient_descent_give_snorkels_model(
    options: dict[str, Any], weights: list[float], probs: list[float]
) -> None:
    """Accuracies and probabilities of the first rows are those of Snorkel 0.10 on the same votes with the same seed."""
    model = LabelModel()
    model.fit(patterned_votes(), seed=3, **options)
    assert model.get_weights() == pytest.approx(weights, abs=2e-5)
    assert model.predict_proba(patterned_votes())[:6, 1] == pytest.approx(probs, abs=2e-5)
    assert model.dependencies == ()


def test_a_descent_has_one_seed_by_default() -> None:
    """Snorkel drew it when it was imported, so that every process had another model."""
    first, second = LabelModel(), LabelModel()
    first.fit(patterned_votes(), lr=0.01)
    second.fit(patterned_votes(), lr=0.01, seed=0)
    assert np.array_equal(first.predict_proba(patterned_votes()), second.predict_proba(patterned_votes()))


@pytest.mark.parametrize("options", [{"lr_scheduler": "linear"}, {"lr_scheduler_config": {"warmup_steps": 5}}])
def test_a_model_is_saved_whatever_its_schedule(options: dict[str, Any], tmp_path: Path) -> None:
    """Snorkel's kept a function of the schedule, which cannot be pickled."""
    model, other = LabelModel(), LabelModel()
    model.fit(patterned_votes(), **options)
    model.save(tmp_path / "labeler")
    other.load(tmp_path / "labeler")
    assert np.array_equal(other.predict_proba(patterned_votes()), model.predict_proba(patterned_votes()))


def test_steps_that_are_too_large_are_told() -> None:
    """A model of infinite numbers is none."""
    with pytest.raises(ModelError, match="Loss is NaN"):
        LabelModel().fit(patterned_votes(), lr=50.0)


def test_a_pull_towards_the_start_keeps_the_start() -> None:
    """A large l2 leaves the accuracies at prec_init."""
    votes, _, _ = votes_of(2, rows=2_000)
    model = LabelModel()
    model.fit(votes, l2=1e6, prec_init=0.8)
    assert model.get_weights() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("votes", "options", "said"),
    [
        (np.zeros((9, 2)), {}, "L_train should have at least 3 labeling functions, got 2"),
        (np.zeros((0, 3)), {}, "has no rows"),
        (np.full((9, 3), 2), {}, "L_train has cardinality 3, cardinality=2"),
        (np.zeros((9, 3)), {"class_balance": [1, 1, 1]}, "class_balance has 3 entries"),
        (np.zeros((9, 3)), {"class_balance": [0, 1]}, r"Class balance prior is 0 for class\(es\) \[0\]"),
        (np.zeros((9, 3)), {"class_balance": [np.nan, 1]}, r"Class balance prior is 0 for class\(es\) \[0\]"),
        (np.zeros((9, 3)), {"Y_dev": [0, 0, -1]}, r"Y_dev has 1 class\(es\)\. Does not match LabelModel cardinality 2"),
        (np.zeros((9, 3)), {"class_balance": "guessed"}, "'estimated' or None, got 'guessed'"),
        (np.zeros((9, 3)), {"Y_dev": [0, 1, 2]}, "Y_dev has cardinality 3, cardinality=2"),
        (np.zeros((9, 3)), {"mu_eps": 0.6}, "mu_eps must be above 0 and below 1 / 2, got 0.6"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(votes: Array, options: dict[str, Any], said: str) -> None:
    """Too few functions or rows, and class balances that are none."""
    with pytest.raises(DataError, match=said):
        LabelModel().fit(votes, **options)


def test_a_class_balance_of_no_rows_is_refused() -> None:
    """There is nothing to estimate it from."""
    with pytest.raises(DataError, match="L has no rows"):
        estimate_class_balance(np.zeros((0, 3)), 2)


def test_a_model_is_fitted_before_it_labels() -> None:
    """And labels the votes of the same functions."""
    model = LabelModel()
    for ask in (lambda: model.predict([[0, 1, 1]]), model.get_weights, model.get_conditional_probs):
        with pytest.raises(ModelError, match="was not fitted yet"):
            ask()
    model.fit(votes_of(2, rows=500)[0])
    with pytest.raises(DataError, match="L has 3 functions, the model was fitted on 10"):
        model.predict([[0, 1, 1]])


def test_functions_may_start_from_accuracies_of_their_own() -> None:
    """An accuracy for each function as an array, a list or a tensor; another number of them is refused."""
    votes, _, _ = votes_of(2, rows=2_000)
    start = np.linspace(0.6, 0.9, votes.shape[1])
    for prec_init in (start, start.tolist(), torch.tensor(start)):
        model = LabelModel()
        model.fit(votes, l2=1e6, prec_init=prec_init)
        assert model.get_weights() == pytest.approx(start, abs=0.01)
    with pytest.raises(DataError, match=rf"prec_init must have shape {votes.shape[1]}, or be one number, got \[2\]"):
        LabelModel().fit(votes, prec_init=[0.6, 0.7])


@pytest.mark.parametrize("options", [{}, {"lr": 0.01}])
def test_chance_of_the_process_stays_as_it_is(options: dict[str, Any]) -> None:
    """Snorkel's model seeds the generators of Python, NumPy and torch, and keeps the votes that it predicts."""
    votes, _, _ = votes_of(2, rows=500)
    drawn = []
    for fitted in (False, True):
        set_seed(5)
        if fitted:
            model = LabelModel()
            model.fit(votes, seed=1, **options)
            before = {name: np.copy(value) for name, value in vars(model).items() if isinstance(value, np.ndarray)}
            model.predict(votes[:10])
            assert all(np.array_equal(value, getattr(model, name)) for name, value in before.items())
        drawn.append((random.random(), np.random.random(), torch.rand(1).item()))  # noqa: NPY002 - the global state
    assert drawn[0] == drawn[1]
