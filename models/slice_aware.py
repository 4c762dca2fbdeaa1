"""The slice-aware classifier: a backbone, an indicator and an expert for every slice, and attention.

Slices are heads of stacked tensors, identified by index; names are only labels. The last head is the base
slice, of which every row is a member.

References
----------
.. [1] Chen, Wu, Ratner, Weng, Ré. Slice-based Learning: A Programming Model for Residual Learning in
   Critical Data Slices. NeurIPS 2019. https://arxiv.org/abs/1909.06349
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.baselines import MLP
from models.batches import Batch, FeatureRows, as_rows, finite_softmax, predict_in_chunks
from models.dataset import (
    BASE_SLICE,
    DEFAULT_INPUT_DATA_KEY,
    DEFAULT_TASK_NAME,
    DictDataLoader,
    DictDataset,
    SliceTargets,
    expert_label,
    indicator_label,
    read_slice_labels,
    slice_targets,
    with_slice_labels,
)
from models.errors import ConfigError, ModelError, require_type
from models.experts import Attention, FullExperts, LowRankExperts, attend, default_temperature
from models.multitask import (
    INPUT,
    Device,
    MultitaskClassifier,
    Operation,
    Outputs,
    Task,
    eval_mode,
    find_device,
    move_to_device,
    names_of_weights,
)
from models.objectives import expert_loss, indicator_loss, weighted_cross_entropy
from models.scoring import Scorer
from models.slice_tasks import (
    LinearView,
    SliceCombinerModule,
    StackedModules,
    convert_to_slice_tasks,
    key_of,
    slice_operations,
    with_base,
)
from sfs.matrix import SliceMatrix

Floats: TypeAlias = NDArray[np.float64]
Inputs: TypeAlias = FeatureRows | Tensor | NDArray[np.float32]

DEFAULT_RANK = 4
_PREDICTION_ROWS = 4096


class Heads(NamedTuple):
    """Outputs of the network for B rows; S = K + 1 heads, the base slice last.

    ``logits`` float[B, C], ``membership`` logits float[B, S], ``experts`` logits float[B, S, C],
    ``attention`` float[B, S].
    """

    logits: Tensor
    membership: Tensor
    experts: Tensor
    attention: Tensor


class SliceAwareClassifier(MultitaskClassifier):
    """Classifier with one representation per slice, and attention over the slices of a row.

    It has the tasks, operations and modules of `models.slice_tasks.convert_to_slice_tasks` by their names, but
    computes all slices at once: ``module_pool`` has views of the stacked weights. Tasks of one's own are added with
    ``add_task``; they may start from the operation ``input_op``, the backbone's float[B, H].

    Parameters
    ----------
    base_architecture
        The backbone, float[B, ...] to float[B, H].
    head_dim
        H.
    slice_names
        K distinct names.
    input_data_key, task_name, scorer
        The field of the inputs in datasets, the name of the labels, and the metrics of ``score``.
    num_classes
        C.
    expert_rank
        Rank of each expert's correction of the shared representation, or None for a full H x H matrix per expert; by
        default 4, and full with ``attention="snorkel"``, which thus is Snorkel's network.
    attention
        ``symmetric``, or ``snorkel`` for two classes: see ``models.experts.attend``.
    temperature
        Divides the attention logits; ``default_temperature`` by default, with which one slice can win against K.
    class_weights
        C factors on the loss of each class.
    device, dataparallel
        As for `MultitaskClassifier`.

    Raises
    ------
    ConfigError
        If a value is out of range, or names repeat.
    """

    def __init__(
        self,
        base_architecture: nn.Module,
        head_dim: int,
        slice_names: Sequence[str],
        input_data_key: str = DEFAULT_INPUT_DATA_KEY,
        task_name: str = DEFAULT_TASK_NAME,
        scorer: Scorer | None = None,
        *,
        num_classes: int = 2,
        expert_rank: int | Literal["default"] | None = "default",
        attention: Attention = "symmetric",
        temperature: float | None = None,
        class_weights: Sequence[float] | None = None,
        device: Device = None,
        dataparallel: bool = False,
    ) -> None:
        super().__init__((), f"{task_name}_sliceaware_classifier", dataparallel=dataparallel)
        require_type(base_architecture, nn.Module, "base_architecture", "a torch module")
        if isinstance(slice_names, str) or len(set(slice_names)) != len(slice_names):
            raise ConfigError(f"slice_names must be distinct names, got {slice_names!r}")
        if num_classes < 2:
            raise ConfigError(f"num_classes must be at least 2, got {num_classes}")
        if expert_rank == "default":
            expert_rank = None if attention == "snorkel" else DEFAULT_RANK
        if not (expert_rank is None or (isinstance(expert_rank, int) and expert_rank >= 1)):
            raise ConfigError(f"expert_rank must be at least 1, or None for full rank, got {expert_rank!r}")
        if attention not in ("symmetric", "snorkel"):
            raise ConfigError(f"attention must be 'symmetric' or 'snorkel', got {attention!r}")
        if attention == "snorkel" and num_classes != 2:
            raise ConfigError(f"attention 'snorkel' requires two classes, got {num_classes}: use 'symmetric'")
        if temperature is not None and not temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {temperature}")
        if class_weights is not None and len(class_weights) != num_classes:
            raise ConfigError(f"class_weights must have {num_classes} entries, got {len(class_weights)}")

        S = len(slice_names) + 1
        self.slice_names, self.head_dim, self.num_classes = list(slice_names), head_dim, num_classes
        self.input_data_key, self.task_name = input_data_key, task_name
        self.expert_rank, self.attention_kind = expert_rank, attention
        self.temperature = temperature or default_temperature(attention, S - 1)
        self.base_architecture = base_architecture
        self.indicators = nn.Linear(head_dim, 2 * S if attention == "snorkel" else S)
        full = expert_rank is None
        self.experts = FullExperts(S, head_dim) if full else LowRankExperts(S, head_dim, expert_rank or 1)
        self.expert_head = nn.Linear(head_dim, num_classes)
        self.head = nn.Linear(head_dim, num_classes)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
        self._head_of: dict[str, tuple[str, int]] = {task_name: ("task", 0)}
        for k, name in enumerate(with_base(self.slice_names)):
            self._head_of[indicator_label(task_name, name)] = ("indicator", k)
            self._head_of[expert_label(task_name, name)] = ("expert", k)
        scorer = scorer or Scorer(metrics=["accuracy", "f1" if num_classes == 2 else "f1_macro"])
        self._add(list(self._slice_tasks(scorer)))
        if device is not None:
            self.to(find_device(device))

    def _slice_tasks(self, scorer: Scorer) -> Iterator[Task]:
        body = [Operation("base_architecture", [(INPUT, self.input_data_key)], "input_op")]
        operations = slice_operations(self.task_name, with_base(self.slice_names), body, ["input_op"])
        f1 = Scorer(metrics=["f1"])
        for label, sequence in operations.items():
            kind, _ = self._head_of[label]
            yield Task(label, nn.ModuleDict(), sequence, f1 if kind == "indicator" else scorer)

    @property
    def module_pool(self) -> nn.ModuleDict:  # type: ignore[override]  # made anew, without a cycle of references
        """All modules by name: those of added tasks, and views of the slices'."""
        added: Any = self._modules["module_pool"]
        return StackedModules(added, self.slice_modules)

    @property
    def base_task(self) -> Task:
        """The task without slices: the backbone, and the head as it is."""
        body = Operation("base_architecture", [(INPUT, self.input_data_key)], "input_op")
        pool = nn.ModuleDict({"base_architecture": self.base_architecture, "prediction_head": self.head})
        return Task(self.task_name, pool, [body, Operation("prediction_head", ["input_op"], "head_op")], self.scorer)

    @property
    def scorer(self) -> Scorer:
        """Metrics of all labels but those of indicators, which are measured by F1."""
        return self.scorers[self.task_name]

    @scorer.setter
    def scorer(self, scorer: Scorer) -> None:
        self.scorers |= {label: scorer for label, (kind, _) in self._head_of.items() if kind != "indicator"}

    @property
    def device(self) -> torch.device:
        """Device of the modules."""
        return self.head.weight.device

    def heads(self, X: Any) -> Heads:
        """Return the outputs of every head for a batch in the form that the backbone takes."""
        return self._heads(self.base_architecture(X))

    def _heads(self, z: Tensor) -> Heads:
        membership = self.indicators(z)  # [B, S], or [B, 2 S] for Snorkel's pairs
        if self.attention_kind == "snorkel":
            pairs = membership.view(len(z), -1, 2)
            membership = pairs[..., 1] - pairs[..., 0]  # [B, S], the same softmax
        codes = self.experts.codes(z)
        experts = self.experts.logits(z, codes, self.expert_head)  # [B, S, C]
        attention = attend(self.attention_kind, membership, experts, self.temperature)
        return Heads(self.head(self.experts.mixture(z, codes, attention)), membership, experts, attention)

    def forward(self, X_dict: Any, task_names: Iterable[str] | None = None) -> Any:
        """Return logits float[B, C] of a batch for the backbone, or of a dictionary that holds it.

        With names of tasks, return the output of each of their operations by its name, as `MultitaskClassifier` does.
        """
        if task_names is None:
            return self.heads(X_dict[self.input_data_key] if isinstance(X_dict, Mapping) else X_dict).logits
        return super().forward(X_dict, task_names)

    def _run(self, outputs: Outputs, task_names: Iterable[str]) -> Outputs:
        names = list(task_names)
        if any(name in self._head_of for name in names):
            stacked = self._stacked_outputs(outputs)
            for name in names:
                used = self._operations(name) if name in self._head_of else ()
                outputs |= {operation.name: stacked[operation.name] for operation in used}
        return super()._run(outputs, names)

    def _stacked_outputs(self, outputs: Outputs) -> Outputs:
        """Return the outputs of all operations of the slices."""
        z = self._backbone(outputs)
        heads, represented = self._heads(z), self.experts.represent(z)
        inside = heads.membership
        pairs = torch.stack([torch.zeros_like(inside), inside], dim=2)  # [B, S, 2]
        if self.attention_kind == "snorkel":
            pairs = self.indicators(z).view(len(z), -1, 2)
        task = self.task_name
        out = {"input_op": z, f"{task}_master_head": heads.logits}
        out[f"{task}_master_combiner"] = torch.einsum("bs,bsh->bh", heads.attention, represented)
        for k, name in enumerate(with_base(self.slice_names)):
            out[indicator_label(task, name) + "_head"] = pairs[:, k]
            out[expert_label(task, name) + "_transform"] = represented[:, k]
            out[expert_label(task, name) + "_head"] = heads.experts[:, k]
        return out

    def _backbone(self, outputs: Outputs) -> Tensor:
        """Return the backbone's output float[B, H], computed once for a batch."""
        if "input_op" not in outputs:
            modules = {"base_architecture": self.base_architecture}  # without making the views of all slices
            outputs["input_op"] = self.op_sequences[self.task_name][0].run(modules, outputs)
        z: Tensor = outputs["input_op"]
        return z

    def _task_outputs(self, X_dict: Mapping[str, Any], task_names: Iterable[str]) -> dict[str, Tensor]:
        names, outputs = list(task_names), {INPUT: move_to_device(X_dict, self.device)}
        sliced = [name for name in names if name in self._head_of]
        own = [name for name in names if name not in self._head_of]
        heads = self._heads(self._backbone(outputs)) if sliced else None
        super()._run(outputs, own)
        answers = {name: outputs[self.op_sequences[name][-1].name] for name in own}
        return answers | {name: _head_logits(heads, *self._head_of[name]) for name in sliced if heads is not None}

    def _main_tasks(self) -> Iterable[str]:
        return [name for name in self.op_sequences if self._head_of.get(name, ("task", 0))[0] == "task"]

    def loss(self, X: Any, y: Tensor, S: SliceMatrix | None, weights: Tensor | None = None) -> Tensor:
        """Return the loss of a batch: L_base + L_ind + L_pred, each a mean (see ``models.objectives``).

        Parameters
        ----------
        y
            Classes int64[B], or probabilities float[B, C].
        S
            Memberships by name, in any order; slices that it lacks are unknown, and all of them without S.
        weights
            float[B], the weight of each row in L_base and L_pred, 1 on average over all rows.
        """
        targets = move_to_device(slice_targets(S, self.slice_names, len(y)), y.device)
        losses = self.losses(X, y, targets, weights)
        return sum(losses.values(), torch.zeros((), device=y.device))

    def calculate_loss(
        self, X_dict: Mapping[str, Any], Y_dict: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return the three losses and the number of known labels or memberships of each, and those of added tasks.

        The labels are those of ``make_slice_dataloader``; the three are absent from a batch with labels of added tasks
        only.
        """
        own = [label for label in Y_dict if label in self.op_sequences and label not in self._head_of]
        outputs: Outputs = {INPUT: move_to_device(X_dict, self.device)}
        losses, counts = dict[str, Tensor](), dict[str, int]()
        if self.task_name in Y_dict or not own:
            y, targets = move_to_device(read_slice_labels(Y_dict, self.task_name, self.slice_names), self.device)
            losses = self._losses(self._heads(self._backbone(outputs)), y, targets)
            known = (targets.labelled, targets.known, targets.member)
            counts = {name: int(mask.sum()) for name, mask in zip(losses, known, strict=True)}
        if own:
            super()._run(outputs, own)
            added = self._labelled_losses({name: outputs[self.op_sequences[name][-1].name] for name in own}, Y_dict)
            losses, counts = losses | added[0], counts | added[1]
        return losses, counts

    def losses(self, X: Any, y: Tensor, targets: SliceTargets, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Return the three losses by name; ``targets`` are of the K slices in order, weights as in ``loss``."""
        return self._losses(self.heads(X), y, targets, weights)

    def _losses(
        self, heads: Heads, y: Tensor, targets: SliceTargets, weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        everyone = torch.ones_like(targets.labelled).unsqueeze(1)  # the base slice, [B, 1]
        member = torch.cat([targets.member, everyone], dim=1)  # [B, S]
        known = torch.cat([targets.known, everyone], dim=1)
        # A constant target gives no training signal: unlike Snorkel's, the base slice's indicator has no loss.
        taught = member.shape[1] - (self.attention_kind != "snorkel")
        indicators = indicator_loss(heads.membership[:, :taught], member[:, :taught], known[:, :taught])
        counts = member & targets.labelled.unsqueeze(1)
        rows = weighted_cross_entropy(heads.logits, y, targets.labelled, self.class_weights, weights)
        return {
            self.task_name: rows,
            f"{self.task_name}_indicators": indicators,
            f"{self.task_name}_experts": expert_loss(heads.experts, y, counts, self.class_weights, weights),
        }

    def predict_proba(self, X: Inputs) -> Floats:
        """Return float[N, C]; reads neither labels nor memberships.

        Raises
        ------
        ModelError
            If a feature or a weight is not a finite number.
        """
        return self._collect(X, lambda heads, at: finite_softmax(heads.logits, at), self.num_classes)

    def slice_attention(self, X: Inputs) -> Floats:
        """Return float[N, K + 1], the attention weight of each slice's expert; the base is last."""
        return self._collect(X, lambda heads, _: heads.attention.numpy(force=True), len(self.slice_names) + 1)

    def _collect(self, X: Inputs, part: Callable[[Heads, int], NDArray[Any]], width: int) -> Floats:
        out = np.empty((len(X), width))
        rows = X if isinstance(X, Tensor) else as_rows(X)
        with eval_mode(self):
            for start in range(0, len(X), _PREDICTION_ROWS):
                chosen = slice(start, start + _PREDICTION_ROWS)
                batch = rows[chosen] if isinstance(rows, Tensor) else rows.take(chosen)
                out[chosen] = part(self.heads(batch.to(self.device)), start)
        return out

    def make_slice_dataloader(
        self, dataset: DictDataset, S: SliceMatrix | np.recarray[Any, Any], **dataloader_kwargs: Any
    ) -> DictDataLoader:
        """Return a loader of the rows with the labels of every slice; the dataset itself stays as it is.

        Raises
        ------
        DataError
            If the dataset lacks the task's labels, or S other rows or other slices than the classifier.
        """
        sliced = with_slice_labels(dataset, self.task_name, S, self.slice_names)
        return DictDataLoader(sliced, **dataloader_kwargs)

    def score_slices(
        self, dataloaders: Sequence[DictDataLoader], as_dataframe: bool = False
    ) -> dict[str, float | None] | pd.DataFrame:
        """Score the final prediction overall and on the members of every slice; indicators are left out."""
        remap = {label: None if kind == "indicator" else self.task_name for label, (kind, _) in self._head_of.items()}
        members = [label for label, (kind, _) in self._head_of.items() if kind == "expert"]
        return self._score(dataloaders, remap, as_dataframe, members)

    def slice_modules(self) -> dict[str, nn.Module]:
        """Return the modules by Snorkel's names: the backbone, the heads, and views of the stacked weights."""
        names, task = with_base(self.slice_names), self.task_name
        out: dict[str, nn.Module] = {"base_architecture": self.base_architecture}
        for k, name in enumerate(names):
            out[key_of(indicator_label(task, name) + "_head")] = LinearView(partial(self._indicator, k))
            out[key_of(expert_label(task, name) + "_transform")] = LinearView(partial(self.experts.linear, k))
            out[key_of(expert_label(task, name) + "_head")] = self.expert_head
        prefixes = [f"{task}_slice:{name}" for name in names]
        options: dict[str, Any] = {"temperature": self.temperature, "attention": self.attention_kind}
        out[key_of(f"{task}_master_combiner")] = SliceCombinerModule(slices=prefixes, **options)
        out[key_of(f"{task}_master_head")] = self.head
        return out

    def _indicator(self, k: int) -> tuple[Tensor, Tensor]:
        """Return weight float[2, H] and bias float[2] of an indicator."""
        weight, bias = self.indicators.weight, self.indicators.bias
        if self.attention_kind == "snorkel":
            return weight[2 * k : 2 * k + 2], bias[2 * k : 2 * k + 2]
        return torch.stack([torch.zeros_like(weight[k]), weight[k]]), torch.stack([torch.zeros_like(bias[k]), bias[k]])

    def load(self, model_path: str | Path) -> None:
        """Read weights that ``save`` wrote, or those of Snorkel's network by the names of its modules.

        Raises
        ------
        ModelError
            As `MultitaskClassifier.load`; or for Snorkel's weights, if this is not Snorkel's network.
        """
        if not any(name.startswith("module_pool.base_architecture.") for name in names_of_weights(model_path)):
            super().load(model_path)
            return
        if self.attention_kind != "snorkel" or self.expert_rank is not None:
            raise ModelError(
                f"{model_path} has the weights of Snorkel's network: make one with attention='snorkel' to load it"
            )
        if BASE_SLICE in self.slice_names:
            raise ModelError(
                f"{model_path} cannot be read with a slice named {BASE_SLICE!r}, as Snorkel's own: rename it"
            )
        read = MultitaskClassifier(convert_to_slice_tasks(copy.deepcopy(self.base_task), self.slice_names))
        read.load(model_path)
        with torch.no_grad():
            for name, module in read.module_pool.items():
                own = self.module_pool[name]
                if isinstance(own, LinearView) and isinstance(module, nn.Linear):
                    own.weight.copy_(module.weight)
                    own.bias.copy_(module.bias)
                else:
                    own.load_state_dict(module.state_dict())

    def config(self) -> dict[str, Any]:
        """Return everything but the backbone and the weights, as JSON values."""
        return {
            "head_dim": self.head_dim,
            "slice_names": list(self.slice_names),
            "input_data_key": self.input_data_key,
            "task_name": self.task_name,
            "num_classes": self.num_classes,
            "expert_rank": self.expert_rank,
            "attention": self.attention_kind,
            "temperature": self.temperature,
            "class_weights": None if self.class_weights is None else self.class_weights.tolist(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], base_architecture: nn.Module) -> SliceAwareClassifier:
        """Return a classifier over a backbone, with fresh weights."""
        return cls(base_architecture, **config)


def _head_logits(heads: Heads, kind: str, k: int) -> Tensor:
    """Return float[B, C] of a head; of an indicator float[B, 2], whose softmax is the membership."""
    if kind == "indicator":
        inside = heads.membership[:, k]
        return torch.stack([torch.zeros_like(inside), inside], dim=1)
    logits: Tensor = heads.logits if kind == "task" else heads.experts[:, k]
    return logits


class AttentiveClassifier(nn.Module):
    """A ``SliceAwareClassifier`` over an MLP, with the interface of the other learners.

    Memberships are read in training only.

    Parameters
    ----------
    backbone
        From D features to H hidden units.
    slice_names
        K distinct names.
    num_classes
        C.
    options
        Further arguments of ``SliceAwareClassifier``, by the names of its ``config()``.
    """

    def __init__(
        self,
        backbone: MLP,
        slice_names: Sequence[str],
        num_classes: int = 2,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.num_classes = backbone.in_features, num_classes
        self.slice_names = self.indicated = tuple(slice_names)
        self._backbone_config = backbone.config()
        required = {"head_dim": backbone.out_features, "slice_names": slice_names, "num_classes": num_classes}
        self.network = SliceAwareClassifier(backbone, **{**(options or {}), **required})

    def forward(self, X: Tensor) -> Tensor:
        """Return logits float[B, C]."""
        logits: Tensor = self.network.forward(X)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of the three losses of slice-based learning; row weights apply to labels, not memberships."""
        labelled = torch.ones(len(batch.y), dtype=torch.bool)
        targets = SliceTargets(batch.slices.member.bool(), batch.slices.known, labelled)
        losses = self.network.losses(batch.X, batch.y, targets, batch.weight)
        return torch.stack(list(losses.values())).sum()

    def predict_proba(
        self, X: FeatureRows | Tensor | NDArray[np.float32], S: SliceMatrix | None = None
    ) -> NDArray[np.float64]:
        """Return float[N, C]; memberships are ignored. Raises as `models.batches.predict_in_chunks`."""
        return predict_in_chunks(as_rows(X), self.in_features, self.num_classes, lambda x, _: self.forward(x))

    def predict_indicated(self, X: FeatureRows, S: SliceMatrix) -> tuple[Floats, NDArray[np.bool_]]:
        """Return float[N, C], and the memberships by the indicators, bool[N, K]."""
        inside = np.zeros((len(X), len(self.slice_names)), np.bool_)

        def logits(x: Tensor, rows: slice) -> Tensor:
            heads = self.network.heads(x)
            inside[rows] = heads.membership[:, : inside.shape[1]].numpy(force=True) > 0
            return heads.logits

        return predict_in_chunks(X, self.in_features, self.num_classes, logits), inside

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config`` as JSON values."""
        return {
            "kind": "slice_aware",
            "backbone": self._backbone_config,
            "options": self.network.config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AttentiveClassifier:
        """Return an untrained network built from the output of ``config()``."""
        options = config["options"]
        return cls(MLP.from_config(config["backbone"]), options["slice_names"], options["num_classes"], options)
