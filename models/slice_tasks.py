"""Tasks of a sliced network in Snorkel's form: an indicator and an expert per slice, and their combination."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.dataset import BASE_SLICE, expert_label, indicator_label
from models.errors import ConfigError, DataError
from models.experts import Attention, attend
from models.multitask import Operation, Outputs, Task
from models.scoring import Scorer

IND_HEAD, PRED_HEAD, PRED_TRANSFORM = "_ind_head", "_pred_head", "_pred_transform"


class SliceCombinerModule(nn.Module):
    """Mean of the experts' representations, weighted by attention over the slices.

    Parameters
    ----------
    slice_ind_key, slice_pred_key, slice_pred_feat_key
        Ends of the names of the outputs of indicators float[B, 2], expert heads float[B, C] and expert
        representations float[B, H]; what precedes them is one name for each slice.
    temperature
        Divides the attention logits, see ``models.experts.attend``.
    slices
        What precedes the ends, for every slice; by default that of all outputs with these ends.
    attention
        As for ``models.experts.attend``.
    """

    def __init__(
        self,
        slice_ind_key: str = IND_HEAD,
        slice_pred_key: str = PRED_HEAD,
        slice_pred_feat_key: str = PRED_TRANSFORM,
        temperature: float = 1.0,
        *,
        slices: Sequence[str] | None = None,
        attention: Attention = "snorkel",
    ) -> None:
        super().__init__()
        self.ends = (slice_ind_key, slice_pred_key, slice_pred_feat_key)
        self.temperature, self.slices, self.attention = temperature, slices, attention

    def forward(self, output_dict: Outputs) -> Tensor:
        """Return float[B, H] from the outputs by name.

        Raises
        ------
        DataError
            If a slice lacks an output, an indicator has other than two columns, or the slices are of several tasks.
        NotImplementedError
            If experts have a single class.
        """
        slices = self._found(output_dict) if self.slices is None else self.slices
        absent = [f"{s}{end}" for s in slices for end in self.ends if f"{s}{end}" not in output_dict]
        if absent or not slices:
            raise DataError(f"the outputs lack {absent or 'every slice'}; there are {list(output_dict)}")
        stacks = [torch.stack([output_dict[f"{s}{end}"] for s in slices], dim=1) for end in self.ends]
        pairs, experts, representations = stacks  # [B, S, 2], [B, S, C], [B, S, H]
        if pairs.shape[-1] != 2:
            raise DataError(f"an indicator must have output shape [B, 2], got {list(pairs[:, 0].shape)}")
        if experts.shape[-1] < 2:
            shape = list(experts.shape)
            raise NotImplementedError(f"SliceCombiner requires output shape [..., 2] for predictor heads, got {shape}")
        attention = attend(self.attention, pairs[..., 1] - pairs[..., 0], experts, self.temperature)  # [B, S]
        return torch.einsum("bs,bsh->bh", attention, representations)

    def _found(self, outputs: Outputs) -> list[str]:
        slices = list(dict.fromkeys(name.removesuffix(e) for e in self.ends for name in outputs if name.endswith(e)))
        tasks = sorted({name.partition("_slice:")[0] for name in slices if "_slice:" in name})
        if len(tasks) > 1:
            raise DataError(f"the outputs have slices of several tasks, {tasks}: pass the slices to combine")
        return slices


def collect_flow_outputs_by_suffix(output_dict: Outputs, suffix: str) -> list[Any]:
    """Return the outputs whose names have an end, in the order of the operations; Snorkel's are sorted by name."""
    return [output for name, output in output_dict.items() if name.endswith(suffix)]


def convert_to_slice_tasks(base_task: Task, slice_names: Sequence[str], temperature: float = 1.0) -> list[Task]:
    """Return the tasks of a sliced network: all indicators, all experts, and last the base task by their combination.

    The base task, whose last operation is a linear head of H inputs, is left as it is; its modules are shared, and
    experts and combination keep its loss, output function and scorer.

    Parameters
    ----------
    base_task
        The task to slice.
    slice_names
        K distinct names; the base slice, of every row, is added.
    temperature
        As for `SliceCombinerModule`.

    Raises
    ------
    ConfigError
        If names repeat, or the last operation is no linear head.
    """
    if isinstance(slice_names, str) or len(set(slice_names)) != len(slice_names):
        raise ConfigError(f"slice_names must be distinct names, got {slice_names!r}")
    *body, last = base_task.op_sequence
    head = dict(base_task.module_pool.items()).get(last.module_name)
    if not isinstance(head, nn.Linear):
        raise ConfigError(f"the last operation of task {base_task.name!r} must be an nn.Linear, got {head}")
    task, slices = base_task.name, with_base(slice_names)
    shared = {name: module for name, module in base_task.module_pool.items() if module is not head}
    expert_head = nn.Linear(head.in_features, head.out_features)
    pool = nn.ModuleDict(shared)
    for name in slices:
        pool[key_of(indicator_label(task, name) + "_head")] = nn.Linear(head.in_features, 2)
        pool[key_of(expert_label(task, name) + "_transform")] = nn.Linear(head.in_features, head.in_features)
        pool[key_of(expert_label(task, name) + "_head")] = expert_head
    prefixes = [f"{task}_slice:{name}" for name in slices]
    pool[key_of(f"{task}_master_combiner")] = SliceCombinerModule(temperature=temperature, slices=prefixes)
    pool[key_of(f"{task}_master_head")] = head
    out = []
    for label, operations in slice_operations(task, slices, body, last.inputs).items():
        used = {operation.module_name for operation in operations}
        modules = nn.ModuleDict({name: module for name, module in pool.items() if name in used})
        if label in {indicator_label(task, name) for name in slices}:
            out.append(Task(label, modules, operations, Scorer(metrics=["f1"])))
        else:
            functions = base_task.loss_func, base_task.output_func
            out.append(Task(label, modules, operations, base_task.scorer, *functions))
    return out


def slice_operations(
    task: str, slices: Sequence[str], body: Sequence[Operation], inputs: Sequence[Any]
) -> dict[str, list[Operation]]:
    """Return the operations of every indicator, then every expert, then the task; ``inputs`` are those of heads."""

    def operation(name: str, inputs: Sequence[Any]) -> Operation:
        return Operation(key_of(name), inputs, name)

    indicators = {s: [operation(indicator_label(task, s) + "_head", inputs)] for s in slices}
    experts = {
        s: [
            operation(expert_label(task, s) + "_transform", inputs),
            operation(expert_label(task, s) + "_head", [expert_label(task, s) + "_transform"]),
        ]
        for s in slices
    }
    out = {indicator_label(task, s): [*body, *own] for s, own in indicators.items()}
    out |= {expert_label(task, s): [*body, *own] for s, own in experts.items()}
    heads = [each for own in (*indicators.values(), *experts.values()) for each in own]
    combiner = operation(f"{task}_master_combiner", [])
    return out | {task: [*body, *heads, combiner, operation(f"{task}_master_head", [combiner.name])]}


def with_base(slice_names: Sequence[str]) -> list[str]:
    """Return the names with the base slice last, unless a slice has its name."""
    return [*slice_names] if BASE_SLICE in slice_names else [*slice_names, BASE_SLICE]


def key_of(name: str) -> str:
    """Return the name of a module, which can have no dot."""
    return name.replace("%", "%25").replace(".", "%2E")


class LinearView(nn.Module):
    """Linear layer over parts of a stack of weights."""

    def __init__(self, parts: Callable[[], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.parts = parts

    @property
    def weight(self) -> Tensor:
        """float[out, H]."""
        return self.parts()[0]

    @property
    def bias(self) -> Tensor:
        """float[out]."""
        return self.parts()[1]

    def forward(self, z: Tensor) -> Tensor:
        """Return float[B, out]."""
        return nn.functional.linear(z, *self.parts())


class StackedModules(nn.ModuleDict):
    """Modules of added tasks, and by Snorkel's names views of the stacked modules of a slice-aware classifier.

    Views have no weights of their own: they are in no state dictionary.

    Parameters
    ----------
    added
        Modules of added tasks, to which an assignment adds.
    views
        Function that makes the views.
    """

    def __init__(self, added: nn.ModuleDict, views: Callable[[], Mapping[str, nn.Module]]) -> None:
        super().__init__()
        self._modules, self._views = added._modules, views

    def __getitem__(self, key: str) -> nn.Module:
        if key in self._modules:
            return super().__getitem__(key)
        return self._views()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._modules or key in self._views()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def keys(self) -> Any:
        """Return the names."""
        return dict(self.items()).keys()

    def items(self) -> Any:
        """Return names and modules."""
        return {**self._views(), **self._modules}.items()

    def values(self) -> Any:
        """Return the modules."""
        return dict(self.items()).values()
