"""Label model for functions that vote for one class: votes and abstentions as evidence, a prior, and labelled rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.special import softmax

from models.errors import DataError, ModelError
from models.label_model import LabelDependency, dependent_functions, event_matrix, vote_weights
from models.labelers import ABSTAIN, BaseLabeler, FloatArray, LabelMatrix

_STEPS, _TOLERANCE = 200, 1e-6
_LEAST = 1e-6  # probability of a vote


class DawidSkeneLabelModel(BaseLabeler):
    """Dawid and Skene's model of votes and abstentions, with a prior, fitted by expectation maximisation.

    The votes of a function, and its abstentions, are independent of those of others given the class. Functions that
    share their words are not, and agree with each other more than with the class. Hence nothing is learned from
    agreements alone beyond a limit: rows without a label weigh together as much as the prior, and every labelled row
    counts as one. The prior takes every function for equally accurate where it votes.

    A keyword that votes for one class says something where it abstains, too: `LabelModel` and `TripletLabelModel`,
    which follow Snorkel, ignore it.

    Parameters
    ----------
    cardinality
        Number of classes C, at least 2.
    prior_accuracy
        Accuracy of every function where it votes, above 1 / C and below 1.
    prior_rows
        Rows of each class by which the prior counts, above 0.

    Attributes
    ----------
    conditional : float64[M (C + 1), C] or None
        Probability that function i votes l, in row i (C + 1) + l, or abstains (l = C), given each class; None before
        ``fit``.
    p : float64[C] or None
        Class balance.
    vote_weights : float64[M] or None
        Weight of each function among its duplicates, 1 without any.
    dependencies
        Pairs of functions that are not independent given the class.

    Raises
    ------
    DataError
        If an argument is out of range.

    References
    ----------
    Dawid and Skene (1979), Maximum likelihood estimation of observer error-rates using the EM algorithm, JRSS C 28.
    Nigam et al. (2000), Text classification from labeled and unlabeled documents using EM, Machine Learning 39: the
    weight of rows without a label.

    Examples
    --------
    >>> L = [[1, -1, -1], [1, 1, -1], [-1, -1, 0], [-1, -1, 0], [-1, -1, -1]] * 20
    >>> model = DawidSkeneLabelModel()
    >>> model.fit(L)
    >>> model.predict(L[:4]).tolist()
    [1, 1, 0, 0]
    """

    _learned = ("conditional", "p", "vote_weights")
    conditional: FloatArray | None = None
    p: FloatArray | None = None
    vote_weights: FloatArray | None = None
    dependencies: tuple[LabelDependency, ...] = ()

    def __init__(self, cardinality: int = 2, *, prior_accuracy: float = 0.9, prior_rows: float = 10.0) -> None:
        super().__init__(cardinality)
        if not 1 / cardinality < prior_accuracy < 1:
            raise DataError(f"prior_accuracy must be above 1 / {cardinality} and below 1, got {prior_accuracy!r}")
        if not 0 < prior_rows < np.inf:
            raise DataError(f"prior_rows must be above 0, got {prior_rows!r}")
        self.prior_accuracy, self.prior_rows = prior_accuracy, prior_rows

    def fit(
        self, L_train: ArrayLike, Y_train: ArrayLike | None = None, *, class_balance: ArrayLike | None = None
    ) -> None:
        """Learn from votes, and from the labels of some of the rows.

        Parameters
        ----------
        L_train : int[N, M]
            Votes of M functions, from 0 to C - 1; -1 where a function abstains.
        Y_train : int[N] or None
            True labels of the same rows; -1 where unknown.
        class_balance : float[C] or None
            Frequencies of the classes; None for those of ``Y_train`` with one more row of each class, or equal ones.

        Raises
        ------
        DataError
            If there are no rows, votes or labels are no classes, or the class balance is malformed.
        """
        votes = self.votes(L_train, "L_train")
        if not len(votes):
            raise DataError("L_train has no rows")
        truth = self._truth(Y_train, len(votes))
        known = truth != ABSTAIN
        p = self._balance(truth[known], class_balance)
        self.dependencies = dependent_functions(votes, p)
        weights = vote_weights(self.dependencies, votes.shape[1])
        # Equal rows are one, with its number; labelled rows are counted, and stay as they are.
        patterns, rows = np.unique(votes[~known], axis=0, return_counts=True)
        unlabelled, labelled = self._events(patterns), self._events(votes[known])
        of_class = np.eye(self.cardinality)[truth[known]]
        counted, labelled_rows = labelled.T @ of_class, of_class.sum(axis=0)  # [M (C + 1), C], [C]
        limit = self.prior_rows * self.cardinality / max(int(rows.sum()), 1)
        prior = self._prior(votes, p)
        fixed, fixed_rows = counted + self.prior_rows * prior, labelled_rows + self.prior_rows
        conditional = fixed / fixed_rows
        for _ in range(_STEPS if len(patterns) else 0):
            posterior = self._posterior(unlabelled, conditional, p, weights) * (min(limit, 1.0) * rows[:, None])
            before, conditional = conditional, (fixed + unlabelled.T @ posterior) / (fixed_rows + posterior.sum(axis=0))
            if np.abs(conditional - before).max() < _TOLERANCE:
                break
        self.conditional, self.p, self.vote_weights = np.asarray(conditional), p, weights

    def predict_proba(self, L: ArrayLike) -> FloatArray:
        """Return the probabilities of the classes, float64[N, C]; also of a row without a vote.

        Raises
        ------
        ModelError
            Before ``fit``.
        DataError
            If the functions are not as many as those of ``fit``.
        """
        conditional, p, weights = self._known()
        votes = self.votes(L)
        if votes.shape[1] != len(weights):
            raise DataError(f"L has {votes.shape[1]} functions, the model was fitted on {len(weights)}")
        return self._posterior(self._events(votes), conditional, p, weights)

    def get_conditional_probs(self) -> FloatArray:
        """Return the probability of abstaining (row 0) and of each vote, given each class, float64[M, C + 1, C]."""
        conditional, *_ = self._known()
        return np.roll(conditional.reshape(-1, self.cardinality + 1, self.cardinality), 1, axis=1)

    def get_weights(self) -> FloatArray:
        """Return the accuracy of each function where it votes, float64[M]."""
        _, p, _ = self._known()
        joint = self.get_conditional_probs()[:, 1:] * p  # [M, C, C]
        return np.asarray(np.einsum("mcc->m", joint) / np.maximum(joint.sum(axis=(1, 2)), _LEAST))

    def _known(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        if self.conditional is None or self.p is None or self.vote_weights is None:
            raise ModelError("the label model was not fitted yet: call fit(L_train) first")
        return self.conditional, self.p, self.vote_weights

    def _events(self, votes: LabelMatrix) -> sparse.csr_array:
        """Return which votes and abstentions happen, sparse float64[N, M (C + 1)]."""
        return event_matrix(np.where(votes == ABSTAIN, self.cardinality, votes), self.cardinality + 1)

    def _posterior(
        self, events: sparse.csr_array, conditional: FloatArray, p: FloatArray, weights: FloatArray
    ) -> FloatArray:
        evidence = np.log(np.maximum(conditional, _LEAST)) * np.repeat(weights, self.cardinality + 1)[:, None]
        return np.asarray(softmax(events @ evidence + np.log(p), axis=1))

    def _prior(self, votes: LabelMatrix, p: FloatArray) -> FloatArray:
        """Return votes of functions that are all as accurate, and vote as often as they do, float64[M (C + 1), C]."""
        C = self.cardinality
        share = np.stack([(votes == label).mean(axis=0) for label in range(C)], axis=1)  # [M, C]
        right = np.where(np.eye(C, dtype=np.bool_), self.prior_accuracy, (1 - self.prior_accuracy) / (C - 1))
        prior = np.empty((len(share), C + 1, C))
        prior[:, :C] = share[:, :, None] * right / p
        prior[:, :C] /= np.maximum(prior[:, :C].sum(axis=1, keepdims=True) / 0.99, 1)
        prior[:, C] = 1 - prior[:, :C].sum(axis=1)
        return prior.reshape(-1, C)

    def _truth(self, Y_train: ArrayLike | None, rows: int) -> NDArray[np.int64]:
        if Y_train is None:
            return np.full(rows, ABSTAIN)
        truth = np.asarray(Y_train)
        if truth.shape != (rows,):
            raise DataError(f"Y_train must have the {rows} rows of L_train, got shape {list(truth.shape)}")
        return self.votes(truth[:, None], "Y_train")[:, 0]

    def _balance(self, truth: NDArray[np.int64], given: ArrayLike | None) -> FloatArray:
        if given is None:
            counts = np.bincount(truth, minlength=self.cardinality) + 1.0
            return np.asarray(counts / counts.sum())
        p = np.asarray(given, np.float64)
        if p.shape != (self.cardinality,) or not (np.isfinite(p) & (p > 0)).all():
            raise DataError(f"class_balance must be {self.cardinality} frequencies above 0, got {p.tolist()}")
        return np.asarray(p / p.sum())
