"""One form of a learner: what is trained, on which weights, and what it came to on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.attentive import AttentiveClassifier
from models.backbone import MLP
from models.baselines import PlainClassifier
from models.batches import Split, training_batches
from models.seeding import seeded
from models.selection import Score, model_score
from models.slice_residual import Mode, SliceResidualClassifier
from models.trainer import EpochRecord, TrainerConfig, fit
from models.weights import row_weights

Network: TypeAlias = PlainClassifier | SliceResidualClassifier | AttentiveClassifier
Form: TypeAlias = Mode | Literal["erm", "slice_aware"]

MEMBERSHIP_DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train: a form, the slices that matter to it, and how rows weigh.

    ``gated`` says that ``slices`` are what a gate let through.
    """

    form: Form
    slices: tuple[str, ...]
    weighting: str = "equal"
    gated: bool = False

    @property
    def name(self) -> str:
        """The plan in a few words."""
        plain = "ERM" if self.weighting == "equal" else "weighted ERM"
        words = [{"erm": plain, "slice_aware": "attention over slices"}.get(self.form, self.form)]
        if self.gated:
            words.append(f"gated to {len(self.slices)}")
        if self.weighting != "equal":
            words.append(f"weights {self.weighting}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained network and its score at its best checkpoint."""

    plan: Plan
    model: Network
    score: Score


@dataclass(frozen=True, slots=True)
class Task:
    """The rows to learn from and to choose on, and the shape and recipe of the networks."""

    train: Split
    valid: Split
    num_classes: int
    widths: tuple[int, ...]
    recipe: TrainerConfig

    def weights(self, plan: Plan) -> NDArray[np.float64]:
        """Return float[N], how much each training row counts."""
        return row_weights(plan.weighting, self.train.y, self.train.S.align(plan.slices).member)

    def weighs_rows(self, plan: Plan) -> bool:
        """Whether the weighting tells rows apart at all."""
        weights = self.weights(plan)
        return bool(np.ptp(weights) > 1e-12)


def train_candidate(
    task: Task, plan: Plan, on_epoch: Callable[[EpochRecord], None] | None = None
) -> Candidate:
    """Train a plan's network from scratch and keep its best checkpoint."""
    model = untrained(task, plan)
    names = () if plan.form == "erm" else plan.slices
    batches = training_batches(
        task.train, names, task.weights(plan), task.recipe.batch_size, MEMBERSHIP_DROPOUT
    )
    valid = task.valid
    fit(
        model,
        batches,
        lambda batch: model.loss(batch),
        task.recipe,
        score=lambda: model_score(model.predict_proba, valid.X, valid.y, valid.S).value,
        on_epoch=on_epoch,
    )
    return Candidate(plan, model, model_score(model.predict_proba, valid.X, valid.y, valid.S))


def untrained(task: Task, plan: Plan) -> Network:
    """Return a plan's network at the start; the same seed gives every form the same plain part."""
    with seeded(task.recipe.seed):
        backbone = MLP(task.train.X.shape[1], task.widths)
        if plan.form == "erm":
            return PlainClassifier(backbone, task.num_classes)
        if plan.form == "slice_aware":
            return AttentiveClassifier(backbone, plan.slices, task.num_classes)
        return SliceResidualClassifier(
            backbone,
            backbone.out_features,
            task.train.S.names,
            task.num_classes,
            mode=plan.form,
            kept=plan.slices,
            coverage=training_coverage(task.train),
        )


def training_coverage(rows: Split) -> Mapping[str, float]:
    """Return each slice's share of members among rows whose membership is known, where there is one."""
    coverage = rows.S.coverage()
    return {name: rate.value for name, rate in coverage.items() if rate.value is not None}
