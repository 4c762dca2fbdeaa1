"""Small rows with slices, for the networks."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from sfs.matrix import SliceMatrix


class Sliced(NamedTuple):
    """Rows X float[N, 6], two classes y, and three overlapping slices, one of which flips the label."""

    X: Tensor
    y: Tensor
    S: SliceMatrix


def make_sliced(n: int = 200, seed: int = 0) -> Sliced:
    """Return rows whose label is the sign of the first feature, but the opposite in slice ``flipped``."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 6)).astype(np.float32)
    member = np.stack([X[:, 1] > 1, X[:, 2] > 0.5, X[:, 3] < -1], axis=1)
    y = (X[:, 0] > 0) ^ member[:, 0]
    S = SliceMatrix(["flipped", "half", "tail"], member)
    return Sliced(torch.from_numpy(X), torch.from_numpy(y.astype(np.int64)), S)


@pytest.fixture
def sliced() -> Sliced:
    """200 such rows."""
    return make_sliced()
