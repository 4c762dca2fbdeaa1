"""Training configuration: label, features, slicing functions and learner."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from models.classes import check_label_not_read
from models.errors import ConfigError, require_type
from models.features import FeatureSpec, Featurizer
from models.trainer_config import TrainerConfig
from sfs.errors import SliceError
from sfs.function import LabelingFunction
from sfs.registry import FunctionSet, validate_functions
from sfs.schema import Schema

LearnerKind: TypeAlias = Literal["auto", "slice_residual", "slice_aware", "erm", "weighted_erm"]
LEARNER_KINDS: tuple[str, ...] = get_args(LearnerKind)


@dataclass(frozen=True, slots=True)
class LearnerConfig:
    """Settings of a learner.

    Parameters
    ----------
    kind
        ``auto`` (the default: the best of linear models, trees and networks, each with slices), or a network:
        ``slice_residual``, ``slice_aware``, ``erm`` or ``weighted_erm``.
    widths
        Hidden units of each layer.
    n_epochs, lr, batch_size, l2, evaluate_every
        Training settings, see `models.trainer.TrainerConfig`; batches grow where an epoch would
        have more than 250 steps.
    seed
        Same seed, same weights.
    max_search_rows
        Largest number of training and validation rows in the search; the winner is trained on all rows.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    kind: str = "auto"
    widths: tuple[int, ...] = (32,)
    n_epochs: int = 12
    lr: float = 3e-3
    batch_size: int = 64
    seed: int = 0
    max_search_rows: int = 20_000
    l2: float = 0.0
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        if self.kind not in LEARNER_KINDS:
            raise ConfigError(f"unknown learner {self.kind!r}; known are {', '.join(LEARNER_KINDS)}")
        if not self.widths or min(self.widths) < 1:
            raise ConfigError(f"widths must be at least 1 unit for at least one layer, got {self.widths!r}")
        if self.max_search_rows < 1:
            raise ConfigError(f"max_search_rows must be at least 1, got {self.max_search_rows}")
        _ = self.trainer_config  # checks the other values

    @property
    def trainer_config(self) -> TrainerConfig:
        """The trainer's settings."""
        return TrainerConfig(
            n_epochs=self.n_epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            seed=self.seed,
            l2=self.l2,
            evaluate_every=self.evaluate_every,
            grad_clip=None,
        )


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Arguments of `models.train` other than the rows.

    Parameters
    ----------
    label
        The column to predict.
    features
        The columns to predict it from.
    functions
        The slicing functions; without any, only plain models can be trained.
    learner
        The kind of model and its training, with the seed.
    name
        The model's name.
    schema
        Types of the columns, such as those of an earlier model; the types of other columns are settled from the
        rows.
    time, time_zone
        Column with the time of a row, if any, and the time zone of the season that it tells.
    labeling_functions
        Functions that label the training rows without a label; without any, every row needs one.
    vote_classes
        Classes that their votes 0, 1, ... stand for; by default those of the labels in order.

    Raises
    ------
    ConfigError
        If there is no feature, a column or a labeling function is named twice, the label is among the features, or a
        template reads the label.
    """

    label: str
    features: tuple[FeatureSpec, ...]
    functions: FunctionSet = field(default_factory=lambda: FunctionSet(()))
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    name: str = "model"
    schema: Schema = field(default_factory=Schema)
    time: str | None = None
    time_zone: str = "UTC"
    labeling_functions: tuple[LabelingFunction, ...] = ()
    vote_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        try:
            functions = validate_functions(self.labeling_functions, LabelingFunction)
        except SliceError as error:
            raise ConfigError(f"labeling_functions: {error}") from None
        object.__setattr__(self, "labeling_functions", functions)
        Featurizer(self.features)
        if self.label in [spec.column for spec in self.features]:
            raise ConfigError(f"column {self.label!r} is both the label and a feature: remove the feature")
        require_type(self.learner, LearnerConfig, "learner", "a LearnerConfig, such as LearnerConfig('erm')")
        require_type(self.functions, FunctionSet, "functions", "a FunctionSet: FunctionSet([...])")
        check_label_not_read(self.functions, self.label)
        if not self.name.strip():
            raise ConfigError("the model's name is empty: set one, such as 'comments'")

    def to_json(self) -> dict[str, Any]:
        """Return the settings that determine the result of a training as JSON values."""
        by_functions = {each.name: each.fingerprint for each in self.labeling_functions}
        return {
            "label": self.label,
            "features": [asdict(spec) for spec in self.features],
            "functions_sha256": self.functions.hash,
            "learner": asdict(self.learner) | {"widths": list(self.learner.widths)},
            **({} if self.time is None else {"time": self.time, "time_zone": self.time_zone}),
            **({"labeling_functions": by_functions} if by_functions else {}),
            **({"vote_classes": list(self.vote_classes)} if self.vote_classes else {}),
        }
