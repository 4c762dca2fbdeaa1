"""Label models: accuracies of labeling functions from their agreements alone, and labels by votes so weighed."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment, minimize
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from scipy.special import softmax

from models.errors import DataError, ModelError
from models.labelers import ABSTAIN, BaseLabeler, FloatArray, LabelMatrix, MajorityLabelVoter
from models.scoring import label_array

ClassBalance = ArrayLike | Literal["estimated"] | None

DEPENDENT, DUPLICATE = 0.3, 0.9
"""Correlations of two functions, given the class, from which they are dependent, and duplicates."""

_LEAST_FUNCTIONS = 3
_SIGNIFICANT = 5.0  # standard errors of a correlation
_BOTH_VOTE = 20  # rows, from which a pair of functions is told dependent
_DENSE = 100  # functions, up to which all eigenvectors are as cheap as one
_EM_STEPS, _EM_TOLERANCE = 200, 1e-6
_FIRST_ACCURACY = 0.7
_OF_DESCENT = {"lr", "optimizer", "optimizer_config", "lr_scheduler", "lr_scheduler_config"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabelDependency:
    """Two labeling functions that agree more, or less, than their accuracies explain.

    Parameters
    ----------
    first, second
        Columns of the functions.
    correlation
        The largest of their votes' correlations, given the class; None for a pair that was given.
    """

    first: int
    second: int
    correlation: float | None

    @property
    def is_duplicate(self) -> bool:
        """Whether each tells the vote of the other; together they then have one vote."""
        return self.correlation is not None and self.correlation >= DUPLICATE


@dataclass(frozen=True, eq=False, slots=True)
class _Events:
    """Shares of rows of the M C events "function i votes l", in this order, of which a function has one at most.

    Parameters
    ----------
    rows
        Number of rows N.
    cardinality
        Number of classes C.
    mean : float64[M C]
        Share of the rows in which an event happens.
    together : float64[M C, M C]
        Share of the rows in which two events of different functions happen; 0 for the same function.
    """

    rows: int
    cardinality: int
    mean: FloatArray
    together: FloatArray

    @classmethod
    def of(cls, votes: LabelMatrix, cardinality: int) -> _Events:
        """Return the events of votes, int64[N, M]."""
        happened = event_matrix(votes, cardinality)
        product = np.asarray((happened.T @ happened).todense(), np.float64) / len(votes)
        together = np.where(_by_events(np.eye(votes.shape[1]), cardinality), 0.0, product)
        return cls(len(votes), cardinality, np.diagonal(product).copy(), together)

    @property
    def functions(self) -> int:
        return len(self.mean) // self.cardinality

    def of_class(self, label: int) -> _Events:
        """Return the events "votes for another class" and "votes for this class"."""
        of_vote = np.zeros((self.cardinality, 2))
        of_vote[:, 0], of_vote[label] = 1, (0, 1)
        joined = np.kron(np.eye(self.functions), of_vote)  # [M C, 2 M]
        return _Events(self.rows, 2, self.mean @ joined, joined.T @ self.together @ joined)

    def both_vote(self) -> FloatArray:
        """Return the number of rows on which two different functions vote, float64[M, M]."""
        blocks = self.together.reshape(self.functions, self.cardinality, self.functions, self.cardinality)
        return np.asarray(self.rows * blocks.sum(axis=(1, 3)))


class _LearnedLabeler(BaseLabeler):
    """Naive Bayes on votes, whose probabilities given the class are learned from the agreements of the functions.

    Attributes
    ----------
    mu : float64[M C, C] or None
        Probability that function i votes l, in row i C + l, given each class; None before ``fit``.
    p : float64[C] or None
        Class balance.
    coverage, vote_weights : float64[M] or None
        Share of the rows on which a function votes; and its weight among its duplicates, 1 without any.
    dependencies
        Pairs of functions that are not independent given the class.
    """

    _learned = ("mu", "p", "coverage", "vote_weights")
    mu: FloatArray | None = None
    p: FloatArray | None = None
    coverage: FloatArray | None = None
    vote_weights: FloatArray | None = None
    dependencies: tuple[LabelDependency, ...] = ()

    def fit(
        self,
        L_train: ArrayLike,
        Y_dev: ArrayLike | None = None,
        class_balance: ClassBalance = None,
        progress_bar: bool = True,
        *,
        deps: Collection[tuple[int, int]] | None = None,
        mu_eps: float | None = None,
        **options: Any,
    ) -> None:
        """Learn from votes.

        Parameters
        ----------
        L_train : int[N, M]
            Votes of at least three functions, from 0 to C - 1; -1 where a function abstains.
        Y_dev : int[D] or None
            True labels of other rows, which are counted for the class balance.
        class_balance : float[C], "estimated" or None
            Frequencies of the classes; estimated from the votes; or None, for those of ``Y_dev``, else equal ones.
        progress_bar
            Of Snorkel; there is none, since fitting usually takes less than a second.
        deps
            Pairs of columns whose agreement is not learned from, and which have a vote each; None for those that
            are found.
        mu_eps
            Least probability in ``mu``; by default .01, or less for many rows.
        **options
            Of `LabelModel`: ``n_epochs``, the most iterations (500) or the steps of a descent (100); ``l2``, a pull to
            the start (0), which a descent applies twice, as Snorkel's; ``prec_init``, the accuracy of all or each of
            the functions there (.7); and those of a descent.

        Raises
        ------
        DataError
            If there are no rows or fewer than three functions, votes are no classes, or the balance is malformed.
        TypeError
            If an option is unknown.
        ConfigError, ModelError
            If an option of gradient descent is out of range, or it diverges.
        """
        if unknown := options.keys() - self._options() - _OF_DESCENT - {"seed", "log_freq"}:
            raise TypeError(f"fit() got an unexpected keyword argument {min(unknown)!r}")
        votes = self.votes(L_train, "L_train")
        if votes.shape[1] < _LEAST_FUNCTIONS:
            raise DataError(f"L_train should have at least {_LEAST_FUNCTIONS} labeling functions, got {votes.shape[1]}")
        if not len(votes):
            raise DataError("L_train has no rows")
        p = self._balance(votes, Y_dev, class_balance)
        eps = mu_eps if mu_eps is not None else min(0.01, 1 / 10 ** np.ceil(np.log10(len(votes))))
        if not 0 < eps < 1 / self.cardinality:
            raise DataError(f"mu_eps must be above 0 and below 1 / {self.cardinality}, got {mu_eps!r}")
        events = _Events.of(votes, self.cardinality)
        if (descends := bool(options.keys() & _OF_DESCENT & self._options())) and deps is None:
            deps = ()
        self.dependencies = tuple(_dependencies(events, p)) if deps is None else _given(deps, events.functions)
        for each in self.dependencies if deps is None else ():
            _log.warning(
                "labeling functions %d and %d %s: correlation %.2f given the class",
                *(each.first, each.second, "are duplicates" if each.is_duplicate else "depend on each other"),
                each.correlation,
            )
        pairs = _allowed(events, [(each.first, each.second) for each in self.dependencies], of_all=descends)
        mu = self._fitted(events, p, pairs, {**options, "eps": eps})
        of_votes = np.clip(mu, eps, 1 - eps).reshape(-1, self.cardinality, self.cardinality)
        of_votes /= np.maximum(of_votes.sum(axis=1, keepdims=True), 1.0)
        self.p, self.mu = p, of_votes.reshape(mu.shape)
        self.coverage = (votes != ABSTAIN).mean(axis=0)
        self.vote_weights = vote_weights(self.dependencies, events.functions)

    def predict_proba(self, L: ArrayLike) -> FloatArray:
        """Return the probabilities of the classes, float64[N, C]; a function that abstains says nothing.

        Raises
        ------
        ModelError, DataError
            Before ``fit``; if the functions are not as many as those of ``fit``.
        """
        mu, p, _, weights = self._known()
        votes = self.votes(L)
        if votes.shape[1] * self.cardinality != len(mu):
            raise DataError(f"L has {votes.shape[1]} functions, the model was fitted on {len(mu) // self.cardinality}")
        evidence = np.log(mu) * np.repeat(weights, self.cardinality)[:, None]
        return np.asarray(softmax(event_matrix(votes, self.cardinality) @ evidence + np.log(p), axis=1))

    def get_conditional_probs(self) -> FloatArray:
        """Return the probability of abstaining (row 0) and of each vote, given each class, float64[M, C + 1, C]."""
        of_votes = self._known()[0].reshape(-1, self.cardinality, self.cardinality)
        return np.concatenate([1 - of_votes.sum(axis=1, keepdims=True), of_votes], axis=1)

    def get_weights(self) -> FloatArray:
        """Return the accuracy of each function where it votes, float64[M]; NaN for one that never does."""
        mu, p, coverage, _ = self._known()
        correct = np.einsum("mcc,c->m", mu.reshape(-1, self.cardinality, self.cardinality), p)
        accuracy = np.divide(correct, coverage, out=np.full_like(correct, np.nan), where=coverage > 0)
        return np.asarray(np.clip(accuracy, 1e-6, 1.0))

    @classmethod
    def _options(cls) -> set[str]:
        """Return the names of the options of ``fit`` beyond the common ones."""
        return set()

    @abstractmethod
    def _fitted(
        self, events: _Events, p: FloatArray, pairs: NDArray[np.bool_], options: Mapping[str, Any]
    ) -> FloatArray:
        """Return ``mu``, learned from these pairs of functions, bool[M, M]."""

    def _known(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return ``mu``, ``p``, ``coverage`` and ``vote_weights``."""
        if self.mu is None or self.p is None or self.coverage is None or self.vote_weights is None:
            raise ModelError("the label model was not fitted yet: call fit(L_train) first")
        return self.mu, self.p, self.coverage, self.vote_weights

    def _balance(self, votes: LabelMatrix, Y_dev: ArrayLike | None, given: ClassBalance) -> FloatArray:
        if isinstance(given, str):
            if given != "estimated":
                raise DataError(f"class_balance must be frequencies, 'estimated' or None, got {given!r}")
            return estimate_class_balance(votes, self.cardinality)
        if given is not None:
            p = np.asarray(given, np.float64)
        elif Y_dev is not None:
            known = self.votes(label_array(Y_dev)[:, None], "Y_dev")
            p = np.bincount(known[known != ABSTAIN], minlength=self.cardinality).astype(np.float64)
            if not p.all():
                found = f"Y_dev has {np.count_nonzero(p)} class(es)"
                raise DataError(f"{found}. Does not match LabelModel cardinality {self.cardinality}.")
        else:
            p = np.ones(self.cardinality)
        if p.shape != (self.cardinality,):
            raise DataError(
                f"class_balance has {p.size} entries. Does not match LabelModel cardinality {self.cardinality}."
            )
        if not np.isfinite(p).all() or (p <= 0).any():
            without = np.flatnonzero(~(np.isfinite(p) & (p > 0))).tolist()
            raise DataError(f"Class balance prior is 0 for class(es) {without}, or no positive number")
        return np.asarray(p / p.sum())


class LabelModel(_LearnedLabeler):
    """Label model by masked matrix factorisation, as in MeTaL and Snorkel.

    If functions are independent given the class, the shares in which two of them vote together are mu P mu', with P
    the class balance on the diagonal. ``mu`` is fitted to all pairs of different functions and to the share of each
    vote, by L-BFGS from better-than-random accuracies: without chance, so that ``seed`` has no effect.

    With ``lr``, ``optimizer``, ``lr_scheduler`` or their options it descends as Snorkel's model does, from a start that
    depends on ``seed``, often not to the optimum. Of dependent functions only those of ``deps`` are then left out.

    Abstentions have to be independent given the class, too: functions that all vote on the same part of the rows
    seem to agree. Pairs that are dependent are found, reported and left out; duplicates have one vote together.

    Parameters
    ----------
    cardinality
        Number of classes, at least 2.
    verbose, device
        Of Snorkel; without effect.

    References
    ----------
    Ratner et al. (2019), Training complex models with multi-task weak supervision, AAAI.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 2_000)
    >>> L = np.where(rng.random((2_000, 4)) < [0.9, 0.8, 0.7, 0.6], y[:, None], 1 - y[:, None])
    >>> model = LabelModel()
    >>> model.fit(L)
    >>> model.get_weights().round(1).tolist()
    [0.9, 0.8, 0.7, 0.6]
    """

    @classmethod
    def _options(cls) -> set[str]:
        return {"n_epochs", "l2", "prec_init", "seed"} | _OF_DESCENT

    def _fitted(
        self, events: _Events, p: FloatArray, pairs: NDArray[np.bool_], options: Mapping[str, Any]
    ) -> FloatArray:
        if options.keys() & _OF_DESCENT:
            return _in_order(_descended(events, p, pairs, options), p)
        shape, eps, l2 = (len(events.mean), len(p)), options["eps"], float(options.get("l2", 0.0))
        first = np.clip(_first_mu(events, p, options.get("prec_init", _FIRST_ACCURACY)), eps, 1 - eps)
        allowed = _by_events(pairs, self.cardinality)
        together = np.where(allowed, events.together, 0.0)

        def loss(flat: FloatArray) -> tuple[float, FloatArray]:
            mu = flat.reshape(shape)
            scaled = mu * p
            error = np.where(allowed, mu @ scaled.T - together, 0.0)
            off = scaled.sum(axis=1) - events.mean
            value = (error**2).sum() + (off**2).sum() + l2 * ((mu - first) ** 2).sum()
            slope = 4 * error @ scaled + 2 * off[:, None] * p + 2 * l2 * (mu - first)
            return float(value), slope.reshape(-1)

        found = minimize(
            loss,
            first.reshape(-1),
            jac=True,
            method="L-BFGS-B",
            bounds=[(eps, 1 - eps)] * first.size,
            options={"maxiter": int(options.get("n_epochs", 500)), "ftol": 1e-14, "gtol": 1e-10},
        )
        return _in_order(found.x.reshape(shape), p)


class TripletLabelModel(_LearnedLabeler):
    """Label model in closed form, by triplets of functions that are independent given the class.

    Of the votes for a class, and for others, by three functions, each covariance is the product of two differences: by
    how much more often a function votes so where the class is the true one. Their squares follow from the covariances
    by least squares over all triplets. Abstentions have to be independent given the class, too. With more than two
    classes each is taken against the rest, as if the functions voted for it equally often on all others.

    Parameters
    ----------
    cardinality
        Number of classes, at least 2.

    References
    ----------
    Fu et al. (2020), Fast and three-rious: speeding up weak supervision with triplet methods, ICML.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 2_000)
    >>> L = np.where(rng.random((2_000, 4)) < [0.9, 0.8, 0.7, 0.6], y[:, None], 1 - y[:, None])
    >>> model = TripletLabelModel()
    >>> model.fit(L)
    >>> model.get_weights().round(1).tolist()
    [0.9, 0.8, 0.7, 0.6]
    """

    def _fitted(
        self, events: _Events, p: FloatArray, pairs: NDArray[np.bool_], options: Mapping[str, Any]
    ) -> FloatArray:
        mu = np.empty((events.functions, self.cardinality, self.cardinality))
        for label in range(self.cardinality):
            own = events.of_class(label)
            more, share = _differences(own, p[label], _of_votes(pairs, own, self.cardinality))[1::2], own.mean[1::2]
            unknown = share * (_FIRST_ACCURACY / p[label] - (1 - _FIRST_ACCURACY) / (1 - p[label]))
            more = np.where(np.isnan(more), unknown, more)
            mu[:, label] = np.maximum(share - p[label] * more, 0.0)[:, None]
            mu[:, label, label] = np.minimum(share + (1 - p[label]) * more, share / p[label])
        return mu.reshape(-1, self.cardinality)


def estimate_class_balance(L: ArrayLike, cardinality: int) -> FloatArray:
    """Return the frequencies of the classes that explain the votes best, float64[C], by expectation maximisation.

    Votes and abstentions are taken for independent given the class, and the start is the majority of the votes; rows
    without a vote count by what abstentions tell.

    Parameters
    ----------
    L : int[N, M]
        Votes from 0 to C - 1; -1 where a function abstains.
    cardinality
        Number of classes C.

    Raises
    ------
    DataError
        If there are no rows, or votes are no classes.

    References
    ----------
    Dawid and Skene (1979), Maximum likelihood estimation of observer error-rates using the EM algorithm, JRSS C 28.
    """
    voter = MajorityLabelVoter(cardinality)
    votes = voter.votes(L)
    if not len(votes):
        raise DataError("L has no rows")
    unique, rows = np.unique(votes, axis=0, return_counts=True)
    happened = event_matrix(np.where(unique == ABSTAIN, cardinality, unique), cardinality + 1)
    counts = voter.counts(unique)
    posterior = (counts + 1 / cardinality) / (counts.sum(axis=1, keepdims=True) + 1)
    p = np.full(cardinality, 1 / cardinality)
    for _ in range(_EM_STEPS):
        weighted = posterior * rows[:, None]
        before, p = p, weighted.sum(axis=0) / rows.sum()
        if np.abs(p - before).max() < _EM_TOLERANCE:
            break
        given = (happened.T @ weighted + 1 / (cardinality + 1)) / (weighted.sum(axis=0) + 1)
        posterior = softmax(happened @ np.log(given) + np.log(np.maximum(p, 1e-12)), axis=1)
    p = np.maximum(p, 1 / (2 * max(len(votes), 1)))
    return np.asarray(p / p.sum())


def event_matrix(votes: LabelMatrix, cardinality: int) -> sparse.csr_array:
    """Return which events "function i votes l" happen in which rows, float64[N, M C]."""
    row, function = np.nonzero(votes != ABSTAIN)
    event = function * cardinality + votes[row, function]
    return sparse.csr_array((np.ones(len(row)), (row, event)), shape=(len(votes), votes.shape[1] * cardinality))


def _by_events(pairs: NDArray[Any], cardinality: int) -> NDArray[np.bool_]:
    """Return pairs of functions, [M, M], as pairs of their events, bool[M C, M C]."""
    return np.asarray(np.kron(pairs, np.ones((cardinality, cardinality))) > 0)


def _first_mu(events: _Events, p: FloatArray, accuracy: ArrayLike) -> FloatArray:
    """Return votes of functions of one accuracy or M, which abstain as often as they do, float64[M C, C]."""
    classes, given = len(p), np.asarray(accuracy, np.float64)
    if given.size not in (1, events.functions):
        raise DataError(f"prec_init must have shape {events.functions}, or be one number, got {list(given.shape)}")
    each = np.repeat(np.broadcast_to(given.reshape(-1), events.functions), classes)[:, None]  # [M C, 1]
    right = np.tile(np.eye(classes, dtype=np.bool_), (events.functions, 1))
    share = np.where(right, each, (1 - each) / (classes - 1))
    return np.asarray(events.mean[:, None] * share / p)


def _descended(events: _Events, p: FloatArray, pairs: NDArray[np.bool_], options: Mapping[str, Any]) -> FloatArray:
    """Return ``mu`` after Snorkel's steps, float64[M C, C]."""
    import torch  # slow to import, and not needed otherwise

    from models.trainer import learning_rate, make_optimizer
    from models.trainer_config import TrainerConfig, merge_config

    given = options.keys() & (_OF_DESCENT | {"n_epochs", "seed", "l2"})
    config = merge_config(TrainerConfig(100, 0.01, optimizer="sgd"), {name: options[name] for name in given})
    config = merge_config(config, {"warmup_steps": config.lr_scheduler_config.steps(config.n_epochs, 1)})
    right = np.tile(np.eye(len(p)), (events.functions, 1))
    start = np.clip(_first_mu(events, p, options.get("prec_init", _FIRST_ACCURACY)) * right, 0, 1)
    allowed = _by_events(pairs, len(p))
    parts = (start, np.where(allowed, events.together, 0.0), allowed, events.mean, p)
    first, together, counted, mean, balance = (torch.tensor(part, dtype=torch.float32) for part in parts)
    mu = torch.nn.Parameter(first * np.random.RandomState(config.seed).random_sample())
    optimizer = make_optimizer([mu], config)
    for epoch in range(config.n_epochs):
        optimizer.param_groups[0]["lr"] = learning_rate(config, epoch, epoch)
        optimizer.zero_grad()
        errors = (mu @ (mu * balance).T - together) * counted, (mu * balance).sum(dim=1) - mean
        loss = torch.stack([(error**2).sum() for error in (*errors, config.l2 * (mu - first))]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if not torch.isfinite(mu).all():
        raise ModelError("Loss is NaN. Terminating training: the label model diverged, lower lr")
    return np.asarray(mu.detach().numpy(), np.float64)


def _differences(events: _Events, p: float, allowed: NDArray[np.bool_]) -> FloatArray:
    """Return by how much likelier the events of a binary view are where its class is true, float64[2 M].

    The square of a difference d_u is the one for which C_uv C_uw = d_u^2 C_vw p (1 - p) holds best over all pairs v, w.
    NaN for an event that is in no triplet.
    """
    covariance = np.where(allowed, events.together - np.outer(events.mean, events.mean), 0.0)
    number = np.einsum("uv,vu->u", covariance @ covariance, covariance)
    weight = np.einsum("uv,vu->u", allowed @ covariance**2, allowed)
    square = np.divide(number, weight, out=np.full_like(number, np.nan), where=weight > 0)
    size = np.sqrt(np.maximum(events.mean * (1 - events.mean), 1e-12))
    return np.asarray(_signs(covariance / np.outer(size, size)) * np.sqrt(np.maximum(square, 0.0) / (p * (1 - p))))


def _signs(correlation: FloatArray) -> FloatArray:
    """Return the signs of the differences, -1, 0 or 1, float64[2 M]; those of a function's two events are opposite.

    They are those of the leading eigenvector of the agreements less the disagreements of functions. Groups of functions
    that never vote on the same row have one each, and most functions of a group are better than chance.
    """
    other, own = slice(0, None, 2), slice(1, None, 2)
    agreement = correlation[own, own] + correlation[other, other] - correlation[own, other] - correlation[other, own]
    direction = np.zeros(len(agreement))
    _, group = connected_components(agreement != 0, directed=False)
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        part = agreement[np.ix_(members, members)]
        if len(members) < _DENSE:
            leading = np.linalg.eigh(part)[1][:, -1]
        else:
            leading = eigsh(part, k=1, which="LA", v0=np.ones(len(part)))[1][:, 0]
        direction[members] = leading if leading.sum() >= 0 else -leading
    return np.asarray(np.sign(np.column_stack([-direction, direction]).reshape(-1)))


def _of_votes(pairs: NDArray[np.bool_], view: _Events, classes: int) -> NDArray[np.bool_]:
    """Return the pairs of events of a binary view, given those of functions, bool[2 M, 2 M].

    The class against the rest explains how a vote for it agrees with any other, but of more than two classes not how
    two votes for others do: these may be for two classes that exclude each other.
    """
    kinds = np.array([[classes == 2, True], [True, True]])
    return np.asarray(np.kron(pairs, kinds) & (np.outer(view.mean, view.mean) > 0))


def dependent_functions(votes: LabelMatrix, p: FloatArray) -> tuple[LabelDependency, ...]:
    """Return the pairs of functions that agree more, or less, than their accuracies explain.

    Parameters
    ----------
    votes : int64[N, M]
        Votes from 0 to C - 1; -1 where a function abstains.
    p : float64[C]
        Class balance.
    """
    return tuple(_dependencies(_Events.of(votes, len(p)), p))


def _dependencies(events: _Events, p: FloatArray) -> Iterator[LabelDependency]:
    """Yield the dependent pairs; those that are most correlated of both functions are left out before others are told.

    A duplicate pulls all others along, so the rest of them is known only without it.
    """
    views = [(events.of_class(label), float(p[label])) for label in range(len(p))]
    views = views[1:] if len(p) == 2 else views
    enough = events.both_vote() >= _BOTH_VOTE
    pairs = _allowed(events)
    for _ in range(events.functions):
        largest = np.zeros(pairs.shape)
        for view, share in views:
            residual = _residual_correlation(view, share, _of_votes(pairs, view, len(p)))
            largest = np.maximum(largest, residual)
        largest = np.where(enough & pairs, largest, 0.0)
        largest[largest < max(DEPENDENT, _SIGNIFICANT / np.sqrt(events.rows))] = 0.0
        most = largest.max(axis=1)
        mutual = np.triu((largest > 0) & (largest == most[:, None]) & (largest == most[None]))
        if not mutual.any():
            return
        for first, second in np.argwhere(mutual).tolist():
            yield LabelDependency(first, second, float(largest[first, second]))
        pairs &= ~(mutual | mutual.T)


def _residual_correlation(events: _Events, p: float, allowed: NDArray[np.bool_]) -> FloatArray:
    """Return the largest correlation of two functions' events that the class leaves unexplained, float64[M, M]."""
    more = _differences(events, p, allowed)
    explained = p * (1 - p) * np.outer(more, more)  # NaN where nothing is known
    variance = np.maximum(events.mean * (1 - events.mean) - np.diag(explained), 1e-12)
    residual = np.where(allowed, events.together - np.outer(events.mean, events.mean) - explained, 0.0)
    correlation = np.nan_to_num(np.abs(residual) / np.sqrt(np.outer(variance, variance)))
    return np.asarray(np.minimum(correlation.reshape(events.functions, 2, events.functions, 2).max(axis=(1, 3)), 1.0))


def _given(deps: Collection[tuple[int, int]], functions: int) -> tuple[LabelDependency, ...]:
    for pair in deps:
        if len({*pair}) != 2 or not all(0 <= each < functions for each in pair):
            raise DataError(f"deps must be pairs of different columns from 0 to {functions - 1}, got {tuple(pair)}")
    return tuple(LabelDependency(min(pair), max(pair), None) for pair in deps)


def _allowed(events: _Events, dependent: Sequence[tuple[int, int]] = (), *, of_all: bool = False) -> NDArray[np.bool_]:
    """Return the pairs of different functions that can be learned from, bool[M, M].

    Those that never vote on the same row may exclude each other, and are among them only if ``of_all``.
    """
    pairs = ~np.eye(events.functions, dtype=np.bool_) & (of_all | (events.both_vote() > 0))
    for first, second in dependent:
        pairs[first, second] = pairs[second, first] = False
    return np.asarray(pairs)


def vote_weights(dependencies: Sequence[LabelDependency], functions: int) -> FloatArray:
    """Return 1 over the number of duplicates of each function, itself among them, float64[M]."""
    same = np.eye(functions)
    for each in dependencies:
        if each.is_duplicate:
            same[each.first, each.second] = same[each.second, each.first] = 1.0
    return np.asarray(1 / same.sum(axis=1))


def _in_order(mu: FloatArray, p: FloatArray) -> FloatArray:
    """Return the columns in the order in which functions are right most often; only classes as frequent can swap."""
    classes = len(p)
    agreement = mu.reshape(-1, classes, classes).sum(axis=0)  # [votes, columns]
    alike = np.isclose(p[:, None], p[None])
    _, columns = linear_sum_assignment(np.where(alike, -agreement, 1e6))
    return mu[:, columns]
