"""Selection among candidates on validation rows: specification, training, score, comparison with plain models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.baselines import MLP, PlainClassifier
from models.batches import FeatureRows, Split, training_batches
from models.objectives import WEIGHTINGS, row_weights
from models.slice_aware import AttentiveClassifier
from models.slice_residual import (
    MAX_UNGATED,
    MODES,
    Mode,
    SliceResidualClassifier,
    UnknownRows,
    kept_slices,
)
from models.trainer import EpochRecord, fit, seeded
from models.trainer_config import TrainerConfig
from sfs.matrix import SliceMatrix

SelectableNetwork: TypeAlias = PlainClassifier | SliceResidualClassifier | AttentiveClassifier
Form: TypeAlias = Mode | Literal["erm", "slice_aware"]

MEMBERSHIP_DROPOUT = 0.1
SHRINKAGE_ROWS = 25
COMPANION_MARGIN = 0.01
"""Score margin beyond which a plain model is shipped instead, for few validation rows."""
MARGIN_ROWS = 3000
"""Number of validation rows above which the margin shrinks like the standard error of the score."""
MIN_GAIN = 0.001
"""Smallest score difference reported as a gain."""
FEW_MEMBERS = 25
EXPLANATION = (
    "The score is the mean of the overall accuracy and that of the worst slice; small slices are shrunk towards "
    "the overall accuracy."
)


@dataclass(frozen=True, slots=True)
class SelectionScore:
    """Score of a model on validation rows: half accuracy, half worst slice, less .001 of the log loss.

    ``worst`` is the lowest slice accuracy, each shrunk by 25 members with the overall accuracy.
    """

    value: float
    accuracy: float
    worst: float


def selection_score(
    probabilities: NDArray[np.float64], y: NDArray[np.int64], member: NDArray[np.bool_]
) -> SelectionScore:
    """Return the score of probabilities float[N, C] for classes int[N] and known members bool[N, K].

    Examples
    --------
    >>> right = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> selection_score(right, np.array([0, 1]), np.ones((2, 1), dtype=bool)).value
    1.0
    """
    correct = (probabilities.argmax(axis=1) == y).astype(np.float64)
    accuracy = float(correct.mean())
    sizes = member.sum(axis=0)
    shrunk = (correct @ member + SHRINKAGE_ROWS * accuracy) / (sizes + SHRINKAGE_ROWS)  # [K]
    worst = float(shrunk.min()) if len(shrunk) else accuracy
    of_label = probabilities[np.arange(len(y)), y]
    log_loss = float(-np.log(np.maximum(of_label, 1e-300)).mean())
    return SelectionScore(0.5 * accuracy + 0.5 * worst - 0.001 * min(log_loss, 10.0), accuracy, worst)


def model_score(
    predict: Callable[[FeatureRows, SliceMatrix | None], NDArray[np.float64]],
    X: FeatureRows,
    y: NDArray[np.int64],
    S: SliceMatrix,
) -> SelectionScore:
    """Return the score of a model's ``predict_proba`` on labelled rows."""
    return selection_score(predict(X, S), y, S.member)


@dataclass(frozen=True, slots=True)
class CandidateSpec:
    """Specification of a candidate: a form, the slices in use, and the row weighting.

    ``gated`` marks ``slices`` as the selection of a gate.
    """

    form: Form
    slices: tuple[str, ...]
    weighting: str = "equal"
    gated: bool = False

    @property
    def name(self) -> str:
        """The specification in a few words."""
        plain = "ERM" if self.weighting == "equal" else "weighted ERM"
        words = [{"erm": plain, "slice_aware": "attention over slices"}.get(self.form, self.form)]
        if self.gated:
            words.append(f"gated to {len(self.slices)}")
        if self.weighting != "equal":
            words.append(f"weights {self.weighting}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Trained network with the score of its best checkpoint."""

    spec: CandidateSpec
    model: SelectableNetwork
    score: SelectionScore


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """Training and validation rows, and the shape and trainer settings of the networks."""

    train: Split
    valid: Split
    num_classes: int
    widths: tuple[int, ...]
    trainer_config: TrainerConfig

    def with_columns(self, kept: NDArray[np.int64]) -> TrainingTask:
        """Return the task with some of the features."""
        train, valid = (replace(part, X=part.X.columns(kept), wide=None) for part in (self.train, self.valid))
        return replace(self, train=train, valid=valid)

    def weights(self, spec: CandidateSpec) -> NDArray[np.float64]:
        """Return the weights of the training rows, float[N] with mean 1."""
        weights = self.slice_weights(spec) * (1.0 if self.train.weight is None else self.train.weight)
        return np.asarray(weights / weights.mean())

    def slice_weights(self, spec: CandidateSpec) -> NDArray[np.float64]:
        """Return the weights of the training rows by slices and classes alone, float[N]."""
        return row_weights(spec.weighting, self.train.y, self.train.S.align(spec.slices).member)


def train_candidate(
    task: TrainingTask, spec: CandidateSpec, on_epoch: Callable[[EpochRecord], None] | None = None
) -> Candidate:
    """Train a network from scratch and keep its best checkpoint.

    Features that are 0 in all training rows, such as buckets of words that do not occur, have weights of 0, but not in
    attention over slices.
    """
    whole, used = task, task.train.X.used_columns()
    if spec.form != "slice_aware" and 0 < len(used) < task.train.X.shape[1]:
        task = task.with_columns(used)
    model, valid = untrained(task, spec), task.valid
    names = () if spec.form == "erm" else spec.slices
    batch_size = task.trainer_config.batch_size
    fit(
        model,
        training_batches(task.train, names, task.weights(spec), batch_size, MEMBERSHIP_DROPOUT),
        lambda batch: model.loss(batch),
        task.trainer_config,
        score=lambda: model_score(model.predict_proba, valid.X, valid.y, valid.S).value,
        on_epoch=on_epoch,
    )
    if task is not whole and not isinstance(model, AttentiveClassifier):
        model.backbone.widen(used, whole.train.X.shape[1])
        valid = whole.valid
    return Candidate(spec, model, model_score(model.predict_proba, valid.X, valid.y, valid.S))


def untrained(task: TrainingTask, spec: CandidateSpec) -> SelectableNetwork:
    """Return the network of a candidate before training.

    For the same features, the same seed gives every form the same plain part.
    """
    with seeded(task.trainer_config.seed):
        backbone = MLP(task.train.X.shape[1], task.widths)
        if spec.form == "erm":
            return PlainClassifier(backbone, task.num_classes)
        if spec.form == "slice_aware":
            return AttentiveClassifier(backbone, spec.slices, task.num_classes)
        coverage = task.train.S.coverage()
        return SliceResidualClassifier(
            backbone,
            backbone.out_features,
            task.train.S.names,
            task.num_classes,
            mode=spec.form,
            kept=spec.slices,
            coverage={name: rate.value for name, rate in coverage.items() if rate.value is not None},
        )


Train: TypeAlias = Callable[[CandidateSpec], Candidate]


def best_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the highest score; ties go to the first."""
    return max(candidates, key=lambda candidate: candidate.score.value)


def train_plain_candidates(task: TrainingTask, train: Train) -> list[Candidate]:
    """Train ERM, then weighted ERM in every weighting that changes the row weights."""
    equal = CandidateSpec("erm", task.train.S.names)
    return [train(equal), *_train_weighted(task, equal, train, WEIGHTINGS)]


def train_slice_candidates(
    task: TrainingTask, train: Train, modes: Sequence[Mode] = MODES, weightings: Sequence[str] = WEIGHTINGS
) -> list[Candidate]:
    """Train modes, also gated where slices are many, then the best of them with each of the weightings."""
    names = task.train.S.names
    candidates = [train(CandidateSpec(mode, names)) for mode in modes]
    if len(names) > MAX_UNGATED:
        # ``emb`` has no gates and takes those of ``blend``.
        gates = {
            pilot.spec.form: kept_slices(pilot.model, task.valid)
            for pilot in candidates
            if pilot.spec.form != "emb" and isinstance(pilot.model, SliceResidualClassifier)
        }
        for spec in [pilot.spec for pilot in candidates]:
            kept = gates[spec.form if spec.form in gates else "blend"]
            if kept != spec.slices:
                candidates.append(train(replace(spec, slices=kept, gated=True)))
    return [*candidates, *_train_weighted(task, best_candidate(candidates).spec, train, weightings)]


def max_trainings(n_slices: int, modes: Sequence[Mode] | None = None) -> int:
    """Return the maximum number of trainings in a search: among all modes and weightings, or in some modes only."""
    if not n_slices:
        return 1
    weightings = 2 * (len(WEIGHTINGS) - 1) if modes is None else 0
    return 1 + len(modes or MODES) * (2 if n_slices > MAX_UNGATED else 1) + weightings


def _train_weighted(
    task: TrainingTask, spec: CandidateSpec, train: Train, weightings: Sequence[str]
) -> list[Candidate]:
    specs = [replace(spec, weighting=weighting) for weighting in weightings[1:]]
    return [train(weighted) for weighted in specs if np.ptp(task.slice_weights(weighted)) > 1e-12]


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """The best form with slices and the plain models, scored on ``rows`` validation rows.

    ``refit_score`` is the winner's cross-fitted score with a refitted last layer, None without a refit;
    ``unknown_score`` is its score with every membership unknown.
    """

    winner: Candidate
    refit_score: SelectionScore | None
    unknown_score: float
    erm: Candidate
    weighted: Candidate
    rows: int

    @property
    def companion(self) -> Candidate:
        """The better plain model; ties go to ERM."""
        return max((self.erm, self.weighted), key=lambda peer: peer.score.value)

    @property
    def score(self) -> float:
        """Score of the best form with slices, cross-fitted where its last layer was refitted."""
        return (self.refit_score or self.winner.score).value

    @property
    def companion_ships(self) -> bool:
        """True if a plain model is shipped instead of slices."""
        return self.companion.score.value > self.score + companion_margin(self.rows)

    @property
    def unknown_rows(self) -> UnknownRows:
        """Treatment of rows with an unknown membership."""
        return "impute" if self.unknown_score >= self.companion.score.value else "companion"

    @property
    def form(self) -> str:
        """Short description of the shipped model."""
        if self.companion_ships:
            return f"companion: {self.companion.spec.name}"
        return slice_form(self.winner, self.refit_score is not None)


def companion_margin(rows: int) -> float:
    """Return the margin by which a plain model's score must be higher, given the number of validation rows.

    Checkpoints are selected and compared by the same score, which favours them over a refitted layer. The
    margin accounts for this optimism, which falls with the square root of the number of rows.

    Examples
    --------
    >>> companion_margin(500), companion_margin(12_000)
    (0.01, 0.005)
    """
    return COMPANION_MARGIN * min(1.0, math.sqrt(MARGIN_ROWS / max(rows, 1)))


def slice_form(winner: Candidate, refitted: bool) -> str:
    """Return a short description of a model with slices, including the number of slices before and after gating."""
    words = winner.spec.name
    if winner.spec.gated:
        gated = f"gated to {len(winner.spec.slices)}"
        words = words.replace(gated, f"{gated} of {_n_slices(winner)} slices")
    return f"{words}, last layer refitted" if refitted else words


def _n_slices(winner: Candidate) -> int:
    return len(getattr(winner.model, "slice_names", winner.spec.slices))


def describe_comparison(comparison: ModelComparison, valid: Split) -> Iterator[str]:
    """Yield sentences on the outcome of a comparison for the training report."""
    plain, spec = comparison.companion, comparison.winner.spec
    refitted = comparison.refit_score is not None
    form, score = slice_form(comparison.winner, refitted), f"{comparison.score:.3f}"
    against = peer_scores_text(comparison.erm, comparison.weighted)
    if comparison.companion_ships:
        yield (
            f"Slices give no gain: the plain model ({plain.spec.name}) is shipped, with validation score "
            f"{plain.score.value:.3f} against {score} for slices ({form})."
        )
    elif not spec.slices:
        yield (
            f"Slices give no gain: none of {_n_slices(comparison.winner)} slices passed the gate. "
            f"A plain network is shipped{', its last layer refitted' if refitted else ''}: score {score} "
            f"against {against}."
        )
    elif comparison.score > plain.score.value + MIN_GAIN:
        yield f"Residual slices ({form}) won on validation: score {score} against {against}."
    else:
        yield (
            f"Residual slices ({form}) are shipped, but validation shows no gain: score {score} "
            f"(cross-fitted, hence slightly pessimistic) against {against}. Expect the accuracy of a plain model."
        )
    yield EXPLANATION
    if not comparison.companion_ships:
        if not refitted:
            yield "The last layer was not refitted: a class has fewer than two validation rows."
        if not spec.slices:
            yield "The model reads no memberships."
        elif spec.form == "soft":
            yield "Memberships are read in training only: at serving the network predicts them."
        elif comparison.unknown_rows == "impute":
            yield "The network replaces an unknown membership by its own estimate."
        else:
            yield (f"Rows with an unknown membership go to the companion ({plain.spec.name}), which reads no slices.")
    yield from validation_warnings(valid)


def peer_scores_text(erm: Candidate, weighted: Candidate) -> str:
    """Return the plain models' scores in words."""
    text = f"{erm.score.value:.3f} for ERM"
    if weighted is erm:
        return text
    return f"{text} and {weighted.score.value:.3f} for slice-weighted ERM ({weighted.spec.weighting})"


def validation_warnings(valid: Split) -> Iterator[str]:
    """Yield a warning about slices with too few validation rows to influence the selection."""
    members = valid.S.member.sum(axis=0)
    few = [name for name, n in zip(valid.S.names, members, strict=True) if n < FEW_MEMBERS]
    if few:
        shown = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
        yield (
            f"Slices with under {FEW_MEMBERS} validation members, which hardly affect the selection: "
            f"{len(few)} of {len(members)} ({shown})."
        )
