"""Peers of the learner behind one interface: networks without memberships at serving, written from the papers.

A peer has a name and ``fit(train, valid, num_classes, seed)``, which returns a model with ``predict_proba(X, S)``. It
trains at least 15 networks, the most that the search for the slice-residual network trains, and chooses checkpoint and
setting on validation rows by the score of the product, of which the worst slice is half; worst-class selection by its
own. Peers that refit a last layer start from the networks of ERM, and search 15 last layers beside. What was trained
without memberships is kept for the next fit on the same rows, whose memberships may differ.
"""

from __future__ import annotations

from itertools import product
from typing import Generic, Protocol, TypeVar

import numpy as np
from network_stack import Checkpoints, GroupWeights, RowWeights, StackTraining, WorstClass, WorstSlice
from numpy.typing import NDArray

from models.baselines import PlainClassifier
from models.batches import FeatureRows, Split
from models.config import LearnerConfig
from models.model_selection import CandidateSpec, TrainingTask, train_candidate
from models.objectives import WEIGHTINGS, row_weights
from sfs.matrix import SliceMatrix

RATES = (1.0, 1 / 3, 3.0)
"""Factors of the rate of the recipe."""
PENALTIES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
"""L2 penalties; the first setting of a grid is the recipe as it is."""

Floats = NDArray[np.float64]
T = TypeVar("T")


class Predictor(Protocol):
    """A fitted model."""

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> Floats:
        """Return float[N, C]."""
        ...


class Peer(Protocol):
    """A method with its search."""

    name: str

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> Predictor:
        """Return the model that is best on validation rows."""
        ...


class LastTraining(Generic[T]):
    """What was trained last, for as long as features, labels and seed are the same."""

    def __init__(self) -> None:
        self._rows: tuple[Split, Split, int] | None = None
        self._trained: T | None = None

    def get(self, train: Split, valid: Split, seed: int) -> T | None:
        """Return what was trained on these rows with this seed."""
        if self._rows is None:
            return None
        before, before_valid, before_seed = self._rows
        same = before.X is train.X and before.y is train.y and before_valid.X is valid.X and before_seed == seed
        return self._trained if same else None

    def put(self, train: Split, valid: Split, seed: int, trained: T) -> T:
        """Keep what was trained."""
        self._rows, self._trained = (train, valid, seed), trained
        return trained


class ErmGrid:
    """The 15 networks of empirical risk minimisation, three rates by five L2 penalties, for all that start from them.

    Parameters
    ----------
    recipe
        The recipe of a set-up.
    """

    def __init__(self, recipe: LearnerConfig) -> None:
        self.recipe = recipe
        self._last: LastTraining[Checkpoints] = LastTraining()

    def early_epochs(self) -> list[int]:
        """Return three early epochs: after a twelfth, a quarter and half of the training, at least one each."""
        return [max(1, self.recipe.n_epochs // part) for part in (12, 4, 2)]

    def trained(self, train: Split, valid: Split, num_classes: int, seed: int) -> Checkpoints:
        """Return the checkpoints."""
        if (found := self._last.get(train, valid, seed)) is not None:
            return found
        rates, penalties = zip(*product(RATES, PENALTIES), strict=True)
        training = StackTraining(self.recipe, num_classes, rates, penalties, seed)
        equal = RowWeights(np.ones((len(rates), len(train))))
        return self._last.put(train, valid, seed, training.run(train, valid, equal, self.early_epochs()))


class Erm:
    """Empirical risk minimisation."""

    name = "ERM"

    def __init__(self, grid: ErmGrid) -> None:
        self.grid = grid

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the network with the best score."""
        return self.grid.trained(train, valid, num_classes, seed).best(WorstSlice(valid)).network


class WorstClassSelection:
    """ERM, of which checkpoint and setting are chosen by the accuracy of the worst class alone.

    References
    ----------
    Yang, Zhang, Katabi and Ghassemi. Change is Hard: A Closer Look at Subpopulation Shift. ICML 2023.
    """

    name = "worst-class selection"

    def __init__(self, grid: ErmGrid) -> None:
        self.grid = grid

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the network with the best worst class."""
        return self.grid.trained(train, valid, num_classes, seed).best(WorstClass(valid)).network


class WeightedErm:
    """ERM with rows weighted by their slices: three rates by the five weightings of the product."""

    name = "weighted ERM"

    def __init__(self, recipe: LearnerConfig) -> None:
        self.recipe = recipe

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the network with the best score."""
        rates, weightings = zip(*product(RATES, WEIGHTINGS), strict=True)
        weights = {each: row_weights(each, train.y, train.S.member) for each in WEIGHTINGS}
        loss = RowWeights(np.stack([weights[each] for each in weightings]))
        training = StackTraining(self.recipe, num_classes, rates, [0.0] * len(rates), seed)
        return training.run(train, valid, loss).best(WorstSlice(valid)).network


class GroupDRO:
    """GroupDRO over slices and the rows of none, or over these by class: five step sizes by three forms.

    The third form is by class with an L2 penalty, since the paper finds that GroupDRO needs one.

    References
    ----------
    Sagawa, Koh, Hashimoto and Liang. Distributionally Robust Neural Networks for Group Shifts. ICLR 2020.
    """

    name = "GroupDRO"
    step_sizes = (0.01, 0.001, 0.03, 0.1, 0.3)
    penalty = 0.01

    def __init__(self, recipe: LearnerConfig) -> None:
        self.recipe = recipe

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the network with the best score."""
        slices = np.column_stack([train.S.member, ~train.S.member.any(axis=1)])
        slices = slices[:, slices.any(axis=0)]
        cells = np.column_stack([slices & (train.y == c)[:, None] for c in range(num_classes)])
        groups = np.column_stack([slices, cells[:, cells.any(axis=0)]])
        of_slices = np.arange(groups.shape[1]) < slices.shape[1]
        forms = ((of_slices, 0.0), (~of_slices, 0.0), (~of_slices, self.penalty))
        settings = [(used, step, l2) for used, l2 in forms for step in self.step_sizes]
        loss = GroupWeights(groups, np.stack([used for used, *_ in settings]), [step for _, step, _ in settings])
        penalties = [l2 for *_, l2 in settings]
        training = StackTraining(self.recipe, num_classes, [1.0] * len(settings), penalties, seed)
        return training.run(train, valid, loss).best(WorstSlice(valid)).network


class JustTrainTwice:
    """ERM with a larger weight on training rows that an early network predicts wrongly: three epochs by five weights.

    References
    ----------
    Liu, Haghgoo, Chen, Raghunathan, Koh, Sagawa, Liang and Finn. Just Train Twice. ICML 2021.
    """

    name = "JTT"
    factors = (4.0, 2.0, 10.0, 20.0, 50.0)

    def __init__(self, recipe: LearnerConfig, grid: ErmGrid) -> None:
        self.recipe, self.grid = recipe, grid
        self._last: LastTraining[Checkpoints] = LastTraining()

    def trained(self, train: Split, valid: Split, num_classes: int, seed: int) -> Checkpoints:
        """Return the checkpoints."""
        if (found := self._last.get(train, valid, seed)) is not None:
            return found
        first = self.grid.trained(train, valid, num_classes, seed)
        rows = []
        for epoch in self.grid.early_epochs():
            wrong = first.network(epoch).predict_proba(train.X).argmax(axis=1) != train.y
            rows += [error_weights(wrong, factor) for factor in self.factors]
        training = StackTraining(self.recipe, num_classes, [1.0] * len(rows), [0.0] * len(rows), seed)
        return self._last.put(train, valid, seed, training.run(train, valid, RowWeights(np.stack(rows))))

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the network with the best score."""
        return self.trained(train, valid, num_classes, seed).best(WorstSlice(valid)).network


def error_weights(wrong: NDArray[np.bool_], factor: float) -> Floats:
    """Return float[N] with mean 1: the rows ``wrong`` count ``factor`` times, as if they were there so often."""
    weights = np.where(wrong, factor, 1.0)
    return np.asarray(weights / weights.mean())


class Deeper:
    """ERM with one or two further layers, as wide as the widest: two rates by four L2 penalties each."""

    name = "deeper plain nets"
    layers = (1, 2)

    def __init__(self, recipe: LearnerConfig) -> None:
        self.recipe = recipe
        self._last: LastTraining[list[Checkpoints]] = LastTraining()

    def trained(self, train: Split, valid: Split, num_classes: int, seed: int) -> list[Checkpoints]:
        """Return the checkpoints of each depth."""
        if (found := self._last.get(train, valid, seed)) is not None:
            return found
        rates, penalties = zip(*product(RATES[:2], (0.0, 1e-4, 1e-3, 1e-2)), strict=True)
        equal = RowWeights(np.ones((len(rates), len(train))))
        widths = [(*self.recipe.widths, *[max(self.recipe.widths)] * more) for more in self.layers]
        trainings = [StackTraining(self.recipe, num_classes, rates, penalties, seed, each) for each in widths]
        return self._last.put(train, valid, seed, [each.run(train, valid, equal) for each in trainings])

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> PlainClassifier:
        """Return the network with the best score."""
        found = [each.best(WorstSlice(valid)) for each in self.trained(train, valid, num_classes, seed)]
        return max(found, key=lambda chosen: chosen.score).network


class Attention:
    """Slice-based learning: an expert of each slice and attention over them, trained once by the recipe.

    References
    ----------
    Chen, Wu, Ratner, Weng and Ré. Slice-based Learning. NeurIPS 2019.
    """

    name = "attention over slices"

    def __init__(self, recipe: LearnerConfig) -> None:
        self.recipe = recipe

    def fit(self, train: Split, valid: Split, num_classes: int, seed: int) -> Predictor:
        """Return the network of the best checkpoint; the seed is that of the recipe."""
        task = TrainingTask(train, valid, num_classes, self.recipe.widths, self.recipe.trainer_config)
        model: Predictor = train_candidate(task, CandidateSpec("slice_aware", train.S.names)).model
        return model
