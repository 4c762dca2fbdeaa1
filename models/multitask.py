"""Several tasks on one network, after Snorkel: modules by name, and for every task a sequence of operations on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_model
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from models.dataset import DictDataLoader, check_slice_labels, label_tensor
from models.errors import ConfigError, DataError, ModelError
from models.scoring import SCORE_COLUMNS, Scorer

Outputs: TypeAlias = dict[str, Any]
Device: TypeAlias = int | str | torch.device | None
RemapLabels: TypeAlias = Mapping[str, str | None]

INPUT = "_input_"
"""Name of the batch among the outputs of operations."""
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass
class Operation:
    """Application of a module to outputs of earlier operations.

    Parameters
    ----------
    module_name
        Name of the module in the pool.
    inputs
        Per argument the name of an operation, or (operation, key) for an item of its output; ``_input_`` is the
        dictionary of the batch's fields. Without inputs, the argument is the dictionary of all outputs so far.
    name
        Name of the output; the module's by default. Operations of one name run once in a batch.
    """

    module_name: str
    inputs: Sequence[str | tuple[str, str | int]]
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or self.module_name

    def run(self, modules: Mapping[str, nn.Module] | nn.ModuleDict, outputs: Outputs) -> Any:
        """Return the output of the module.

        Raises
        ------
        ModelError
            If it raises, or an input is missing.
        """
        try:
            given = [outputs[each] if isinstance(each, str) else outputs[each[0]][each[1]] for each in self.inputs]
            return modules[self.module_name](*(given or [outputs]))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ModelError(f"Unsuccessful operation {self}: {error!r}") from error


@dataclass(eq=False)
class Task:
    """A set of labels, and how they are predicted.

    Parameters
    ----------
    name
        Name of the labels in datasets.
    module_pool
        Modules by name; other tasks of a classifier may use them too.
    op_sequence
        Operations; the output of the last, [B, ...], is that of the task.
    scorer
        Metrics; accuracy by default.
    loss_func
        Function of the output and labels of B labelled rows; the mean cross entropy by default.
    output_func
        Function from the output to probabilities; softmax by default.

    Raises
    ------
    ConfigError
        If there is no operation.
    """

    name: str
    module_pool: nn.ModuleDict
    op_sequence: Sequence[Operation]
    scorer: Scorer = field(default_factory=lambda: Scorer(metrics=["accuracy"]))
    loss_func: Callable[..., Tensor] | None = None
    output_func: Callable[..., Tensor] | None = None

    def __post_init__(self) -> None:
        if not self.op_sequence:
            raise ConfigError(f"task {self.name!r} has no operation: op_sequence must have one or more")
        pool: Any = self.module_pool
        if not isinstance(pool, nn.ModuleDict):
            self.module_pool = nn.ModuleDict(pool)
        self.loss_func = self.loss_func or F.cross_entropy
        self.output_func = self.output_func or softmax

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name})"


def softmax(logits: Tensor) -> Tensor:
    """Return probabilities [B, C] of logits."""
    return torch.softmax(logits, dim=1)


class MultitaskClassifier(nn.Module):
    """Classifier of several tasks, whose operations share modules.

    Parameters
    ----------
    tasks
        Tasks with distinct names. Where two have a module of one name, that of the first is used.
    name
        Name of the classifier; its class by default.
    device
        Device of the modules: a torch device or its name, an index of a GPU (the CPU where there is none, or below 0),
        or None to leave them where they are. Batches are moved to the modules.
    dataparallel
        False; a classifier computes on one device.

    Raises
    ------
    ConfigError
        If a task is no task, repeats a name, or uses a module that no task has.
    """

    module_pool: nn.ModuleDict

    def __init__(
        self, tasks: Iterable[Task], name: str | None = None, *, device: Device = None, dataparallel: bool = False
    ) -> None:
        super().__init__()
        if dataparallel:
            raise ConfigError("dataparallel=True is not supported: a classifier computes on one device, leave it out")
        self.name = name or type(self).__name__
        self.module_pool = nn.ModuleDict()
        self.task_names: set[str] = set()
        self.op_sequences: dict[str, Sequence[Operation]] = {}
        self.loss_funcs: dict[str, Callable[..., Tensor]] = {}
        self.output_funcs: dict[str, Callable[..., Tensor]] = {}
        self.scorers: dict[str, Scorer] = {}
        if tasks := list(tasks):
            self._add(tasks)
        if device is not None:
            self.to(find_device(device))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name})"

    def add_task(self, task: Task) -> None:
        """Add a task, which may use the modules of the classifier; raises ConfigError as the constructor."""
        self._add([task])
        self.to(self.device)

    def _add(self, tasks: Sequence[Task]) -> None:
        names = set(self.task_names)
        known = set(self.module_pool.keys())
        for task in tasks:
            if not isinstance(task, Task):
                raise ConfigError(f"Unrecognized task type {type(task).__name__}: tasks must be of class Task")
            if task.name in names:
                raise ConfigError(f"Found duplicate task {task.name}: give it another name")
            names.add(task.name)
            known.update(task.module_pool.keys())
        for task in tasks:
            for operation in task.op_sequence:
                if operation.module_name not in known:
                    raise ConfigError(f"{operation} of task {task.name!r} has no module; there are {sorted(known)}")
        for task in tasks:
            for name, module in task.module_pool.items():
                if name not in self.module_pool:
                    self.module_pool[name] = module
            self.task_names.add(task.name)
            self.op_sequences[task.name] = task.op_sequence
            self.loss_funcs[task.name] = task.loss_func or F.cross_entropy
            self.output_funcs[task.name] = task.output_func or softmax
            self.scorers[task.name] = task.scorer

    @property
    def device(self) -> torch.device:
        """Device of the modules."""
        first = next(self.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def forward(self, X_dict: Mapping[str, Any], task_names: Iterable[str]) -> Any:
        """Return the output of every operation of some tasks by its name, each computed once.

        Raises
        ------
        ModelError
            If an operation fails.
        """
        return self._run({INPUT: move_to_device(X_dict, self.device)}, task_names)

    def _run(self, outputs: Outputs, task_names: Iterable[str]) -> Outputs:
        for task in task_names:
            for operation in self._operations(task):
                if operation.name not in outputs:
                    outputs[operation.name] = operation.run(self.module_pool, outputs)
        return outputs

    def _operations(self, task: str) -> Sequence[Operation]:
        if task not in self.op_sequences:
            raise DataError(f"unknown task {task!r}; known are {list(self.op_sequences)}")
        return self.op_sequences[task]

    def _task_outputs(self, X_dict: Mapping[str, Any], task_names: Iterable[str]) -> dict[str, Tensor]:
        """Return the output of each task."""
        names = list(task_names)
        outputs = self(X_dict, names)
        return {name: outputs[self.op_sequences[name][-1].name] for name in names}

    def calculate_loss(
        self, X_dict: Mapping[str, Any], Y_dict: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return the loss and the number of labelled rows of every task with labels in a batch.

        A row whose labels are all -1 is not labelled; a task without labelled rows is absent. Labels of no task are
        ignored.

        Raises
        ------
        DataError
            If labels are no tensors, or those of slices are not those of the model's slices.
        """
        check_slice_labels(Y_dict, self.op_sequences)
        names = [label for label in Y_dict if label in self.op_sequences]
        return self._labelled_losses(self._task_outputs(X_dict, names), Y_dict)

    def _labelled_losses(
        self, outputs: Mapping[str, Tensor], Y_dict: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        losses, counts = dict[str, Tensor](), dict[str, int]()
        for name, output in outputs.items():
            y = label_tensor(name, Y_dict[name]).to(output.device)
            labelled = (y != -1).view(len(y), -1).any(dim=1)
            counts[name] = int(labelled.sum())
            if counts[name]:
                every = counts[name] == len(y)
                losses[name] = self.loss_funcs[name](*(part if every else part[labelled] for part in (output, y)))
            else:
                del counts[name]
        return losses, counts

    def predict(
        self, dataloader: DictDataLoader, return_preds: bool = False, remap_labels: RemapLabels | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """Return ``golds`` [N], ``probs`` [N, C] and optionally ``preds`` [N] by label, as float tensors on the CPU.

        Parameters
        ----------
        dataloader
            Batches with labels of any tasks. Without such labels all tasks are predicted, but for the slices of a
            `SliceAwareClassifier`.
        return_preds
            Add the likeliest class of every row.
        remap_labels
            For a label of any name, the task that predicts it, or None to leave it out.

        Raises
        ------
        DataError
            If a label is mapped to a task that does not exist.
        """
        remap = remap_labels or {}
        for target in remap.values():
            if target is not None:
                self._operations(target)
        parts: dict[str, dict[str, list[Tensor]]] = {"golds": {}, "probs": {}}
        with eval_mode(self):
            for X_dict, Y_dict in dataloader:
                task_of = self._tasks_of_labels(Y_dict, remap)
                outputs = self._task_outputs(X_dict, dict.fromkeys(task_of.values()))
                probs = {task: self.output_funcs[task](output).float().cpu() for task, output in outputs.items()}
                for label, task in task_of.items():
                    parts["probs"].setdefault(label, []).append(probs[task])
                    if label in Y_dict:
                        parts["golds"].setdefault(label, []).append(Y_dict[label])
        out = {part: {label: torch.cat(values) for label, values in each.items()} for part, each in parts.items()}
        out["golds"] = {label: values.float().cpu() for label, values in out["golds"].items()}
        if return_preds:
            out["preds"] = {label: values.argmax(dim=1).float() for label, values in out["probs"].items()}
        return out

    def _tasks_of_labels(self, Y_dict: Mapping[str, Tensor], remap: RemapLabels) -> dict[str, str]:
        """Return the task that predicts each label of a batch; each main task for itself where none has labels."""
        targets = {
            label: remap.get(label, label) for label in Y_dict if label in remap or label in self.op_sequences
        } or {task: remap.get(task, task) for task in self._main_tasks()}
        return {label: task for label, task in targets.items() if task is not None}

    def _main_tasks(self) -> Iterable[str]:
        return self.op_sequences

    def score(
        self,
        dataloaders: Sequence[DictDataLoader],
        remap_labels: RemapLabels | None = None,
        as_dataframe: bool = False,
    ) -> dict[str, float | None] | pd.DataFrame:
        """Return the scores of every label by its task's scorer, under label/dataset/split/metric.

        A metric is None where nothing is to be scored.

        Parameters
        ----------
        dataloaders
            One or more, identified by the names and splits of their datasets.
        remap_labels
            As for ``predict``.
        as_dataframe
            Return a row per score instead.
        """
        return self._score(dataloaders, remap_labels or {}, as_dataframe)

    def _score(
        self,
        dataloaders: Sequence[DictDataLoader],
        remap: RemapLabels,
        as_dataframe: bool,
        of_members: Collection[str] = (),
    ) -> dict[str, float | None] | pd.DataFrame:
        """Return the scores; the rows of the labels ``of_members`` are those with a label."""
        rows: list[tuple[str, str, str, str, float | None]] = []
        for loader in [dataloaders] if isinstance(dataloaders, DictDataLoader) else dataloaders:
            outputs = self.predict(loader, True, remap)
            for label, gold in outputs["golds"].items():
                given = (gold.numpy(), outputs["preds"][label].numpy(), outputs["probs"][label].numpy())
                if label in of_members:
                    known = (given[0] != -1).reshape(len(gold), -1).any(axis=1)
                    given = (given[0][known], given[1][known], given[2][known])
                metrics = self.scorers[remap.get(label) or label].score_known(*given)
                rows += [(label, loader.dataset.name, loader.dataset.split, *item) for item in metrics.items()]
        if as_dataframe:
            return pd.DataFrame(rows, columns=SCORE_COLUMNS)
        return {"/".join(row[:4]): row[4] for row in rows}

    def save(self, model_path: str | Path) -> None:
        """Write the weights as safetensors, making the folder where needed."""
        Path(model_path).parent.mkdir(parents=True, exist_ok=True)
        save_model(self, str(model_path))

    def load(self, model_path: str | Path) -> None:
        """Read weights that ``save`` wrote.

        Raises
        ------
        ModelError
            If the file is no safetensors file, or has the weights of another network.
        """
        names, own = set(names_of_weights(model_path)), self.state_dict()
        read = {own[name].data_ptr() for name in names & own.keys()}
        missing = sorted(
            name for name in own.keys() - names if own[name].data_ptr() not in read
        )  # a shared one is read
        other = f"{model_path} has the weights of another network"
        if missing or names - own.keys():
            raise ModelError(f"{other}: it lacks {missing or 'none'}, and has besides {sorted(names - own.keys())}")
        try:
            self.load_state_dict(load_file(model_path), strict=False)
        except RuntimeError as error:  # other shapes
            raise ModelError(f"{other}: {' '.join(str(error).split())}") from error


def names_of_weights(path: str | Path) -> list[str]:
    """Return the names of the tensors of a safetensors file; raise ModelError if it is another file."""
    with Path(path).open("rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLES):
        raise ModelError(
            f"{path} is a file of torch.save: its pickled objects could run code, and are not read. Convert it: "
            "safetensors.torch.save_file({k: v.clone() for k, v in torch.load(path, weights_only=True).items()}, new)"
        )
    try:
        with safe_open(path, "pt") as tensors:
            return list(tensors.keys())
    except SafetensorError as error:
        raise ModelError(f"{path} is no safetensors file, as save() writes it: {error}") from error


def find_device(device: int | str | torch.device) -> torch.device:
    """Return a device; an index means a GPU, or the CPU where there is none or the index is below 0."""
    if isinstance(device, int):
        return torch.device(f"cuda:{device}" if device >= 0 and torch.cuda.is_available() else "cpu")
    return torch.device(device)


def move_to_device(obj: Any, device: int | str | torch.device = -1) -> Any:
    """Return nested dicts, lists and tuples with all tensors on a device, and everything else unchanged."""
    target = find_device(device)
    if isinstance(obj, Tensor):
        return obj.to(target)
    if isinstance(obj, dict):
        return {key: move_to_device(value, target) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        moved = [move_to_device(value, target) for value in obj]
        return type(obj)(*moved) if hasattr(obj, "_fields") else type(obj)(moved)
    return obj


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run a block in eval mode without gradients, and restore the previous mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
