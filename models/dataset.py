"""Labelled rows by field name, and their batches: Snorkel's ``DictDataset`` and ``DictDataLoader``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.errors import DataError

XDict: TypeAlias = dict[str, Any]
YDict: TypeAlias = dict[str, Tensor]

DEFAULT_INPUT_DATA_KEY = "input_data"
DEFAULT_DATASET_NAME = "SnorkelDataset"
DEFAULT_TASK_NAME = "task"


class DictDataset(Dataset[tuple[XDict, YDict]]):
    """N rows: fields by name and labels by task name.

    Parameters
    ----------
    name, split
        What scores are reported under; the trainer trains on split ``train``.
    X_dict
        Per field a tensor or sequence of N values.
    Y_dict
        Per task a tensor of N labels, -1 where unknown; may be empty where only predictions are wanted.

    Raises
    ------
    DataError
        If a label is no tensor, or fields differ in length.
    """

    def __init__(self, name: str, split: str, X_dict: XDict, Y_dict: YDict) -> None:
        self.name, self.split, self.X_dict, self.Y_dict = name, split, X_dict, Y_dict
        for label, values in Y_dict.items():
            if not isinstance(values, Tensor):
                raise DataError(f"labels {label!r} must be a tensor, got {type(values).__name__}")
        lengths = {key: len(values) for key, values in (X_dict | Y_dict).items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"all fields and labels must have the same number of rows, got {lengths}")
        self._length = next(iter(lengths.values()), 0)

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
        return self._length

    def __getitem__(self, index: int) -> tuple[XDict, YDict]:
        x = {key: values[index] for key, values in self.X_dict.items()}
        return x, {label: values[index] for label, values in self.Y_dict.items()}

    def __getitems__(self, positions: list[int]) -> ChosenRows:
        return ChosenRows(self, positions)

    def __repr__(self) -> str:
        keys = f"X_keys={list(self.X_dict)}, Y_keys={list(self.Y_dict)}"
        return f"{type(self).__name__}(name={self.name}, {keys})"


class ChosenRows(Sequence[tuple[XDict, YDict]]):
    """Some rows of a dataset, which are only taken out one by one when somebody asks for one."""

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
        x = {key: _take(values, index) for key, values in self.dataset.X_dict.items()}
        return x, {label: values.index_select(0, index) for label, values in self.dataset.Y_dict.items()}


def _take(values: Any, index: Tensor) -> Any:
    if isinstance(values, Tensor):
        return values.index_select(0, index)
    return _joined([values[position] for position in index.tolist()])


def collate_dicts(batch: Sequence[tuple[XDict, YDict]]) -> tuple[XDict, YDict]:
    """Join rows to a batch: equal shapes are stacked as they are, unequal vectors zero-padded."""
    if isinstance(batch, ChosenRows):
        return batch.batch()
    x = {key: _joined([row[key] for row, _ in batch]) for key in (batch[0][0] if batch else ())}
    return x, {
        label: list_to_tensor([row[label] for _, row in batch]) for label in (batch[0][1] if batch else ())
    }


def _joined(values: list[Any]) -> Any:
    return list_to_tensor(values) if all(isinstance(value, Tensor) for value in values) else values


def list_to_tensor(items: Sequence[Tensor]) -> Tensor:
    """Stack tensors of one shape to [B, ...]; flatten and zero-pad others to [B, longest]."""
    if len({item.shape for item in items}) == 1:
        return torch.stack(list(items))
    return pad_batch([item.reshape(-1) for item in items])[0]


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
    """A torch loader over a DictDataset; keyword arguments are torch's.

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
