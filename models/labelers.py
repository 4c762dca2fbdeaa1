"""Labelers: one label a row from the votes of labeling functions; and the voters, which learn nothing of them."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.errors import DataError, ModelError
from models.scoring import Scorer, Scores, TieBreak, label_array, probs_to_preds

FloatArray = NDArray[np.float64]
LabelMatrix = NDArray[np.int64]

ABSTAIN = -1

_log = logging.getLogger(__name__)


class BaseLabeler(ABC):
    """Labels rows by the votes of labeling functions.

    Parameters
    ----------
    cardinality
        Number of classes, at least 2.

    Raises
    ------
    DataError
        If there are fewer than two classes.
    """

    _learned: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays that ``save`` writes."""

    def __init__(self, cardinality: int = 2, **_options: Any) -> None:
        if cardinality < 2:
            raise DataError(f"a labeler needs at least 2 classes, got cardinality {cardinality}")
        self.cardinality = int(cardinality)

    @abstractmethod
    def predict_proba(self, L: ArrayLike) -> FloatArray:
        """Return the probabilities of the classes, float64[N, C].

        Parameters
        ----------
        L : int[N, M]
            Votes of M functions, from 0 to C - 1; -1 where a function abstains.
        """

    @overload
    def predict(
        self, L: ArrayLike, return_probs: Literal[False] = False, tie_break_policy: TieBreak = "abstain"
    ) -> NDArray[np.int64]: ...

    @overload
    def predict(
        self, L: ArrayLike, return_probs: Literal[True], tie_break_policy: TieBreak = "abstain"
    ) -> tuple[NDArray[np.int64], FloatArray]: ...

    def predict(
        self, L: ArrayLike, return_probs: bool | None = False, tie_break_policy: TieBreak = "abstain"
    ) -> NDArray[np.int64] | tuple[NDArray[np.int64], FloatArray]:
        """Return the likeliest class of each row, int64[N], and the probabilities if asked for.

        Parameters
        ----------
        L : int[N, M]
            Votes, as of ``predict_proba``.
        return_probs
            Whether to return the probabilities, too.
        tie_break_policy
            Of equally likely classes; as of ``models.scoring.probs_to_preds``.
        """
        probs = self.predict_proba(L)
        preds = probs_to_preds(probs, tie_break_policy)
        return (preds, probs) if return_probs else preds

    def score(
        self,
        L: ArrayLike,
        Y: ArrayLike,
        metrics: Sequence[str] | None = ("accuracy",),
        tie_break_policy: TieBreak = "abstain",
    ) -> Scores:
        """Return metrics of the predicted labels against true ones, int[N]; rows without a label do not count."""
        if tie_break_policy == "abstain":
            _log.warning("metrics are of the rows that get a label; tie_break_policy='random' labels all of them")
        preds, probs = self.predict(L, return_probs=True, tie_break_policy=tie_break_policy)
        return Scorer(metrics=metrics).score(label_array(Y), preds, probs)

    def save(self, destination: str | Path) -> None:
        """Write the learned arrays as safetensors, making the folder where needed."""
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
        about = {"labeler": type(self).__name__, "cardinality": self.cardinality}
        arrays = {name: np.ascontiguousarray(getattr(self, name), np.float64) for name in self._saved()}
        save_file(arrays, str(destination), {"slicewatch": json.dumps(about)})

    def load(self, source: str | Path) -> None:
        """Read a file that ``save`` of the same class wrote.

        Raises
        ------
        ModelError
            If the file is damaged, or of another labeler.
        """
        about: dict[str, Any] = {}
        arrays: dict[str, FloatArray] = {}
        try:
            with safe_open(str(source), "numpy") as file:
                about = json.loads((file.metadata() or {}).get("slicewatch", "{}"))
                arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - no dictionary
            cardinality, kind = int(about["cardinality"]), about["labeler"]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{source} is no saved labeler: {error!r:.100}") from error
        if kind != type(self).__name__ or arrays.keys() - {*self._learned}:
            raise ModelError(f"{source} is of {kind}, not of {type(self).__name__}")
        self.cardinality = cardinality
        for name in self._learned:
            setattr(self, name, arrays.get(name))

    def votes(self, L: ArrayLike, name: str = "L") -> LabelMatrix:
        """Return votes as int64[N, M].

        Raises
        ------
        DataError
            If L is not a matrix of labels from -1 to C - 1.
        """
        votes = np.asarray(L)
        if votes.ndim != 2 or votes.shape[1] == 0:
            raise DataError(f"{name} must be [rows, functions] with at least one function, got {list(votes.shape)}")
        if votes.dtype.kind not in "biuf" or (votes.dtype.kind == "f" and not (votes == np.floor(votes)).all()):
            raise DataError(f"the votes in {name} must be integers")
        if votes.dtype.kind == "f" and not np.isfinite(votes).all():
            raise DataError(f"the votes in {name} must be finite")
        whole = votes.astype(np.int64)
        if whole.size and whole.min() < ABSTAIN:
            raise DataError(f"{name} has the vote {whole.min()}: votes are from 0 on, and -1 abstains")
        if whole.size and whole.max() >= self.cardinality:
            raise DataError(f"{name} has cardinality {whole.max() + 1}, cardinality={self.cardinality} passed in.")
        return whole

    def counts(self, L: ArrayLike) -> FloatArray:
        """Return the votes for each class, float64[N, C]."""
        votes = self.votes(L)
        return np.stack([(votes == label).sum(axis=1) for label in range(self.cardinality)], axis=1).astype(np.float64)

    def _saved(self) -> tuple[str, ...]:
        return tuple(name for name in self._learned if getattr(self, name, None) is not None)


class MajorityLabelVoter(BaseLabeler):
    """The class with the most votes; classes that tie share the probability, and all do where no function votes.

    Examples
    --------
    >>> MajorityLabelVoter().predict_proba([[0, 1, 1], [-1, -1, -1]]).tolist()
    [[0.0, 1.0], [0.5, 0.5]]
    """

    def predict_proba(self, L: ArrayLike) -> FloatArray:
        """Return the probabilities of the classes, float64[N, C]."""
        counts = self.counts(L)
        return _shared(counts == counts.max(axis=1, keepdims=True))


class MajorityClassVoter(BaseLabeler):
    """The most frequent class, whatever the votes.

    Parameters
    ----------
    cardinality
        Number of classes.

    Attributes
    ----------
    balance : float64[C] or None
        Frequencies of the classes; None before ``fit``.
    """

    _learned = ("balance",)
    balance: FloatArray | None = None

    def fit(self, balance: ArrayLike, *_args: Any, **_kwargs: Any) -> None:
        """Set the frequencies of the classes, float[C]; they need not sum to 1."""
        self.balance = np.asarray(balance, np.float64)
        if not np.isfinite(self.balance).all():
            raise DataError(f"the class balance has to be of finite numbers, got {self.balance.tolist()}")
        if self.balance.shape != (self.cardinality,):
            raise DataError(
                f"the class balance has {self.balance.size} entries, the voter has {self.cardinality} classes"
            )

    def predict_proba(self, L: ArrayLike) -> FloatArray:
        """Return the probabilities of the classes, float64[N, C]."""
        if self.balance is None:
            raise ModelError("the voter does not know the frequencies of the classes: call fit(balance) first")
        return np.tile(_shared(self.balance[None] == self.balance.max()), (_n_rows(L), 1))


class RandomVoter(BaseLabeler):
    """Probabilities by chance, whatever the votes: a floor for comparisons.

    Parameters
    ----------
    cardinality
        Number of classes.
    seed
        Every call with the same seed and number of rows returns the same; None for another result each time.
    """

    def __init__(self, cardinality: int = 2, *, seed: int | None = None, **options: Any) -> None:
        super().__init__(cardinality, **options)
        self.seed = seed

    def predict_proba(self, L: ArrayLike) -> FloatArray:
        """Return the probabilities of the classes, float64[N, C]."""
        drawn = np.random.default_rng(self.seed).random((_n_rows(L), self.cardinality))
        return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))


def _n_rows(L: ArrayLike) -> int:
    shape: tuple[int, ...] = np.shape(L)
    if not shape:
        raise DataError(f"L must be [rows, functions], got a {type(L).__name__}")
    return shape[0]


def _shared(likeliest: NDArray[np.bool_]) -> FloatArray:
    """Return equal probabilities of the classes marked in each row."""
    return np.asarray(likeliest / likeliest.sum(axis=1, keepdims=True))
