"""What to train: the label, the features, the slicing functions and the learner."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from models.errors import ConfigError
from models.features import FeatureSpec, Featurizer
from models.learners import LearnerConfig
from sfs.registry import FunctionSet
from sfs.template import Template


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that `models.train` needs besides rows.

    Parameters
    ----------
    label
        The column to predict.
    features
        The columns to predict it from.
    functions
        The slicing functions; without any, plain models are all that can be trained.
    learner
        The kind of model and how it is trained, with its seed.
    name
        What the model is called.

    Raises
    ------
    ConfigError
        If there is no feature, a column is named twice, the label is among the features, or a template reads
        the label.
    """

    label: str
    features: tuple[FeatureSpec, ...]
    functions: FunctionSet = field(default_factory=lambda: FunctionSet(()))
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    name: str = "model"

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        Featurizer(self.features)
        if self.label in [spec.column for spec in self.features]:
            raise ConfigError(
                f"column {self.label!r} is the label and a feature: the answer would be given away"
            )
        refuse_label_readers(self.functions, self.label)
        if not self.name.strip():
            raise ConfigError("the model's name is empty: give it one, such as 'comments'")

    def to_json(self) -> dict[str, Any]:
        """Return the parts that decide a training as JSON values."""
        learner = asdict(self.learner)
        learner["widths"] = list(learner["widths"])
        return {
            "label": self.label,
            "features": [asdict(spec) for spec in self.features],
            "functions_sha256": self.functions.hash,
            "learner": learner,
        }


def refuse_label_readers(functions: FunctionSet, label: str) -> None:
    """Raise ConfigError if a template reads the label, which would tell a model the answer."""
    for each in functions:
        if isinstance(each, Template) and label in each.fields:
            raise ConfigError(
                f"template {each.name!r} reads column {label!r}, which is the label: the answer would be "
                "given away; describe the slice by other columns, or leave the template out"
            )
