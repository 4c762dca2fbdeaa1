"""How much each training row counts: five weightings, from equal to the rarity of a row's rarest cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.errors import ConfigError

WEIGHTINGS = ("equal", "x3", "x10", "root of rarity", "rarity")


def row_weights(weighting: str, y: NDArray[np.int64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return float[N] with mean 1.

    Parameters
    ----------
    weighting
        ``equal``; ``x3`` and ``x10`` for rows in any slice; ``rarity``, the largest n / n_cell over the row's
        cells of slice and class, from 1 to 20; ``root of rarity``, its square root, from 1 to 10.
    y
        int[N], classes.
    member
        bool[N, K], known members of the slices that matter.

    Raises
    ------
    ConfigError
        If there is no such weighting.

    Examples
    --------
    >>> row_weights("x3", np.array([0, 1]), np.array([[True], [False]])).tolist()
    [1.5, 0.5]
    """
    if weighting not in WEIGHTINGS:
        raise ConfigError(f"there is no weighting {weighting!r}; the weightings are {', '.join(WEIGHTINGS)}")
    raw = np.ones(len(y))
    if weighting in ("x3", "x10"):
        raw[member.any(axis=1)] = int(weighting[1:])
    elif weighting == "rarity":
        raw = np.clip(cell_rarity(y, member), 1, 20)
    elif weighting == "root of rarity":
        raw = np.clip(np.sqrt(cell_rarity(y, member)), 1, 10)
    weights: NDArray[np.float64] = raw / raw.mean()
    return weights


def cell_rarity(y: NDArray[np.int64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return per row the largest n / n_cell over its cells of slice and class; 1 for a row in no slice."""
    rarity = np.ones(len(y))
    for k in range(member.shape[1]):
        rows = np.flatnonzero(member[:, k])
        sizes = np.bincount(y[rows])
        rarity[rows] = np.maximum(rarity[rows], len(y) / sizes[y[rows]])
    return rarity
