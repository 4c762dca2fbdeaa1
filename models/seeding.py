"""Seeds and threads: for the whole process, or for a block of code."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


def set_seed(seed: int) -> None:
    """Seed the global random states of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global state is the purpose
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block, and restore its random state afterwards.

    Examples
    --------
    >>> with seeded(7):
    ...     first = torch.nn.Linear(2, 2)
    >>> with seeded(7):
    ...     second = torch.nn.Linear(2, 2)
    >>> torch.equal(first.weight, second.weight)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def single_threaded() -> Iterator[None]:
    """Compute on one thread inside the block: fastest for small networks, and reproducible on any machine.

    This covers torch and the linear algebra of NumPy, SciPy and scikit-learn; both settings are restored.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
