"""Slice-aware models. Names load on first use, because most need torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle as ModelBundle
    from models.checkpointer import Checkpointer as Checkpointer
    from models.config import LearnerConfig as LearnerConfig
    from models.config import TrainConfig as TrainConfig
    from models.dataset import DictDataLoader as DictDataLoader
    from models.dataset import DictDataset as DictDataset
    from models.dataset import add_slice_labels as add_slice_labels
    from models.dawid_skene import DawidSkeneLabelModel as DawidSkeneLabelModel
    from models.features import FeatureSpec as FeatureSpec
    from models.features import Featurizer as Featurizer
    from models.label_model import LabelModel as LabelModel
    from models.label_model import TripletLabelModel as TripletLabelModel
    from models.labelers import MajorityClassVoter as MajorityClassVoter
    from models.labelers import MajorityLabelVoter as MajorityLabelVoter
    from models.labelers import RandomVoter as RandomVoter
    from models.multitask import MultitaskClassifier as MultitaskClassifier
    from models.multitask import Operation as Operation
    from models.multitask import Task as Task
    from models.objectives import cross_entropy_with_probs as cross_entropy_with_probs
    from models.registry import ModelRegistry as ModelRegistry
    from models.scoring import Scorer as Scorer
    from models.scoring import SliceScorer as SliceScorer
    from models.scoring import get_label_buckets as get_label_buckets
    from models.scoring import get_label_instances as get_label_instances
    from models.scoring import preds_to_probs as preds_to_probs
    from models.scoring import probs_to_preds as probs_to_preds
    from models.slice_aware import SliceAwareClassifier as SliceAwareClassifier
    from models.slice_residual import SliceResidualClassifier as SliceResidualClassifier
    from models.slice_tasks import SliceCombinerModule as SliceCombinerModule
    from models.slice_tasks import convert_to_slice_tasks as convert_to_slice_tasks
    from models.trainer import Trainer as Trainer
    from models.trainer import set_seed as set_seed
    from models.training import evaluate as evaluate
    from models.training import train as train
    from models.training_log import LogManager as LogManager
    from models.training_log import LogWriter as LogWriter
    from models.training_log import TensorBoardWriter as TensorBoardWriter

_NAMES = {
    "bundle.model_bundle": "ModelBundle",
    "checkpointer": "Checkpointer",
    "config": "LearnerConfig TrainConfig",
    "dataset": "DictDataLoader DictDataset add_slice_labels",
    "dawid_skene": "DawidSkeneLabelModel",
    "features": "FeatureSpec Featurizer",
    "label_model": "LabelModel TripletLabelModel",
    "labelers": "MajorityClassVoter MajorityLabelVoter RandomVoter",
    "multitask": "MultitaskClassifier Operation Task",
    "objectives": "cross_entropy_with_probs",
    "registry": "ModelRegistry",
    "scoring": "Scorer SliceScorer get_label_buckets get_label_instances preds_to_probs probs_to_preds",
    "slice_aware": "SliceAwareClassifier",
    "slice_residual": "SliceResidualClassifier",
    "slice_tasks": "SliceCombinerModule convert_to_slice_tasks",
    "trainer": "Trainer set_seed",
    "training": "evaluate train",
    "training_log": "LogManager LogWriter TensorBoardWriter",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"models has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"models.{_MODULES[name]}"), name)
