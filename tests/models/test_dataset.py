"""Datasets and loaders by field name."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.dataset import (
    DictDataLoader,
    DictDataset,
    add_slice_labels,
    collate_dicts,
    list_to_tensor,
    pad_batch,
    read_slice_labels,
    slice_targets,
)
from models.errors import DataError
from models.slice_aware import SliceAwareClassifier
from sfs.errors import SliceError
from sfs.matrix import SliceMatrix


def dataset(n: int = 5) -> DictDataset:
    X = {"input_data": torch.arange(n * 3.0).view(n, 3), "text": [f"row {i}" for i in range(n)]}
    return DictDataset("comments", "train", X, {"task": torch.arange(n)})


def test_a_dataset_is_rows_of_fields_and_labels() -> None:
    """It has Snorkel's length, items and spelling."""
    rows = dataset()
    x, y = rows[1]
    assert len(rows) == 5
    assert x["text"] == "row 1"
    assert torch.equal(x["input_data"], torch.tensor([3.0, 4.0, 5.0]))
    assert y["task"] == 1
    assert repr(rows) == "DictDataset(name=comments, X_keys=['input_data', 'text'], Y_keys=['task'])"


def test_from_tensors_uses_snorkels_names() -> None:
    """One field input_data, one task, data set SnorkelDataset."""
    rows = DictDataset.from_tensors(torch.zeros(2, 3), torch.zeros(2), "valid")
    assert (rows.name, rows.split, list(rows.X_dict), list(rows.Y_dict)) == (
        "SnorkelDataset",
        "valid",
        ["input_data"],
        ["task"],
    )


def test_labels_must_be_tensors() -> None:
    """The message names the label and its type, when the dataset is made or where labels were added to it later."""
    message = "Label task should be torch.Tensor, not list"
    with pytest.raises(DataError, match=message):
        DictDataset("d", "train", {}, {"task": [0, 1]})  # type: ignore[dict-item]
    dl = loader()
    dl.dataset.Y_dict["task"] = [0, 1, 1]  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"Label task should be torch\.Tensor, not int"):
        next(iter(dl))
    with pytest.raises(DataError, match=message):
        add_slice_labels(dl, "task", recarray(a=[1, 0, 1]))


def test_lengths_must_agree() -> None:
    """Fields and labels of different lengths are refused with their lengths."""
    with pytest.raises(DataError, match="'x': 3, 'task': 2"):
        DictDataset("d", "train", {"x": torch.zeros(3)}, {"task": torch.zeros(2)})


def test_a_dataset_without_labels_has_a_length() -> None:
    """In Snorkel it was empty, so that nothing could be predicted without labels."""
    assert len(DictDataset("d", "test", {"x": torch.zeros(3, 2)}, {})) == 3


def test_a_loader_takes_datasets_of_this_kind_only() -> None:
    """Anything else is refused by its type."""
    with pytest.raises(DataError, match="takes a DictDataset, got list"):
        DictDataLoader([1, 2])  # type: ignore[arg-type]


def test_batches_in_one_piece_equal_batches_row_by_row() -> None:
    """The fast path of the loader equals collating single rows."""
    rows = dataset(7)
    for fast, start in zip(DictDataLoader(rows, batch_size=3), (0, 3, 6), strict=True):
        slow = collate_dicts([rows[i] for i in range(start, min(start + 3, 7))])
        assert torch.equal(fast[0]["input_data"], slow[0]["input_data"])
        assert fast[0]["text"] == slow[0]["text"]
        assert torch.equal(fast[1]["task"], slow[1]["task"])


class Images(DictDataset):
    """Rows whose field is loaded from the name of a file, and whose labels are plain numbers."""

    def __init__(self, names: list[str], labels: list[int]) -> None:
        super().__init__("images", "train", {"path": names}, {"task": torch.tensor(labels)})

    def __getitem__(self, index: int):
        x, y = super().__getitem__(index)
        return {"input_data": torch.full((2,), float(len(x["path"])))}, y | {"width": len(x["path"])}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_is_the_one_that_a_subclass_returns(workers: int) -> None:
    """Batches, and those of a loader with slices, consist of the items of a dataset that overrides __getitem__."""
    images = Images(["a", "bb", "ccc"], [0, 1, 1])
    model = SliceAwareClassifier(nn.Linear(2, 4), 4, ["a"])
    sliced = model.make_slice_dataloader(images, recarray(a=[1, 0, -1]), batch_size=3, num_workers=workers)
    for x, y in (*DictDataLoader(images, batch_size=3), *sliced):
        assert x["input_data"].tolist() == [[1, 1], [2, 2], [3, 3]]
        assert y["width"].tolist() == [1, 2, 3]
    assert y["task_slice:a_ind"].tolist() == [1, 0, -1]
    assert list(images.Y_dict) == ["task"]
    assert isinstance(sliced.dataset, Images)


def test_a_subclass_that_leaves_out_the_slice_labels_is_told() -> None:
    """The slices would be lost without a word if a dataset returned its own labels only."""

    class OwnLabels(DictDataset):
        def __getitem__(self, index: int):
            return {"input_data": torch.zeros(2)}, {"task": self.Y_dict["task"][index]}

    dataset = OwnLabels("d", "train", {}, {"task": torch.tensor([0, 1, 1])})
    model = SliceAwareClassifier(nn.Linear(2, 4), 4, ["a"])
    sliced = model.make_slice_dataloader(dataset, recarray(a=[1, 0, 1]), batch_size=3)
    with pytest.raises(DataError, match="return the labels of Y_dict from a __getitem__ of your own"):
        model.calculate_loss(*next(iter(sliced)))


def test_a_collate_function_of_ones_own_sees_rows() -> None:
    """It gets a sequence of (fields, labels), as from any torch data set."""
    seen = []
    list(DictDataLoader(dataset(4), collate_fn=lambda rows: seen.append([r[0]["text"] for r in rows]), batch_size=2))
    assert seen == [["row 0", "row 1"], ["row 2", "row 3"]]


def test_shuffled_loaders_keep_rows_together() -> None:
    """Fields and labels of a row stay with each other."""
    for x, y in DictDataLoader(dataset(9), batch_size=4, shuffle=True):
        assert torch.equal(x["input_data"][:, 0], 3.0 * y["task"])
        assert x["text"] == [f"row {i}" for i in y["task"].tolist()]


@given(st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=1, max_size=5))
def test_equal_vectors_are_kept_exactly(rows: list[list[int]]) -> None:
    """Vectors of one length are stacked untouched."""
    assert list_to_tensor([torch.tensor(row) for row in rows]).tolist() == rows


def test_equal_shapes_of_more_dimensions_are_stacked() -> None:
    """Matrices of one shape become [B, ...]."""
    assert list_to_tensor([torch.zeros(2, 3), torch.ones(2, 3)]).shape == (2, 2, 3)


@given(st.lists(st.lists(st.integers(-2, 2), max_size=4), min_size=1, max_size=4), st.booleans())
def test_padding_can_be_taken_off_again(rows: list[list[int]], left: bool) -> None:
    """The mask is 1 at the padding alone, even where a value is the padding's."""
    padded, mask = pad_batch([torch.tensor(row, dtype=torch.int64) for row in rows], left_padded=left)
    kept = [
        [v for v, m in zip(row, hidden, strict=True) if not m]
        for row, hidden in zip(padded.tolist(), mask.tolist(), strict=True)
    ]
    assert kept == rows


def test_padding_may_cut() -> None:
    """A cut keeps the head, or with padding on the left the tail."""
    rows = [torch.tensor([1, 2, 3]), torch.tensor([4])]
    assert pad_batch(rows, max_len=2)[0].tolist() == [[1, 2], [4, 0]]
    assert pad_batch(rows, max_len=2, left_padded=True)[0].tolist() == [[2, 3], [0, 4]]


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
    """In Snorkel -1 counted as true: here such a row is a target of neither indicator nor expert."""
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
        ({"a": [1, 0, 0]}, r"lacks the slices \['b'\] and has slices unknown to the model \[\]"),
        (
            {"a": [1, 0, 0], "b": [0, 0, 0], "c": [0, 0, 0]},
            r"lacks the slices \[\] and has slices unknown to the model \['c'\]",
        ),
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


def test_memberships_without_names_are_refused() -> None:
    """Slice labels for no slice at all would be added without a word."""
    model, plain = SliceAwareClassifier(nn.Linear(2, 4), 4, ["a"]), np.array([[1], [0], [1]])
    for call in (
        lambda: add_slice_labels(loader(), "task", plain),
        lambda: model.make_slice_dataloader(dataset(3), plain),
    ):
        with pytest.raises(SliceError, match=r"record array with the name of every slice.*an array without names"):
            call()


def test_rows_must_agree() -> None:
    """A matrix of another number of rows is refused."""
    with pytest.raises(DataError, match="slice matrix has 1 rows, the dataset 3"):
        add_slice_labels(loader(), "task", SliceMatrix(["a"], np.ones((1, 1), dtype=bool)))


def test_the_tasks_labels_must_be_there() -> None:
    """The message names the labels and the dataset."""
    with pytest.raises(DataError, match=r"Base task \(spam\) labels missing from DictDataset"):
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


def test_a_list_of_tensors_may_be_put_into_the_labels() -> None:
    """They are collated as fields are: stacked, or padded where they differ in length."""
    dl = loader()
    dl.dataset.Y_dict |= {  # type: ignore[arg-type]
        "task": [torch.tensor([2]), torch.tensor([1]), torch.tensor([0])],
        "words": [torch.tensor([2]), torch.tensor([1, 1]), torch.tensor([0])],
    }
    labels = next(iter(dl))[1]
    rows = len(labels["task"])
    assert labels["task"].tolist() == [[2], [1], [0]][:rows]
    assert labels["words"].tolist() == [[2, 0], [1, 1], [0, 0]][:rows]
