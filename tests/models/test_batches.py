"""Training batches and memberships on their way into a network."""

import numpy as np
import pytest
import torch
from scipy import sparse

from models import batches
from models.baselines import MLP
from models.batches import (
    MAX_STEPS_PER_EPOCH,
    Batch,
    FeatureRows,
    Split,
    as_rows,
    memberships,
    training_batches,
)
from models.errors import DataError
from sfs.matrix import SliceMatrix


def split(n: int, n_slices: int = 2, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    X = np.arange(n, dtype=np.float32)[:, None]
    S = SliceMatrix([f"s{k}" for k in range(n_slices)], rng.random((n, n_slices)) < 0.5)
    return Split(FeatureRows(X), rng.integers(0, 2, n), S)


def epoch(rows: Split, seed: int, size: int = 8, dropout: float = 0.1) -> list[Batch]:
    weight = np.arange(len(rows), dtype=float)
    batches = training_batches(rows, rows.S.names, weight, size, dropout)
    return list(batches(torch.Generator().manual_seed(seed)))


def test_every_row_comes_once_with_its_own_values() -> None:
    """An epoch holds each row once, its label, weight and memberships beside it."""
    rows = split(50)
    batches = epoch(rows, 0)
    at = torch.cat([batch.X[:, 0] for batch in batches]).long().numpy()
    assert sorted(at) == list(range(50))
    np.testing.assert_array_equal(torch.cat([batch.y for batch in batches]), rows.y[at])
    np.testing.assert_array_equal(torch.cat([batch.weight for batch in batches]), at.astype(np.float32))
    np.testing.assert_array_equal(torch.cat([batch.slices.member for batch in batches]), rows.S.member[at])


def test_generator_alone_decides_order_and_dropout() -> None:
    """The same seed gives the same batches and hidden rows, another seed others."""
    rows = split(200)
    first, same, other = (epoch(rows, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a.X, b.X) and torch.equal(a.masked, b.masked) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a.X, b.X) for a, b in zip(first, other, strict=True))


def test_dropout_hides_its_share_of_rows() -> None:
    """About a tenth of the rows are hidden, whole; hidden memberships are unknown and hold no member."""
    batches = epoch(split(5000), 0, size=100)
    hidden = torch.cat([batch.masked for batch in batches])
    assert 0.08 < float(hidden.float().mean()) < 0.12
    seen = batches[0].visible_slices()
    assert torch.equal(seen.known.any(dim=1), ~batches[0].masked)
    assert float(seen.member[~seen.known].sum()) == 0


def test_batches_grow_with_the_data() -> None:
    """An epoch never has more than 250 steps, and small data keep the configured size."""
    assert len(epoch(split(10_001), 0, size=8)) <= MAX_STEPS_PER_EPOCH
    assert len(epoch(split(80), 0, size=8)) == 10


def test_blocks_of_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are taken in blocks of whole batches: the batches and their rows are the same."""
    whole = epoch(split(50), 3, size=8)
    monkeypatch.setattr(batches, "CHUNK_NUMBERS", 20)
    blocks = epoch(split(50), 3, size=8)
    assert [len(batch.y) for batch in blocks] == [8] * 6 + [2]
    assert all(torch.equal(a.X, b.X) and torch.equal(a.masked, b.masked) for a, b in zip(whole, blocks, strict=True))


def test_memberships_are_matched_by_name() -> None:
    """Columns follow the given names; a missing slice is unknown, and all without a matrix."""
    S = SliceMatrix(("a", "b"), np.array([[True, False]]), np.array([[False, True]]))
    found = memberships(S, ("c", "b", "a"), 1)
    assert found.member.tolist() == [[0.0, 0.0, 1.0]]
    assert found.known.tolist() == [[False, False, True]]
    assert not memberships(None, ("a",), 3).known.any()


def test_groups_go_with_their_rows() -> None:
    """Some rows of a split have their own groups, and groups are as many as rows."""
    rows = split(4)
    grouped = Split(rows.X, rows.y, rows.S, np.array([7, 7, 8, 9]))
    assert grouped.subset(np.array([3, 0])).groups.tolist() == [9, 7]
    assert rows.subset(np.array([3, 0])).groups is None
    with pytest.raises(DataError, match="1 groups"):
        Split(rows.X, rows.y, rows.S, np.array([1]))


def test_splits_must_agree() -> None:
    """Features, labels and memberships of different lengths, or no rows, are refused."""
    rows = split(3)
    with pytest.raises(DataError, match="3 features, 2 labels, 3 slice matrix"):
        Split(rows.X, rows.y[:2], rows.S)
    with pytest.raises(DataError, match="the split has no rows"):
        rows.subset(np.array([], dtype=np.int64))


DENSE = np.arange(6, dtype=np.float32).reshape(3, 2)
SPARSE = sparse.csr_matrix(np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3]], dtype=np.float32))


def test_the_sparse_block_comes_first() -> None:
    """A batch is the sparse features and then the dense ones."""
    rows = FeatureRows(DENSE, SPARSE)
    assert rows.shape == (3, 5)
    assert rows.take(np.array([1])).tolist() == [[0, 2, 0, 2, 3]]
    assert len(rows.take(slice(0, 2))) == 2


def test_a_subset_equals_taking_from_the_whole() -> None:
    """Rows of a subset are the rows of the whole."""
    rows, chosen = FeatureRows(DENSE, SPARSE), np.array([2, 0])
    assert torch.equal(rows.take(chosen), rows.subset(chosen).take(slice(None)))


def test_arrays_and_tensors_become_rows() -> None:
    """All containers of float[N, D] give the same feature rows."""
    assert torch.equal(as_rows(DENSE).take(slice(None)), as_rows(torch.from_numpy(DENSE)).take(slice(None)))
    rows = FeatureRows(DENSE)
    assert as_rows(rows) is rows


def test_a_batch_is_a_copy() -> None:
    """Writing into a batch leaves the rows alone."""
    rows = FeatureRows(DENSE)
    rows.take(slice(None))[0, 0] = 99
    assert rows.take(slice(None))[0, 0] == 0


def test_a_shift_is_added_before_the_first_relu() -> None:
    """The backbone with a shift equals the literal computation."""
    torch.manual_seed(0)
    net, X, shift = MLP(2, (4, 3)), torch.randn(5, 2), torch.randn(5, 4)
    expected = torch.relu(net.rest[0](torch.relu(net.first(X) + shift)))
    assert torch.allclose(expected, net(X, shift))
    assert (net.out_features, net.in_features) == (3, 2)


def test_columns_with_numbers_are_kept_in_both_blocks() -> None:
    """A stored zero is none; the rest are the columns of the same rows."""
    block = sparse.csr_matrix(np.array([[0, 2, 0], [0, 0, 3]], dtype=np.float32))
    block.data[1] = 0
    rows = FeatureRows(np.array([[0, 1, 0], [0, 0, 4]], dtype=np.float32), block)
    used = rows.used_columns()
    assert used.tolist() == [1, 4, 5]
    assert torch.equal(rows.columns(used).take(slice(None)), rows.take(slice(None))[:, used])
    dense = FeatureRows(np.zeros((2, 2), np.float32))
    assert dense.used_columns().tolist() == []
    assert dense.columns(np.array([1])).shape == (2, 1)
