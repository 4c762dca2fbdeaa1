"""Names, arguments and phrases that code written for Snorkel 0.10 relies on."""

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models import (
    DictDataLoader,
    DictDataset,
    LabelModel,
    MultitaskClassifier,
    Operation,
    Scorer,
    SliceAwareClassifier,
    Task,
    Trainer,
    cross_entropy_with_probs,
    get_label_buckets,
    get_label_instances,
    preds_to_probs,
    probs_to_preds,
)
from models.checkpointer import Checkpointer
from models.scoring import metric_score
from models.training_log import LogManager
from sfs import LFAnalysis, Preprocessor, SFApplier, SlicingFunction, preprocessor, slicing_function
from sfs.matrix import SliceMatrix

# our module -> name -> arguments of Snorkel's, in their order
NAMES: dict[str, dict[str, str]] = {
    "sfs.function": {
        "SlicingFunction": "name f resources pre",
        "LabelingFunction": "name f resources pre",
        "slicing_function": "name resources pre",
        "labeling_function": "name resources pre",
        "SlicingFunction.__call__": "self x",
    },
    "sfs.nlp": {
        "NLPSlicingFunction": "name f resources pre text_field doc_field language disable memoize memoize_key gpu",
        "NLPLabelingFunction": "name f resources pre text_field doc_field language disable memoize memoize_key gpu",
        "nlp_slicing_function": "name resources pre text_field doc_field language disable memoize memoize_key gpu",
        "nlp_labeling_function": "name resources pre text_field doc_field language disable memoize memoize_key gpu",
        "SpacyPreprocessor": "text_field doc_field language disable pre memoize memoize_key gpu",
    },
    "sfs.preprocess": {
        **dict.fromkeys(
            ("Preprocessor", "BasePreprocessor", "BaseMapper", "Mapper"),
            "name field_names mapped_field_names pre memoize memoize_key",
        ),
        **dict.fromkeys(("LambdaPreprocessor", "LambdaMapper"), "name f pre memoize memoize_key"),
        **dict.fromkeys(("preprocessor", "lambda_mapper"), "name pre memoize memoize_key"),
        "Preprocessor.reset_cache": "self",
        "get_hashable": "",
    },
    "sfs.appliers": {
        "SFApplier": "lfs",
        "LFApplier": "lfs",
        "SFApplier.apply": "self data_points progress_bar fault_tolerant return_meta",
        "PandasSFApplier.apply": "self df progress_bar fault_tolerant return_meta",
        "PandasLFApplier.apply": "self df progress_bar fault_tolerant return_meta",
        "ApplierMetadata": "faults",
        "slice_dataframe": "df slicing_function",
    },
    "sfs.dask": {
        "DaskSFApplier.apply": "self df scheduler fault_tolerant",
        "DaskLFApplier.apply": "self df scheduler fault_tolerant",
        "PandasParallelSFApplier.apply": "self df n_parallel scheduler fault_tolerant",
        "PandasParallelLFApplier.apply": "self df n_parallel scheduler fault_tolerant",
    },
    "sfs.spark": {
        "SparkSFApplier.apply": "self data_points fault_tolerant",
        "SparkLFApplier.apply": "self data_points fault_tolerant",
        "make_spark_mapper": "mapper",
        "make_spark_preprocessor": "mapper",
    },
    "sfs.analysis": {
        "LFAnalysis": "L lfs",
        "LFAnalysis.label_coverage": "self",
        "LFAnalysis.label_overlap": "self",
        "LFAnalysis.label_conflict": "self",
        "LFAnalysis.lf_polarities": "self",
        "LFAnalysis.lf_coverages": "self",
        "LFAnalysis.lf_overlaps": "self normalize_by_coverage",
        "LFAnalysis.lf_conflicts": "self normalize_by_overlaps",
        "LFAnalysis.lf_empirical_accuracies": "self Y",
        "LFAnalysis.lf_empirical_probs": "self Y k",
        "LFAnalysis.lf_summary": "self Y est_weights",
        "filter_unlabeled_dataframe": "X y L",
    },
    "models.dataset": {
        "DictDataset": "name split X_dict Y_dict",
        "DictDataset.from_tensors": "X_tensor Y_tensor split input_data_key task_name dataset_name",
        "DictDataLoader": "dataset collate_fn",
        "collate_dicts": "batch",
        "list_to_tensor": "item_list",
        "pad_batch": "batch max_len pad_value left_padded",
        "add_slice_labels": "dataloader base_task S",
    },
    "models.multitask": {
        "Operation": "module_name inputs name",
        "Task": "name module_pool op_sequence scorer loss_func output_func",
        "MultitaskClassifier": "tasks name device dataparallel",
        "MultitaskClassifier.forward": "self X_dict task_names",
        "MultitaskClassifier.calculate_loss": "self X_dict Y_dict",
        "MultitaskClassifier.predict": "self dataloader return_preds remap_labels",
        "MultitaskClassifier.score": "self dataloaders remap_labels as_dataframe",
        "MultitaskClassifier.add_task": "self task",
        "MultitaskClassifier.save": "self model_path",
        "MultitaskClassifier.load": "self model_path",
        "move_to_device": "obj device",
    },
    "models.slice_aware": {
        "SliceAwareClassifier": "base_architecture head_dim slice_names input_data_key task_name scorer",
        "SliceAwareClassifier.forward": "self X_dict task_names",
        "SliceAwareClassifier.make_slice_dataloader": "self dataset S",
        "SliceAwareClassifier.score_slices": "self dataloaders as_dataframe",
        "SliceAwareClassifier.load": "self model_path",
    },
    "models.slice_tasks": {
        "SliceCombinerModule": "slice_ind_key slice_pred_key slice_pred_feat_key temperature",
        "SliceCombinerModule.forward": "self output_dict",
        "convert_to_slice_tasks": "base_task slice_names",
        "collect_flow_outputs_by_suffix": "output_dict suffix",
    },
    "models.trainer": {
        "Trainer.fit": "self model dataloaders",
        "Trainer.save": "self trainer_path",
        "Trainer.load": "self trainer_path model",
        "set_seed": "seed",
    },
    "models.trainer_config": {
        "ClassifierConfig": "device dataparallel",
        "SGDOptimizerConfig": "momentum",
        "AdamOptimizerConfig": "amsgrad betas",
        "AdamaxOptimizerConfig": "betas eps",
        "OptimizerConfig": "sgd_config adam_config adamax_config",
        "LRSchedulerConfig": "warmup_steps warmup_unit warmup_percentage min_lr exponential_config step_config",
        "ExponentialLRSchedulerConfig": "gamma",
        "StepLRSchedulerConfig": "gamma step_size",
        "merge_config": "config config_updates",
    },
    "models.checkpointer": {
        "CheckpointerConfig": "checkpoint_dir checkpoint_factor checkpoint_metric checkpoint_task_metrics "
        "checkpoint_runway checkpoint_clear",
        "Checkpointer": "counter_unit evaluation_freq",
        "Checkpointer.checkpoint": "self iteration model metric_dict",
        "Checkpointer.clear": "self",
        "Checkpointer.load_best_model": "self model",
    },
    "models.training_log": {
        "LogManagerConfig": "counter_unit evaluation_freq",
        "LogManager": "n_batches_per_epoch log_writer checkpointer",
        "LogManager.update": "self batch_size",
        "LogManager.trigger_evaluation": "self",
        "LogManager.trigger_checkpointing": "self",
        "LogManager.reset": "self",
        "LogManager.cleanup": "self model",
        "LogWriterConfig": "log_dir run_name",
        "LogWriter.add_scalar": "self name value step",
        "LogWriter.write_config": "self config config_filename",
        "LogWriter.write_log": "self log_filename",
        "LogWriter.write_text": "self text filename",
        "LogWriter.write_json": "self dict_to_write filename",
        "LogWriter.cleanup": "self",
        "TensorBoardWriter.add_scalar": "self name value step",
    },
    "models.batch_schedulers": {
        "SequentialScheduler.get_batches": "self dataloaders",
        "ShuffledScheduler.get_batches": "self dataloaders",
        "Scheduler.get_batches": "self dataloaders",
    },
    "models.scoring": {
        "Scorer": "metrics custom_metric_funcs abstain_label",
        "Scorer.score": "self golds preds probs",
        "Scorer.score_slices": "self S golds preds probs as_dataframe",
        "metric_score": "golds preds probs metric filter_dict",
        "get_label_buckets": "y",
        "get_label_instances": "bucket x y",
        "probs_to_preds": "probs tie_break_policy tol",
        "preds_to_probs": "preds num_classes",
        "to_int_label_array": "X flatten_vector",
        "filter_labels": "label_dict filter_dict",
        "metrics_dict_to_dataframe": "metrics_dict",
    },
    "models.objectives": {"cross_entropy_with_probs": "input target weight reduction"},
    "models.labelers": {
        **dict.fromkeys(("MajorityClassVoter", "MajorityLabelVoter", "RandomVoter"), "cardinality"),
        "BaseLabeler.predict_proba": "self L",
        "BaseLabeler.predict": "self L return_probs tie_break_policy",
        "BaseLabeler.score": "self L Y metrics tie_break_policy",
        "BaseLabeler.save": "self destination",
        "BaseLabeler.load": "self source",
    },
    "models.label_model": {
        "LabelModel": "cardinality",
        "LabelModel.fit": "self L_train Y_dev class_balance progress_bar",
        "LabelModel.get_weights": "self",
        "LabelModel.get_conditional_probs": "self",
    },
}
TRAINER_OPTIONS = (
    "seed n_epochs lr l2 grad_clip train_split valid_split test_split progress_bar model_config log_manager_config "
    "checkpointing checkpointer_config logging log_writer log_writer_config optimizer optimizer_config lr_scheduler "
    "lr_scheduler_config batch_scheduler"
)


@pytest.mark.parametrize("module", NAMES)
def test_every_name_takes_snorkels_arguments(module: str) -> None:
    """They come first, in Snorkel's order and by Snorkel's names."""
    here = importlib.import_module(module)
    for name, expected in NAMES[module].items():
        found: Any = here
        for part in name.split("."):
            found = getattr(found, part)
        arguments = [*inspect.signature(found).parameters]
        wanted = expected.split()
        assert arguments[: len(wanted)] == wanted, name


def test_names_of_mappers_are_those_of_preprocessors() -> None:
    """They are the same classes in Snorkel, too."""
    from sfs.preprocess import BaseMapper, BasePreprocessor, LambdaMapper, LambdaPreprocessor, Mapper, lambda_mapper

    assert {BaseMapper, BasePreprocessor, Mapper} == {Preprocessor}
    assert LambdaMapper is LambdaPreprocessor
    assert lambda_mapper is preprocessor


def test_the_trainer_takes_every_option_of_snorkels() -> None:
    """With nested options as dictionaries."""
    config = Trainer().config
    given = {name: getattr(config, name) for name in TRAINER_OPTIONS.split()}
    assert Trainer("same", **given).config == config
    nested = Trainer(model_config={"device": -1, "dataparallel": False}, log_manager_config={"counter_unit": "points"})
    assert nested.config.model_config.device == -1
    assert nested.config.log_manager_config.counter_unit == "points"


X = {"x": torch.zeros(2, 2)}
Y = {"task": torch.tensor([0, 1])}


def task(name: str = "task") -> Task:
    return Task(name, nn.ModuleDict({"head": nn.Linear(2, 2)}), [Operation("head", [("_input_", "x")])])


def loader(split: str, **labels: torch.Tensor) -> DictDataLoader:
    return DictDataLoader(DictDataset("data", split, X, labels or Y))


def nothing(x: Any) -> None:
    return None


class Variadic(Preprocessor):
    """Preprocessor whose fields cannot be known."""

    def run(self, **fields: Any) -> dict[str, Any]:
        return fields


def without_labels_of_the_task() -> None:
    model = SliceAwareClassifier(nn.Linear(2, 4), 4, [], "x")
    model.make_slice_dataloader(DictDataset("data", "train", X, {"other": Y["task"]}), SliceMatrix.empty(2))


PHRASES: list[tuple[Callable[[], Any], str]] = [
    (lambda: slicing_function(nothing), "Looks like this decorator is missing parentheses!"),
    (lambda: preprocessor(nothing), "Looks like this decorator is missing parentheses!"),
    (lambda: SlicingFunction("a", bool, pre=[preprocessor()(nothing)])({}), "Preprocessor should not return None"),
    (lambda: SFApplier([SlicingFunction("a", bool)] * 2), "Operator names not unique: 2 operators with name a"),
    (lambda: Variadic("a"), "**kwargs"),
    (lambda: preprocessor(memoize=True)(nothing)({"a": iter}.keys()), "has no hashing proxy"),
    (lambda: LFAnalysis([[0, 1]], []), "Number of LFs (0) and number of LF matrix columns (2) are different"),
    (lambda: DictDataset("d", "s", X, {"task": [0, 1]}), "Label task should be torch.Tensor, not"),
    (lambda: MultitaskClassifier(["a"]), "Unrecognized task type"),
    (lambda: MultitaskClassifier([task(), task()]), "Found duplicate task task"),
    (lambda: MultitaskClassifier([task()])({}, ["task"]), "Unsuccessful operation"),
    (without_labels_of_the_task, "Base task (task) labels missing from DictDataset(name=data"),
    (lambda: cross_entropy_with_probs(X["x"], X["x"], reduction="a"), "Keyword 'reduction' must be one of ["),
    (
        lambda: Trainer().fit(nn.Linear(2, 2), [loader("valid")]),
        "any dataloaders with split matching train split: train.",
    ),
    (
        lambda: Trainer().fit(nn.Linear(2, 2), [loader("a")]),
        "Dataloader splits must be one of ['train', 'valid', 'test']",
    ),
    (lambda: Trainer(optimizer="a"), "Unrecognized optimizer option"),
    (lambda: Trainer(lr_scheduler="a"), "Unrecognized lr scheduler option"),
    (lambda: Trainer(batch_scheduler="a"), "Unrecognized batch scheduler option"),
    (lambda: Trainer(log_writer="a"), "Unrecognized writer option"),
    (lambda: Trainer(lr_scheduler_config={"warmup_unit": "a"}), "warmup_unit must be 'batches' or 'epochs'"),
    (lambda: LogManager(1, counter_unit="a"), "Unrecognized counter_unit: a"),
    (lambda: Checkpointer("epochs", 0), "Invalid checkpoint freq"),
    (lambda: Checkpointer("epochs", 1, checkpoint_runway=-1), "Invalid checkpoint_runway -1, must be"),
    (
        lambda: Checkpointer("epochs", 1, checkpoint_metric="a:min"),
        "must be formatted 'task/dataset/split/metric:mode'",
    ),
    (lambda: Checkpointer("epochs", 1, checkpoint_metric="a"), "Metric must be of the form 'metric_name:mode'"),
    (
        lambda: Checkpointer("epochs", 1, checkpoint_metric="a/b/c/d:mean"),
        "Unrecognized checkpoint metric mode mean for metric a/b/c/d, must be 'min' or 'max'",
    ),
    (lambda: Scorer(metrics=["a"]), "Unrecognized metric: a"),
    (lambda: Scorer(metrics=["f1"]).score([]), "Cannot score empty labels"),
    (lambda: metric_score([1], [1], metric="a"), "The metric you provided (a) is not currently implemented"),
    (lambda: metric_score([1], metric="f1"), "Metric f1 requires access to preds"),
    (
        lambda: metric_score([1], [1], filter_dict={"a": [1]}),
        "filter_dict must only include keys in ['golds', 'preds', 'pr",
    ),
    (lambda: metric_score([2], [2], metric="f1"), "f1 not supported for multiclass. Try f1_micro or f1_macro instead"),
    (
        lambda: metric_score([1], None, np.ones((1, 3)), "roc_auc"),
        "roc_auc is currently only defined for binary problems",
    ),
    (lambda: metric_score([0.5], [1]), "Input contains at least one non-integer value"),
    (lambda: metric_score(np.ones((2, 2)), [1]), "Input could not be converted to 1d np.array"),
    (lambda: get_label_buckets([1], [1, 2]), "Arrays must all have the same number of elements"),
    (lambda: get_label_instances((1, 2), np.ones(1), [1]), "Number of lists must match the amount of labels in bucket"),
    (
        lambda: get_label_instances((1,), np.ones(2), [1]),
        "rows in x does not match number of elements in at least one lab",
    ),
    (lambda: probs_to_preds(np.ones((1, 1))), "probs must have probabilities for at least 2 classes"),
    (lambda: probs_to_preds(np.ones((1, 2)), "a"), "tie_break_policy=a policy not recognized"),  # type: ignore[arg-type]
    (lambda: preds_to_probs([-1], 2), "Could not convert abstained vote to probability"),
    (lambda: LabelModel().fit([[0, 1]]), "L_train should have at least 3 labeling functions"),
    (lambda: LabelModel().fit([[0, 1, 2]]), "L_train has cardinality 3, cardinality=2 passed in."),
    (
        lambda: LabelModel().fit([[0, 1, 1]], Y_dev=[0]),
        "Y_dev has 1 class(es). Does not match LabelModel cardinality 2.",
    ),
    (
        lambda: LabelModel().fit([[0, 1, 1]], None, [1]),
        "class_balance has 1 entries. Does not match LabelModel cardinal",
    ),
    (lambda: LabelModel().fit([[0, 1, 1]], None, [0, 1]), "Class balance prior is 0 for class(es)"),
]


@pytest.mark.parametrize(("call", "phrase"), PHRASES, ids=[phrase for _, phrase in PHRASES])
def test_errors_have_snorkels_phrases(call: Callable[[], Any], phrase: str) -> None:
    """They are a ValueError, as there."""
    with pytest.raises(ValueError, match=re.escape(phrase)):
        call()


def test_a_missing_method_is_not_implemented() -> None:
    """A preprocessor needs a method ``run``."""
    with pytest.raises(NotImplementedError):
        Preprocessor("a", {})({"text": "b"})


def test_weights_are_saved_by_the_name_of_the_argument(tmp_path: Path) -> None:
    """Of the classifier of tasks and of the slice-aware one."""
    aware = [SliceAwareClassifier(nn.Linear(2, 4), 4, ["a"], "x") for _ in range(2)]
    for first, second in ([MultitaskClassifier([task()]), MultitaskClassifier([task()])], aware):
        first.save(model_path=tmp_path / "model")
        second.load(model_path=tmp_path / "model")
        assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    outputs = aware[0](X_dict=X, task_names=["task_slice:a_ind"])
    assert outputs["task_slice:a_ind_head"].shape == (2, 2)


def test_a_classifier_prints_short() -> None:
    """By class and name."""
    assert repr(MultitaskClassifier([task()], name="mine")) == "MultitaskClassifier(name=mine)"
    aware = SliceAwareClassifier(nn.Linear(2, 4), 4, ["a"], task_name="spam")
    assert repr(aware) == "SliceAwareClassifier(name=spam_sliceaware_classifier)"
