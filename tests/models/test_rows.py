"""Feature rows and the plain backbone."""

import numpy as np
import torch
from scipy import sparse

from models.backbone import MLP
from models.rows import FeatureRows, as_rows

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
    """Whatever holds float[N, D] is read alike."""
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
