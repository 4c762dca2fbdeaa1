"""Linear and tree models as bases of a slice adapter: choice of their settings, and an honest score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from models.batches import FeatureRows, Split
from models.linear_classifier import STRENGTHS, LinearClassifier
from models.model_selection import MIN_GAIN, SelectionScore, selection_score
from models.refit import two_halves
from models.slice_adapter import PENALTIES, AdapterTerms, SliceAdapter
from models.slice_residual import MAX_UNGATED, gate_threshold
from models.tree_classifier import SETTINGS, TreeClassifier, TreeSettings
from sfs.matrix import SliceMatrix

Floats = NDArray[np.float64]
T = TypeVar("T")

FOLDS = 4
_MIDDLE_PENALTY = PENALTIES[1]
_MOST_TREE_FEATURES, _MOST_TREE_CLASSES = 500, 20
_MOST_WEIGHTS = 10_000_000
_LEAST_PROBABILITY = 1e-12
_PATIENCE = 2  # strengths without a lower loss


@dataclass(frozen=True, slots=True)
class BaseResult:
    """A base model with or without slices, fitted on training and validation rows.

    Parameters
    ----------
    family
        ``linear`` or ``trees``.
    model
        A slice adapter on the base, or the base itself if slices give no gain.
    kept
        Slices that change its logits.
    score, plain_score
        Scores of the model and of its base on validation rows, by bases and adapters fitted without them.
    is_wide
        Whether it reads the features for linear models.
    """

    family: str
    model: LinearClassifier | TreeClassifier | SliceAdapter
    kept: tuple[str, ...]
    score: SelectionScore
    plain_score: SelectionScore
    is_wide: bool

    @property
    def form(self) -> str:
        """The model in a few words."""
        if not self.kept:
            return self.family
        return f"{self.family}, {len(self.kept)} slice{'s' * (len(self.kept) > 1)} adapted"


@dataclass(frozen=True, slots=True)
class Rows:
    """Training and validation rows, one after the other; ``X`` is of all of them."""

    X: FeatureRows
    y: NDArray[np.int64]
    S: SliceMatrix
    groups: NDArray[np.int64]
    n_train: int

    @classmethod
    def of(cls, train: Split, valid: Split, X: FeatureRows) -> Rows:
        """Return the rows of two splits, with these features; rows without groups are one each."""
        y = np.concatenate([train.y, valid.y])
        known = train.groups is not None and valid.groups is not None
        groups = np.concatenate([train.groups, valid.groups]) if known else np.arange(len(y))
        valid_S = valid.S.align(train.S.names)
        S = SliceMatrix(
            train.S.names,
            np.concatenate([train.S.member, valid_S.member]),
            np.concatenate([train.S.unknown, valid_S.unknown]),
        )
        return cls(X, y, S, groups, len(train))

    @property
    def valid(self) -> slice:
        """Positions of the validation rows."""
        return slice(self.n_train, len(self.y))

    def has_two_classes(self, positions: NDArray[np.int64] | slice) -> bool:
        """Whether these rows have more than one class."""
        return bool(np.ptp(self.y[positions]))

    def folds(self, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the positions to fit on and to predict; rows of equal content are in one fold.

        The contents of a class, that of their first row, are dealt to the folds at random, the most frequent first.
        """
        rng = np.random.default_rng(seed)
        _, leaders, group_of, sizes = np.unique(self.groups, return_index=True, return_inverse=True, return_counts=True)
        shuffled = rng.permutation(len(leaders))
        order = shuffled[np.lexsort((-sizes[shuffled], self.y[leaders[shuffled]]))]  # by class, then by size
        n_folds = min(FOLDS, len(leaders))
        fold = np.empty(len(leaders), np.int64)
        fold[order] = np.arange(len(leaders)) % n_folds
        of_row = fold[group_of.reshape(-1)]
        for k in range(n_folds):
            yield np.flatnonzero(of_row != k), np.flatnonzero(of_row == k)


class BaseFamily(ABC, Generic[T]):
    """Models of one kind; T are its settings."""

    name: str
    plural: str
    is_wide = False

    def __init__(self, num_classes: int, seed: int) -> None:
        self.num_classes, self.seed = num_classes, seed

    @abstractmethod
    def limit(self, X: FeatureRows) -> str:
        """Return why the family is not searched for these features; empty if it is."""

    @abstractmethod
    def candidates(self, X: FeatureRows, y: NDArray[np.int64]) -> Iterator[tuple[T, Any]]:
        """Yield settings and models fitted with them, the simplest first."""

    @abstractmethod
    def fit(self, X: FeatureRows, y: NDArray[np.int64], settings: T) -> Any:
        """Return the model of settings."""

    def choose(self, rows: Rows) -> tuple[T, SelectionScore]:
        """Return the settings with the lowest log loss on validation rows, fitted on training rows; and their score."""
        train, valid = np.arange(rows.n_train), np.arange(rows.n_train, len(rows.y))
        X, y = rows.X.subset(valid), rows.y[valid]
        tried: list[tuple[float, T, Floats]] = []
        for settings, model in self.candidates(rows.X.subset(train), rows.y[train]):
            P = model.predict_proba(X)
            tried.append((log_loss(P, y), settings, P))
            losses = [loss for loss, *_ in tried]
            if len(losses) - 1 - losses.index(min(losses)) >= _PATIENCE:
                break
        _, settings, P = min(tried, key=lambda trial: trial[0])
        return settings, selection_score(P, y, rows.S.member[rows.valid])

    def out_of_fold(self, rows: Rows, settings: T) -> Floats:
        """Return the probabilities of all rows, float[N, C], each by a model fitted without it and its copies."""
        P = np.full((len(rows.y), self.num_classes), _LEAST_PROBABILITY)
        for fitted, held in rows.folds(self.seed):
            if not rows.has_two_classes(fitted):  # all rows of the others are copies of one, and held
                P[held, rows.y[fitted[0]]] = 1
            else:
                model = self.fit(rows.X.subset(fitted), rows.y[fitted], settings)
                P[held] = model.predict_proba(rows.X.subset(held))
        return P


class LinearFamily(BaseFamily[float]):
    """Logistic regression."""

    name, plural, is_wide = "linear", "linear models", True

    def limit(self, X: FeatureRows) -> str:
        """Return why the weights would be too many for the memory of a training."""
        return _over(X.shape[1] * self.num_classes, _MOST_WEIGHTS, "weights")

    def candidates(self, X: FeatureRows, y: NDArray[np.int64]) -> Iterator[tuple[float, LinearClassifier]]:
        """Yield regressions, the most penalised first."""
        yield from zip(STRENGTHS, LinearClassifier.path(X, y, self.num_classes, STRENGTHS), strict=True)

    def fit(self, X: FeatureRows, y: NDArray[np.int64], settings: float) -> LinearClassifier:
        """Return the regression of an inverse strength."""
        return LinearClassifier.fit(X, y, self.num_classes, settings)


class TreeFamily(BaseFamily[TreeSettings]):
    """Gradient-boosted trees."""

    name = plural = "trees"

    def candidates(self, X: FeatureRows, y: NDArray[np.int64]) -> Iterator[tuple[TreeSettings, TreeClassifier]]:
        """Yield the trees of all settings."""
        for settings in SETTINGS:
            yield settings, self.fit(X, y, settings)

    def fit(self, X: FeatureRows, y: NDArray[np.int64], settings: TreeSettings) -> TreeClassifier:
        """Return the trees of settings."""
        return TreeClassifier.fit(X, y, self.num_classes, settings, self.seed)

    def limit(self, X: FeatureRows) -> str:
        """Return why the trees would be too many or too slow: so are those on hashed words."""
        return _over(X.shape[1], _MOST_TREE_FEATURES, "features") or _over(
            self.num_classes, _MOST_TREE_CLASSES, "classes"
        )


def fit_base(
    family: BaseFamily[T],
    search: Rows,
    whole: Callable[[], Rows],
    on_stage: Callable[[str, float], None],
    worth: float = -np.inf,
) -> BaseResult | None:
    """Return the best model of a family; None if its score without slices is below ``worth``, or nothing can be chosen.

    Settings, slices and penalties are chosen on ``search``; the base is then fitted on the rows of ``whole``, of which
    ``search`` may be a sample. ``on_stage`` is called with the stage and the completed share.
    """
    if not search.has_two_classes(slice(search.n_train)) or np.ptp(search.groups) == 0:
        return None  # a sample without the rare class, or one content
    on_stage(f"choosing {family.name} models", 0.0)
    settings, score = family.choose(search)
    if score.value < worth:
        return None
    on_stage(f"cross-fitting {family.name} models", 0.4)
    P = family.out_of_fold(search, settings)
    base = centred_logits(P)
    y, S, valid = search.y, search.S, search.valid
    plain = selection_score(P[valid], y[valid], S.member[valid])
    fitted = _fit_terms(search, base, family.seed)
    on_stage(f"fitting the {family.name} model on all rows", 0.9)
    rows = whole()
    model = family.fit(rows.X, rows.y, settings)
    if fitted is None:
        return BaseResult(family.name, model, (), plain, plain, family.is_wide)
    kept, terms, adapted = fitted
    adapter = SliceAdapter(model, S.names, kept)
    adapter.set_terms(terms.slope, terms.offset)
    own = selection_score(adapted[valid], y[valid], S.member[valid])
    return BaseResult(family.name, adapter, kept, own, plain, family.is_wide)


def _fit_terms(rows: Rows, base: Floats, seed: int) -> tuple[tuple[str, ...], AdapterTerms, Floats] | None:
    """Return the slices that change logits, their terms, and the cross-fitted probabilities; None without a gain."""
    y, names = rows.y, np.array(rows.S.names, dtype=object)
    if not len(names):
        return None
    halves = two_halves(y, np.random.default_rng(seed), rows.groups)
    known = ~rows.S.unknown
    member = rows.S.member & known

    def gate(fitted: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the slices whose terms lower the log loss of other rows by more than chance, bool[K]."""
        if len(names) <= MAX_UNGATED:
            return np.ones(len(names), np.bool_)
        gains, squares = np.zeros((2, len(names)))
        for own, held in ((fitted, other), (other, fitted)):
            terms = AdapterTerms(base[own], member[own], y[own], _MIDDLE_PENALTY)
            gain, error = terms.gains(base[held], member[held], y[held])
            gains, squares = gains + gain, squares + error**2
        return np.asarray(gains > gate_threshold(len(names)) * np.sqrt(squares))

    quarters = np.random.default_rng(seed).random(len(y)) < 0.5  # halves of the rows that a half is scored by
    gates = {True: gate(halves & quarters, halves & ~quarters), False: gate(~halves & quarters, ~halves & ~quarters)}

    def cross_fitted(penalty: float) -> Floats:
        P = np.empty(base.shape)
        for side, half in ((False, halves), (True, ~halves)):  # the gate and the terms are those of the other half
            inside = _whole_rows(member, known, gates[side])
            terms = AdapterTerms(base[~half], inside[~half], y[~half], penalty)
            P[half] = softmax(terms.logits(base[half], inside[half]), axis=1)
        return P

    keep = gate(halves, ~halves)
    best, score = None, selection_score(softmax(base, axis=1), y, rows.S.member).value + MIN_GAIN
    for penalty in PENALTIES if keep.any() else ():
        P = cross_fitted(penalty)
        found = selection_score(P, y, rows.S.member).value
        if found > score:
            best, score = (penalty, P), found
    if best is None:
        return None
    penalty, P = best
    valid = rows.valid
    own, plain = (selection_score(each[valid], y[valid], rows.S.member[valid]).value for each in (P, softmax(base, 1)))
    if own < plain + MIN_GAIN:
        return None
    inside = _whole_rows(member, known, keep)
    return tuple(names[keep].tolist()), AdapterTerms(base, inside, y, penalty), P


def _whole_rows(member: NDArray[np.bool_], known: NDArray[np.bool_], keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the members of the kept slices, bool[N, J]; none in a row with an unknown one, as at serving."""
    return np.asarray(member[:, keep] & known[:, keep].all(axis=1, keepdims=True))


def _over(number: int, most: int, things: str) -> str:
    return f"{number:,} {things} are more than {most:,}" if number > most else ""


def centred_logits(P: Floats) -> Floats:
    """Return logits float[N, C] of probabilities, with a sum of 0 over the classes."""
    logits = np.log(np.maximum(P, _LEAST_PROBABILITY))
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def log_loss(P: Floats, y: NDArray[np.int64]) -> float:
    """Return the mean log loss of probabilities float[N, C]."""
    return float(-np.log(np.maximum(P[np.arange(len(y)), y], _LEAST_PROBABILITY)).mean())
