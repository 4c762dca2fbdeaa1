"""Seeds."""

import random

import numpy as np
import torch
from threadpoolctl import threadpool_info

from models.seeding import seeded, set_seed, single_threaded


def test_set_seed_reaches_all_three() -> None:
    """Python, NumPy and torch draw the same after the same seed."""
    draws = []
    for _ in range(2):
        set_seed(4)
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_seeded_leaves_no_trace() -> None:
    """The lines inside are seeded and the state outside is as before."""
    state = torch.get_rng_state()
    with seeded(1):
        first = torch.rand(3)
    with seeded(1):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_thread_reaches_linear_algebra_too() -> None:
    """Inside, torch and every BLAS library use one thread; afterwards the setting is restored."""
    torch.set_num_threads(2)
    try:
        with single_threaded():
            assert torch.get_num_threads() == 1
            assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
