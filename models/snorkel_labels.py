"""Slice memberships as labels of a dataset, named and coded as in Snorkel: -1 is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from models.dataset import DictDataLoader, DictDataset, YDict
from models.errors import DataError
from sfs.matrix import SliceMatrix

Slices: TypeAlias = "SliceMatrix | np.recarray[Any, Any]"

BASE_SLICE = "base"


class SliceTargets(NamedTuple):
    """What B rows teach: ``member`` and ``known`` bool[B, K] memberships, and ``labelled`` bool[B] rows."""

    member: Tensor
    known: Tensor
    labelled: Tensor


def indicator_label(task_name: str, slice_name: str) -> str:
    """Return the name of the label that says who is a member."""
    return f"{task_name}_slice:{slice_name}_ind"


def expert_label(task_name: str, slice_name: str) -> str:
    """Return the name of the label that members have, and nobody else."""
    return f"{task_name}_slice:{slice_name}_pred"


def add_slice_labels(
    dataloader: DictDataLoader, base_task: Any, S: Slices, slice_names: Sequence[str] | None = None
) -> None:
    """Add the labels of every slice to a loader's dataset, in place, instead of any slice labels it had.

    Parameters
    ----------
    base_task
        A task name, or anything with a ``name``.
    S
        Memberships of the dataset's rows. Who is not known to be a member has no label for the slice's
        expert.
    slice_names
        Which slices, and their order; all by default.

    Raises
    ------
    DataError
        If the task's labels are missing, or S has other rows or slices.
    """
    task_name = base_task if isinstance(base_task, str) else base_task.name
    matrix = _matrix(S)
    dataset = dataloader.dataset
    dataset.Y_dict.update(_with_labels(dataset, task_name, matrix, slice_names or matrix.names))
    for label in [
        label for label in dataset.Y_dict if _is_stale(label, task_name, slice_names or matrix.names)
    ]:
        del dataset.Y_dict[label]


def with_slice_labels(
    dataset: DictDataset, task_name: str, S: Slices, slice_names: Sequence[str]
) -> DictDataset:
    """Return the same rows with the labels of exactly these slices; the given dataset stays as it is."""
    labels = _with_labels(dataset, task_name, _matrix(S), slice_names)
    own = {k: v for k, v in dataset.Y_dict.items() if not k.startswith(f"{task_name}_slice:")}
    return DictDataset(dataset.name, dataset.split, dataset.X_dict, own | labels)


def _with_labels(dataset: DictDataset, task_name: str, S: SliceMatrix, names: Sequence[str]) -> YDict:
    if task_name not in dataset.Y_dict:
        raise DataError(f"the dataset has no labels {task_name!r}, which slice labels are made of: {dataset}")
    if len(S) != len(dataset):
        raise DataError(f"the slice matrix has {len(S)} rows and the dataset {len(dataset)}")
    if set(S.names) != set(names):
        missing, extra = [n for n in names if n not in S.names], [n for n in S.names if n not in names]
        raise DataError(
            f"the slice matrix lacks slices {missing} and has {extra}, which the model does not know"
        )
    return _labels(dataset.Y_dict[task_name], task_name, S.align(names))


def _labels(y: Tensor, task_name: str, S: SliceMatrix) -> YDict:
    codes = torch.from_numpy(np.where(S.unknown, -1, S.member.astype(np.int64)))  # [N, K]
    columns = dict(zip(S.names, codes.unbind(dim=1), strict=True))
    columns.setdefault(
        BASE_SLICE, torch.ones(len(S), dtype=torch.int64)
    )  # a slice of that name keeps its own
    labels: YDict = {}
    for name, column in columns.items():
        member = (column == 1).view(-1, *[1] * (y.dim() - 1))
        labels[indicator_label(task_name, name)] = column.contiguous()
        labels[expert_label(task_name, name)] = torch.where(member, y, torch.full_like(y, -1))
    return labels


def _is_stale(label: str, task_name: str, names: Iterable[str]) -> bool:
    current = {
        make(task_name, name) for name in (*names, BASE_SLICE) for make in (indicator_label, expert_label)
    }
    return label.startswith(f"{task_name}_slice:") and label not in current


def read_slice_labels(Y_dict: YDict, task_name: str, names: Sequence[str]) -> tuple[Tensor, SliceTargets]:
    """Return the task's labels and what the slice labels of a batch say.

    Raises
    ------
    DataError
        If a label is missing.
    """
    wanted = [indicator_label(task_name, name) for name in names]
    absent = [label for label in (task_name, *wanted) if label not in Y_dict]
    if absent:
        raise DataError(f"the batch lacks labels {absent}: make its loader with make_slice_dataloader")
    y = Y_dict[task_name]
    codes = (
        torch.stack([Y_dict[label] for label in wanted], dim=1) if wanted else y.new_zeros(len(y), 0)
    )  # [B, K]
    labelled = (y != -1).view(len(y), -1).any(dim=1)
    return y.clamp(min=0), SliceTargets(codes == 1, codes != -1, labelled)


def slice_targets(S: SliceMatrix | None, names: Sequence[str], n_rows: int) -> SliceTargets:
    """Return the memberships of labelled rows in the named slices; without a matrix all are unknown."""
    aligned = (SliceMatrix.empty(n_rows) if S is None else S).align(names)
    if len(aligned) != n_rows:
        raise DataError(f"the slice matrix has {len(aligned)} rows and the batch {n_rows}")
    known = torch.from_numpy(~aligned.unknown)
    return SliceTargets(torch.from_numpy(aligned.member.copy()), known, torch.ones(n_rows, dtype=torch.bool))


def _matrix(S: Slices) -> SliceMatrix:
    return S if isinstance(S, SliceMatrix) else SliceMatrix.from_recarray(S)
