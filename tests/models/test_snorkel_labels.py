"""Slice labels at Snorkel's doors."""

import numpy as np
import pytest
import torch
from torch import nn

from models.dataset import DictDataLoader, DictDataset
from models.errors import DataError
from models.slice_aware import SliceAwareClassifier
from models.snorkel_labels import add_slice_labels, read_slice_labels, slice_targets
from sfs.matrix import SliceMatrix


def loader(y: list[int] | None = None) -> DictDataLoader:
    labels = torch.tensor(y or [0, 1, 1])
    return DictDataLoader(DictDataset.from_tensors(torch.zeros(3, 2), labels, "train"), batch_size=3)


def recarray(**columns: list[int]) -> np.recarray:
    S = np.recarray((3,), dtype=[(name, np.int64) for name in columns])
    for name, values in columns.items():
        S[name] = values
    return S


def labels_of(dl: DictDataLoader) -> dict[str, list[int]]:
    return {label: values.tolist() for label, values in dl.dataset.Y_dict.items()}


def test_labels_are_snorkels() -> None:
    """Membership, and the task's label for members only; the base slice holds everyone."""
    dl = loader()
    add_slice_labels(dl, "task", recarray(a=[1, 0, 1]))
    assert labels_of(dl) == {
        "task": [0, 1, 1],
        "task_slice:a_ind": [1, 0, 1],
        "task_slice:a_pred": [0, -1, 1],
        "task_slice:base_ind": [1, 1, 1],
        "task_slice:base_pred": [0, 1, 1],
    }


def test_a_failed_function_is_no_membership() -> None:
    """In Snorkel -1 counted as true: here such a row teaches neither the indicator nor the expert."""
    dl = loader()
    add_slice_labels(dl, "task", recarray(a=[-1, 0, 1]))
    assert labels_of(dl)["task_slice:a_pred"] == [-1, -1, 1]
    _, targets = read_slice_labels(dl.dataset.Y_dict, "task", ["a"])
    assert targets.member.tolist() == [[False], [False], [True]]
    assert targets.known.tolist() == [[False], [True], [True]]


def test_stale_labels_go() -> None:
    """Labels of slices that are no longer there do not stay behind."""
    dl = loader()
    add_slice_labels(dl, "task", recarray(old=[1, 1, 1]))
    add_slice_labels(dl, "task", recarray(new=[0, 0, 1]))
    assert not any("old" in label for label in dl.dataset.Y_dict)


def test_the_callers_dataset_stays_as_it_is() -> None:
    """make_slice_dataloader changed the data set it was given: ours makes another."""
    model = SliceAwareClassifier(nn.Linear(2, 4), 4, ["a"])
    dataset = loader().dataset
    sliced = model.make_slice_dataloader(dataset, recarray(a=[1, 0, 1]), batch_size=2)
    assert list(dataset.Y_dict) == ["task"]
    assert len(sliced.dataset.Y_dict) == 5


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 0, 0]}, r"lacks slices \['b'\] and has \[\]"),
        ({"a": [1, 0, 0], "b": [0, 0, 0], "c": [0, 0, 0]}, r"lacks slices \[\] and has \['c'\]"),
    ],
)
def test_the_matrix_must_be_the_models(columns, message: str) -> None:
    """Snorkel ignored unknown slices and left missing ones untrained: both are refused by name."""
    model = SliceAwareClassifier(nn.Linear(2, 4), 4, ["a", "b"])
    with pytest.raises(DataError, match=message):
        model.make_slice_dataloader(loader().dataset, recarray(**columns))


def test_the_matrix_may_be_in_any_order_and_of_either_kind() -> None:
    """A recarray and a SliceMatrix with turned columns give the same labels."""
    model = SliceAwareClassifier(nn.Linear(2, 4), 4, ["a", "b"])
    S = recarray(b=[0, 1, 1], a=[1, 0, 0])
    first = model.make_slice_dataloader(loader().dataset, S)
    second = model.make_slice_dataloader(loader().dataset, SliceMatrix.from_recarray(S))
    assert labels_of(first) == labels_of(second)
    assert list(labels_of(first))[1] == "task_slice:a_ind"


def test_rows_must_agree() -> None:
    """A matrix of another number of rows is refused."""
    with pytest.raises(DataError, match="slice matrix has 1 rows and the dataset 3"):
        add_slice_labels(loader(), "task", SliceMatrix(["a"], np.ones((1, 1), dtype=bool)))


def test_the_tasks_labels_must_be_there() -> None:
    """The message names the labels and the dataset."""
    with pytest.raises(DataError, match=r"the dataset has no labels 'spam'.*DictDataset"):
        add_slice_labels(loader(), "spam", recarray(a=[1, 0, 1]))


def test_a_slice_called_base_keeps_its_members() -> None:
    """Snorkel let it take the place of the slice that holds everyone."""
    dl = loader()
    add_slice_labels(dl, "task", recarray(base=[0, 1, 0]))
    assert labels_of(dl)["task_slice:base_ind"] == [0, 1, 0]
    model = SliceAwareClassifier(nn.Linear(2, 4), 4, ["base"])
    assert model.slice_attention(torch.zeros(3, 2)).shape == (3, 2)


def test_a_loader_without_slice_labels_is_refused() -> None:
    """Training on it would leave the slices untrained in silence."""
    model = SliceAwareClassifier(nn.Linear(2, 4), 4, ["a"])
    with pytest.raises(DataError, match=r"lacks labels \['task_slice:a_ind'\]: make its loader with"):
        model.calculate_loss(*next(iter(loader())))


def test_soft_labels_are_masked_by_row() -> None:
    """Probabilities of rows outside a slice become -1 in every column."""
    y = torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    dl = DictDataLoader(DictDataset.from_tensors(torch.zeros(3, 2), y, "train"), batch_size=3)
    add_slice_labels(dl, "task", recarray(a=[1, 0, 0]))
    assert torch.equal(dl.dataset.Y_dict["task_slice:a_pred"][1:], torch.full((2, 2), -1.0))
    assert torch.equal(dl.dataset.Y_dict["task_slice:a_pred"][0], y[0])


def test_without_a_matrix_nothing_is_known() -> None:
    """All memberships are unknown, none is denied."""
    targets = slice_targets(None, ["a", "b"], 4)
    assert targets.known.sum() == 0
    assert targets.labelled.all()
