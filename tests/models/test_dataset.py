"""Datasets and loaders by field name."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.dataset import (
    DictDataLoader,
    DictDataset,
    collate_dicts,
    list_to_tensor,
    pad_batch,
)
from models.errors import DataError


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
    """The message names the label and what it is."""
    with pytest.raises(DataError, match="labels 'task' must be a tensor, got list"):
        DictDataset("d", "train", {}, {"task": [0, 1]})  # type: ignore[dict-item]


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
    """The fast path of the loader gives what collating single rows gives."""
    rows = dataset(7)
    for fast, start in zip(DictDataLoader(rows, batch_size=3), (0, 3, 6), strict=True):
        slow = collate_dicts([rows[i] for i in range(start, min(start + 3, 7))])
        assert torch.equal(fast[0]["input_data"], slow[0]["input_data"])
        assert fast[0]["text"] == slow[0]["text"]
        assert torch.equal(fast[1]["task"], slow[1]["task"])


def test_a_collate_function_of_ones_own_sees_rows() -> None:
    """It gets a sequence of (fields, labels), as from any torch data set."""
    seen = []
    list(
        DictDataLoader(
            dataset(4), collate_fn=lambda rows: seen.append([r[0]["text"] for r in rows]), batch_size=2
        )
    )
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
