"""Labelled rows by field name, their batches and slice labels, after Snorkel's ``DictDataset``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.errors import DataError
from sfs.matrix import SliceMatrix

XDict: TypeAlias = dict[str, Any]
YDict: TypeAlias = dict[str, Tensor]
Slices: TypeAlias = "SliceMatrix | np.recarray[Any, Any]"

DEFAULT_INPUT_DATA_KEY = "input_data"
DEFAULT_DATASET_NAME = "SnorkelDataset"
DEFAULT_TASK_NAME = "task"
BASE_SLICE = "base"
_SLICE = "_slice:"


class DictDataset(Dataset[tuple[XDict, YDict]]):
    """N rows: fields by name and labels by task name.

    Parameters
    ----------
    name, split
        Keys of scores; the trainer trains on split ``train``.
    X_dict
        Per field a tensor or sequence of N values.
    Y_dict
        Per task a tensor of N labels, -1 where unknown; may be empty for prediction.

    A subclass may override ``__getitem__``, for example to load images: every batch then takes its rows from it.

    Raises
    ------
    DataError
        If a label is no tensor, or fields differ in length.
    """

    def __init__(self, name: str, split: str, X_dict: XDict, Y_dict: YDict) -> None:
        self.name, self.split, self.X_dict, self.Y_dict = name, split, X_dict, Y_dict
        for label, values in Y_dict.items():
            label_tensor(label, values)
        lengths = {key: len(values) for key, values in (X_dict | Y_dict).items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"all fields and labels must have the same number of rows, got {lengths}")

    @classmethod
    def from_tensors(
        cls,
        X_tensor: Tensor,
        Y_tensor: Tensor,
        split: str,
        input_data_key: str = DEFAULT_INPUT_DATA_KEY,
        task_name: str = DEFAULT_TASK_NAME,
        dataset_name: str = DEFAULT_DATASET_NAME,
    ) -> DictDataset:
        """Return a dataset of one field and one task."""
        return cls(dataset_name, split, {input_data_key: X_tensor}, {task_name: Y_tensor})

    def __len__(self) -> int:
        return len(next(chain(self.Y_dict.values(), self.X_dict.values()), ()))

    def __getitem__(self, index: int) -> tuple[XDict, YDict]:
        x = {key: values[index] for key, values in self.X_dict.items()}
        return x, {label: values[index] for label, values in self.Y_dict.items()}

    def __getitems__(self, positions: list[int]) -> Sequence[tuple[XDict, YDict]]:
        if type(self).__getitem__ is not DictDataset.__getitem__:
            return [self[position] for position in positions]
        return SelectedRows(self, positions)

    def with_labels(self, Y_dict: YDict) -> Self:
        """Return a copy that shares the fields and has other labels."""
        out = copy.copy(self)
        out.Y_dict = Y_dict
        return out

    def __repr__(self) -> str:
        keys = f"X_keys={list(self.X_dict)}, Y_keys={list(self.Y_dict)}"
        return f"{type(self).__name__}(name={self.name}, {keys})"


class SelectedRows(Sequence[tuple[XDict, YDict]]):
    """Subset of a dataset, read lazily row by row."""

    def __init__(self, dataset: DictDataset, positions: Sequence[int]) -> None:
        self.dataset, self.positions = dataset, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[self.positions[index]]

    def __iter__(self) -> Iterator[tuple[XDict, YDict]]:
        return (self.dataset[position] for position in self.positions)

    def batch(self) -> tuple[XDict, YDict]:
        """Return all rows at once: tensors indexed by one call each, everything else as lists."""
        index = torch.as_tensor(self.positions)
        x = {
            key: values.index_select(0, index)
            if isinstance(values, Tensor)
            else _collate([values[position] for position in self.positions])
            for key, values in self.dataset.X_dict.items()
        }
        try:
            return x, {label: values.index_select(0, index) for label, values in self.dataset.Y_dict.items()}
        except AttributeError:  # a list of tensors, put into Y_dict later
            rows = {label: [values[at] for at in self.positions] for label, values in self.dataset.Y_dict.items()}
            return x, {label: list_to_tensor([label_tensor(label, y) for y in each]) for label, each in rows.items()}


def label_tensor(label: str, values: Any) -> Tensor:
    """Return labels that are a tensor; raise DataError for others."""
    if not isinstance(values, Tensor):
        raise DataError(
            f"Label {label} should be torch.Tensor, not {type(values).__name__}: convert it with torch.tensor"
        )
    return values


def collate_dicts(batch: Sequence[tuple[XDict, YDict]]) -> tuple[XDict, YDict]:
    """Collate rows into a batch: equal shapes are stacked, unequal vectors zero-padded; labels become tensors."""
    if isinstance(batch, SelectedRows):
        return batch.batch()
    fields, labels = batch[0] if batch else ({}, {})
    x = {key: _collate([row[key] for row, _ in batch]) for key in fields}
    return x, {label: list_to_tensor([torch.as_tensor(row[label]) for _, row in batch]) for label in labels}


def _collate(values: list[Any]) -> Any:
    return list_to_tensor(values) if all(isinstance(value, Tensor) for value in values) else values


def list_to_tensor(item_list: Sequence[Tensor]) -> Tensor:
    """Stack tensors of one shape to [B, ...]; flatten and zero-pad others to [B, longest]."""
    if len({item.shape for item in item_list}) == 1:
        return torch.stack(list(item_list))
    return pad_batch([item.reshape(-1) for item in item_list])[0]


def pad_batch(
    batch: Sequence[Tensor], max_len: int = 0, pad_value: int = 0, left_padded: bool = False
) -> tuple[Tensor, Tensor]:
    """Return vectors padded to the longest (or cut to ``max_len``), and a mask that is 1 at the padding.

    A cut keeps the head of a vector, or its tail when padding is on the left.

    Examples
    --------
    >>> pad_batch([torch.tensor([3, 0]), torch.tensor([4])])
    (tensor([[3, 0],
            [4, 0]]), tensor([[0, 0],
            [0, 1]]))
    """
    longest = max((len(item) for item in batch), default=0)
    width = min(longest, max_len) if max_len > 0 else longest
    padded = batch[0].new_full((len(batch), width), pad_value)
    mask = torch.ones_like(padded)
    for row, item in enumerate(batch):
        length = min(len(item), width)
        place = slice(width - length, width) if left_padded else slice(0, length)
        padded[row, place] = item[len(item) - length :] if left_padded else item[:length]
        mask[row, place] = 0
    return padded, mask


class DictDataLoader(DataLoader[tuple[XDict, YDict]]):
    """Torch data loader for a DictDataset; keyword arguments are passed to ``DataLoader``.

    Raises
    ------
    DataError
        If the dataset is not a DictDataset.
    """

    dataset: DictDataset

    def __init__(
        self,
        dataset: DictDataset,
        collate_fn: Callable[..., tuple[XDict, YDict]] = collate_dicts,
        **kwargs: Any,
    ) -> None:
        if not isinstance(dataset, DictDataset):
            raise DataError(f"a DictDataLoader takes a DictDataset, got {type(dataset).__name__}")
        super().__init__(dataset, collate_fn=collate_fn, **kwargs)


class SliceTargets(NamedTuple):
    """Targets of B rows: ``member`` and ``known`` bool[B, K] memberships, and ``labelled`` bool[B]."""

    member: Tensor
    known: Tensor
    labelled: Tensor


def indicator_label(task_name: str, slice_name: str) -> str:
    """Return the name of a slice's membership label: 1, 0, or -1 where unknown."""
    return f"{task_name}{_SLICE}{slice_name}_ind"


def expert_label(task_name: str, slice_name: str) -> str:
    """Return the name of a slice's task label, set for known members only."""
    return f"{task_name}{_SLICE}{slice_name}_pred"


def add_slice_labels(
    dataloader: DictDataLoader, base_task: Any, S: Slices, slice_names: Sequence[str] | None = None
) -> None:
    """Replace the slice labels of a loader's dataset, in place.

    Parameters
    ----------
    base_task
        A task name, or an object with a ``name``.
    S
        Memberships of the dataset's rows. Only known members have a label for the slice's expert.
    slice_names
        The slices and their order; all by default.

    Raises
    ------
    DataError
        If the task's labels are missing, or S has other rows or slices.
    """
    task_name = base_task if isinstance(base_task, str) else base_task.name
    matrix = S if isinstance(S, SliceMatrix) else SliceMatrix.from_recarray(S)
    labels = dataloader.dataset.Y_dict
    labels.update(_slice_labels(dataloader.dataset, task_name, matrix, slice_names or matrix.names))
    kept = (*(slice_names or matrix.names), BASE_SLICE)
    current = {make(task_name, name) for name in kept for make in (indicator_label, expert_label)}
    for label in list(labels):
        if label.startswith(task_name + _SLICE) and label not in current:
            del labels[label]


def with_slice_labels(dataset: DictDataset, task_name: str, S: Slices, slice_names: Sequence[str]) -> DictDataset:
    """Return a copy of the dataset with the labels of exactly these slices."""
    matrix = S if isinstance(S, SliceMatrix) else SliceMatrix.from_recarray(S)
    labels = _slice_labels(dataset, task_name, matrix, slice_names)
    own = {k: v for k, v in dataset.Y_dict.items() if not k.startswith(task_name + _SLICE)}
    return dataset.with_labels(own | labels)


def _slice_labels(dataset: DictDataset, task_name: str, S: SliceMatrix, names: Sequence[str]) -> YDict:
    if task_name not in dataset.Y_dict:
        raise DataError(f"Base task ({task_name}) labels missing from {dataset}: add them to Y_dict")
    if len(S) != len(dataset):
        raise DataError(f"the slice matrix has {len(S)} rows, the dataset {len(dataset)}")
    if set(S.names) != set(names):
        missing, extra = [n for n in names if n not in S.names], [n for n in S.names if n not in names]
        raise DataError(f"the slice matrix lacks the slices {missing} and has slices unknown to the model {extra}")
    y, aligned = label_tensor(task_name, dataset.Y_dict[task_name]), S.align(names)
    codes = torch.from_numpy(np.where(aligned.unknown, -1, aligned.member.astype(np.int64)))  # [N, K]
    columns = dict(zip(aligned.names, codes.unbind(dim=1), strict=True))
    # A user-defined slice named "base" keeps its own memberships.
    columns.setdefault(BASE_SLICE, torch.ones(len(S), dtype=torch.int64))
    labels: YDict = {}
    for name, column in columns.items():
        member = (column == 1).view(-1, *[1] * (y.dim() - 1))
        labels[indicator_label(task_name, name)] = column.contiguous()
        labels[expert_label(task_name, name)] = torch.where(member, y, torch.full_like(y, -1))
    return labels


def read_slice_labels(
    Y_dict: Mapping[str, Tensor], task_name: str, names: Sequence[str]
) -> tuple[Tensor, SliceTargets]:
    """Return the task's labels and the slice targets of a batch; DataError if a label is missing."""
    wanted = [indicator_label(task_name, name) for name in names]
    absent = [label for label in (task_name, *wanted) if label not in Y_dict]
    if absent:
        raise DataError(
            f"the batch lacks labels {absent}: make its loader with make_slice_dataloader, and return the labels of "
            "Y_dict from a __getitem__ of your own"
        )
    known = {make(task_name, name) for name in (*names, BASE_SLICE) for make in (indicator_label, expert_label)}
    if other := sorted(label for label in Y_dict if label.startswith(task_name + _SLICE) and label not in known):
        raise DataError(f"the batch has labels of slices unknown to the model {other}")
    y = label_tensor(task_name, Y_dict[task_name])
    codes = torch.stack([Y_dict[label] for label in wanted], dim=1) if wanted else y.new_zeros(len(y), 0)
    labelled = (y != -1).view(len(y), -1).any(dim=1)
    return y.clamp(min=0), SliceTargets(codes == 1, codes != -1, labelled)


def check_slice_labels(Y_dict: Mapping[str, Tensor], task_names: Collection[str]) -> None:
    """Check that the labels of slices in a batch are those of the slices of the model.

    Raises
    ------
    DataError
        If a sliced task has labels of some of its slices only, or of slices that the model does not have.
    """
    for task in {name.partition(_SLICE)[0] for name in task_names if _SLICE in name}:
        own = {name for name in task_names if name.startswith(task + _SLICE)}
        given = {label for label in Y_dict if label.startswith(task + _SLICE)}
        if given and given != own:
            raise DataError(
                f"the batch lacks labels {sorted(own - given)}, and has labels of slices unknown to the model "
                f"{sorted(given - own)}: give add_slice_labels the memberships in the slices of the model"
            )


def slice_targets(S: SliceMatrix | None, names: Sequence[str], n_rows: int) -> SliceTargets:
    """Return the targets of labelled rows in the named slices; without a matrix all memberships are unknown."""
    aligned = (SliceMatrix.empty(n_rows) if S is None else S).align(names)
    if len(aligned) != n_rows:
        raise DataError(f"the slice matrix has {len(aligned)} rows and the batch {n_rows}")
    known = torch.from_numpy(~aligned.unknown)
    return SliceTargets(torch.from_numpy(aligned.member.copy()), known, torch.ones(n_rows, dtype=torch.bool))
