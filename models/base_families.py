"""Families of base models: rows of a search, choice of settings and prediction out of fold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.batches import FeatureRows, Split
from models.linear_classifier import STRENGTHS, LinearClassifier
from models.model_selection import selection_score
from models.tree_classifier import LARGER_TREES, TREES, BoostedDraft, TreeClassifier, TreeSettings
from sfs.matrix import SliceMatrix

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
T = TypeVar("T")

REACH = 0.05
"""Score that slices may add: a model is not searched further if it lacks more to the best one."""
LARGER_FROM, LARGER_CLASSES = 6_000, 3
"""Rows from which trees are larger and more, and classes up to which: their cost grows with the classes."""
_MOST_TREE_FEATURES, _MOST_TREE_CLASSES = 500, 20
_MOST_WEIGHTS = 10_000_000
LEAST_PROBABILITY = 1e-12
_PATIENCE = 2  # settings without a lower loss


@dataclass(frozen=True, slots=True)
class Rows:
    """Training and validation rows of a search, one after the other; ``X`` are features of all of them.

    Those with a ``weight`` below 1, float64[N], have a label of functions; None if all have true labels.
    """

    X: FeatureRows
    wide: FeatureRows | None
    y: NDArray[np.int64]
    S: SliceMatrix
    groups: NDArray[np.int64]
    n_train: int
    weight: Floats | None = None

    @classmethod
    def of(cls, train: Split, valid: Split) -> Rows:
        """Return the rows of two splits; rows without groups are one each."""
        y = np.concatenate([train.y, valid.y])
        known = train.groups is not None and valid.groups is not None
        groups = np.concatenate([train.groups, valid.groups]) if known else np.arange(len(y))
        valid_S = valid.S.align(train.S.names)
        S = SliceMatrix(
            train.S.names,
            np.concatenate([train.S.member, valid_S.member]),
            np.concatenate([train.S.unknown, valid_S.unknown]),
        )
        wide = None if train.wide is None or valid.wide is None else train.wide.followed_by(valid.wide)
        weight = None if train.weight is None else np.concatenate([train.weight, np.ones(len(valid))])
        return cls(train.X.followed_by(valid.X), wide, y, S, groups, len(train), weight)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows with a true label, bool[N]."""
        return np.ones(len(self.y), np.bool_) if self.weight is None else self.weight == 1

    def subset(self, kept: NDArray[np.bool_]) -> Rows:
        """Return some rows, bool[N]."""
        at, weight = np.flatnonzero(kept), None if self.weight is None else self.weight[kept]
        wide = None if self.wide is None else self.wide.subset(at)
        n_train = int(kept[: self.n_train].sum())
        return Rows(self.X.subset(at), wide, self.y[at], self.S.take(at), self.groups[at], n_train, weight)

    def weight_of(self, positions: Positions) -> Floats | None:
        """Return the weights of some rows; None if all have true labels."""
        return None if self.weight is None else self.weight[positions]

    @property
    def valid(self) -> slice:
        """Positions of the validation rows."""
        return slice(self.n_train, len(self.y))

    def has_two_classes(self, positions: Positions) -> bool:
        """Whether these rows have more than one class."""
        return bool(len(positions)) and bool(np.ptp(self.y[positions]))

    def folds(self, seed: int, most: int) -> Iterator[tuple[Positions, Positions]]:
        """Yield the positions to fit on and to predict, ``most`` times; rows of equal content are in one fold.

        The contents of a class, that of their first row, are dealt to the folds at random, the most frequent first.
        """
        rng = np.random.default_rng(seed)
        _, leaders, group_of, sizes = np.unique(self.groups, return_index=True, return_inverse=True, return_counts=True)
        shuffled = rng.permutation(len(leaders))
        order = shuffled[np.lexsort((-sizes[shuffled], self.y[leaders[shuffled]]))]  # by class, then by size
        n_folds = min(most, len(leaders))
        fold = np.empty(len(leaders), np.int64)
        fold[order] = np.arange(len(leaders)) % n_folds
        of_row = fold[group_of.reshape(-1)]
        for k in range(n_folds):
            yield np.flatnonzero(of_row != k), np.flatnonzero(of_row == k)


class BaseFamily(ABC, Generic[T]):
    """Models of one kind; T are its settings.

    Parameters
    ----------
    num_classes
        C.
    seed
        Of the folds and of the models.
    is_wide
        Whether the features for linear models are read.
    """

    name: str
    plural: str
    n_folds: int

    def __init__(self, num_classes: int, seed: int, is_wide: bool = False) -> None:
        self.num_classes, self.seed, self.is_wide = num_classes, seed, is_wide

    @abstractmethod
    def limit(self, X: FeatureRows) -> str:
        """Return why the family is not searched for these features; empty if it is."""

    @abstractmethod
    def candidates(self, X: FeatureRows, y: NDArray[np.int64], weight: Floats | None = None) -> Iterator[tuple[T, Any]]:
        """Yield settings and models fitted with them, the simplest first."""

    @abstractmethod
    def fit(self, X: FeatureRows, y: NDArray[np.int64], settings: T, weight: Floats | None = None) -> Any:
        """Return the model of settings."""

    def draft(self, X: FeatureRows, y: NDArray[np.int64], settings: T, weight: Floats | None = None) -> Any:
        """Return a model about as good as that of ``fit``, for predictions out of fold."""
        return self.fit(X, y, settings, weight)

    def features(self, rows: Rows | Split) -> FeatureRows:
        """Return the features that are read."""
        return rows.wide if self.is_wide and rows.wide is not None else rows.X

    def cross_fit(self, rows: Rows, rival: Floats | None = None) -> tuple[T, Floats] | None:
        """Return settings, and the probabilities of all rows, float[N, C], each by a model fitted without it.

        The first fold with two classes chooses the settings by its log loss, on true labels if it has any. None if
        nothing can be chosen, or if the score there lacks more than `REACH` to that of ``rival``, probabilities of
        the same rows.
        """
        X, y = self.features(rows), rows.y
        P = np.full((len(y), self.num_classes), LEAST_PROBABILITY)
        settings: T | None = None
        for fitted, held in rows.folds(self.seed, self.n_folds):
            if not len(fitted):
                return None
            if not rows.has_two_classes(fitted):  # all rows of the others are copies of one, and held
                P[held, y[fitted[0]]] = 1
            elif settings is None:
                known = rows.labelled[held]
                true = held[known if known.any() else ~known]
                models = self.candidates(X.subset(fitted), y[fitted], rows.weight_of(fitted))
                settings, model = self._choose(models, X.subset(true), y[true])
                P[held] = model.predict_proba(X.subset(held))
                member = rows.S.member[true]
                own = selection_score(P[true], y[true], member).value
                if rival is not None and own < selection_score(rival[true], y[true], member).value - REACH:
                    return None
            else:
                model = self.draft(X.subset(fitted), y[fitted], settings, rows.weight_of(fitted))
                P[held] = model.predict_proba(X.subset(held))
        return None if settings is None else (settings, P)

    def _choose(self, models: Iterator[tuple[T, Any]], X: FeatureRows, y: NDArray[np.int64]) -> tuple[T, Any]:
        """Return the settings and the model with the lowest log loss on other rows."""
        tried: list[tuple[float, T, Any]] = []
        for settings, model in models:
            tried.append((log_loss(model.predict_proba(X), y), settings, model))
            losses = [loss for loss, *_ in tried]
            if len(losses) - 1 - losses.index(min(losses)) >= _PATIENCE:
                break
        _, settings, model = min(tried, key=lambda trial: trial[0])
        return settings, model


class LinearFamily(BaseFamily[float]):
    """Logistic regression."""

    name, plural, n_folds = "linear", "linear models", 5

    def limit(self, X: FeatureRows) -> str:
        """Return why the weights would be too many for the memory of a training."""
        return _over(X.shape[1] * self.num_classes, _MOST_WEIGHTS, "weights")

    def candidates(
        self, X: FeatureRows, y: NDArray[np.int64], weight: Floats | None = None
    ) -> Iterator[tuple[float, LinearClassifier]]:
        """Yield regressions, the most penalised first."""
        yield from zip(STRENGTHS, LinearClassifier.path(X, y, self.num_classes, STRENGTHS, weight), strict=True)

    def fit(
        self, X: FeatureRows, y: NDArray[np.int64], settings: float, weight: Floats | None = None
    ) -> LinearClassifier:
        """Return the regression of an inverse strength."""
        return LinearClassifier.fit(X, y, self.num_classes, settings, weight)


class TreeFamily(BaseFamily[TreeSettings]):
    """Gradient-boosted trees."""

    name, plural, n_folds = "trees", "trees", 3

    def candidates(
        self, X: FeatureRows, y: NDArray[np.int64], weight: Floats | None = None
    ) -> Iterator[tuple[TreeSettings, BoostedDraft]]:
        """Yield a draft of the settings that suit the number of rows."""
        is_large = len(y) >= LARGER_FROM and self.num_classes <= LARGER_CLASSES
        settings = LARGER_TREES if is_large else TREES
        yield settings, self.draft(X, y, settings, weight)

    def fit(
        self, X: FeatureRows, y: NDArray[np.int64], settings: TreeSettings, weight: Floats | None = None
    ) -> TreeClassifier:
        """Return the trees of settings."""
        return TreeClassifier.fit(X, y, self.num_classes, settings, self.seed, weight)

    def draft(
        self, X: FeatureRows, y: NDArray[np.int64], settings: TreeSettings, weight: Floats | None = None
    ) -> BoostedDraft:
        """Return half as many trees, learned at twice the rate."""
        return BoostedDraft(X, y, self.num_classes, settings.draft, self.seed, weight)

    def limit(self, X: FeatureRows) -> str:
        """Return why the trees would be too many or too slow: so are those on hashed words."""
        read = X.shape[1] - sum(stop - start - 1 for start, stop in X.one_hot)  # a category is one number
        return _over(read, _MOST_TREE_FEATURES, "features") or _over(self.num_classes, _MOST_TREE_CLASSES, "classes")


def _over(number: int, most: int, things: str) -> str:
    return f"{number:,} {things} are more than {most:,}" if number > most else ""


def log_loss(P: Floats, y: NDArray[np.int64]) -> float:
    """Return the mean log loss of probabilities float[N, C]."""
    return float(-np.log(np.maximum(P[np.arange(len(y)), y], LEAST_PROBABILITY)).mean())
