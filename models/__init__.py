"""The first floor: what a slice-aware model is. Names load when they are first used, because most need torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.bundle import ModelBundle
    from models.config import TrainConfig
    from models.dataset import DictDataLoader, DictDataset
    from models.features import FeatureSpec, Featurizer
    from models.labels import get_label_buckets, get_label_instances, preds_to_probs, probs_to_preds
    from models.learners import LearnerConfig
    from models.objectives import cross_entropy_with_probs
    from models.registry import ModelRegistry
    from models.scoring import Scorer, SliceScorer
    from models.seeding import set_seed
    from models.slice_aware import SliceAwareClassifier
    from models.slice_residual import SliceResidualClassifier
    from models.snorkel_labels import add_slice_labels
    from models.trainer import Trainer
    from models.training import evaluate, train

_HOME = {
    "DictDataLoader": "dataset",
    "DictDataset": "dataset",
    "FeatureSpec": "features",
    "Featurizer": "features",
    "LearnerConfig": "learners",
    "ModelBundle": "bundle",
    "ModelRegistry": "registry",
    "Scorer": "scoring",
    "SliceAwareClassifier": "slice_aware",
    "SliceResidualClassifier": "slice_residual",
    "SliceScorer": "scoring",
    "TrainConfig": "config",
    "Trainer": "trainer",
    "add_slice_labels": "snorkel_labels",
    "cross_entropy_with_probs": "objectives",
    "evaluate": "training",
    "get_label_buckets": "labels",
    "get_label_instances": "labels",
    "preds_to_probs": "labels",
    "probs_to_preds": "labels",
    "set_seed": "seeding",
    "train": "training",
}

__all__ = [
    "DictDataLoader",
    "DictDataset",
    "FeatureSpec",
    "Featurizer",
    "LearnerConfig",
    "ModelBundle",
    "ModelRegistry",
    "Scorer",
    "SliceAwareClassifier",
    "SliceResidualClassifier",
    "SliceScorer",
    "TrainConfig",
    "Trainer",
    "add_slice_labels",
    "cross_entropy_with_probs",
    "evaluate",
    "get_label_buckets",
    "get_label_instances",
    "preds_to_probs",
    "probs_to_preds",
    "set_seed",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"models has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"models.{_HOME[name]}"), name)
